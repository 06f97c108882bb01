"""What is doubtful is faded in the slice views until somebody looked at it; what the user chose stays."""

import numpy as np
import pytest
from made_segmentations import LEVELS, columns, pick, rows, segmentation_of
from module_under_test import Module


@pytest.fixture
def module(slicer_harness, tmp_path):
    """The opened module; nothing here needs a model."""
    return Module(slicer_harness, tmp_path)


@pytest.fixture
def doubtful(module):
    """A panel whose disc T12/L1 lies on one side alone and whose L1/L2 is too small, and the segmentation."""
    masks = columns((80, 30, 12), LEVELS)
    masks["T12/L1"] = masks["T12/L1"] * (np.arange(12) < 7)
    masks["L1/L2"] = masks["L1/L2"] * (np.arange(30)[:, None] < 11)
    return segmentation_of(module, masks=masks)


def filling(node):
    """How opaque each structure is filled in slice views, by its name."""
    segmentation, display = node.GetSegmentation(), node.GetDisplayNode()
    ids = [segmentation.GetNthSegmentID(k) for k in range(segmentation.GetNumberOfSegments())]
    return {segmentation.GetSegment(id).GetName(): display.GetSegmentOpacity2DFill(id) for id in ids}


def faded(node):
    return {name for name, opacity in filling(node).items() if opacity < 0.5}


def id_of(node, name):
    return node.GetSegmentation().GetSegmentIdBySegmentName(name)


def look_at(panel, name):
    pick(panel, name)
    panel.ui.lookedAtButton.click()


def flags(panel):
    return {row[0]: row[3] for row in rows(panel)}


def test_the_doubtful_are_faded_until_they_were_looked_at(doubtful):
    panel, node = doubtful
    assert faded(node) == {"T12/L1", "L1/L2"}
    assert "2 to look at" in panel.ui.summaryLabel.text
    look_at(panel, "L1/L2")
    assert faded(node) == {"T12/L1"}
    assert flags(panel)["L1/L2"] == "looked at"
    assert "1 to look at" in panel.ui.summaryLabel.text
    assert "L1/L2 was looked at" in panel.ui.statusLabel.text
    panel.ui.undoButton.click()
    assert faded(node) == {"T12/L1", "L1/L2"}
    assert flags(panel)["L1/L2"] == "too small"


def test_the_next_one_is_shown_at_once(module, doubtful):
    panel, _ = doubtful
    slice_node = module.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    first, second = [row[0] for row in rows(panel) if row[3]]
    look_at(panel, first)
    chosen = panel.ui.structureTable.item(panel.ui.structureTable.currentRow(), 0).text()
    assert chosen == second
    height = 80 - 10 * LEVELS.index(second) - 5.5
    assert slice_node.GetSliceToRAS().GetElement(2, 3) == pytest.approx(height, abs=0.6)
    panel.ui.lookedAtButton.click()
    assert not panel.ui.lookedAtButton.enabled
    assert "Nothing conspicuous" in panel.ui.summaryLabel.text


def test_what_is_missing_or_right_cannot_be_ticked_off(module):
    masks = columns((80, 30, 12), LEVELS)
    masks.pop("L1")
    panel, _ = segmentation_of(module, masks=masks)
    pick(panel, "L1")
    assert not panel.ui.lookedAtButton.enabled
    pick(panel, "L2")
    assert not panel.ui.lookedAtButton.enabled


def test_what_the_user_chose_for_the_others_stays(module, doubtful):
    panel, node = doubtful
    display = node.GetDisplayNode()
    display.SetSegmentOpacity2DFill(id_of(node, "L2"), 0.3)
    panel.ui.levelsDownButton.click()
    panel.ui.undoButton.click()
    assert filling(node)["L2"] == 0.3
    look_at(panel, "L1/L2")
    assert filling(node)["L2"] == 0.3
    assert filling(node)["L1/L2"] == 1.0


def test_a_structure_gets_back_the_filling_that_it_had(module):
    _, node = segmentation_of(module)
    node.GetDisplayNode().SetSegmentOpacity2DFill(id_of(node, "L1"), 0.7)
    volume = module.slicer.util.getNode("mr")
    whole = module.slicer.util.arrayFromSegmentBinaryLabelmap(node, id_of(node, "L1"), volume)
    cut = whole * (np.arange(12)[None, None] < 5)
    module.slicer.util.updateSegmentBinaryLabelmapFromArray(cut, node, id_of(node, "L1"), volume)
    module.panel("segment")
    module.panel("review")
    assert faded(node) == {"L1"}
    module.slicer.util.updateSegmentBinaryLabelmapFromArray(whole, node, id_of(node, "L1"), volume)
    module.panel("segment")
    module.panel("review")
    assert not faded(node)
    assert filling(node)["L1"] == 0.7


def test_a_new_doubt_is_shown_again(module, doubtful):
    panel, node = doubtful
    look_at(panel, "L1/L2")
    pick(panel, "L1/L2")
    panel.ui.nameBox.currentText = "S"
    panel.ui.renameButton.click()
    assert "out of order" in flags(panel)["S"]
    assert "S" in faded(node)


def test_a_deleted_structure_comes_back_as_doubtful_as_it_was(doubtful):
    panel, node = doubtful
    look_at(panel, "T12/L1")
    for name in ("L1/L2", "T12/L1"):
        pick(panel, name)
        panel.ui.deleteButton.click()
        panel.ui.undoButton.click()
    assert faded(node) == {"L1/L2"}
    look_at(panel, "L1/L2")
    assert set(filling(node).values()) == {1.0}


def test_a_saved_scene_knows_what_was_looked_at(module, doubtful, tmp_path):
    panel, _ = doubtful
    look_at(panel, "T12/L1")
    module.harness.reopen_scene(tmp_path / "scene.mrb")
    panel = module.panel("review")
    node = panel.segmentation
    assert flags(panel)["T12/L1"] == "looked at"
    assert flags(panel)["L1/L2"] == "too small"
    assert faded(node) == {"L1/L2"}
    look_at(panel, "L1/L2")
    assert set(filling(node).values()) == {1.0}


def test_a_new_result_in_the_same_node_starts_in_full(module, doubtful):
    from CPS4SegmentationLib.segmentations import replace_content

    _, node = doubtful
    _, other = segmentation_of(module)
    other.GetSegmentation().DeepCopy(node.GetSegmentation())
    replace_content(node, other)
    assert not faded(node)


def test_what_no_display_node_shows_can_be_looked_at(module, doubtful):
    panel, node = doubtful
    bare = module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "bare")
    bare.GetSegmentation().DeepCopy(node.GetSegmentation())
    bare.SetReferenceImageGeometryParameterFromVolumeNode(module.slicer.util.getNode("mr"))
    panel.ui.segmentationSelector.setCurrentNode(bare)
    look_at(panel, "L1/L2")
    assert bare.GetDisplayNode() is None
    assert flags(panel)["L1/L2"] == "looked at"
