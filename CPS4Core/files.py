"""Files that are never half written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from CPS4Core.errors import CPS4Error

UNFINISHED = ".writing-"
"""How the names of files begin that are not complete yet, or were left so by a process that was killed."""
NAME_END = 16
"""Characters of a file's name that its temporary name ends in: enough for any suffix, and short of every limit."""
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
MAKE_SPACE = "Free some space and start again; nothing was lost."
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
MOST_JSON = 256 * 2**20
"""Bytes; the lists of the largest data sets are a hundredth of it."""
CANNOT_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What file systems answer that cannot flush a file; they have taken all of it."""


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` once the block has written it.

    The old file stays untouched until the new one is complete and on the disk. The temporary name is hidden, and
    ends as ``path`` does, in lower case, since many writers choose the format by the suffix.

    Raises:
        CPS4Error: if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}-{path.name[-NAME_END:].lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        raise as_user_error(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path, seconds: float = 0.0) -> None:
    """Remove the unfinished files in a folder and below that are older than ``seconds``: those of killed processes.

    Those that cannot be removed stay; they are hidden, and nobody's.
    """
    for path in folder.rglob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= seconds:
                path.unlink()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        CPS4Error: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise as_user_error(error, path) from error


def copy_file(source: Path, path: Path) -> None:
    """Copy a file to ``path``, aside and renamed.

    Raises:
        CPS4Error: if ``source`` cannot be read, the disk is full or the folder cannot be written.
    """
    with written_aside(path) as temporary:
        shutil.copyfile(source, temporary)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented UTF-8 JSON, aside and renamed."""
    with written_aside(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Return the JSON value in ``path``.

    Raises:
        CPS4Error: if the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CPS4Error("The file does not exist.", "Check the path.", path) from error
    except (ValueError, RecursionError) as error:  # also what is nested or long beyond measure
        raise CPS4Error("The file is not valid JSON.", "Restore it or make it again.", path) from error
    except OSError as error:
        raise as_user_error(error, path) from error


def as_user_error(error: OSError, path: str | Path) -> CPS4Error:
    """Return the error to show for an operating system error met at ``path``."""
    path = Path(path)
    if error.errno in FULL:
        return CPS4Error("The disk is full.", MAKE_SPACE, path)
    if error.errno is None:  # as numpy says that it could not write all of an array
        return not_whole(path)
    if error.errno == errno.EFBIG:
        return CPS4Error("The disk takes no file of this size.", "Choose another output folder.", path)
    if error.errno == errno.ENAMETOOLONG:
        return CPS4Error("The file's name is too long.", "Choose a shorter one.", path)
    if error.errno in REFUSED:
        return CPS4Error("The folder cannot be written.", "Choose another output folder.", path)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        in_the_way = next((place for place in (path, *path.parents) if place.is_file()), path)
        return CPS4Error(
            "A file stands where a folder is needed.", "Choose another output folder.", in_the_way
        )
    return CPS4Error(f"Reading or writing failed: {error.strerror}.", "Check the disk and the path.", path)


def not_whole(path: str | Path) -> CPS4Error:
    """Return the error to show for a file of which only a part came onto the disk, the reason not known."""
    return CPS4Error("The file could not be written whole: most likely the disk is full.", MAKE_SPACE, path)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in CANNOT_FLUSH:
                raise
