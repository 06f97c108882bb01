"""The likeliest names of structures in a row, and how likely they are.

A hidden Markov model: each piece along the spine stands on a rung of a ladder on which bones and discs alternate, from
head to tail. Distances in mm tell how many rungs lie between neighbours, the scores which rung a piece may be, and
what is missing, stray, or in view without being found costs. The best path gives the names (Viterbi); the sum over all
paths (forward-backward) how likely they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CPS4Core.class_table import BACKGROUND, HEAD_TO_TAIL
from CPS4Core.naming.discs import USUAL_STEP_MM

ABOVE = 30
"""Rungs above T9: the class table ends there, the spine does not."""
SACRUM_RUNG = ABOVE + len(HEAD_TO_TAIL) - 1
RUNGS = SACRUM_RUNG + 3
"""Below the first sacral segment, a disc and a bone: still the sacrum."""
LONGEST = 8
"""Rungs from one piece to the next, at most."""
MOST_STRAY = 2
"""Stray pieces in a row, at most."""

SPREAD = 0.35
"""Standard deviation of a distance of one rung, in rungs."""
MISSED = 1.0
"""Cost of a structure that is not found between two that are, in nats, as are all costs."""
STRAY = 10.0
"""Cost of a piece of usual size that is no structure."""
UNSEEN = 0.7
"""Cost of a structure that the picture has room for below the lowest piece."""
_ABOVE = np.arange(LONGEST, LONGEST + RUNGS)[:, None] - np.arange(1, LONGEST + 1)
"""Places of the rungs 1 to ``LONGEST`` above each rung, where ``LONGEST`` places come before the first rung."""


@dataclass(frozen=True)
class LevelPath:
    """The likeliest rungs."""

    rungs: np.ndarray
    """For each piece its rung, head to tail; -1 for a piece that is no structure."""
    certainty: np.ndarray
    """Probability of each, 0 to 1."""


def label_of(rung: int) -> int:
    """Return the class label of a rung: background above T9, the sacrum for its lower segments."""
    return BACKGROUND if rung < ABOVE else HEAD_TO_TAIL[min(rung, SACRUM_RUNG) - ABOVE]


def best_path(
    heights: np.ndarray, is_disc: np.ndarray, scores: np.ndarray, weights: np.ndarray, room: float
) -> LevelPath:
    """Name structures in a row.

    Args:
        heights: where they lie along the spine, in mm, head to tail, (n,); n at least 1.
        is_disc: which are discs, (n,).
        scores: log-likelihood of each rung, (n, RUNGS).
        weights: how much of a usual structure each is, 0 to 1; small ones are stray more easily.
        room: mm that the picture goes on below the lowest.
    """
    count = len(heights)
    rung_mm = _rung_mm(heights, is_disc)
    bony = (np.arange(RUNGS) - ABOVE) % 2 == 0
    emission = np.where(is_disc[:, None] == ~bony, scores, -np.inf)
    stray = np.concatenate([[0], (-STRAY * weights).cumsum()])
    steps = {
        (i, j): _steps((heights[j] - heights[i]) / (rung_mm[i] + rung_mm[j]) * 2) + stray[j] - stray[i + 1]
        for j in range(count)
        for i in range(max(0, j - 1 - MOST_STRAY), j)
    }
    end = np.full(emission.shape, -np.inf)
    for i in range(max(0, count - 1 - MOST_STRAY), count):
        unseen = _unseen((room + heights[-1] - heights[i]) / rung_mm[i])
        end[i] = stray[-1] - stray[i + 1] - unseen
    start = np.where(np.arange(count) <= MOST_STRAY, stray[:-1], -np.inf)[:, None]

    forward, backward = emission + start, end.copy()
    for j in range(1, count):
        nearest = range(max(0, j - 1 - MOST_STRAY), j)
        arriving = _sum(forward[nearest], [steps[i, j] for i in nearest])
        forward[j] = np.logaddexp(forward[j], arriving + emission[j])
    for i in reversed(range(count - 1)):
        nearest = range(i + 1, min(count, i + 2 + MOST_STRAY))
        leaving = _sum((backward + emission)[nearest, ::-1], [steps[i, j] for j in nearest])[::-1]
        backward[i] = np.logaddexp(backward[i], leaving)
    marginal = np.exp(forward + backward - np.logaddexp.reduce((forward + end).ravel()))
    rungs = _viterbi(emission, start, end, steps)
    certainty = np.where(rungs >= 0, marginal[np.arange(count), rungs], 1 - marginal.sum(1))
    return LevelPath(rungs, certainty.clip(0, 1))


def _viterbi(emission: np.ndarray, start: np.ndarray, end: np.ndarray, steps: dict) -> np.ndarray:
    """Return the rung of each piece on the best path, -1 for those that it leaves out."""
    best = emission + start
    origin = np.full((*emission.shape, 2), -1)
    for j in range(1, len(emission)):
        first = max(0, j - 1 - MOST_STRAY)
        ways = _ways(best[first:j], [steps[i, j] for i in range(first, j)])
        value = ways.max(1) + emission[j]
        rung = np.flatnonzero(value > best[j])
        piece, step = np.divmod(ways.argmax(1)[rung], LONGEST)
        origin[j, rung] = np.stack([first + piece, rung - 1 - step], -1)
        best[j, rung] = value[rung]
    rungs = np.full(len(emission), -1)
    piece, rung = np.unravel_index((best + end).argmax(), best.shape)
    while piece >= 0:
        rungs[piece] = rung
        piece, rung = origin[piece, rung]
    return rungs


def _ways(states: np.ndarray, steps: list[np.ndarray]) -> np.ndarray:
    """Return what each way to each rung is worth: from some pieces, 1 to ``LONGEST`` rungs above it.

    Args:
        states: of the pieces that the ways come from, (pieces, RUNGS).
        steps: log-likelihood of 1 to ``LONGEST`` rungs from each piece.

    Returns:
        (RUNGS, pieces x LONGEST).
    """
    padded = np.concatenate([np.full((len(states), LONGEST), -np.inf), states], 1)
    return (padded[:, _ABOVE] + np.array(steps)[:, None]).swapaxes(0, 1).reshape(RUNGS, -1)


def _sum(states: np.ndarray, steps: list[np.ndarray]) -> np.ndarray:
    """Return the log of the sum over all ways to each rung (see ``_ways``)."""
    terms = _ways(states, steps)
    top = np.maximum(terms.max(1), -1e300)
    with np.errstate(divide="ignore"):
        return top + np.log(np.exp(terms - top[:, None]).sum(1))


def _steps(distance: float) -> np.ndarray:
    """Return the log-likelihood of 1 to ``LONGEST`` rungs over a distance in rungs."""
    rungs = np.arange(1, LONGEST + 1)
    spread = SPREAD * np.sqrt(rungs)
    return -(((distance - rungs) / spread) ** 2) / 2 - np.log(spread) - MISSED * (rungs - 1)


def _unseen(room: float) -> np.ndarray:
    """Return the cost of what is not found below each rung, with room for some."""
    below = np.maximum(SACRUM_RUNG - np.arange(RUNGS), 0)
    return UNSEEN * np.minimum(below, max(0.0, room - 1))


def _rung_mm(heights: np.ndarray, is_disc: np.ndarray) -> np.ndarray:
    """Return the distance from a rung to the next about each piece, in mm: it shrinks towards the head."""
    pairs = [heights[is_disc == kind] for kind in (False, True)]
    steps = np.concatenate([np.diff(pair) for pair in pairs])
    where = np.concatenate([(pair[1:] + pair[:-1]) / 2 for pair in pairs])
    usual = steps[(steps > 12) & (steps < 50)]
    middle = float(np.median(usual)) if len(usual) else USUAL_STEP_MM
    steps = steps / np.maximum(1, np.round(steps / middle))
    near = np.exp(-(((heights[:, None] - where) / (1.5 * middle)) ** 2) / 2)
    return (near @ steps + 0.5 * middle) / (near.sum(1) + 0.5) / 2
