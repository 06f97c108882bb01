"""Many scans in the panel Segment: all volumes of the scene, or a folder in the background."""

import csv
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from module_under_test import names_of, write_series

SCAN, OUTCOME, NEXT_STEP = range(3)


@pytest.fixture
def module(module):
    module.choose_model()
    return module


@pytest.fixture
def scans(module, tmp_path):
    """A folder of patients, whose scans have one name: a good one, a broken one, a DICOM series."""
    folder = tmp_path / "Größe der Scans"
    for patient in ("patient 1", "patient 2"):
        (folder / patient).mkdir(parents=True)
        shutil.copy(module.scan, folder / patient / "T2.nii.gz")
    broken = folder / "patient 2" / "T2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    write_series(sitk.ReadImage(str(module.scan)), folder / "series", "T2 sag")
    return folder


def start(module, scans, results, measures=False):
    panel = module.panel("segment")
    panel.ui.folderButton.collapsed = False
    panel.ui.scansEdit.currentPath = str(scans)
    panel.ui.resultsEdit.currentPath = str(results)
    panel.ui.measuresBox.checked = measures
    assert panel.ui.segmentFolderButton.enabled
    panel.ui.segmentFolderButton.click()
    return panel


def run(module, *arguments, **options):
    panel = start(module, *arguments, **options)
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    return panel


def rows(panel):
    """Of each scan its name, what became of it, and the next step, empty where it has a result."""
    table = panel.ui.batchTable
    texts = [[table.item(row, column).text() for column in range(2)] for row in range(table.rowCount)]
    return [[scan, *outcome.partition("\n")[::2]] for scan, outcome in texts]


def pick(panel, scan):
    panel.ui.batchTable.setCurrentCell([row[SCAN] for row in rows(panel)].index(scan), 0)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nodes(module):
    return [
        *module.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"),
        *module.slicer.util.getNodesByClass("vtkMRMLSegmentationNode"),
    ]


def test_a_folder_is_segmented_and_measured_and_what_failed_is_listed(module, scans, tmp_path):
    before, results = contents(scans), scans / "results"
    panel = module.panel("segment")
    assert not panel.ui.batchTable.isVisible()
    panel = run(module, scans, results, measures=True)
    failed, *done = rows(panel)
    assert failed[SCAN] == "patient 2/T2.nii.gz"
    assert failed[OUTCOME]
    assert failed[NEXT_STEP]
    assert [row[SCAN] for row in done] == ["patient 1/T2.nii.gz", "series"]
    assert all("structures found" in row[OUTCOME] for row in done)
    assert "2 segmented, 1 failed" in panel.ui.statusLabel.text
    assert "measures.csv" in panel.ui.statusLabel.text
    assert not module.harness.dialogs.messages
    assert sitk.ReadImage(str(results / "patient 1" / "T2.seg.nrrd")).GetSize()
    with (results / "measures.csv").open(newline="", encoding="utf-8") as file:
        assert {line["case"] for line in csv.DictReader(file)} == {"patient 1/T2", "series"}

    made = contents(results)
    panel = run(module, scans, results, measures=True)
    assert [row[OUTCOME] for row in rows(panel)[1:]] == ["There already."] * 2
    assert "2 were there already" in panel.ui.statusLabel.text
    assert made.items() <= contents(results).items()  # nothing is written over
    assert (results / "measures-2.csv").is_file()
    assert before.items() <= contents(scans).items()


def test_a_result_opens_with_its_scan(module, scans, tmp_path):
    panel = run(module, scans, tmp_path / "results")
    assert not nodes(module)
    assert not panel.ui.openResultButton.enabled
    pick(panel, "patient 2/T2.nii.gz")
    assert not panel.ui.openResultButton.enabled  # it has none
    pick(panel, "patient 1/T2.nii.gz")
    panel.ui.openResultButton.click()
    volume, node = nodes(module)
    assert panel.ui.inputSelector.currentNode() is volume
    assert panel.ui.segmentationSelector.currentNode() is node
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    assert "L4" in names_of(node)
    review = module.panel("review")
    assert any(finding.confidence > 0 for finding in review._findings)
    row = panel.ui.batchTable.currentRow()
    panel.ui.batchTable.cellDoubleClicked.emit(row, 0)
    assert nodes(module) == [volume, node]  # it is there already
    assert node.GetAttribute("CPS4.ModelName")
    pick(panel, "series")
    panel.ui.openResultButton.click()
    assert "module DICOM" in module.harness.dialogs.errors[-1].text
    shutil.rmtree(tmp_path / "results")
    module.slicer.mrmlScene.RemoveNode(node)
    pick(panel, "patient 1/T2.nii.gz")
    panel.ui.openResultButton.click()
    assert "could not be read" in module.harness.dialogs.errors[-1].text


