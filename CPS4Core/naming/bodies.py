"""The bodies of the vertebrae: the bone between two discs, parted where a disc is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from CPS4Core.naming.column import IS_BONE, SACRUM, Column
from CPS4Core.naming.discs import Disc, step_between
from CPS4Core.naming.waists import waists

LONG = 1.25
"""Bone longer than this many steps may be two vertebrae."""
WAIST_DEPTH = 0.75
SMALLEST_SHARE = 0.12
"""A body smaller than this share of the median body is a speck."""
MIXED = (0.15, 0.85)
"""Bone of which such a share is sacrum may be a vertebra and the sacrum that run together."""


@dataclass(frozen=True)
class Body:
    """A vertebral body, or the sacrum."""

    voxels: np.ndarray
    """Places in the list of the column."""
    height: float
    """Mean place along the spine, mm."""


def find_bodies(column: Column, discs: Sequence[Disc]) -> list[Body]:
    """Return the bodies, head to tail.

    Discs cut the column, so that neither bridges between bodies nor names decide what is one vertebra.
    """
    step = step_between([disc.height for disc in discs])
    bone = np.flatnonzero(IS_BONE[column.label] & column.in_bodies)
    x, behind, along = (axis[bone] for axis in (column.x, column.behind, column.along))
    above = np.array([disc.at(x, behind) < along for disc in discs]).reshape(len(discs), len(bone)).sum(0)
    parts = []
    for place in range(len(discs) + 1):
        inside = bone[above == place]
        beside = discs[max(0, place - 1) : place + 1]
        # Along the spine as if both discs lay flat, so that a waist is at one height.
        flat = column.along[inside]
        if beside:
            leans = [disc.at(column.x[inside], column.behind[inside]) - disc.height for disc in beside]
            flat = flat - np.mean(leans, 0)
        parts += _parted(column, inside, flat, step)
    if not parts:
        return []
    sizes = np.array([len(part) for part in parts])
    parts = [part for part in parts if len(part) >= SMALLEST_SHARE * np.median(np.sort(sizes)[-6:])]
    bodies = [Body(part, float(column.along[part].mean())) for part in parts]
    return sorted(bodies, key=lambda body: body.height)


def _parted(column: Column, voxels: np.ndarray, level: np.ndarray, step: float) -> list[np.ndarray]:
    """Return the bodies among the bone between two discs, whose places along the spine are ``level``."""
    if not len(voxels):
        return []
    sacrum = column.label[voxels] == SACRUM
    if MIXED[0] < sacrum.mean() < MIXED[1]:
        apart = level[sacrum].mean() - level[~sacrum].mean()
        if apart > 0.4 * step:
            above, below = voxels[~sacrum], voxels[sacrum]
            return [*_parted(column, above, level[~sacrum], step), below]
    if sacrum.mean() >= 0.5:
        return [voxels]
    low, high = np.percentile(level, [3, 97])
    cuts = waists(level, 0.4 * step, WAIST_DEPTH) if high - low > LONG * step else []
    places = np.digitize(level, cuts)
    return [part for number in range(len(cuts) + 1) if len(part := voxels[places == number])]
