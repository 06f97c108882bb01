"""From class scores on the canvas to the best class at each pixel of the volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from CPS4Core.data.axis import Axis

ScoresAt = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Returns the class scores, (pixels, classes), at some pixels: their slices, rows and columns, (pixels,) each."""


def best_classes(scores_at: ScoresAt, best: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Return the class with the highest score at each pixel of the volume, the scores interpolated linearly.

    Where the four canvas pixels around a pixel agree on the best class, it is best in between as well, since each
    score there is one weighted mean of its four: only where they differ are scores interpolated.

    Args:
        scores_at: asked for the scores of the pixels on either side of a border.
        best: the class with the highest score, uint8, shape (slices, AP, SI), on any device.
        rows: how the canvas lies in the volume along AP.
        columns: the same along SI.

    Returns:
        Classes, uint8, shape (slices, rows.length, columns.length), on the same device; 0 outside the canvas.
    """
    down, across = _Cells(rows, best.device), _Cells(columns, best.device)
    # One row and one column too many: what lies beside a cell's pixels is written there.
    planes = best.new_zeros(len(best), rows.length + 1, columns.length + 1)
    spread = best.mT.index_select(1, across.before).mT  # along the columns first, while there are few rows
    planes[:, down.covered, across.covered] = spread.index_select(1, down.before)

    corner = best[:, :-1, :-1]
    differ = (corner != best[:, 1:, :-1]) | (corner != best[:, :-1, 1:]) | (corner != best[:, 1:, 1:])
    k, i, j = differ.nonzero(as_tuple=True)
    above, below = (
        torch.lerp(scores_at(k, row, j).unsqueeze(1), scores_at(k, row, j + 1).unsqueeze(1), across.weight[j])
        for row in (i, i + 1)
    )  # (cells, pixels across, classes)
    between = torch.lerp(above.unsqueeze(1), below.unsqueeze(1), down.weight[i].unsqueeze(-1))
    winners = between.argmax(-1).byte()
    planes[k[:, None, None], down.pixels[i].unsqueeze(2), across.pixels[j].unsqueeze(1)] = winners
    return planes[:, :-1, :-1]


def scores_in(maps: Tensor) -> ScoresAt:
    """Return the look-up in class scores of whole slices, (slices, classes, AP, SI)."""
    return lambda k, i, j: maps[k, :, i, j].float()


class _Cells:
    """The spaces between neighbouring canvas pixels along an axis, and the volume's pixels in each.

    Attributes:
        covered: the volume's pixels on the canvas.
        before: for each of them the canvas pixel before it.
        pixels: the pixels in each cell, shape (cells, most in a cell); filled up with the axis's length.
        weight: of the canvas pixel after each of them, shape (cells, most in a cell, 1).
    """

    def __init__(self, axis: Axis, device: torch.device):
        self.covered, before, weight = axis.back()
        counts = np.bincount(before, minlength=axis.canvas - 1)
        place = (counts.cumsum() - counts)[:, None] + np.arange(counts.max(initial=1))
        pixels = np.where(
            np.arange(place.shape[1]) < counts[:, None], self.covered.start + place, axis.length
        )
        weights = weight[place.clip(max=len(weight) - 1)]
        self.before = torch.from_numpy(before).to(device)
        self.pixels = torch.from_numpy(pixels).to(device)
        self.weight = torch.from_numpy(weights).to(device).unsqueeze(-1)
