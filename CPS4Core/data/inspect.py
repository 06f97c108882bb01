"""What `cps4 inspect` tells of a data set before anybody trains on it: what is there, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.dataset import Case, DataSet, open_data_set
from CPS4Core.data.splits import FILE as SPLITS
from CPS4Core.data.splits import read_splits, say_left_out
from CPS4Core.data.volumes import header_reader
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Finished, Progress, Reporter, Warned
from CPS4Core.failures import failure_of


def inspect_data_set(folder: Path, report: Reporter, cancellation: Cancellation) -> list[CPS4Error]:
    """Report how many cases are labelled, unlabelled and for testing, and return what is wrong.

    Only headers are read, so that a large data set answers in seconds; training says what is wrong with the voxels.

    Raises:
        CPS4Error: if the folder is no data set.
        Cancelled: if the user asked to stop.
    """
    data_set = open_data_set(folder)
    problems = list(data_set.problems)
    for number, case in enumerate(data_set.cases, start=1):
        cancellation.check()
        problems += _problems(case)
        report(Progress(number, len(data_set.cases), "Reading headers"))
    if data_set.labelled:
        problems += _problems_of_splits(data_set)
    else:
        problems.append(
            CPS4Error("The data set has no labelled case.", "Put label maps in its folder labelsTr.", folder)
        )
    for problem in problems:
        report(Warned(str(problem)))
    counts = {
        "labelled": len(data_set.labelled),
        "unlabelled": len(data_set.unlabelled),
        "test": len(data_set.test),
    }
    report(Finished(details={**counts, "problems": [str(problem) for problem in problems]}))
    return problems


def _problems_of_splits(data_set: DataSet) -> list[CPS4Error]:
    path = data_set.folder / SPLITS
    if not path.is_file():
        return []
    try:
        splits = read_splits(path, data_set)
    except CPS4Error as error:
        return [error]
    said = {str(lost): lost for split in splits.values() if (lost := say_left_out(split, data_set))}
    return list(said.values())


def _problems(case: Case) -> list[CPS4Error]:
    try:
        size = _size(case.image)
        if case.label is not None and _size(case.label) != size:
            raise CPS4Error(
                "The labels lie on another grid than the image.", "Resample them to the image.", case.label
            )
    except CPS4Error as error:
        return [error]
    except Exception as error:  # of one case; the others have their turn
        failure = failure_of(error, case.image)
        return [CPS4Error(failure.problem, failure.remedy, case.image)]
    return []


def _size(path: Path) -> tuple[int, ...]:
    """Return the size that a volume's header names.

    Raises:
        CPS4Error: if the header cannot be read, or is not that of a 3D stack.
    """
    try:
        reader = header_reader(path)
        reader.ReadImageInformation()
    except (RuntimeError, EOFError, OSError) as error:
        raise CPS4Error(
            "The file is empty, truncated or no medical image.", "Copy or export it again.", path
        ) from error
    size = reader.GetSize()
    if len(size) == 4 and size[3] == 1:
        size = size[:3]
    if len(size) != 3:
        raise CPS4Error("The image is no stack of slices.", "Save it as one 3D volume.", path)
    return size
