"""Naming a vertebra by a click in a slice view: all others follow, and nothing of the tool stays."""

import numpy as np
import pytest
from made_segmentations import LEVELS, columns, segmentation_of
from module_under_test import Module, names_of
from PySide6 import QtWidgets
from PySide6.QtCore import Qt

BLOCK = (slice(50, 60), slice(10, 20), slice(2, 10))
"""The voxels of L1, axes k, j, i."""
L1 = (22.0, 14.5, 54.5)
"""Its middle, RAS, mm."""
L1_L2 = (22.0, 14.5, 44.5)
NOWHERE = (22.0, 28.0, 54.5)


@pytest.fixture
def module(slicer_harness, tmp_path):
    """The opened module; nothing here needs a model."""
    return Module(slicer_harness, tmp_path)


def show(module, place):
    """Turn the red view to the sagittal slice through ``place``."""
    widget = module.slicer.app.layoutManager().sliceWidget("Red")
    volume = module.slicer.util.getNode("mr")
    widget.mrmlSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    widget.mrmlSliceNode().SetOrientationToSagittal()
    widget.sliceView().forceRender()
    widget.fitSliceToBackground()
    widget.mrmlSliceNode().JumpSlice(*place)


def click(module, place, button=Qt.LeftButton):
    show(module, place)
    module.harness.click_in_slice_view("Red", place, button)


def start(module, panel):
    panel.ui.nameClickButton.click()
    assert panel.ui.nameClickButton.checked
    module.harness.process_events()


def menu():
    """The choices of the open menu, by their text; the first says what the structure is called."""
    shown = QtWidgets.QApplication.activePopupWidget()
    return {} if shown is None else {action.text: action for action in shown.actions() if action.text}


def ticked():
    return [text for text, action in menu().items() if action.checked]


def choose(module, name):
    action = menu()[name]
    QtWidgets.QApplication.activePopupWidget().close()
    action.trigger()
    module.harness.process_events()


def left_over(module):
    """Points in the scene, and a tool in the mouse's hand."""
    interaction = module.slicer.app.applicationLogic().GetInteractionNode()
    points = [node.GetName() for node in module.slicer.util.getNodesByClass("vtkMRMLMarkupsNode")]
    return points + ["place"] * (interaction.GetCurrentInteractionMode() == interaction.Place)


def test_all_levels_follow_the_vertebra_that_was_named(module):
    panel, node = segmentation_of(module)
    start(module, panel)
    click(module, L1)
    assert not left_over(module)
    assert not panel.ui.nameClickButton.checked
    assert ticked() == ["L1"]
    assert not menu()["Called L1. It is:"].enabled
    choose(module, "L3")
    assert names_of(node) == ["L2", "L2/L3", "L3", "L3/L4", "L4", "L4/L5", "L5"]
    assert "L1 is now L3" in panel.ui.statusLabel.text
    panel.ui.undoButton.click()
    assert names_of(node) == LEVELS
    assert not panel.ui.undoButton.enabled


def test_a_disc_is_named_as_a_disc_and_the_sacrum_follows(module):
    panel, node = segmentation_of(module, ["L3", "L3/L4", "L4", "L4/L5", "L5", "L5/S", "S"])
    start(module, panel)
    click(module, L1)
    assert ticked() == ["L4"]
    assert all("/" not in name for name in list(menu())[1:])
    choose(module, "L3")
    assert names_of(node) == ["L2", "L2/L3", "L3", "L3/L4", "L4", "L4/L5", "L5"]
    start(module, panel)
    click(module, L1_L2)
    assert ticked() == ["L3/L4"]
    assert all("/" in name for name in list(menu())[1:])
    choose(module, "L4/L5")
    assert names_of(node) == ["L3", "L3/L4", "L4", "L4/L5", "L5", "L5/S", "S"]


def test_the_present_name_changes_nothing(module):
    panel, node = segmentation_of(module)
    start(module, panel)
    click(module, L1)
    choose(module, "L1")
    assert names_of(node) == LEVELS
    assert not panel.ui.undoButton.enabled


def test_a_shift_out_of_the_levels_is_refused_in_words(module):
    panel, node = segmentation_of(module, ["L3", "L3/L4", "L4", "L4/L5", "L5", "L5/S", "S"])
    start(module, panel)
    click(module, (22.0, 14.5, 74.5))
    assert ticked() == ["L3"]
    choose(module, "S")  # the sacrum would be three below S3
    assert names_of(node) == ["S", "S1/S2", "S2", "S2/S3", "S3", "S3/S4", "S4"]
    start(module, panel)
    click(module, (22.0, 14.5, 74.5))
    choose(module, "T9")
    assert names_of(node)[0] == "T9"
    panel.ui.undoButton.click()
    for _ in range(2):
        panel.ui.levelsDownButton.click()
    (message,) = module.harness.dialogs.errors
    assert "cannot move further" in message.text
    assert names_of(node)[0] == "S2"


def test_a_click_on_nothing_says_so_and_the_next_one_counts(module):
    panel, node = segmentation_of(module)
    start(module, panel)
    click(module, NOWHERE)
    assert not menu()
    assert "no vertebra or disc there" in panel.ui.statusLabel.text
    assert panel.ui.nameClickButton.checked
    click(module, L1)
    choose(module, "L2")
    assert names_of(node)[2] == "L2"
    assert not left_over(module)


