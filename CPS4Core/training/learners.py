"""What the base model consists of, and the loss of each: the network, the encoders, and the network once more.

Each keeps a running average of its weights, which is the result.
"""

from __future__ import annotations

from copy import deepcopy
from typing import ClassVar

import torch
from torch import Tensor, nn

from CPS4Core.card import ENCODERS, NETWORK
from CPS4Core.class_table import BACKGROUND, IGNORE
from CPS4Core.config import Settings
from CPS4Core.segmentation.losses import cross_entropy
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.vision_language.maps import text_maps
from CPS4Core.vision_language.model import ClassPromptModel
from CPS4Core.vision_language.objective import CPS4Objective


class Learner(nn.Module):
    """A part of the base model and its running average.

    Args:
        model: what is trained.
        decay: of the average.
    """

    part: ClassVar[str]
    """Which part of a model folder the average is."""
    average: nn.Module

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        self.model = model
        self.average = deepcopy(model).requires_grad_(False)
        self.decay = decay

    def start_from(self, network: ResidualUNet) -> None:
        """Begin with a trained segmentation network."""
        raise NotImplementedError

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Let the average follow the weights; faster in the first steps."""
        share = 1 - min(self.decay, step / (step + 10))
        theirs = self.model.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(theirs[name], share)
            else:
                value.copy_(theirs[name])


class _LearnerOfNetwork(Learner):
    """The segmentation network, however it learns."""

    part = NETWORK

    def __init__(self, settings: Settings):
        super().__init__(ResidualUNet(settings.train.widths), settings.base.decay)

    def start_from(self, network: ResidualUNet) -> None:
        """Begin with a trained network."""
        for module in (self.model, self.average):
            module.load_state_dict(network.state_dict())

    def supervised(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return cross-entropy, Dice loss and their sum."""
        terms = {"cross_entropy": cross_entropy(logits, labels), "dice": present_dice_loss(logits, labels)}
        return terms | {"total": terms["cross_entropy"] + terms["dice"]}


class NetworkLearner(_LearnerOfNetwork):
    """The segmentation network, on labelled and synthetic slices."""

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss terms of slices (n, 1, H, W) with labels (n, H, W)."""
        return self.supervised(self.model(images).float(), labels)


class PromptLearner(Learner):
    """The encoders, by the objective of CPS4 (eq. 1-2)."""

    part = ENCODERS
    model: ClassPromptModel
    average: ClassPromptModel

    def __init__(self, model: ClassPromptModel, settings: Settings):
        super().__init__(model, settings.base.decay)
        self.settings = settings.pretrain

    def start_from(self, network: ResidualUNet) -> None:
        """Begin with the trunk of a trained segmentation network."""
        for model in (self.model, self.average):
            model.start_from(network.state_dict())

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss terms of slices (n, 1, H, W) with labels (n, H, W)."""
        return CPS4Objective(self.model, self.settings)(images, labels)


class SemiSupervisedLearner(_LearnerOfNetwork):
    """Stage 2 of CPS4 on top: the averaged network teaches on unlabelled slices, helped by the class prompts.

    The teacher and the prompts see a slice as it is, the student in another look.

    Args:
        settings: the whole settings; ``base`` and ``train.widths`` matter.
        encoders: trained and frozen.
    """

    F_T: Tensor

    def __init__(self, settings: Settings, encoders: ClassPromptModel):
        super().__init__(settings)
        self.least = settings.base.confidence
        self.least_peak = settings.train.presence_threshold
        # Not a child: its weights are no part of the network's checkpoint.
        self._encoders = [encoders.eval().requires_grad_(False)]
        with torch.no_grad():
            self.register_buffer("F_T", encoders.prompt_tokens(encoders.class_prompts()), persistent=False)

    def forward(self, images: Tensor, labels: Tensor, weak: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the loss terms.

        Args:
            images: labelled and synthetic slices, then strong looks at unlabelled ones, (n + m, 1, H, W).
            labels: of the first n, (n, H, W).
            weak: weak looks at the unlabelled slices, (m, 1, H, W).
            seen: where the strong looks show something, bool, (m, H, W).
        """
        logits = self.model(images).float()
        terms = self.supervised(logits[: len(labels)], labels)
        target = self.pseudo_labels(weak).masked_fill(~seen, IGNORE)
        terms["semi_enhanced"] = cross_entropy(logits[len(labels) :], target)  # eq. 7
        terms["total"] = terms["total"] + terms["semi_enhanced"]
        return terms

    @torch.no_grad()
    def pseudo_labels(self, weak: Tensor) -> Tensor:
        """Return argmax(z_t + y_text) of eq. 7, ``IGNORE`` where the teacher is unsure even so, (m, H, W)."""
        self.average.eval()
        z_t = self.average(weak).float()
        encoders = self._encoders[0].to(weak.device)
        A = encoders.attention(weak, self.F_T)
        # The encoders have learnt which classes a slice lacks: their maps are empty.
        y_text = text_maps(A, weak.shape[-2:], least_peak=self.least_peak).binary.float()  # eq. 3
        y_text[:, BACKGROUND] = 0  # no map set: nothing is known
        enhanced = z_t + y_text
        sure, target = enhanced.softmax(1).max(1)
        return target.masked_fill(sure < self.least, IGNORE)


def present_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return one minus the soft Dice over the batch, mean over the classes that the target holds.

    Args:
        logits: shape (images, classes, H, W).
        target: labels, int64, shape (images, H, W), ``IGNORE`` where unknown.
    """
    known = target != IGNORE
    truth = target.masked_fill(~known, 0)
    p = logits.softmax(1) * known[:, None]
    of_truth = p.gather(1, truth[:, None])[:, 0]
    classes = p.new_zeros(logits.shape[1])
    overlap = classes.index_add(0, truth.flatten(), of_truth.flatten())
    held = classes.index_add(0, truth.flatten(), known.flatten().to(p.dtype))
    dice = 2 * overlap / (p.sum((0, 2, 3)) + held + 1e-5)
    there = (held > 0).to(p.dtype)
    return 1 - (dice * there).sum() / there.sum().clamp_min(1)
