"""UCMT (Shen et al., 2023): two students teach each other and mix their images where they are unsure.

Where we differ: the published students see two views of a slice and exchange patches between them. A batch holds
one view, as for every system here, so the other image is the next slice of the batch. The losses of step 1, on the
slices, and of step 2, on mixed ones, are added and minimised by one optimiser step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.losses import dice_loss
from CPS4Core.segmentation.methods.method import Batch, TaughtMethod
from CPS4Core.segmentation.pseudo_labels import ramp
from CPS4Core.segmentation.unet import ResidualUNet

PSEUDO_WEIGHT = 0.1
"""alpha."""
MIXED = 2
"""k, the patches of an image that UMIX replaces."""
GRID = 4
"""Patches per side of an image: 16 in all, each a sixteenth of it."""


class UCMT(TaughtMethod):
    """L_sup + alpha lambda(t) 1/2 (L_cps + L_mts), the sum over both students and both steps.

    All are Dice losses to hard labels: the truth (``sup``), the other student's labels (``cps``) and those of the
    teacher (``mts``), which follows the first student. Labelled slices are mixed too, along with their labels.
    Begun from one trained network, the students stay alike: the system is then a mean teacher.
    """

    def __init__(self, settings: TrainSettings):
        super().__init__(settings)
        self.second = ResidualUNet(settings.widths)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        n = len(batch.labelled)
        x = torch.cat([batch.labelled, batch.unlabelled])
        y_1, y_2, y_t = self.student(x), self.second(x), self.teacher(x)
        label_1, label_2, label_t = (torch.cat([batch.labels, y[n:].argmax(1)]) for y in (y_1, y_2, y_t))

        order_1, order_2 = by_uncertainty(y_1, y_t), by_uncertainty(y_2, y_t)
        x_1, *labels_1 = self._mix(n, [x.squeeze(1), label_2, label_t], order_1, order_2)
        x_2, *labels_2 = self._mix(n, [x.squeeze(1), label_1, label_t], order_2, order_1)
        z_1, z_2 = self.student(x_1.unsqueeze(1)), self.second(x_2.unsqueeze(1))

        weight = PSEUDO_WEIGHT * ramp(batch.progress, 1.0)
        sup, cps, mts = _losses(n, y_1, label_2, label_t) + _losses(n, y_2, label_1, label_t)
        step_1 = sup + weight * (cps + mts) / 2
        mixed_sup, mixed_cps, mixed_mts = _losses(n, z_1, *labels_1) + _losses(n, z_2, *labels_2)
        step_2 = mixed_sup + weight * (mixed_cps + mixed_mts) / 2
        return {"total": step_1 + step_2, "sup": sup, "cps": cps, "mts": mts, "mixed": step_2}

    def _mix(self, n: int, tensors: list[Tensor], order: Tensor, other_order: Tensor) -> list[Tensor]:
        """Replace the patches that one student is least sure of by those of the next slice the other is surest of.

        Args:
            n: number of labelled slices, the first ones; labelled and unlabelled slices are mixed among themselves.
            tensors: images and labels to mix alike, shape (images, H, W).
            order: patches of the one student, the surest first, shape (images, patches).
            other_order: those of the other student.
        """
        replaced = order.flip(1)[:, :MIXED]
        same_place = self.settings.baselines.ucmt.same_place
        taken = replaced if same_place else _next(other_order, n)[:, :MIXED]
        return [replace_patches(values, replaced, _next(values, n), taken) for values in tensors]


def by_uncertainty(logits: Tensor, teacher_probabilities: Tensor) -> Tensor:
    """Sort the patches of each image by the mean entropy of what student and teacher make of them together.

    Args:
        logits: the student's, shape (images, classes, H, W).
        teacher_probabilities: shape (images, classes, H, W).

    Returns:
        Numbers of the patches, row by row, the surest first, shape (images, patches).
    """
    mean = (logits.detach().float().softmax(1) + teacher_probabilities) / 2
    entropy = torch.special.entr(mean).sum(1)
    return _patches(entropy).mean((-2, -1)).flatten(1).argsort(dim=1, stable=True)


def replace_patches(values: Tensor, replaced: Tensor, others: Tensor, taken: Tensor) -> Tensor:
    """Return ``values`` with the patches ``replaced`` by the patches ``taken`` from ``others`` (UMIX).

    Args:
        values: images or labels, shape (images, H, W).
        replaced: numbers of the patches to replace, int64, shape (images, k).
        others: the same shape as ``values``.
        taken: numbers of the patches to put there, int64, shape (images, k).
    """
    mixed = values.clone()
    image = torch.arange(len(values), device=values.device).unsqueeze(1)
    new = _patches(others)[image, taken // GRID, taken % GRID]
    _patches(mixed)[image, replaced // GRID, replaced % GRID] = new
    return mixed


def _losses(n: int, logits: Tensor, cross_labels: Tensor, teacher_labels: Tensor) -> Tensor:
    """Return L_sup of the first ``n`` slices, L_cps and L_mts of the others, of one student, shape (3,)."""
    supervised = dice_loss(logits[:n], cross_labels[:n])
    return torch.stack(
        [supervised, dice_loss(logits[n:], cross_labels[n:]), dice_loss(logits[n:], teacher_labels[n:])]
    )


def _patches(values: Tensor) -> Tensor:
    """View (images, H, W) as patches (images, GRID, GRID, h, w); the few pixels left over at the end are in none."""
    h, w = (side // GRID for side in values.shape[-2:])
    return values[:, : GRID * h, : GRID * w].unfold(1, h, h).unfold(2, w, w)


def _next(values: Tensor, n: int) -> Tensor:
    """Return for each slice what the next one has, the first ``n`` slices and the others in a circle each."""
    return torch.cat([values[:n].roll(-1, 0), values[n:].roll(-1, 0)])
