"""How discs lean tells their level: the last one is steep, those above L3 lean the other way.

Means and patterns are those of the reference labels of 30 T2 scans of SPIDER (van der Graaf et al., Sci Data 11:264,
2024): patients who lie.
"""

from __future__ import annotations

import numpy as np

from CPS4Core.naming.path import ABOVE

FIRST_RUNG = ABOVE + 5
"""The disc T11/T12; L5/S is the seventh."""
TILTS = np.array([7.6, 9.9, 9.3, 5.8, -1.5, -11.8, -31.6])
"""Mean angle of a disc to the horizontal, degrees, T11/T12 to L5/S; positive if its back is lower than its front."""
PATTERNS = np.array(
    [
        [-3.3, -3.1, -2.6, -1.2, 1.3, 4.3, 6.3],
        [-2.9, -3.9, -2.9, -2.0, -2.0, -1.5, -3.6],
        [1.5, 1.3, -0.7, -3.2, -3.6, -1.3, 2.2],
    ]
)
"""How people differ, one standard deviation of each: how curved the spine is, how bent, where the curve sits."""
OTHERS = 4.0
"""Standard deviation of what the patterns leave."""
INFLATION = 1.7
"""Other scanners, other masks: variances are taken to be larger by this factor."""
WEIGHT = 0.5
"""How far posture counts: half, since neighbouring discs lean together more than the patterns tell."""
MOST_LEVELS = 3
ABOVE_TILT, BELOW_TILT = (7.0, 8.0), (-35.0, 20.0)
"""Mean and standard deviation above T11/T12, and in the sacrum."""


def posture_scores(tilts: np.ndarray, rungs: np.ndarray) -> np.ndarray:
    """Return the log-likelihood of the tilts if the whole spine moves by -3 to 3 levels, seven numbers.

    Args:
        tilts: angle of each disc, in degrees, (n,).
        rungs: rung of each disc without a move, (n,).
    """
    covariance = INFLATION * (PATTERNS.T @ PATTERNS + OTHERS**2 * np.eye(len(TILTS)))
    found = []
    for levels in range(-MOST_LEVELS, MOST_LEVELS + 1):
        at = (rungs + 2 * levels - FIRST_RUNG) // 2
        known = (at >= 0) & (at < len(TILTS))
        log = sum(
            _normal(tilts[which] - mean, spread**2 * np.eye(which.sum()))
            for which, (mean, spread) in ((at < 0, ABOVE_TILT), (at >= len(TILTS), BELOW_TILT))
        )
        part = covariance[np.ix_(at[known], at[known])]
        found.append(log + _normal(tilts[known] - TILTS[at[known]], part))
    return WEIGHT * np.array(found)


def _normal(offset: np.ndarray, covariance: np.ndarray) -> float:
    """Return the log-density of a normal distribution, but for a constant for each dimension."""
    return float(-(offset @ np.linalg.solve(covariance, offset) + np.linalg.slogdet(covariance)[1]) / 2)
