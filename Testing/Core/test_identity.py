"""A case is what it was made from: by path and content, never by a running number or by what happens to exist."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_classic
from test_labels import columns
from test_prepare import label_map, prepare, scan, values, write

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import InputSettings
from CPS4Core.data.add_case import add_case
from CPS4Core.data.dataset import open_data_set
from CPS4Core.data.labels import read_labels
from CPS4Core.data.slices import prepare_slices
from CPS4Core.data.splits import read_splits
from CPS4Core.data.turns import writing_to
from CPS4Core.data.volumes import read_image
from CPS4Core.errors import Cancelled, CPS4Error
from CPS4Core.events import Failed, Warned, silent

CANVAS = InputSettings(size=(32, 64), spacing_mm=1.0)


def source(folder, **seeds):
    """Write scans by name, with a label each, and return the folder."""
    for name, seed in seeds.items():
        write(scan(seed), folder / f"images/{name}.nii.gz")
        write(label_map(**{f"v{1 + seed % 9}": (2, 6)}), folder / f"labels/{name}.nii.gz")
    return folder


def seeds_of(data_set):
    """Return the seed of the scan that each case holds, by its name."""
    known = {values(scan(seed)).astype(np.float32).tobytes(): seed for seed in range(1, 30)}
    return {case.name: known[values(read_image(case.image)).tobytes()] for case in data_set.cases}


def warnings(events):
    return [event.message for event in events if isinstance(event, Warned)]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_scan_that_was_added_is_read_and_the_others_keep_their_names(tmp_path):
    place = source(tmp_path / "in", b=2, c=3)
    prepare(place, tmp_path / "out", "folder")
    source(place, a=1, bb=4)
    events = []
    data = prepare(place, tmp_path / "out", "folder", events)
    assert seeds_of(data) == {"case_0001": 2, "case_0002": 3, "case_0003": 1, "case_0004": 4}
    origins = json.loads((tmp_path / "out/sources.json").read_text(encoding="utf-8"))["cases"]
    assert {name: origin["source"] for name, origin in origins.items()} == {
        "case_0001": "images/b.nii.gz",
        "case_0002": "images/c.nii.gz",
        "case_0003": "images/a.nii.gz",
        "case_0004": "images/bb.nii.gz",
    }
    for split in read_splits(tmp_path / "out/splits.json", data).values():
        assert len({*split.labelled, *split.validation, *split.unlabelled}) == 4
    assert "splits.json was made anew" in warnings(events)[0]
    assert json.loads((tmp_path / "out/dataset.json").read_text(encoding="utf-8"))["numTraining"] == 4


def test_prepared_twice_is_the_same_to_the_byte(tmp_path):
    place = source(tmp_path / "in", a=1, b=2)
    prepare(place, tmp_path / "out", "folder")
    before = files(tmp_path / "out")
    prepare(place, tmp_path / "out", "folder")
    assert files(tmp_path / "out") == before


def test_a_label_that_was_corrected_or_came_later_replaces_the_old_one(tmp_path):
    place = source(tmp_path / "in", a=1, b=2)
    (place / "labels/b.nii.gz").unlink()
    assert len(prepare(place, tmp_path / "out", "folder").labelled) == 1
    for name in ("a", "b"):
        write(label_map(v7=(2, 6)), place / f"labels/{name}.nii.gz")
    data = prepare(place, tmp_path / "out", "folder")
    assert [set(columns(read_labels(case.label))) for case in data.labelled] == [{0, 7}] * 2


def test_a_scan_that_was_renamed_is_no_new_case(tmp_path):
    place = source(tmp_path / "in", a=1, b=2)
    prepare(place, tmp_path / "out", "folder")
    for part in ("images", "labels"):
        (place / part / "a.nii.gz").rename(place / part / "z.nii.gz")
    assert seeds_of(prepare(place, tmp_path / "out", "folder")) == {"case_0001": 1, "case_0002": 2}


def test_what_was_changed_in_the_data_set_stays_and_is_said(tmp_path):
    place = source(tmp_path / "in", a=1, b=2, c=3, d=4)
    (place / "labels/b.nii.gz").unlink()
    data = prepare(place, tmp_path / "out", "folder")
    mine = write(label_map(v9=(2, 6)), tmp_path / "mine.nii.gz")
    by_name = {case.name: case for case in data.cases}
    by_name["case_0001"].label.write_bytes(mine.read_bytes())  # corrected in place
    add_case(tmp_path / "out", by_name["case_0002"].image, mine, silent)  # labelled in the data set
    for name in ("a", "b"):
        write(label_map(v7=(2, 6)), place / f"labels/{name}.nii.gz")  # and in the source
    (place / "labels/c.nii.gz").unlink()
    (place / "images/d.nii.gz").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.nii.gz")}
    events = []
    prepare(place, tmp_path / "out", "folder", events)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.nii.gz")} == before
    said = " ".join(warnings(events))
    assert "case_0001 was changed in the data set" in said
    assert "case_0002 got labels in the data set" in said
    assert "case_0003 has labels, which the source no longer has" in said
    assert "no longer in the source, and stay: case_0004" in said
    assert "splits.json was changed, and stays" in said  # add-case did
    for split in read_splits(tmp_path / "out/splits.json", open_data_set(tmp_path / "out")).values():
        assert "case_0002" in split.labelled


def test_a_data_set_of_something_else_is_not_touched(tmp_path):
    prepare(source(tmp_path / "in", a=1), tmp_path / "out", "folder")
    before = files(tmp_path / "out")
    with pytest.raises(CPS4Error, match="from other scans"):
        prepare(source(tmp_path / "other", a=2), tmp_path / "out", "folder")
    assert files(tmp_path / "out") == before
    write(scan(1), tmp_path / "mine/imagesTr/case_0001_0000.nii.gz")
    with pytest.raises(CPS4Error, match="did not make"):
        prepare(tmp_path / "in", tmp_path / "mine", "folder")
    with pytest.raises(CPS4Error, match="its own source"):
        prepare(tmp_path / "in", tmp_path / "in", "folder")


def test_two_files_of_one_image_are_one_patients(tmp_path):
    place = source(tmp_path / "in", a=1, b=2)
    write(scan(1), place / "images/copy.nii.gz")
    events = []
    data = prepare(place, tmp_path / "out", "folder", events)
    patients = {case.name: case.patient for case in data.cases}
    assert patients["case_0003"] == patients["case_0001"] != patients["case_0002"]
    assert "the same as another" in warnings(events)[0]


def test_patients_of_dicom_keep_their_numbers_when_one_comes_before(tmp_path):
    for folder, patient, seed in (("b", "P2", 1), ("c", "P3", 2)):
        write_classic(tmp_path / "in" / folder, scan(seed), f"1.2.{seed}", PatientID=patient)
    prepare(tmp_path / "in", tmp_path / "out", "dicom")
    write_classic(tmp_path / "in/a", scan(3), "1.2.3", PatientID="P1")
    write_classic(tmp_path / "in/d", scan(4), "1.2.4", PatientID="P3")
    data = prepare(tmp_path / "in", tmp_path / "out", "dicom")
    assert {case.name: case.patient for case in data.cases} == {
        "case_0001": "patient_0001",
        "case_0002": "patient_0002",
        "case_0003": "patient_0003",
        "case_0004": "patient_0002",
    }


def test_a_new_slice_makes_the_series_another(tmp_path):
    write_classic(tmp_path / "in/a", scan(1)[:, :, :3])
    write_classic(tmp_path / "in/b", scan(2), "1.2.3.5")
    prepare(tmp_path / "in", tmp_path / "out", "dicom")
    write_classic(tmp_path / "in/a", scan(1))
    data = prepare(tmp_path / "in", tmp_path / "out", "dicom")
    assert [read_image(case.image).GetSize()[2] for case in data.cases] == [4, 4]


# The cache of prepared slices


def slices(data, cache):
    return prepare_slices(data.cases, CANVAS, cache, silent, Cancellation())


def test_two_data_sets_share_a_cache_and_keep_their_own(tmp_path):
    first = prepare(source(tmp_path / "a", a=1), tmp_path / "one", "folder")
    second = prepare(source(tmp_path / "b", a=2), tmp_path / "two", "folder")
    for one, other in zip(first.cases, second.cases, strict=True):  # as after a copy with its times
        status = one.image.stat()
        os.utime(other.image, ns=(status.st_atime_ns, status.st_mtime_ns))
    cache = tmp_path / "cache"
    running = slices(first, cache)
    before = running.images("case_0001").copy(), running.labels("case_0001")
    other = slices(second, cache)
    assert not np.array_equal(other.images("case_0001"), before[0])
    np.testing.assert_array_equal(running.images("case_0001"), before[0])
    np.testing.assert_array_equal(running.labels("case_0001"), before[1])
    alone = slices(second, tmp_path / "cache of its own")
    np.testing.assert_array_equal(other.images("case_0001"), alone.images("case_0001"))
    assert other.hashes == alone.hashes != running.hashes


def test_a_running_training_keeps_the_labels_it_began_with(tmp_path):
    place = source(tmp_path / "in", a=1)
    data = prepare(place, tmp_path / "out", "folder")
    running = slices(data, tmp_path / "cache")
    before = running.labels("case_0001")
    write(label_map(v7=(2, 6)), place / "labels/a.nii.gz")
    changed = slices(prepare(place, tmp_path / "out", "folder"), tmp_path / "cache")
    assert 7 in changed.labels("case_0001")
    np.testing.assert_array_equal(running.labels("case_0001"), before)
    assert changed.hashes != running.hashes  # so that a run does not go on with other data


# Adding cases


def test_three_cases_that_are_added_at_once_are_all_there_with_their_own_labels(tmp_path):
    data = tmp_path / "data"
    prepare(source(tmp_path / "in", a=20, b=21), data, "folder")
    for seed in (1, 2, 3):
        write(scan(seed), tmp_path / f"{seed}.nii.gz")
        write(label_map(**{f"v{seed}": (2, 6)}), tmp_path / f"{seed}-label.nii.gz")

    def add(seed):
        command = [sys.executable, "-m", "CPS4Core.cli", "add-case", data]
        command += [tmp_path / f"{seed}.nii.gz", tmp_path / f"{seed}-label.nii.gz"]
        return subprocess.run(command, capture_output=True, encoding="utf-8")

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(add, (1, 2, 3)))
    assert [one.returncode for one in done] == [0, 0, 0], done[0].stderr
    found = open_data_set(data)
    added = {name: seed for name, seed in seeds_of(found).items() if name.startswith("corrected")}
    assert sorted(added.values()) == [1, 2, 3]
    for case in found.labelled:
        if case.name in added:
            assert set(columns(read_labels(case.label))) == {0, added[case.name]}
    assert json.loads((data / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 5
    for split in read_splits(data / "splits.json", found).values():
        assert set(added) <= set(split.labelled)


def test_a_writer_waits_for_its_turn_says_so_and_may_be_stopped(tmp_path):
    events, stop = [], Cancellation()

    def report(event):
        events.append(event)
        stop.request()

    with (
        writing_to(tmp_path, silent),
        pytest.raises(Cancelled),
        writing_to(tmp_path, report, stop),
    ):
        pass
    assert "waiting" in warnings(events)[0]


def test_what_a_killed_writer_left_is_nobodys_and_goes(tmp_path):
    data = prepare(source(tmp_path / "in", a=1, b=2), tmp_path / "out", "folder")
    for name in (".writing-0123-case_0009_0000.nii.gz", "._case_0001_0000.nii.gz"):
        (tmp_path / "out/imagesTr" / name).write_bytes(b"cut")
        (tmp_path / "in/images" / name).write_bytes(b"cut")
    events = []
    again = prepare(tmp_path / "in", tmp_path / "out", "folder", events)
    assert [case.name for case in again.cases] == [case.name for case in data.cases]
    assert not [event for event in events if isinstance(event, Failed)]
    assert not list((tmp_path / "out").rglob(".writing-*"))


@pytest.mark.parametrize("files_done", range(1, 9))
def test_a_kill_between_any_two_writes_changes_nothing_in_the_end(tmp_path, monkeypatch, files_done):
    place = source(tmp_path / "in", a=1, b=2)
    prepare(place, tmp_path / "undisturbed", "folder")
    left = files_done
    original = Path.replace

    class Killed(BaseException):
        pass

    def replace(self, target):
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", replace)
        with pytest.raises(Killed):
            prepare(place, tmp_path / "out", "folder")
    prepare(place, tmp_path / "out", "folder")
    expected = files(tmp_path / "undisturbed")
    description = next(path for path in expected if path.name == "dataset.json")
    found = files(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert [path.name for path in expected if found[path] != expected[path]] == [description.name]  # its name
