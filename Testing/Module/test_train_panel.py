"""The panel Train: data set, both stages, stop and go on, corrected cases, all with the real engine."""

import json
import shutil

import pytest
import SimpleITK as sitk

from CPS4Core.systems import METHODS, OBJECTIVES

BOTH, STAGE_1, STAGE_2, GO_ON = range(4)


@pytest.fixture
def data(module, tmp_path):
    """A copy of the data set, in a folder with a space and an umlaut."""
    return shutil.copytree(module.trained / "data", tmp_path / "Daten für CPS4")


def prepared(module, data, output, more=()):
    panel = module.panel("train")
    panel.ui.dataEdit.currentPath = str(data)
    wait(module, panel)
    panel.ui.outputEdit.currentPath = str(output)
    panel.ui.ratioSlider.value = 100
    settings = (module.trained / "settings.txt").read_text(encoding="utf-8")
    panel.ui.settingsEdit.text = ";".join([settings, *more])
    return panel


def wait(module, panel, seconds=240):
    module.wait(lambda: not panel.ui.stopButton.enabled, seconds)


def run(module, panel):
    panel.ui.startButton.click()
    wait(module, panel)


def choose(box, data):
    box.currentIndex = box.findData(data)


def test_both_stages_then_segment_with_the_result(module, data, tmp_path):
    panel = prepared(module, data, tmp_path / "Ergebnisse")
    assert "5 labelled" in panel.ui.dataLabel.text or "6 labelled" in panel.ui.dataLabel.text
    assert panel.ui.startButton.text == "Start"
    run(module, panel)
    assert not module.harness.dialogs.messages
    assert "Done" in panel.ui.statusLabel.text
    # The curves are there, in a plot that the view shows, ...
    panel.ui.curvesButton.click()
    charts = module.slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    assert charts
    tables = module.slicer.util.getNodesByClass("vtkMRMLTableNode")
    assert {table.GetTable().GetNumberOfRows() > 1 for table in tables} == {True}
    # ... so is the preview of one validation slice, ...
    assert not panel.ui.previewLabel.pixmap.isNull()
    # ... and the model segments at once.
    panel.ui.useModelButton.click()
    assert module.widget.logic.model == tmp_path / "Ergebnisse" / "stage2" / "model"
    module.load()
    module.segment()
    assert "structures" in module.widget.segment.ui.statusLabel.text
    assert not module.harness.dialogs.errors


def test_stage_1_by_another_system(module, data, tmp_path):
    panel = prepared(module, data, tmp_path / "results")
    panel.ui.moreSystemsBox.checked = True
    assert panel.ui.objectiveBox.enabled
    for stages, method, trains_stage_1 in (
        (BOTH, "supervised", False),
        (STAGE_2, "cps4", False),
        (GO_ON, "cps4", False),
        (STAGE_1, "supervised", True),
    ):
        choose(panel.ui.methodBox, method)
        panel.ui.stagesBox.currentIndex = stages
        assert panel.ui.objectiveBox.enabled == trains_stage_1
    choose(panel.ui.objectiveBox, "clip")
    run(module, panel)
    assert not module.harness.dialogs.messages
    card = json.loads((tmp_path / "results/stage1/model/card.json").read_text(encoding="utf-8"))
    assert card["settings"]["pretrain"]["objective"] == "clip"


def offered(box):
    return [box.itemData(index) for index in range(box.count)]


def test_the_systems_to_compare_with_are_offered_when_asked_for(module):
    ui = module.panel("train").ui
    assert offered(ui.methodBox) == ["cps4", "mean_teacher", "supervised"]
    assert not ui.objectiveBox.isVisibleTo(ui.objectiveBox.parentWidget())
    choose(ui.methodBox, "supervised")
    ui.moreSystemsBox.click()
    assert sorted(offered(ui.methodBox)) == sorted(METHODS)
    assert sorted(offered(ui.objectiveBox)) == sorted(OBJECTIVES)
    assert ui.objectiveBox.isVisibleTo(ui.objectiveBox.parentWidget())
    assert ui.methodBox.currentText == METHODS["supervised"].title
    choose(ui.methodBox, "ucmt")
    choose(ui.objectiveBox, "clip")
    ui.moreSystemsBox.click()
    assert offered(ui.methodBox) == ["cps4", "mean_teacher", "supervised"]
    assert (ui.methodBox.currentText, ui.objectiveBox.currentText) == ("CPS4", "CPS4")


def test_stop_and_go_on_ends_with_the_weights_of_an_uninterrupted_run(module, data, tmp_path):
    longer = ["train.epochs=12"]
    panel = prepared(module, data, tmp_path / "stopped", longer)
    choose(panel.ui.methodBox, "supervised")
    panel.ui.stagesBox.currentIndex = STAGE_2
    panel.ui.startButton.click()
    module.wait(lambda: "Step" in panel.ui.statusLabel.text)
    panel.ui.stopButton.click()
    wait(module, panel)
    assert "Stopped" in panel.ui.statusLabel.text
    assert not panel.ui.useModelButton.enabled or not (tmp_path / "stopped/stage2/finished").exists()
    assert panel.ui.startButton.text == "Go on"
    run(module, panel)
    assert "Done" in panel.ui.statusLabel.text
    panel.ui.outputEdit.currentPath = str(tmp_path / "whole")
    assert panel.ui.startButton.text == "Start"
    run(module, panel)
    cards = [
        json.loads((tmp_path / run / "stage2/model/card.json").read_text(encoding="utf-8"))
        for run in ("stopped", "whole")
    ]
    assert cards[0]["weights"]["network"]["sha256"] == cards[1]["weights"]["network"]["sha256"]
    assert not module.harness.dialogs.messages


