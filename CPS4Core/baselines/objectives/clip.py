"""CLIP (Radford et al., 2021), from captions that list what a slice shows.

Slices with the same structures share a caption, so that a slice has several positives; published, it has one.
"""

from __future__ import annotations

from torch import Tensor

from CPS4Core.baselines.captions import present_classes, same_caption
from CPS4Core.baselines.contrast import LearnableScale, distinct_captions, info_nce, similarity
from CPS4Core.config import PretrainSettings
from CPS4Core.vision_language.model import ClassPromptModel
from CPS4Core.vision_language.objective import Objective


class CLIP(Objective):
    """Symmetric InfoNCE of slices and captions, with a learnable scale (sections 2.3 and 2.5, figure 3).

    Each process contrasts its own share of the batch.
    """

    def __init__(self, model: ClassPromptModel, settings: PretrainSettings):
        super().__init__(model, settings)
        self.scale = LearnableScale()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        present = present_classes(labels)
        captions, places = distinct_captions(present)
        image_tokens, _ = self.model.image_tokens(images)
        text_tokens = self.model.prompt_tokens(captions)[places]
        total = info_nce(self.scale(similarity(image_tokens, text_tokens)), same_caption(present))
        return {"total": total}

    def after_step(self, step: int) -> None:
        self.scale.limit()
