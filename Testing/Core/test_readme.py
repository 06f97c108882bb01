"""The README leads to what is there: its tree is that of the disk, and the files it names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIND_YOUR_WAY = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Find your way")[2]


def test_the_tree_is_what_is_on_the_disk():
    told = set()
    for line in FIND_YOUR_WAY.splitlines():
        if line.startswith("| `CPS4Core/"):
            told.update(Path(name).name for name in re.findall("`([^`]+)`", line.split("|")[1]))
    there = {path.name for path in (ROOT / "CPS4Core").iterdir() if not path.name.startswith("__")}
    assert told == there


def test_the_files_on_the_way_exist():
    named = re.findall(r"`([\w/]+/\w+\.(?:py|md))`", FIND_YOUR_WAY)
    assert len(named) > 8
    for name in named:
        places = (ROOT / name, ROOT / "CPS4Core" / name, ROOT / "CPS4Segmentation" / name)
        assert any(place.is_file() for place in places), name


def test_what_is_promised_is_held_by_tests_that_exist():
    promises = (ROOT / "Testing/RELIABILITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+\.py)`", promises))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / "Testing/Core" / name).is_file()]
