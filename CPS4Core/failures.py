"""Whatever goes wrong becomes one line for the user; what nobody expected, with the path of a log."""

from __future__ import annotations

import os
import re
import tempfile
import traceback
from pathlib import Path

from CPS4Core.errors import CPS4Error
from CPS4Core.events import Failed

PATHS = re.compile(r"(?:[A-Za-z]:)?[\\/][^'\"\n]*")
"""Paths in the message of an exception: the folder of a study may tell who the patient is."""


def failure_of(error: Exception, path: Path | str | None = None) -> Failed:
    """Return what to tell the user of an error; the details of an unexpected one are written to a log.

    Args:
        error: any but ``Cancelled``.
        path: what it concerns, if the error does not say so.
    """
    if isinstance(error, CPS4Error):
        place = error.path or path
        return Failed(error.problem, error.remedy, None if place is None else str(place))
    from CPS4Core.devices import NO_MEMORY, is_out_of_memory  # imports torch

    if is_out_of_memory(error):
        problem, remedy = NO_MEMORY
    else:
        problem, remedy = "Something unexpected went wrong.", f"The details are in {_write_log(error)}."
    return Failed(problem, remedy, None if path is None else str(path))


def is_below(error: Exception, folder: Path) -> bool:
    """Return whether an error is about something below a folder, such as a file that cannot be written there."""
    return isinstance(error, CPS4Error) and error.path is not None and folder in error.path.parents


def _write_log(error: Exception) -> Path:
    """Write an exception to a log file in the temporary folder, without the paths that it names."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    told = [line if line.startswith("  ") else PATHS.sub("PATH", line) for line in lines]
    handle, name = tempfile.mkstemp(prefix="cps4-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n".join(told) + "\n")
    return Path(name)
