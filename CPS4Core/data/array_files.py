"""Arrays made from cases, kept in a folder: one NumPy file for each case and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CPS4Core.files import written_aside


@dataclass(frozen=True)
class ArrayFiles:
    """The arrays in ``folder``; ``kind`` names what one holds, such as ``labels``."""

    folder: Path

    def has(self, case: str, kind: str) -> bool:
        """Whether the array is there; it is whole if it is."""
        return self._path(case, kind).is_file()

    def read(self, case: str, kind: str) -> np.ndarray:
        """Return the array, mapped into memory: only what is used of it is read."""
        # Mapped anew at each call: pages that stay mapped would count as memory of this process.
        return np.load(self._path(case, kind), mmap_mode="r", allow_pickle=False)

    def write(self, case: str, kind: str, array: np.ndarray) -> None:
        """Write the array, aside and renamed.

        Raises:
            CPS4Error: if the disk is full or the folder cannot be written.
        """
        with written_aside(self._path(case, kind)) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    def _path(self, case: str, kind: str) -> Path:
        return self.folder / f"{case}.{kind}.npy"
