"""The mid-sagittal slice as a picture: head up, front on the left, in its real proportions. Plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from CPS4Core.measuring.voxels import Grid

HEAD, BACK = np.array([0.0, 0.0, 1.0]), np.array([0.0, -1.0, 0.0])
LONGER_SIDE = 900
"""Of a picture, in pixels: 250 dpi where it is printed 9 cm high."""


def middle_slice(grid: Grid, masks: Iterable[np.ndarray]) -> int:
    """Return the sagittal slice that shows most structures; of several, that nearest to the middle of the spine.

    Args:
        grid: of the volume.
        masks: of the structures, not zero inside, axes k, j, i.
    """
    slices = np.arange(grid.shape[grid.across])
    seen, middles = np.zeros(len(slices), int), []
    for mask in masks:
        voxels = np.count_nonzero(np.moveaxis(mask.T, grid.across, 0).reshape(len(slices), -1), axis=1)
        if voxels.any():
            seen += voxels > 0
            middles.append(float(voxels @ slices) / voxels.sum())
    middle = float(np.median(middles)) if middles else (len(slices) - 1) / 2
    return max(slices.tolist(), key=lambda number: (seen[number], -abs(number - middle)))


@dataclass(frozen=True)
class SagittalView:
    """How one acquired slice lies in a picture.

    The picture is turned within the slice alone, so nothing is mixed of two slices: up is where the patient's head is,
    as far as an oblique slice can show it.
    """

    grid: Grid
    number: int
    """Of the slice, from 0."""
    corner: np.ndarray
    """Where the middle of the first pixel, above and in front, lies in the patient."""
    back: np.ndarray
    """From one pixel to the next in a row, in mm in the patient."""
    down: np.ndarray
    """From one row to the next."""
    shape: tuple[int, int]
    """Rows and columns."""

    @classmethod
    def of(cls, grid: Grid, number: int) -> SagittalView:
        """Lay the whole of a slice into a picture."""
        first, second = (axis for axis in range(3) if axis != grid.across)
        normal = np.cross(grid.to_ras[:3, first], grid.to_ras[:3, second])
        normal = normal / np.linalg.norm(normal)
        up = HEAD - (HEAD @ normal) * normal
        up = up / np.linalg.norm(up)
        back = np.cross(up, normal)
        back = back * np.sign(back @ BACK)
        ends = np.full((4, 3), float(number))
        ends[:, first] = np.array([-0.5, grid.shape[first] - 0.5])[[0, 0, 1, 1]]
        ends[:, second] = np.array([-0.5, grid.shape[second] - 0.5])[[0, 1, 0, 1]]
        ends = grid.points(ends)
        size = np.array([np.ptp(ends @ -up), np.ptp(ends @ back)])
        step = size.max() / LONGER_SIDE
        rows, columns = np.maximum(np.rint(size / step).astype(int), 1).tolist()
        depth = (ends[0] @ normal) * normal
        corner = depth + ((ends @ back).min() + step / 2) * back + ((ends @ up).max() - step / 2) * up
        return cls(grid, number, corner, step * back, -step * up, (rows, columns))

    @property
    def step_mm(self) -> float:
        """Side of a pixel."""
        return float(np.linalg.norm(self.down))

    @property
    def in_plane(self) -> list[int]:
        """The two axes of the slice."""
        return [axis for axis in range(3) if axis != self.grid.across]

    @cached_property
    def indices(self) -> np.ndarray:
        """Where each pixel lies in the slice, in voxels along its two axes: 2, rows, columns."""
        rows, columns = np.indices(self.shape)
        places = self.corner + rows[..., None] * self.down + columns[..., None] * self.back
        return np.moveaxis(self.grid.indices(places)[..., self.in_plane], -1, 0)

    def slice_of(self, voxels: np.ndarray) -> np.ndarray:
        """Return the slice of a volume with axes k, j, i, along its own two axes."""
        return np.take(voxels.T, self.number, axis=self.grid.across)

    def picture(self, voxels: np.ndarray) -> np.ndarray:
        """Return the slice of a volume, axes k, j, i, as grey values of the picture; black beside the slice."""
        # Slicer brings scipy; it is loaded when first needed.
        from scipy.ndimage import map_coordinates

        image = self.slice_of(voxels).astype(np.float32)
        low, high = np.nanpercentile(
            image, [1, 96]
        )  # fat beside the coil outshines the spine: it may saturate
        grey = map_coordinates(np.nan_to_num(image), self.indices, order=1, mode="nearest")
        grey = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1) * 255
        return np.where(self._inside, grey, 0).astype(np.uint8)

    def mask(self, voxels: np.ndarray) -> np.ndarray:
        """Return which pixels of the picture lie in a mask with axes k, j, i."""
        section = self.slice_of(voxels) != 0
        limits = np.array(section.shape)[:, None, None] - 1
        nearest = np.clip(np.rint(self.indices).astype(int), 0, limits)
        return section[tuple(nearest)] & self._inside

    def pixel_of(self, point: np.ndarray) -> tuple[float, float]:
        """Return the row and the column at which a place in the patient, or what is nearest to it, is seen."""
        away = point - self.corner
        return (
            float(away @ self.down / (self.down @ self.down)),
            float(away @ self.back / (self.back @ self.back)),
        )

    @cached_property
    def _inside(self) -> np.ndarray:
        """Which pixels the slice reaches."""
        limits = np.array([self.grid.shape[axis] for axis in self.in_plane])[:, None, None]
        return np.asarray(((self.indices >= -0.5) & (self.indices <= limits - 0.5)).all(0))
