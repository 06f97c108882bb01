"""After a segmentation, the model's teacher and its class prompts have their say in the confidence."""

import csv
import json
import shutil

import psutil
import pytest

from CPS4Core.class_table import BY_LABEL


@pytest.fixture
def module(module):
    module.choose_model()
    return module


def agreement(node):
    from CPS4SegmentationLib.segmentations import agreement_of, segments

    return {segment.GetName(): agreement_of(segment) for segment in segments(node)}


def checked(node):
    return all("teacher" in spoken for spoken in agreement(node).values())


def sent_to(module, monkeypatch):
    """Return the list of what is sent to the engine, which grows."""
    from CPS4SegmentationLib.engine import EngineProcess

    sent, plain = [], EngineProcess.send

    def send(process, request):
        sent.append(request)
        plain(process, request)

    monkeypatch.setattr(EngineProcess, "send", send)
    return sent


def verbs(sent):
    return [request["do"] for request in sent]


def segment_until_checked(module, monkeypatch):
    """Segment, and hold the engine just before it is asked for the check.

    Returns:
        The engine, to be resumed; what was sent to it; the segmentation.
    """
    from CPS4SegmentationLib.engine import EngineProcess

    sent, held = sent_to(module, monkeypatch), []
    send = EngineProcess.send

    def hold(process, request):
        if request["do"] == "check" and not held:
            held.append(psutil.Process(process._process.processId()))
            held[0].suspend()
        send(process, request)

    monkeypatch.setattr(EngineProcess, "send", hold)
    module.load()
    node = module.segment()
    module.wait(lambda: "check" in verbs(sent))
    return held[0], sent, node


def with_trusted_prompts(model, folder):
    """Return a copy of a model whose card trusts the class prompts of all structures but L3."""
    shutil.copytree(model, folder)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card["text_trust"] = {
        structure.short: 0.0 if structure.short == "L3" else 1.0 for structure in BY_LABEL.values()
    }
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def test_the_confidence_gains_teacher_and_prompts(module, tmp_path):
    module.choose_model(with_trusted_prompts(module.model, tmp_path / "model"))
    module.load()
    node = module.segment()
    module.wait(lambda: checked(node))
    panel = module.panel("review")
    table, known = panel.ui.structureTable, agreement(node)
    assert {name for name, spoken in known.items() if "prompts" not in spoken} <= {"L3"}
    assert any("prompts" in spoken for spoken in known.values())
    for row in range(table.rowCount):
        numbers = known.get(table.item(row, 0).text())
        if numbers is None:  # a missing structure
            continue
        item = table.item(row, 2)
        assert float(item.text()) == pytest.approx(sum(numbers.values()) / len(numbers), abs=0.006)
        assert f"network {numbers['network']:.2f}, teacher {numbers['teacher']:.2f}" in item.toolTip()
        flagged = "unsure" in table.item(row, 3).text()
        assert flagged == (round(sum(numbers.values()) / len(numbers), 2) < 0.7)
    module.harness.dialogs.answer(str(tmp_path / "measurements.csv"))
    panel.ui.exportTableButton.click()
    with (tmp_path / "measurements.csv").open(encoding="utf-8") as file:
        lines = {line["structure"]: line for line in csv.DictReader(file)}
    for name, numbers in known.items():
        assert float(lines[name]["teacher"]) == pytest.approx(numbers["teacher"], abs=0.001)
        assert bool(lines[name]["class prompts"]) == ("prompts" in numbers)


def test_a_shift_of_levels_keeps_each_structure_s_numbers(module):
    module.load()
    node = module.segment()
    from CPS4SegmentationLib.segmentations import set_agreement

    module.wait(lambda: checked(node))
    first = node.GetSegmentation().GetNthSegmentID(0)
    label = int(first.removeprefix("CPS4_"))
    panel = module.panel("review")
    panel.ui.levelsDownButton.click()
    assert node.GetSegmentation().GetNthSegment(0).GetName() != BY_LABEL[label].short
    set_agreement(node, {str(label): {"teacher": 0.125}})
    assert agreement(node)[node.GetSegmentation().GetNthSegment(0).GetName()]["teacher"] == 0.125
    set_agreement(node, {"19": {"teacher": 0.5}, "1": {"teacher": 0.5}})  # maybe deleted: no harm


