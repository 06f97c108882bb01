"""A corrected segmentation joins a data set as a labelled case."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CPS4Core.class_table import BACKGROUND, IGNORE
from CPS4Core.data.dataset import CHANNEL, Case, DataSet, open_data_set
from CPS4Core.data.labels import read_labels
from CPS4Core.data.splits import FILE, read_splits
from CPS4Core.data.turns import writing_to
from CPS4Core.data.volumes import header_reader, list_scans, read_image, read_scan
from CPS4Core.data.writing import write_volume
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Finished, Reporter
from CPS4Core.files import read_json, write_json

NEW_CASE = "corrected_{number:04d}"
"""Cases are numbered: a file's name may hold a patient's."""


def add_case(folder: Path, image_path: Path, labels_path: Path, report: Reporter) -> str:
    """Add an image and its labels to a data set, and return the name of the case.

    An image that the data set has already, unlabelled, gets the labels. Splits that are written down list the case
    among the labelled ones at every ratio.

    Args:
        folder: the data set.
        image_path: a volume.
        labels_path: its labels, on the same grid.
        report: receives the result.

    Raises:
        CPS4Error: if the folder is no data set, the image or the labels cannot be used, the image is a labelled or
            a test case already, or the folder cannot be written.
    """
    open_data_set(folder)
    image = read_scan(image_path)
    labels = read_labels(labels_path, like=image)
    if not set(np.unique(sitk.GetArrayViewFromImage(labels))) - {BACKGROUND, IGNORE}:
        raise CPS4Error("The segmentation is empty.", "Segment or draw at least one structure.", labels_path)
    with writing_to(folder, report):
        name, new = _add(folder, image, labels)
    report(Artifact("case", str(folder), {"case": name, "new": new}))
    report(Finished(details={"case": name}))
    return name


def _add(folder: Path, image: sitk.Image, labels: sitk.Image) -> tuple[str, bool]:
    """Write the case while no other process does; return its name and whether it is new."""
    data_set = open_data_set(folder)
    known = _find_image(data_set, image)
    if known is not None and (known.test or known.label is not None):
        what = "a test case" if known.test else "a labelled case"
        raise CPS4Error(
            f"The image is {what} of the data set already: {known.name}.",
            f"To replace its labels, remove {known.name} from the folder of the labels first.",
            folder,
        )
    name = _new_name(data_set) if known is None else known.name
    write_volume(labels, folder / "labelsTr" / f"{name}.nii.gz")
    if known is None:
        write_volume(image, folder / "imagesTr" / f"{name}{CHANNEL}.nii.gz")
    _describe(folder, name, new=known is None)
    return name, known is None


def _find_image(data_set: DataSet, image: sitk.Image) -> Case | None:
    """Return the case with the same voxels on the same grid, None if there is none."""
    values = sitk.GetArrayViewFromImage(image)
    for case in data_set.cases:
        try:
            reader = header_reader(case.image)
            reader.ReadImageInformation()
            if reader.GetSize() == image.GetSize() and np.array_equal(
                sitk.GetArrayFromImage(read_image(case.image)), values
            ):
                return case
        except (RuntimeError, EOFError, OSError, CPS4Error):
            continue  # a damaged file is no copy of this one
    return None


def _new_name(data_set: DataSet) -> str:
    taken = {case.name for case in data_set.cases}
    number = 1
    while NEW_CASE.format(number=number) in taken:
        number += 1
    return NEW_CASE.format(number=number)


def _describe(folder: Path, name: str, new: bool) -> None:
    """Count the case in ``dataset.json``, and list it in ``splits.json``, where they are."""
    description = folder / "dataset.json"
    if new and description.is_file():
        training = len(list_scans(folder / "imagesTr"))
        write_json(description, {**read_json(description), "numTraining": training})
    if not (folder / FILE).is_file():
        return
    written = read_json(folder / FILE)
    splits = read_splits(folder / FILE, open_data_set(folder))
    changed = {}
    for ratio, split in splits.items():
        if name in split.validation:
            changed[f"{ratio:g}"] = asdict(split)
            continue
        others = tuple(case for case in split.unlabelled if case != name)
        split = replace(split, labelled=(*split.labelled, name), unlabelled=others)
        changed[f"{ratio:g}"] = asdict(split)
    write_json(folder / FILE, {**written, "splits": changed})
