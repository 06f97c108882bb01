"""The panel Review: what to look at, level changes with undo, exports."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from made_segmentations import LEVELS, columns, pick, rows, segmentation_of
from module_under_test import in_both_versions, names_of, write_series

from CPS4Core.class_table import BY_LABEL, HEAD_TO_TAIL, short_name, terminology_entry


def test_volume_and_centre_by_hand(module):
    panel, _ = segmentation_of(module)
    assert {row[0] for row in rows(panel)} == set(LEVELS)
    for row in rows(panel):  # blocks of 10 x 10 x 8 voxels of 1 x 1 x 4 mm
        assert float(row[1]) == pytest.approx(10 * 10 * 8 * 4 / 1000, abs=0.05)
    assert "Nothing conspicuous" in panel.ui.summaryLabel.text
    pick(panel, "L1")
    jumped = module.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
    centre_of_third_block = 80 - 2.5 * 10 - 0.5
    assert jumped.GetElement(2, 3) == pytest.approx(centre_of_third_block, abs=0.6)


def test_what_is_wrong_stands_at_the_top(module):
    masks = columns((80, 30, 12), LEVELS)
    masks.pop("L1")  # missing
    masks["L2"], masks["L3"] = masks["L3"], masks["L2"]  # out of order
    masks["T12/L1"] = masks["T12/L1"] * (np.arange(12) < 5)  # one-sided
    masks["L1/L2"] = masks["L1/L2"] * (np.arange(30)[:, None] < 11)  # too small
    panel, _ = segmentation_of(module, masks=masks)
    flags = {row[0]: row[3] for row in rows(panel)}
    assert flags["L1"] == "missing"
    assert "out of order" in flags["L2"]
    assert "out of order" in flags["L3"]
    assert "one side" in flags["T12/L1"]
    assert "too small" in flags["L1/L2"]
    assert flags["T12"] == ""
    flagged = [bool(row[3]) for row in rows(panel)]
    assert flagged == sorted(flagged, reverse=True)
    assert f"{sum(flagged)} to look at" in panel.ui.summaryLabel.text


def test_an_engine_result_has_confidence(module):
    module.choose_model()
    module.load()
    node = module.segment()
    panel = module.panel("review")
    assert panel.segmentation is node
    found = [row for row in rows(panel) if row[1]]
    assert found
    assert all(0 < float(row[2]) <= 1 for row in found)


def test_all_levels_shift_and_undo_brings_them_back(module):
    panel, node = segmentation_of(module)
    panel.ui.levelsDownButton.click()
    assert names_of(node) == ["L1", "L1/L2", "L2", "L2/L3", "L3", "L3/L4", "L4"]
    segment = node.GetSegmentation().GetNthSegment(0)
    structure = next(structure for structure in BY_LABEL.values() if structure.short == "L1")
    assert np.allclose(segment.GetColor(), np.array(structure.color) / 255, atol=0.01)
    import vtk

    tag = vtk.reference("")
    assert segment.GetTag("TerminologyEntry", tag)
    assert str(tag) == terminology_entry(structure)
    panel.ui.undoButton.click()
    assert names_of(node) == LEVELS
    panel.ui.levelsUpButton.click()
    panel.ui.levelsUpButton.click()
    assert names_of(node)[0] == "T10"
    panel.ui.undoButton.click()
    panel.ui.undoButton.click()
    assert names_of(node) == LEVELS
    assert not panel.ui.undoButton.enabled


def test_levels_that_leave_the_table_come_back(module):
    names = [short_name(label) for label in HEAD_TO_TAIL]
    panel, node = segmentation_of(module, names)
    panel.ui.levelsUpButton.click()
    assert names_of(node)[:3] == ["T8", "T8/T9", "T9"]
    assert len(set(names_of(node))) == len(names)
    panel.ui.levelsDownButton.click()
    assert names_of(node) == names
    for _ in range(4):
        panel.ui.levelsDownButton.click()
    before = names_of(node)
    panel.ui.levelsDownButton.click()  # below S5 there is nothing
    assert names_of(node) == before
    (message,) = module.harness.dialogs.errors
    assert "cannot move further" in message.text


def test_rename_exchanges_names_only_when_asked(module):
    panel, node = segmentation_of(module)
    pick(panel, "L1")
    panel.ui.nameBox.currentText = "L4"
    panel.ui.renameButton.click()
    assert names_of(node) == ["T12", "T12/L1", "L4", "L1/L2", "L2", "L2/L3", "L3"]
    pick(panel, "L4")
    panel.ui.nameBox.currentText = "L2"
    module.harness.dialogs.answer("No")
    panel.ui.renameButton.click()
    assert "L4" in names_of(node)
    module.harness.dialogs.answer("Yes")
    panel.ui.renameButton.click()
    assert names_of(node) == ["T12", "T12/L1", "L2", "L1/L2", "L4", "L2/L3", "L3"]
    panel.ui.undoButton.click()
    panel.ui.undoButton.click()
    assert names_of(node) == LEVELS


def test_undo_after_undo_and_another_change_takes_one_click_a_change(module):
    panel, node = segmentation_of(module)
    panel.ui.levelsDownButton.click()
    panel.ui.levelsDownButton.click()
    panel.ui.undoButton.click()
    panel.ui.levelsDownButton.click()
    assert names_of(node)[0] == "L2"
    panel.ui.undoButton.click()
    assert names_of(node)[0] == "L1"
    panel.ui.undoButton.click()
    assert names_of(node) == LEVELS
    assert not panel.ui.undoButton.enabled


@in_both_versions
def test_a_segmentation_that_is_renamed_can_still_be_undone(module):
    panel, node = segmentation_of(module)
    panel.ui.levelsDownButton.click()
    node.SetName("read by Dr. Müller")
    assert panel.ui.undoButton.enabled
    panel.ui.undoButton.click()
    assert names_of(node) == LEVELS


def test_undo_of_a_name_keeps_what_was_painted_since(module):
    panel, node = segmentation_of(module)
    panel.ui.levelsDownButton.click()
    volume, segment = module.slicer.util.getNode("mr"), node.GetSegmentation().GetNthSegmentID(0)
    mask = module.slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)
    mask[70, 25, 5] = 1
    module.slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
    panel.ui.undoButton.click()
    assert names_of(node) == LEVELS
    assert module.slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)[70, 25, 5]


def test_a_deleted_structure_comes_back_with_its_voxels(module):
    panel, node = segmentation_of(module)
    before = {row[0]: row[1:3] for row in rows(panel)}
    pick(panel, "L1")
    panel.ui.deleteButton.click()
    assert "L1" not in names_of(node)
    assert {row[0]: row[3] for row in rows(panel)}["L1"] == "missing"
    panel.ui.undoButton.click()
    assert names_of(node) == LEVELS
    assert {row[0]: row[1:3] for row in rows(panel)} == before


def test_an_edit_elsewhere_is_measured_again(module):
    panel, node = segmentation_of(module)
    volume = module.slicer.util.getNode("mr")
    segment = node.GetSegmentation().GetNthSegmentID(2)
    mask = module.slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)
    mask[:, :15] = 0
    module.slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
    module.panel("segment")
    module.panel("review")
    volumes = {row[0]: float(row[1]) for row in rows(panel)}
    assert volumes["L1"] == pytest.approx(1.6, abs=0.06)


def test_labels_are_exported_on_the_grid_of_the_volume(module, tmp_path):
    module.choose_model()
    volume = module.load()
    node = module.segment()
    panel = module.panel("review")
    target = tmp_path / "étiquettes" / "out.nii.gz"
    target.parent.mkdir()
    module.harness.dialogs.answer(str(target))
    panel.ui.exportNiftiButton.click()
    assert "Saved" in panel.ui.statusLabel.text
    # Slicer turns a left-handed grid round when it loads a scan; the voxels are the same ones in the patient.
    source = sitk.DICOMOrient(sitk.ReadImage(str(module.scan)), "LPS")
    labels = sitk.DICOMOrient(sitk.ReadImage(str(target)), "LPS")
    assert labels.GetSize() == source.GetSize()
    for mine, theirs in (
        (labels.GetOrigin(), source.GetOrigin()),
        (labels.GetSpacing(), source.GetSpacing()),
        (labels.GetDirection(), source.GetDirection()),
    ):
        assert np.allclose(mine, theirs, atol=1e-4)
    found = sitk.GetArrayFromImage(labels)
    for k, name in enumerate(names_of(node)):
        label = next(structure.label for structure in BY_LABEL.values() if structure.short == name)
        segment = node.GetSegmentation().GetNthSegmentID(k)
        mask = module.slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)
        assert mask.sum() == (found == label).sum()
    assert [path.name for path in target.parent.iterdir()] == ["out.nii.gz"]


def test_the_segmentation_is_exported_with_names(module, tmp_path):
    panel, _ = segmentation_of(module)
    module.harness.dialogs.answer(str(tmp_path / "mine"))
    panel.ui.exportSegmentationButton.click()
    header = sitk.ReadImage(str(tmp_path / "mine.seg.nrrd"))
    names = {header.GetMetaData(key) for key in header.GetMetaDataKeys() if key.endswith("_Name")}
    assert names == set(LEVELS)


def test_measurements_become_a_table_and_a_file(module, tmp_path):
    panel, _ = segmentation_of(module)
    module.harness.dialogs.answer(str(tmp_path / "sizes.csv"))
    panel.ui.exportTableButton.click()
    with (tmp_path / "sizes.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["structure"] for line in lines} == {*LEVELS, "L1-S1"}
    assert float(lines[0]["volume (ml)"]) == pytest.approx(3.2)
    table = module.slicer.util.getNode("levels measurements")
    assert table.GetTable().GetNumberOfRows() == len(LEVELS) + 1
    module.harness.dialogs.answer(str(tmp_path / "sizes.csv"))
    panel.ui.exportTableButton.click()
    assert len(module.slicer.util.getNodesByClass("vtkMRMLTableNode")) == 1


def test_an_export_that_fails_keeps_the_older_file(module, tmp_path, monkeypatch):
    panel, _ = segmentation_of(module)
    target = tmp_path / "old.nii.gz"
    target.write_text("precious")
    monkeypatch.setattr(module.slicer.util, "exportNode", lambda *_: False)
    module.harness.dialogs.answer(str(target))
    panel.ui.exportNiftiButton.click()
    (message,) = module.harness.dialogs.errors
    assert "could not be written" in message.text
    assert target.read_text(encoding="utf-8") == "precious"
    assert not module.slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode")


@pytest.mark.parametrize(
    ("button", "name"), [("exportNiftiButton", "cut.nii.gz"), ("exportSegmentationButton", "cut.seg.nrrd")]
)
def test_an_export_of_which_a_part_is_missing_is_no_export(module, tmp_path, monkeypatch, button, name):
    panel, _ = segmentation_of(module)
    export = module.slicer.util.exportNode

    def onto_a_full_disk(node, path, properties):
        assert export(node, path, properties)
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) * 2 // 3])
        return True

    monkeypatch.setattr(module.slicer.util, "exportNode", onto_a_full_disk)
    folder = tmp_path / "exports"
    folder.mkdir()
    module.harness.dialogs.answer(str(folder / name))
    getattr(panel.ui, button).click()
    (message,) = module.harness.dialogs.errors
    assert "could not be written" in message.text
    assert not list(folder.iterdir())


def from_dicom(module, node, folder):
    """Let the volume of a segmentation come from DICOM."""
    before = source_volume_of(node)
    image = sitk.GetImageFromArray(np.round(100 * module.slicer.util.arrayFromVolume(before)))
    image.SetSpacing(before.GetSpacing())
    (volume,) = module.harness.load_dicom(write_series(image, folder / "study", "T2 sag"))
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return volume


def source_volume_of(node):
    return node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())


def export_dicom(module, panel, folder):
    folder.mkdir(exist_ok=True)
    module.harness.dialogs.answer(str(folder))
    panel.ui.exportDicomButton.click()
    return "".join(path.read_text(encoding="utf-8") for path in folder.iterdir()).splitlines()


@in_both_versions
def test_what_did_not_come_from_dicom_is_not_exported_as_dicom(module, tmp_path):
    panel, node = segmentation_of(module)
    assert not export_dicom(module, panel, tmp_path / "out")
    assert "did not come from DICOM" in module.harness.dialogs.errors[-1].text
    module.slicer.mrmlScene.RemoveNode(source_volume_of(node))
    assert not export_dicom(module, panel, tmp_path / "out")
    assert "not in the scene" in module.harness.dialogs.errors[-1].text


@in_both_versions
def test_dicom_seg_needs_an_extension_before_slicer_5_12(module, tmp_path):
    panel, node = segmentation_of(module)
    from_dicom(module, node, tmp_path)
    written = export_dicom(module, panel, tmp_path / "out")
    if module.slicer.app.minorVersion == 12:
        assert not module.harness.dialogs.messages
        assert [line.split(";")[0] for line in written] == LEVELS
    else:
        assert not written
        assert "QuantitativeReporting" in module.harness.dialogs.errors[0].text


def test_dicom_seg_says_who_made_the_segments(module, tmp_path):
    from CPS4SegmentationLib.segmentations import DIGEST, digest

    panel, node = segmentation_of(module)
    from_dicom(module, node, tmp_path)
    out = tmp_path / "out"
    assert {line.split(";")[2] for line in export_dicom(module, panel, out)} == {"MANUAL"}
    node.SetAttribute(DIGEST, digest(node))  # as the engine's results have it
    assert {line.split(";", 2)[2] for line in export_dicom(module, panel, out)} == {"AUTOMATIC;CPS4"}
    node.GetSegmentation().GetNthSegment(0).SetName("mine")
    assert {line.split(";", 2)[2] for line in export_dicom(module, panel, out)} == {"SEMIAUTOMATIC;CPS4"}


def test_what_the_dicom_exporter_says_is_told(module, tmp_path):
    panel, node = segmentation_of(module)
    from_dicom(module, node, tmp_path)
    module.slicer.dicomDatabase = type(module.slicer.dicomDatabase)()  # another one, which is empty
    assert not export_dicom(module, panel, tmp_path / "out")
    (message,) = module.harness.dialogs.errors
    assert "not found in the DICOM database" in message.text
    assert "Import the study" in message.text


def surfaces(module, volume):
    """A segmentation as it is loaded from an STL file: of surfaces alone, and here without a display node too."""
    import vtk

    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    sphere = vtk.vtkSphereSource()
    sphere.SetRadius(8)
    sphere.SetCenter((bounds[::2] + bounds[1::2]) / 2)
    sphere.SetThetaResolution(40)
    sphere.SetPhiResolution(40)
    sphere.Update()
    node = module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "surfaces")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetSourceRepresentationToClosedSurface()
    node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "L1", [1, 0, 0])
    return node


def test_surfaces_alone_are_measured_and_exported(module, tmp_path):
    panel, node = segmentation_of(module)
    volume = from_dicom(module, node, tmp_path)
    node = surfaces(module, volume)
    assert node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap") is None
    panel.ui.segmentationSelector.setCurrentNode(node)
    ((name, millilitres, *_),) = rows(panel)
    assert (name, float(millilitres)) == ("L1", pytest.approx(4 / 3 * np.pi * 8**3 / 1000, rel=0.15))
    module.harness.dialogs.answer(str(tmp_path / "labels.nii.gz"))
    panel.ui.exportNiftiButton.click()
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "labels.nii.gz"))).any()
    panel.ui.levelsDownButton.click()
    assert names_of(node) == ["L2"]
    assert export_dicom(module, panel, tmp_path / "out")
    assert not module.harness.dialogs.errors


def test_what_no_display_node_shows_can_be_shown_in_3d(module):
    panel, node = segmentation_of(module)
    node = surfaces(module, source_volume_of(node))
    assert node.GetDisplayNode() is None
    panel = module.panel("segment")
    panel.ui.segmentationSelector.setCurrentNode(node)
    assert not panel.ui.show3DButton.checked
    panel.ui.show3DButton.click()
    assert node.GetDisplayNode().GetVisibility3D()


def test_edit_opens_the_segment_editor_on_the_structure(module):
    panel, node = segmentation_of(module)
    pick(panel, "L2")
    panel.ui.editButton.click()
    assert module.slicer.util.selectedModule() == "SegmentEditor"
    editor = module.slicer.modules.segmenteditor.widgetRepresentation().self().editor
    assert editor.segmentationNode() is node
    assert node.GetSegmentation().GetSegment(editor.currentSegmentID()).GetName() == "L2"


def test_an_empty_segmentation_and_none_are_said(module):
    panel = module.panel("review")
    assert "Choose a segmentation" in panel.ui.summaryLabel.text
    assert not panel.ui.exportNiftiButton.enabled
    node = module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty")
    panel.ui.segmentationSelector.setCurrentNode(node)
    assert "empty" in panel.ui.summaryLabel.text
    assert not panel.ui.levelsUpButton.enabled
