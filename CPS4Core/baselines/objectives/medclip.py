"""MedCLIP (Wang et al., 2022): slices matched with class prompts as softly as their labels agree.

s is the dot product of the label vectors, as in the authors' code.
"""

from __future__ import annotations

from torch import Tensor

from CPS4Core.baselines.captions import present_classes
from CPS4Core.baselines.contrast import LearnableScale, matching_loss, similarity
from CPS4Core.config import PretrainSettings
from CPS4Core.vision_language.model import ClassPromptModel
from CPS4Core.vision_language.objective import Objective


class MedCLIP(Objective):
    """The semantic matching loss of slices and the 20 class prompts, with a learnable scale.

    The targets are softmax_j(s_ij) of each slice and softmax_i(s_ij) of each prompt.

    The label of a slice is the vector of the classes it shows, that of a prompt its class in one-hot form. The
    background is a class like the others: nearly every slice shows it, so its prompt learns to match them all alike,
    and stage 2 uses its map. Each process matches its own share of the batch.
    """

    def __init__(self, model: ClassPromptModel, settings: PretrainSettings):
        super().__init__(model, settings)
        self.scale = LearnableScale()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        s = present_classes(labels).float()  # times the identity, the labels of the prompts
        image_tokens, _ = self.model.image_tokens(images)
        text_tokens = self.model.prompt_tokens(self.model.class_prompts())
        logits = self.scale(similarity(image_tokens, text_tokens))
        slices_to_prompts = matching_loss(logits, s.softmax(1))
        prompts_to_slices = matching_loss(logits.mT, s.mT.softmax(1))
        return {"total": (slices_to_prompts + prompts_to_slices) / 2}

    def after_step(self, step: int) -> None:
        self.scale.limit()
