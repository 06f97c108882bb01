"""The panel Attention: maps of class prompts and of others, from the warm worker."""

import time

import numpy as np
import pytest
import SimpleITK as sitk

from CPS4Core.class_table import HEAD_TO_TAIL, short_name

CLASSES = [*(short_name(label) for label in HEAD_TO_TAIL), short_name(0)]
"""The rows of the table."""


@pytest.fixture
def module(module):
    module.choose_model()
    return module


def cell(panel, row, column):
    return panel.ui.classTable.item(row, column).text()


def pick(panel, name):
    panel.ui.classTable.setCurrentCell(CLASSES.index(name), 0)


def wait_for(module, panel, title):
    module.wait(lambda: shown(module) is not None and shown(module).GetName() == f"Attention {title}")


def shown(module):
    """The map that lies over the image in the red view."""
    layers = module.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    return module.slicer.mrmlScene.GetNodeByID(layers.GetForegroundVolumeID() or "")


def matrix_of(module, node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return module.slicer.util.arrayFromVTKMatrix(matrix)


def size_of(module, node):
    return module.slicer.util.arrayFromVolume(node).shape


def compute_all(module):
    panel = module.panel("attention")
    panel.ui.computeButton.click()
    module.wait(lambda: all(cell(panel, row, 1) for row in range(len(CLASSES))))
    return panel


def test_every_class_has_a_map_and_a_row(module):
    volume = module.load()
    panel = compute_all(module)
    assert len(CLASSES) == 20
    seen = set()
    for row, name in enumerate(CLASSES):
        peak = float(cell(panel, row, 1))
        assert 0 < peak <= 1
        assert cell(panel, row, 2) == ("yes" if peak >= 0.5 else "no") or peak == 0.5
        pick(panel, name)
        wait_for(module, panel, name)
        array = module.slicer.util.arrayFromVolume(shown(module))
        assert array.shape == module.slicer.util.arrayFromVolume(volume).shape
        assert array.max() == pytest.approx(peak, abs=0.006)
        assert np.allclose(matrix_of(module, shown(module)), matrix_of(module, volume), atol=1e-4)
        seen.add(array.tobytes())
    assert len(seen) == 20  # every prompt has its own map


def test_a_computed_map_shows_in_under_a_fifth_of_a_second(module):
    module.load()
    panel = compute_all(module)
    times = []
    for name in CLASSES[:10]:
        start = time.perf_counter()
        pick(panel, name)
        module.harness.process_events()
        times.append(time.perf_counter() - start)
        assert shown(module).GetName() == f"Attention {name}"
    assert np.median(times) < 0.2


def test_the_map_lies_on_its_volume_when_that_is_stored_otherwise(module, tmp_path):
    """Two ways to store the same scan give the same attention at the same points of the patient."""
    image = sitk.ReadImage(str(module.scan))
    module.load()
    panel = module.panel("attention")
    pick(panel, "L3")
    wait_for(module, panel, "L3")
    plain, plain_to_ras = (
        module.slicer.util.arrayFromVolume(shown(module)).copy(),
        matrix_of(module, shown(module)),
    )
    sitk.WriteImage(
        sitk.Flip(sitk.PermuteAxes(image, (2, 0, 1)), (True, False, True)), str(tmp_path / "o.nrrd")
    )
    other = module.load(tmp_path / "o.nrrd", "other")
    panel.ui.promptEdit.text = "L3"
    panel.ui.promptButton.click()
    module.wait(
        lambda: shown(module) is not None and size_of(module, shown(module)) == size_of(module, other)
    )
    turned, turned_to_ras = module.slicer.util.arrayFromVolume(shown(module)), matrix_of(module, other)
    assert turned.shape != plain.shape
    points = np.indices(plain.shape).reshape(3, -1)[::-1]  # i, j, k
    points = np.vstack([points, np.ones_like(points[:1])])
    i, j, k, _ = np.rint(np.linalg.inv(turned_to_ras) @ plain_to_ras @ points).astype(int)
    assert np.allclose(turned[k, j, i], plain.ravel(), atol=0.02)
    assert np.ptp(plain) > 0.2  # a map, not a constant


def test_any_prompt_can_be_typed(module):
    module.load()
    panel = module.panel("attention")
    panel.ui.promptEdit.text = "a bright disc"
    panel.ui.promptButton.click()
    wait_for(module, panel, "a bright disc")
    assert "a bright disc" in panel.ui.promptLabel.text
    panel.ui.promptEdit.text = "lumbar vertebra 4"  # a class by another name is that class
    panel.ui.promptButton.click()
    wait_for(module, panel, "L4")
    panel.ui.promptEdit.text = "   "
    panel.ui.promptButton.click()
    assert module.widget.attention.parameters.prompt == "L4"


def test_the_keyboard_steps_through_the_classes(module):
    import qt

    module.load()
    panel = compute_all(module)
    pick(panel, CLASSES[3])
    key = qt.QKeyEvent(qt.QEvent.KeyPress, qt.Qt.Key_Down, qt.Qt.NoModifier)
    qt.QApplication.sendEvent(panel.ui.classTable, key)
    wait_for(module, panel, CLASSES[4])


def test_dice_against_a_reference(module):
    volume = module.load()
    panel = compute_all(module)
    assert not cell(panel, CLASSES.index("L4"), 3)
    pick(panel, "L4")
    wait_for(module, panel, "L4")
    binary = module.slicer.util.arrayFromVolume(module.widget.attention.parameters.binaryVolume).copy()
    truth = np.zeros_like(binary)
    truth[:, : truth.shape[1] // 2] = 1
    reference = module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "reference")
    reference.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = reference.GetSegmentation().AddEmptySegment("", "L4 vertebra")
    reference.GetSegmentation().GetSegment(segment).SetName("L4")
    module.slicer.util.updateSegmentBinaryLabelmapFromArray(truth, reference, segment, volume)
    panel.ui.referenceSelector.setCurrentNode(reference)
    expected = 2 * (binary & truth).sum() / (binary.sum() + truth.sum())
    assert float(cell(panel, CLASSES.index("L4"), 3)) == pytest.approx(expected, abs=0.006)
    assert not cell(panel, CLASSES.index("L3"), 3)


def test_opacity_and_threshold(module):
    module.load()
    panel = module.panel("attention")
    pick(panel, "L4")
    wait_for(module, panel, "L4")
    layers = module.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    panel.ui.opacitySlider.value = 0.3
    panel.ui.thresholdSlider.value = 0.2
    assert layers.GetForegroundOpacity() == pytest.approx(0.3)
    assert shown(module).GetDisplayNode().GetLowerThreshold() == pytest.approx(0.2)
    panel.ui.hideButton.click()
    assert shown(module) is None
    assert panel.ui.classTable.currentRow() == -1


def test_the_binary_map_stands_beside_the_attention_map(module):
    module.load()
    panel = module.panel("attention")
    pick(panel, "L4")
    wait_for(module, panel, "L4")
    panel.ui.sideBySideButton.click()
    manager = module.slicer.app.layoutManager()
    left, right = (manager.sliceWidget(name).mrmlSliceCompositeNode() for name in ("Red", "Yellow"))
    parameters = module.widget.attention.parameters
    assert left.GetForegroundVolumeID() == parameters.attentionVolume.GetID()
    assert not left.GetLabelVolumeID()
    assert right.GetLabelVolumeID() == parameters.binaryVolume.GetID()
    assert not right.GetForegroundVolumeID()


def test_a_map_becomes_a_segment(module):
    volume = module.load()
    panel = module.panel("attention")
    assert not panel.ui.makeSegmentButton.enabled
    pick(panel, "L4")
    wait_for(module, panel, "L4")
    panel.ui.makeSegmentButton.click()
    node = module.widget.attention.parameters.segmentation
    segment = node.GetSegmentation().GetNthSegmentID(0)
    assert node.GetSegmentation().GetSegment(segment).GetName() == "L4 (prompt)"
    binary = module.slicer.util.arrayFromVolume(module.widget.attention.parameters.binaryVolume)
    assert np.array_equal(module.slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume), binary)


