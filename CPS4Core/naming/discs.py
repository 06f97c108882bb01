"""The discs of a spine, each with the plane in which it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from CPS4Core.naming.column import IS_DISC, Column
from CPS4Core.naming.waists import waists

SAME_DISC_MM = 8.0
"""Parts closer to a disc's plane than this belong to it; the lowest vertebrae are twice as high."""
RUN_TOGETHER_MM = 9.0
"""Least distance from a waist to the end of discs that ran together."""
SMALLEST_SHARE = 0.05
"""A disc smaller than this share of the usual one is a speck."""
USUAL_OF = 8
"""The usual disc is the median of so many largest."""
SMALL, CROWDED = 0.4, 1.25
"""A disc is stray, such as the vein in a vertebra, if it is smaller than this share of the usual one, and the
two that it
lies between are not further apart than so many steps, or one of them is nearer than a third of that."""
USUAL_STEP_MM = 33.0
"""From one vertebra to the next, where nothing tells: lumbar spine of an adult."""
STEPS_MM = (12.0, 50.0)
SHRINK_MM2 = 40.0
"""A plane leans only if its voxels spread by more than this variance."""


@dataclass(frozen=True)
class Disc:
    """A disc: along = height + lean[0] (x - middle[0]) + lean[1] (behind - middle[1])."""

    voxels: np.ndarray
    """Places in the list of the column."""
    height: float
    middle: tuple[float, float]
    lean: tuple[float, float]
    tilt: float
    """Angle to the horizontal in the sagittal plane, degrees; positive if its back is lower than its front."""

    @classmethod
    def of(cls, column: Column, voxels: np.ndarray) -> Disc:
        """Lay a plane through voxels."""
        across = np.stack([column.x[voxels], column.behind[voxels]])
        along = column.along[voxels]
        middle, height = across.mean(1), along.mean()
        offset = across - middle[:, None]
        spread = offset @ offset.T / len(voxels) + SHRINK_MM2 * np.eye(2)
        lean = np.linalg.solve(spread, offset @ (along - height) / len(voxels))
        back, down = (column.where[axis][voxels] * column.spacing[axis] for axis in (1, 2))
        back = back - back.mean()
        tilt = np.degrees(np.arctan2(back @ (down - down.mean()), max(back @ back, 1e-6)))
        return cls(voxels, float(height), tuple(middle), tuple(lean), float(tilt))

    def at(self, x: np.ndarray, behind: np.ndarray) -> np.ndarray:
        """Return how far along the spine the plane is."""
        return self.height + self.lean[0] * (x - self.middle[0]) + self.lean[1] * (behind - self.middle[1])


def find_discs(column: Column) -> list[Disc]:
    """Return the discs, head to tail."""
    inside = np.flatnonzero(IS_DISC[column.label] & (np.abs(column.behind) < 2 * column.half_depth))
    if not len(inside):
        return []
    parts = column.components(inside)
    parts = [piece for part in parts for piece in _parted(column, part)]
    discs: list[Disc] = []
    for part in sorted(parts, key=len, reverse=True):
        x, behind, along = (axis[part].mean() for axis in (column.x, column.behind, column.along))
        distances = [abs(along - disc.at(x, behind)) for disc in discs]
        nearest = int(np.argmin(distances)) if discs else -1
        if discs and distances[nearest] < SAME_DISC_MM:
            discs[nearest] = Disc.of(column, np.concatenate([discs[nearest].voxels, part]))
        else:
            discs.append(Disc.of(column, part))
    return _without_stray(sorted(discs, key=lambda disc: disc.height))


def _without_stray(discs: list[Disc]) -> list[Disc]:
    """Return the discs without specks, and without small ones between two that lie a usual step apart."""
    usual = float(np.median(sorted(len(disc.voxels) for disc in discs)[-USUAL_OF:]))
    discs = [disc for disc in discs if len(disc.voxels) >= SMALLEST_SHARE * usual]
    while len(discs) > 2:
        heights = [disc.height for disc in discs]
        step = step_between([disc.height for disc in discs if len(disc.voxels) >= SMALL * usual])
        before, after = [-np.inf, *heights[:-1]], [*heights[1:], np.inf]
        crowded = [
            place
            for place, disc in enumerate(discs)
            if len(disc.voxels) < SMALL * usual
            and (
                after[place] - before[place] < CROWDED * step
                or min(after[place] - heights[place], heights[place] - before[place]) < CROWDED / 3 * step
            )
        ]
        if not crowded:
            break
        discs.pop(min(crowded, key=lambda place: len(discs[place].voxels)))
    return discs


def step_between(heights: Sequence[float]) -> float:
    """Return the usual distance of neighbours, in mm, from where structures of one kind lie."""
    steps = np.diff(heights)
    steps = steps[(steps > STEPS_MM[0]) & (steps < STEPS_MM[1])]
    return float(np.median(steps)) if len(steps) else USUAL_STEP_MM


def _parted(column: Column, part: np.ndarray) -> list[np.ndarray]:
    """Return the discs that ran together in a part, each by itself."""
    cuts = waists(column.along[part], RUN_TOGETHER_MM, depth=0.35)
    places = np.digitize(column.along[part], cuts)
    return [part[places == number] for number in range(len(cuts) + 1)]
