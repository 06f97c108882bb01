"""FILIP (Yao et al., 2022) and, with where the reader looked, EGMA (Ma et al., 2024).

Where we differ: there are no reports and no gaze. The prompts of the classes that a slice shows are its sentences,
and where a class lies stands for where the reader looked. Slices that show the same classes have the same report and
are positives of each other. EGMA's cross-modality mapping (section 3.3) is left out: the paper does not say how its
weights are made sparse.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from CPS4Core.baselines.captions import same_caption
from CPS4Core.baselines.contrast import LearnableScale, evenly, matching_loss, similarity
from CPS4Core.config import PretrainSettings
from CPS4Core.vision_language.losses import token_masks
from CPS4Core.vision_language.model import ClassPromptModel
from CPS4Core.vision_language.objective import Objective

TEXT_TO_PATCH = 0.8
PATCH_TO_TEXT = 0.2
"""Shares of the two directions in the gaze loss; equation 6 of the paper weighs them alike, its code does not."""


class FILIP(Objective):
    """1/2 (L_I2T + L_T2I): contrast of slices and their sentences by late interaction (EGMA, eq. 2 and 5).

    The temperature tau is learnt as in CLIP, from the same start (EGMA, appendix B.1). Each process contrasts its own
    share of the batch.
    """

    def __init__(self, model: ClassPromptModel, settings: PretrainSettings):
        super().__init__(model, settings)
        self.scale = LearnableScale()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        contrast = self._contrast(*self._read(images, labels))
        return {"total": contrast, "contrast": contrast}

    def after_step(self, step: int) -> None:
        self.scale.limit()

    def _read(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compare patches and sentences (EGMA, eq. 3), leaving out slices of which nothing is known.

        Returns:
            x, the cosine of each patch and class prompt, shape (slices, patches, classes); GL, whether the class
            covers the patch, bool, the same shape; and the patches whose label is known, bool, (slices, patches).
        """
        F_I = self.model.patch_tokens(images)
        F_T = self.model.prompt_tokens(self.model.class_prompts())
        x = similarity(F_I.flatten(1, 2), F_T)
        M, valid = token_masks(labels, F_I.shape[1:3], self.settings.mask_coverage)
        GL = ((M > 0) & valid.unsqueeze(1)).flatten(2).mT
        known = GL.flatten(1).any(1)
        return x[known], GL[known], valid.flatten(1)[known]

    def _contrast(self, x: Tensor, GL: Tensor, valid: Tensor) -> Tensor:
        sentences = GL.any(1)
        y = evenly(same_caption(sentences))  # the same both ways
        s_I2T, s_T2I = late_interaction(x, sentences, valid)
        return (matching_loss(self.scale(s_I2T), y) + matching_loss(self.scale(s_T2I), y)) / 2


class EGMA(FILIP):
    """L_EGF: the contrast of FILIP and the gaze loss (section 3.2)."""

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        x, GL, valid = self._read(images, labels)
        contrast, gaze = self._contrast(x, GL, valid), gaze_loss(x, GL, valid)
        return {"total": contrast + gaze, "contrast": contrast, "gaze": gaze}


def late_interaction(x: Tensor, sentences: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return how alike slices and reports are: each patch, or sentence, counts with what is most like it (eq. 5).

    Args:
        x: cosine of patches and class prompts, shape (slices, patches, classes).
        sentences: the classes that each slice's report names, at least one, bool, shape (slices, classes).
        valid: the patches that count, at least one a slice, bool, shape (slices, patches).

    Returns:
        s_I2T, slices by reports, and s_T2I, reports by slices, both (slices, slices), values in [-1, 1].
    """
    best_sentence = x.unsqueeze(1).masked_fill(~sentences.unsqueeze(1), -math.inf).amax(-1)
    best_patch = x.masked_fill(~valid.unsqueeze(-1), -math.inf).amax(1)
    return _mean(best_sentence, valid.unsqueeze(1)), _mean(best_patch, sentences.unsqueeze(1))


def gaze_loss(x: Tensor, GL: Tensor, valid: Tensor) -> Tensor:
    """Return the multi-label loss between similarities and gaze, in both directions (eq. 4): a scalar >= 0.

    Only the sentences of a slice's own report take part, and as in the paper the cosine as it is, without tau.

    Args:
        x: cosine of patches and class prompts, shape (slices, patches, classes).
        GL: whether the gaze of a sentence covers a patch, bool, the same shape.
        valid: the patches that count, at least one a slice, bool, shape (slices, patches).
    """
    sentences = GL.any(1)
    others = ~GL & valid.unsqueeze(-1) & sentences.unsqueeze(1)
    L_S2P = _mean(multi_label_loss(x.mT, GL.mT, others.mT), sentences)
    L_P2S = _mean(multi_label_loss(x, GL, others), valid)
    return (TEXT_TO_PATCH * L_S2P + PATCH_TO_TEXT * L_P2S).sum() / max(len(x), 1)


def multi_label_loss(s: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return log(1 + sum over negatives of e^s) + log(1 + sum over positives of e^-s), over the last axis.

    Args:
        s: similarities, shape (..., n).
        positives, negatives: bool, the same shape; what is in neither counts for nothing.
    """
    return _log_one_plus_sum_exp(s, negatives) + _log_one_plus_sum_exp(-s, positives)


def _log_one_plus_sum_exp(s: Tensor, counted: Tensor) -> Tensor:
    # The zero that is put in front is the one of the sum.
    return F.pad(s.masked_fill(~counted, -math.inf), (1, 0)).logsumexp(-1)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Average over the last axis what counts; something must."""
    return (values * counted).sum(-1) / counted.sum(-1)
