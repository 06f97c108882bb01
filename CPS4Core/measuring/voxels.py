"""The voxels of one structure, and how much of any place in the patient they fill."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

BIN_MM = 3.0
BODY_MM = 21.0
"""A cube of this size fits into every vertebral body, and into no posterior element."""
NEARLY = 0.85
"""Bins hold the more or the fewer voxels by chance."""


@dataclass(frozen=True)
class Grid:
    """Where voxels lie.

    Args:
        shape: of the whole volume, axes i, j, k.
        to_ras: 4 x 4, from indices to mm in the patient: right, front (anterior) and head are positive.
    """

    shape: tuple[int, int, int]
    to_ras: np.ndarray

    @cached_property
    def spacing(self) -> np.ndarray:
        """Mm from one voxel to the next along i, j, k."""
        return np.linalg.norm(self.to_ras[:3, :3], axis=0)

    @cached_property
    def across(self) -> int:
        """The axis nearest to right-left: from one sagittal slice to the next."""
        return int(np.abs(self.to_ras[0, :3] / self.spacing).argmax())

    @cached_property
    def right(self) -> np.ndarray:
        """Unit vector along that axis, to the patient's right."""
        axis = self.to_ras[:3, self.across] / self.spacing[self.across]
        return axis * np.sign(axis[0])

    @cached_property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return abs(float(np.linalg.det(self.to_ras[:3, :3])))

    def points(self, index: np.ndarray) -> np.ndarray:
        """Return where indices (n, 3) lie in the patient."""
        return index @ self.to_ras[:3, :3].T + self.to_ras[:3, 3]

    def indices(self, points: np.ndarray) -> np.ndarray:
        """Return the indices, with fractions, of places (..., 3) in the patient."""
        return (points - self.to_ras[:3, 3]) @ np.linalg.inv(self.to_ras[:3, :3]).T

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Return which places (..., 3) lie in the picture; the outer slices reach on to the sides."""
        index = self.indices(points)
        inside = (index >= -0.5) & (index <= np.array(self.shape) - 0.5)
        inside[..., self.across] = True
        return np.asarray(inside.all(-1))


class Voxels:
    """One structure, cropped to what it fills.

    Args:
        mask: of the whole volume, axes i, j, k, not zero inside; not empty.
        grid: of the volume.
    """

    def __init__(self, mask: np.ndarray, grid: Grid):
        self.grid = grid
        box = tuple(_range(np.asarray(mask.any(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3))
        self._first = np.array([side.start for side in box])
        self._padded = np.pad(mask[box] != 0, 1)

    @cached_property
    def points(self) -> np.ndarray:
        """Where the voxels lie, (n, 3)."""
        return self.grid.points(np.argwhere(self._padded) - 1 + self._first)

    @property
    def volume_ml(self) -> float:
        """Volume of all voxels."""
        return int(self._padded.sum()) * self.grid.voxel_mm3 / 1000

    @cached_property
    def centre(self) -> np.ndarray:
        """The middle of all voxels, (3,)."""
        return self.points.mean(0)

    @property
    def in_outer_slice(self) -> bool:
        """Whether it may go on beyond the first or the last sagittal slice."""
        return bool(self._at_border[self.grid.across])

    @property
    def at_edge(self) -> bool:
        """Whether it may go on beyond the edges of the sagittal slices."""
        return bool(np.delete(self._at_border, self.grid.across).any())

    @cached_property
    def _at_border(self) -> np.ndarray:
        last = self._first + self._padded.shape - 3
        return (self._first == 0) | (last == np.array(self.grid.shape) - 1)

    def filled(self, points: np.ndarray) -> np.ndarray:
        """Return how full the surroundings of places (..., 3) are, 0 to 1, linear between voxels."""
        index = self.grid.indices(points)
        across = self.grid.across
        index[..., across] = index[..., across].clip(0, self.grid.shape[across] - 1)
        size = np.array(self._padded.shape)
        index = (index - self._first + 1).clip(0, size - 1)
        low = np.minimum(index.astype(int), size - 2)
        part = index - low
        strides = np.array([size[1] * size[2], size[2], 1])
        first, values = low @ strides, self._padded.ravel()
        shares = [np.stack([1 - part[..., axis], part[..., axis]]) for axis in range(3)]
        found = np.zeros(index.shape[:-1])
        for i, j, k in product((0, 1), repeat=3):
            found += shares[0][i] * shares[1][j] * shares[2][k] * values[first + (i, j, k) @ strides]
        return found

    @cached_property
    def thickest(self) -> tuple[np.ndarray, float]:
        """Where it is thickest, of a vertebra with posterior elements the body, and how full a cube of 21 mm is there.

        The place is (3,); the share is of what the slices show of the cube, 0 to 1.
        """
        corner = self.points.min(0) - BODY_MM / 2
        place = ((self.points - corner) / BIN_MM).astype(int)
        width = round(BODY_MM / BIN_MM)
        shape = place.max(0) + 1 + width
        counts = np.bincount(np.ravel_multi_index(place.T, shape), minlength=shape.prod()).reshape(shape)
        near = counts * self.grid.voxel_mm3
        for axis in range(3):
            near = _summed(near, width, axis)
        shown = min(BODY_MM, self.grid.shape[self.grid.across] * self.grid.spacing[self.grid.across])
        middle = np.argwhere(near >= NEARLY * near.max()).mean(0) + 0.5
        return corner + middle * BIN_MM, float(near.max()) / (BODY_MM**2 * shown)


def _range(present: np.ndarray) -> slice:
    places = np.flatnonzero(present)
    return slice(int(places[0]), int(places[-1]) + 1)


def _summed(values: np.ndarray, width: int, axis: int) -> np.ndarray:
    """Return the sums over ``width`` (odd) neighbours along an axis."""
    padding = [(0, 0)] * 3
    padding[axis] = (width // 2 + 1, width // 2)
    sums = np.pad(values, padding).cumsum(axis)
    return np.take(sums, np.arange(width, sums.shape[axis]), axis) - np.take(
        sums, np.arange(sums.shape[axis] - width), axis
    )
