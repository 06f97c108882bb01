"""Which patients are labelled, validate and are unlabelled: by patient, nested and seeded.

At each ratio the first round(ratio x n) patients of one shuffled list keep their labels, so that a smaller ratio's
patients are among a larger one's. Some of them validate; the labels of all others are hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from CPS4Core.data.dataset import Case, DataSet
from CPS4Core.errors import CPS4Error, listed
from CPS4Core.files import read_json, write_json

FILE = "splits.json"
RATIOS = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Labelled ratios of the paper's Table 1, and all."""
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """Names of the cases of each part."""

    labelled: tuple[str, ...]
    validation: tuple[str, ...]
    unlabelled: tuple[str, ...]


def split_for_ratio(data_set: DataSet, ratio: float, seed: int) -> Split:
    """Return the split for ``ratio``: that in the data set's ``splits.json`` if there is one, else a new one.

    Raises:
        CPS4Error: if the data set has no labelled case, or its ``splits.json`` does not hold.
    """
    path = data_set.folder / FILE
    if path.is_file():
        splits = read_splits(path, data_set)
        if ratio in splits:
            return splits[ratio]
    return make_split(data_set, ratio, seed)


def left_out(split: Split, data_set: DataSet) -> list[str]:
    """Return the training cases that a split does not know, such as those added by hand after it was written.

    Unlabelled images of validation patients are left out on purpose.
    """
    known = {*split.labelled, *split.validation, *split.unlabelled}
    validating = {case.patient for case in data_set.cases if case.name in split.validation}
    training = (*data_set.labelled, *data_set.unlabelled)
    return [case.name for case in training if case.name not in known and case.patient not in validating]


def say_left_out(split: Split, data_set: DataSet) -> CPS4Error | None:
    """Return what to tell the user of ``left_out`` cases, None if there are none."""
    names = left_out(split, data_set)
    if not names:
        return None
    return CPS4Error(
        f"{len(names)} cases are in no part of the splits, and are not trained on: {listed(names)}.",
        "Remove the file to have all cases split anew, or name them in it.",
        data_set.folder / FILE,
    )


def make_split(data_set: DataSet, ratio: float, seed: int) -> Split:
    """Return the split that keeps the labels of ``ratio`` of the labelled patients.

    Args:
        data_set: its training cases are split; test cases stay apart.
        ratio: share of the labelled patients, in (0, 1]; at least one patient keeps its labels.
        seed: of the shuffled list.

    Raises:
        CPS4Error: if no case is labelled, or the ratio is out of range.
    """
    if not 0 < ratio <= 1:
        raise CPS4Error(f"The labelled ratio {ratio:g} is out of range.", "Choose more than 0 and at most 1.")
    patients = sorted({case.patient for case in data_set.labelled})
    if not patients:
        raise CPS4Error(
            "The data set has no labelled case.", "Put label maps in its folder labelsTr.", data_set.folder
        )
    shuffled = [patients[k] for k in np.random.default_rng([seed, len(patients)]).permutation(len(patients))]
    kept = shuffled[: max(1, round(ratio * len(patients)))]
    validating = kept[: max(1, round(VALIDATION_SHARE * len(kept)))] if len(kept) > 1 else []
    labelled = [
        case.name for case in data_set.labelled if case.patient in kept and case.patient not in validating
    ]
    validation = [case.name for case in data_set.labelled if case.patient in validating]
    used = {*labelled, *validation}
    # An unlabelled image of a validation patient would leak it into training.
    rest = [case for case in (*data_set.labelled, *data_set.unlabelled) if case.patient not in validating]
    unlabelled = [case.name for case in rest if case.name not in used]
    return Split(tuple(labelled), tuple(validation), tuple(sorted(unlabelled)))


def write_splits(data_set: DataSet, seed: int, ratios: Iterable[float] = RATIOS) -> Path:
    """Write the splits of all ``ratios`` to the data set's ``splits.json`` and return its path.

    Raises:
        CPS4Error: if no case is labelled, or the file cannot be written.
    """
    path = data_set.folder / FILE
    write_json(path, describe_splits(data_set, seed, ratios))
    return path


def describe_splits(data_set: DataSet, seed: int, ratios: Iterable[float] = RATIOS) -> dict[str, Any]:
    """Return the splits of all ``ratios`` as ``splits.json`` holds them.

    Raises:
        CPS4Error: if no case is labelled.
    """
    splits = {ratio: make_split(data_set, ratio, seed) for ratio in ratios}
    parts = {
        f"{ratio:g}": {part: list(names) for part, names in asdict(split).items()}
        for ratio, split in splits.items()
    }
    return {"seed": seed, "splits": parts}


def read_splits(path: Path, data_set: DataSet) -> dict[float, Split]:
    """Return the splits in ``path`` by ratio, checked against the data set.

    Raises:
        CPS4Error: if a case is unknown, lacks the labels that its part needs, or shares its patient with another
            part.
    """
    cases = {case.name: case for case in data_set.cases}
    try:
        splits = {
            float(ratio): Split(*(tuple(parts[name]) for name in ("labelled", "validation", "unlabelled")))
            for ratio, parts in read_json(path)["splits"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CPS4Error("The file is no list of splits.", "Delete it to have it made again.", path) from error
    for split in splits.values():
        _check(split, cases, path)
    return splits


def _check(split: Split, cases: dict[str, Case], path: Path) -> None:
    remedy = "Correct the file, or delete it to have it made again."
    parts: dict[str, Sequence[str]] = asdict(split)
    for part, names in parts.items():
        for name in names:
            if name not in cases:
                raise CPS4Error(f"The {part} case {name!r} is not in the data set.", remedy, path)
            if part != "unlabelled" and cases[name].label is None:
                raise CPS4Error(f"The {part} case {name!r} has no labels.", remedy, path)
    if not split.labelled:
        raise CPS4Error("A split has no labelled case.", remedy, path)
    part_of: dict[str, str] = {}
    for part, names in parts.items():
        for name in names:
            # A patient may give labelled and unlabelled images, but validates alone.
            other = part_of.setdefault(cases[name].patient, part)
            if other != part and "validation" in (other, part):
                raise CPS4Error(
                    f"The patient of case {name!r} is in two parts: {other} and {part}.", remedy, path
                )
            if other != part and name in parts[other]:
                raise CPS4Error(f"The case {name!r} is in two parts: {other} and {part}.", remedy, path)
    for case in cases.values():
        if case.test and case.patient in part_of:
            raise CPS4Error(f"The patient of the test case {case.name!r} is also trained on.", remedy, path)
