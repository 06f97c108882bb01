"""Finding and reading volumes, with one clear error for whatever is wrong with a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CPS4Core.data.dicom import read_series
from CPS4Core.data.geometry import check_sagittal
from CPS4Core.data.listing import visible_files
from CPS4Core.data.nifti import check_nifti_is_whole
from CPS4Core.data.pictures import PICTURE_SUFFIXES, is_picture, read_picture, warn_of_pictures
from CPS4Core.data.stated_geometry import check_axes, check_stated_geometry
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter, silent
from CPS4Core.files import as_user_error

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
IMAGE_IO = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
"""What ITK calls the formats."""
SEGMENTATION = ".seg.nrrd"
"""How the name of a Slicer segmentation ends."""

# ITK writes its warnings to the terminal; what matters is said in our own words.
sitk.ProcessObject.GlobalWarningDisplayOff()


def case_name(path: Path) -> str:
    """Return the name of a volume without its suffix."""
    name = Path(path).name
    for suffix in (SEGMENTATION, *IMAGE_SUFFIXES, *PICTURE_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def list_volumes(folder: Path) -> list[Path]:
    """Return the volumes in a folder by name, where there are none the pictures; nothing of its subfolders.

    Hidden files are nobody's: unfinished ones, and those that macOS leaves. A folder that is not there is empty.
    """
    files = visible_files(folder)
    return [path for path in files if path.name.lower().endswith(IMAGE_SUFFIXES)] or _pictures(files)


def list_scans(folder: Path) -> list[Path]:
    """Return what ``list_volumes`` does, without Slicer's segmentations."""
    scans = [path for path in list_volumes(folder) if not path.name.lower().endswith(SEGMENTATION)]
    return scans or _pictures(visible_files(folder))


def _pictures(files: Iterable[Path]) -> list[Path]:
    return [path for path in files if is_picture(path)]


def by_case(paths: Iterable[Path], name_of: Callable[[Path], str] = case_name) -> dict[str, Path]:
    """Return volumes by the names of their cases.

    Raises:
        CPS4Error: if two have the same.
    """
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(name_of(path), path)
        if other != path:
            raise CPS4Error(
                f"Two files have the same case name: {other.name} and {path.name}.",
                "Rename or remove one of them.",
                path,
            )
    return found


def read_scan(path: str | Path, report: Reporter = silent, pixel_mm: float | None = None) -> sitk.Image:
    """Return the sagittal MR in a file, or in a folder that holds one DICOM series.

    Args:
        path: where it is.
        report: receives a warning on what a single slice lacks, and on what a picture is taken to be.
        pixel_mm: size of a pixel, for a PNG or JPEG.

    Returns:
        As ``read_image``.

    Raises:
        CPS4Error: as ``read_image``, and if the volume is not sagittal.
    """
    image = read_image(path, pixel_mm)
    check_sagittal(image, shown(path), report)
    if pixel_mm is not None and is_picture(Path(path)):
        warn_of_pictures(pixel_mm, report)
    return image


def read_image(path: str | Path, pixel_mm: float | None = None) -> sitk.Image:
    """Return the volume in a file, or in a folder that holds one DICOM series.

    Args:
        path: where it is.
        pixel_mm: size of a pixel, for a PNG or JPEG (see ``CPS4Core.data.pictures``).

    Returns:
        A scalar 3D image, float32, as stored: orientation, spacing and origin are those of the file.

    Raises:
        CPS4Error: if the file is missing, empty, truncated or no image; if it does not say how the image lies in the
            body, or says two things; if the image is 4D, in colour, constant, has two dimensions, or holds values
            that are not numbers; if it is a picture without a pixel size.
    """
    if Path(path).name.lower().endswith(SEGMENTATION):
        raise CPS4Error("The file is a segmentation, not an image.", "Choose the MR itself.", path)
    return check_image(read_volume(path, pixel_mm), shown(path))


def shown(path: str | Path) -> Path | None:
    """Return the path that a message may name: that of a file; the folder of a DICOM study may tell the patient."""
    path = Path(path)
    return None if path.is_dir() else path


