"""Posterior elements: each piece of bone behind the bodies joins its vertebra."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage.measure import label as connected_of_one_value

from CPS4Core.class_table import NUM_CLASSES
from CPS4Core.naming.bodies import Body
from CPS4Core.naming.column import IS_BONE, Column

BELOW_BODY = 0.25
"""Posterior elements lie so many levels below the middle of their body (SPIDER's vertebrae in one piece)."""
SPREAD = 0.35
"""And vary by so many levels."""
NAME_FLOOR = 0.12
"""Share of votes of a body for a name that it got none for."""
TOUCH = 2.0
"""How far contact counts, in nats."""
LONG = 2.0
"""A piece longer than this many levels belongs to several vertebrae,"""
SHARED = 0.2
"""and so does one of which at least this share of the contact is with a second body."""


def posterior_elements(column: Column, bodies: Sequence[Body], step: float) -> np.ndarray:
    """Return the body, by its place in ``bodies``, of each voxel of bone; -1 for all other voxels.

    Pieces are what is connected in 3D under one name. A piece joins the body that it touches, that carries its name,
    and that lies where the body of such a piece should. Behind the upper border of the picture may be those of the
    vertebra above: they get ``len(bodies)``.

    Args:
        bodies: at least one.
        step: from one vertebra to the next, in mm.
    """
    owner = np.full(len(column.label), -1)
    for place, body in enumerate(bodies):
        owner[body.voxels] = place
    loose = np.flatnonzero(IS_BONE[column.label] & (owner < 0))
    if not len(loose):
        return owner
    piece = _pieces(column, loose)
    count = piece.max() + 1
    size = np.bincount(piece, minlength=count)
    name = np.zeros(count, int)
    name[piece] = column.label[loose]
    height = np.bincount(piece, column.along[loose], count) / size

    votes = np.stack([np.bincount(column.label[body.voxels], minlength=NUM_CLASSES) for body in bodies])
    votes = votes / votes.sum(1, keepdims=True)
    votes = np.vstack([votes, np.roll(votes[0], 1)])  # labels of bones grow by one to the next above
    touching = _contacts(column, owner, loose, piece, count, len(votes))
    heights = [body.height for body in bodies]
    expected = np.array([*heights, heights[0] - step]) + BELOW_BODY * step
    cost = ((height[:, None] - expected) / (SPREAD * step)) ** 2 / 2
    cost -= np.log(NAME_FLOOR + votes[:, name].T)
    cost -= TOUCH * touching / np.maximum(touching.sum(1, keepdims=True), 1)
    owner[loose] = cost.argmin(1)[piece]

    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, piece, column.along[loose])
    np.maximum.at(high, piece, column.along[loose])
    several = (np.sort(touching, 1)[:, -2] > SHARED * touching.sum(1)) | (high - low > LONG * step)
    shared = loose[several[piece]]
    owner[shared] = np.abs(column.along[shared][:, None] - expected).argmin(1)
    return owner


def _pieces(column: Column, voxels: np.ndarray) -> np.ndarray:
    """Return the number, from 0, of the piece of each voxel: connected in 3D, under one name."""
    where = tuple(axis[voxels] - axis[voxels].min() for axis in column.where)
    names = np.zeros([axis.max() + 1 for axis in where], np.uint8)
    names[where] = column.label[voxels]
    return connected_of_one_value(names, background=0)[where] - 1


def _contacts(
    column: Column, owner: np.ndarray, loose: np.ndarray, piece: np.ndarray, pieces: int, bodies: int
) -> np.ndarray:
    """Return how many pairs of neighbouring voxels each piece has with each body, (pieces, bodies)."""
    grid = np.full([size + 2 for size in column.shape], -1, np.int16)
    grid[tuple(axis + 1 for axis in column.where)] = owner
    pairs = np.zeros(pieces * bodies)
    for axis in range(3):
        for step in (-1, 1):
            beside = [column.where[k][loose] + 1 + (step if k == axis else 0) for k in range(3)]
            body = grid[tuple(beside)]
            met = body >= 0
            pairs += np.bincount(piece[met] * bodies + body[met], minlength=len(pairs))
    return pairs.reshape(pieces, bodies)
