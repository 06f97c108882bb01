"""UCMT (Shen et al., 2023): two students teach each other, on slices mixed where they are unsure.

Each student sees its own view of an unlabelled slice, jittered and blurred; the teacher sees the slice itself. Where
we differ: the losses of step 1, on slices, and of step 2, on mixed ones, are added and minimised by one optimiser
step, where theirs takes two, since the training loop has one step for every system; and the teacher follows the first
student alone, where theirs takes a hundredth of the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from CPS4Core.config import TrainSettings
from CPS4Core.data.augment import blur
from CPS4Core.segmentation.losses import dice_loss
from CPS4Core.segmentation.methods.method import Batch, TaughtMethod
from CPS4Core.segmentation.pseudo_labels import ramp
from CPS4Core.segmentation.unet import ResidualUNet

PSEUDO_WEIGHT = 0.1
"""alpha."""
MIXED = 2
"""k, the patches of an image that UMIX replaces for each student."""
GRID = 16
"""Patches per side of an image: 256 in all, of which 4 change hands, 1.6 % of it."""
RAMP = 0.2
"""Share of the training over which the pseudo-labels gain their weight."""
CONTRAST, BRIGHTNESS = (0.5, 1.5), 0.5
"""A view's factor on the deviation from the mean, and the most that is added, in standard deviations of the slice."""
BLUR, BLUR_PROBABILITY = 2.0, 0.5
"""Largest standard deviation of a view's Gaussian filter, in pixels, and how often there is one."""


class UCMT(TaughtMethod):
    """L_sup + alpha lambda(t) 1/2 (L_cps + L_mts), the sum over both students and both steps.

    All are Dice losses to hard labels: the truth (``sup``), the other student's labels (``cps``) and those of the
    teacher (``mts``). Labelled slices are mixed too, along with their labels.
    """

    average_buffers = False

    def __init__(self, settings: TrainSettings):
        super().__init__(settings)
        self.second = ResidualUNet(settings.widths)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        n = len(batch.labelled)
        x = torch.cat([batch.labelled, batch.unlabelled])
        x_1, x_2 = view(x), view(batch.unlabelled)
        y_1 = self.student(torch.cat([batch.labelled, x_1[n:]]))
        y_2 = self.second(torch.cat([batch.labelled, x_2]))
        y_t = self.teacher(x)
        taught = torch.cat([batch.labels, y_t[n:].argmax(1)])
        step_1, terms = self._step(batch, y_1, y_2, taught)

        orders = by_uncertainty(y_1, y_t), by_uncertainty(y_2, y_t)
        mixed, taught = swap_patches(x_1[:, 0], *orders), swap_patches(taught, *orders)
        z_1, z_2 = (network(mixed.unsqueeze(1)) for network in (self.student, self.second))
        step_2, _ = self._step(batch, z_1, z_2, taught)
        return {"total": step_1 + step_2, **terms, "mixed": step_2}

    def _step(
        self, batch: Batch, y_1: Tensor, y_2: Tensor, taught: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one step, and its terms.

        Args:
            batch: its labelled slices come first in the others.
            y_1: logits of the first student, shape (images, classes, H, W).
            y_2: logits of the second.
            taught: the truth, then the teacher's labels, int64, shape (images, H, W).
        """
        n = len(batch.labelled)
        label_1, label_2 = (y[n:].argmax(1) for y in (y_1, y_2))
        sup = dice_loss(y_1[:n], taught[:n]) + dice_loss(y_2[:n], taught[:n])
        cps = dice_loss(y_1[n:], label_2) + dice_loss(y_2[n:], label_1)
        mts = dice_loss(y_1[n:], taught[n:]) + dice_loss(y_2[n:], taught[n:])
        weight = PSEUDO_WEIGHT * ramp(batch.progress, RAMP)
        return sup + weight * (cps + mts) / 2, {"sup": sup, "cps": cps, "mts": mts}


def view(images: Tensor) -> Tensor:
    """Return a student's view of slices (images, 1, H, W): other contrast and brightness, and at times a blur."""
    contrast, brightness, blurred, sigma = torch.rand(4, len(images), device=images.device)
    low, high = CONTRAST
    mean = images.mean((1, 2, 3), keepdim=True)
    spread = images.std((1, 2, 3), keepdim=True)
    contrast = (low + (high - low) * contrast)[:, None, None, None]
    brightness = (BRIGHTNESS * (2 * brightness - 1))[:, None, None, None]
    seen = (images - mean) * contrast + mean + brightness * spread
    return blur(seen, BLUR * sigma * (blurred < BLUR_PROBABILITY))


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


def swap_patches(values: Tensor, order_1: Tensor, order_2: Tensor) -> Tensor:
    """Return images or labels with the patches that each student is least sure of replaced (UMIX).

    There come those of the same image that the other student is surest of: first for the one student, then for the
    other.

    Args:
        values: shape (images, H, W).
        order_1: numbers of the patches, those that the first student is surest of first, shape (images, patches).
        order_2: those of the second.
    """
    mixed = values.clone()
    patches = _patches(mixed)
    image = torch.arange(len(values), device=values.device).unsqueeze(1)
    for mine, others in ((order_1, order_2), (order_2, order_1)):
        replaced, taken = mine.flip(1)[:, :MIXED], others[:, :MIXED]
        patches[image, replaced // GRID, replaced % GRID] = patches[image, taken // GRID, taken % GRID]
    return mixed


def _patches(values: Tensor) -> Tensor:
    """View (images, H, W) as patches (images, GRID, GRID, h, w); the few pixels left over at the end are in none."""
    h, w = (side // GRID for side in values.shape[-2:])
    return values[:, : GRID * h, : GRID * w].unfold(1, h, h).unfold(2, w, w)
