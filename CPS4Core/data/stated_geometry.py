"""Whether an image says how it lies in the body, and says one thing. What is missing is never made up."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from CPS4Core.data.nifti import NiftiHeader, is_nifti, read_nifti_header
from CPS4Core.errors import CPS4Error

EXPORT_AGAIN = (
    "Export it again from DICOM, or load it in 3D Slicer, check how it lies, and save it from there."
)
SAME = 0.25
"""How far two places of a voxel may differ, as a share of its shortest edge, and still be called the same."""
PERPENDICULAR = 1e-3
"""Largest cosine between two axes that count as perpendicular."""
MILLIMETRES = (0, 2)
"""Codes of NIfTI's ``xyzt_units`` for lengths in mm, and for those that are not said."""
LENGTH_UNITS = 0x07
"""The bits of ``xyzt_units`` that are the unit of length."""
ANATOMICAL_SPACES = ("right-anterior-superior", "left-anterior-superior", "left-posterior-superior")
MOST_DIMENSIONS = 4
TEXT_HEADER_BYTES = 2**16
"""No header of an NRRD or MetaImage file is as long as this, but for one with many segments."""


def check_stated_geometry(path: Path) -> None:
    """Check that the header of a file says how the image lies in the body, and does not contradict itself.

    Formats other than NIfTI, NRRD and MetaImage pass, and so does what is no header, which ITK refuses.

    Raises:
        CPS4Error: naming the field that is missing or contradicts another.
        EOFError: if the file is cut short.
        OSError: if it cannot be read.
    """
    name = path.name.lower()
    try:
        if is_nifti(path):
            header = read_nifti_header(path)
            if header is not None and header.size is not None:
                _check_nifti(header, header.size)
        elif name.endswith(".nrrd"):
            _check_nrrd(_text_header(path, ":"))
        elif name.endswith((".mha", ".mhd")):
            _check_meta_image(_text_header(path, "="))
    except CPS4Error as error:
        raise CPS4Error(error.problem, error.remedy, path) from error


def check_axes(image: sitk.Image, path: Path | None = None) -> None:
    """Check that the axes of an image are finite and perpendicular, as those of each regular grid are.

    Raises:
        CPS4Error: if they are not; ``path`` is where the image comes from.
    """
    count = image.GetDimension()
    numbers = (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())
    if not np.isfinite(numbers).all() or min(image.GetSpacing()) <= 0:
        raise CPS4Error(
            "The image's voxel size, origin or direction holds values that are no numbers, or zero.",
            EXPORT_AGAIN,
            path,
        )
    _check_perpendicular(np.array(image.GetDirection()).reshape(count, count), path)


def _check_perpendicular(columns: np.ndarray, path: Path | None = None) -> None:
    """Check the angles between columns of any length."""
    unit = columns / np.linalg.norm(columns, axis=0)
    if not np.abs(unit.T @ unit - np.eye(len(unit))).max() <= PERPENDICULAR:
        raise CPS4Error(
            "The image's axes are not perpendicular.", "Resample it to a regular grid first.", path
        )


def _check_nifti(header: NiftiHeader, size: tuple[int, ...]) -> None:
    spacing = np.array(header.pixdim[1:4])[: len(size)]
    if not np.isfinite(header.pixdim[1:4]).all() or not spacing.all():
        raise CPS4Error(
            "The NIfTI header does not say how large a voxel is: its pixdim is "
            f"{', '.join(f'{value:g}' for value in header.pixdim[1:4])}.",
            EXPORT_AGAIN,
        )
    if header.xyzt_units & LENGTH_UNITS not in MILLIMETRES:
        raise CPS4Error(
            f"The NIfTI header's xyzt_units is {header.xyzt_units}: its lengths are not in mm.",
            "Convert the image to mm.",
        )
    if header.qform_code <= 0 and header.sform_code <= 0:
        raise CPS4Error(
            "The NIfTI header does not say how the image lies in the body: its qform_code and sform_code are 0.",
            EXPORT_AGAIN,
        )
    forms = {}
    if header.qform_code > 0:
        forms["qform"] = _qform(header)
    if header.sform_code > 0:
        sform = np.array(header.srow, float).reshape(3, 4)
        if not np.isfinite(sform).all() or np.linalg.matrix_rank(sform[:, :3]) < 3:
            raise CPS4Error("The NIfTI header's sform is no place in the body.", EXPORT_AGAIN)
        _check_perpendicular(sform[:, :3])
        # ITK takes the direction of the one and the voxel size of the other.
        directions = sform[:, :3] / np.linalg.norm(sform[:, :3], axis=0)
        forms |= {
            "sform": sform,
            "pixdim": np.c_[directions * np.abs(header.pixdim[1:4]), sform[:, 3]],
        }
    _check_agree(forms, header, size)


