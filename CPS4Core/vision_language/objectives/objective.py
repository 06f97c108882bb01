"""What every objective of stage 1 has in common."""

from __future__ import annotations

from torch import Tensor, nn

from CPS4Core.config import PretrainSettings
from CPS4Core.vision_language.model import ClassPromptModel


class Objective(nn.Module):
    """A class prompt model and the loss that trains it on labelled slices.

    Args:
        model: the encoders to train.
        settings: those of stage 1.
    """

    def __init__(self, model: ClassPromptModel, settings: PretrainSettings):
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss; ``total`` is what training minimises.

        Args:
            images: standardised slices, shape (images, 1, H, W).
            labels: class labels, ``IGNORE`` where unknown, int64, shape (images, H, W).
        """
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """Update what the optimiser does not; ``step`` counts from 1."""
