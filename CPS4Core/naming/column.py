"""The voxels of a label stack as lists, with their place along the spine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label as connected

from CPS4Core.class_table import BONES, DISCS
from CPS4Core.naming.centre_line import STEP_MM, CentreLine

SACRUM = BONES[0].label
IS_DISC = np.isin(np.arange(256), [structure.label for structure in DISCS])
IS_BONE = np.isin(np.arange(256), [structure.label for structure in BONES])
"""By label: a bone is a vertebra or the sacrum."""

USUAL_DEPTH_MM = 17.0
"""Half the depth of a body, where no disc tells."""
RIM_MM = 2.0
"""Bodies reach so far beyond their discs to the back."""
FRONT_MM = 6.0
"""And to the front, with osteophytes."""


@dataclass(frozen=True)
class Column:
    """Every voxel that is not background, as a list.

    ``where`` are its indices (slice, row, column), ``label`` its class, ``x`` mm across the slices, ``along`` and
    ``behind`` mm along and behind the centre line.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    where: tuple[np.ndarray, np.ndarray, np.ndarray]
    label: np.ndarray
    x: np.ndarray
    along: np.ndarray
    behind: np.ndarray
    end: float
    """Where the centre line leaves the picture at its lower end, mm along."""
    half_depth: float
    """Half the depth of a disc, front to back, in mm."""

    @classmethod
    def of(cls, labels: np.ndarray, spacing: tuple[float, float, float]) -> Column:
        """Lay the centre line through labels (slices, AP, SI) and list their voxels."""
        slices, rows, columns = np.unravel_index(np.flatnonzero(labels), labels.shape)
        label = labels[slices, rows, columns]
        bones, discs = (
            _seen_from_the_side(rows[chosen], columns[chosen], labels.shape[1:])
            for chosen in (IS_BONE[label], IS_DISC[label])
        )
        line = CentreLine.through(bones, discs, spacing[1:])
        i, j = np.nonzero(bones + discs)
        places = np.zeros((2, *bones.shape))
        places[:, i, j] = line.locate(i * spacing[1], j * spacing[2])
        along, behind = places[:, rows, columns]
        disc = IS_DISC[label]
        half_depth = USUAL_DEPTH_MM
        if disc.any():
            front, back = np.percentile(behind[disc], [5, 95])
            half_depth = float(np.clip(0.53 * (back - front), 8, 25))
        inside = ((line.points >= 0) & (line.points <= np.multiply(bones.shape, spacing[1:]))).all(1)
        end = STEP_MM * float(np.flatnonzero(inside).max(initial=0))
        where = (slices, rows, columns)
        return cls(labels.shape, spacing, where, label, slices * spacing[0], along, behind, end, half_depth)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing))

    @property
    def in_bodies(self) -> np.ndarray:
        """Which voxels lie where bodies and discs are, and posterior elements are not."""
        return (self.behind <= self.half_depth + RIM_MM) & (self.behind >= -self.half_depth - FRONT_MM)

    def components(self, voxels: np.ndarray) -> list[np.ndarray]:
        """Return the voxels of each connected component among some: places in the list."""
        if not len(voxels):
            return []
        where = [axis[voxels] for axis in self.where]
        corner = [axis.min() for axis in where]
        places = tuple(axis - low for axis, low in zip(where, corner, strict=True))
        mask = np.zeros([axis.max() + 1 for axis in places], bool)
        mask[places] = True
        numbers = connected(mask, np.ones((3, 3, 3)))[0][places]
        order = np.argsort(numbers, kind="stable")
        return np.split(voxels[order], np.bincount(numbers)[1:].cumsum()[:-1])


def _seen_from_the_side(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return how many of some voxels lie at each place in the sagittal plane, (AP, SI)."""
    return np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)
