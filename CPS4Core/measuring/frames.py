"""A frame for each structure: which way is up along the spine, to the back and to the right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from CPS4Core.measuring.voxels import Voxels

REACH_MM = 60.0
"""Discs so far up and down tell how a structure is turned about the spine."""
SLICES_COUNT = 0.05
"""How much the direction of the slices counts against the shape of discs, whose width exceeds their depth."""
MOST_TURNED = np.cos(np.radians(40))
HEAD = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Frame:
    """Axes of one structure: unit vectors in the patient (RAS), at right angles."""

    centre: np.ndarray
    up: np.ndarray
    back: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, centre: np.ndarray, up: np.ndarray, right: np.ndarray) -> Frame:
        """Return the frame whose ``up`` is given; ``right`` is put at a right angle to it."""
        up = up / np.linalg.norm(up)
        right = right - (right @ up) * up
        right /= np.linalg.norm(right)
        return cls(centre, up, np.cross(up, right) * -1, right)

    def places(self, back: np.ndarray, up: np.ndarray, right: np.ndarray | float = 0.0) -> np.ndarray:
        """Return where places (..., 3) lie in the patient that are given in mm along the axes."""
        return (
            self.centre
            + np.multiply.outer(back, self.back)
            + np.multiply.outer(up, self.up)
            + np.multiply.outer(right, self.right)
        )

    def turned(self, angle: float) -> Frame:
        """Return the frame turned in its sagittal plane: ``angle``, radians, lifts the back's axis."""
        cos, sin = np.cos(angle), np.sin(angle)
        return Frame(
            self.centre, cos * self.up - sin * self.back, cos * self.back + sin * self.up, self.right
        )

    def moved(self, back: float, up: float) -> Frame:
        """Return the frame with its centre moved, in mm along the axes."""
        return Frame(self.centre + back * self.back + up * self.up, self.up, self.back, self.right)


def frames_of(bodies: Mapping[str, Voxels], discs: Mapping[str, Voxels]) -> dict[str, Frame]:
    """Return a frame for each structure, with its centre in the body or disc.

    Up is along the line through the middles of bodies and discs. Right is the long axis of the discs near by, and
    where slices cut them off or there are none, the direction from slice to slice.
    """
    centres = {name: voxels.thickest[0] for name, voxels in bodies.items()}
    centres |= {name: voxels.centre for name, voxels in discs.items()}
    order = sorted(centres, key=lambda name: -centres[name][2])
    line = np.array([centres[name] for name in order])
    up = -np.gradient(line, axis=0) if len(line) > 1 else HEAD[None]
    shapes = [
        (voxels.centre, np.cov(voxels.points.T) / np.trace(np.cov(voxels.points.T)))
        for voxels in discs.values()
        if not voxels.in_outer_slice and len(voxels.points) > 1
    ]
    grids = {name: voxels.grid for name, voxels in (*bodies.items(), *discs.items())}
    return {
        name: Frame.of(centres[name], up[place], _right(centres[name], up[place], shapes, grids[name].right))
        for place, name in enumerate(order)
    }


def _right(
    centre: np.ndarray, up: np.ndarray, shapes: list[tuple[np.ndarray, np.ndarray]], slices: np.ndarray
) -> np.ndarray:
    across = np.eye(3) - np.outer(up, up) / (up @ up)
    spread = SLICES_COUNT * np.outer(slices, slices)
    for place, shape in shapes:
        spread = spread + np.exp(-(((place - centre) / REACH_MM) ** 2).sum()) * shape
    right = np.linalg.eigh(across @ spread @ across)[1][:, -1]
    right = right * np.sign(right @ slices)
    return right if right @ slices > MOST_TURNED else slices
