"""Real spine MRs, where they are at hand: read, laid into canonical slices, and back onto their own grid."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from CPS4Core.class_table import IGNORE
from CPS4Core.config import InputSettings
from CPS4Core.data.best_classes import scores_in
from CPS4Core.data.dicom import find_series, read_series
from CPS4Core.data.geometry import SliceGrid, check_sagittal
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import read_image, read_volume
from CPS4Core.demo.real_sample import FIRST_DISC

FOLDER = Path(__file__).parents[3] / "shared/data"
SCANS = ("sct/t2_lumbar.nii.gz", "tptbox_sample_mri/sub-mri_label-6_T2w.nii.gz")
CANVAS = InputSettings(size=(256, 320), spacing_mm=1.0)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the real images are not beside this checkout")


@pytest.mark.parametrize("name", SCANS)
def test_slices_show_the_scan_upright_and_nothing_is_lost(name):
    image = read_image(FOLDER / name)
    check_sagittal(image, FOLDER / name)
    grid = SliceGrid.of(image, CANVAS, whole=True)
    canonical = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "PIR"))
    inside = grid.crop(grid.to_slices(image))
    # PIR holds slices L to R, rows S to I and columns A to P; ours are R to L, A to P and S to I.
    expected = canonical.swapaxes(1, 2)[::-1]
    assert _likeness(inside, expected) > 0.9
    for axis in range(3):
        assert _likeness(inside, np.flip(expected, axis)) < 0.7


def test_a_left_handed_scan_and_its_labels_keep_their_grid():
    """The determinant of the direction is -1: no axis may be turned to make it 1."""
    folder = FOLDER / "spider_t2"
    image = read_image(folder / "imagesTr/spider_005_0000.nii.gz")
    labels = read_labels(folder / "labelsTr/spider_005.nii.gz", like=image)
    assert np.linalg.det(np.reshape(image.GetDirection(), (3, 3))) == pytest.approx(-1)
    grid = SliceGrid.of(image, CANVAS, whole=True)
    slices = grid.labels_to_slices(labels)
    slices[slices == IGNORE] = 0
    logits = torch.from_numpy(slices[:, None] == np.arange(20)[:, None, None]).float()
    again = grid.to_image(grid.labels_from_slices(scores_in(logits), torch.from_numpy(slices)).numpy())
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(again, name)() == getattr(image, name)()
    truth, found = (sitk.GetArrayFromImage(image) for image in (labels, again))
    for label in range(2, 8):
        assert 2 * ((truth == label) & (found == label)).sum() > 0.95 * (
            (truth == label).sum() + (found == label).sum()
        )


def test_labels_return_to_the_voxels_they_came_from():
    path = FOLDER / "tptbox_sample_mri/sub-mri_seg-vert_label-6_msk.nii.gz"
    masks = read_volume(path)
    array = sitk.GetArrayFromImage(masks)
    labels = sitk.GetImageFromArray(((array > 0) & (array < FIRST_DISC)).astype(np.uint8))
    labels.CopyInformation(masks)
    grid = SliceGrid.of(labels, CANVAS, whole=True)
    slices = grid.labels_to_slices(labels)
    logits = torch.from_numpy(np.stack([slices == label for label in range(20)], 1).astype(np.float32))
    again = sitk.GetArrayFromImage(
        grid.to_image(grid.labels_from_slices(scores_in(logits), torch.from_numpy(slices)).numpy())
    )
    truth = sitk.GetArrayFromImage(labels)
    assert 2 * (again & truth).sum() / (again.sum() + truth.sum()) > 0.97


def test_a_dicom_series_written_from_a_scan_reads_back(tmp_path):
    image = sitk.Cast(read_image(FOLDER / SCANS[0]), sitk.sitkInt16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    volume = sitk.DICOMOrient(image, "PIR")
    direction = np.array(volume.GetDirection()).reshape(3, 3)
    for k in range(volume.GetSize()[2]):
        piece = volume[:, :, k]
        tags = {
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0008|0060": "MR",
            "0020|0037": "\\".join(map(str, [*direction[:, 0], *direction[:, 1]])),
            "0020|0032": "\\".join(map(str, volume.TransformIndexToPhysicalPoint((0, 0, k)))),
            "0020|0013": str(k),
        }
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / f"{k:03d}.dcm"))
        writer.Execute(piece)
    (series,) = find_series(tmp_path)
    again = read_series(series)
    assert again.GetSize() == volume.GetSize()
    assert again.GetDirection() == pytest.approx(volume.GetDirection(), abs=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(volume))


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two stacks at 24 x 24 x 24 evenly spread places."""
    values = []
    for stack in (one, other):
        places = (np.linspace(0, length - 1, 24).round().astype(int) for length in stack.shape)
        values.append(stack[np.ix_(*places)].ravel().astype(float))
    return float(np.corrcoef(values)[0, 1])
