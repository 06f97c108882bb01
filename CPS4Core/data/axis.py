"""How one in-plane axis of a volume is sampled on the canvas, and back.

Coordinates are those of pixel centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

CANVAS_STEP = 32
"""A canvas grows to multiples of this, which every network and vision transformer here can take."""
NEGLIGIBLE = 1e-6
"""Weights of an interpolation below this are left out."""


@dataclass(frozen=True)
class Axis:
    """How one in-plane axis of the canvas samples that of the volume: position = start + step * pixel."""

    length: int
    """Pixels of the volume."""
    canvas: int
    """Pixels of the canvas."""
    start: float
    """Where the first canvas pixel lies, in pixels of the volume."""
    step: float
    """From one canvas pixel to the next, in pixels of the volume."""
    border: tuple[int, int] = (0, 0)
    """Pixels before and after the picture that show nothing: as good as outside of the volume."""

    @classmethod
    def stretched(cls, length: int, canvas: int, first_edge: float, extent: float) -> Axis:
        """Return the axis whose canvas covers ``extent`` pixels from ``first_edge``, both between pixels."""
        step = extent / canvas
        return cls(length, canvas, first_edge + step / 2 - 0.5, step)

    @classmethod
    def centred(
        cls, length: int, canvas: int, step: float, whole: bool, border: tuple[int, int] = (0, 0)
    ) -> Axis:
        """Return the axis whose canvas has its centre in the picture's centre.

        Args:
            length: pixels of the volume.
            canvas: pixels of the canvas.
            step: from one canvas pixel to the next, in pixels of the volume.
            whole: let the canvas grow until it covers the whole picture.
            border: pixels before and after the picture that show nothing.
        """
        shown = length - sum(border)
        if whole:
            needed = int(np.ceil(shown / step - 1e-6))
            canvas = max(canvas, -(-needed // CANVAS_STEP) * CANVAS_STEP)
        return cls(length, canvas, border[0] + (shown - 1) / 2 - step * (canvas - 1) / 2, step, border)

    @property
    def first(self) -> int:
        """The first pixel of the picture."""
        return self.border[0]

    @property
    def last(self) -> int:
        """The last pixel of the picture."""
        return self.length - 1 - self.border[1]

    @property
    def positions(self) -> np.ndarray:
        """Where each canvas pixel lies, in pixels of the volume."""
        return self.start + self.step * np.arange(self.canvas)

    @property
    def inside(self) -> np.ndarray:
        """Which canvas pixels lie in the picture."""
        return (self.positions >= self.first - 0.5) & (self.positions <= self.last + 0.5)

    @property
    def window(self) -> slice:
        """The same as a range."""
        places = np.flatnonzero(self.inside)
        return slice(int(places[0]), int(places[-1]) + 1)

    @property
    def cubic(self) -> np.ndarray:
        """Matrix (canvas, length) that interpolates with cubic splines, smoothing first where it shrinks."""
        return _cubic_matrix(self)

    def resample(self, values: Tensor) -> Tensor:
        """Return ``cubic @ values``, float32: values (..., length, n) at the canvas pixels (..., canvas, n)."""
        resampled = values.new_zeros(*values.shape[:-2], self.canvas, values.shape[-1])
        for start in range(0, self.canvas, CANVAS_STEP):
            rows = slice(start, start + CANVAS_STEP)
            # A spline reaches only so far: most of the matrix is zero.
            used = np.flatnonzero(self.cubic[rows].any(0))
            if len(used):
                columns = slice(used[0], used[-1] + 1)
                weights = torch.from_numpy(self.cubic[rows, columns])
                resampled[..., rows, :] = weights @ values[..., columns, :]
        return resampled

    def back(self) -> tuple[slice, np.ndarray, np.ndarray]:
        """Return how values on the canvas are interpolated linearly at the volume's pixels.

        Returns:
            The picture's pixels that lie on the canvas, for each the canvas pixel before it, and the weight of the one
            after.
        """
        low = max(self.first, int(np.ceil(self.start - self.step / 2)))
        high = min(self.last, int(np.floor(self.start + self.step * (self.canvas - 0.5)))) + 1
        position = ((np.arange(low, high) - self.start) / self.step).clip(0, self.canvas - 1)
        before = np.minimum(position.astype(int), self.canvas - 2)
        return slice(low, high), before, (position - before).astype(np.float32)


@lru_cache(maxsize=16)
def _cubic_matrix(axis: Axis) -> np.ndarray:
    shown = axis.last - axis.first + 1
    identity = np.eye(shown)
    if axis.step > 1:
        identity = gaussian_filter1d(identity, (axis.step - 1) / 2, axis=0, mode="nearest")
    spline = make_interp_spline(np.arange(shown), identity, k=min(3, shown - 1))
    matrix = spline((axis.positions - axis.first).clip(0, shown - 1))
    matrix[np.abs(matrix) < NEGLIGIBLE] = 0
    return np.pad(matrix * axis.inside[:, None], ((0, 0), axis.border)).astype(np.float32)
