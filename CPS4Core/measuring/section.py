"""The mid-sagittal section through one body or disc: between which heights each of its columns is filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CPS4Core.measuring.frames import Frame
from CPS4Core.measuring.voxels import Voxels

OFFSETS_MM = (-3.0, 0.0, 3.0)
"""The section is the mean of these sagittal planes."""
BACK_MM = 34.0
"""How far it goes to the front and the back."""
HALF = 0.5 - 1e-6
"""What is filled so far is inside; places half way between voxels are, whichever way the axes point."""
EDGE_MM = 2.0
"""What comes so near to the border of the picture may go on beyond it."""
NEAR_MM = 8.0
"""How far from the middle of the frame the body or disc may begin."""
LOCAL_MM = 8.0
"""What is usual of a column is the median of those so near before it."""
LEAST_FILLED = 0.25
"""Lips at its rims leave a gap between them; where less than this share is filled is no body any more."""


@dataclass(frozen=True)
class Window:
    """Where a section is looked at."""

    low: float
    """Mm from the middle of the frame down, negative,"""
    high: float
    """and up."""
    least_share: float
    """A body ends where its height falls below this share of what is usual: before a pedicle."""


@dataclass(frozen=True)
class Section:
    """The columns of a section from front to back, in mm along the axes of a frame."""

    frame: Frame
    step: float
    """From one column to the next."""
    back: np.ndarray
    """Where each column is, its lower and its upper end."""
    low: np.ndarray
    high: np.ndarray
    cut: bool
    """Whether it reaches the border of the picture."""

    @property
    def ends(self) -> tuple[float, float]:
        """Where it begins in front and ends at the back."""
        return float(self.back[0]) - self.step / 2, float(self.back[-1]) + self.step / 2

    def within(self, begin: float, end: float) -> np.ndarray:
        """Return which columns lie between two shares of its depth, 0 the front and 1 the back."""
        front, back = self.ends
        share = (self.back - front) / (back - front)
        return (share > begin) & (share < end)


def section_of(voxels: Voxels, frame: Frame, step: float, window: Window) -> Section | None:
    """Return the section of what lies about the middle of a frame; None if nothing does.

    Posterior elements lie behind the canal, which ends the section.

    Args:
        voxels: of the structure.
        frame: of the structure.
        step: resolution in mm.
        window: where to look.
    """
    back = np.arange(-BACK_MM, BACK_MM + step / 2, step)
    up = np.arange(window.low, window.high + step / 2, step)
    behind, above = np.meshgrid(back, up, indexing="ij")
    filled = np.mean([voxels.filled(frame.places(behind, above, offset)) for offset in OFFSETS_MM], 0) > HALF
    start = _start(filled, back, up)
    if start is None:
        return None
    column, ends = start
    before = _follow(filled[:column][::-1], ends, step, window.least_share)
    after = _follow(filled[column + 1 :], ends, step, window.least_share)
    columns = np.array([*before[::-1], ends, *after])
    first = column - len(before)
    outside, edge = ~voxels.grid.holds(frame.places(behind, above)), round(EDGE_MM / step)
    cut = any(
        outside[max(0, place - edge) : place + edge + 1, max(0, low - edge) : high + edge].any()
        for place, (low, high) in enumerate(columns, start=first)
    )
    return Section(
        frame,
        step,
        back[first : first + len(columns)],
        up[columns[:, 0]] - step / 2,
        up[columns[:, 1] - 1] + step / 2,
        cut,
    )


def _start(filled: np.ndarray, back: np.ndarray, up: np.ndarray) -> tuple[int, tuple[int, int]] | None:
    """Return the column nearest to the middle that is filled there, and from where to where."""
    for column in np.argsort(np.abs(back), kind="stable"):
        near = [run for run in _runs(filled[column]) if up[run[0]] <= NEAR_MM and up[run[1] - 1] >= -NEAR_MM]
        if abs(back[column]) > NEAR_MM:
            return None
        if near:
            return int(column), max(near, key=lambda run: run[1] - run[0])
    return None


def _follow(
    columns: np.ndarray, ends: tuple[int, int], step: float, least_share: float
) -> list[tuple[int, int]]:
    """Return from where to where each column is filled, as long as they go on from ``ends``."""
    found = [ends]
    local = max(1, round(LOCAL_MM / step))
    for column in columns:
        low, high = found[-1]
        touching = [run for run in _runs(column) if run[0] < high and run[1] > low]
        if not touching:
            break
        ends = touching[0][0], touching[-1][1]
        usual = np.median([end - begin for begin, end in found[-local:]])
        full = sum(end - begin for begin, end in touching)
        if ends[1] - ends[0] < least_share * usual or full < LEAST_FILLED * usual:
            break
        found.append(ends)
    return found[1:]


def _runs(column: np.ndarray) -> list[tuple[int, int]]:
    """Return where runs of what is filled begin and end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], column, [False]]).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]
