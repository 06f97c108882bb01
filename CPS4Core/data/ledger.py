"""Which source each case of a data set was made from, by its name and content: ``sources.json``.

    {
        "cases": {"case_0001": {
            "source": "images/a.nii.gz", "image": "SHA-256", "label": "SHA-256 or null", "patient": null,
            "pixel_mm": null, "written": {"imagesTr/case_0001_0000.nii.gz": "SHA-256"}, "done": true}},
        "splits": "SHA-256 of splits.json as prepared"
    }

A DICOM series is named by a hash: the path of a study may tell who the patient is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from CPS4Core.errors import CPS4Error
from CPS4Core.files import read_json, sha256_of, write_json

FILE = "sources.json"
UNFINISHED = ""
"""Instead of the SHA-256 of a file that is about to be written."""


@dataclass(frozen=True)
class Origin:
    """What a case was made from."""

    source: str
    """What the image is called in its folder (``Source.key``)."""
    image: str
    """SHA-256 of its content."""
    label: str | None
    """SHA-256 of the content of its labels; None if it had none."""
    patient: str | None
    pixel_mm: float | None
    """Size of a pixel that was given for a picture."""
    written: dict[str, str] = field(default_factory=dict)
    """The files of the case, below the data set, with the SHA-256 of each as it was written."""
    done: bool = False
    """Whether they all have been."""

    def made_alike(self, other: Origin) -> bool:
        """Return whether another origin would make the same files."""
        return (self.image, self.label, self.pixel_mm) == (other.image, other.label, other.pixel_mm)


class Ledger:
    """The origins of a data set's cases, by name; each change is on the disk at once.

    Args:
        folder: the data set.

    Raises:
        CPS4Error: if the folder holds a data set that was not prepared, or its ledger is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.cases: dict[str, Origin] = {}
        self._splits: str | None = None
        path = folder / FILE
        if path.is_file():
            self._read(path)
        elif any((folder / part).exists() for part in ("imagesTr", "imagesTs", "dataset.json")):
            raise CPS4Error(
                "The folder holds a data set that `cps4 prepare` did not make.",
                "Choose a new folder, or add single scans with `cps4 add-case`.",
                folder,
            )

    def _read(self, path: Path) -> None:
        said = read_json(path)
        try:
            self.cases = {str(name): Origin(**values) for name, values in said["cases"].items()}
            self._splits = said.get("splits")
        except (AttributeError, KeyError, TypeError) as error:
            raise CPS4Error(
                "The file does not tell where the cases came from.", "Prepare into a new folder.", path
            ) from error

    def begin(self, name: str, origin: Origin, files: list[Path]) -> None:
        """Note where a case comes from, and which files are about to be written."""
        self._put(
            name, replace(origin, written=dict.fromkeys(map(self._below, files), UNFINISHED), done=False)
        )

    def finish(self, name: str, files: list[Path]) -> None:
        """Note that all files of a case are written."""
        written = {self._below(file): sha256_of(file) for file in files}
        self._put(name, replace(self.cases[name], written=written, done=True))

    def rename(self, name: str, origin: Origin) -> None:
        """Note what the source of a case is called now, and whose it is."""
        known = self.cases[name]
        if (known.source, known.patient) != (origin.source, origin.patient):
            self._put(name, replace(known, source=origin.source, patient=origin.patient))

    def changed_since(self, name: str) -> list[Path]:
        """Return the files of a case that somebody has changed since they were written."""
        files = {self.folder / file: sha256 for file, sha256 in self.cases[name].written.items()}
        return [
            file
            for file, sha256 in files.items()
            if sha256 != UNFINISHED and file.is_file() and sha256_of(file) != sha256
        ]

    def is_complete(self, name: str) -> bool:
        """Return whether a case is finished, and its files are there."""
        origin = self.cases.get(name)
        return (
            origin is not None
            and origin.done
            and all((self.folder / file).is_file() for file in origin.written)
        )

    def note_splits(self, path: Path) -> None:
        """Note the splits as they are now written."""
        self._splits = sha256_of(path)
        self._write()

    def owns_splits(self, path: Path) -> bool:
        """Return whether there are no splits, or those that were prepared."""
        return not path.is_file() or sha256_of(path) == self._splits

    def _below(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _put(self, name: str, origin: Origin) -> None:
        self.cases[name] = origin
        self._write()

    def _write(self) -> None:
        said: dict[str, Any] = {"cases": {name: asdict(origin) for name, origin in self.cases.items()}}
        if self._splits is not None:
            said["splits"] = self._splits
        write_json(self.folder / FILE, said)