def test_a_corrected_segmentation_joins_the_data_set_and_training_goes_on_from_the_model(
    module, data, tmp_path
):
    module.choose_model()
    module.load()
    module.segment()
    panel = prepared(module, data, tmp_path / "second round")
    before = set((data / "labelsTr").iterdir())
    panel.ui.addCaseButton.click()
    wait(module, panel)
    assert "Added as" in panel.ui.statusLabel.text
    (added,) = set((data / "labelsTr").iterdir()) - before
    source = sitk.DICOMOrient(sitk.ReadImage(str(module.scan)), "LPS")
    labels = sitk.DICOMOrient(sitk.ReadImage(str(added)), "LPS")
    assert labels.GetSize() == source.GetSize()
    assert sitk.GetArrayFromImage(labels).any()
    panel.ui.stagesBox.currentIndex = GO_ON
    settings = json.loads((module.model / "card.json").read_text(encoding="utf-8"))["settings"]["train"]
    panel.ui.settingsEdit.text += f";train.widths={settings['widths']}"
    run(module, panel)
    assert not module.harness.dialogs.messages, module.harness.dialogs.messages[0].text
    card = json.loads((tmp_path / "second round/stage2/model/card.json").read_text(encoding="utf-8"))
    assert card["weights"]["network"]


def test_a_data_set_is_prepared_from_a_folder(module, tmp_path):
    source = tmp_path / "scans"
    for kind, folder in (("images", "imagesTr"), ("labels", "labelsTr")):
        (source / kind).mkdir(parents=True)
        for path in sorted((module.trained / "data" / folder).iterdir())[:5]:
            shutil.copy(path, source / kind / path.name.replace("_0000", ""))
    panel = module.panel("train")
    panel.ui.dataEdit.currentPath = str(tmp_path / "made")
    wait(module, panel)
    panel.ui.sourceEdit.currentPath = str(source)
    choose(panel.ui.schemeBox, "folder")
    panel.ui.prepareButton.click()
    wait(module, panel)
    assert not module.harness.dialogs.messages
    assert (tmp_path / "made" / "dataset.json").is_file()
    assert "labelled" in panel.ui.dataLabel.text


def test_problems_of_a_data_set_are_told(module, data):
    bad = sorted((data / "imagesTr").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:200])
    panel = module.panel("train")
    panel.ui.dataEdit.currentPath = str(data)
    wait(module, panel)
    assert bad.name in panel.ui.dataLabel.text


def test_a_data_set_that_is_typed_is_looked_at_in_the_end(module, data):
    panel = module.panel("train")
    for length in (1, len(str(data.parent)), len(str(data)) - 2, len(str(data))):
        panel.ui.dataEdit.currentPath = str(data)[:length]
    module.wait(lambda: "labelled" in panel.ui.dataLabel.text)
    wait(module, panel)
    panel.ui.dataEdit.currentPath = str(data) + " that is not there"
    assert not panel.ui.stopButton.enabled
    assert not panel.ui.dataLabel.text


def test_a_folder_that_is_no_data_set_is_told(module, tmp_path):
    panel = module.panel("train")
    panel.ui.dataEdit.currentPath = str(tmp_path)
    wait(module, panel)
    assert "no data set" in panel.ui.dataLabel.text


@pytest.mark.parametrize(
    "case", ["no labels", "bad output", "bad setting", "contradiction", "no model to begin with"]
)
def test_what_cannot_be_trained_is_told_once(module, data, tmp_path, case):
    output, more, words = tmp_path / "out", [], ""
    if case == "no labels":
        for path in (data / "labelsTr").iterdir():
            path.unlink()
        words = "label"
    elif case == "bad output":
        output = tmp_path / "a file"
        output.write_text("")
        words = "a file"
    elif case == "bad setting":
        more, words = ["train.bach=3"], "bach"
    elif case == "contradiction":
        more, words = ["train.method = bcp"], "a box of its own"
    else:
        module.widget.logic.base_model = None  # none comes with CPS4
        words = "Choose one under Segment"
    panel = prepared(module, data, output, more)
    panel.ui.stagesBox.currentIndex = GO_ON if "model" in case else BOTH
    run(module, panel)
    (message,) = module.harness.dialogs.errors
    assert words in message.text
    assert "Traceback" not in message.text
    assert panel.ui.startButton.enabled


def test_training_outlives_a_closed_scene_and_stops_with_the_module(module, data, tmp_path):
    panel = prepared(module, data, tmp_path / "out", ["train.epochs=400"])
    choose(panel.ui.methodBox, "supervised")
    panel.ui.stagesBox.currentIndex = STAGE_2
    panel.ui.startButton.click()
    module.wait(lambda: "Step" in panel.ui.statusLabel.text)
    module.harness.close_scene()
    assert panel.ui.stopButton.enabled
    module.widget.cleanup()
    assert not panel.ui.stopButton.enabled or panel._job is None
