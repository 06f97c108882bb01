"""Reading DICOM series. Messages name series by number and description only, never a patient or a folder.

pydicom reads the tags, those of each frame too; ITK, which knows all ways to compress them, reads the pixels.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from CPS4Core.data.dicom_frames import Frame, Stack, frames_of, stack
from CPS4Core.data.listing import visible_files
from CPS4Core.errors import CPS4Error

if TYPE_CHECKING:
    from pydicom import Dataset

PREAMBLE = 132
"""Bytes at the start of a DICOM file, of which the last four are ``DICM``."""
NEEDED = [
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "PatientID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "InstanceNumber",
    "EchoTime",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


@dataclass(frozen=True)
class Series:
    """One DICOM series: its files, each of which is an image or many."""

    folder: Path
    uid: str
    files: tuple[Path, ...]
    frames: tuple[Frame, ...]
    number: str
    description: str
    patient: str
    """What tells patients apart; it may identify one, so it is never shown or written."""

    @property
    def title(self) -> str:
        """How messages name the series."""
        return f"series {self.number}" + (f" ({self.description})" if self.description else "")

    @cached_property
    def identity(self) -> str:
        """What tells the series from others, without telling the patient: a hash of the numbers that DICOM gives."""
        return hashlib.sha256(f"{self.patient}\n{self.uid}".encode()).hexdigest()


def find_series(folder: Path) -> list[Series]:
    """Return the DICOM series in ``folder``, not in its subfolders, sorted by number; empty if there is none.

    Files that are no images pass, such as a DICOMDIR; a file that is there twice counts once.
    """
    found: dict[str, dict[str, tuple[Path, Dataset]]] = {}
    for path in visible_files(folder):
        header = _read_header(path)
        if header is not None:
            images = found.setdefault(str(header.get("SeriesInstanceUID", "")), {})
            images.setdefault(str(header.get("SOPInstanceUID", path.name)), (path, header))
    series = [_series(folder, uid, images.values()) for uid, images in found.items()]
    return sorted(series, key=lambda one: (one.number.zfill(8), one.uid))


def holds_dicom(folder: Path) -> bool:
    """Return whether ``folder`` itself holds a DICOM image, be it a damaged one."""
    try:
        return any(_read_header(path) is not None for path in visible_files(folder))
    except CPS4Error:
        return True


def _series(folder: Path, uid: str, images: Iterable[tuple[Path, Dataset]]) -> Series:
    images = list(images)
    first = images[0][1]
    return Series(
        folder,
        uid,
        tuple(path for path, _ in images),
        tuple(frame for path, header in images for frame in frames_of(header, path)),
        str(first.get("SeriesNumber") or "").strip(),
        str(first.get("SeriesDescription") or "").strip(),
        str(first.get("PatientID") or "").strip() or uid,
    )


def _read_header(path: Path) -> Dataset | None:
    """Return the tags of a DICOM image that say where it lies; None if the file is no DICOM image."""
    import pydicom  # here, since only DICOM needs it

    with path.open("rb") as file:
        if file.read(PREAMBLE)[-4:] != b"DICM":
            return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its values may tell who the patient is
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=NEEDED)
            if header.get("Rows") and header.get("Columns"):
                return header
            kind = header.file_meta.get("MediaStorageSOPClassUID")
            if kind is not None and "Image Storage" in kind.name:
                raise EOFError("an image without pixels")
            return None
    except Exception as error:  # whatever pydicom makes of a damaged file
        raise CPS4Error("A DICOM file is damaged.", "Export the series again, the whole of it.") from error


def read_series(source: Path | Series) -> sitk.Image:
    """Return the volume of a series, or of the only series in a folder, float32.

    Slices lie where their tags say, in order along the axis across them.

    Raises:
        CPS4Error: if the folder holds no series or several, or the series cannot be read, lacks slices, or does not
            say where its slices lie; without a path.
    """
    series = source if isinstance(source, Series) else _only_series(Path(source))
    try:
        found = stack(series.frames)
    except CPS4Error as error:
        raise CPS4Error(f"The DICOM {series.title} {error.problem}", error.remedy) from error
    return _assemble(found, _read_pixels(series))


def _only_series(folder: Path) -> Series:
    found = find_series(folder)
    if not found:
        raise CPS4Error("The folder holds no DICOM series.", "Choose a volume or a folder of DICOM files.")
    if len(found) > 1:
        listed = ", ".join(series.title for series in found[:6])
        raise CPS4Error(
            f"The folder holds {len(found)} DICOM series: {listed}.",
            "Put the sagittal T2 series in a folder of its own, or make a data set with `cps4 prepare`.",
        )
    return found[0]


def _read_pixels(series: Series) -> dict[Path, np.ndarray]:
    """Return the pixels of each file of a series, float32, shape (frames, rows, columns)."""
    pixels = {}
    for file in series.files:
        if len({frame.rescale for frame in series.frames if frame.file == file}) > 1:
            raise CPS4Error(
                f"The DICOM {series.title} scales its frames differently, by (0028,1053) Rescale Slope.",
                "Export it as a classic series, one file a slice.",
            )
        try:
            image = sitk.ReadImage(str(file), sitk.sitkFloat32)
        except RuntimeError as error:
            raise CPS4Error(
                f"The DICOM {series.title} cannot be read: a file is damaged, or in colour.",
                "Export the series again.",
            ) from error
        array = sitk.GetArrayFromImage(image)
        pixels[file] = array[None] if array.ndim == 2 else array
    return pixels


def _assemble(found: Stack, pixels: dict[Path, np.ndarray]) -> sitk.Image:
    image = sitk.GetImageFromArray(np.stack([pixels[frame.file][frame.number] for frame in found.frames]))
    image.SetSpacing(found.spacing)
    image.SetOrigin(found.origin)
    image.SetDirection(found.direction)
    return image
