"""Segmenting with counted levels: kinds before names, on the volume's own grid, with the doubts told."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from made_up_spines import SPACING, draw, image_of, spine, wrong_by_one

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import find_label
from CPS4Core.config import InputSettings
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.events import Artifact, Warned
from CPS4Core.inference.batch import Task, segment_one
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.segmentation.kinds import (
    BACKGROUND,
    VERTEBRA,
    KindMap,
    certainty_of,
    kinds_of,
    names_of,
    near_structures,
    scores_of,
)

SHARPNESS = 6.0


@pytest.fixture
def segmenter(trained_model, monkeypatch):
    """A segmenter whose network sees what ``see`` was given, on a volume of the same shape."""
    found = Segmenter(ModelFolder.open(trained_model), torch.device("cpu"))
    found.input = InputSettings(size=(128, 256), spacing_mm=SPACING[1])
    seen = []

    def see(volume: sitk.Image) -> None:
        slices = SliceGrid.of(volume, found.input, whole=True).labels_to_slices(volume)
        seen.extend(SHARPNESS * np.moveaxis(np.eye(20, dtype=np.float32)[slices], -1, 1))

    def logits(slices: torch.Tensor) -> torch.Tensor:
        made = torch.from_numpy(np.stack(seen[: len(slices)]))
        del seen[: len(slices)]
        return made

    monkeypatch.setattr(found, "_logits", logits)
    found.see = see
    return found


def test_the_volume_gets_the_counted_names(segmenter):
    truth = image_of(draw(spine()))
    seen = image_of(draw(wrong_by_one(spine())))
    segmenter.see(seen)
    found = segmenter.segment(truth)
    labels, expected = sitk.GetArrayFromImage(found.labels), sitk.GetArrayFromImage(truth)
    assert (labels == expected)[expected > 0].mean() > 0.98
    for label in np.unique(expected[expected > 0]):
        inside = labels[(expected == label) & (labels > 0)]
        assert (inside == label).mean() > 0.9
    assert found.labels.GetSpacing() == truth.GetSpacing()
    assert set(found.confidence) == set(np.unique(expected[expected > 0]).tolist())
    assert all(0.5 < value <= 1 for value in found.confidence.values())


def test_as_seen_leaves_the_names(segmenter):
    seen = image_of(draw(wrong_by_one(spine())))
    segmenter.see(seen)
    found = segmenter.segment(seen, levels="as-seen")
    labels, expected = sitk.GetArrayFromImage(found.labels), sitk.GetArrayFromImage(seen)
    for label in np.unique(expected[expected > 0]):
        assert (labels[(expected == label) & (labels > 0)] == label).mean() > 0.9
    assert found.doubts == ()


def test_doubts_are_told_with_the_result(segmenter, tmp_path):
    scan = image_of(draw(spine("T11", "L5")))
    sitk.WriteImage(scan, str(tmp_path / "scan.nii.gz"))
    segmenter.see(scan)
    events = []
    task = Task(tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz")
    segment_one(segmenter, task, "counted", events.append, Cancellation())
    words = "Levels are uncertain: the sacrum is not in view. Count them."
    assert f"scan.nii.gz: {words}" in [event.message for event in events if isinstance(event, Warned)]
    (result,) = [event for event in events if isinstance(event, Artifact)]
    assert result.details["doubts"] == [words]
    assert all(value <= 0.5 for value in result.details["confidence"].values())


def test_a_pixel_is_bone_by_the_sum_of_its_vertebrae():
    """Background 0.4, L3 and L4 0.3 each: not background."""
    logits = torch.full((1, 20), -20.0)
    logits[0, [0, find_label("L3"), find_label("L4")]] = torch.tensor([0.4, 0.31, 0.29]).log()
    kinds = kinds_of(logits)
    assert kinds[0, VERTEBRA].exp().item() == pytest.approx(0.6, abs=1e-4)
    assert kinds[0, BACKGROUND].exp().item() == pytest.approx(0.4, abs=1e-4)
    names = names_of(logits, kinds)
    assert names.item() == find_label("L3")
    assert certainty_of(kinds, names).item() == pytest.approx(0.6, abs=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_what_nobody_looks_at_is_background_and_so_is_what_lies_beside_it(precision):
    torch.manual_seed(0)
    logits = torch.randn(3, 20, 24, 40) * 3
    logits[:, 0] += 12
    logits = logits.to(precision)
    near = near_structures(logits)
    everywhere = logits.movedim(1, -1).reshape(-1, 20).float()
    background = (names_of(everywhere, kinds_of(everywhere)) == 0).view(3, 24, 40)
    assert 0.1 < near.float().mean() < 0.9
    for k, i, j in (~background).nonzero().tolist():
        assert near[k, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].all()


def test_a_map_of_kinds_answers_for_every_pixel():
    near = torch.tensor([[[True, False], [False, True]]])
    kinds = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    where = tuple(torch.tensor(axis) for axis in ([0, 0, 0], [0, 0, 1], [0, 1, 1]))
    found = KindMap(near, kinds).at(where)
    assert found[[0, 2]].equal(kinds)
    assert found[1].argmax() == BACKGROUND


def test_scores_are_highest_where_named_and_their_borders_halfway():
    torch.manual_seed(0)
    kinds = torch.randn(60, 4)
    named = torch.randint(0, 20, (60,), dtype=torch.uint8)
    everything = torch.ones(20, dtype=torch.bool)
    assert (scores_of(kinds, named, everything).argmax(1) == named).all()
    # Between a pixel of L3 and one of L4, both surely bone, the border is in the middle.
    sure = torch.tensor([0.0, -9.0, 5.0, -9.0]).expand(2, 4)
    left, right = scores_of(sure, torch.tensor([4, 3], dtype=torch.uint8), everything)
    assert torch.lerp(left, right, 0.49).argmax() == 4
    assert torch.lerp(left, right, 0.51).argmax() == 3


def test_between_two_pixels_no_name_arises_that_the_volume_has_not():
    """Halfway between a disc and the background, the kind vertebra is likeliest, and there is no vertebra."""
    kinds = torch.tensor([[-9.0, -9.0, 4.0, 5.0], [5.0, -9.0, 4.0, -9.0]])
    named = torch.tensor([find_label("L3/L4"), 0], dtype=torch.uint8)
    present = torch.zeros(20, dtype=torch.bool).index_fill(0, named.long(), True)
    left, right = scores_of(kinds, named, present)
    assert torch.lerp(left, right, 0.5).argmax() in named
