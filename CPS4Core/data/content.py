"""What tells one image from another, whatever it is called: a hash of all that its files hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CPS4Core.data.listing import visible_files
from CPS4Core.files import sha256_of


def content_of(path: Path) -> str:
    """Return the SHA-256 of a volume's file, or of all files of a DICOM series.

    A MetaImage header counts together with the files beside it whose names begin alike: they hold its voxels.

    Raises:
        CPS4Error: if a file cannot be read.
    """
    if path.is_dir():
        return content_of_all(visible_files(path))
    if path.suffix.lower() == ".mhd":
        return content_of_all(
            other for other in visible_files(path.parent) if other.name.startswith(f"{path.stem}.")
        )
    return sha256_of(path)


def content_of_all(files: Iterable[Path]) -> str:
    """Return the SHA-256 of several files, whatever they are called."""
    return hashlib.sha256("".join(sorted(map(sha256_of, files))).encode()).hexdigest()


def voxels_of(image: sitk.Image) -> str:
    """Return the SHA-256 of an image's values."""
    return hashlib.sha256(np.ascontiguousarray(sitk.GetArrayViewFromImage(image)).tobytes()).hexdigest()
