"""Writers of one data set take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from CPS4Core.cancellation import Cancellation
from CPS4Core.events import Reporter, Warned
from CPS4Core.files import as_user_error, remove_unfinished

LOCK = "data.lock"
POLL_SECONDS = 0.2


@contextmanager
def writing_to(folder: Path, report: Reporter, cancellation: Cancellation | None = None) -> Iterator[None]:
    """Wait until no other process writes to a data set, and keep others waiting meanwhile.

    What a killed writer left unfinished is removed.

    Raises:
        CPS4Error: if the folder cannot be written.
        Cancelled: if the user asked to stop.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        said = False
        while not lock.is_locked:
            if cancellation is not None:
                cancellation.check()
            try:
                lock.acquire(timeout=POLL_SECONDS)
            except Timeout:
                if not said:
                    report(Warned("Another process writes to the data set: waiting for it."))
                said = True
    except OSError as error:
        raise as_user_error(error, folder) from error
    try:
        remove_unfinished(folder)
        yield
    finally:
        lock.release()
