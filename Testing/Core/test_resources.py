"""What Slicer reads is made from the one class table."""

import json
from pathlib import Path

import pytest

from CPS4Core.class_table import STRUCTURES
from CPS4Core.resources import FILES

FOLDER = Path(__file__).parents[2] / "Resources"


@pytest.mark.parametrize("name", FILES)
def test_committed_files_are_those_the_class_table_makes(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == FILES[name]()


def test_the_terminology_lists_every_structure_once():
    (category,) = json.loads(FILES["CPS4.term.json"]())["SegmentationCodes"]["Category"]
    listed = {entry["3dSlicerIntegerLabel"]: entry["CodeValue"] for entry in category["Type"]}
    assert listed == {structure.label: structure.snomed for structure in STRUCTURES}
    assert len(set(listed.values())) == len(STRUCTURES)
