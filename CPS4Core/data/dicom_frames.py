"""Where the frames of a DICOM series lie: read from the tags of each, and refused where these don't say one thing.

A slice of a classic series is a file of one frame; an enhanced file holds many, in any order, and says of each where
it lies. Messages name tags, never their values that may tell who the patient is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from CPS4Core.data.stated_geometry import PERPENDICULAR, SAME
from CPS4Core.errors import CPS4Error

if TYPE_CHECKING:
    from pydicom import Dataset

EVEN_SPACING = 0.1
"""Largest deviation of a gap between slices from the usual one, as a share of it."""
SAME_DIRECTION = 1e-3
"""Largest difference between the direction cosines of slices that are parallel."""
EXPORT_COMPLETE = "Export the complete series again, as it is on the scanner."
MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "EffectiveEchoTime": "MREchoSequence",
}
"""In which functional group of an enhanced file a value stands."""
TAGS = {
    "ImagePositionPatient": "(0020,0032) Image Position (Patient)",
    "ImageOrientationPatient": "(0020,0037) Image Orientation (Patient)",
    "PixelSpacing": "(0028,0030) Pixel Spacing",
}


@dataclass(frozen=True)
class Frame:
    """One slice: the pixels' place in the files, and what the tags say of it. Lengths in mm."""

    file: Path
    number: int
    """Of the frame in its file, from 0."""
    position: tuple[float, ...] | None
    """Of the first pixel's centre, (x, y, z)."""
    orientation: tuple[float, ...] | None
    """Direction cosines along a row and along a column, six numbers."""
    pixel: tuple[float, ...] | None
    """Distance between rows, and between columns."""
    size: tuple[int, int]
    """Rows and columns."""
    between: float | None
    """Distance between slices."""
    thickness: float | None
    instance: int | None
    echo: float | None
    """Echo time in ms."""
    rescale: tuple[float | None, float | None]
    """Slope and intercept."""


@dataclass(frozen=True)
class Placed:
    """Where a frame lies that says so; the fields of ``Frame``."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel: tuple[float, ...]
    size: tuple[int, int]


@dataclass(frozen=True)
class Stack:
    """Parallel frames at equal distances."""

    frames: tuple[Frame, ...]
    """In order along the axis of slices, which is perpendicular to rows and columns, and right-handed with them."""
    origin: tuple[float, ...]
    spacing: tuple[float, float, float]
    direction: tuple[float, ...]


def frames_of(header: Dataset, file: Path) -> list[Frame]:
    """Return the frames that a file holds."""
    count = int(header.get("NumberOfFrames") or 1)
    return [_frame(header, file, number) for number in range(count)]


def _frame(header: Dataset, file: Path, number: int) -> Frame:
    def numbers(name: str, length: int) -> tuple[float, ...] | None:
        values = _value(header, number, name)
        try:
            found = tuple(float(value) for value in values)
        except (TypeError, ValueError):
            return None
        return found if len(found) == length and np.isfinite(found).all() else None

    def single(name: str) -> float | None:
        try:
            return float(_value(header, number, name))
        except (TypeError, ValueError):
            return None

    echo = single("EffectiveEchoTime")
    instance = single("InstanceNumber")
    return Frame(
        file,
        number,
        numbers("ImagePositionPatient", 3),
        numbers("ImageOrientationPatient", 6),
        numbers("PixelSpacing", 2),
        (int(header.Rows), int(header.Columns)),
        single("SpacingBetweenSlices"),
        single("SliceThickness"),
        None if instance is None else int(instance),
        single("EchoTime") if echo is None else echo,
        (single("RescaleSlope"), single("RescaleIntercept")),
    )


def _value(header: Dataset, number: int, name: str) -> Any:
    """Return a value of a frame: from its own functional groups, from those of all frames, or from the file's."""
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [*own[number : number + 1], *(header.get("SharedFunctionalGroupsSequence") or ())]
    for group in groups:
        macro = group.get(MACROS.get(name, "")) if name in MACROS else None
        if macro and name in macro[0]:
            return macro[0].get(name)
    if int(header.get("NumberOfFrames") or 1) > 1 and name == "ImagePositionPatient":
        return None  # one position cannot be that of all frames
    return header.get(name)


def stack(frames: Sequence[Frame]) -> Stack:
    """Put frames in order by where they lie.

    Raises:
        CPS4Error: if a tag is missing, or the frames are no single stack of parallel slices at equal distances;
            without a path.
    """
    placed = _placed(frames)
    along_row, along_column = _directions(placed)
    normal = np.cross(along_row, along_column)
    positions = np.array([frame.position for frame in placed])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    ordered = [frames[k] for k in order]
    gaps = np.diff(heights[order])
    _check_one_each(ordered, gaps)
    sideways = positions - heights[:, None] * normal
    if np.linalg.norm(sideways - sideways[order[0]], axis=1).max() > SAME * min(placed[0].pixel):
        raise CPS4Error(
            f"is sheared: by {TAGS['ImagePositionPatient']}, its slices are shifted against each other.",
            "Resample it to a regular grid first, such as in 3D Slicer.",
        )
    _check_even(ordered, gaps)
    distance = float(heights[order[-1]] - heights[order[0]]) / len(gaps) if len(gaps) else _depth(frames[0])
    rows, columns = placed[0].pixel
    return Stack(
        tuple(ordered),
        placed[order[0]].position,
        (columns, rows, distance),
        tuple(np.column_stack([along_row, along_column, normal]).ravel().tolist()),
    )


