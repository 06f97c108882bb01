"""The two attention losses of stage 1 (eq. 1-2) and their targets.

Symbols follow the paper: A is the attention map of each class prompt over the patch tokens, M the binary mask of
the class at the resolution of A, N the number of classes present in the image, the background included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from CPS4Core.class_table import IGNORE, NUM_CLASSES

EPSILON = 1e-6


def token_attention_loss(attention: Tensor, mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """Draw each class prompt's attention into its structure (eq. 1).

    Args:
        attention: A, values in (0, 1), shape (..., classes, height, width).
        mask: M, binary or in 0 to 1, the same shape. A class whose mask is empty is absent and left out.
        valid: binary, shape (..., height, width); locations outside it count for nothing.

    Returns:
        The mean over the N classes present, then over images: a scalar in [0, 1].
    """
    A, M = _as_float(attention), mask.to(_as_float(attention).dtype)
    if valid is not None:
        A, M = A * valid.unsqueeze(-3), M * valid.unsqueeze(-3)
    inside = (A * M).sum((-2, -1))
    everywhere = A.sum((-2, -1)).clamp_min(EPSILON)
    return _mean_over_present((1 - inside / everywhere) ** 2, M)


def pixel_attention_loss(
    attention: Tensor, mask: Tensor, valid: Tensor | None = None, absent_classes: bool = False
) -> Tensor:
    """Spread each class prompt's attention over the whole of its structure, and nowhere else (eq. 2).

    Binary cross-entropy between A and M; the sum over locations u is a mean, so that the loss does not depend on
    the resolution.

    Args:
        attention: A, values in (0, 1), shape (..., classes, height, width).
        mask: M, binary or in 0 to 1, the same shape.
        valid: binary, shape (..., height, width); locations outside it count for nothing.
        absent_classes: also count the classes whose mask is empty, as all-zero targets.

    Returns:
        The mean over the N classes present (over all, with ``absent_classes``), then over images: a scalar >= 0.
    """
    A = _as_float(attention).clamp(EPSILON, 1 - EPSILON)
    M = mask.to(A.dtype)
    cross_entropy = -(M * A.log() + (1 - M) * (1 - A).log())
    if valid is None:
        per_class = cross_entropy.mean((-2, -1))
    else:
        weight = valid.unsqueeze(-3).to(A.dtype)
        M = M * weight
        per_class = (cross_entropy * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp_min(1)
    return per_class.mean() if absent_classes else _mean_over_present(per_class, M)


def token_masks(
    labels: Tensor, grid: Sequence[int], coverage: float | Literal["share"] = 0.0
) -> tuple[Tensor, Tensor]:
    """Return M of every class on the token grid, and where the truth is known.

    The share of each patch that a class covers is binarised at ``> coverage``: with 0, any coverage counts, since
    a thin disc fills less than half of a patch. With ``"share"`` the share itself is the target.

    Args:
        labels: class labels, ``IGNORE`` where unknown, integer, shape (images, H, W).
        grid: (h, w) of the attention map; H and W need not be multiples of them.

    Returns:
        M, bool, or float32 with ``"share"``, shape (images, classes, h, w), and the valid locations, bool, shape
        (images, h, w): those with no ignored pixel.
    """
    h, w = grid
    known = labels != IGNORE
    one_hot = F.one_hot(labels.long() * known, NUM_CLASSES).movedim(-1, 1) * known.unsqueeze(1)
    covered = F.adaptive_avg_pool2d(one_hot.float(), (h, w))
    valid = F.adaptive_avg_pool2d(known.float().unsqueeze(1), (h, w)).squeeze(1) > 1 - EPSILON
    return covered if coverage == "share" else covered > coverage, valid


def _mean_over_present(per_class: Tensor, mask: Tensor) -> Tensor:
    """Average values (..., classes) over the classes whose mask is not empty, then over images."""
    present = (mask > 0).flatten(-2).any(-1).to(per_class.dtype)
    classes = present.sum(-1)
    per_image = (per_class * present).sum(-1) / classes.clamp_min(1)
    images = (classes > 0).sum().clamp_min(1)
    return per_image.sum() / images


def _as_float(values: Tensor) -> Tensor:
    """Return half precision as float32: the sums and logarithms need it."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