def _qform(header: NiftiHeader) -> np.ndarray:
    """Return the matrix (3, 4) from voxels to mm that the quaternion describes."""
    b, c, d = header.quatern
    rest = 1 - (b * b + c * c + d * d)
    if not np.isfinite((rest, *header.qoffset)).all() or rest < -1e-3:
        raise CPS4Error("The NIfTI header's qform is no place in the body.", EXPORT_AGAIN)
    turn = Rotation.from_quat([b, c, d, math.sqrt(max(rest, 0.0))]).as_matrix()
    handed = -1 if header.pixdim[0] < 0 else 1
    return np.c_[turn * np.abs(header.pixdim[1:4]) * (1, 1, handed), header.qoffset]


def _check_agree(forms: dict[str, np.ndarray], header: NiftiHeader, size: tuple[int, ...]) -> None:
    """Check that all forms put the corners of the image at the same places."""
    lengths = (*size, 1, 1)[:3]
    corners = np.array([(*corner, 1) for corner in product(*((0, length - 1) for length in lengths))])
    places = {name: corners @ form.T for name, form in forms.items()}
    edges = [abs(edge) for edge, length in zip(header.pixdim[1:4], lengths, strict=True) if length > 1]
    (first, reference), *others = places.items()
    for name, place in others:
        apart = np.linalg.norm(place - reference, axis=1).max()
        if apart > SAME * min(edges, default=1.0):
            raise CPS4Error(
                f"The NIfTI header says two things of how the image lies: {first} and {name} are "
                f"{apart:.1f} mm apart.",
                "Export it again from DICOM, or write the right one into both.",
            )


def _check_nrrd(said: dict[str, str]) -> None:
    if not said:
        return
    _check_sizes(said, "dimension", "sizes")
    for field in ("space directions", "space"):
        if not said.get(field):
            raise CPS4Error(
                f"The NRRD header does not say how the image lies in the body: it has no field {field!r}.",
                EXPORT_AGAIN,
            )
    space = said["space"].lower()
    initials = ["".join(word[0] for word in name.split("-")) for name in ANATOMICAL_SPACES]
    if space.removesuffix("-time") not in (*ANATOMICAL_SPACES, *initials):
        raise CPS4Error(
            f"The NRRD header does not say how the image lies in the body: its space is {said['space']!r}.",
            EXPORT_AGAIN,
        )


def _check_sizes(said: dict[str, str], dimension: str, sizes: str) -> None:
    """Check the fields of which ITK takes any value, and crashes."""
    try:
        count, lengths = int(said.get(dimension, "")), [int(length) for length in said.get(sizes, "").split()]
    except ValueError:
        count, lengths = 0, []
    if not 1 <= count <= MOST_DIMENSIONS or len(lengths) != count or min(lengths) < 1:
        raise CPS4Error(
            f"The header is damaged: its fields {dimension!r} and {sizes!r} do not say how large the image is.",
            "Copy or export it again.",
        )


def _check_meta_image(said: dict[str, str]) -> None:
    if "ndims" not in said:
        return
    _check_sizes(said, "ndims", "dimsize")
    for names in (("TransformMatrix", "Rotation", "Orientation"), ("ElementSpacing", "ElementSize")):
        if not any(said.get(name.lower()) for name in names):
            raise CPS4Error(
                f"The header does not say how the image lies in the body: it has no {names[0]}.", EXPORT_AGAIN
            )
    spacing = said.get("elementspacing") or said["elementsize"]
    if not all(_is_length(number) for number in spacing.split()):
        raise CPS4Error(
            f"The header does not say how large a voxel is: its ElementSpacing is {spacing}.", EXPORT_AGAIN
        )


def _is_length(number: str) -> bool:
    try:
        return math.isfinite(float(number)) and float(number) > 0
    except ValueError:
        return False


def _text_header(path: Path, separator: str) -> dict[str, str]:
    """Return the fields of a header in text, by name in lower case; empty where there is none.

    A field that is there twice, with two values, counts as empty.
    """
    with path.open("rb") as file:
        start = file.read(TEXT_HEADER_BYTES)
    said: dict[str, str] = {}
    for line in start.split(b"\n"):
        if not line.strip():
            break  # where the header of an NRRD file ends
        name, found, value = line.decode("latin-1").partition(separator)
        if found:
            name, value = name.strip(), value.strip("= \r")
            said[name.lower()] = value if said.get(name.lower(), value) == value else ""
        if name == "ElementDataFile":
            break
    return said
