"""The sides of a body or disc: its two faces, its front and its back wall, and the corners where they meet.

A line lies through the outer parts of each side. So neither the hollow of an end-plate, nor the waist of a body, nor
the lips at its rims turn a side, as when a reader lays a line from corner to corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from CPS4Core.class_table import Kind
from CPS4Core.measuring.frames import Frame
from CPS4Core.measuring.section import Section, Window, section_of
from CPS4Core.measuring.voxels import Voxels

Problem = Literal["cut", "irregular"]
"""Why a structure is not measured: the border of the picture cuts it, or it has not the shape of a body or disc."""

STEPS_MM = (1.0, 1.0, 0.5)
"""Rounds of looking, each in the frame that the one before laid along the structure."""
OUTER = ((0.08, 0.35), (0.65, 0.92))
"""Parts of a side, as shares of its length, that its line lies through."""
MIDDLE_MM = 2.0
"""Columns so near to the middle tell the height there."""
STRAY_MM = 1.0
"""What is further off a line does not count when it is laid again."""
ROUGHEST_MM = 2.0
"""A face that is further off its line, in the mean, is none."""
DEPTHS_MM, HEIGHTS_MM = (10.0, 65.0), (1.0, 55.0)
LEAST_WALL_MM = 3.0
"""A wall of which less is seen stands at a right angle, as do those of discs."""
PLATE_MM = (2.0, 12.0)
"""How far below its upper plate the walls of the sacrum are looked at."""
WINDOWS: dict[Kind, Window] = {
    "vertebra": Window(-28.0, 28.0, 0.6),
    "disc": Window(-16.0, 16.0, 0.6),
    "sacrum": Window(-12.0, 16.0, 0.2),
}


@dataclass(frozen=True)
class Outline:
    """Corners and middles of the faces of a body or disc, mm in the patient (RAS).

    Of the sacrum its plate is both faces.
    """

    upper_front: np.ndarray
    upper_middle: np.ndarray
    upper_back: np.ndarray
    lower_front: np.ndarray
    lower_middle: np.ndarray
    lower_back: np.ndarray
    right: np.ndarray
    """Unit vector to the right, at a right angle to the sagittal plane of the structure."""


def outline_of(voxels: Voxels, frame: Frame, kind: Kind) -> Outline | Problem:
    """Return the outline of a structure, or why there is none.

    Args:
        voxels: of the structure.
        frame: roughly along it, its centre inside, or of the sacrum near the middle of its plate.
        kind: of structure.
    """
    for step in STEPS_MM:
        section = section_of(voxels, frame, step, WINDOWS[kind])
        if section is None or not DEPTHS_MM[0] < section.ends[1] - section.ends[0] < DEPTHS_MM[1]:
            return "irregular"
        upper = _face(section, section.high)
        lower = upper if kind == "sacrum" else _face(section, section.low)
        middle = sum(section.ends) / 2
        height = (upper.at_place(middle) + lower.at_place(middle)) / 2
        frame = section.frame.moved(middle, height).turned(np.arctan((upper.lean + lower.lean) / 2))
    assert section is not None
    if section.cut:
        return "cut"
    if max(upper.off, lower.off) > ROUGHEST_MM:
        return "irregular"
    return _outline(section, upper, lower, kind)


@dataclass(frozen=True)
class _Line:
    """A side of a section: its place at 0 and how it goes on, in mm along the axes of the frame."""

    at: float
    lean: float
    off: float = 0.0
    """How far the side is from its line, in the mean."""

    @classmethod
    def through(cls, along: np.ndarray, place: np.ndarray, outer: np.ndarray) -> _Line:
        """Lay a line through the outer parts of a side, and again with all of the side that lies on that line."""
        kept = outer
        for _ in range(3):
            lean, at = np.polyfit(along[kept], place[kept], 1)
            off = np.abs(place - at - lean * along)
            kept = off <= max(STRAY_MM, 2.5 * float(np.median(off[outer])))
        return cls(float(at), float(lean), float(off[outer].mean()))

    def at_place(self, along: float) -> float:
        return self.at + self.lean * along


def _face(section: Section, heights: np.ndarray) -> _Line:
    whole = section.within(OUTER[0][0], OUTER[1][1])
    outer = section.within(*OUTER[0]) | section.within(*OUTER[1])
    return _Line.through(section.back[whole], heights[whole], outer[whole])


def _outline(section: Section, upper: _Line, lower: _Line, kind: Kind) -> Outline | Problem:
    middle = sum(section.ends) / 2
    near = np.abs(section.back - middle) <= MIDDLE_MM
    above = (middle, float(section.high[near].mean()))
    below = above if kind == "sacrum" else (middle, float(section.low[near].mean()))
    front, back = (_wall(section, end, upper, lower, kind) for end in (0, -1))
    tops = (_meet(upper, front), above, _meet(upper, back))
    bottoms = (_meet(lower, front), below, _meet(lower, back))
    heights = [top[1] - bottom[1] for top, bottom in zip(tops, bottoms, strict=True)]
    if kind != "sacrum" and not HEIGHTS_MM[0] < min(heights) <= max(heights) < HEIGHTS_MM[1]:
        return "irregular"
    places = [section.frame.places(np.array(back), np.array(up)) for back, up in (*tops, *bottoms)]
    return Outline(*[*places, section.frame.right])


def _wall(section: Section, end: int, upper: _Line, lower: _Line, kind: Kind) -> _Line:
    """Return the front (``end`` 0) or back (-1) wall."""
    place = section.ends[end]
    top, bottom = upper.at_place(place), lower.at_place(place)
    bands = [(bottom + begin * (top - bottom), bottom + stop * (top - bottom)) for begin, stop in OUTER]
    if kind == "sacrum":
        bands = [(top - PLATE_MM[1], top - PLATE_MM[0])]
    outward = section.step / 2 * (-1 if end == 0 else 1)
    heights, places = [], []
    for height in np.concatenate([np.arange(low, high, section.step) for low, high in bands]):
        columns = section.back[(section.low < height) & (height < section.high)]
        if len(columns):
            heights.append(height)
            places.append(columns[end] + outward)
    if kind == "disc" or len(heights) * section.step < LEAST_WALL_MM:
        return _Line(place, 0.0)
    return _Line.through(np.array(heights), np.array(places), np.ones(len(heights), bool))


def _meet(face: _Line, wall: _Line) -> tuple[float, float]:
    """Return where a face and a wall meet: mm to the back and up."""
    up = (face.at + face.lean * wall.at) / (1 - face.lean * wall.lean)
    return wall.at_place(up), up
