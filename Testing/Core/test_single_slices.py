"""One sagittal slice is enough, as a volume or as a picture of known pixel size."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import InputSettings
from CPS4Core.data.dataset import open_data_set
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.data.prepare import prepare_data_set
from CPS4Core.data.slices import prepare_slices
from CPS4Core.data.volumes import read_image, read_scan
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Warned, silent
from CPS4Core.inference.attend import attend_volume
from CPS4Core.inference.batch import find_tasks, segment_all
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.synthesis.phantom.volume import make_phantom

CPU = torch.device("cpu")
SAGITTAL = (0, 0, 1, 1, 0, 0, 0, -1, 0)


@pytest.fixture(scope="module")
def phantom():
    """The middle slice of a phantom and its labels, volumes with axes P, I, L: of left-handed order."""
    whole = make_phantom(3)
    middle = []
    for volume in (whole.image, whole.labels):
        volume = sitk.DICOMOrient(volume, "PIL")
        array = sitk.GetArrayFromImage(volume)
        plane = sitk.GetImageFromArray(array[len(array) // 2][None])
        plane.SetSpacing(volume.GetSpacing())
        plane.SetDirection(SAGITTAL)
        middle.append(plane)
    return middle


@pytest.fixture
def picture(phantom, tmp_path):
    """The same slice as a PNG with a space and a letter beyond ASCII in its path."""
    path = tmp_path / "ein Schnitt für uns.png"
    Image.fromarray(_bytes(phantom[0])).save(path)
    return path


def _bytes(image):
    plane = sitk.GetArrayFromImage(image)[0].astype(float)
    return (255 * (plane - plane.min()) / np.ptp(plane)).astype(np.uint8)


def warnings_of(events):
    return [event.message for event in events if isinstance(event, Warned)]


def segment(model, source, target, report=silent, pixel_mm=None):
    tasks = find_tasks(source, target, ".nii.gz", pixel_mm)
    return segment_all(
        Segmenter(ModelFolder.open(model), CPU),
        tasks,
        levels="as-seen",
        report=report,
        cancellation=Cancellation(),
    )


def test_a_slice_is_segmented_and_attended_on_its_own_grid(trained_model, phantom, tmp_path):
    sitk.WriteImage(phantom[0], str(tmp_path / "one.nii.gz"))
    events = []
    assert not segment(trained_model, tmp_path / "one.nii.gz", tmp_path / "out.nii.gz", events.append)
    assert [message for message in warnings_of(events) if "single sagittal slice" in message]
    attend_volume(
        tmp_path / "one.nii.gz",
        tmp_path,
        ModelFolder.open(trained_model),
        ["L4"],
        None,
        CPU,
        silent,
        Cancellation(),
    )
    for name in ("out.nii.gz", "one_L4_attention.nii.gz"):
        result = sitk.ReadImage(str(tmp_path / name))
        assert result.GetSize() == phantom[0].GetSize()
        assert result.GetDirection() == SAGITTAL
        assert result.GetSpacing() == pytest.approx(phantom[0].GetSpacing())


def test_slices_make_a_data_set_to_learn_from(phantom, tiny_settings, tmp_path):
    for part, image in zip(("images", "labels"), phantom, strict=True):
        for name in ("a", "b"):
            (tmp_path / "in" / part).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(tmp_path / f"in/{part}/{name}.nii.gz"))
    events, cancellation = [], Cancellation()
    data = prepare_data_set(
        tmp_path / "in", tmp_path / "out", "folder", seed=0, report=events.append, cancellation=cancellation
    )
    store = prepare_slices(data.cases, tiny_settings.input, tmp_path / "cache", events.append, cancellation)
    assert store.counts == {"case_0001": 1, "case_0002": 1}
    assert store.labels("case_0001").any()
    assert len([message for message in warnings_of(events) if "2 cases are a single slice" in message]) == 2


def test_a_picture_lies_as_radiology_shows_it(tmp_path):
    pixels = np.zeros((40, 30), np.uint8)
    pixels[2:6, 3:12] = 100  # up, in front
    pixels[30:38, 20:29] = 200  # down, behind
    Image.fromarray(pixels).save(tmp_path / "slice.png")
    image = read_image(tmp_path / "slice.png", 0.5)
    assert (image.GetSize(), image.GetSpacing()) == ((30, 40, 1), (0.5, 0.5, 4.0))
    behind_and_down = np.subtract(
        image.TransformIndexToPhysicalPoint((29, 39, 0)), image.TransformIndexToPhysicalPoint((0, 0, 0))
    )
    np.testing.assert_allclose(behind_and_down, (0, 14.5, -19.5))
    assert np.linalg.det(np.reshape(image.GetDirection(), (3, 3))) == pytest.approx(1)
    stack = SliceGrid.of(image, InputSettings(size=(32, 64), spacing_mm=0.5))._canonical(
        sitk.GetArrayFromImage(image)
    )
    np.testing.assert_array_equal(stack[0], pixels.T)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16"])
def test_grey_is_read_however_it_is_stored(mode, picture, phantom, tmp_path):
    expected = _bytes(phantom[0])
    if mode == "I;16":
        Image.fromarray(expected.astype(np.uint16) * 257).save(tmp_path / "stored.png")
    else:
        Image.fromarray(expected).convert(mode).save(tmp_path / "stored.png")
    found = sitk.GetArrayFromImage(read_image(tmp_path / "stored.png", 1.0))[0]
    np.testing.assert_allclose(found / (257 if mode == "I;16" else 1), expected, atol=0.5)


def test_what_a_picture_is_taken_for_is_said(picture):
    events = []
    read_scan(picture, events.append, 0.7)
    assert any("head" in message and "0.7 mm" in message for message in warnings_of(events))


def test_a_picture_without_pixel_size_in_colour_or_damaged_is_refused(picture, tmp_path):
    with pytest.raises(CPS4Error, match="--pixel-mm") as missing:
        read_image(picture)
    assert missing.value.path == picture
    pixels = np.zeros((40, 30, 3), np.uint8)
    pixels[5, 5] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "marked.png")
    with pytest.raises(CPS4Error, match="in colour"):
        read_image(tmp_path / "marked.png", 1.0)
    for suffix in ("png", "jpg"):
        damaged = tmp_path / f"damaged.{suffix}"
        Image.open(picture).save(damaged)
        damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
        with pytest.raises(CPS4Error, match="damaged"):
            read_image(damaged, 1.0)


def test_a_folder_of_pictures_is_segmented(trained_model, picture, tmp_path):
    Image.open(picture).save(tmp_path / "second.jpg", quality=95)
    assert not segment(trained_model, tmp_path, tmp_path / "out", pixel_mm=0.9)
    written = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert [path.name for path in written] == ["ein Schnitt für uns.nii.gz", "second.nii.gz"]
    result, source = sitk.ReadImage(str(written[0])), read_image(picture, 0.9)
    assert result.GetSize() == source.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(result, name)() == pytest.approx(getattr(source, name)(), abs=1e-6)


def test_pictures_beside_volumes_are_left_alone(phantom, picture, tmp_path):
    sitk.WriteImage(phantom[0], str(tmp_path / "volume.nii.gz"))
    assert [task.source.name for task in find_tasks(tmp_path, tmp_path / "out", ".nii.gz")] == [
        "volume.nii.gz"
    ]


def test_pictures_beside_a_dicom_series_are_left_alone(phantom, picture, tmp_path):
    sitk.WriteImage(sitk.Cast(phantom[0], sitk.sitkInt16)[:, :, 0], str(tmp_path / "slice.dcm"))
    assert [task.source for task in find_tasks(tmp_path, tmp_path / "out", ".nii.gz")] == [tmp_path]


def test_pictures_make_a_data_set(picture, phantom, tmp_path):
    (tmp_path / "in").mkdir()
    picture.rename(tmp_path / "in" / picture.name)
    events = []
    prepare_data_set(
        tmp_path / "in",
        tmp_path / "out",
        "folder",
        seed=0,
        report=events.append,
        cancellation=Cancellation(),
        pixel_mm=0.8,
    )
    (case,) = open_data_set(tmp_path / "out").unlabelled
    image = read_image(case.image)
    assert image.GetSpacing() == pytest.approx((0.8, 0.8, 4.0))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image)[0], _bytes(phantom[0]))
    assert any("0.8 mm" in message for message in warnings_of(events))
