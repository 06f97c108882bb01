"""Whatever is wrong with a file, the user gets one clear error that names it."""

import numpy as np
import pytest
import SimpleITK as sitk

from CPS4Core.data.dataset import open_data_set, write_description
from CPS4Core.data.labels import read_labels
from CPS4Core.data.splits import make_split, read_splits, split_for_ratio, write_splits
from CPS4Core.data.volumes import read_image
from CPS4Core.errors import CPS4Error
from CPS4Core.files import write_json

SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".mha"]


def image_of(array, **options):
    return sitk.GetImageFromArray(np.asarray(array), **options)


def noise(shape=(5, 16, 18), dtype=np.int16):
    return np.random.default_rng(1).integers(1, 900, shape).astype(dtype)


def refused(path, words, read=read_image, **options):
    with pytest.raises(CPS4Error, match=words) as caught:
        read(path, **options)
    assert caught.value.path == path
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_missing_and_an_empty_file(tmp_path):
    refused(tmp_path / "scan.nii.gz", "does not exist")
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    refused(tmp_path / "scan.nii.gz", "empty")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file(tmp_path, suffix):
    path = tmp_path / f"schön und gut{suffix}"
    sitk.WriteImage(image_of(noise((9, 40, 50))), str(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    refused(path, "truncated")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_with_an_image_suffix(tmp_path, suffix):
    path = tmp_path / f"notes{suffix}"
    path.write_text("not an image " * 100)
    refused(path, "no medical image")


def test_four_dimensions_two_dimensions_and_colour(tmp_path):
    four = sitk.JoinSeries([image_of(noise()), image_of(noise())])
    sitk.WriteImage(four, str(tmp_path / "four.nii.gz"))
    refused(tmp_path / "four.nii.gz", "4D")
    sitk.WriteImage(image_of(noise((5, 16, 18, 3), np.uint8), isVector=True), str(tmp_path / "colour.nrrd"))
    refused(tmp_path / "colour.nrrd", "colour")
    sitk.WriteImage(image_of(noise((16, 18))), str(tmp_path / "flat.mha"))
    refused(tmp_path / "flat.mha", "two dimensions")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_numbers(tmp_path, value):
    array = noise(dtype=np.float32)
    array[2, 3, 4] = value
    sitk.WriteImage(image_of(array), str(tmp_path / "scan.nrrd"))
    refused(tmp_path / "scan.nrrd", "not numbers")


def test_a_constant_image(tmp_path):
    sitk.WriteImage(image_of(np.full((5, 16, 18), 7, np.int16)), str(tmp_path / "scan.mha"))
    refused(tmp_path / "scan.mha", "constant")


def test_a_4d_file_with_one_volume_is_read(tmp_path):
    sitk.WriteImage(sitk.JoinSeries([image_of(noise())]), str(tmp_path / "scan.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "scan.nii.gz")), noise())


def test_labels_outside_the_table_and_on_another_grid(tmp_path):
    labels = np.zeros((5, 16, 18), np.uint8)
    labels[1, 2, 3:6] = (20, 41, 3)
    sitk.WriteImage(image_of(labels), str(tmp_path / "labels.nii.gz"))
    refused(tmp_path / "labels.nii.gz", "outside the class table: 20, 41", read_labels)
    labels[labels > 19] = 0
    sitk.WriteImage(image_of(labels), str(tmp_path / "labels.nii.gz"))
    like = image_of(noise())
    assert sitk.GetArrayFromImage(read_labels(tmp_path / "labels.nii.gz", like=like))[1, 2, 5] == 3
    moved = image_of(noise())
    moved.SetOrigin((0, 0.5, 0))
    turned = image_of(noise())
    turned.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    for other in (moved, turned, image_of(noise((5, 16, 19)))):
        refused(tmp_path / "labels.nii.gz", "another grid", read_labels, like=other)


def data_set(folder, labelled=(), unlabelled=(), patients=None):
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in (*labelled, *unlabelled):
        (folder / f"imagesTr/{name}_0000.nii.gz").write_bytes(b"x")
    for name in labelled:
        (folder / f"labelsTr/{name}.nii.gz").write_bytes(b"x")
    write_description(folder, "test", len(labelled) + len(unlabelled), patients)
    return open_data_set(folder)


def test_a_folder_that_is_no_data_set_and_one_without_images(tmp_path):
    with pytest.raises(CPS4Error, match="no data set"):
        open_data_set(tmp_path)
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(CPS4Error, match="no image"):
        open_data_set(tmp_path)


def test_a_label_without_image_is_named_and_the_rest_is_used(tmp_path):
    data_set(tmp_path, ["a"], ["b"])
    (tmp_path / "labelsTr/lost.nii.gz").write_bytes(b"x")
    found = open_data_set(tmp_path)
    assert [case.name for case in found.cases] == ["a", "b"]
    assert [problem.path.name for problem in found.problems] == ["lost.nii.gz"]


def test_another_number_of_classes_is_refused(tmp_path):
    data_set(tmp_path, ["a"])
    write_json(tmp_path / "dataset.json", {"labels": {"background": 0, "spine": 1}})
    with pytest.raises(CPS4Error, match="2 classes"):
        open_data_set(tmp_path)


def test_splits_are_nested_by_patient_and_seeded(tmp_path):
    names = [f"case_{k:03d}" for k in range(172)]
    data = data_set(tmp_path, names)
    counts, before = [], set()
    for ratio in (0.05, 0.1, 0.25, 0.5):
        split = make_split(data, ratio, seed=3)
        used = {*split.labelled, *split.validation}
        counts.append(len(used))
        assert before < used
        assert not used & set(split.unlabelled)
        assert len(used) + len(split.unlabelled) == 172
        before = used
    assert counts == [9, 17, 43, 86]
    assert make_split(data, 0.05, seed=3) == make_split(data, 0.05, seed=3)
    assert make_split(data, 0.05, seed=3) != make_split(data, 0.05, seed=4)


def test_a_patient_never_both_trains_and_validates(tmp_path):
    names = [f"case_{k}" for k in range(20)]
    data = data_set(tmp_path, names[:12], names[12:], {name: f"p{int(name[5:]) % 5}" for name in names})
    patients = {case.name: case.patient for case in data.cases}
    for seed in range(5):
        split = make_split(data, 1.0, seed)
        validating = {patients[name] for name in split.validation}
        assert validating
        assert not validating & {patients[name] for name in (*split.labelled, *split.unlabelled)}


def test_no_labelled_case_and_a_ratio_out_of_range(tmp_path):
    with pytest.raises(CPS4Error, match="no labelled case"):
        make_split(data_set(tmp_path / "a", [], ["x"]), 1.0, 0)
    with pytest.raises(CPS4Error, match="out of range"):
        make_split(data_set(tmp_path / "b", ["x"]), 0.0, 0)


def test_written_splits_are_used(tmp_path):
    data = data_set(tmp_path, [f"c{k}" for k in range(40)])
    path = write_splits(data, seed=8)
    assert split_for_ratio(data, 0.1, seed=0) == make_split(data, 0.1, seed=8) == read_splits(path, data)[0.1]


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"labelled": ["a"], "validation": ["b"], "unlabelled": ["a"]}, "'a' is in two parts"),
        ({"labelled": ["a"], "validation": ["c"], "unlabelled": []}, "patient of case 'c'"),
        ({"labelled": ["a"], "validation": [], "unlabelled": ["zz"]}, "'zz' is not in the data set"),
        ({"labelled": ["d"], "validation": [], "unlabelled": []}, "'d' has no labels"),
        ({"labelled": [], "validation": ["b"], "unlabelled": ["d"]}, "no labelled case"),
        ({"labelled": ["a"]}, "no list of splits"),
    ],
)
def test_a_split_that_does_not_hold_is_refused(tmp_path, split, words):
    data = data_set(tmp_path, ["a", "b", "c"], ["d"], {"a": "one", "b": "two", "c": "one", "d": "three"})
    write_json(tmp_path / "splits.json", {"seed": 0, "splits": {"0.5": split}})
    with pytest.raises(CPS4Error, match=words):
        split_for_ratio(data, 0.5, 0)


def test_an_image_without_a_voxel(tmp_path):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(image_of(noise()), str(path), useCompression=False)
    path.write_bytes(path.read_bytes().replace(b"DimSize = 18 16 5", b"DimSize = 18 0 5"))
    refused(path, "how large the image is")
