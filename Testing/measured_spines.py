"""Spines of solids whose heights, angles and slips are known, and their labels on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from CPS4Core.class_table import find_label


@dataclass(frozen=True)
class Solid:
    """A body or disc: a block with rounded sides whose faces lean to each other.

    Places are in mm in the patient: right, front, head. ``axes`` are the rows right, back and up.
    """

    name: str
    centre: np.ndarray
    axes: np.ndarray
    depth: float
    width: float
    height: float
    wedge: float
    """Radians; positive where the front is higher."""
    hollow: float = 0.0
    """How deep its faces are hollow in the middle, mm."""

    def corner(self, back: int, up: int) -> np.ndarray:
        """A corner in the sagittal plane: -1 and 1 are front and back, below and above."""
        reach = back * self.depth / 2
        return self.centre + self.axes.T @ [0.0, reach, up * self._half(reach)]

    def heights(self) -> tuple[float, float, float]:
        """In front, in the middle and at the back."""
        front, back = 2 * self._half(-self.depth / 2), 2 * self._half(self.depth / 2)
        return front, (front + back) / 2 - 2 * self.hollow, back

    def holds(self, points: np.ndarray, posterior: bool) -> np.ndarray:
        """Which points (n, 3) lie inside, or in its posterior elements."""
        right, back, up = self.axes @ (points - self.centre).T
        radius = _sixth(back / (self.depth / 2)) + _sixth(right / (self.width / 2))
        dish = self.hollow * np.clip(1 - (back / (self.depth / 4)) ** 2, 0, None)
        inside = (radius < 1) & (np.abs(up) < self._half(back) - dish)
        if posterior and "/" not in self.name:
            inside |= _posterior(np.abs(right), back - self.depth / 2, up)
        return inside

    def _half(self, back: np.ndarray | float) -> np.ndarray | float:
        return self.height / 2 - back * np.tan(self.wedge / 2)


@dataclass(frozen=True)
class SpineShape:
    """What to build, from the sacrum up; the defaults are those of an adult who lies on the back."""

    names: Sequence[str] = (
        "S",
        "L5/S",
        "L5",
        "L4/L5",
        "L4",
        "L3/L4",
        "L3",
        "L2/L3",
        "L2",
        "L1/L2",
        "L1",
        "T12/L1",
        "T12",
    )
    slope_deg: float = 38.0
    wedges_deg: dict[str, float] = field(
        default_factory=lambda: {
            "L5/S": 12,
            "L5": 8,
            "L4/L5": 10,
            "L4": 3,
            "L3/L4": 7,
            "L3": 1,
            "L2/L3": 5,
            "L1/L2": 3,
            "L1": -3,
            "T12": -4,
        }
    )
    heights: dict[str, float] = field(default_factory=dict)
    hollow: dict[str, float] = field(default_factory=dict)
    slips: dict[str, float] = field(default_factory=dict)
    """How far what lies above a disc is moved to the front, mm."""
    curve_mm: float = 0.0
    """How far a scoliosis moves the spine sideways; it tilts and turns the bodies too."""
    turn: np.ndarray = field(default_factory=lambda: np.eye(3))
    """How the patient lies: a rotation."""


def build(shape: SpineShape) -> dict[str, Solid]:
    """Stack solids on the sacrum."""
    solids = {}
    y, z, lean = 0.0, 0.0, np.radians(shape.slope_deg)
    for name in shape.names:
        wedge = np.radians(shape.wedges_deg.get(name, 0.0))
        usual = 30.0 if name == "S" else 9.0 if "/" in name else 26.0
        height = shape.heights.get(name, usual)
        middle = lean - wedge / 2 if name != "S" else lean
        step = height * np.array([-np.sin(middle), np.cos(middle)])
        down = -1 if name == "S" else 1
        depth = 34.0 if "/" in name else 35.0
        solids[name] = Solid(
            name,
            _bent(shape, y + down * step[0] / 2, z + down * step[1] / 2),
            _axes(shape, middle, z),
            depth,
            44.0,
            height,
            wedge,
            shape.hollow.get(name, 0.0),
        )
        if name == "S":
            continue
        y, z, lean = y + step[0], z + step[1], lean - wedge
        slip = shape.slips.get(name, 0.0)
        y, z = y - slip * np.cos(lean), z - slip * np.sin(lean)
    return solids


def draw(
    solids: dict[str, Solid],
    spacing: tuple[float, float, float],
    turn: np.ndarray | None = None,
    slices: int | None = None,
    posterior: bool = True,
    above: float = 12.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels, axes k, j, i, and the 4 x 4 matrix from i, j, k to the patient.

    Args:
        solids: what to draw.
        spacing: mm along i (to the back), j (to the feet) and k (to the right).
        turn: how the grid lies in the patient, a rotation.
        slices: how many, over the middle; as many as are needed if None.
        posterior: draw posterior elements.
        above: how far the picture goes on above the highest solid; negative cuts it.
    """
    axes = (np.eye(3) if turn is None else turn) @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    ends = np.array([axes.T @ (solid.centre) for solid in solids.values()])
    low = ends.min(0) - np.array([30.0, 14.0 + above, 28.0])
    high = ends.max(0) + np.array([65.0, 45.0, 28.0])
    size = np.ceil((high - low) / spacing).astype(int)
    if slices is not None:
        low[2] = ends[:, 2].mean() - slices * spacing[2] / 2
        size[2] = slices
    to_ras = np.eye(4)
    to_ras[:3, :3] = axes * spacing
    to_ras[:3, 3] = axes @ (low + np.array(spacing) / 2)
    labels = np.zeros(size, np.uint8)
    for solid in sorted(solids.values(), key=lambda solid: "/" not in solid.name):
        box = _box(solid, to_ras, size)
        index = np.stack(np.mgrid[box], -1)
        inside = solid.holds(index.reshape(-1, 3) @ to_ras[:3, :3].T + to_ras[:3, 3], posterior)
        labels[box][inside.reshape(index.shape[:3])] = find_label(solid.name)
    return labels.T, to_ras


