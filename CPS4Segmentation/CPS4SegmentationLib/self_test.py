"""The self test: the main workflow in a running Slicer, on a volume made here.

Reviewing, shifting levels, exporting and showing attention need no model. Where the engine's packages are installed,
the volume is segmented too.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from CPS4Core.class_table import BONES, DISCS, STRUCTURES, find_label
from CPS4SegmentationLib import exports
from CPS4SegmentationLib.attention_display import AttentionDisplay
from CPS4SegmentationLib.level_changes import LevelChanges, name_segment
from CPS4SegmentationLib.segmentations import examine, segments, set_mask

SPACING_MM = (4.4, 1.0, 1.0)
SPINE = (BONES[4], DISCS[3], BONES[3], DISCS[2], BONES[2])
"""L2 to L4."""
NAMES = tuple(structure.short for structure in SPINE)
SECONDS = 300


def run_self_test(test: Any) -> None:
    """Run the main workflow; ``test`` is the module's ``ScriptedLoadableModuleTest``."""
    test.delayDisplay(_("Making a spine"), 100)
    volume, labels = make_spine()
    node = make_segmentation(volume, labels)

    test.delayDisplay(_("Reviewing it"), 100)
    findings, spine = examine(node)
    test.assertEqual({finding.name for finding in findings}, set(NAMES))
    test.assertFalse([finding for finding in findings if finding.flags])
    test.assertAlmostEqual(spine.shapes["L3"].middle_mm, 24.0, delta=1.0)

    test.delayDisplay(_("Shifting the levels, and taking it back"), 100)
    changes = LevelChanges(node)
    changes.shift(1)
    test.assertEqual(names_in(node), ["L3", "L3/L4", "L4", "L4/L5", "L5"])
    test.assertTrue(changes.undo())
    test.assertEqual(names_in(node), list(NAMES))

    test.delayDisplay(_("Exporting it"), 100)
    with tempfile.TemporaryDirectory(dir=slicer.app.temporaryPath) as folder:
        path = Path(folder) / "labels.nii.gz"
        test.assertEqual(exports.write_nifti(node, path), "")
        again = slicer.util.loadLabelVolume(str(path))
        test.assertTrue(np.array_equal(slicer.util.arrayFromVolume(again), labels))

    test.delayDisplay(_("Showing an attention map"), 100)
    widget = slicer.util.getModuleWidget("CPS4Segmentation")
    parameters = widget.logic.getParameterNode()
    attention = np.where(labels == find_label("L3"), 0.9, 0.1).astype(np.float32)
    display = AttentionDisplay(parameters)
    display.show(volume, attention, attention > 0.5, find_label("L3"), "L3")
    layers = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    test.assertEqual(layers.GetForegroundVolumeID(), parameters.attentionVolume.GetID())
    display.hide()

    if widget.logic.model is not None and not widget.logic.lacks_packages():
        test.delayDisplay(_("Segmenting it with the chosen model"), 100)
        segment_with_model(test, widget, volume)
    test.delayDisplay(_("Test passed"))


def make_spine() -> tuple[slicer.vtkMRMLScalarVolumeNode, np.ndarray]:
    """Return a sagittal stack with five structures, and their labels.

    The axes of the labels are k, from right to left, j, from front to back, and i, from head to feet.
    """
    shape = (12, 160, 256)
    labels = np.zeros(shape, np.uint8)
    top = 60
    for structure in SPINE:
        height = 8 if structure.is_disc else 24
        labels[3:9, 60:92, top : top + height] = structure.label
        top += height
    noise = np.random.default_rng(0).normal(0, 12, shape)
    image = (120 + 60 * (labels > 0) + noise).astype(np.int16)
    volume = slicer.util.addVolumeFromArray(image, name=_("CPS4 test spine"))
    # Columns i, j, k as directions in RAS: down, back, left.
    matrix = np.diag([1.0, 1.0, 1.0, 1.0])
    matrix[:3, :3] = np.array([[0, 0, -SPACING_MM[0]], [0, -SPACING_MM[1], 0], [-SPACING_MM[2], 0, 0]])
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    volume.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume, labels


def make_segmentation(
    volume: slicer.vtkMRMLScalarVolumeNode, labels: np.ndarray
) -> slicer.vtkMRMLSegmentationNode:
    """Return a segmentation of ``volume`` with a segment for each label."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", _("CPS4 test segmentation"))
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for structure in SPINE:
        segment_id = node.GetSegmentation().AddEmptySegment("", "")
        name_segment(node.GetSegmentation().GetSegment(segment_id), structure.short)
        set_mask(node, segment_id, labels == structure.label, volume)
    return node


def names_in(node: slicer.vtkMRMLSegmentationNode) -> list[str]:
    """Return the names of the segments of a node, in its order."""
    return [segment.GetName() for segment in segments(node)]


def segment_with_model(test: Any, widget: Any, volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Press Segment and wait for the result, which must lie on the volume and carry names of the class table."""
    widget.segment.ui.inputSelector.setCurrentNode(volume)
    widget.segment.ui.segmentButton.click()
    end = time.monotonic() + SECONDS
    while widget.segment.ui.cancelButton.enabled and time.monotonic() < end:
        slicer.app.processEvents()
    test.assertFalse(widget.segment.ui.cancelButton.enabled, "not within five minutes")
    node = widget.segment.ui.segmentationSelector.currentNode()
    test.assertIsNotNone(node)
    test.assertLessEqual(set(names_in(node)), {structure.short for structure in STRUCTURES})
