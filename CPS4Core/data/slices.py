"""Volumes made ready for training: canonical slices on disk, read one at a time.

Each case becomes two arrays on the canvas of ``InputSettings``: images, float16, and labels, uint8, both
(slices, AP, SI). A small JSON file, written last, says what they are. The names of the files tell data sets, files and
settings apart, so that several data sets and trainings may share a folder: none is ever written over. Memory does not
grow with the number of cases.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import InputSettings
from CPS4Core.data.array_files import ArrayFiles
from CPS4Core.data.dataset import Case
from CPS4Core.data.geometry import SliceGrid, warn_of_single_slices
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import read_scan
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Progress, Reporter, Warned
from CPS4Core.failures import failure_of, is_below
from CPS4Core.files import read_json, write_json

VERSION = 3


@dataclass(frozen=True)
class SliceStore:
    """The prepared cases, and how many slices each has."""

    arrays: ArrayFiles
    counts: dict[str, int]
    names: dict[str, str]
    """Of each case's files."""
    hashes: dict[str, str]
    """SHA-256 of what each case holds, images and labels."""

    def slices_of(self, cases: Sequence[str]) -> list[tuple[str, int]]:
        """Return every (case, slice number) of ``cases``, leaving out cases that could not be prepared."""
        return [(case, k) for case in cases for k in range(self.counts.get(case, 0))]

    def image(self, case: str, k: int) -> np.ndarray:
        """Return one standardised slice, float32, (AP, SI)."""
        return self.arrays.read(self.names[case], "images")[k].astype(np.float32)

    def images(self, case: str) -> np.ndarray:
        """Return the standardised slices of a case, float32, (slices, AP, SI)."""
        return self.arrays.read(self.names[case], "images").astype(np.float32)

    def label(self, case: str, k: int) -> np.ndarray:
        """Return the labels of one slice, uint8, (AP, SI)."""
        return np.array(self.arrays.read(self.names[case], "labels")[k])

    def labels(self, case: str) -> np.ndarray:
        """Return the labels of a case, uint8, (slices, AP, SI)."""
        return np.array(self.arrays.read(self.names[case], "labels"))


def prepare_slices(
    cases: Sequence[Case],
    settings: InputSettings,
    folder: Path,
    report: Reporter,
    cancellation: Cancellation,
) -> SliceStore:
    """Prepare the slices of ``cases``, or reuse those in ``folder`` that came from the same files and settings.

    A case that cannot be read is left out with a warning that names the file and the remedy.

    Raises:
        CPS4Error: if no case could be read, or the folder cannot be written.
        Cancelled: if the user asked to stop; what is prepared stays.
    """
    folder = folder / _settings_key(settings)
    prepared: dict[str, Prepared] = {}
    for done, case in enumerate(cases):
        cancellation.check()
        try:
            prepared[case.name] = _prepare_case(case, settings, folder)
        except Exception as error:  # of one case; the others have their turn
            if is_below(error, folder):
                raise  # nor can the others be written
            failure = failure_of(error, case.image)
            report(Warned(f"Left out {case.name}. {failure.path}: {failure.problem} {failure.remedy}"))
        report(Progress(done + 1, len(cases), "Preparing slices"))
    warn_of_single_slices(sum(case.slices == 1 for case in prepared.values()), report)
    if not prepared:
        raise CPS4Error("No case could be read.", "See the warnings above for each file.")
    return SliceStore(
        ArrayFiles(folder),
        {name: case.slices for name, case in prepared.items()},
        {name: case.name for name, case in prepared.items()},
        {name: case.sha256 for name, case in prepared.items()},
    )


@dataclass(frozen=True)
class Prepared:
    """One prepared case."""

    name: str
    """Of its files."""
    slices: int
    sha256: str
    """Of its arrays."""


def _prepare_case(case: Case, settings: InputSettings, folder: Path) -> Prepared:
    """Prepare one case unless it is there already."""
    stamp = json.dumps([VERSION, _stamp(case.image), _stamp(case.label)])
    name = f"{case.name}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"
    done = folder / f"{name}.json"
    if done.is_file():
        return Prepared(name, **read_json(done))
    image = read_scan(case.image)
    grid = SliceGrid.of(image, settings)
    images = grid.to_slices(image)
    labels = None if case.label is None else grid.labels_to_slices(read_labels(case.label, like=image))
    kept = {"images": images.astype(np.float16)}
    if labels is not None:
        kept["labels"] = labels
    sha256 = hashlib.sha256()
    for kind, array in kept.items():
        ArrayFiles(folder).write(name, kind, array)
        sha256.update(array.tobytes())
    prepared = Prepared(name, len(images), sha256.hexdigest())
    write_json(done, {"slices": prepared.slices, "sha256": prepared.sha256})
    return prepared


def _stamp(path: Path | None) -> list[Any] | None:
    """Return what changes when a file does, and tells it from one of the same name elsewhere."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError as error:
        raise CPS4Error("The file does not exist.", "Check the data set.", path) from error
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _settings_key(settings: InputSettings) -> str:
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]
