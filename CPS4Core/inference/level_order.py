"""The level-order prior: from head to tail, vertebrae and discs carry consecutive names.

A network names each pixel by itself and may call a part of L3 L4. Here each structure gets one name, and
the names along the spine follow the fixed order: of all such namings, the one that changes the fewest voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label as connected

from CPS4Core.class_table import BONES, BY_LABEL, DISCS, HEAD_TO_TAIL, NUM_CLASSES, Structure

SMALLEST_SHARE = 0.1
"""A piece smaller than this share of the largest of its kind is a speck, and keeps its name."""
SAME_HEIGHT = 0.5
"""Pieces of one kind closer along the spine than this share of their height are one structure."""


@dataclass(frozen=True)
class Piece:
    """A structure, or what the network took for one."""

    mask: np.ndarray
    column: float
    """Mean position along the columns: head to tail."""
    votes: np.ndarray
    """Voxels that carry each label, shape (20,)."""

    def __or__(self, other: Piece) -> Piece:
        size, others = self.votes.sum(), other.votes.sum()
        column = (self.column * size + other.column * others) / (size + others)
        return Piece(self.mask | other.mask, column, self.votes + other.votes)


def relabel_by_order(labels: np.ndarray) -> np.ndarray:
    """Return the labels with the names of structures in the order of the spine.

    Args:
        labels: class labels, uint8, (slices, AP, SI), columns from superior to inferior.

    Returns:
        Labels of the same shape: the same voxels are structure, some under another name.
    """
    pieces = [piece for kind in (BONES, DISCS) for piece in _structures(labels, kind)]
    pieces.sort(key=lambda piece: piece.column)
    if not pieces:
        return labels
    named = labels.copy()
    for piece, name in zip(pieces, _best_names(pieces), strict=True):
        named[piece.mask] = name
    return named


def _structures(labels: np.ndarray, kind: tuple[Structure, ...]) -> list[Piece]:
    """Return the structures of a kind, head to tail; pieces with several names at one height are one structure."""
    pieces, heights = [], []
    for structure in kind:
        components, count = connected(labels == structure.label)
        for number in range(1, count + 1):
            mask = components == number
            columns = np.nonzero(mask)[2]
            votes = np.zeros(NUM_CLASSES, int)
            votes[structure.label] = len(columns)
            pieces.append(Piece(mask, float(columns.mean()), votes))
            heights.append(np.ptp(columns) + 1)
    if not pieces:
        return []
    sizes = [piece.votes.sum() for piece in pieces]
    large = [k for k, size in enumerate(sizes) if size >= SMALLEST_SHARE * max(sizes)]
    apart = SAME_HEIGHT * float(np.median([heights[k] for k in large]))
    structures: list[Piece] = []
    for piece in sorted((pieces[k] for k in large), key=lambda piece: piece.column):
        if structures and piece.column - structures[-1].column < apart:
            structures[-1] |= piece
        else:
            structures.append(piece)
    return structures


def _best_names(pieces: list[Piece]) -> list[int]:
    """Return a name for each piece, head to tail, by dynamic programming.

    State k of a piece is its place in ``HEAD_TO_TAIL``. From one piece to the next the place grows, so that names
    neither repeat nor go back; a place may be skipped, for a structure that was not found.
    """
    allowed = np.array(
        [[BY_LABEL[label].is_disc == _is_disc(piece) for label in HEAD_TO_TAIL] for piece in pieces]
    )
    votes = np.array([[piece.votes[label] for label in HEAD_TO_TAIL] for piece in pieces], float)
    gain = np.where(allowed, votes, -np.inf)
    best, came_from = gain[0], []
    for here in gain[1:]:
        before = np.maximum.accumulate(best)
        # The best place strictly above each place.
        above = np.concatenate([[-np.inf], before[:-1]])
        origin = np.concatenate([[0], _running_argmax(best)[:-1]])
        came_from.append(origin)
        best = here + above
    if not np.isfinite(best.max()):
        return [
            int(piece.votes.argmax()) for piece in pieces
        ]  # more pieces than names: nothing to repair with
    path = [int(best.argmax())]
    for origin in reversed(came_from):
        path.append(int(origin[path[-1]]))

    return [HEAD_TO_TAIL[place] for place in reversed(path)]


def _running_argmax(values: np.ndarray) -> np.ndarray:
    """Return, for each place, where the largest value up to it is."""
    highest = np.maximum.accumulate(values)
    return np.maximum.accumulate(np.where(values == highest, np.arange(len(values)), 0))


def _is_disc(piece: Piece) -> bool:
    return BY_LABEL[int(piece.votes.argmax())].is_disc
