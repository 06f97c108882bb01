"""Writing volumes: aside, compared with what is on the disk, renamed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CPS4Core.data.nifti import check_nifti_is_whole
from CPS4Core.files import not_whole, written_aside


def write_volume(image: sitk.Image, path: str | Path, header: Mapping[str, str] | None = None) -> None:
    """Write the voxels and the geometry of an image, and nothing else that its header holds.

    Args:
        image: a scalar volume, without NaN.
        path: its suffix chooses the format: ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``.
        header: fields of an NRRD header.

    Raises:
        CPS4Error: if the file cannot be written whole; an older one stays.
    """
    path = Path(path)
    with written_aside(path) as temporary:
        try:
            sitk.WriteImage(
                _bare(image, header or {}), str(temporary), useCompression=True, compressionLevel=1
            )
            _check_on_disk(temporary, image)
        except (RuntimeError, EOFError) as error:
            # ITK does not tell why, and of NIfTI not even that.
            raise not_whole(path) from error


def _bare(image: sitk.Image, header: Mapping[str, str]) -> sitk.Image:
    bare = sitk.Image(image)
    for key in bare.GetMetaDataKeys():
        bare.EraseMetaData(key)
    for key, value in header.items():
        bare.SetMetaData(key, value)
    return bare


def _check_on_disk(path: Path, image: sitk.Image) -> None:
    """Read the file and compare every voxel.

    Raises:
        EOFError: if it is cut short or differs.
        RuntimeError: if it cannot be read.
    """
    check_nifti_is_whole(path)
    found = sitk.ReadImage(str(path))
    if not np.array_equal(sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(image)):
        raise EOFError(path)
