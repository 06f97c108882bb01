"""What labels mean: names before numbers, whole numbers only, and unknown stays unknown."""

import numpy as np
import pytest
import SimpleITK as sitk
from test_prepare import label_map, prepare, scan, values, volume, write

from CPS4Core.class_table import IGNORE
from CPS4Core.data.add_case import add_case
from CPS4Core.data.dataset import open_data_set, write_description
from CPS4Core.data.label_schemes import spider
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import by_case, list_scans, list_volumes
from CPS4Core.errors import CPS4Error
from CPS4Core.evaluation.evaluate import evaluate
from CPS4Core.events import Finished, Warned, silent
from CPS4Core.files import read_json, write_json
from CPS4Core.inference.batch import find_tasks
from CPS4Core.inference.outputs import write_segmentation


def slicers(segments, layers=1):
    """Return a segmentation as Slicer writes it, from (name, value, layer, first column, last column)."""
    array = np.zeros((4, 12, 20, layers), np.uint8)
    for _, value, layer, first, last in segments:
        array[:, 3:9, first:last, layer] = value
    image = sitk.GetImageFromArray(array if layers > 1 else array[..., 0], isVector=layers > 1)
    image.CopyInformation(scan())
    for number, (name, value, layer, *_) in enumerate(segments):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        image.SetMetaData(f"Segment{number}_Layer", str(layer))
    return image


def columns(labels):
    """Return the label at each column, from superior to inferior, 0 where there is none."""
    return values(labels)[2, 5].tolist()


SLICERS_ORDER = [("L4", 1, 0, 2, 6), ("L4/L5", 2, 0, 6, 8), ("Lumbar Vertebra 5", 3, 0, 8, 12)]


def test_a_segmentation_of_slicer_is_read_by_its_names(tmp_path):
    path = write(slicers(SLICERS_ORDER), tmp_path / "spine.seg.nrrd")
    found = columns(read_labels(path, like=scan()))
    assert found == [0] * 2 + [3] * 4 + [12] * 2 + [2] * 4 + [0] * 8


def test_a_name_may_be_that_of_the_terminology(tmp_path):
    path = write(slicers([("L4 vertebra", 9, 0, 2, 6), ("L4/L5 disc", 7, 0, 6, 8)]), tmp_path / "s.nrrd")
    assert set(columns(read_labels(path))) == {0, 3, 12}


def test_segments_that_overlap_lie_in_layers(tmp_path):
    segments = [("L4", 1, 0, 2, 6), ("L5", 2, 0, 8, 12), ("L4/L5", 1, 1, 5, 9)]
    path = write(slicers(segments, layers=2), tmp_path / "spine.seg.nrrd")
    assert sitk.ReadImage(str(path)).GetNumberOfComponentsPerPixel() == 2
    assert columns(read_labels(path, like=scan())) == [0] * 2 + [3] * 3 + [12] * 4 + [2] * 3 + [0] * 8


def test_levels_outside_the_class_table_are_unknown(tmp_path):
    segments = [("T8", 1, 0, 0, 2), ("L6", 2, 0, 4, 6), ("S1/S2", 4, 0, 6, 8), ("L5", 3, 0, 8, 10)]
    path = write(slicers(segments), tmp_path / "spine.seg.nrrd")
    assert columns(read_labels(path))[:10] == [IGNORE] * 2 + [0] * 2 + [IGNORE] * 4 + [2] * 2


@pytest.mark.parametrize("name", ["Segment_1", "tumour", "knee", ""])
def test_a_name_that_is_no_level_is_refused(tmp_path, name):
    path = write(slicers([("L4", 1, 0, 2, 6), (name, 2, 0, 8, 9)]), tmp_path / "spine.seg.nrrd")
    with pytest.raises(CPS4Error, match="no vertebrae or discs") as caught:
        read_labels(path)
    assert name in caught.value.problem
    assert caught.value.path == path


def test_a_value_without_a_name_and_a_damaged_header_are_refused(tmp_path):
    image = slicers(SLICERS_ORDER)
    image[0, 0, 0] = 9
    with pytest.raises(CPS4Error, match="no segment names: 9"):
        read_labels(write(image, tmp_path / "spine.seg.nrrd"))
    for key, value in (("Segment0_LabelValue", "one"), ("Segment0_Layer", "3")):
        image = slicers(SLICERS_ORDER)
        image.SetMetaData(key, value)
        with pytest.raises(CPS4Error, match="Save the segmentation again"):
            read_labels(write(image, tmp_path / "spine.seg.nrrd"))


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".nrrd"])
def test_what_is_written_is_read_as_the_same_labels(tmp_path, suffix):
    labels = sitk.Cast(label_map(v10=(0, 2), v19=(2, 4), v1=(8, 12)), sitk.sitkUInt8)
    write_segmentation(labels, tmp_path / f"labels{suffix}")
    np.testing.assert_array_equal(values(read_labels(tmp_path / f"labels{suffix}")), values(labels))