def check_image(image: sitk.Image, path: Path | None = None) -> sitk.Image:
    """Return a scalar 3D image as float32 if it can be an MR.

    Raises:
        CPS4Error: as ``read_image``, but for what concerns the file; ``path`` is where the image comes from.
    """
    image = as_volume(image, path)
    check_axes(image, path)
    image = sitk.Cast(image, sitk.sitkFloat32)
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        raise CPS4Error(
            "The image holds values that are not numbers (NaN or infinite).", "Export it again.", path
        )
    if values.min() == values.max():
        raise CPS4Error("The image is constant: every voxel has the same value.", "Export it again.", path)
    return image


def check_same_grid(image: sitk.Image, like: sitk.Image, path: Path) -> None:
    """Check that two images lie on the same grid.

    Raises:
        CPS4Error: if their size, spacing, origin or direction differ by more than a hundredth of a voxel.
    """
    tolerance = 0.01 * min(like.GetSpacing())
    same = (
        image.GetSize() == like.GetSize()
        and np.allclose(image.GetSpacing(), like.GetSpacing(), atol=1e-3 * min(like.GetSpacing()), rtol=0)
        and np.allclose(image.GetOrigin(), like.GetOrigin(), atol=tolerance, rtol=0)
        and np.allclose(image.GetDirection(), like.GetDirection(), atol=1e-4, rtol=0)
    )
    if not same:
        raise CPS4Error(
            "The labels lie on another grid than the image (size, spacing, origin or direction).",
            "Resample them to the image, or export both from the same volume.",
            path,
        )


def read_volume(path: str | Path, pixel_mm: float | None = None) -> sitk.Image:
    """Return the scalar 3D volume in a file or in a folder with one DICOM series, whatever its values.

    Raises:
        CPS4Error: as ``read_image``, but for what concerns the values.
    """
    return as_volume(read_file(path, pixel_mm), shown(path))


def read_file(path: str | Path, pixel_mm: float | None = None) -> sitk.Image:
    """Return the image in a file, or in a folder with one DICOM series, of any dimension and type.

    Raises:
        CPS4Error: if it is missing, empty, truncated or no image; if it does not say how the image lies in the body,
            says two things, or its axes are not perpendicular; if it is a picture without a pixel size.
    """
    path = Path(path)
    if not path.exists():
        raise CPS4Error("The file does not exist.", "Check the path.", path)
    if path.is_dir():
        return read_series(path)
    if path.stat().st_size == 0:
        raise CPS4Error("The file is empty.", "Copy or export it again.", path)
    if is_picture(path):
        return read_picture(path, pixel_mm)
    try:
        check_nifti_is_whole(path)
        image = header_reader(path).Execute()
    except OSError as error:
        raise as_user_error(error, path) from error
    except (RuntimeError, EOFError) as error:
        raise CPS4Error(
            "The file is truncated or is no medical image.",
            f"Copy or export it again; CPS4 reads {', '.join((*IMAGE_SUFFIXES, *PICTURE_SUFFIXES))} and DICOM.",
            path,
        ) from error
    check_axes(image, path)
    return image


def header_reader(path: Path) -> sitk.ImageFileReader:
    """Return ITK's reader of a file, once its header says how the image lies.

    Raises:
        CPS4Error: if it does not, or says two things.
        EOFError: if the file is cut short.
        OSError: if it cannot be read.
    """
    check_stated_geometry(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    # Named, since ITK knows some suffixes in lower case alone.
    name = path.name.lower()
    reader.SetImageIO(next((io for suffix, io in IMAGE_IO.items() if name.endswith(suffix)), ""))
    return reader


def as_volume(image: sitk.Image, path: Path | None) -> sitk.Image:
    """Return an image as a scalar 3D volume.

    Raises:
        CPS4Error: if it has several values a voxel, or is no volume; ``path`` is where the image comes from.
    """
    if image.GetNumberOfComponentsPerPixel() > 1 or "complex" in image.GetPixelIDTypeAsString():
        raise CPS4Error(
            "The image is in colour or holds vectors or complex numbers.",
            "Choose a volume with one value a voxel.",
            path,
        )
    if 0 in image.GetSize():
        raise CPS4Error("The image holds no voxel.", "Export it again.", path)
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[..., 0]
    if image.GetDimension() == 4:
        raise CPS4Error(
            f"The image is 4D: {image.GetSize()[3]} volumes in one file.",
            "Save one of them as a file of its own.",
            path,
        )
    if image.GetDimension() < 3:
        raise CPS4Error(
            "The image has two dimensions: how it lies in the body is not known.",
            "Save it as a volume of one sagittal slice, or as a PNG.",
            path,
        )
    return image
