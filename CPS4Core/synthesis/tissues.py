"""What a tissue map holds: one code a pixel, which says both the tissue and the class label.

A code is a tissue of one structure, such as *marrow of L4* or *nucleus of L4/L5*, so that every structure can get a
signal of its own, and one lookup turns a map into an image or into labels.
"""

from __future__ import annotations

import numpy as np

from CPS4Core.class_table import BACKGROUND

SURROUNDINGS = (
    "air",
    "fat",
    "skin",
    "muscle",
    "muscle_fat",
    "organ_0",
    "organ_1",
    "organ_2",
    "organ_3",
    "organ_4",
    "organ_5",
    "vessel",
    "ligament",
    "epidural_fat",
    "csf",
    "cord",
    "root",
    "nerve",
    "interspinous",
    "bladder",
    "rectum",
    "presacral_fat",
    "metal",
)
"""Tissues that belong to no structure; their codes are their places here."""
BONE = (
    "cortex",
    "marrow",
    "lesion",
    "endplate",
    "posterior_cortex",
    "posterior_marrow",
    "implant",
    "sclerosis",
)
DISC = ("annulus", "nucleus", "cleft", "protrusion")

VERTEBRA_SLOTS = 11
"""L5 to T9, any vertebra above them, and the sacrum."""
DISC_SLOTS = 11
"""L5/S to T9/T10, any disc above them, and the remnants of discs in the sacrum."""
ABOVE = 9
"""The slot of vertebrae and discs above T9, which have no label."""
SACRUM = 10
"""The slot of the sacrum, and of the remnants of its discs."""
SACRUM_LABEL, LOWEST_VERTEBRA, LOWEST_DISC = 1, 2, 11

TISSUES = (*SURROUNDINGS, *BONE, *DISC)
"""Every tissue; an appearance gives each a signal."""

_FIRST_BONE = len(SURROUNDINGS)
_FIRST_DISC = _FIRST_BONE + VERTEBRA_SLOTS * len(BONE)
CODES = _FIRST_DISC + DISC_SLOTS * len(DISC)
"""Number of codes; they fit in a byte."""


def surrounding(tissue: str) -> int:
    """Return the code of a tissue around the spine."""
    return SURROUNDINGS.index(tissue)


def bone(slot: int, tissue: str) -> int:
    """Return the code of a tissue of the vertebra in ``slot``, 0 for L5."""
    return _FIRST_BONE + slot * len(BONE) + BONE.index(tissue)


def disc(slot: int, tissue: str) -> int:
    """Return the code of a tissue of the disc in ``slot``, 0 for L5/S."""
    return _FIRST_DISC + slot * len(DISC) + DISC.index(tissue)


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tissue = np.zeros(CODES, np.int64)
    label = np.full(CODES, BACKGROUND, np.uint8)
    structure = np.zeros(CODES, np.int64)
    tissue[:_FIRST_BONE] = np.arange(len(SURROUNDINGS))
    for slot in range(VERTEBRA_SLOTS):
        for name in BONE:
            code = bone(slot, name)
            tissue[code] = TISSUES.index(name)
            label[code] = (
                SACRUM_LABEL if slot == SACRUM else LOWEST_VERTEBRA + slot if slot < ABOVE else BACKGROUND
            )
            structure[code] = 1 + slot
    for slot in range(DISC_SLOTS):
        for name in DISC:
            code = disc(slot, name)
            tissue[code] = TISSUES.index(name)
            label[code] = (
                SACRUM_LABEL if slot == SACRUM else LOWEST_DISC + slot if slot < ABOVE else BACKGROUND
            )
            structure[code] = 1 + VERTEBRA_SLOTS + slot
    return tissue, label, structure


TISSUE_OF, LABEL_OF, STRUCTURE_OF = _tables()
"""Of each code: its place in ``TISSUES``, its class label, and its structure (0: the surroundings)."""
STRUCTURES = 1 + VERTEBRA_SLOTS + DISC_SLOTS
