"""What lies in a folder and is somebody's: hidden files are nobody's, unfinished ones and those that macOS leaves."""

from __future__ import annotations

import os
from pathlib import Path


def visible_files(folder: Path) -> list[Path]:
    """Return the files in a folder that are not hidden, sorted; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def folders_below(folder: Path) -> list[Path]:
    """Return a folder and all visible folders below it, sorted; linked ones too, each place once."""
    found, seen = [], set()
    for place, below, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            below.clear()  # a link that leads back
            continue
        seen.add(real)
        found.append(Path(place))
        below[:] = sorted(name for name in below if not name.startswith("."))
    return sorted(found)
