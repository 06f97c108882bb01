"""The panel Segment, clicked as a user would, against the real background process."""

import itertools
import json
import shutil
import sys
import time

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from module_under_test import write_series

from CPS4Core.class_table import BY_LABEL, HEAD_TO_TAIL, find_label, terminology_entry


@pytest.fixture
def module(module):
    module.choose_model()
    return module


def segments_of(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(k) for k in range(segmentation.GetNumberOfSegments())]


def points_of(module, node, volume):
    """The voxels of each segment as a set of RAS points, in tenths of a millimetre."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    ijk_to_ras = module.slicer.util.arrayFromVTKMatrix(matrix)
    found = {}
    for k, segment in enumerate(segments_of(node)):
        mask = module.slicer.util.arrayFromSegmentBinaryLabelmap(
            node, node.GetSegmentation().GetNthSegmentID(k), volume
        )
        ijk = np.argwhere(mask)[:, ::-1]
        ras = ijk @ ijk_to_ras[:3, :3].T + ijk_to_ras[:3, 3]
        found[segment.GetName()] = set(map(tuple, np.round(10 * ras).astype(int).tolist()))
    return found


def test_three_clicks_give_named_coloured_coded_structures_in_order(module):
    import vtk

    volume = module.load()
    node = module.segment()
    assert not module.harness.dialogs.messages
    labels = [find_label(segment.GetName()) for segment in segments_of(node)]
    assert len(labels) >= 3
    assert labels == [label for label in HEAD_TO_TAIL if label in labels]
    for label, segment in zip(labels, segments_of(node), strict=True):
        assert np.allclose(segment.GetColor(), np.array(BY_LABEL[label].color) / 255, atol=0.01)
        tag = vtk.reference("")
        assert segment.GetTag("TerminologyEntry", tag)
        assert str(tag) == terminology_entry(BY_LABEL[label])
    role = node.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is volume
    assert node.GetStorageNode() is None  # or the scene would point at the temporary file
    assert f"{len(labels)} structures" in module.widget.segment.ui.statusLabel.text


def test_the_card_is_told_in_plain_words(module):
    text = module.widget.segment.ui.cardLabel.text
    assert "5 labelled and 2 unlabelled cases" in text
    assert "Dice" in text
    assert "19 structures" in text


def test_3d_shows_and_hides_on_one_click(module):
    module.load()
    node = module.segment()
    button = module.widget.segment.ui.show3DButton
    button.click()
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")
    assert node.GetDisplayNode().GetVisibility3D()
    button.click()
    assert not node.GetDisplayNode().GetVisibility3D()


def test_the_result_lies_on_the_anatomy_in_every_orientation(module, tmp_path):
    """The 48 ways to store the same scan give the same structures at the same places in the patient."""
    image = sitk.ReadImage(str(module.scan))
    expected = None
    for number, (order, flips) in enumerate(
        itertools.product(itertools.permutations(range(3)), itertools.product([False, True], repeat=3))
    ):
        path = tmp_path / f"scan {number}.nrrd"
        sitk.WriteImage(sitk.Flip(sitk.PermuteAxes(image, order), flips), str(path))
        volume = module.load(path, f"scan {number}")
        found = points_of(module, module.segment(), volume)
        expected = expected or found
        assert found.keys() == expected.keys()
        for name, points in found.items():
            shared = len(points & expected[name]) / max(len(points), len(expected[name]))
            assert shared > 0.98, f"{name} in {order} {flips}"
        module.harness.close_scene()


def test_the_result_lies_on_an_oblique_scan(module, tmp_path):
    image = sitk.ReadImage(str(module.scan))
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.10, -0.15, 0.2)
    turned = np.array(turn.GetMatrix()).reshape(3, 3) @ np.array(image.GetDirection()).reshape(3, 3)
    plain = module.segment(module.load())
    image.SetDirection(turned.ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "oblique.nrrd"))
    volume = module.load(tmp_path / "oblique.nrrd", "oblique")
    node = module.segment(volume)
    # Turned as a whole, the scan has the same voxels, so the result has them too.
    assert [segment.GetName() for segment in segments_of(node)] == [
        segment.GetName() for segment in segments_of(plain)
    ]
    array = module.slicer.util.arrayFromSegmentBinaryLabelmap(
        node, node.GetSegmentation().GetNthSegmentID(0), volume
    )
    assert array.shape == module.slicer.util.arrayFromVolume(volume).shape
    assert array.any()


def test_a_dicom_series_is_segmented(module, tmp_path):
    image = sitk.ReadImage(str(module.scan))
    (volume,) = module.harness.load_dicom(write_series(image, tmp_path / "study", "T2 sag"))
    assert volume.GetImageData().GetDimensions()[2] == image.GetSize()[2]
    assert segments_of(module.segment(volume))


def test_several_volumes_wait_in_line(module):
    volumes = [module.load(name=f"mr {k}") for k in range(3)]
    panel = module.panel("segment")
    assert panel.ui.segmentAllButton.enabled
    panel.ui.segmentAllButton.click()
    assert "2 more in line" in panel.ui.statusLabel.text
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    sources = {
        node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        for node in module.slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    }
    assert sources == set(volumes)


def test_cancel_stops_what_runs_and_what_waits(module):
    for k in range(3):
        module.load(name=f"mr {k}")
    panel = module.panel("segment")
    panel.ui.segmentAllButton.click()
    panel.ui.cancelButton.click()
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    assert "Stopped" in panel.ui.statusLabel.text
    assert not module.slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert segments_of(module.segment())  # and it works again


def test_a_new_result_replaces_an_untouched_one_and_asks_before_an_edited_one(module):
    volume = module.load()
    first = module.segment()
    assert module.segment() is first
    names = [segment.GetName() for segment in segments_of(first)]
    segments_of(first)[0].SetName("mine")
    module.harness.dialogs.answer("No")
    second = module.segment()
    assert second is not first
    assert segments_of(first)[0].GetName() == "mine"
    segments_of(second)[0].SetName("mine too")
    module.harness.dialogs.answer("Yes")
    assert module.segment() is second
    assert [segment.GetName() for segment in segments_of(second)] == names
    assert "edited" in module.harness.dialogs.messages[0].text
    assert volume is module.widget.segment.ui.inputSelector.currentNode()


def count_nodes(module):
    return module.slicer.mrmlScene.GetNumberOfNodes()


def volume_of(module, array, name="bad"):
    volume = module.slicer.util.addVolumeFromArray(array, name=name)
    module.widget.segment.ui.inputSelector.setCurrentNode(volume)
    module.harness.process_events()
    return volume


def axial(module):
    volume = volume_of(module, np.random.default_rng(0).integers(0, 99, (8, 64, 64)).astype(np.int16))
    volume.SetSpacing(1.0, 1.0, 6.0)
    return volume


def under_transform(module):
    volume = module.load()
    node = module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(node.GetID())
    return volume


def not_a_number(module):
    volume = module.load()
    array = module.slicer.util.arrayFromVolume(volume).astype(np.float32)
    array[0, 0, 0] = np.nan
    module.slicer.util.updateVolumeFromArray(volume, array)
    return volume


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (under_transform, "under a transform"),
        (axial, "sagittal"),
        (lambda module: volume_of(module, np.zeros((1, 64, 64), np.int16)), "constant"),
        (lambda module: volume_of(module, np.zeros((4, 64, 64), np.int16)), "constant"),
        (not_a_number, "NaN"),
        (
            lambda module: module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"),
            "holds no image",
        ),
    ],
)
def test_what_cannot_be_segmented_is_told_once_and_leaves_the_scene(module, make, words):
    volume = make(module)
    before = count_nodes(module)
    assert module.segment(volume) is None
    assert len(module.harness.dialogs.errors) == 1
    assert words in module.harness.dialogs.errors[0].text
    assert "Traceback" not in module.harness.dialogs.errors[0].text
    assert count_nodes(module) == before


def test_label_maps_and_colour_images_are_not_offered_and_are_refused(module):
    from CPS4SegmentationLib.volumes import check_volume

    from CPS4Core.errors import CPS4Error

    label_map = module.slicer.util.loadLabelVolume(str(module.truth))
    colour = module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colour")
    array = np.zeros((3, 4, 5, 3), np.uint8)
    module.slicer.util.updateVolumeFromArray(colour, array)
    selector = module.widget.segment.ui.inputSelector
    for node, words in ((label_map, "label map"), (colour, "colour")):
        selector.setCurrentNode(node)
        assert selector.currentNode() is not node
        with pytest.raises(CPS4Error, match=words):
            check_volume(node)


def test_a_folder_that_is_no_model_is_told(module, tmp_path):
    module.load()
    for folder, words in ((tmp_path, "no model folder"), (module.trained / "stage 1" / "model", "stage 2")):
        module.choose_model(folder)
        module.segment()
        assert words in module.harness.dialogs.errors[-1].text
    other = shutil.copytree(module.model, tmp_path / "other")
    card = json.loads((other / "card.json").read_text(encoding="utf-8"))
    (other / "card.json").write_text(json.dumps({**card, "format": 99}), encoding="utf-8")
    module.choose_model(other)
    module.segment()
    assert "newer version" in module.harness.dialogs.errors[-1].text
    module.choose_model()
    assert segments_of(module.segment())


def test_without_a_volume_nothing_can_be_pressed(module):
    module.load()
    assert module.widget.segment.ui.segmentButton.enabled
    module.widget.segment.ui.inputSelector.setCurrentNode(None)
    assert not module.widget.segment.ui.segmentButton.enabled


def test_emptied_fields_are_taken_as_no_choice(module):
    train = module.panel("train")
    train.ui.dataEdit.currentPath = str(module.trained / "data")
    module.wait(lambda: not train.ui.stopButton.enabled)
    train.ui.outputEdit.currentPath = str(module.trained / "runs")
    assert train.ui.startButton.enabled
    for edit in (train.ui.dataEdit, train.ui.outputEdit):
        before = edit.currentPath
        edit.currentPath = ""
        assert not train.ui.startButton.enabled
        edit.currentPath = before
        module.wait(lambda: not train.ui.stopButton.enabled)
        assert train.ui.startButton.enabled


def test_what_the_engine_says_waits_until_a_question_is_answered(module, monkeypatch):
    """Each result is checked with its own files, though events go through while the user is asked."""
    import qt

    volumes = [module.load(name=f"mr {k}") for k in range(2)]
    for volume in volumes:
        segments_of(module.segment(volume))[0].SetName("mine")
    asked, check = [], module.widget.logic.worker.check
    monkeypatch.setattr(
        module.widget.logic.worker,
        "check",
        lambda model, device, source, labels, *more: (
            asked.append((source, labels)),
            check(model, device, source, labels, *more),
        ),
    )

    def think(box):
        """The user takes a while; Slicer goes on, and so does the engine."""
        end = time.monotonic() + 3
        while time.monotonic() < end:
            module.harness.process_events()
        return int(qt.QMessageBox.Yes)

    module.harness.dialogs.answer(think, think)
    panel = module.panel("segment")
    panel.ui.segmentAllButton.click()
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    sources = [module.widget.logic.volumes.path_of(volume) for volume in volumes]
    assert [source for source, labels in asked] == sources
    assert len({labels for source, labels in asked}) == 2


def test_results_are_no_recent_files(module):
    module.load()
    before = module.harness.recent_files
    module.segment()
    assert module.harness.recent_files == before


def test_an_error_in_a_panel_is_logged_and_the_job_ends(module, monkeypatch, caplog, capture_slot_errors):
    """Slicer prints what a slot raises and goes on."""
    from CPS4SegmentationLib import segment_panel

    def broken(*_):
        raise ValueError("nobody thought of this")

    module.load()
    with monkeypatch.context() as patch, capture_slot_errors():
        patch.setattr(segment_panel, "load_result", broken)
        panel = module.panel("segment")
        panel.ui.segmentButton.click()
        module.wait(lambda: not panel.ui.cancelButton.enabled, 30)
    assert any("nobody thought of this" in line for line in module.widget.logic.lines)
    assert "nobody thought of this" in caplog.text
    caplog.clear()
    assert segments_of(module.segment())


def worker_of(module):
    return next(
        process
        for process in psutil.Process().children(recursive=True)
        if "worker" in " ".join(process.cmdline())
    )


def test_a_killed_worker_is_told_and_started_again(module):
    module.load()
    module.segment()
    panel = module.panel("segment")
    panel.ui.segmentButton.click()
    worker_of(module).kill()
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    assert "stopped unexpectedly" in module.harness.dialogs.errors[0].text
    assert "ended with code" in "\n".join(module.widget.logic.lines)
    assert segments_of(module.segment())


def test_a_python_that_does_not_start_is_told(module):
    import qt

    qt.QSettings().setValue("CPS4/EnginePython", "/no/such/python")
    module.load()
    assert module.segment() is None
    assert "stopped unexpectedly" in module.harness.dialogs.errors[0].text


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in engine is a shell script")
def test_too_little_memory_is_told_with_the_next_step(module, tmp_path):
    import qt

    (tmp_path / "engine.py").write_text(
        "import sys, torch\n"
        "from CPS4Core.segmentation.unet import ResidualUNet\n"
        "def forward(self, x): raise torch.OutOfMemoryError('CUDA out of memory')\n"
        "ResidualUNet.forward = forward\n"
        "from CPS4Core.cli import main\n"
        "sys.argv = ['cps4', *sys.argv[3:]]\n"
        "main()\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/engine.py" "$@"\n')
    python.chmod(0o755)
    qt.QSettings().setValue("CPS4/EnginePython", str(python))
    module.load()
    assert module.segment() is None
    assert "memory does not suffice" in module.harness.dialogs.errors[0].text
    assert "Close other programs" in module.harness.dialogs.errors[0].text


def test_a_full_disk_is_told(module, monkeypatch):
    volume = module.load()
    monkeypatch.setattr(module.slicer.util, "exportNode", lambda *_: False)
    assert module.segment(volume) is None
    assert "disk space" in module.harness.dialogs.errors[0].text


def test_closing_the_scene_drops_what_runs(module):
    module.load()
    panel = module.panel("segment")
    panel.ui.segmentButton.click()
    module.harness.close_scene()
    module.load(name="next")
    assert segments_of(module.segment())
    assert len(module.slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1
    assert not module.harness.dialogs.errors


def test_the_private_folder_and_the_worker_go_with_the_module(module):
    module.load()
    module.segment()
    folder, worker = module.widget.logic.folder, worker_of(module)
    assert "mr" not in " ".join(path.name for path in folder.rglob("*"))
    module.widget.cleanup()
    assert not folder.exists()
    assert not worker.is_running()
