"""Files that are never half written."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from CPS4Core.errors import CPS4Error


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` once the block has written it.

    The old file stays untouched until the new one is complete and on the disk. The temporary name ends as
    ``path`` does, since many writers choose the format by the suffix.

    Raises:
        CPS4Error: if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix="-" + path.name, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise as_user_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CPS4Error("The file does not exist.", "Check the path.", path) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CPS4Error("The file is not valid JSON.", "Restore it or make it again.", path) from error
    except OSError as error:
        raise as_user_error(error, path) from error


def as_user_error(error: OSError, path: str | Path) -> CPS4Error:
    """Return the error to show for an operating system error met at ``path``."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return CPS4Error("The disk is full.", "Free some space and start again; nothing was lost.", path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return CPS4Error("The folder cannot be written.", "Choose another output folder.", path)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        path = next((each for each in (Path(path), *Path(path).parents) if each.is_file()), path)
        return CPS4Error("A file stands where a folder is needed.", "Choose another output folder.", path)
    return CPS4Error(f"Reading or writing failed: {error.strerror}.", "Check the disk and the path.", path)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    """Return the process's umask; the temporary file is private, the finished one as any other."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
