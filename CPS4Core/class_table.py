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
    kind: Kind
    level: int
    """Counted from the sacrum up: 0 the sacrum, 1 L5, to 9 T9. A disc has the level of the bone that it lies on."""
    short: str
    """Clinical short name: ``L5`` or ``L4/L5``."""
    name: str
    """Full name, which the class prompt spells out: ``Lumbar Vertebra 5``."""
    color: tuple[int, int, int]
    """Display colour, red, green and blue in 0 to 255."""
    snomed: str
    """SNOMED CT code of the structure."""
    snomed_meaning: str

    @property
    def is_disc(self) -> bool:
        """Whether it is a disc; if not, it is a bone."""
        return self.kind == "disc"


BONES: tuple[Structure, ...] = (
    Structure(1, "sacrum", 0, "S", "Sacrum", (216, 101, 79), "54735007", "Sacrum"),
    Structure(2, "vertebra", 1, "L5", "Lumbar Vertebra 5", (236, 163, 64), "49668003", "L5 vertebra"),
    Structure(3, "vertebra", 2, "L4", "Lumbar Vertebra 4", (230, 206, 77), "11994002", "L4 vertebra"),
    Structure(4, "vertebra", 3, "L3", "Lumbar Vertebra 3", (158, 202, 84), "36470004", "L3 vertebra"),
    Structure(5, "vertebra", 4, "L2", "Lumbar Vertebra 2", (79, 183, 112), "14293000", "L2 vertebra"),
    Structure(6, "vertebra", 5, "L1", "Lumbar Vertebra 1", (62, 181, 166), "66794005", "L1 vertebra"),
    Structure(7, "vertebra", 6, "T12", "Thoracic Vertebra 12", (74, 158, 214), "23215003", "T12 vertebra"),
    Structure(8, "vertebra", 7, "T11", "Thoracic Vertebra 11", (94, 116, 214), "12989004", "T11 vertebra"),
    Structure(9, "vertebra", 8, "T10", "Thoracic Vertebra 10", (144, 103, 209), "7610001", "T10 vertebra"),
    Structure(10, "vertebra", 9, "T9", "Thoracic Vertebra 9", (194, 101, 190), "82687006", "T9 vertebra"),
)
"""The sacrum and the vertebrae, by level: ``BONES[1]`` is L5."""


def _disc(level: int, label: int, color: tuple[int, int, int], snomed: str, snomed_meaning: str) -> Structure:
    """Return the disc between the bone of ``level`` and the one above it, named after them."""
    above, below = BONES[level + 1], BONES[level]
    name = f"Intervertebral Disc between {above.name} and {below.name}"
    return Structure(
        label, "disc", level, f"{above.short}/{below.short}", name, color, snomed, snomed_meaning
    )


DISCS: tuple[Structure, ...] = (
    _disc(0, 11, (250, 190, 170), "715056000", "L5/S1 disc"),
    _disc(1, 12, (141, 90, 25), "84020006", "L4/L5 disc"),
    _disc(2, 13, (246, 236, 178), "62551000", "L3/L4 disc"),
    _disc(3, 14, (86, 122, 30), "67459009", "L2/L3 disc"),
    _disc(4, 15, (184, 234, 199), "80064006", "L1/L2 disc"),
    _disc(5, 16, (20, 105, 108), "76206002", "T12/L1 disc"),
    _disc(6, 17, (176, 216, 245), "1537001", "T11/T12 disc"),
    _disc(7, 18, (48, 62, 140), "34959001", "T10/T11 disc"),
    _disc(8, 19, (214, 190, 240), "113209001", "T9/T10 disc"),
)
"""The discs, by level: ``DISCS[0]`` lies on the sacrum."""

STRUCTURES: tuple[Structure, ...] = (*BONES, *DISCS)
"""In the order of their labels."""

BY_LABEL: dict[int, Structure] = {structure.label: structure for structure in STRUCTURES}

HEAD_TO_TAIL: tuple[int, ...] = tuple(
    structure.label for structure in sorted(STRUCTURES, key=lambda found: (-found.level, not found.is_disc))
)
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


def structure_of(label: int | None) -> Structure | None:
    """Return the structure of ``label``; None for the background, and where there is no label."""
    return None if label is None else BY_LABEL.get(label)


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
