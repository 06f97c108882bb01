"""Nothing is written over that the same command did not make from the same input.

For each result, a small JSON file in the hidden folder ``.cps4`` beside it says what made it, from what, and what it
held: no name and no path but the result's own. So a second run goes on where the first one stopped, and what somebody
has corrected since stays.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

from CPS4Core.data.content import voxels_of
from CPS4Core.data.volumes import IMAGE_SUFFIXES, read_file
from CPS4Core.errors import CPS4Error
from CPS4Core.files import sha256_of, write_json

FOLDER = ".cps4"
LONGEST_NAME = 255
"""Bytes of a file's name that every file system takes."""
Maker = dict[str, Any]
"""What makes a result, in JSON values: the command, the content of its input, the model, the options."""


class State(Enum):
    """What there is at the place of a result."""

    FREE = "nothing"
    MADE = "what the same command made from the same input"
    CHANGED = "what it made, changed since"
    FOREIGN = "something else"


def state_of(target: Path, maker: Maker) -> State:
    """Return what there is at the place of a result."""
    if not target.exists():
        return State.FREE
    try:
        record = json.loads(_record_of(target).read_text(encoding="utf-8"))
        if record["maker"] != maker:
            return State.FOREIGN
        return State.MADE if record["content"] == _content_of(target) else State.CHANGED
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, CPS4Error):
        return State.FOREIGN


def note(target: Path, maker: Maker, content: str) -> None:
    """Note what is about to be written, before it is: a result without a record would not be known again.

    Args:
        target: the result.
        maker: what makes it.
        content: ``voxels_of`` a volume, the SHA-256 of any other file.

    Raises:
        CPS4Error: if the folder cannot be written.
    """
    write_json(_record_of(target), {"result": target.name, "maker": maker, "content": content})


def is_result(path: Path) -> bool:
    """Return whether a command has written this file, whoever may have changed it since."""
    return _record_of(path).is_file()


def check_free(target: Path, maker: Maker, overwrite: bool) -> None:
    """Check that a result may be written.

    Raises:
        CPS4Error: if there is something that the same command did not make from the same input.
    """
    if not overwrite and state_of(target, maker) in (State.CHANGED, State.FOREIGN):
        raise CPS4Error(
            "There is a file already, which this command did not make from this input, or which has changed since.",
            "Choose another place for the result; on the command line, --overwrite writes over it.",
            target,
        )


def check_place(target: Path, sources: Iterable[Path]) -> None:
    """Check that a result has a name that can be written, and does not take the place of what it is made from.

    Raises:
        CPS4Error: if not.
    """
    if len(os.fsencode(target.name)) > LONGEST_NAME:
        raise CPS4Error("The result's name would be too long.", "Shorten the name of its source.", target)
    for source in sources:
        if target == source or (target.exists() and source.exists() and target.samefile(source)):
            raise CPS4Error(
                "The result would take the place of its source.", "Choose another place for it.", target
            )


def _record_of(target: Path) -> Path:
    # A hash, since the name may already be as long as the file system allows.
    return target.parent / FOLDER / f"{hashlib.sha256(target.name.encode()).hexdigest()[:16]}.json"


def _content_of(path: Path) -> str:
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return voxels_of(read_file(path))
    return sha256_of(path)
