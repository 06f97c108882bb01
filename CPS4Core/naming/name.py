"""Names for all structures of a spine, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CPS4Core.class_table import BACKGROUND, BY_LABEL, HEAD_TO_TAIL
from CPS4Core.naming.cleaning import without_holes, without_specks
from CPS4Core.naming.column import SACRUM
from CPS4Core.naming.evidence import scores_of_votes
from CPS4Core.naming.path import ABOVE, RUNGS, SACRUM_RUNG, LevelPath, best_path, label_of
from CPS4Core.naming.pieces import Pieces, find_pieces
from CPS4Core.naming.posture import MOST_LEVELS, posture_scores

SURE = 0.8
"""A naming less probable than this is doubtful."""
UNANCHORED = 0.5
"""Without the sacrum in view, a naming is so probable at most: on 114 scans of two hospitals, more than half of such
namings were off by one, and 4 % of the others."""
WHOLE = 0.4
"""A disc of at least this much of the usual size tells by its tilt; so does a sacrum of that size."""
TRANSITIONAL = (0.3, 0.7)
"""Share of votes for sacrum that a vertebra between lumbar and sacral gets."""


@dataclass(frozen=True)
class NamedPiece:
    """A structure and its name."""

    label: int
    """Class label; 0 for one that the class table has no name for, or that is none."""
    height: float
    """Where it lies along the spine, in mm from the head's end."""
    certainty: float
    """Probability of the name, 0 to 1."""


@dataclass(frozen=True)
class Naming:
    """Labels with the names that counting gives."""

    labels: np.ndarray
    """uint8, (slices, AP, SI)."""
    pieces: tuple[NamedPiece, ...]
    """Head to tail."""
    margin: float
    """Probability of the naming, 0 to 1, the mean over its pieces; 0 where there is nothing to name."""
    doubts: tuple[str, ...]
    """What to tell the user, in sentences."""

    def certainty(self, label: int) -> float:
        """Return the probability of the name of a structure, 0 to 1: that of its surest piece."""
        return max((piece.certainty for piece in self.pieces if piece.label == label), default=0.0)


def name_levels(
    labels: np.ndarray, spacing: tuple[float, float, float], votes: np.ndarray | None = None
) -> Naming:
    """Give every structure one name, in the order of the spine.

    What is bone, disc or sacrum is taken from the labels; which level it is, from all of them together.

    Args:
        labels: class labels, uint8, (slices, AP, SI): one slice or many, rows from anterior to posterior, columns
            from superior to inferior, without an empty canvas around the picture.
        spacing: mm between slices, rows and columns.
        votes: what speaks for the labels 1 to 19 at each voxel that is not background, (voxels, 19), in the order of
            ``np.nonzero``: softmax, attention. The labels themselves if None.
    """
    pieces = find_pieces(labels, spacing)
    if pieces is None:
        return Naming(np.zeros_like(labels), (), 0.0, ())
    counted = pieces.votes(votes)
    path = name_pieces(pieces, counted)
    names = np.array([label_of(rung) for rung in path.rungs])
    named = np.zeros_like(labels)
    owned = pieces.owner >= 0
    named[tuple(axis[owned] for axis in pieces.column.where)] = names[pieces.owner[owned]]
    named = without_specks(named, pieces.column.voxel_mm3)
    named = without_holes(named, spacing[1] * spacing[2])
    anchored = _sacrum_in_view(pieces, path, counted)
    certainty = path.certainty * (1.0 if anchored else UNANCHORED)
    found = tuple(
        NamedPiece(int(name), float(height), float(sure))
        for name, height, sure in zip(names, pieces.heights, certainty, strict=True)
    )
    margin = float(certainty[path.rungs >= 0].mean())
    return Naming(named, found, margin, tuple(_doubts(pieces, path, counted, margin, anchored)))


def name_pieces(pieces: Pieces, votes: np.ndarray) -> LevelPath:
    """Return the likeliest rung of each piece.

    Args:
        pieces: from ``find_pieces``.
        votes: what speaks for the labels 1 to 19 in each piece, (pieces, 19), 0 or more.
    """
    scores = scores_of_votes(votes, pieces.is_disc, pieces.weights)
    along = (pieces.heights, pieces.is_disc, scores, pieces.weights, pieces.room)
    path = best_path(*along)
    # Posture speaks for the spine as a whole: the scores of one piece carry it for all.
    tell = np.flatnonzero(pieces.is_disc & (path.rungs >= 0) & (pieces.weights > WHOLE))
    if len(tell) < 2:
        return path
    posture = posture_scores(pieces.tilts[tell], path.rungs[tell])
    middle = tell[len(tell) // 2]
    rungs = path.rungs[middle] + 2 * np.arange(-MOST_LEVELS, MOST_LEVELS + 1)
    inside = (rungs >= 0) & (rungs < RUNGS)
    posture -= posture.max()
    unlikely = scores[middle] + posture.min()
    unlikely[rungs[inside]] = scores[middle, rungs[inside]] + posture[inside]
    scores[middle] = unlikely
    return best_path(*along)


def _sacrum_in_view(pieces: Pieces, path: LevelPath, votes: np.ndarray) -> bool:
    """Whether a piece of good size is named sacrum, and looked like it."""
    sacrum = ~pieces.is_disc & (path.rungs >= SACRUM_RUNG) & (votes[:, SACRUM - 1] > 0)
    return bool((sacrum & (pieces.weights >= WHOLE)).any())


def _doubts(pieces: Pieces, path: LevelPath, votes: np.ndarray, margin: float, anchored: bool) -> list[str]:
    """Say what to look at."""
    doubts = []
    if not anchored:
        doubts.append("Levels are uncertain: the sacrum is not in view. Count them.")
    elif margin < SURE:
        doubts.append("Levels are uncertain. Count them from the sacrum.")
    elif _differ_by_one(pieces, path, votes):
        doubts.append(
            "Levels are counted from the sacrum, but look like the next ones: four or six lumbar vertebrae?"
        )
    sacral = votes[:, SACRUM - 1] / np.maximum(votes[:, :10].sum(1), 1e-6)
    border = ~pieces.is_disc & (abs(path.rungs - SACRUM_RUNG + 1) <= 1) & (pieces.weights >= WHOLE)
    if (border & (sacral > TRANSITIONAL[0]) & (sacral < TRANSITIONAL[1])).any():
        doubts.append("The lowest vertebra may be transitional, L5 or S1.")
    placed = path.rungs[(path.rungs >= 0) & (votes.sum(1) > 0)]
    missing = [
        BY_LABEL[HEAD_TO_TAIL[rung - ABOVE]].short
        for rung in range(max(placed.min(initial=RUNGS), ABOVE), min(placed.max(initial=0), SACRUM_RUNG))
        if rung not in placed
    ]
    if missing:
        doubts.append(f"Not found between its neighbours: {', '.join(missing)}.")
    above = sum(label_of(rung) == BACKGROUND for rung in placed if (rung - ABOVE) % 2 == 0)
    if above:
        doubts.append(f"Vertebrae above T9 are left out: {above}.")
    return doubts


def _differ_by_one(pieces: Pieces, path: LevelPath, votes: np.ndarray) -> bool:
    """Whether most vertebrae got most of their votes for the level above, or most for that below."""
    labels = np.array([label_of(rung) for rung in path.rungs])
    vertebrae = ~pieces.is_disc & (labels > SACRUM)
    moved = votes[vertebrae, 1:10].argmax(1) + 2 - labels[vertebrae]
    return len(moved) > 2 and max((moved == 1).mean(), (moved == -1).mean()) > 0.5
