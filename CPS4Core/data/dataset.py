"""The one data layout: nnU-Net v2 raw.

data/
    dataset.json               channel names, labels, and (ours) the patient of each case
    imagesTr/CASE_0000.nii.gz  training images
    labelsTr/CASE.nii.gz       their labels; an image without one is unlabelled
    imagesTs/  labelsTs/       test cases
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CPS4Core.class_table import IGNORE, NUM_CLASSES, STRUCTURES, find_label
from CPS4Core.data.volumes import by_case, case_name, list_scans, list_volumes
from CPS4Core.errors import CPS4Error
from CPS4Core.files import read_json, write_json

CHANNEL = "_0000"


@dataclass(frozen=True)
class Case:
    """One image, with its labels if it has any."""

    name: str
    image: Path
    label: Path | None
    patient: str
    test: bool = False


@dataclass(frozen=True)
class DataSet:
    """The cases in a folder, and what is wrong with some of its files."""

    folder: Path
    cases: tuple[Case, ...]
    problems: tuple[CPS4Error, ...] = ()

    @property
    def labelled(self) -> tuple[Case, ...]:
        """Training cases with labels."""
        return tuple(case for case in self.cases if case.label is not None and not case.test)

    @property
    def unlabelled(self) -> tuple[Case, ...]:
        """Training cases without labels."""
        return tuple(case for case in self.cases if case.label is None and not case.test)

    @property
    def test(self) -> tuple[Case, ...]:
        """Test cases."""
        return tuple(case for case in self.cases if case.test)


def open_data_set(folder: str | Path) -> DataSet:
    """Return the data set in a folder. Images are not opened yet.

    Raises:
        CPS4Error: if the folder is no data set, or its ``dataset.json`` has another class table.
    """
    folder = Path(folder)
    if not (folder / "imagesTr").is_dir():
        raise CPS4Error(
            "This is no data set: it has no folder `imagesTr`.", "Make one with `cps4 prepare`.", folder
        )
    patients = known_patients(folder)
    cases: list[Case] = []
    problems: list[CPS4Error] = []
    for images, labels, test in (("imagesTr", "labelsTr", False), ("imagesTs", "labelsTs", True)):
        label_files = by_case(list_volumes(folder / labels))
        for name, image in _images(folder / images, problems).items():
            cases.append(Case(name, image, label_files.pop(name, None), patients.get(name, name), test))
        for path in label_files.values():
            problem = f"The labels have no image in {images}."
            problems.append(CPS4Error(problem, f"Add {case_name(path)}{CHANNEL}, or remove them.", path))
    if not any(not case.test for case in cases):
        raise CPS4Error(
            "The data set has no image.", f"Name images CASE{CHANNEL}.nii.gz.", folder / "imagesTr"
        )
    return DataSet(folder, tuple(cases), tuple(problems))


def write_description(
    folder: Path,
    name: str,
    training_cases: int,
    patients: dict[str, str] | None = None,
    description: str = "",
) -> None:
    """Write ``dataset.json``; what else an old one says stays.

    Args:
        folder: the data set.
        name: of the data set.
        training_cases: number of images in ``imagesTr``.
        patients: the patient of each case, where a patient has several.
        description: a sentence on where the images come from.
    """
    description_of: dict[str, Any] = {
        "name": name,
        "description": description,
        "channel_names": {"0": "MR"},
        "labels": class_labels(),
        "numTraining": training_cases,
        "file_ending": ".nii.gz",
    }
    if patients:
        description_of["patients"] = patients
    path = folder / "dataset.json"
    known = read_json(path) if path.is_file() else {}
    if known != (new := {**known, **description_of}):
        write_json(path, new)


def class_labels() -> dict[str, int]:
    """Return the class table as ``dataset.json`` holds it."""
    return {"background": 0, **{structure.short: structure.label for structure in STRUCTURES}}


def plain_name(path: Path) -> str:
    """Return the name of the case that an image or a label map belongs to, without channel and suffix."""
    return case_name(path).removesuffix(CHANNEL)


def known_patients(folder: Path) -> dict[str, str]:
    """Return the patient of each case that ``dataset.json`` names, and check its class table.

    Raises:
        CPS4Error: if it has another class table or is no description.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        return {}
    description = read_json(path)
    labels = description.get("labels") if isinstance(description, dict) else None
    patients = description.get("patients") if isinstance(description, dict) else None
    if not isinstance(description, dict) or not all(
        isinstance(part, dict | None) for part in (labels, patients)
    ):
        raise CPS4Error("The file does not describe a data set.", "Make it again with `cps4 prepare`.", path)
    if labels is not None:
        _check_classes(labels, path)
    return {str(case): str(patient) for case, patient in (patients or {}).items()}


def _check_classes(labels: dict[str, Any], path: Path) -> None:
    """Check that a data set's names and numbers of classes are those of the class table."""
    remedy = "Convert the data set with `cps4 prepare`."
    numbers = [number for number in labels.values() if number != IGNORE]
    if len(numbers) != NUM_CLASSES:
        raise CPS4Error(f"The data set has {len(numbers)} classes; CPS4 knows {NUM_CLASSES}.", remedy, path)
    if {str(number) for number in numbers} != {str(label) for label in range(NUM_CLASSES)}:
        raise CPS4Error(f"The data set's classes are not numbered 0 to {NUM_CLASSES - 1}.", remedy, path)
    for name, number in labels.items():
        label = find_label(name)
        if label is not None and str(label) != str(number):
            raise CPS4Error(
                f"The data set's label {number} is {name}, which is {label} in CPS4.", remedy, path
            )


def _images(folder: Path, problems: list[CPS4Error]) -> dict[str, Path]:
    images = {}
    for name, path in by_case(list_scans(folder)).items():
        if name.endswith(CHANNEL):
            images[name.removesuffix(CHANNEL)] = path
        else:
            problems.append(
                CPS4Error("The image's name lacks its channel.", f"Name it {name}{CHANNEL}.", path)
            )
    return images
