"""Levels counted on the reference labels of real spines, whose names were spoilt."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from CPS4Core.class_table import BONES, DISCS, IGNORE
from CPS4Core.config import InputSettings
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.naming.name import name_levels

FOLDER = Path(__file__).parents[3] / "shared/data/spider_t2/labelsTr"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"needs the labels of SPIDER in {FOLDER}")
PATIENTS = ("005", "055", "078", "166", "209")
"""With straight and curved spines, a collapsed and a slipped vertebra."""
CANVAS = InputSettings(size=(128, 256), spacing_mm=1.5)
SACRUM = BONES[0].label
LOWEST = DISCS[0].label


@pytest.fixture(scope="module", params=PATIENTS)
def spine(request) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Labels (slices, AP, SI) and mm between them; a sacrum is drawn below the lowest disc, which has none."""
    image = sitk.ReadImage(str(FOLDER / f"spider_{request.param}.nii.gz"))
    grid = SliceGrid.of(image, CANVAS, whole=True)
    labels = grid.crop(grid.labels_to_slices(image)).copy()
    labels[labels == IGNORE] = 0
    return with_sacrum(labels, grid.spacing_mm), grid.spacing_mm


def with_sacrum(labels: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return the labels with a block below the disc on the sacrum, leaning by 35 degrees."""
    slices, rows, columns = np.nonzero(labels == LOWEST)
    back, down = np.meshgrid(
        (np.arange(labels.shape[1]) - rows.mean()) * spacing[1],
        (np.arange(labels.shape[2]) - columns.mean()) * spacing[2],
        indexing="ij",
    )
    lean = np.radians(35)
    along, across = down * np.cos(lean) + back * np.sin(lean), back * np.cos(lean) - down * np.sin(lean)
    block = (along > 8) & (along < 45) & (abs(across) < 18)
    drawn = labels.copy()
    for number in np.unique(slices):
        drawn[number][block & (labels[number] == 0)] = SACRUM
    return drawn


def moved(labels: np.ndarray, levels: int) -> np.ndarray:
    """Return the labels with every vertebra and disc under the name ``levels`` further up."""
    table = np.arange(256, dtype=np.uint8)
    for kind in (BONES[1:], DISCS):
        first, last = kind[0].label, kind[-1].label
        table[first : last + 1] = np.clip(np.arange(first, last + 1) + levels, first, last)
    return table[labels]


def assert_names_are_back(spoilt: np.ndarray, spine: tuple, voxels: float = 0.97) -> None:
    truth, spacing = spine
    named = name_levels(spoilt, spacing).labels
    structures = truth > SACRUM
    assert (named == truth)[structures].mean() > voxels
    for label in np.unique(truth[structures]):
        assert np.bincount(named[truth == label]).argmax() == label


def test_right_names_stay(spine):
    assert_names_are_back(spine[0], spine, voxels=0.98)


def test_without_the_sacrum_they_stay_too(spine):
    truth, _ = spine
    assert_names_are_back(np.where(truth == SACRUM, 0, truth).astype(np.uint8), spine, voxels=0.98)


def test_lower_halves_under_the_next_name(spine):
    """Each vertebra carries two names."""
    truth, _ = spine
    spoilt = truth.copy()
    for bone in BONES[2:]:
        where = truth == bone.label
        if where.any():
            spoilt[where & (np.arange(truth.shape[2]) > np.median(np.nonzero(where)[2]))] = bone.label - 1
    assert_names_are_back(spoilt, spine)


def test_two_voxels_of_five_under_any_name(spine):
    truth, _ = spine
    random = np.random.default_rng(0)
    any_name = np.where(
        truth >= LOWEST, random.integers(11, 20, truth.shape), random.integers(2, 11, truth.shape)
    )
    spoilt = np.where((random.random(truth.shape) < 0.4) & (truth > SACRUM), any_name, truth)
    assert_names_are_back(spoilt.astype(np.uint8), spine)


def test_names_by_patches_of_25_mm_each_off_by_one_or_right(spine):
    truth, spacing = spine
    random = np.random.default_rng(0)
    patches = [
        (np.arange(n) * mm // 25).astype(int) for n, mm in zip(truth.shape[1:], spacing[1:], strict=True)
    ]
    levels = random.integers(-1, 2, [patch[-1] + 1 for patch in patches])[np.ix_(*patches)]
    spoilt = np.choose(levels + 1, [moved(truth, levels) for levels in (-1, 0, 1)])
    assert_names_are_back(spoilt.astype(np.uint8), spine)


def test_the_next_names_follow_the_sacrum(spine):
    assert_names_are_back(moved(spine[0], 1), spine)
