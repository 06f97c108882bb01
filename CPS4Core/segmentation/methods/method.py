"""What every semi-supervised system has in common: networks, the loss of one step, what follows the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.losses import cross_entropy, dice_loss
from CPS4Core.segmentation.pseudo_labels import MeanTeacher
from CPS4Core.segmentation.unet import ResidualUNet


@dataclass(frozen=True)
class TextTargets:
    """What the class prompts say of the unlabelled slices of a step (eq. 3), as far as they are trusted."""

    maps: Tensor
    """y_text, the stacked binary maps, each times the trust in its class, shape (m, classes, H, W)."""
    labels: Tensor
    """The trusted maps merged into labels, int64, ``IGNORE`` where they say nothing, shape (m, H, W)."""
    trust: Tensor
    """Trust in the class of each pixel of ``labels``, 0 to 1, shape (m, H, W)."""
    certainty: Tensor
    """Attention of each class where its map is set, times the trust in it, 0 to 1, shape (m, classes, H, W)."""


@dataclass(frozen=True)
class Batch:
    """The slices of one training step, already augmented."""

    labelled: Tensor
    """x_l, standardised, shape (n, 1, H, W)."""
    labels: Tensor
    """y_g, int64, ``IGNORE`` where unknown, shape (n, H, W)."""
    unlabelled: Tensor
    """x_u, standardised, shape (m, 1, H, W): as the teacher and the text see it."""
    text_targets: TextTargets | None = None
    """Of x_u; None for a method without text."""
    progress: float = 0.0
    """Share of the training done, 0 to 1."""
    strong: Tensor | None = None
    """x_u as the student sees it, of the same shape and place; None: the same."""

    @property
    def text(self) -> TextTargets:
        """The text targets, for a method that needs them (``CPS4Core.systems``)."""
        assert self.text_targets is not None
        return self.text_targets


class Method(nn.Module):
    """One system of the paper's Table 1.

    A method is one file: it holds its networks, computes the loss of a step in ``forward`` and does in
    ``after_step`` what follows the optimiser. Its state dict is the whole of its state.

    Args:
        settings: those of stage 2.
    """

    needs_unlabelled: ClassVar[bool] = True
    """Whether the steps carry unlabelled slices."""
    takes_two_views: ClassVar[bool] = False
    """Whether its student may see an unlabelled slice otherwise than its teacher (``train.two_views``)."""

    def __init__(self, settings: TrainSettings):
        super().__init__()
        self.settings = settings
        self.student = ResidualUNet(settings.widths)

    @property
    def network(self) -> nn.Module:
        """The network that segments once training is done: the averaged one, where there is one."""
        return self.student

    @property
    def other_network(self) -> nn.Module | None:
        """The other one of teacher and student, which a finished model keeps too; None without a teacher."""
        return None

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with a trained network: all networks of the method take its ``weights``."""
        for module in self.modules():
            if isinstance(module, ResidualUNet):
                module.load_state_dict(weights)

    def student_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return y_l and y_s, the student's logits of the labelled and the unlabelled slices (eq. 4), in one pass."""
        x_u = batch.unlabelled if batch.strong is None else batch.strong
        y_l, y_s = self.student(torch.cat([batch.labelled, x_u])).tensor_split([len(batch.labelled)])
        return y_l, y_s

    def supervised_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return L_sup: the cross-entropy of eq. 5 and, where the settings ask for it, the Dice loss."""
        share = self.settings.dice_share
        loss = cross_entropy(logits, labels)
        return (1 - share) * loss + share * dice_loss(logits, labels) if share else loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss; ``total`` is what training minimises."""
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """Update what the optimiser does not; ``step`` counts from 1."""

    def after_validation(self, score: float) -> None:
        """Take note of how good ``network`` is now; higher is better."""


class TaughtMethod(Method):
    """A method whose student a mean teacher follows (eq. 4)."""

    average_buffers: ClassVar[bool] = True
    """Whether the teacher averages the batch normalisation statistics too."""

    def __init__(self, settings: TrainSettings):
        super().__init__(settings)
        self.teacher = MeanTeacher(self.student, settings.ema_decay, self.average_buffers)

    @property
    def network(self) -> nn.Module:
        return self.teacher.network

    @property
    def other_network(self) -> nn.Module:
        return self.student

    def after_step(self, step: int) -> None:
        self.teacher.follow(self.student, step)
