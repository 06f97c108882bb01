"""Made-up label volumes of spines: a curved stack of bodies and discs with posterior elements, and a sacrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from CPS4Core.class_table import HEAD_TO_TAIL, find_label, short_name

SPACING = (4.0, 1.5, 1.5)
SHAPE = (11, 110, 240)
STEP_MM = 34.0
TILTS = {"L5/S": -31, "L4/L5": -12, "L3/L4": -2, "L2/L3": 5, "L1/L2": 8}
"""Lean of the discs, degrees, negative where the back is higher than the front; 8 above."""


@dataclass(frozen=True)
class Drawn:
    """A structure to draw: its name in truth, and the label that it gets."""

    name: str
    label: int


def spine(highest: str = "T11", lowest: str = "S") -> list[Drawn]:
    """Return the structures from one to another, head to tail, under their right names."""
    first, last = (HEAD_TO_TAIL.index(find_label(name)) for name in (highest, lowest))
    return [Drawn(short_name(label), label) for label in HEAD_TO_TAIL[first : last + 1]]


def image_of(labels: np.ndarray) -> sitk.Image:
    """Return labels (slices, AP, SI) as a volume whose columns run down, rows back and slices to the left."""
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(SPACING[::-1])
    image.SetDirection((0, 0, 1, 0, 1, 0, -1, 0, 0))
    return image


def wrong_by_one(structures: Sequence[Drawn]) -> list[Drawn]:
    """Return the structures with every vertebra under the name of the next above."""
    return [
        replace(drawn, label=drawn.label + (drawn.name not in ("S", "T11") and "/" not in drawn.name))
        for drawn in structures
    ]


def draw(
    structures: Sequence[Drawn],
    *,
    missing: Sequence[str] = (),
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    sideways_mm: float = 0.0,
    posterior: bool = True,
) -> np.ndarray:
    """Draw labels, uint8, (slices, AP, SI), the lowest structure at the lower edge.

    Args:
        structures: head to tail; bones and discs alternate.
        missing: names that keep their place but are not drawn.
        shape: of the volume.
        spacing: mm between slices, rows and columns.
        sideways_mm: how far a scoliosis moves the middle of the spine across the slices.
        posterior: draw spinous processes, apart from the bodies, and pedicles and facets in lateral slices.
    """
    labels = np.zeros(shape, np.uint8)
    x, y, z = np.meshgrid(
        *((np.arange(n) * mm for n, mm in zip(shape, spacing, strict=True))), indexing="ij", sparse=True
    )
    bodies = [number for number, structure in enumerate(structures) if "/" not in structure.name]
    tilts = np.radians([_tilt(structures, number) for number in range(len(structures))])
    # Up from the lower edge: the line leans as the structures do.
    place = np.array([0.42 * shape[1] * spacing[1], (shape[2] - 1) * spacing[2] - 12.0])
    centres = [place]
    for number in range(len(structures) - 1, 0, -1):
        tilt = (tilts[number] + tilts[number - 1]) / 2
        centres.append(centres[-1] - STEP_MM / 2 * np.array([-np.sin(tilt), np.cos(tilt)]))
    centres = centres[::-1]
    order = sorted(range(len(structures)), key=lambda number: number not in bodies)  # discs over bones
    for number in order:
        structure, (cy, cz), tilt = structures[number], centres[number], tilts[number]
        if structure.name in missing or cz < -STEP_MM:
            continue
        side = sideways_mm * np.sin(np.pi * number / max(1, len(structures) - 1))
        across = x - (shape[0] - 1) / 2 * spacing[0] - side
        back = (y - cy) * np.cos(tilt) + (z - cz) * np.sin(tilt)
        down = -(y - cy) * np.sin(tilt) + (z - cz) * np.cos(tilt)
        if "/" in structure.name:
            inside = (abs(back) < 16) & (abs(down) < 4.5) & (abs(across) < 21)
        elif structure.name == "S":
            inside = (abs(back) < 16) & (down > -12) & (down < 40) & (abs(across) < 25)
        else:
            inside = (abs(back) < 17) & (abs(down) < 12) & (abs(across) < 22)
            if posterior:
                inside = inside | _posterior(across, back, down)
        labels[inside] = structure.label
    return labels


def _posterior(across: np.ndarray, back: np.ndarray, down: np.ndarray) -> np.ndarray:
    spinous = (abs(back - 45) < 12) & (abs(down - 12) < 7) & (abs(across) < 4)
    pedicle = (abs(back - 23) < 8) & (abs(down + 4) < 5) & (abs(abs(across) - 14) < 4.5)
    facets = (abs(back - 34) < 5) & (abs(down - 6) < 15) & (abs(abs(across) - 14) < 5)
    return spinous | pedicle | facets


def _tilt(structures: Sequence[Drawn], number: int) -> float:
    """Return the lean of a structure: of a bone, the mean of its discs."""
    name = structures[number].name
    if "/" in name:
        return TILTS.get(name, 8)
    if name == "S":
        return -45.0
    beside = [structures[k].name for k in (number - 1, number + 1) if 0 <= k < len(structures)]
    return float(np.mean([TILTS.get(disc, 8) for disc in beside] or [0.0]))