def test_a_near_miss_means_the_nearest_structure(module):
    panel, _ = segmentation_of(module)
    start(module, panel)
    click(module, (22.0, 19.5 + 3.5, 52.5))  # 3.5 mm behind L1, and 3 mm above L1/L2
    assert ticked() == ["L1"]


def test_what_has_no_level_is_not_meant(module):
    masks = columns((80, 30, 12), LEVELS)
    panel, node = segmentation_of(module, masks={**masks, "herniation": masks["L1"]})
    start(module, panel)
    click(module, L1)
    assert ticked() == ["L1"]
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetNthSegmentID(2))


def test_oblique_slices_and_transforms_are_honoured(module):
    import vtk

    panel, node = segmentation_of(module)
    volume = module.slicer.util.getNode("mr")
    turn = vtk.vtkTransform()
    turn.Translate(12, -30, 7)
    turn.RotateWXYZ(25, 0.3, 1.0, -0.2)
    to_ras = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(to_ras)
    turn.Concatenate(to_ras)
    volume.SetIJKToRASMatrix(turn.GetMatrix())
    for name, mask in columns((80, 30, 12), LEVELS).items():
        segment = node.GetSegmentation().GetSegmentIdBySegmentName(name)
        module.slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
    transform = module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = vtk.vtkTransform()
    shift.Translate(40, 5, -60)
    shift.RotateX(-15)
    transform.SetMatrixTransformToParent(shift.GetMatrix())
    for moved in (volume, node):
        moved.SetAndObserveTransformNodeID(transform.GetID())
    place = shift.TransformPoint(turn.TransformPoint(5.5, 14.5, 54.5))
    start(module, panel)
    click(module, place)
    assert ticked() == ["L1"]


def test_the_tool_is_put_away_without_a_click(module):
    panel, node = segmentation_of(module)

    def press_again():
        panel.ui.nameClickButton.click()

    def escape():
        module.harness.press_key(Qt.Key_Escape)

    def right_button():
        click(module, L1, Qt.RightButton)

    def another_tab():
        module.panel("segment")
        module.panel("review")

    def another_module():
        module.slicer.util.selectModule("Volumes")
        module.slicer.util.selectModule("CPS4Segmentation")

    def another_tool():
        module.slicer.app.applicationLogic().GetInteractionNode().SwitchToViewTransformMode()

    def nothing_to_click_on():
        panel.ui.segmentationSelector.setCurrentNode(None)
        panel.ui.segmentationSelector.setCurrentNode(node)

    for way in (
        press_again, escape, right_button, another_tab, another_module, another_tool, nothing_to_click_on,
    ):  # fmt: skip
        start(module, panel)
        assert left_over(module)
        way()
        module.harness.process_events()
        assert not left_over(module), way.__name__
        assert not panel.ui.nameClickButton.checked, way.__name__
    click(module, L1)
    assert not menu()
    assert names_of(node) == LEVELS


def test_what_markups_placed_before_is_its_tool_again(module):
    panel, _ = segmentation_of(module)
    slicer = module.slicer
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "mine")
    slicer.modules.markups.logic().SetActiveList(mine)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    start(module, panel)
    click(module, L1)
    assert selection.GetActivePlaceNodeID() == mine.GetID()
    assert selection.GetActivePlaceNodeClassName() == "vtkMRMLMarkupsLineNode"
    assert left_over(module) == ["mine"]


def test_a_tool_taken_meanwhile_stays_in_hand(module):
    panel, _ = segmentation_of(module)
    slicer = module.slicer
    start(module, panel)
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "other")
    slicer.modules.markups.logic().SetActiveList(other)
    module.harness.process_events()
    assert not panel.ui.nameClickButton.checked
    assert left_over(module) == ["other", "place"]
    slicer.app.applicationLogic().GetInteractionNode().SwitchToViewTransformMode()


def test_nothing_of_the_tool_is_saved_or_survives_the_scene(module, tmp_path):
    panel, _ = segmentation_of(module)
    module.slicer.util.saveScene(str(tmp_path / "before.mrml"))
    start(module, panel)
    module.slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    assert "<MarkupsFiducial" not in (tmp_path / "scene.mrml").read_text(encoding="utf-8")
    module.harness.close_scene()
    assert not left_over(module)
    assert not panel.ui.nameClickButton.checked
    panel, _ = segmentation_of(module)
    start(module, panel)
    module.slicer.util.loadScene(str(tmp_path / "before.mrml"))
    assert not left_over(module)


def test_a_click_while_the_scene_closes_is_no_click(module):
    panel, _ = segmentation_of(module)
    start(module, panel)
    show(module, L1)
    points = module.slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")[0]
    points.AddControlPoint(np.array(L1))  # told of, and not yet heard
    module.harness.close_scene()
    assert not menu()
    assert not left_over(module)


def test_a_reload_puts_the_tool_away(module):
    panel, _ = segmentation_of(module)
    start(module, panel)
    module.widget.onReload()
    module.harness.process_events()
    assert not left_over(module)
