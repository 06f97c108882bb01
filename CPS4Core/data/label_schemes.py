"""The label numbers of other data sets, turned into those of the class table.

Each scheme is a function from an image of whole numbers to an image of class labels, uint8, on the same grid. What a
data set leaves unlabelled but which is no background becomes ``IGNORE``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

from CPS4Core.class_table import BACKGROUND, BONES, DISCS, IGNORE, NUM_CLASSES
from CPS4Core.data.geometry import stack_axes
from CPS4Core.errors import CPS4Error, listed

Scheme = Callable[[sitk.Image], sitk.Image]

SACRUM, *VERTEBRAE = BONES

SPIDER = {
    **{vertebra.level: vertebra.label for vertebra in VERTEBRAE},
    **{201 + disc.level: disc.label for disc in DISCS},
    **{partly_seen: IGNORE for partly_seen in range(101, 126)},
}
"""Vertebrae 1, 2, ... and discs 201, 202, ... count from the lowest upwards; 100 + a vertebra is a part of one."""

_TOTALSPINESEG_BONES = dict(zip(BONES, (50, 45, 44, 43, 42, 41, 32, 31, 30, 29), strict=True))
TOTALSPINESEG = {
    **{theirs: bone.label for bone, theirs in _TOTALSPINESEG_BONES.items()},
    **{50 + _TOTALSPINESEG_BONES[BONES[disc.level]]: disc.label for disc in DISCS},
    46: IGNORE,  # L6
}

_SPINEPS_VERTEBRAE = dict(zip(VERTEBRAE, (24, 23, 22, 21, 20, 19, 18, 17, 16), strict=True))
SPINEPS = {
    26: SACRUM.label,
    **{theirs: vertebra.label for vertebra, theirs in _SPINEPS_VERTEBRAE.items()},
    **{100 + theirs: DISCS[vertebra.level - 1].label for vertebra, theirs in _SPINEPS_VERTEBRAE.items()},
    **{200 + theirs: vertebra.label for vertebra, theirs in _SPINEPS_VERTEBRAE.items()},  # its end-plates
    **{theirs: IGNORE for theirs in (25, 28, 125, 128, 225, 228)},  # L6 and T13, with discs and end-plates
}


def mrspineseg(labels: sitk.Image) -> sitk.Image:
    """Return labels that follow the class table already, as MRSpineSeg's do.

    Raises:
        CPS4Error: if a value is not in the class table.
    """
    unknown = sorted(
        set(np.unique(sitk.GetArrayViewFromImage(labels)).tolist()) - {*range(NUM_CLASSES), IGNORE}
    )
    if unknown:
        raise CPS4Error(
            f"The labels hold values outside the class table: {listed(unknown, most=8)}.",
            f"Labels are 0 to {NUM_CLASSES - 1}, or {IGNORE} to ignore. `cps4 prepare --from` converts those of other "
            "data sets.",
        )
    return sitk.Cast(labels, sitk.sitkUInt8)


def spider(labels: sitk.Image) -> sitk.Image:
    """Return SPIDER's labels; below the lowest structure, where the unlabelled sacrum is, they are ``IGNORE``."""
    array = _translate(sitk.GetArrayViewFromImage(labels), SPIDER)
    order, flips = stack_axes(labels.GetDirection())
    stack = np.flip(array.transpose(order), flips)  # a view: columns from superior to inferior
    columns = np.flatnonzero((stack != BACKGROUND).any((0, 1)))
    if len(columns):
        stack[:, :, columns[-1] + 1 :] = IGNORE
    return _like(array, labels)


def totalspineseg(labels: sitk.Image) -> sitk.Image:
    """Return TotalSpineSeg's labels; cord, canal and levels outside T9 to S are background."""
    return _like(_translate(sitk.GetArrayViewFromImage(labels), TOTALSPINESEG), labels)


def spineps(labels: sitk.Image) -> sitk.Image:
    """Return the labels of a SPINEPS instance mask; a disc is numbered after the vertebra above it."""
    return _like(_translate(sitk.GetArrayViewFromImage(labels), SPINEPS), labels)


SCHEMES: dict[str, Scheme] = {
    "mrspineseg": mrspineseg,
    "spider": spider,
    "totalspineseg": totalspineseg,
    "spineps": spineps,
    "folder": mrspineseg,
}


def _translate(array: np.ndarray, table: dict[int, int]) -> np.ndarray:
    """Return the array with each value replaced by the table's; values that it lacks become background."""
    values, inverse = np.unique(array, return_inverse=True)
    new = np.array([table.get(int(value), BACKGROUND) for value in values], np.uint8)
    return new[inverse].reshape(array.shape)


def _like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    labels = sitk.GetImageFromArray(array)
    labels.CopyInformation(image)
    return labels
