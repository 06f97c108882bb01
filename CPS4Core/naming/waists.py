"""Where structures that run together are parted."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

SMOOTH_MM = 1.5


def waists(along: np.ndarray, apart: float, depth: float) -> list[float]:
    """Return where a set of voxels is thin along the spine, head to tail.

    Args:
        along: where the voxels lie, in mm.
        apart: least distance of two waists, and of a waist from either end, in mm.
        depth: how thin a waist is, as a share of the thicker parts on both of its sides, 0 to 1.
    """
    if len(along) == 0 or np.ptp(along) < 2 * apart:
        return []
    start = along.min()
    counts = np.bincount((along - start).astype(int)).astype(float)
    profile = gaussian_filter1d(counts, SMOOTH_MM, mode="constant")
    cuts = _cuts(profile, 0, len(profile), apart, depth)
    return [float(start + cut + 0.5) for cut in sorted(cuts)]


def _cuts(profile: np.ndarray, low: int, high: int, apart: float, depth: float) -> list[int]:
    """Return the deepest waist between two places, and those on either side of it."""
    margin = int(np.ceil(apart))
    if high - low < 2 * margin:
        return []
    part = profile[low:high]
    left, right = np.maximum.accumulate(part), np.maximum.accumulate(part[::-1])[::-1]
    share = part / np.maximum(np.minimum(left, right), 1e-9)
    inner = share[margin : len(part) - margin + 1]
    if not len(inner) or inner.min() > depth:
        return []
    # The middle of a gap, not its first millimetre.
    lowest = np.flatnonzero(inner <= inner.min() + 1e-3)
    cut = low + margin + int(lowest[len(lowest) // 2])
    return [cut, *_cuts(profile, low, cut, apart, depth), *_cuts(profile, cut, high, apart, depth)]
