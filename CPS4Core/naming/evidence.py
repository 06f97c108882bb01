"""What speaks for each level of a piece."""

from __future__ import annotations

import numpy as np

from CPS4Core.class_table import HEAD_TO_TAIL
from CPS4Core.naming.path import ABOVE, RUNGS, SACRUM_RUNG

NAMES = 2.0
"""How far the votes of all pieces together count: a network that is off by one is so for the whole spine."""
FEW = 6
"""With fewer pieces, the votes of each count as one of so many."""
FLOOR = 0.05
"""Probability of a name that got no vote."""
OUTSIDE = 0.4
"""A structure beyond the class table gets the name of the last one in it so often."""
SACRUM = 2.0
"""How far it counts, for each piece, whether it looks like sacrum: that is seen in the piece itself."""
SACRUM_SHARE = 0.05
"""Share of votes at which a piece is as likely sacrum as not: true vertebrae get hardly any."""
SACRUM_FLOOR = 0.02
RUDIMENTARY = 4.0
"""Cost of a disc of usual size within the sacrum: there it is small, if there is one."""


def scores_of_votes(votes: np.ndarray, is_disc: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the log-likelihood of each rung, (n, RUNGS).

    Args:
        votes: what speaks for each label, from 1 to 19, in each piece, (n, 19), 0 or more: counts of voxels, sums of
            softmax or of attention. Those for the other kind do not count.
        is_disc: which pieces are discs, (n,).
        weights: how much of a usual structure each piece is, 0 to 1.
    """
    bony = np.arange(len(HEAD_TO_TAIL)) % 2 == 0
    shares = np.where(is_disc[:, None] == ~bony, votes[:, np.array(HEAD_TO_TAIL) - 1], 0)
    shares = shares / np.maximum(shares.sum(1, keepdims=True), 1e-6)
    highest = np.where(is_disc, shares[:, 1], shares[:, 0])[:, None]
    lowest = np.where(is_disc, shares[:, -2], shares[:, -1])[:, None]
    below = RUNGS - SACRUM_RUNG - 1
    chances = np.hstack(
        [np.repeat(OUTSIDE * highest, ABOVE, 1), shares, np.repeat(OUTSIDE * lowest, below, 1)]
    )
    names = NAMES / max(FEW, len(votes)) * np.log(FLOOR + chances)

    odds = _logit(shares[:, -1:]) - _logit(SACRUM_SHARE)
    is_sacrum = np.arange(RUNGS) >= SACRUM_RUNG
    sacral = SACRUM * np.minimum(np.where(is_sacrum, odds, -odds), 0)
    scores = (names + np.where(is_disc[:, None], 0, sacral)) * weights[:, None]
    scores[is_disc, SACRUM_RUNG + 1] -= RUDIMENTARY * weights[is_disc] ** 2
    return scores


def _logit(share: np.ndarray | float) -> np.ndarray:
    return np.log((SACRUM_FLOOR + share) / (SACRUM_FLOOR + 1 - share))
