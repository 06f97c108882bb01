"""DuSSS, its segmentation (Pan et al., AAAI 2025): the text maps are merged with the teacher's pseudo-label.

Published for two classes, with one logit a pixel. Ours reads a class's logit as its log-odds against all others, which
is the same with two classes. The text maps are those of stage 1, as for every text-guided system here, so no mask
decoder is trained along with the network and its loss falls away. The weights are those of the authors' CPS4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from CPS4Core.segmentation.losses import cross_entropy
from CPS4Core.segmentation.methods.method import Batch, TaughtMethod
from CPS4Core.segmentation.pseudo_labels import ramp

EPSILON = 1e-6
"""Keeps logits finite, also where a probability is rounded to above 1."""


class DuSSSSegmentation(TaughtMethod):
    """1/2 (L_text_semi + L_merged_semi) + L_sup."""

    takes_two_views = True

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        y_l, y_s = self.student_logits(batch)
        text = batch.text
        target = merge(self.teacher(batch.unlabelled), text.maps)
        supervised = self.supervised_loss(y_l, batch.labels)
        text_semi = cross_entropy(y_s, text.labels, text.trust)
        merged_semi = cross_entropy(y_s, target)
        semi = (self.settings.text_weight * text_semi + merged_semi) / 2
        total = ramp(batch.progress, self.settings.ramp) * semi + supervised
        return {"total": total, "sup": supervised, "text_semi": text_semi, "merged_semi": merged_semi}


def merge(teacher_probabilities: Tensor, text_maps: Tensor) -> Tensor:
    """Return the soft pseudo-label sigmoid(teacher + text), scaled to one over the classes.

    The sigmoid belongs to logits: of probabilities and maps, both 0 to 1, it would exceed 1/2 for every class. A set
    map multiplies the teacher's odds of its class by e: it decides where the teacher is unsure, and yields where not.

    Args:
        teacher_probabilities: softmax of the teacher's logits, shape (images, classes, H, W).
        text_maps: the stacked binary maps of the text, each times the trust in its class, the same shape.

    Returns:
        Class weights, float32, the same shape.
    """
    merged = torch.sigmoid(torch.logit(teacher_probabilities.float(), EPSILON) + text_maps)
    return merged / merged.sum(1, keepdim=True)
