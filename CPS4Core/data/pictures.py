"""One sagittal slice as a PNG or JPEG: a picture knows no pixel size and no place in the body, so both are given.

The picture is taken as radiology shows a sagittal slice: the head is up, the front of the body on the left. It becomes
a volume of one slice of ``THICKNESS_MM``, whose origin is the centre of its first pixel: array index i points to the
back (P), j down (I), k to the right (R). Results lie on that volume's grid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageOps, UnidentifiedImageError

from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter, Warned

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
THICKNESS_MM = 4.0
"""Assumed thickness of the slice, a usual one of sagittal spine MR."""
DIRECTION = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""Columns: where i, j and k point in the patient (x left, y back, z up)."""
GREY_SPREAD = 16
"""Largest difference between the colours of a grey pixel, of 255; JPEG tints a little."""


def is_picture(path: Path) -> bool:
    """Return whether a file is a PNG or JPEG, by its name."""
    return path.name.lower().endswith(PICTURE_SUFFIXES)


def read_picture(path: Path, pixel_mm: float | None) -> sitk.Image:
    """Return the picture as a volume of one sagittal slice, as the module says.

    Args:
        path: a PNG or JPEG in grey, 8 or 16 bits.
        pixel_mm: size of a pixel, which is square.

    Raises:
        CPS4Error: if the pixel size is missing, or the file is damaged, in colour or no picture.
    """
    if pixel_mm is None:
        raise CPS4Error(
            "A picture does not say how large its pixels are.",
            "On the command line, give their size as --pixel-mm: the field of view in mm divided by the pixels "
            "across. The head must be up and the front of the body on the left.",
            path,
        )
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            pixels = _grey(ImageOps.exif_transpose(picture), path)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise CPS4Error("The picture is damaged or too large.", "Export it again.", path) from error
    image = sitk.GetImageFromArray(pixels[None])
    image.SetSpacing((pixel_mm, pixel_mm, THICKNESS_MM))
    image.SetDirection(DIRECTION)
    return image


def warn_of_pictures(pixel_mm: float, report: Reporter) -> None:
    """Report what a picture's place and size are taken to be."""
    report(
        Warned(
            f"A picture: the head is taken to be up, the front on the left, a pixel to be {pixel_mm:g} mm."
        )
    )


def _grey(picture: Image.Image, path: Path) -> np.ndarray:
    """Return the grey values (rows, columns) of a picture, which may be stored in colour."""
    if picture.mode in ("L", "I", "I;16"):
        return np.asarray(picture)
    colours = np.asarray(picture.convert("RGB")).astype(np.int16)
    if np.ptp(colours, axis=-1).max() > GREY_SPREAD:
        raise CPS4Error("The picture is in colour.", "Export the slice in grey, without marks on it.", path)
    return colours.mean(-1).astype(np.float32)
