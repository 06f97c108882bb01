"""Label schemes and the making of data sets."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import IGNORE
from CPS4Core.data.label_schemes import SCHEMES, spider, spineps, totalspineseg
from CPS4Core.data.labels import read_labels
from CPS4Core.data.prepare import prepare_data_set
from CPS4Core.data.volumes import read_image
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Failed

SAGITTAL = (0, 0, 1, 0, 1, 0, -1, 0, 0)


def volume(array, direction=SAGITTAL, spacing=(1.0, 1.0, 4.0)):
    image = sitk.GetImageFromArray(np.asarray(array))
    image.SetDirection(direction)
    image.SetSpacing(spacing)
    image.SetOrigin((3.0, -4.0, 5.0))
    return image


def scan(seed=0):
    values = np.random.default_rng(seed).integers(0, 500, (4, 12, 20)).astype(np.int16)
    return volume(values)


def label_map(**boxes):
    """Return labels with one value in each given range of columns (superior to inferior)."""
    array = np.zeros((4, 12, 20), np.uint16)
    for value, (first, last) in boxes.items():
        array[:, 3:9, first:last] = int(value.removeprefix("v"))
    return volume(array)


def write(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def prepare(source, destination, scheme, events=None):
    report = (events if events is not None else []).append
    return prepare_data_set(source, destination, scheme, seed=0, report=report, cancellation=Cancellation())


def values(image):
    return sitk.GetArrayFromImage(image)


def columns_of(labels, value):
    return sorted(set(np.nonzero(values(labels) == value)[2].tolist()))


def test_spider_counts_from_the_lowest_and_ignores_what_lies_below():
    labels = spider(label_map(v2=(2, 6), v201=(12, 14), v1=(8, 12), v202=(6, 8), v100=(0, 2)))
    assert columns_of(labels, 2) == [8, 9, 10, 11]  # vertebra 1 is L5
    assert columns_of(labels, 3) == [2, 3, 4, 5]
    assert columns_of(labels, 11) == [12, 13]  # disc 201 is L5/S
    assert columns_of(labels, 12) == [6, 7]
    assert columns_of(labels, IGNORE) == list(range(14, 20))
    assert (values(labels)[:, :, 14:] == IGNORE).all()
    assert columns_of(labels, 0)[:2] == [0, 1]  # the canal, 100, is background


def test_spider_ignores_below_in_the_patient_whatever_the_orientation():
    upside_down = sitk.DICOMOrient(label_map(v1=(8, 12), v201=(12, 14)), "RAS")
    labels = sitk.DICOMOrient(spider(upside_down), "IPL")
    assert columns_of(labels, IGNORE) == list(range(14, 20))
    assert columns_of(labels, 11) == [12, 13]


def test_totalspineseg_numbers():
    labels = totalspineseg(
        label_map(v29=(0, 1), v45=(4, 6), v100=(6, 7), v50=(7, 9), v46=(9, 10), v1=(10, 12))
    )
    assert [columns_of(labels, k) for k in (10, 2, 11, 1, IGNORE)] == [[0], [4, 5], [6], [7, 8], [9]]
    assert 10 in columns_of(labels, 0)


def test_spineps_numbers_a_disc_after_the_vertebra_above():
    labels = spineps(
        label_map(v19=(0, 2), v119=(2, 3), v24=(5, 7), v224=(7, 8), v124=(8, 9), v26=(9, 12), v25=(12, 13))
    )
    assert [columns_of(labels, k) for k in (7, 16, 2, 11, 1, IGNORE)] == [
        [0, 1],
        [2],
        [5, 6, 7],  # L5 with its end-plate
        [8],
        [9, 10, 11],
        [12],
    ]


def test_labels_keep_their_geometry():
    source = label_map(v1=(8, 12))
    for scheme in SCHEMES.values():
        labels = scheme(source)
        assert labels.GetDirection() == source.GetDirection()
        assert labels.GetOrigin() == source.GetOrigin()


def test_mrspineseg_with_ids_that_are_not_contiguous(tmp_path):
    for number in (3, 17):
        write(scan(number), tmp_path / f"in/train/MR/Case{number}.nii.gz")
        write(label_map(v2=(2, 5)), tmp_path / f"in/train/Mask/mask_case{number}.nii.gz")
    write(scan(5), tmp_path / "in/train/MR/Case5.nii.gz")
    write(scan(9), tmp_path / "in/test1/MR/Case9.nii.gz")
    data = prepare(tmp_path / "in", tmp_path / "out", "mrspineseg")
    assert [case.name for case in data.labelled] == ["case_17", "case_3"]
    assert [case.name for case in data.unlabelled] == ["case_5"]
    assert [case.name for case in data.test] == ["test1_9"]
    assert (tmp_path / "out/splits.json").exists()
    np.testing.assert_array_equal(values(read_image(data.labelled[1].image)), values(scan(3)))
    assert read_image(data.labelled[1].image).GetDirection() == pytest.approx(SAGITTAL)


def test_spider_takes_t2_series_and_keeps_patients_together(tmp_path):
    for name in ("12_t1", "12_t2", "12_t2_SPACE", "7_t2"):
        write(scan(), tmp_path / f"in/images/{name}.mha")
        write(label_map(v1=(8, 12)), tmp_path / f"in/masks/{name}.mha")
    data = prepare(tmp_path / "in", tmp_path / "out", "spider")
    assert [case.name for case in data.cases] == ["spider_12_t2", "spider_12_t2_SPACE", "spider_7_t2"]
    assert [case.patient for case in data.cases] == ["spider_12", "spider_12", "spider_7"]
    assert IGNORE in values(read_labels(data.cases[0].label))


def test_a_plain_folder_gets_names_without_patients_and_skips_what_is_bad(tmp_path):
    source = tmp_path / "Aufnahmen für Müller"
    write(scan(1), source / "images/Müller Hans.nii.gz")
    write(label_map(v2=(2, 5)), source / "labels/Müller Hans.nii.gz")
    write(scan(2), source / "images/b.nrrd")
    write(label_map(v77=(2, 5)), source / "labels/b.nrrd")
    (source / "images/c.mha").write_bytes(b"")
    write(scan(4), source / "images/d.mha")
    events = []
    data = prepare(source, tmp_path / "out", "folder", events)
    assert [case.name for case in data.labelled] == ["case_0001"]
    assert [case.name for case in data.unlabelled] == ["case_0004"]
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.path.rsplit("/", 1)[-1] for event in failed] == ["b.nrrd", "c.mha"]
    assert "77" in failed[0].problem
    assert not any("ller" in path.name for path in (tmp_path / "out").rglob("*"))
    origins = json.loads((tmp_path / "out/sources.json").read_text(encoding="utf-8"))
    assert origins["cases"]["case_0001"]["source"] == "images/Müller Hans.nii.gz"


def test_preparing_again_goes_on(tmp_path):
    write(scan(1), tmp_path / "in/a.nii.gz")
    write(scan(2), tmp_path / "in/b.nii.gz")
    prepare(tmp_path / "in", tmp_path / "out", "folder")
    first = tmp_path / "out/imagesTr/case_0001_0000.nii.gz"
    before = first.stat().st_mtime_ns
    (tmp_path / "out/imagesTr/case_0002_0000.nii.gz").unlink()
    assert len(prepare(tmp_path / "in", tmp_path / "out", "folder").cases) == 2
    assert first.stat().st_mtime_ns == before


def write_series(folder, image, uid, number, description, patient="P1", skip=()):
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = np.array(image.GetDirection()).reshape(3, 3)
    for k in range(image.GetDepth()):
        if k in skip:
            continue
        plane = image[:, :, k]
        tags = {
            "0008|0060": "MR",
            "0008|103e": description,
            "0010|0010": "Doe^Jane",
            "0010|0020": patient,
            "0020|0011": str(number),
            "0020|000e": uid,
            "0020|0013": str(k + 1),
            "0020|0037": "\\".join(f"{cosine:.6f}" for cosine in [*direction[:, 0], *direction[:, 1]]),
            "0020|0032": "\\".join(f"{mm:.6f}" for mm in image.TransformIndexToPhysicalPoint((0, 0, k))),
            "0018|0050": "4",
        }
        for key, value in tags.items():
            plane.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{number}-{k:03d}.dcm"))
        writer.Execute(plane)


def test_a_dicom_series_keeps_its_geometry(tmp_path):
    image = scan()
    write_series(tmp_path / "study 1", image, "1.2.3.4", 5, "T2 sag")
    found = read_image(tmp_path / "study 1")
    aligned = sitk.DICOMOrient(found, "IPL")
    np.testing.assert_array_equal(values(aligned), values(image))
    np.testing.assert_allclose(aligned.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(aligned.GetSpacing(), image.GetSpacing(), atol=1e-4)


def test_several_series_in_one_folder_are_named_without_the_patient(tmp_path):
    write_series(tmp_path / "all", scan(1), "1.2.3.4", 5, "T2 sag")
    write_series(tmp_path / "all", scan(2), "1.2.3.5", 6, "T1 sag")
    with pytest.raises(CPS4Error, match=r"series 5 \(T2 sag\), series 6") as caught:
        read_image(tmp_path / "all")
    assert "Doe" not in str(caught.value)
    data = prepare(tmp_path / "all", tmp_path / "out", "dicom")
    assert [case.name for case in data.cases] == ["case_0001", "case_0002"]
    assert len({case.patient for case in data.cases}) == 1
    for path in (tmp_path / "out").rglob("*.json"):
        assert "Doe" not in path.read_text(encoding="utf-8")


def test_a_missing_slice_and_a_folder_without_dicom_are_told(tmp_path):
    write_series(tmp_path / "gap", scan(), "1.2.3.4", 5, "T2 sag", skip=(1,))
    with pytest.raises(CPS4Error, match="lacks a slice"):
        read_image(tmp_path / "gap")
    (tmp_path / "none").mkdir()
    (tmp_path / "none/readme.txt").write_text("hello")
    with pytest.raises(CPS4Error, match="no DICOM series"):
        read_image(tmp_path / "none")


@pytest.mark.parametrize("scheme", ["folder", "party"])
def test_nothing_to_prepare_is_an_error(tmp_path, scheme):
    (tmp_path / "in").mkdir()
    with pytest.raises(CPS4Error):
        prepare(tmp_path / "in", tmp_path / "out", scheme)
