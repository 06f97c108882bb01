"""The lists of names in `names/`: what exists in Slicer, by class or Python module."""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "names"


class NameList(dict[str, set[str]]):
    """Members by class or module name, with the members of base classes included."""

    def __init__(self, path: Path):
        super().__init__()
        self.bases: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                continue
            head, _, members = line.partition(":")
            name, _, bases = head.partition(" (")
            self[name] = set(members.split())
            self.bases[name] = [base for base in bases.rstrip(")").split(", ") if base]


@cache
def names_of(list_name: str) -> NameList:
    names = NameList(FOLDER / f"{list_name}.txt")
    if (more := FOLDER / f"{list_name}_more.txt").is_file():
        for name, members in NameList(more).items():
            names[name] = names.get(name, set()) | members
            names.bases.setdefault(name, [])
    return names


def members(class_name: str) -> set[str]:
    """All members of a ctk, qMRML, qSlicer or Qt class that PythonQt shows, those of its listed bases included."""
    found: set[str] = set()
    for names in (names_of("slicer"), names_of("ctk"), names_of("qt")):
        if class_name in names:
            found |= names[class_name]
            for base in names.bases[class_name]:
                found |= members(base)
    return found
