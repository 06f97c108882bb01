"""What does not say how it lies in the body, or says two things, is refused in words that name the field."""

import gzip
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_classic, write_enhanced
from test_prepare import prepare, scan, values, volume, write

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.dicom import find_series, read_series
from CPS4Core.data.inspect import inspect_data_set
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import check_image, read_image
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Failed, silent

OBLIQUE = tuple(
    (
        np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
        @ np.array([[0.995, -0.0998, 0], [0.0998, 0.995, 0], [0, 0, 1]])
    ).ravel()
)


def same_place(found, original, tolerance=1e-3):
    """Check that each voxel has the same value at the same place, whatever the order of the axes."""
    original = sitk.Cast(original, sitk.sitkFloat32)
    again = sitk.Resample(found, original, sitk.Transform(), sitk.sitkNearestNeighbor, -1.0)
    np.testing.assert_array_equal(values(again), values(original))
    corner = [length - 1 for length in found.GetSize()]
    index = original.TransformPhysicalPointToContinuousIndex(found.TransformIndexToPhysicalPoint(corner))
    assert np.abs(np.array(index) - np.round(index)).max() < tolerance


def refused(words, path, read=read_image):
    with pytest.raises(CPS4Error) as caught:
        read(path)
    for word in words:
        assert word in caught.value.problem, caught.value.problem
    assert caught.value.remedy
    return caught.value


# DICOM


@pytest.mark.parametrize("direction", [(0, 0, 1, 0, 1, 0, -1, 0, 0), OBLIQUE])
def test_a_classic_series_lies_where_its_tags_say_whatever_the_names_of_its_files(tmp_path, direction):
    image = volume(values(scan(1)), direction)
    write_classic(tmp_path, image, InstanceNumber=lambda k, _: 90 - k)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        path.rename(tmp_path / f"{(7 * number) % 4}.ima")
    same_place(read_image(tmp_path), image)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3], [3, 1, 0, 2]])
def test_the_frames_of_an_enhanced_file_lie_where_each_says(tmp_path, order):
    image = volume(values(scan(2)), OBLIQUE)
    write_enhanced(tmp_path / "enhanced.dcm", image, order)
    same_place(read_image(tmp_path), image)


def test_each_slice_of_a_series_may_be_scaled_by_its_own_slope(tmp_path):
    image = scan(3)
    write_classic(tmp_path, image, RescaleSlope=lambda k, _: 1 + k / 4, RescaleIntercept=0)
    np.testing.assert_allclose(
        np.sort([plane.max() for plane in values(read_image(tmp_path))]),
        np.sort([plane.max() * (1 + k / 4) for k, plane in enumerate(values(image))]),
    )


def test_a_file_that_is_there_twice_counts_once_and_what_is_no_image_passes(tmp_path):
    write_classic(tmp_path, scan(4))
    first = min(tmp_path.iterdir())
    (tmp_path / "copy of it.dcm").write_bytes(first.read_bytes())
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "._5-000.dcm").write_bytes(b"of macOS")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"no images")
    (tmp_path / "report.txt").write_text("hello")
    same_place(read_image(tmp_path), scan(4))


