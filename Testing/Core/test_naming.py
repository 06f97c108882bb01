"""Levels by counting along the spine: whatever the network called the structures, the right names come back."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from made_up_spines import SHAPE, SPACING, STEP_MM, Drawn, draw, spine

from CPS4Core.class_table import BY_LABEL, HEAD_TO_TAIL, find_label
from CPS4Core.config import InputSettings
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.naming.name import Naming, name_levels
from CPS4Core.naming.path import ABOVE, RUNGS, best_path, label_of
from CPS4Core.naming.pieces import find_pieces

NOT_IN_VIEW = "Levels are uncertain: the sacrum is not in view. Count them."


def named_as(structures, **names) -> list[Drawn]:
    """Return the structures, some under another label: ``L3="L4"``; discs are written ``L3_L4``."""
    wrong = {true.replace("_", "/"): find_label(name) for true, name in names.items()}
    return [replace(drawn, label=wrong.get(drawn.name, drawn.label)) for drawn in structures]


def off_by(structures, levels: int) -> list[Drawn]:
    """Return the structures above the sacrum under the names of others, ``levels`` further up."""
    moved = []
    for drawn in structures:
        place = HEAD_TO_TAIL.index(drawn.label) - 2 * levels
        if drawn.name != "S" and 0 <= place < len(HEAD_TO_TAIL) - 1:
            drawn = replace(drawn, label=HEAD_TO_TAIL[place])
        moved.append(drawn)
    return moved


def assert_named(naming: Naming, truth: np.ndarray, share: float = 0.98) -> None:
    """Each structure of the truth carries its name, on almost all of its voxels."""
    for label in np.unique(truth[truth > 0]):
        right = (naming.labels[truth == label] == label).mean()
        assert right >= share, f"{BY_LABEL[label].short}: {right:.2f}"


def test_right_names_stay_and_are_sure():
    truth = draw(spine())
    naming = name_levels(truth, SPACING)
    np.testing.assert_array_equal(naming.labels, truth)
    assert naming.doubts == ()
    assert naming.margin > 0.95
    assert [piece.label for piece in naming.pieces] == [drawn.label for drawn in spine()]
    assert all(
        below.height > above.height for above, below in zip(naming.pieces, naming.pieces[1:], strict=False)
    )


@pytest.mark.parametrize("levels", [-1, 1])
def test_a_whole_spine_off_by_one_follows_its_sacrum(levels):
    truth, seen = draw(spine()), draw(off_by(spine(), levels))
    naming = name_levels(seen, SPACING)
    assert_named(naming, truth)


def test_one_bone_with_two_names_is_one_vertebra():
    truth = draw(spine())
    seen = truth.copy()
    lower = (np.arange(truth.shape[2]) > np.nonzero(truth == 4)[2].mean()) & (truth == 4)
    seen[lower] = 3
    naming = name_levels(seen, SPACING)
    assert_named(naming, truth, share=0.9)  # a joint process may stay with the vertebra that it touches
    assert len(naming.pieces) == len(spine())


@pytest.mark.parametrize("name", ["L3", "L4/L5", "T12/L1"])
def test_a_missing_structure_leaves_its_name_out(name):
    truth = draw(spine(), missing=[name])
    naming = name_levels(draw(off_by(spine(), 1), missing=[name]), SPACING)
    assert_named(naming, truth)
    assert f"Not found between its neighbours: {name}." in naming.doubts


def test_a_missing_vertebra_with_its_discs_is_seen_by_the_gap():
    missing = ["L2/L3", "L3", "L3/L4"]
    truth = draw(spine(), missing=missing)
    # A network that counts what it finds: above the gap its names are one too low.
    wrong = {"L2": "L3", "L1": "L2", "T12": "L1", "T11": "T12", "L1_L2": "L2/L3", "T12_L1": "L1/L2"}
    seen = draw(named_as(spine(), **wrong), missing=missing)
    naming = name_levels(seen, SPACING)
    assert_named(naming, truth)


def test_two_vertebrae_that_ran_together_are_parted_at_the_waist():
    truth = draw(spine(), missing=["L3/L4"])
    seen = truth.copy()
    both = np.isin(truth, (3, 4))
    seen[both] = 4
    # A bridge of bone where the disc should be, thinner than the vertebrae.
    gap = draw(spine()) == find_label("L3/L4")
    bridge = gap & (np.arange(SHAPE[0]) % 4 == 1)[:, None, None]
    seen[bridge] = 4
    naming = name_levels(seen, SPACING)
    assert_named(naming, truth, share=0.97)


def test_a_block_of_two_vertebrae_does_not_shift_the_others():
    truth = draw(spine())
    seen = truth.copy()
    seen[np.isin(truth, (find_label("L3"), find_label("L2/L3"), find_label("L2")))] = find_label("L3")
    naming = name_levels(seen, SPACING)
    others = np.where(np.isin(truth, (find_label("L3"), find_label("L2/L3"), find_label("L2"))), 0, truth)
    assert_named(naming, others)


@pytest.mark.parametrize("levels", [-1, 1])
def test_a_fourth_or_sixth_lumbar_vertebra_is_counted_from_the_sacrum_and_told(levels):
    """The network knows T11 to L2 by sight; L5 and the sacrum too: one vertebra between is too many, or missing."""
    seen = draw(off_by(spine("T11", "L3/L4"), levels) + spine("L4", "S"))
    naming = name_levels(seen, SPACING)
    assert_named(naming, draw(spine()))
    assert any("four or six lumbar vertebrae" in doubt for doubt in naming.doubts)


def test_a_transitional_vertebra_is_told():
    seen = draw(spine())
    transitional = seen == find_label("L5")
    half = np.arange(SHAPE[1])[None, :, None] > np.median(np.nonzero(transitional)[1])
    seen[transitional & half] = find_label("S")
    naming = name_levels(seen, SPACING)
    assert "The lowest vertebra may be transitional, L5 or S1." in naming.doubts


def test_without_the_sacrum_the_best_guess_is_named_and_the_doubt_said():
    truth = draw(spine("T11", "L5"))
    naming = name_levels(truth, SPACING)
    assert_named(naming, truth)
    assert NOT_IN_VIEW in naming.doubts
    assert naming.margin <= 0.5


def test_without_the_sacrum_most_votes_win():
    truth = draw(spine("T11", "L5"))
    seen = draw(named_as(spine("T11", "L5"), L1="T12", T12_L1="T11/T12"))
    assert_named(name_levels(seen, SPACING), truth)


def test_vertebrae_above_t9_are_left_out_and_told():
    names = spine("T9", "S")
    above = [Drawn("T8", find_label("T9")), Drawn("T8/T9", find_label("T9/T10"))]
    truth = draw([Drawn("T8", 0), Drawn("T8/T9", 0), *names], shape=(7, 110, 310))
    naming = name_levels(draw(above + names, shape=(7, 110, 310)), SPACING)
    assert_named(naming, truth)
    assert (naming.labels[truth == 0] > 0).sum() == 0
    assert any("above T9" in doubt for doubt in naming.doubts)


def test_posterior_elements_apart_from_their_body_get_its_name():
    truth = draw(spine())
    seen = truth.copy()
    middle = slice(SHAPE[0] // 2, SHAPE[0] // 2 + 1)  # here spinous processes lie apart
    behind = seen[middle]
    behind[behind == find_label("L3")] = find_label("L3")
    spinous = (np.arange(SHAPE[1])[None, :, None] > 60) & (behind > 0)
    moved = np.where(spinous & (behind == find_label("L2")), find_label("L3"), behind)
    seen[middle] = moved
    assert_named(name_levels(seen, SPACING), truth)


def test_posterior_elements_of_a_vertebra_above_the_picture_get_its_name():
    truth = draw(spine("T12", "S"))
    highest = truth == find_label("T12")
    front = np.arange(SHAPE[1])[None, :, None] < np.median(np.nonzero(highest)[1]) + 12
    cut = np.nonzero(highest & front)[2].max() + 1
    truth = truth[:, :, cut:]
    assert (truth == find_label("T12")).sum() > 200
    assert_named(name_levels(truth, SPACING), truth)


@pytest.mark.parametrize("slices", [1, 2, 30])
def test_any_number_of_slices(slices):
    shape, spacing = (slices, *SHAPE[1:]), (44 / slices, *SPACING[1:])
    truth = draw(spine(), shape=shape, spacing=spacing)
    naming = name_levels(draw(off_by(spine(), 1), shape=shape, spacing=spacing), spacing)
    assert_named(naming, truth)


def test_a_scoliosis_moves_across_the_slices():
    shape = (18, *SHAPE[1:])
    truth = draw(spine(), shape=shape, sideways_mm=25)
    naming = name_levels(draw(off_by(spine(), 1), shape=shape, sideways_mm=25), SPACING)
    assert_named(naming, truth)


def test_a_child_is_counted_too():
    spacing = tuple(0.6 * mm for mm in SPACING)
    truth = draw(spine())
    assert_named(name_levels(draw(off_by(spine(), 1)), spacing), truth)


@pytest.mark.parametrize("orientation", ["LPI", "LAS", "SPR", "PSL"])
def test_a_scan_that_lies_otherwise_in_its_file(orientation):
    truth, seen = (sitk.GetImageFromArray(draw(structures)) for structures in (spine(), off_by(spine(), 1)))
    for image in (truth, seen):
        image.SetSpacing(SPACING[::-1])
        # Columns run down, rows back, slices to the left.
        image.SetDirection((0, 0, 1, 0, 1, 0, -1, 0, 0))
    truth, seen = (sitk.DICOMOrient(image, orientation) for image in (truth, seen))
    grid = SliceGrid.of(seen, InputSettings(size=(128, 256), spacing_mm=1.5), whole=True)
    naming = name_levels(grid.crop(grid.labels_to_slices(seen)), grid.spacing_mm)
    assert_named(naming, grid.crop(grid.labels_to_slices(truth)))


def test_specks_holes_and_what_lies_off_the_spine_go():
    truth = draw(spine())
    seen = truth.copy()
    middle = SHAPE[0] // 2
    body = np.argwhere(truth[middle] == find_label("L3"))
    row, column = body[(body[:, 0] < 45)].mean(0).astype(int)
    seen[middle, row : row + 3, column : column + 3] = 0
    seen[3, 5:12, 100:110] = find_label("L2")
    seen[middle, 44:46, 10:12] = find_label("T11")
    naming = name_levels(seen, SPACING)
    np.testing.assert_array_equal(naming.labels, truth)


def test_a_vein_called_disc_stays_part_of_its_vertebra():
    truth = draw(spine())
    seen = truth.copy()
    body = np.argwhere(truth == find_label("L3"))
    row, column = body[(body[:, 1] < 55)].mean(0).astype(int)[1:]
    seen[3:8, row : row + 8, column - 1 : column + 2] = find_label("L2/L3")
    assert_named(name_levels(seen, SPACING), truth)


def test_nothing_to_name():
    naming = name_levels(np.zeros(SHAPE, np.uint8), SPACING)
    assert not naming.labels.any()
    assert naming.pieces == ()
    assert naming.margin == 0


@pytest.mark.parametrize("highest, lowest", [("L4", "L4"), ("L4/L5", "L4/L5"), ("S", "S"), ("L4", "L5")])
def test_a_few_structures_keep_their_names(highest, lowest):
    truth = draw(spine(highest, lowest))
    assert_named(name_levels(truth, SPACING), truth)


def test_votes_overrule_the_labels():
    truth = draw(spine("T11", "L5"))
    seen = draw(off_by(spine("T11", "L5"), 1))
    votes = np.eye(20)[truth[seen > 0]][:, 1:]
    assert_named(name_levels(seen, SPACING, votes), truth)


def test_votes_of_a_piece_are_those_of_its_body():
    truth = draw(spine())
    pieces = find_pieces(truth, SPACING)
    counted = pieces.votes()
    assert counted.argmax(1).tolist() == [drawn.label - 1 for drawn in spine()]
    same = pieces.votes(np.eye(20)[truth[truth > 0]][:, 1:])
    np.testing.assert_array_equal(same, counted)
    assert (pieces.map > 0).sum() == (truth > 0).sum()


def test_the_path_by_hand():
    """Bones and discs a rung apart: one of them tells the place of all; nothing told, nothing is sure."""
    heights, is_disc = np.arange(5) * 16.0, np.array([False, True] * 2 + [False])
    scores = np.full((5, RUNGS), 0.0)
    first = HEAD_TO_TAIL.index(find_label("L3")) + ABOVE
    scores[0, first] = 8.0
    path = best_path(heights, is_disc, scores, np.ones(5), room=0.0)
    assert [BY_LABEL[label_of(rung)].short for rung in path.rungs] == ["L3", "L3/L4", "L4", "L4/L5", "L5"]
    assert path.certainty.min() > 0.9
    unsure = best_path(heights, is_disc, np.zeros((5, RUNGS)), np.ones(5), room=0.0)
    assert unsure.certainty.max() < 0.2


def test_a_distance_of_two_steps_is_a_missing_level():
    heights = np.array([0, STEP_MM, 2 * STEP_MM, 4 * STEP_MM, 5 * STEP_MM])
    scores = np.zeros((5, RUNGS))
    scores[0, ABOVE] = 5.0
    path = best_path(heights, np.zeros(5, bool), scores, np.ones(5), room=0.0)
    assert (np.diff(path.rungs) == [2, 2, 4, 2]).all()
