"""The 19 spine structures: label value, names, prompt, order, colour and coded terminology.

This table is the single source of every label number, name and colour in the project. It imports nothing
but the standard library, so that 3D Slicer can read it without loading the engine.

Label values are those of the MRSpineSeg data set. Codes are SNOMED CT, as listed in the DICOM context groups
CID 7603 (Vertebra) and CID 7604 (Intervertebral Disc).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BACKGROUND = 0
NUM_CLASSES = 20
"""Background and the 19 structures."""

IGNORE = 255
"""Label of voxels whose true class is unknown: left out of every loss and of every metric."""

PROMPT_TEMPLATE = "A magnetic resonance image of a {class_name}."
"""The class prompt of the paper, section 3."""

Kind = Literal["sacrum", "vertebra", "disc"]


@dataclass(frozen=True)
class Structure:
    """One structure of the class table."""

    label: int
    """Voxel value in a label map, 1 to 19."""
    name: str
    """Full name, which the class prompt spells out: ``Lumbar Vertebra 5``."""
    short: str
    """Clinical short name: ``L5`` or ``L4/L5``."""
    kind: Kind
    color: tuple[int, int, int]
    """Display colour, red, green and blue in 0 to 255."""
    snomed: str
    """SNOMED CT code of the structure."""
    snomed_meaning: str


STRUCTURES: tuple[Structure, ...] = (
    Structure(1, "Sacrum", "S", "sacrum", (216, 101, 79), "54735007", "Sacrum"),
    Structure(2, "Lumbar Vertebra 5", "L5", "vertebra", (236, 163, 64), "49668003", "L5 vertebra"),
    Structure(3, "Lumbar Vertebra 4", "L4", "vertebra", (230, 206, 77), "11994002", "L4 vertebra"),
    Structure(4, "Lumbar Vertebra 3", "L3", "vertebra", (158, 202, 84), "36470004", "L3 vertebra"),
    Structure(5, "Lumbar Vertebra 2", "L2", "vertebra", (79, 183, 112), "14293000", "L2 vertebra"),
    Structure(6, "Lumbar Vertebra 1", "L1", "vertebra", (62, 181, 166), "66794005", "L1 vertebra"),
    Structure(7, "Thoracic Vertebra 12", "T12", "vertebra", (74, 158, 214), "23215003", "T12 vertebra"),
    Structure(8, "Thoracic Vertebra 11", "T11", "vertebra", (94, 116, 214), "12989004", "T11 vertebra"),
    Structure(9, "Thoracic Vertebra 10", "T10", "vertebra", (144, 103, 209), "7610001", "T10 vertebra"),
    Structure(10, "Thoracic Vertebra 9", "T9", "vertebra", (194, 101, 190), "82687006", "T9 vertebra"),
    Structure(
        11,
        "Intervertebral Disc between Lumbar Vertebra 5 and Sacrum",
        "L5/S",
        "disc",
        (250, 190, 170),
        "715056000",
        "L5/S1 disc",
    ),
    Structure(
        12,
        "Intervertebral Disc between Lumbar Vertebra 4 and Lumbar Vertebra 5",
        "L4/L5",
        "disc",
        (141, 90, 25),
        "84020006",
        "L4/L5 disc",
    ),
    Structure(
        13,
        "Intervertebral Disc between Lumbar Vertebra 3 and Lumbar Vertebra 4",
        "L3/L4",
        "disc",
        (246, 236, 178),
        "62551000",
        "L3/L4 disc",
    ),
    Structure(
        14,
        "Intervertebral Disc between Lumbar Vertebra 2 and Lumbar Vertebra 3",
        "L2/L3",
        "disc",
        (86, 122, 30),
        "67459009",
        "L2/L3 disc",
    ),
    Structure(
        15,
        "Intervertebral Disc between Lumbar Vertebra 1 and Lumbar Vertebra 2",
        "L1/L2",
        "disc",
        (184, 234, 199),
        "80064006",
        "L1/L2 disc",
    ),
    Structure(
        16,
        "Intervertebral Disc between Thoracic Vertebra 12 and Lumbar Vertebra 1",
        "T12/L1",
        "disc",
        (20, 105, 108),
        "76206002",
        "T12/L1 disc",
    ),
    Structure(
        17,
        "Intervertebral Disc between Thoracic Vertebra 11 and Thoracic Vertebra 12",
        "T11/T12",
        "disc",
        (176, 216, 245),
        "1537001",
        "T11/T12 disc",
    ),
    Structure(
        18,
        "Intervertebral Disc between Thoracic Vertebra 10 and Thoracic Vertebra 11",
        "T10/T11",
        "disc",
        (48, 62, 140),
        "34959001",
        "T10/T11 disc",
    ),
    Structure(
        19,
        "Intervertebral Disc between Thoracic Vertebra 9 and Thoracic Vertebra 10",
        "T9/T10",
        "disc",
        (214, 190, 240),
        "113209001",
        "T9/T10 disc",
    ),
)

BY_LABEL: dict[int, Structure] = {structure.label: structure for structure in STRUCTURES}

HEAD_TO_TAIL: tuple[int, ...] = (10, 19, 9, 18, 8, 17, 7, 16, 6, 15, 5, 14, 4, 13, 3, 12, 2, 11, 1)
"""Labels from the highest structure, T9, to the lowest, the sacrum: vertebrae and discs alternate."""


TERMINOLOGY = "Segmentation category and type - CPS4"
"""Name of the terminology in ``Resources/CPS4.term.json``."""
ANATOMICAL_STRUCTURE = "SCT^123037004^Anatomical Structure"


def segment_id(label: int) -> str:
    """Return the ID of a structure's segment in a segmentation of Slicer; it outlasts any renaming."""
    return f"CPS4_{label:02d}"


def terminology_entry(structure: Structure | None) -> str:
    """Return the terminology of a structure as Slicer serialises it: context, category, type, modifier, region.

    None, for a structure that is not in the class table, gives the category alone.
    """
    kind = ANATOMICAL_STRUCTURE if structure is None else f"SCT^{structure.snomed}^{structure.snomed_meaning}"
    return f"{TERMINOLOGY}~{ANATOMICAL_STRUCTURE}~{kind}~^^~Anatomic codes - DICOM master list~^^~^^"


def class_name(label: int) -> str:
    """Return the full name of ``label`` (0 is the background), as the class prompt spells it."""
    return "Background" if label == BACKGROUND else BY_LABEL[label].name


def short_name(label: int) -> str:
    """Return the clinical short name of ``label`` (0 is the background)."""
    return "background" if label == BACKGROUND else BY_LABEL[label].short


def class_prompts(names: Literal["full", "short"] = "full", template: str = PROMPT_TEMPLATE) -> list[str]:
    """Return the 20 class prompts, in label order, background first (paper, section 3).

    Args:
        names: ``full`` spells the class out (``Lumbar Vertebra 1``), ``short`` writes ``L1``.
        template: the sentence around ``{class_name}``.
    """
    name_of = class_name if names == "full" else short_name
    return [template.format(class_name=name_of(label)) for label in range(NUM_CLASSES)]


def find_label(text: str) -> int | None:
    """Return the label whose short or full name is ``text``, ignoring case and spaces, or None."""
    wanted = "".join(text.split()).casefold()
    for label in range(NUM_CLASSES):
        if wanted in {"".join(name.split()).casefold() for name in (short_name(label), class_name(label))}:
            return label
    return None
