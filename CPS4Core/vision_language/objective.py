"""What every objective of stage 1 has in common, and that of CPS4."""

from __future__ import annotations

from torch import Tensor, nn

from CPS4Core.config import PretrainSettings
from CPS4Core.vision_language.losses import pixel_attention_loss, token_attention_loss, token_masks
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


class CPS4Objective(Objective):
    """The class-specific consistency constraint of the paper (section 2.1): 1/2 (L_token + L_pixel), eq. 1 and 2.

    One of them alone where the settings ask for the ablation.
    """

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        F_T = self.model.prompt_tokens(self.model.class_prompts())
        A = self.model.attention(images, F_T)
        M, valid = token_masks(labels, A.shape[-2:], self.settings.mask_coverage)
        token = token_attention_loss(A, M, valid)  # eq. 1
        pixel = pixel_attention_loss(A, M, valid, self.settings.absent_classes)  # eq. 2
        total = {"both": (token + pixel) / 2, "token": token, "pixel": pixel}[self.settings.terms]
        return {"total": total, "token": token, "pixel": pixel}