def test_cancel_keeps_what_is_done_and_the_next_start_goes_on(module, tmp_path):
    scans, results = tmp_path / "scans", tmp_path / "results"
    scans.mkdir()
    for number in range(6):
        shutil.copy(module.scan, scans / f"{number}.nii.gz")
    panel = start(module, scans, results, measures=True)
    assert not panel.ui.segmentButton.enabled  # one thing after the other
    module.wait(lambda: rows(panel))
    panel.ui.cancelButton.click()
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    assert "Stopped" in panel.ui.statusLabel.text
    made = {path.name for path in results.glob("*.seg.nrrd")}
    assert 1 <= len(made) < 6
    assert len(rows(panel)) == len(made)
    assert not list(results.glob("*.csv"))
    panel = run(module, scans, results)
    assert sum(row[OUTCOME] == "There already." for row in rows(panel)) == len(made)
    assert len(list(results.glob("*.seg.nrrd"))) == 6


def test_a_file_of_the_users_is_not_written_over(module, scans, tmp_path):
    mine = tmp_path / "results" / "patient 1" / "T2.seg.nrrd"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    panel = run(module, scans, tmp_path / "results")
    assert mine.read_bytes() == b"mine"
    told = {row[SCAN]: row for row in rows(panel)}["patient 1/T2.seg.nrrd"]
    assert "a file already" in told[OUTCOME]
    assert "another place" in told[NEXT_STEP]


@pytest.mark.parametrize(
    ("scans_at", "results_at", "words"),
    [
        ("scans", "scans", "holds the scans"),
        ("scans", ".", "holds the scans"),
        ("none", "results", "no such folder"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused(module, tmp_path, scans_at, results_at, words):
    (tmp_path / "scans").mkdir()
    panel = start(module, tmp_path / scans_at, tmp_path / results_at)
    assert words in module.harness.dialogs.errors[-1].text
    assert not panel.ui.cancelButton.enabled


def test_a_folder_without_scans_is_told(module, tmp_path):
    (tmp_path / "scans").mkdir()
    panel = run(module, tmp_path / "scans", tmp_path / "results")
    ((scan, outcome, next_step),) = rows(panel)
    assert (scan, outcome) == ("scans", "The folder holds no scan.")
    assert next_step
    assert "see the table" in panel.ui.statusLabel.text


def test_an_engine_that_dies_is_told(module, scans, tmp_path):
    panel = start(module, scans, tmp_path / "results")
    module.wait(
        lambda: [
            process.kill()
            for process in psutil.Process().children(recursive=True)
            if "segment" in process.cmdline()
        ]
    )
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    assert "stopped unexpectedly" in rows(panel)[0][OUTCOME]
    assert len(rows(run(module, scans, tmp_path / "results"))) == 3


def test_a_folder_goes_on_when_the_scene_closes_and_stops_with_the_module(module, scans, tmp_path):
    panel = start(module, scans, tmp_path / "results")
    module.harness.close_scene()
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    assert len(rows(panel)) == 3
    start(module, scans, tmp_path / "more")
    module.widget.cleanup()
    assert not [
        process for process in psutil.Process().children(recursive=True) if "segment" in process.cmdline()
    ]


def test_all_volumes_of_the_scene_with_what_failed(module):
    good = [module.load(name=name) for name in ("first", "second")]
    bad = module.slicer.util.addVolumeFromArray(
        np.random.default_rng(0).integers(0, 99, (8, 64, 64)).astype(np.int16), name="axial"
    )
    bad.SetSpacing(1.0, 1.0, 6.0)
    module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    panel = module.panel("segment")
    panel.ui.segmentAllButton.click()
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    assert not module.harness.dialogs.messages  # no message a volume: all stand in the table
    found = rows(panel)
    assert {row[SCAN] for row in found[:2]} == {"axial", "empty"}
    assert all(row[NEXT_STEP] for row in found[:2])
    assert [row[SCAN] for row in found[2:]] == ["first", "second"]
    assert "2 segmented, 2 failed" in panel.ui.statusLabel.text
    pick(panel, "first")
    panel.ui.openResultButton.click()
    node = panel.ui.segmentationSelector.currentNode()
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is good[0]
    assert panel.ui.inputSelector.currentNode() is good[0]
    module.segment(bad)  # alone, it is told in a message
    assert "sagittal" in module.harness.dialogs.errors[-1].text
    assert not rows(panel)


def test_cancel_of_all_volumes_keeps_those_that_are_done(module):
    for number in range(4):
        module.load(name=f"mr {number}")
    panel = module.panel("segment")
    panel.ui.segmentAllButton.click()
    module.wait(lambda: rows(panel))
    panel.ui.cancelButton.click()
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    done = len(rows(panel))
    assert len(module.slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == done < 4
    assert f"{4 - done} left" in panel.ui.statusLabel.text
    module.harness.close_scene()
    assert not rows(panel)


def test_a_volume_that_is_removed_meanwhile_is_listed(module):
    volumes = [module.load(name=f"mr {number}") for number in range(2)]
    panel = module.panel("segment")
    panel.ui.segmentAllButton.click()
    module.slicer.mrmlScene.RemoveNode(volumes[1])
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    assert [row[SCAN] for row in rows(panel)] == ["mr 1", "mr 0"]
    assert "removed meanwhile" in rows(panel)[0][OUTCOME]


def test_folders_are_remembered(module, tmp_path):
    panel = module.panel("segment")
    panel.ui.scansEdit.currentPath = str(tmp_path / "scans")
    again = module.harness.open_module(Path(module.widget.resourcePath("..")) / "CPS4Segmentation.py")
    assert again.segment.ui.scansEdit.currentPath == str(tmp_path / "scans")
