"""Reading DICOM series. Messages name series by number and description only, never a patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CPS4Core.errors import CPS4Error

SERIES_DESCRIPTION = "0008|103e"
SERIES_NUMBER = "0020|0011"
PATIENT_ID = "0010|0020"
EVEN_SPACING = 0.1
"""Largest deviation of a gap between slices from the usual one, as a share of it."""


@dataclass(frozen=True)
class Series:
    """One DICOM series: its files in order along the stack."""

    folder: Path
    uid: str
    files: tuple[str, ...]
    number: str
    description: str

    @property
    def title(self) -> str:
        """How messages name the series."""
        return f"series {self.number}" + (f" ({self.description})" if self.description else "")


def find_series(folder: Path) -> list[Series]:
    """Return the DICOM series in ``folder``, not in its subfolders, sorted by number; empty if there is none."""
    found = []
    for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        reader = sitk.ImageFileReader()
        reader.SetFileName(files[0])
        reader.ReadImageInformation()
        found.append(
            Series(folder, uid, files, _tag(reader, SERIES_NUMBER), _tag(reader, SERIES_DESCRIPTION))
        )
    return sorted(found, key=lambda series: (series.number.zfill(8), series.uid))


def read_series(source: Path | Series) -> sitk.Image:
    """Return the volume of a series, or of the only series in a folder, as stored.

    Raises:
        CPS4Error: if the folder holds no series or several, or the series cannot be read or lacks slices.
    """
    series = source if isinstance(source, Series) else _only_series(Path(source))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(series.files)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise CPS4Error(
            f"The DICOM {series.title} cannot be read: a file is damaged or its slices do not match.",
            "Export the series again.",
            series.folder,
        ) from error
    _check_gaps(series)
    return image


def patient_key(series: Series) -> str:
    """Return what tells patients apart; it may identify one, so it is never shown or written."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(series.files[0])
    reader.ReadImageInformation()
    return _tag(reader, PATIENT_ID) or series.uid


def _only_series(folder: Path) -> Series:
    found = find_series(folder)
    if not found:
        raise CPS4Error(
            "The folder holds no DICOM series.", "Choose a volume or a folder of DICOM files.", folder
        )
    if len(found) > 1:
        listed = ", ".join(series.title for series in found[:6])
        raise CPS4Error(
            f"The folder holds {len(found)} DICOM series: {listed}.",
            "Put the sagittal T2 series in a folder of its own, or make a data set with `cps4 prepare`.",
            folder,
        )
    return found[0]


def _check_gaps(series: Series) -> None:
    """Check that the slices lie at equal distances: a missing one would shift all that follow."""
    positions = []
    for name in series.files:
        reader = sitk.ImageFileReader()
        reader.SetFileName(name)
        reader.ReadImageInformation()
        positions.append(reader.GetOrigin())
    gaps = np.linalg.norm(np.diff(np.array(positions), axis=0), axis=1)
    if len(gaps) > 1 and np.abs(gaps - np.median(gaps)).max() > EVEN_SPACING * np.median(gaps):
        raise CPS4Error(
            f"The DICOM {series.title} lacks a slice, or its slices are not evenly spaced.",
            "Export the complete series again.",
            series.folder,
        )


def _tag(reader: sitk.ImageFileReader, tag: str) -> str:
    return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""