def test_volumes_in_line_come_before_checks(module, monkeypatch):
    sent = sent_to(module, monkeypatch)
    module.load(name="one")
    module.load(name="two")
    panel = module.panel("segment")
    panel.ui.segmentAllButton.click()
    module.wait(lambda: not panel.ui.cancelButton.enabled)
    nodes = module.slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert len(nodes) == 2
    module.wait(lambda: all(checked(node) for node in nodes))
    assert verbs(sent) == ["segment", "segment", "check", "check"]


def test_a_check_makes_way_for_the_user_and_comes_after(module, monkeypatch):
    engine, sent, node = segment_until_checked(module, monkeypatch)
    attention = module.panel("attention")
    attention.ui.promptEdit.text = "L4"
    attention.ui.promptButton.click()
    engine.resume()
    module.wait(lambda: attention.ui.makeSegmentButton.enabled)
    module.wait(lambda: checked(node))
    assert verbs(sent) == ["segment", "check", "cancel", "attend", "check"]
    assert sent[2]["which"] == sent[1]["request"]
    assert not module.harness.dialogs.errors


def test_another_model_is_not_loaded_for_a_check(module, monkeypatch):
    engine, sent, node = segment_until_checked(module, monkeypatch)
    # The user goes on with another model while the check runs.
    module.choose_model(module.trained / "stage 1" / "model")
    attention = module.panel("attention")
    attention.ui.promptEdit.text = "L4"
    attention.ui.promptButton.click()
    engine.resume()
    module.wait(lambda: attention.ui.makeSegmentButton.enabled)
    module.harness.process_events()
    assert verbs(sent) == ["segment", "check", "cancel", "attend"]
    assert all(set(spoken) == {"network"} for spoken in agreement(node).values())


def test_a_scene_closed_during_the_check(module, monkeypatch):
    engine, sent, _ = segment_until_checked(module, monkeypatch)
    module.harness.close_scene()
    engine.resume()
    module.load()
    node = module.segment()  # with the node IDs of the scene before
    module.wait(lambda: checked(node))
    assert verbs(sent)[:3] == ["segment", "check", "cancel"]
    assert not module.harness.dialogs.errors


def test_a_check_that_fails_is_told_in_the_log_alone(module, monkeypatch):
    from CPS4SegmentationLib.worker_client import WorkerClient

    plain = WorkerClient.check
    monkeypatch.setattr(
        WorkerClient,
        "check",
        lambda client, model, device, source, labels, network, on_event: plain(
            client, model, device, source, labels.with_name("gone.seg.nrrd"), network, on_event
        ),
    )
    module.load()
    node = module.segment()
    lines = module.widget.logic.lines
    module.wait(lambda: any("does not exist" in line for line in lines))
    assert not module.harness.dialogs.errors
    assert all(set(spoken) == {"network"} for spoken in agreement(node).values())


def test_a_result_knows_its_model_and_no_other_is_asked(module, monkeypatch, tmp_path):
    from CPS4SegmentationLib.segmentations import MADE_BY
    from CPS4SegmentationLib.worker_client import WorkerClient

    plain = WorkerClient.check

    def check_after_training_on(client, model, device, source, labels, network, on_event):
        made_by.append(network)
        plain(client, model, device, source, labels, "0" * 64, on_event)

    made_by = []
    monkeypatch.setattr(WorkerClient, "check", check_after_training_on)
    module.load()
    node = module.segment()
    lines = module.widget.logic.lines
    module.wait(lambda: any("has changed" in line for line in lines))
    assert not module.harness.dialogs.errors
    assert all(set(spoken) == {"network"} for spoken in agreement(node).values())
    card = json.loads((module.model / "card.json").read_text(encoding="utf-8"))
    assert made_by == [card["weights"]["network"]["sha256"]]
    module.harness.reopen_scene(tmp_path / "scene.mrb")
    assert module.widget.segment.parameters.segmentation.GetAttribute(MADE_BY) == made_by[0]


def test_a_worker_that_dies_while_checking_harms_nothing(module, monkeypatch):
    engine, _, node = segment_until_checked(module, monkeypatch)
    engine.kill()
    module.wait(lambda: module.widget.logic.worker._process is None)
    assert not module.harness.dialogs.errors
    assert module.segment() is node  # started again
    module.wait(lambda: checked(node))


def test_the_numbers_come_back_with_a_saved_scene(module, tmp_path):
    module.load()
    node = module.segment()
    module.wait(lambda: checked(node))
    before = agreement(node)
    module.harness.reopen_scene(tmp_path / "scene.mrb")
    again = module.widget.segment.parameters.segmentation
    assert agreement(again) == before
