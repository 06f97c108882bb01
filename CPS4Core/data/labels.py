"""Reading label maps: by the names of the segments where a file has names, by its numbers where it has none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CPS4Core.class_table import BACKGROUND, IGNORE, STRUCTURES, find_label
from CPS4Core.data.label_schemes import Scheme, mrspineseg
from CPS4Core.data.volumes import as_volume, check_same_grid, read_file
from CPS4Core.errors import CPS4Error, listed

OTHER_LEVEL = re.compile(r"[CTLS]\d{1,2}(/[CTLS]\d{0,2})?")
"""Names of vertebrae and discs, such as T8 or L6: those outside the class table are unknown to the networks."""
ROUNDING = 0.01
"""How far a stored number may lie from a whole one: scaled files hold 44.999996 for 45."""


@dataclass(frozen=True)
class Segment:
    """A structure that the header of a Slicer segmentation lists."""

    name: str
    value: int
    """Of its voxels, in its layer."""
    layer: int
    """Overlapping segments lie in several layers: the components of a voxel."""


def read_labels(
    path: str | Path,
    like: sitk.Image | None = None,
    scheme: Scheme = mrspineseg,
    pixel_mm: float | None = None,
) -> sitk.Image:
    """Return the labels in a file.

    Args:
        path: a volume, or a Slicer segmentation (``.seg.nrrd``), whose segments carry the names of the class table.
        like: the image that the labels belong to; both must lie on the same grid.
        scheme: what the numbers mean in a file without names.
        pixel_mm: size of a pixel, for a PNG or JPEG.

    Returns:
        A 3D image, uint8, values 0 to 19 and ``IGNORE``.

    Raises:
        CPS4Error: as ``read_volume``; if a number or a name is no label, or the grid is another one.
    """
    path = Path(path)
    image = read_file(path, pixel_mm)
    try:
        if segments := segments_of(image):
            labels = _by_name(image, segments)
        else:
            labels = scheme(_whole_numbers(as_volume(image, path)))
    except CPS4Error as error:
        raise CPS4Error(error.problem, error.remedy, error.path or path) from error
    if like is not None:
        check_same_grid(labels, like, path)
    return labels


def segments_of(image: sitk.Image) -> list[Segment]:
    """Return the segments that an image's header lists, as Slicer writes it; empty if it is a plain label map."""
    layers = image.GetNumberOfComponentsPerPixel()
    numbers = takewhile(lambda number: image.HasMetaDataKey(f"Segment{number}_Name"), count())
    return [
        Segment(
            image.GetMetaData(f"Segment{number}_Name"),
            _number(image, f"Segment{number}_LabelValue", 1),
            # Before Slicer knew of layers, each segment was a component of its own.
            _number(image, f"Segment{number}_Layer", number if layers > 1 else 0),
        )
        for number in numbers
    ]


def _number(image: sitk.Image, key: str, default: int) -> int:
    try:
        return int(image.GetMetaData(key)) if image.HasMetaDataKey(key) else default
    except ValueError as error:
        raise CPS4Error(f"The header's {key} is no number.", "Save the segmentation again.") from error


def _by_name(image: sitk.Image, segments: Sequence[Segment]) -> sitk.Image:
    known = {segment: label for segment in segments if (label := _label_named(segment.name)) is not None}
    if strange := [segment.name for segment in segments if segment not in known]:
        raise CPS4Error(
            f"The segmentation has segments that are no vertebrae or discs: {listed(strange)}.",
            "Name segments as in the class table, such as L4 or L4/L5, and remove the others.",
        )
    voxels = sitk.GetArrayViewFromImage(image)
    layers = voxels if image.GetNumberOfComponentsPerPixel() > 1 else voxels[..., None]
    labels = np.zeros(layers.shape[:-1], np.uint8)
    found = np.zeros(layers.shape, bool)
    for segment, label in known.items():
        if not 0 <= segment.layer < layers.shape[-1]:
            raise CPS4Error(
                f"The layer of segment {segment.name} is missing.", "Save the segmentation again."
            )
        mask = layers[..., segment.layer] == segment.value
        found[..., segment.layer] |= mask
        labels[mask] = label
    if (nameless := layers[~found & (layers != BACKGROUND)]).size:
        raise CPS4Error(
            f"The segmentation holds values that no segment names: {listed(_numbers(nameless))}.",
            "Save the segmentation again.",
        )
    result = sitk.GetImageFromArray(labels)
    result.SetSpacing(image.GetSpacing())
    result.SetOrigin(image.GetOrigin())
    result.SetDirection(image.GetDirection())
    return result


def _label_named(name: str) -> int | None:
    """Return the label that a segment's name means, ``IGNORE`` for another level, None for anything else."""
    label = find_label(name)
    if label is None:
        label = next((known.label for known in STRUCTURES if known.snomed_meaning == name.strip()), None)
    if label is None and OTHER_LEVEL.fullmatch(name.strip()):
        return IGNORE
    return label


def _whole_numbers(image: sitk.Image) -> sitk.Image:
    """Return labels that are stored with decimals as whole numbers."""
    values = sitk.GetArrayViewFromImage(image)
    if np.issubdtype(values.dtype, np.integer):
        return image
    whole = np.rint(values)
    with np.errstate(invalid="ignore"):
        wrong = values[~(np.abs(values - whole) <= ROUNDING)]  # also where it is not a number
    if wrong.size:
        raise CPS4Error(
            f"The labels hold values that are no whole numbers: {listed(_numbers(wrong))}.",
            "Choose a label map. Resample one by nearest neighbour, never between voxels.",
        )
    rounded = sitk.GetImageFromArray(whole.astype(np.int64))
    rounded.CopyInformation(image)
    return rounded


def _numbers(values: np.ndarray) -> list[str]:
    return [f"{value:g}" for value in np.unique(values)]
