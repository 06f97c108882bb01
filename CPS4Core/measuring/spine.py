"""The measures of a spine: heights and wedge of bodies and discs, and how neighbours stand to each other.

- Heights are those between the two faces: in front (anterior), in the middle and at the back (posterior), in the
  sagittal plane of the structure itself.
- The wedge is the angle between the two faces, positive where the front is higher.
- The height index of a disc is its mean height over that of the bodies beside it (of L5/S, of the one above it).
- The lordosis of a segment is the angle between the upper face of its upper vertebra and the lower face of its lower
  one, or the plate of the sacrum; positive where it opens to the front. L1-S1 is that between the upper faces of both.
- The slip is how far the lower back corner of a vertebra stands before the upper back corner of the bone below it,
  along the upper face of that one; negative where it stands behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from CPS4Core.class_table import BONES, BY_LABEL, HEAD_TO_TAIL
from CPS4Core.levels import BONE_TO_BONE, LADDER, is_disc, step_of
from CPS4Core.measuring.frames import Frame, frames_of
from CPS4Core.measuring.outline import Outline, Problem, outline_of
from CPS4Core.measuring.voxels import Grid, Voxels

SACRUM = BONES[0].short
FIRST, LAST = "L1", SACRUM
"""Lumbar lordosis is measured from one to the other."""
LEAST_FULL = 0.45
"""Where a vertebra is thickest, a cube of 21 mm holds its body; where it is less full are posterior elements alone."""
DISC_MM = 10.0
"""From L5 to the plate of the sacrum, where no disc tells."""


@dataclass(frozen=True)
class Shape:
    """What is measured of one structure; NaN where something cannot be measured."""

    volume_ml: float
    """Of all its voxels, with posterior elements."""
    outline: Outline | None
    """Of its body; None where it is not measured."""
    problem: Problem | None = None
    """Why it is not measured."""
    anterior_mm: float = math.nan
    middle_mm: float = math.nan
    posterior_mm: float = math.nan
    wedge_deg: float = math.nan

    @property
    def height_mm(self) -> float:
        """The mean of the three heights."""
        return (self.anterior_mm + self.middle_mm + self.posterior_mm) / 3


NOTHING = Shape(math.nan, None)
"""The shape of what is not there."""


@dataclass(frozen=True)
class Segment:
    """How a vertebra stands on the bone below it, and the disc between them; NaN where something is not measured."""

    upper: str
    lower: str
    lordosis_deg: float
    slip_mm: float
    height_index: float


@dataclass(frozen=True)
class Spine:
    """All measures of a segmentation."""

    shapes: Mapping[str, Shape]
    """By the name of the structure, head to tail."""
    segments: Mapping[str, Segment]
    """By the name of the disc, head to tail, also where the disc itself is missing."""
    lordosis_deg: float
    """L1-S1; NaN where L1 or the sacrum is not measured."""


def measure_labels(labels: np.ndarray, to_ras: np.ndarray) -> Spine:
    """Measure a label map.

    Args:
        labels: values of the class table, axes k, j, i; others are passed over.
        to_ras: 4 x 4, from indices i, j, k to mm in the patient, RAS.
    """
    present = np.bincount(labels.ravel(), minlength=256) > 0
    return measure_masks(
        ((BY_LABEL[label].short, labels == label) for label in HEAD_TO_TAIL if present[label]), to_ras
    )


def measure_masks(masks: Iterable[tuple[str, np.ndarray]], to_ras: np.ndarray) -> Spine:
    """Measure structures that may overlap.

    Args:
        masks: name and voxels of each, not zero inside, axes k, j, i of one grid. What is empty or has no name of a
            vertebra, a disc or the sacrum is passed over; of two with one name the first counts.
        to_ras: 4 x 4, from indices i, j, k to mm in the patient, RAS.
    """
    found: dict[int, Voxels] = {}
    for name, mask in masks:
        step = step_of(name)
        if step is not None and step not in found and mask.any():
            grid = Grid(mask.shape[::-1], np.asarray(to_ras, float))
            found[step] = Voxels(mask.T, grid)
    voxels = {LADDER[step]: found[step] for step in sorted(found)}
    shapes = _shapes(voxels)
    return Spine(
        shapes, _segments(shapes), _angle(*(shapes.get(name, NOTHING).outline for name in (FIRST, LAST)))
    )


def _shapes(voxels: Mapping[str, Voxels]) -> dict[str, Shape]:
    problems = {
        name: problem
        for name, structure in voxels.items()
        if (problem := _unfit(name, structure)) is not None
    }
    fit = {name: structure for name, structure in voxels.items() if name not in problems and name != SACRUM}
    frames = frames_of(
        {name: structure for name, structure in fit.items() if not is_disc(name)},
        {name: structure for name, structure in fit.items() if is_disc(name)},
    )
    shapes = {}
    for name, structure in voxels.items():
        if name in problems:
            shapes[name] = Shape(structure.volume_ml, None, problems[name])
        elif name == SACRUM:
            shapes[name] = _sacrum(structure, shapes, frames)
        else:
            outline = outline_of(structure, frames[name], "disc" if is_disc(name) else "vertebra")
            shapes[name] = _shape(structure, outline)
    return shapes


def _unfit(name: str, voxels: Voxels) -> Problem | None:
    """Return why a structure cannot be measured, before any closer look."""
    if is_disc(name):
        return "cut" if voxels.at_edge else None
    if name != SACRUM and voxels.thickest[1] < LEAST_FULL:
        return "cut" if voxels.at_edge else "irregular"
    return None


def _shape(voxels: Voxels, outline: Outline | Problem) -> Shape:
    if not isinstance(outline, Outline):
        return Shape(voxels.volume_ml, None, outline)
    front, middle, back = (
        float(np.linalg.norm(upper - lower))
        for upper, lower in (
            (outline.upper_front, outline.lower_front),
            (outline.upper_middle, outline.lower_middle),
            (outline.upper_back, outline.lower_back),
        )
    )
    return Shape(voxels.volume_ml, outline, None, front, middle, back, _angle(outline, outline))


def _sacrum(voxels: Voxels, shapes: Mapping[str, Shape], frames: Mapping[str, Frame]) -> Shape:
    """Return the shape of the sacrum, of which only its plate is looked at, below what lies on it."""
    name = max((name for name in frames if name in shapes), key=LADDER.index, default=None)
    if name is None:
        return Shape(voxels.volume_ml, None, "irregular")
    frame, above = frames[name], shapes[name].outline
    if above is not None:
        frame = Frame.of(above.lower_middle, above.upper_middle - above.lower_middle, above.right)
    if not is_disc(name):
        frame = frame.moved(0.0, -DISC_MM)
    outline = outline_of(voxels, frame, "sacrum")
    if isinstance(outline, Outline):
        return Shape(voxels.volume_ml, outline)
    return Shape(voxels.volume_ml, None, outline)


def _segments(shapes: Mapping[str, Shape]) -> dict[str, Segment]:
    """Return the segments of which the disc or both bones are there."""
    segments = {}
    for step in range(1, len(LADDER), BONE_TO_BONE):
        upper, disc, lower = LADDER[step - 1 : step + 2]
        if disc not in shapes and not {upper, lower} <= shapes.keys():
            continue
        above, below, between = (shapes.get(name, NOTHING) for name in (upper, lower, disc))
        beside = [bone.height_mm for bone in (above, below) if not math.isnan(bone.height_mm)]
        segments[disc] = Segment(
            upper,
            lower,
            _angle(above.outline, below.outline),
            _slip(above.outline, below.outline),
            between.height_mm / float(np.mean(beside)) if beside else math.nan,
        )
    return segments


def _angle(upper: Outline | None, lower: Outline | None) -> float:
    """Return the angle between the upper face of one and the lower face of another in their sagittal plane, degrees.

    It is positive where it opens to the front.
    """
    if upper is None or lower is None:
        return math.nan
    right = upper.right + lower.right
    right = right / np.linalg.norm(right)
    above, below = upper.upper_front - upper.upper_back, lower.lower_front - lower.lower_back
    above, below = (face - (face @ right) * right for face in (above, below))
    return math.degrees(math.atan2(np.cross(below, above) @ right, below @ above))


def _slip(upper: Outline | None, lower: Outline | None) -> float:
    """Return how far one stands before the one below it, mm."""
    if upper is None or lower is None:
        return math.nan
    forward = lower.upper_front - lower.upper_back
    return float((upper.lower_back - lower.upper_back) @ forward / np.linalg.norm(forward))
