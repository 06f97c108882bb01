"""The class table as Slicer reads it: a colour table and a terminology, made from ``class_table``.

python -m CPS4Core.resources Resources
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from CPS4Core.class_table import BY_LABEL, HEAD_TO_TAIL, TERMINOLOGY


def color_table() -> str:
    """Return a Slicer colour table: label, name, red, green, blue, opacity."""
    lines = ["# CPS4 class table", "0 background 0 0 0 0"]
    lines += [
        f"{label} {structure.short} {' '.join(map(str, structure.color))} 255"
        for label, structure in BY_LABEL.items()
    ]
    return "\n".join(lines) + "\n"


def terminology() -> str:
    """Return a Slicer terminology with one type a structure, head to tail, in JSON."""
    types = [
        {
            "recommendedDisplayRGBValue": list(BY_LABEL[label].color),
            "CodingSchemeDesignator": "SCT",
            "CodeValue": BY_LABEL[label].snomed,
            "CodeMeaning": BY_LABEL[label].snomed_meaning,
            "3dSlicerLabel": BY_LABEL[label].short,
            "3dSlicerIntegerLabel": label,
        }
        for label in HEAD_TO_TAIL
    ]
    context = {
        "SegmentationCategoryTypeContextName": TERMINOLOGY,
        "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/segment-context-schema.json#",
        "SegmentationCodes": {
            "Category": [
                {
                    "CodingSchemeDesignator": "SCT",
                    "CodeValue": "123037004",
                    "CodeMeaning": "Anatomical Structure",
                    "showAnatomy": "true",
                    "Type": types,
                }
            ]
        },
    }
    return json.dumps(context, indent=2) + "\n"


FILES = {"CPS4.ctbl": color_table, "CPS4.term.json": terminology}

if __name__ == "__main__":
    for name, make in FILES.items():
        (Path(sys.argv[1]) / name).write_text(make(), encoding="utf-8")