def test_a_figure_is_saved(module, tmp_path):
    module.load()
    panel = module.panel("attention")
    pick(panel, "L4")
    wait_for(module, panel, "L4")
    target = tmp_path / "фигура 1.png"
    module.harness.dialogs.answer(str(target))
    panel.ui.saveFigureButton.click()
    module.wait(lambda: "Saved" in panel.ui.statusLabel.text)
    assert target.read_bytes().startswith(b"\x89PNG")


def test_another_volume_or_scene_has_maps_of_its_own(module):
    module.load()
    panel = compute_all(module)
    pick(panel, "L4")
    wait_for(module, panel, "L4")
    module.harness.close_scene()
    assert not cell(panel, 0, 1)
    module.load(name="next")
    panel.ui.promptEdit.text = "L4"
    panel.ui.promptButton.click()
    wait_for(module, panel, "L4")


def test_a_model_without_prompts_says_so(module, tmp_path):
    import json
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(module.model, bare)
    card = json.loads((bare / "card.json").read_text(encoding="utf-8"))
    del card["weights"]["encoders"]
    (bare / "card.json").write_text(json.dumps(card))
    module.load()
    module.choose_model(bare)
    panel = module.panel("attention")
    panel.ui.promptEdit.text = "L4"
    panel.ui.promptButton.click()
    (message,) = module.harness.dialogs.errors
    assert "without prompts" in message.text