def test_every_command_reads_the_names(tmp_path):
    """As when a segmentation made in Slicer numbers its segments from 1."""
    named = slicers(SLICERS_ORDER)
    write(scan(1), tmp_path / "in/images/a.nii.gz")
    write(named, tmp_path / "in/labels/a.seg.nrrd")
    data = prepare(tmp_path / "in", tmp_path / "data", "totalspineseg")
    assert set(columns(read_labels(data.labelled[0].label))) == {0, 2, 3, 12}
    image = write(scan(2), tmp_path / "b.nii.gz")
    name = add_case(tmp_path / "data", image, write(named, tmp_path / "b.seg.nrrd"), silent)
    assert set(columns(read_labels(tmp_path / f"data/labelsTr/{name}.nii.gz"))) == {0, 2, 3, 12}
    (tmp_path / "found").mkdir()
    (tmp_path / "truth").mkdir()
    write(named, tmp_path / "found/a.seg.nrrd")
    write_segmentation(read_labels(data.labelled[0].label), tmp_path / "truth/a.nii.gz")
    scores = evaluate(tmp_path / "found", tmp_path / "truth", tmp_path / "tables").summary()
    assert (scores["mdice"], scores["level_accuracy"]) == (1, 1)


def test_numbers_that_scaling_bent_are_rounded(tmp_path):
    bent = volume(values(label_map(v45=(4, 6), v50=(7, 9))) * np.float32(0.99999992))
    write(scan(), tmp_path / "in/images/a.nii.gz")
    write(bent, tmp_path / "in/labels/a.nii.gz")
    data = prepare(tmp_path / "in", tmp_path / "out", "totalspineseg")
    assert columns(read_labels(data.labelled[0].label))[4:9] == [2, 2, 0, 1, 1]
    assert (
        columns(
            read_labels(write(volume(values(label_map(v4=(4, 6))) - np.float32(4e-5)), tmp_path / "b.nii"))
        )[4]
        == 4
    )


@pytest.mark.parametrize("value", [2.5, np.nan, np.inf])
def test_numbers_that_are_not_whole_are_refused(tmp_path, value):
    array = values(label_map(v2=(4, 6))).astype(np.float32)
    array[0, 3, 5] = value
    path = write(volume(array), tmp_path / "labels.nrrd")  # ITK reads what is no number in NIfTI as 0
    with pytest.raises(CPS4Error, match=f"no whole numbers: {value:g}"):
        read_labels(path)


def test_complex_numbers_and_colours_are_no_labels(tmp_path):
    for image in (
        sitk.Cast(volume(np.ones((4, 12, 20), np.float32)), sitk.sitkComplexFloat32),
        sitk.GetImageFromArray(np.zeros((4, 12, 20, 3), np.uint8), isVector=True),
    ):
        with pytest.raises(CPS4Error, match="one value a voxel"):
            read_labels(write(image, tmp_path / "labels.nrrd"))


def test_a_vertebra_that_spider_saw_in_part_is_unknown():
    labels = spider(label_map(v110=(0, 1), v109=(1, 2), v2=(2, 6), v1=(8, 12), v201=(12, 14), v100=(14, 15)))
    assert columns(labels)[:14] == [IGNORE] * 2 + [3] * 4 + [0] * 2 + [2] * 4 + [11] * 2


def test_label_files_of_other_programs_find_their_image_and_lost_ones_are_said(tmp_path):
    for name in ("a", "b", "c", "d_0000", "e_seg", "f"):
        write(scan(ord(name[0])), tmp_path / f"in/images/{name}.nii.gz")
    for name in ("a", "b_seg", "c-label", "d", "e_seg", "g", "f_final"):
        write(label_map(v2=(2, 5)), tmp_path / f"in/labels/{name}.nii.gz")
    events = []
    data = prepare(tmp_path / "in", tmp_path / "out", "folder", events)
    assert [case.name for case in data.unlabelled] == ["case_0006"]
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert finished.details["matched"] == {
        "the image's name": 3,
        "the image's name and _seg": 1,
        "the image's name and -label": 1,
    }
    (warning,) = [event.message for event in events if isinstance(event, Warned)]
    assert warning.startswith("2 label files belong to no image")
    assert "f_final.nii.gz" in warning
    assert "g.nii.gz" in warning


