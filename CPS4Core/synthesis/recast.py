"""Real slices in other looks: turned, scaled and bent, their grey values changed as if by another scanner."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from CPS4Core.synthesis.appearance import SAMPLED, Appearance, finish, nearest, standardise, view

KNOTS = 7
"""Points of a random curve of grey values."""


def recast(draw: Appearance, images: Tensor, labels: Tensor, source_mm: float) -> tuple[Tensor, Tensor]:
    """Return real slices as another scanner might have made them, and their labels.

    Args:
        draw: the random source, the size and the spacing of the result.
        images: standardised slices, exactly 0 outside the scan, (n, 1, rows, columns).
        labels: class labels, ``IGNORE`` where unknown, (n, rows, columns).
        source_mm: pixel size of the slices.

    Returns:
        Images (n, 1, H, W) and labels, int64, (n, H, W).
    """
    images, inside, grid = _look_at(draw, images, source_mm)
    labels = nearest(labels, grid)
    return finish(_other_scanner(draw, images), labels, inside, draw)


def two_looks(draw: Appearance, images: Tensor, source_mm: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return two looks at the same part of real slices: as they are, for a teacher, and changed, for a student.

    Args:
        draw: the random source, the size and the spacing of the result.
        images: standardised slices, exactly 0 outside the scan, (n, 1, rows, columns).
        source_mm: pixel size of the slices.

    Returns:
        The weak and the strong look, (n, 1, H, W), and which pixels of the strong one lie in the scan, (n, H, W).
    """
    images, inside, _ = _look_at(draw, images, source_mm)
    weak = standardise(images, inside)
    strong, seen = finish(_other_scanner(draw, images), inside.long(), inside, draw)
    return weak, strong, seen > 0


def _look_at(draw: Appearance, images: Tensor, source_mm: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return a random view of slices, which pixels lie in the scan, and the grid that it samples."""
    grid, inside = view(
        draw,
        len(images),
        images.shape[-2:],
        source_mm,
        turn=15.0,
        scale=(0.75, 1.3),
        stretch=0.08,
        shift=(35.0, 90.0),
        bend=5.0,
    )
    known = F.grid_sample((images != 0).float(), grid, mode="nearest", align_corners=False)[:, 0] > 0
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False), inside & known, grid


def _other_scanner(draw: Appearance, images: Tensor) -> Tensor:
    return (_change_greys(draw, images[:, 0]) * draw.shading(len(images)) ** 0.5)[:, None]


def _change_greys(draw: Appearance, images: Tensor) -> Tensor:
    """Return grey values in 0 to about 1, through a power, or a random curve, or as they are; (n, H, W)."""
    count = len(images)
    sample = images.flatten(1)[:, ::SAMPLED]
    low, high = torch.quantile(sample, torch.tensor([0.005, 0.995], device=draw.device), dim=1)[
        ..., None, None
    ]
    greys = ((images - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    powers = greys ** draw.uniform(count, 0.55, 1.8)[:, None, None]
    heights = draw.rand(count, KNOTS)
    heights[:, 0] *= 0.2
    place = (greys * (KNOTS - 1)).clamp(0, KNOTS - 1 - 1e-4)
    before = place.long().flatten(1)
    share = place.flatten(1) - before
    curved = (heights.gather(1, before) * (1 - share) + heights.gather(1, before + 1) * share).view_as(greys)
    kind = draw.rand(count)[:, None, None]
    return torch.where(kind < 0.45, powers, torch.where(kind < 0.8, curved, greys))