SHEAR = [0.0, 3.0, 0.0]
CLASSIC = {
    "no position": ({"ImagePositionPatient": None}, ["(0020,0032)", "4 of 4"]),
    "no position of one": (
        {"ImagePositionPatient": lambda k, p: p if k else None},
        ["(0020,0032)", "1 of 4"],
    ),
    "no orientation": ({"ImageOrientationPatient": None}, ["(0020,0037)"]),
    "no pixel spacing": ({"PixelSpacing": None}, ["(0028,0030)"]),
    "sheared": (
        {"ImagePositionPatient": lambda k, p: [a + k * b for a, b in zip(p, SHEAR, strict=True)]},
        ["sheared", "(0020,0032)"],
    ),
    "axes not perpendicular": (
        {"ImageOrientationPatient": [0, 0.1, -1, 0, 1, 0]},
        ["perpendicular", "(0020,0037)"],
    ),
    "a localizer": (
        {"ImageOrientationPatient": lambda k, o: o if k else [1, 0, 0, 0, 1, 0]},
        ["several directions", "localizer"],
    ),
    "two pixel sizes": ({"PixelSpacing": lambda k, p: [1, 1 + k % 2]}, ["several sizes"]),
    "a wider gap": (
        {"ImagePositionPatient": lambda k, p: [p[0] + (4 if k > 1 else 0), *p[1:]]},
        ["lacks a slice", "4.0 to 8.0 mm"],
    ),
    "every second slice": ({"SpacingBetweenSlices": 2.0, "SliceThickness": 1.8}, ["4.0 mm", "(0018,0088)"]),
    "every second slice, by numbers": (
        {"SliceThickness": 2.0, "InstanceNumber": lambda k, _: 2 * k},
        ["lacks slices", "(0020,0013)"],
    ),
    "two echoes": (
        {
            "ImagePositionPatient": lambda k, p: [3.0 + k // 2 * 4, *p[1:]],
            "EchoTime": lambda k, _: [12, 90][k % 2],
        },
        ["2 images at each position", "echoes at 12, 90 ms"],
    ),
    "repetitions": ({"ImagePositionPatient": [3.0, -4.0, 5.0]}, ["4 images at each position"]),
}


@pytest.mark.parametrize("name", CLASSIC)
def test_a_series_that_does_not_say_how_it_lies_is_refused_by_the_tag(tmp_path, name):
    tags, words = CLASSIC[name]
    write_classic(tmp_path, scan(5), **tags)
    refused([*words, "series 5 (T2 sag)"], tmp_path)


def test_the_gap_may_be_given_without_the_thickness(tmp_path):
    write_classic(tmp_path, scan(5), SpacingBetweenSlices=0.4, SliceThickness=3.6)
    same_place(read_image(tmp_path), scan(5))


@pytest.mark.parametrize(
    ("group", "tag"),
    [
        ("PlanePositionSequence", "(0020,0032)"),
        ("PlaneOrientationSequence", "(0020,0037)"),
        ("PixelMeasuresSequence", "(0028,0030)"),
    ],
)
def test_an_enhanced_file_without_a_functional_group_is_refused_by_the_tag(tmp_path, group, tag):
    write_enhanced(tmp_path / "enhanced.dcm", scan(6), [0, 1, 2, 3], leave_out=group)
    refused([tag, "4 of 4"], tmp_path)


def test_one_position_is_not_that_of_all_frames(tmp_path):
    write_enhanced(
        tmp_path / "enhanced.dcm",
        scan(6),
        [0, 1, 2, 3],
        leave_out="PlanePositionSequence",
        ImagePositionPatient=[3, -4, 5],
    )
    refused(["(0020,0032)"], tmp_path)


def test_series_of_one_file_are_prepared_or_named(tmp_path):
    write_enhanced(tmp_path / "in/a/enhanced.dcm", scan(7), [2, 0, 3, 1])
    write_classic(tmp_path / "in/b", scan(8), "1.2.3.5")
    write_classic(tmp_path / "in/c", scan(9)[:, :, :1], "1.2.3.6")
    write_classic(tmp_path / "in/d", scan(10)[:, :, :1], "1.2.3.7", ImageOrientationPatient=None)
    events = []
    data = prepare(tmp_path / "in", tmp_path / "out", "dicom", events)
    assert len(data.cases) == 3
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert "(0020,0037)" in failed.problem
    assert failed.path == "series 5 (T2 sag) in folder 5 of 5 by name"
    same_place(read_image(data.cases[0].image), scan(7))


def test_series_in_linked_folders_are_found_once(tmp_path):
    write_classic(tmp_path / "archive/one", scan(1))
    (tmp_path / "in").mkdir()
    for link, target in (("study", "archive"), ("again", "archive"), ("study/back", "in")):
        try:
            (tmp_path / "in" / link).symlink_to(tmp_path / target, target_is_directory=True)
        except OSError:
            pytest.skip("no links here")
    assert len(prepare(tmp_path / "in", tmp_path / "out", "dicom").cases) == 1


def test_a_damaged_file_in_one_folder_does_not_end_the_others(tmp_path):
    write_classic(tmp_path / "in/a", scan(1), "1.2.3.4")
    write_classic(tmp_path / "in/b", scan(2), "1.2.3.5")
    damaged = min((tmp_path / "in/a").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:300])
    events = []
    assert len(prepare(tmp_path / "in", tmp_path / "out", "dicom", events).cases) == 1
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert "damaged" in failed.problem or "cannot be read" in failed.problem
    (series,) = find_series(tmp_path / "in/b")
    last = max((tmp_path / "in/b").iterdir())
    last.write_bytes(last.read_bytes()[:-40])
    refused(["cannot be read"], series, read_series)


# NIfTI


def nifti(path, image=None, **fields):
    """Write a NIfTI file and change fields of its header, given as offset -> (format, values)."""
    sitk.WriteImage(scan(1) if image is None else image, str(path))
    raw = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    for name, value in fields.items():
        kind, offset = FIELDS[name]
        struct.pack_into("<" + kind, raw, offset, *(value if isinstance(value, tuple) else (value,)))
    path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))
    return path