def test_labels_beside_their_image_are_no_images(tmp_path):
    for name in ("a", "b", "c"):
        write(scan(ord(name)), tmp_path / f"in/{name}.nii.gz")
    write(label_map(v2=(2, 5)), tmp_path / "in/a_seg.nii.gz")
    write(slicers(SLICERS_ORDER), tmp_path / "in/b.seg.nrrd")
    (tmp_path / "in/._a.nii.gz").write_bytes(b"of macOS")
    (tmp_path / "in/.writing-12-c.nii.gz").write_bytes(b"unfinished")
    data = prepare(tmp_path / "in", tmp_path / "out", "folder")
    assert [case.name for case in data.labelled] == ["case_0001", "case_0002"]
    assert [case.name for case in data.unlabelled] == ["case_0003"]
    assert [path.name for path in list_scans(tmp_path / "in")] == [
        "a.nii.gz",
        "a_seg.nii.gz",
        "b.nii.gz",
        "c.nii.gz",
    ]
    assert [path.name for path in list_volumes(tmp_path / "in")][2:4] == ["b.nii.gz", "b.seg.nrrd"]
    sources = [task.source.name for task in find_tasks(tmp_path / "in", tmp_path / "results", ".seg.nrrd")]
    assert "b.seg.nrrd" not in sources


def test_two_files_of_one_name_are_refused(tmp_path):
    write(scan(1), tmp_path / "in/images/a.nii.gz")
    for suffix in (".nii.gz", ".seg.nrrd"):
        write(label_map(v2=(2, 5)), tmp_path / f"in/labels/a{suffix}")
    with pytest.raises(CPS4Error, match=r"a\.nii\.gz and a\.seg\.nrrd"):
        prepare(tmp_path / "in", tmp_path / "out", "folder")
    assert by_case([]) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"L5": 3, "L4": 2}, "label 3 is L5, which is 2 in CPS4"),
        ({"S": 20}, "not numbered 0 to 19"),
        ({"regions": [1, 2]}, "21 classes"),
    ],
)
def test_a_data_set_that_gives_other_names_to_the_numbers_is_refused(tmp_path, change, words):
    write(scan(), tmp_path / "imagesTr/a_0000.nii.gz")
    write_description(tmp_path, "test", 1)
    assert open_data_set(tmp_path).cases
    description = read_json(tmp_path / "dataset.json")
    write_json(tmp_path / "dataset.json", {**description, "labels": {**description["labels"], "ignore": 255}})
    assert open_data_set(tmp_path).cases
    write_json(tmp_path / "dataset.json", {**description, "labels": {**description["labels"], **change}})
    with pytest.raises(CPS4Error, match=words):
        open_data_set(tmp_path)


@pytest.mark.parametrize("description", [[], 3, {"labels": []}, {"patients": ["a"]}])
def test_a_damaged_description_is_said(tmp_path, description):
    write(scan(), tmp_path / "imagesTr/a_0000.nii.gz")
    write_json(tmp_path / "dataset.json", description)
    with pytest.raises(CPS4Error, match="does not describe a data set"):
        open_data_set(tmp_path)


def test_a_reference_without_segmentation_counts_as_missed_and_the_rest_is_said(tmp_path):
    labels = label_map(v2=(2, 5), v11=(5, 6))
    for name in ("a", "b", "c", "d"):
        write(labels, tmp_path / f"truth/{name}.nii.gz")
    write(labels, tmp_path / "found/a.nii.gz")
    write(labels, tmp_path / "found/other.nii.gz")
    events = []
    results = evaluate(tmp_path / "found", tmp_path / "truth", tmp_path / "tables", events.append)
    summary = results.summary()
    assert summary["cases"] == 4
    assert summary["mdice"] == pytest.approx(0.25)
    assert summary["level_accuracy"] == pytest.approx(0.25)
    assert summary["missed"] == ["b", "c", "d"]
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "3 references have no segmentation and count as missed: b, c, d.",
        "1 segmentations have no reference and are left out: other.",
    ]
    assert "b, c, d" in (tmp_path / "tables/summary.md").read_text(encoding="utf-8")


def test_unknown_voxels_of_a_segmentation_and_empty_cases_are_evaluated(tmp_path):
    write(label_map(v2=(2, 5)), tmp_path / "truth/a.nii.gz")
    write(label_map(v2=(2, 5), v255=(8, 9)), tmp_path / "found/a.nii.gz")
    assert evaluate(tmp_path / "found", tmp_path / "truth", tmp_path / "tables").summary()["mdice"] == 1
    write(label_map(), tmp_path / "truth/a.nii.gz")
    write(label_map(), tmp_path / "found/a.nii.gz")
    assert evaluate(tmp_path / "found", tmp_path / "truth", tmp_path / "tables").summary()["mdice"] is None
