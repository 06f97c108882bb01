"""The structures of a spine in 3D, whatever names their voxels carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CPS4Core.naming.bodies import Body, find_bodies
from CPS4Core.naming.cleaning import off_the_spine
from CPS4Core.naming.column import IS_DISC, Column
from CPS4Core.naming.discs import Disc, find_discs, step_between
from CPS4Core.naming.posterior import posterior_elements

SMALLEST_WEIGHT = 0.2
"""Of a piece; a vertebra of which only posterior elements are in view has no body at all."""
USUAL_OF = 6
"""The usual size of a kind is the median of so many largest."""


@dataclass(frozen=True)
class Pieces:
    """The structures, head to tail: discs, vertebrae with their posterior elements, the sacrum."""

    column: Column
    owner: np.ndarray
    """For each voxel of the column its piece, -1 for one of none."""
    core: np.ndarray
    """Which voxels are body or disc, not posterior element."""
    is_disc: np.ndarray
    heights: np.ndarray
    """Where each lies along the spine, in mm."""
    tilts: np.ndarray
    """Angle of each disc to the horizontal, in degrees; 0 for a bone."""
    weights: np.ndarray
    """How much of a usual structure of its kind each is, 0 to 1."""
    room: float
    """How far the picture goes on below the lowest, in mm."""

    def __len__(self) -> int:
        return len(self.heights)

    @property
    def map(self) -> np.ndarray:
        """The number of each voxel's piece, from 1, int16, (slices, AP, SI); 0 for none."""
        numbers = np.zeros(self.column.shape, np.int16)
        numbers[self.column.where] = self.owner + 1
        return numbers

    def votes(self, of_voxels: np.ndarray | None = None) -> np.ndarray:
        """Return what speaks for the labels 1 to 19 in the core of each piece, (pieces, 19).

        Args:
            of_voxels: what speaks for each label at each voxel that is not background, (voxels, 19), in the order of
                ``np.nonzero``; the labels themselves if None.
        """
        owner = self.owner[self.core]
        if of_voxels is None:
            labels = self.column.label[self.core].astype(int) - 1
            return np.bincount(owner * 19 + labels, minlength=len(self) * 19).reshape(-1, 19).astype(float)
        kept = of_voxels[self.core]
        return np.stack([np.bincount(owner, kept[:, column], len(self)) for column in range(19)], 1)


def find_pieces(labels: np.ndarray, spacing: tuple[float, float, float]) -> Pieces | None:
    """Find the structures in labels, uint8, (slices, AP, SI), one slice or many; None where there are none.

    Args:
        labels: class labels of the canonical slices, without an empty canvas: their border is that of the picture.
        spacing: mm between slices, rows and columns.
    """
    if not labels.any():
        return None
    column = Column.of(labels, spacing)
    discs = find_discs(column)
    bodies = find_bodies(column, discs)
    if not discs and not bodies:
        return None
    structures: list[Disc | Body] = [*discs, *bodies]
    step = step_between([structure.height for structure in (discs if len(discs) > 1 else bodies)])
    heights = [structure.height for structure in structures]
    cores = [structure.voxels for structure in structures]
    owner = np.full(len(column.label), -1)
    if bodies:
        behind = posterior_elements(column, bodies, step)
        owner[behind >= 0] = len(discs) + behind[behind >= 0]
        if (behind == len(bodies)).any():
            heights.append(bodies[0].height - step)
            cores.append(np.zeros(0, int))
    core = np.zeros(len(owner), bool)
    for number, voxels in enumerate(cores):
        owner[voxels] = number
        core[voxels] = True
    _take_in_strays(column, owner, bodies, len(discs))
    owner[off_the_spine(column) & ~core] = -1

    is_disc = np.arange(len(cores)) < len(discs)
    sizes = np.array([len(voxels) for voxels in cores], float)
    for kind in {bool(disc) for disc in is_disc}:
        sizes[is_disc == kind] /= np.median(np.sort(sizes[is_disc == kind])[-USUAL_OF:])
    tilts = np.array([*(disc.tilt for disc in discs), *np.zeros(len(cores) - len(discs))])
    order = np.argsort(heights, kind="stable")
    place = np.append(order.argsort(), -1)
    return Pieces(
        column,
        place[owner],
        core,
        is_disc[order],
        np.array(heights)[order],
        tilts[order],
        sizes[order].clip(SMALLEST_WEIGHT, 1),
        max(0.0, column.end - float(np.percentile(column.along[cores[order[-1]]], 98))),
    )


def _take_in_strays(column: Column, owner: np.ndarray, bodies: list[Body], first: int) -> None:
    """Give what was called disc inside a body to the body; bodies are numbered from ``first``."""
    stray = np.flatnonzero(IS_DISC[column.label] & (owner < 0) & column.in_bodies)
    for number, body in enumerate(bodies, first):
        low, high = np.percentile(column.along[body.voxels], [5, 95])
        owner[stray[(column.along[stray] > low) & (column.along[stray] < high)]] = number
