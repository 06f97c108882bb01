"""Where points lie in simple bodies whose middle is the origin."""

from __future__ import annotations

import numpy as np

Radii = tuple[float, float, float]


def superellipse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the radius of points in a rounded rectangle of half-axes 1: 1 on its border."""
    return (np.abs(a) ** 2.6 + np.abs(b) ** 2.6) ** (1 / 2.6)


def ellipsoid(a: np.ndarray, b: np.ndarray, c: np.ndarray, radii: Radii) -> np.ndarray:
    """Return about the distance, in mm, to the border of an ellipsoid; positive inside."""
    return (1 - np.sqrt((a / radii[0]) ** 2 + (b / radii[1]) ** 2 + (c / radii[2]) ** 2)) * min(radii)


def box(a: np.ndarray, b: np.ndarray, c: np.ndarray, radii: Radii) -> np.ndarray:
    """Return about the distance, in mm, to the border of a box with rounded corners; positive inside."""
    squares = [
        (distance / np.float32(radius)) ** 2 for distance, radius in zip((a, b, c), radii, strict=True)
    ]
    radius = np.sqrt(np.sqrt(sum(square * square for square in squares)))
    return (1 - radius) * min(radii)