FIELDS = {
    "pixdim": ("4f", 76),
    "units": ("B", 123),
    "qform": ("h", 252),
    "sform": ("h", 254),
    "quatern": ("3f", 256),
    "qoffset": ("3f", 268),
    "srow": ("12f", 280),
    "magic": ("4s", 344),
}
PIXDIM = (1.0, 1.0, 1.0, 4.0)
SROW = (0, 0, -4.0, -3.0, 0, -1.0, 0, 4.0, -1.0, 0, 0, 5.0)
"""As ITK writes the sform of ``scan``."""
NIFTI = {
    "both codes 0": ({"qform": 0, "sform": 0}, ["qform_code and sform_code are 0"]),
    "Analyze": ({"magic": b"\0\0\0\0"}, ["qform_code and sform_code are 0"]),
    "pixdim 0": ({"pixdim": (1.0, 1.0, 0.0, 4.0)}, ["pixdim is 1, 0, 4"]),
    "pixdim NaN": ({"pixdim": (1.0, 1.0, 1.0, np.nan)}, ["pixdim is 1, 1, nan"]),
    "metres": ({"units": 1}, ["xyzt_units"]),
    "another place": ({"qoffset": (50.0, 4.0, 5.0)}, ["two things", "qform and sform", "mm apart"]),
    "another direction": ({"quatern": (0.0, 0.0, 0.0)}, ["two things", "qform and sform"]),
    "another voxel size": ({"pixdim": (1.0, 2.0, 1.0, 4.0), "qform": 0}, ["two things", "sform and pixdim"]),
    "sheared": ({"srow": (*SROW[:4], 0.3, *SROW[5:]), "qform": 0}, ["not perpendicular"]),
    "sheared beside a qform": ({"srow": (*SROW[:4], 0.3, *SROW[5:])}, ["not perpendicular"]),
    "a flat sform": ({"srow": (0.0,) * 12, "qform": 0}, ["sform is no place"]),
    "an sform of NaN": ({"srow": (np.nan,) * 12, "qform": 0}, ["sform is no place"]),
    "no quaternion": ({"quatern": (np.nan, 0.0, 0.0), "sform": 0}, ["qform is no place"]),
}


def test_either_form_alone_is_enough(tmp_path):
    for codes in ({"qform": 0}, {"sform": 0}, {}, {"qform": 2, "sform": 4}):
        same_place(read_image(nifti(tmp_path / "scan.nii.gz", **codes)), scan(1))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", NIFTI)
def test_a_nifti_header_without_a_place_or_with_two_is_refused_by_the_field(tmp_path, name, suffix):
    fields, words = NIFTI[name]
    path = nifti(tmp_path / f"scan{suffix}", **fields)
    assert refused(words, path).path == path
    refused(words, path, read_labels)


def test_inspect_names_what_does_not_say_how_it_lies(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    nifti(tmp_path / "imagesTr/a_0000.nii.gz", qform=0, sform=0)
    problems = inspect_data_set(tmp_path, silent, Cancellation())
    assert "qform_code" in problems[0].problem


# NRRD and MetaImage


def text_header(path, image, *changes):
    write(image, path)
    raw = path.read_bytes()
    for old, new in changes:
        assert old in raw
        raw = raw.replace(old, new, 1)
    path.write_bytes(raw)
    return path


TEXT = {
    "no directions": (
        ".nrrd",
        [(b"space directions: (0,0,-1) (0,1,0) (4,0,0)\n", b"spacings: 1 1 4\n"), (b"space origin", b"#")],
        ["'space directions'"],
    ),
    "no space": (".nrrd", [(b"space: left-posterior-superior\n", b"space dimension: 3\n")], ["'space'"]),
    "a space of the scanner": (".nrrd", [(b"left-posterior-superior", b"scanner-xyz")], ["'scanner-xyz'"]),
    "sheared NRRD": (".nrrd", [(b"(4,0,0)", b"(4,1,0)")], ["not perpendicular"]),
    "no matrix": (".mha", [(b"TransformMatrix = 0 0 -1 0 1 0 1 0 0\n", b"")], ["TransformMatrix"]),
    "no spacing": (".mha", [(b"ElementSpacing = 1 1 4\n", b"")], ["ElementSpacing"]),
    "sheared MHA": (".mha", [(b"0 0 -1 0 1 0 1 0 0", b"0 0 -1 0 1 0 1 0.3 0")], ["not perpendicular"]),
    "no dimension": (".mha", [(b"NDims = 3", b"NDims = -1")], ["damaged", "'ndims'"]),  # ITK crashes
    "two sizes": (".mha", [(b"DimSize", b"DimSize = 9 9 9\nDimSize")], ["damaged", "'dimsize'"]),
    "no dimension of NRRD": (".nrrd", [(b"dimension: 3", b"dimension: 99")], ["damaged", "'dimension'"]),
    "no number": (
        ".mha",
        [(b"ElementSpacing = 1 1 4", b"ElementSpacing = 1 1 0")],
        ["ElementSpacing is 1 1 0"],
    ),
}


@pytest.mark.parametrize("name", TEXT)
def test_a_header_in_text_without_a_place_is_refused_by_the_field(tmp_path, name):
    suffix, changes, words = TEXT[name]
    path = text_header(tmp_path / f"scan{suffix}", scan(1), *changes)
    assert refused(words, path).path == path


@pytest.mark.parametrize("space", [b"RAS", b"right-anterior-superior", b"LPS"])
def test_spaces_of_the_body_are_known_by_either_name(tmp_path, space):
    path = text_header(tmp_path / "scan.nrrd", scan(1), (b"left-posterior-superior", space))
    assert read_image(path).GetSize() == scan(1).GetSize()


def test_an_image_in_memory_is_checked_too():
    image = scan(1)
    image.SetDirection((0, 0, 1, 0, 1, 0.3, -1, 0, 0))
    with pytest.raises(CPS4Error, match="not perpendicular"):
        check_image(image)
