"""Class-specific consistency constraint: the objective of the paper (section 2.1)."""

from __future__ import annotations

from torch import Tensor

from CPS4Core.vision_language.losses import pixel_attention_loss, token_attention_loss, token_masks
from CPS4Core.vision_language.objectives.objective import Objective


class CPS4Objective(Objective):
    """1/2 (L_token + L_pixel), eq. 1 and 2."""

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        F_T = self.model.prompt_tokens(self.model.class_prompts())
        A = self.model.attention(images, F_T)
        M, valid = token_masks(labels, A.shape[-2:], self.settings.mask_coverage)
        token = token_attention_loss(A, M, valid)  # eq. 1
        pixel = pixel_attention_loss(A, M, valid, self.settings.absent_classes)  # eq. 2
        return {"total": (token + pixel) / 2, "token": token, "pixel": pixel}
