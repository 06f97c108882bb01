"""Looking at a data set, and adding corrected cases to it."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.add_case import add_case
from CPS4Core.data.dataset import open_data_set
from CPS4Core.data.inspect import inspect_data_set
from CPS4Core.data.splits import read_splits, write_splits
from CPS4Core.data.turns import LOCK
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Finished, silent


@pytest.fixture
def copy(data_set, tmp_path):
    """A copy of the data set of phantoms, with splits."""
    folder = shutil.copytree(data_set, tmp_path / "données", ignore=shutil.ignore_patterns("preprocessed"))
    write_splits(open_data_set(folder), seed=0)
    return folder


def inspect(folder):
    events = []
    problems = inspect_data_set(folder, events.append, Cancellation())
    return problems, next(event for event in events if isinstance(event, Finished)).details


def new_scan(folder, data_set, values=3):
    """A scan that is in no data set, with labels that hold ``values``."""
    image = sitk.ReadImage(str(data_set / "imagesTs/test_0001_0000.nii.gz")) + 7
    labels = sitk.Cast(image > 200, sitk.sitkUInt8) * values
    paths = folder / "a scan.nrrd", folder / "its labels.nrrd"
    for volume, path in zip((image, labels), paths, strict=True):
        sitk.WriteImage(volume, str(path))
    return paths


def test_inspection_counts_cases_and_names_what_is_wrong(copy):
    problems, details = inspect(copy)
    assert not problems
    assert {name: details[name] for name in ("labelled", "unlabelled", "test")} == {
        "labelled": 4,
        "unlabelled": 2,
        "test": 1,
    }
    labelled = open_data_set(copy).labelled
    labelled[0].image.write_bytes(b"no image")
    sitk.WriteImage(sitk.Image(3, 4, 5, sitk.sitkUInt8), str(labelled[1].label))
    problems, details = inspect(copy)
    assert [problem.path for problem in problems] == [labelled[0].image, labelled[1].label]
    assert len(details["problems"]) == 2


def test_a_data_set_without_labels_is_told_so(copy):
    shutil.rmtree(copy / "labelsTr")
    assert "no labelled case" in inspect(copy)[0][0].problem


def test_a_corrected_scan_becomes_a_labelled_case(copy, data_set, tmp_path):
    image, labels = new_scan(tmp_path, data_set)
    name = add_case(copy, image, labels, silent)
    assert name == "corrected_0001"
    added = {case.name: case for case in open_data_set(copy).labelled}[name]
    assert np.array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(added.label))),
        sitk.GetArrayFromImage(sitk.ReadImage(str(labels))),
    )
    assert sitk.ReadImage(str(added.image)).GetDirection() == pytest.approx(
        sitk.ReadImage(str(image)).GetDirection(), abs=1e-6
    )
    assert json.loads((copy / "dataset.json").read_text())["numTraining"] == 7
    splits = read_splits(copy / "splits.json", open_data_set(copy))
    assert all(name in split.labelled for split in splits.values())


def test_an_unlabelled_case_gets_the_labels(copy, tmp_path):
    case = open_data_set(copy).unlabelled[0]
    labels = sitk.Cast(sitk.ReadImage(str(case.image)) > 200, sitk.sitkUInt8)
    sitk.WriteImage(labels, str(tmp_path / "labels.nrrd"))
    assert add_case(copy, case.image, tmp_path / "labels.nrrd", silent) == case.name
    after = open_data_set(copy)
    assert len(after.cases) == 7
    assert case.name in {labelled.name for labelled in after.labelled}
    for split in read_splits(copy / "splits.json", after).values():
        assert case.name in split.labelled
        assert case.name not in split.unlabelled


def test_what_cannot_be_added_leaves_the_data_set_as_it_was(copy, data_set, tmp_path):
    before = sorted(path.relative_to(copy) for path in copy.rglob("*"))
    labelled = open_data_set(copy).labelled[0]
    with pytest.raises(CPS4Error, match="labelled case of the data set already"):
        add_case(copy, labelled.image, labelled.label, silent)
    test = open_data_set(copy).test[0]
    with pytest.raises(CPS4Error, match="test case"):
        add_case(copy, test.image, test.label, silent)
    image, empty = new_scan(tmp_path, data_set, values=0)
    with pytest.raises(CPS4Error, match="empty"):
        add_case(copy, image, empty, silent)
    image, wrong = new_scan(tmp_path, data_set, values=77)
    with pytest.raises(CPS4Error, match="outside the class table"):
        add_case(copy, image, wrong, silent)
    (copy / LOCK).unlink()
    assert sorted(path.relative_to(copy) for path in copy.rglob("*")) == before


def test_a_case_that_is_in_no_split_is_named(copy, data_set, tmp_path):
    image, labels = new_scan(tmp_path, data_set)
    for path, target in ((image, "imagesTr/mine_0000.nii.gz"), (labels, "labelsTr/mine.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(copy / target))
    problems, details = inspect(copy)
    assert details["labelled"] == 5
    assert "not trained on: mine." in problems[0].problem
    assert len(problems) == 1
    (copy / "splits.json").unlink()
    assert not inspect(copy)[0]
