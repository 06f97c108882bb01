"""What the objectives that contrast images with texts share: similarities, their scale and the loss on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from CPS4Core.baselines.captions import caption

FIRST_TEMPERATURE = 0.07
LARGEST_SCALE = 100.0
"""CLIP, section 2.5."""


class LearnableScale(nn.Module):
    """Scales similarities by exp(t), t learnt, from 1 / 0.07 and never above 100 (CLIP, sections 2.3 and 2.5)."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))

    def forward(self, similarities: Tensor) -> Tensor:
        """Return exp(t) times the similarities."""
        return self.t.exp() * similarities

    @torch.no_grad()
    def limit(self) -> None:
        """Bring the scale back to its limit; after the step and not in ``forward``, which would stop its gradient."""
        self.t.clamp_(max=math.log(LARGEST_SCALE))


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of each pair of unit vectors, in float32: half precision is too coarse for a scale of 100.

    Args:
        first: shape (..., n, dimension).
        second: shape (..., m, dimension).

    Returns:
        Values in [-1, 1], shape (..., n, m).
    """
    with torch.autocast(first.device.type, enabled=False):
        return first.float() @ second.float().mT


def matching_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of matching each row with the columns.

    -1/n sum_i sum_j y_ij log softmax_j(l_ij)

    Args:
        logits: l, scaled similarities, float32, shape (n, m).
        targets: y, each row of sum one, or zero where it has none, shape (n, m).

    Returns:
        A scalar >= 0; 0 without rows.
    """
    return -(targets * logits.log_softmax(1)).sum() / max(len(logits), 1)


def evenly(positives: Tensor) -> Tensor:
    """Return targets of sum one a row, spread evenly over its positives, bool, shape (n, m); zero if it has none."""
    return positives / positives.sum(1, keepdim=True).clamp_min(1)


def info_nce(logits: Tensor, positives: Tensor) -> Tensor:
    """Return the symmetric InfoNCE: rows are matched with their positives, and columns with theirs.

    With one positive each, it is the loss of CLIP. Where c texts are alike, the best possible loss is log c and not 0.

    Args:
        logits: scaled similarities, shape (n, m).
        positives: which pairs belong together, bool, shape (n, m).

    Returns:
        A scalar >= 0.
    """
    rows = matching_loss(logits, evenly(positives))
    columns = matching_loss(logits.mT, evenly(positives.mT))
    return (rows + columns) / 2


def distinct_captions(present: Tensor) -> tuple[list[str], list[int]]:
    """Return each caption of some slices once, in order of appearance, and the place in that list of each slice's.

    Args:
        present: which classes each slice shows, bool, shape (images, classes).
    """
    captions = [caption(shown) for shown in present.cpu()]
    distinct = list(dict.fromkeys(captions))
    return distinct, [distinct.index(text) for text in captions]
