"""Scores against values worked out by hand."""

import numpy as np
import pytest

from CPS4Core.class_table import IGNORE
from CPS4Core.evaluation.metrics import level_agreement, mean_scores, overlap, surface_distances


def test_dice_and_iou_count_voxels():
    reference = np.array([1, 1, 1, 1, 2, 2, 0, 0], np.uint8)
    prediction = np.array([1, 1, 0, 0, 2, 2, 2, 0], np.uint8)
    found = overlap(prediction, reference)
    assert found.dice[1] == pytest.approx(4 / 6)
    assert found.iou[1] == pytest.approx(2 / 4)
    assert found.dice[2] == pytest.approx(4 / 5)
    assert np.isnan(found.dice[3])
    assert mean_scores([(prediction, reference)])[0] == pytest.approx((4 / 6 + 4 / 5) / 2)


def test_a_structure_that_is_not_there_counts_against_the_mean():
    reference = np.array([1, 1, 0, 0], np.uint8)
    prediction = np.array([1, 1, 5, 0], np.uint8)
    assert mean_scores([(prediction, reference)]) == pytest.approx((0.5, 0.5))


def test_unknown_voxels_count_for_nothing():
    reference = np.array([1, 1, IGNORE, IGNORE], np.uint8)
    assert mean_scores([(np.array([1, 1, 4, 1], np.uint8), reference)])[0] == 1


def test_surface_distances_are_in_mm():
    one, other = np.zeros((1, 20, 20), bool), np.zeros((1, 20, 20), bool)
    one[0, 5:10, 5:10] = True
    other[0, 5:10, 7:12] = True
    shifted = surface_distances(one, other, (4.0, 1.0, 0.5))
    assert shifted.hausdorff95 == pytest.approx(1.0)
    assert surface_distances(one, one, (4.0, 1.0, 0.5)).average == 0
    assert surface_distances(one, np.zeros_like(one), (1, 1, 1)) is None


def test_a_shift_of_all_levels_is_named():
    reference = np.repeat(np.array([1, 11, 2, 12, 3, 13, 4], np.uint8), 5)
    right = level_agreement(reference, reference)
    assert (right.accuracy, right.shift) == (1.0, 0)
    below = {1: 1, 11: 11, 2: 1, 12: 11, 3: 2, 13: 12, 4: 3}
    shifted = np.array([below[int(label)] for label in reference[15:]], np.uint8)
    found = level_agreement(shifted, reference[15:])
    assert (found.right, found.shift) == (0, 1)
    assert level_agreement(np.zeros(35, np.uint8), reference).accuracy == 0
