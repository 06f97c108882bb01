"""Bones and discs put on one another, as each face leans. Coordinates are y to the back and z to the head, in mm."""

from __future__ import annotations

import numpy as np


class Leaning:
    """What leans to the front by ``tilt``, in radians."""

    tilt: float

    @property
    def up(self) -> tuple[float, float]:
        """Unit vector (y, z) along its axis, upwards."""
        return -float(np.sin(self.tilt)), float(np.cos(self.tilt))

    @property
    def back(self) -> tuple[float, float]:
        """Unit vector (y, z) to its back."""
        return float(np.cos(self.tilt)), float(np.sin(self.tilt))


Face = tuple[float, float, float, tuple[float, float, float]]
"""y, z and tilt of the middle of a face, and of the middle of what ends there."""


def stack(y: float, z: float, tilt: float, height: float, wedge: float) -> Face:
    """Put something on a face; return the middle and tilt of its upper face, and its own middle and tilt."""
    middle = tilt - wedge / 2
    step_y, step_z = -np.sin(middle) * height, np.cos(middle) * height
    centre = (float(y + step_y / 2), float(z + step_z / 2), float(middle))
    return float(y + step_y), float(z + step_z), float(tilt - wedge), centre


def hang(y: float, z: float, tilt: float, height: float, wedge: float) -> Face:
    """Hang something below a face; return the middle and tilt of its lower face, and its own middle and tilt."""
    middle = tilt + wedge / 2
    step_y, step_z = np.sin(middle) * height, -np.cos(middle) * height
    centre = (float(y + step_y / 2), float(z + step_z / 2), float(middle))
    return float(y + step_y), float(z + step_z), float(tilt + wedge), centre