def _placed(frames: Sequence[Frame]) -> list[Placed]:
    """Return the frames of which each says where it lies.

    Raises:
        CPS4Error: if one does not.
    """
    for name, value in (
        ("ImagePositionPatient", "position"),
        ("ImageOrientationPatient", "orientation"),
        ("PixelSpacing", "pixel"),
    ):
        missing = sum(getattr(frame, value) is None for frame in frames)
        if missing:
            raise CPS4Error(
                f"does not say where its slices lie: {TAGS[name]} is missing or damaged in {missing} of "
                f"{len(frames)} images.",
                "Export the series again from the scanner or the archive, not as pictures.",
            )
    return [
        Placed(frame.position, frame.orientation, frame.pixel, frame.size)
        for frame in frames
        if frame.position is not None and frame.orientation is not None and frame.pixel is not None
    ]


def _directions(frames: Sequence[Placed]) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors along a row and along a column that all frames share."""
    cosines = np.array([frame.orientation for frame in frames])
    row, column = cosines[0, :3], cosines[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 0.01 or abs(row @ column) > PERPENDICULAR:
        raise CPS4Error(
            f"has axes that are not perpendicular, by {TAGS['ImageOrientationPatient']}.",
            "Export the series again.",
        )
    if np.abs(cosines - cosines[0]).max() > SAME_DIRECTION:
        raise CPS4Error(
            f"has slices in several directions, by {TAGS['ImageOrientationPatient']}: most likely it is a localizer.",
            "Choose the sagittal series of the same study.",
        )
    if len({frame.size for frame in frames}) > 1 or np.ptp([frame.pixel for frame in frames], 0).max() > 1e-4:
        raise CPS4Error(
            "has slices of several sizes, by (0028,0010) Rows, (0028,0011) Columns and "
            f"{TAGS['PixelSpacing']}.",
            "Put the slices of one size in a folder of their own.",
        )
    if min(frames[0].pixel) <= 0:
        raise CPS4Error(f"has {TAGS['PixelSpacing']} that is not positive.", "Export the series again.")
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _check_one_each(frames: Sequence[Frame], gaps: np.ndarray) -> None:
    """Check that there is one frame at each position."""
    places = 1 + int((gaps >= 0.01).sum())
    if places == len(frames):
        return
    count = f"{len(frames) // places} images at each" if len(frames) % places == 0 else "several images at a"
    echoes = sorted({frame.echo for frame in frames if frame.echo is not None})
    what = "such as repetitions or kinds of contrast"
    if len(echoes) > 1:
        what = f"echoes at {', '.join(f'{echo:g}' for echo in echoes[:6])} ms"
    raise CPS4Error(f"holds {count} position: {what}.", "Export one of them as a series of its own.")


def _check_even(frames: Sequence[Frame], gaps: np.ndarray) -> None:
    """Check that no slice is missing: what follows would be shifted, or all would lie too far apart."""
    if not len(gaps):
        return
    usual = float(np.median(gaps))
    if len(gaps) > 1 and np.abs(gaps - usual).max() > EVEN_SPACING * usual:
        raise CPS4Error(
            "lacks a slice, or its slices are not evenly spaced, by "
            f"{TAGS['ImagePositionPatient']}: they are {gaps.min():.1f} to {gaps.max():.1f} mm apart.",
            EXPORT_COMPLETE,
        )
    between, thickness = frames[0].between, frames[0].thickness
    if thickness and thickness > (1 - EVEN_SPACING) * usual:
        return  # there is no room for another slice between two
    if between:
        # Some scanners give what is left free between two slices, which is less than a slice.
        said = abs(between) + (thickness if thickness and abs(between) < thickness else 0.0)
        if min(abs(usual - said), abs(usual - abs(between))) > EVEN_SPACING * usual:
            raise CPS4Error(
                f"says two things of how far its slices are apart: {usual:.1f} mm by "
                f"{TAGS['ImagePositionPatient']}, {abs(between):.1f} mm by (0018,0088) Spacing Between Slices. "
                "Most likely slices are missing.",
                EXPORT_COMPLETE,
            )
    if not between and thickness and usual > (2 - EVEN_SPACING) * thickness and _numbers_skip(frames):
        raise CPS4Error(
            f"lacks slices: they are {thickness:.1f} mm thick, {usual:.1f} mm apart, and their numbers, "
            "(0020,0013) Instance Number, leave some out.",
            EXPORT_COMPLETE,
        )


def _numbers_skip(frames: Sequence[Frame]) -> bool:
    """Return whether the images' running numbers leave out as many between any two."""
    numbers = sorted(frame.instance for frame in frames if frame.instance is not None)
    return len(numbers) == len(frames) and bool((np.diff(numbers) > 1).all())


def _depth(frame: Frame) -> float:
    """Return the size of a voxel across a single slice, which nothing is measured with."""
    return next((abs(value) for value in (frame.thickness, frame.between) if value), 1.0)
