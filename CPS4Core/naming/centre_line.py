"""The curved line through bodies and discs, and where everything lies along it.

It is sought in the sagittal plane, in the sum of all slices: a spine that moves sideways keeps its line there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.spatial import cKDTree

COLUMN_MM = 30.0
"""About the depth of a body, front to back."""
DISC_WEIGHT = 3.0
"""Discs have no posterior elements, so their voxels say more of where the line runs."""
STEEPEST = 2
"""Steps to the front or the back that the line may take in one step down: 63 degrees."""
STEP_MM = 2.0
SMOOTH_MM = 12.0
REACH_MM = 80.0
"""How far the line goes on, straight, beyond its ends."""


@dataclass(frozen=True)
class CentreLine:
    """A line from head to tail in the sagittal plane."""

    points: np.ndarray
    """(n, 2): AP and SI in mm, one for each ``STEP_MM`` of arc."""

    @classmethod
    def through(cls, bones: np.ndarray, discs: np.ndarray, spacing: tuple[float, float]) -> CentreLine:
        """Find the line.

        Args:
            bones: how many slices show bone, (AP, SI); not empty together with ``discs``.
            discs: the same of discs.
            spacing: mm between rows (AP) and between columns (SI).
        """
        mass = _coarse(bones + DISC_WEIGHT * discs, spacing)
        columns = np.flatnonzero(mass.any(0))
        mass = mass[:, columns[0] : columns[-1] + 1]
        rows = _ridge(mass)
        places = np.arange(len(mass)) * STEP_MM
        for _ in range(2):  # to the middle of what lies about the line
            near = mass * (np.abs(places[:, None] - rows) < 2 / 3 * COLUMN_MM)
            sums = gaussian_filter1d(
                np.stack([near.sum(0), (near * places[:, None]).sum(0)]), SMOOTH_MM / STEP_MM
            )
            rows = np.where(sums[0] > 1e-6, sums[1] / np.maximum(sums[0], 1e-6), rows)
        rows = gaussian_filter1d(rows, SMOOTH_MM / STEP_MM, mode="nearest") if len(rows) > 1 else rows
        line = np.stack([rows, (columns[0] + np.arange(len(rows))) * STEP_MM], 1)
        return cls(_even(_longer(line)))

    def locate(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far along the line, and how far behind it, places lie.

        Args:
            rows: AP positions in mm.
            columns: SI positions in mm.

        Returns:
            Arc length from the upper end of ``points`` and distance, positive to the back, both in mm.
        """
        places = np.stack([rows, columns], -1)
        nearest = cKDTree(self.points).query(places)[1]
        tangents = np.gradient(self.points, axis=0)
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
        offset, tangent = places - self.points[nearest], tangents[nearest]
        along = STEP_MM * nearest + (offset * tangent).sum(-1)
        return along, offset[..., 0] * tangent[..., 1] - offset[..., 1] * tangent[..., 0]


def _coarse(mass: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Return the mass on a grid of ``STEP_MM``."""
    rows, columns = (
        (np.arange(n) * mm / STEP_MM + 0.5).astype(int) for n, mm in zip(mass.shape, spacing, strict=True)
    )
    coarse = np.zeros((rows[-1] + 1, columns[-1] + 1))
    i, j = np.nonzero(mass)
    np.add.at(coarse, (rows[i], columns[j]), mass[i, j] * spacing[0] * spacing[1])
    return coarse


def _ridge(mass: np.ndarray) -> np.ndarray:
    """Return the row for each column of the path with the most mass about it, in mm, by dynamic programming."""
    width = max(1, round(COLUMN_MM / STEP_MM))
    gain = uniform_filter1d(mass, width, axis=0, mode="constant")
    steps = np.arange(-STEEPEST, STEEPEST + 1)[:, None]
    rows = np.arange(len(mass))
    origins = rows - steps  # from where each step leads to each row
    cost = np.where((origins >= 0) & (origins < len(rows)), 0.02 * gain.max() * np.abs(steps), np.inf)
    origins = origins.clip(0, len(rows) - 1)
    best, came_from = gain[:, 0], []
    for here in gain.T[1:]:
        options = best[origins] - cost
        choice = options.argmax(0)
        came_from.append(origins[choice, rows])
        best = options[choice, rows] + here
    path = [int(best.argmax())]
    for origin in reversed(came_from):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1]) * STEP_MM


def _longer(line: np.ndarray) -> np.ndarray:
    """Return the line with a straight piece at either end, in the direction of its last 20 mm."""
    reach = min(len(line) - 1, round(20 / STEP_MM))
    ends: list[np.ndarray] = []
    for end, inner in ((line[0], line[reach]), (line[-1], line[-1 - reach])):
        outward = end - inner if reach else np.array([0.0, 1.0 if ends else -1.0])
        ends.append(end + REACH_MM * outward / np.linalg.norm(outward))
    return np.vstack([ends[0], line, ends[1]])


def _even(line: np.ndarray) -> np.ndarray:
    """Return points on the line ``STEP_MM`` of arc apart."""
    arc = np.concatenate([[0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
    places = np.arange(0, arc[-1], STEP_MM)
    return np.stack([np.interp(places, arc, line[:, axis]) for axis in (0, 1)], 1)
