"""What the benchmark on real scans counts: bands around bodies, unknown voxels, names, levels."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "Benchmarks"))

from real import held_out, known_around_bodies, named_from, score

from CPS4Core.class_table import IGNORE

SPACING = (4.0, 1.0, 1.0)


def spine(**blocks):
    """Return labels of one slice of 20 x 60 mm: label -> first and last column, all in the rows 5 to 14."""
    labels = np.zeros((1, 20, 60), np.uint8)
    for name, (first, last) in blocks.items():
        labels[0, 5:15, first : last + 1] = int(name.removeprefix("label"))
    return labels


BODIES = spine(label3=(5, 14), label2=(20, 29), label1=(35, 44))
"""L4, L5 and S1, head to tail."""


def test_a_right_prediction_has_full_marks():
    scores = score(BODIES, known_around_bodies(BODIES, SPACING), SPACING)
    assert scores["bones"] == scores["bones_by_name"] == scores["by_name"] == 1
    assert (scores["bones_right"], scores["bones_named"]) == (3, 3)
    assert scores["all_levels_right"]
    assert scores["bones_hd95_mm"] == 0
    assert scores["discs"] is scores["discs_by_name"] is None


def test_bone_beyond_the_band_does_not_count_and_inside_it_does():
    known = known_around_bodies(BODIES, SPACING)
    assert (known[0, 10, :20] == [*[IGNORE] * 2, 0, 0, 0, *[3] * 10, 0, 0, 0, 0, 0]).all()
    far, near = BODIES.copy(), BODIES.copy()
    far[0, :2] = 3  # posterior elements, 4 mm from the nearest body
    far[0, 18:] = 2
    near[0, 3:5, 5:15] = 3
    assert score(far, known, SPACING)["bones"] == 1
    assert score(near, known, SPACING)["bones"] == pytest.approx(2 * 300 / (300 + 320))


def test_the_band_is_in_mm_and_so_does_not_reach_the_next_thick_slice():
    two = spine(label3=(5, 14), label2=(20, 29))
    bodies = np.concatenate([np.zeros_like(two), two])
    assert (known_around_bodies(bodies, SPACING)[0] == IGNORE).all()
    assert (known_around_bodies(bodies, (3.0, 1.0, 1.0))[0] == IGNORE).sum() == 20 * 60 - 200


def test_what_follows_the_body_of_s1_does_not_count_and_the_disc_above_it_does():
    known = known_around_bodies(BODIES, SPACING)
    sacrum, swollen = BODIES.copy(), BODIES.copy()
    sacrum[0, 5:15, 45:58] = 1
    swollen[0, 5:15, 32:35] = 1
    assert score(sacrum, known, SPACING)["by_name"] == 1
    assert score(swollen, known, SPACING)["bones"] == pytest.approx(2 * 300 / (300 + 330))


def test_unknown_voxels_do_not_count():
    reference = spine(label3=(5, 14))
    reference[0, :, 30:] = IGNORE
    assert score(spine(label3=(5, 14), label2=(30, 39)), reference, SPACING)["bones"] == 1
    assert score(spine(label3=(5, 14), label2=(20, 29)), reference, SPACING)["bones"] == pytest.approx(2 / 3)


def test_wrong_names_cost_names_and_not_shapes():
    reference = spine(label4=(0, 9), label13=(10, 14), label3=(15, 24), label12=(25, 29), label2=(30, 39))
    shifted = spine(label5=(0, 9), label14=(10, 14), label4=(15, 24), label13=(25, 29), label2=(30, 39))
    scores = score(shifted, reference, SPACING)
    assert scores["bones"] == scores["discs"] == 1
    assert scores["bones_by_name"] == pytest.approx(1 / 3)
    assert scores["discs_by_name"] == 0
    assert (scores["bones_right"], scores["bones_named"]) == (1, 3)
    assert (scores["discs_right"], scores["discs_named"]) == (0, 2)
    assert not scores["all_levels_right"]
    assert scores["names"] == {"L5": "L5", "L4": "L3", "L3": "L2", "L4/L5": "L3/L4", "L3/L4": "L2/L3"}


def test_a_level_is_that_of_most_of_the_structure_and_none_is_wrong():
    reference = spine(label3=(5, 14), label2=(20, 29))
    scores = score(spine(label3=(5, 11), label4=(12, 14)), reference, SPACING)
    assert scores["names"] == {"L5": "none", "L4": "L4"}
    assert (scores["bones_right"], scores["bones_named"]) == (1, 2)
    assert scores["bones_by_name"] == pytest.approx((2 * 70 / (100 + 70)) / 2)


def test_the_distance_is_that_of_outlines_in_mm():
    reference, longer = spine(label3=(10, 29)), spine(label3=(10, 39))
    assert score(longer, reference, (4.0, 1.0, 0.5))["bones_hd95_mm"] == 5
    assert score(np.zeros_like(reference), reference, SPACING)["bones_hd95_mm"] is None


def test_instances_of_unknown_level_take_consecutive_names():
    instances = np.zeros((1, 20, 60), np.uint16)
    for value, (first, last) in {5: (0, 9), 105: (10, 14), 205: (15, 16), 6: (17, 26)}.items():
        instances[0, 5:15, first : last + 1] = value
    named = named_from(instances, highest=5)
    assert [named[0, 10, column] for column in (0, 12, 15, 20, 40)] == [5, 14, IGNORE, 4, 0]


def test_every_patient_is_held_out_once(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    for number in range(7):
        (tmp_path / f"imagesTr/spider_{number:03d}_0000.nii.gz").touch()
    folds = [held_out(tmp_path, f"{number}/3") for number in range(3)]
    assert folds[1] == {"spider_001", "spider_004"}
    assert sorted(name for fold in folds for name in fold) == [f"spider_{number:03d}" for number in range(7)]
