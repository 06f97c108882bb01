"""The scene holds everything: save and reopen, close, two scenes in a row, the self test."""

import numpy as np
import pytest
from module_under_test import in_both_versions, names_of


@pytest.fixture
def module(module):
    module.choose_model()
    return module


def masks_of(module, node, volume):
    return [
        module.slicer.util.arrayFromSegmentBinaryLabelmap(
            node, node.GetSegmentation().GetNthSegmentID(k), volume
        )
        for k in range(node.GetSegmentation().GetNumberOfSegments())
    ]


def test_a_saved_scene_comes_back_with_nodes_and_choices(module, tmp_path):
    module.load(name="another")
    volume = module.load()
    node = module.segment()
    names, masks = names_of(node), masks_of(module, node, volume)
    attention = module.panel("attention")
    attention.ui.promptEdit.text = "L4"
    attention.ui.promptButton.click()
    module.wait(lambda: attention.ui.makeSegmentButton.enabled)
    attention.ui.opacitySlider.value = 0.8
    attention.ui.thresholdSlider.value = 0.4
    shown = module.slicer.util.arrayFromVolume(module.widget.attention.parameters.attentionVolume).copy()

    module.harness.reopen_scene(tmp_path / "Sitzung 1.mrb")

    parameters = module.widget.segment.parameters
    assert parameters.inputVolume.GetName() == "mr"
    assert module.widget.segment.ui.inputSelector.currentNode() is parameters.inputVolume
    again = parameters.segmentation
    assert names_of(again) == names
    for mask, before in zip(masks_of(module, again, parameters.inputVolume), masks, strict=True):
        assert np.array_equal(mask, before)
    role = again.GetReferenceImageGeometryReferenceRole()
    assert again.GetNodeReference(role) is parameters.inputVolume
    assert parameters.opacity == pytest.approx(0.8)
    assert attention.ui.thresholdSlider.value == pytest.approx(0.4)
    assert np.allclose(module.slicer.util.arrayFromVolume(parameters.attentionVolume), shown, atol=1e-3)
    # And one works on in it.
    assert module.segment() is again
    assert len(module.slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1


def test_a_scene_is_added_to_the_one_that_the_module_works_in(module, tmp_path):
    volume = module.load()
    node = module.segment()
    assert module.slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    module.slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": False})
    panel = module.widget.segment
    # What was saved is chosen now, and what was there before is there still.
    for name, before in (("inputVolume", volume), ("segmentation", node)):
        chosen = getattr(panel.parameters, name)
        assert chosen is not None
        assert chosen is not before
        assert chosen is panel.parameters.parameterNode.GetNodeReference(name)
    assert panel.ui.inputSelector.currentNode() is panel.parameters.inputVolume
    assert panel.ui.segmentationSelector.currentNode() is panel.parameters.segmentation
    assert module.widget.review.segmentation is panel.parameters.segmentation
    assert names_of(panel.parameters.segmentation) == names_of(node)
    # A job that runs meanwhile goes on.
    panel.ui.inputSelector.setCurrentNode(volume)
    panel.ui.segmentButton.click()
    module.slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": False})
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    assert panel.parameters.segmentation is node


def test_an_edit_is_still_an_edit_after_reopening(module, tmp_path):
    module.load()
    node = module.segment()
    node.GetSegmentation().GetNthSegment(0).SetName("mine")
    module.harness.reopen_scene(tmp_path / "scene.mrb")
    module.harness.dialogs.answer("No")
    module.segment()
    nodes = module.slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert len(nodes) == 2
    assert any("mine" in names_of(node) for node in nodes)


def test_scenes_in_a_row_leave_nothing_behind(module):
    counts = []
    for _ in range(3):
        module.load()
        module.segment()
        attention = module.panel("attention")
        attention.ui.promptEdit.text = "L4"
        attention.ui.promptButton.click()
        module.wait(lambda ui=attention.ui: ui.makeSegmentButton.enabled)
        module.panel("review")
        counts.append(module.slicer.mrmlScene.GetNumberOfNodes())
        module.harness.close_scene()
    assert len(set(counts)) == 1
    assert module.slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode") == 1


@in_both_versions
def test_the_parameters_of_scenes_that_are_gone_are_let_go(module, tmp_path):
    from slicer.parameterNodeWrapper import left_behind

    module.load()
    assert module.slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    module.harness.close_scene()
    module.slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert module.widget.segment.ui.inputSelector.currentNode().GetName() == "mr"
    assert not left_behind


def test_the_self_test_passes(module):
    from CPS4Segmentation import CPS4SegmentationTest

    CPS4SegmentationTest().runTest()
    assert not module.harness.dialogs.errors
