"""The phantom: seeded, anatomical, and the same in the patient however it is stored."""

import numpy as np
import pytest
import SimpleITK as sitk

from CPS4Core.class_table import BY_LABEL, HEAD_TO_TAIL
from CPS4Core.config import InputSettings
from CPS4Core.data.dataset import open_data_set
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import check_same_grid, read_image
from CPS4Core.synthesis.phantom.volume import PhantomOptions, make_phantom

LIGHT = PhantomOptions(pixel_mm=(2.0, 2.0), slices=(9, 9))
CANVAS = InputSettings(size=(160, 192), spacing_mm=2.0)


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(seed, LIGHT) for seed in range(6)]


def arrays(phantom):
    return sitk.GetArrayFromImage(phantom.image), sitk.GetArrayFromImage(phantom.labels)


def test_a_seed_gives_the_same_voxels_and_another_seed_others(phantoms):
    again = make_phantom(2, LIGHT)
    for ours, theirs in zip(arrays(again), arrays(phantoms[2]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.image.GetDirection() == phantoms[2].image.GetDirection()
    assert len({phantom.image.GetOrigin() for phantom in phantoms}) == len(phantoms)


def test_all_structures_occur_and_the_field_of_view_cuts_at_varying_levels(phantoms):
    found = [set(np.unique(arrays(phantom)[1]).tolist()) - {0} for phantom in phantoms]
    assert set.union(*found) == set(BY_LABEL)
    assert len({frozenset(labels) for labels in found}) > 1


def test_structures_follow_each_other_from_head_to_tail(phantoms):
    for phantom in phantoms:
        grid = SliceGrid.of(phantom.labels, CANVAS, whole=True)
        slices = grid.labels_to_slices(phantom.labels)[:, :, grid.columns.inside]
        cut = set(np.unique(slices[:, :, :2])) | set(np.unique(slices[:, :, -2:]))
        whole = [label for label in HEAD_TO_TAIL if label not in cut and (slices == label).sum() > 20]
        places = [np.nonzero(slices == label)[2].mean() for label in whole]
        assert len(places) > 8
        assert (np.diff(places) > 0).all()


def test_sizes_are_those_of_adults(phantoms):
    for phantom in phantoms:
        _, labels = arrays(phantom)
        voxel_ml = np.prod(phantom.labels.GetSpacing()) / 1000
        lumbar = [(labels == label).sum() * voxel_ml for label in (3, 4, 5)]
        discs = [(labels == label).sum() * voxel_ml for label in (12, 13)]
        assert all(25 < volume < 90 for volume in lumbar)  # with posterior elements
        assert all(3 < volume < 25 for volume in discs)
    for phantom in phantoms:
        heights = {e.label: e.height for e in phantom.patient.elements if e.kind == "vertebra" and e.label}
        assert 19 < heights[10] < 30
        assert 20 < heights[3] < 37


def test_fluid_is_bright_and_cortical_bone_dark_on_t2():
    phantom = make_phantom(
        11, PhantomOptions(pixel_mm=(1.2, 1.2), slices=(9, 9), pathology=False, vary_orientation=False)
    )
    image, labels = arrays(phantom)
    middle = len(image) // 2
    vertebra = image[middle][labels[middle] == 4]
    disc = image[middle][labels[middle] == 13]
    centre = int(np.nonzero(labels[middle] == 4)[1].mean())
    body = np.nonzero(labels[middle][:, centre] == 4)[0]
    wall, canal = np.split(image[middle][body.max() - 1 : body.max() + 14, centre], [5])
    assert wall.min() < 0.7 * np.median(vertebra)
    assert np.median(canal) > 1.3 * np.median(vertebra)
    assert np.percentile(disc, 90) > 1.2 * np.percentile(disc, 10)


def test_image_and_labels_share_a_grid_whatever_the_orientation(phantoms, tmp_path):
    directions = set()
    for phantom in phantoms:
        check_same_grid(phantom.labels, phantom.image, tmp_path)
        directions.add(
            sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(phantom.image.GetDirection())
        )
    assert len(directions) > 2


def test_a_data_set_of_phantoms_can_be_opened(data_set):
    opened = open_data_set(data_set)
    assert (len(opened.labelled), len(opened.unlabelled), len(opened.test)) == (4, 2, 1)
    for case in opened.labelled:
        assert (
            len(np.unique(sitk.GetArrayFromImage(read_labels(case.label, like=read_image(case.image))))) > 5
        )
    assert "not patients" in (data_set / "dataset.json").read_text()