def _box(solid: Solid, to_ras: np.ndarray, size: np.ndarray) -> tuple[slice, ...]:
    """The part of a grid that may hold a solid with its posterior elements."""
    ends = np.stack(np.meshgrid([-24, 24], [-20, 66], [-32, 32]), -1).reshape(-1, 3)
    index = (ends @ solid.axes + solid.centre - to_ras[:3, 3]) @ np.linalg.inv(to_ras[:3, :3]).T
    low, high = np.floor(index.min(0)).astype(int), np.ceil(index.max(0)).astype(int)
    return tuple(
        slice(max(0, first), max(0, min(last + 1, end)))
        for first, last, end in zip(low, high, size, strict=True)
    )


def _bent(shape: SpineShape, y: float, z: float) -> np.ndarray:
    return shape.turn @ [shape.curve_mm * np.sin(z / 45), -y, z]


def _axes(shape: SpineShape, lean: float, z: float) -> np.ndarray:
    """Right, back and up of a body that leans to the front, tilted and turned by the scoliosis."""
    up, back = np.array([0.0, np.sin(lean), np.cos(lean)]), np.array([0.0, -np.cos(lean), np.sin(lean)])
    tilt, twist = (
        np.arctan(shape.curve_mm / 45 * np.cos(z / 45)),
        np.radians(shape.curve_mm / 2) * np.sin(z / 45),
    )
    sideways = np.array([[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]])
    about = np.array([[np.cos(twist), -np.sin(twist), 0], [np.sin(twist), np.cos(twist), 0], [0, 0, 1]])
    turn = shape.turn @ sideways @ about
    return np.array([turn @ [1.0, 0, 0], turn @ back, turn @ up])


def _sixth(values: np.ndarray) -> np.ndarray:
    square = values * values
    return square * square * square


def _posterior(apart: np.ndarray, behind: np.ndarray, up: np.ndarray) -> np.ndarray:
    pedicle = (np.abs(behind - 7) < 9) & (np.abs(up - 5) < 7) & (np.abs(apart - 14) < 4.5)
    facets = (np.abs(behind - 18) < 6) & (np.abs(up + 4) < 18) & (np.abs(apart - 15) < 6)
    spinous = (np.abs(behind - 32) < 13) & (np.abs(up + 10) < 9) & (apart < 4)
    return pedicle | facets | spinous
