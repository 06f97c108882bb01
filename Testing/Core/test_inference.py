"""From a volume to labels and maps: on the volume's grid, past bad cases, in every format."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from small_models import MEMORY_ERRORS

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import NETWORK
from CPS4Core.class_table import BY_LABEL
from CPS4Core.errors import CPS4Error
from CPS4Core.evaluation.evaluate import evaluate
from CPS4Core.events import Artifact, Failed, Finished, Warned, parse
from CPS4Core.inference.attend import attend_volume
from CPS4Core.inference.attention import AttentionMapper
from CPS4Core.inference.batch import find_tasks, segment_all
from CPS4Core.inference.outputs import segment_header, write_segmentation
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.inference.worker import Worker
from CPS4Core.model_folder import ModelFolder
from CPS4Core.segmentation.batch_norm import fold_batch_norms
from CPS4Core.synthesis.phantom.volume import make_phantom

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(trained_model):
    return trained_model


@pytest.fixture(scope="module")
def scan(data_set):
    return data_set / "imagesTs/test_0001_0000.nii.gz"


def assert_on_grid_of(result, image):
    assert result.GetSize() == image.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(result, name)() == pytest.approx(getattr(image, name)(), abs=1e-6)


def test_labels_and_maps_lie_on_the_volume(model, scan):
    image = sitk.ReadImage(str(scan))
    assert_on_grid_of(Segmenter(ModelFolder.open(model), CPU).segment(image).labels, image)
    mapper = AttentionMapper(ModelFolder.open(model), CPU)
    volume = mapper.encode(image)
    for text in ("L4", "a herniated disc"):
        found = mapper.attend(volume, text)
        assert_on_grid_of(found.attention, image)
        assert_on_grid_of(found.binary, image)
        assert 0 <= found.peak <= 1
    assert mapper.attend(volume, "L4").label == 3
    assert mapper.attend(volume, "a herniated disc").label is None


def test_the_stored_orientation_does_not_change_the_anatomy(model):
    phantom = make_phantom(3)
    segmenter = Segmenter(ModelFolder.open(model), CPU)
    plain = sitk.DICOMOrient(segmenter.segment(sitk.DICOMOrient(phantom.image, "PIR")).labels, "LPS")
    turned = sitk.DICOMOrient(segmenter.segment(sitk.DICOMOrient(phantom.image, "SRA")).labels, "LPS")
    assert_on_grid_of(turned, plain)
    same = sitk.GetArrayFromImage(plain) == sitk.GetArrayFromImage(turned)
    assert same.mean() > 0.999


@pytest.mark.parametrize("error", MEMORY_ERRORS)
def test_too_little_memory_takes_fewer_slices_with_the_same_result(error, model, scan, monkeypatch):
    image = sitk.ReadImage(str(scan))
    expected = sitk.GetArrayFromImage(Segmenter(ModelFolder.open(model), CPU).segment(image).labels)
    segmenter = Segmenter(ModelFolder.open(model), CPU)
    plain = segmenter._logits

    def logits(slices):
        if len(slices) > 1:
            raise error
        return plain(slices)

    monkeypatch.setattr(segmenter, "_logits", logits)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(segmenter.segment(image).labels), expected)


def test_another_error_of_the_device_is_not_taken_for_one_of_memory(model, scan, monkeypatch):
    segmenter = Segmenter(ModelFolder.open(model), CPU)

    def logits(slices):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(segmenter, "_logits", logits)
    with pytest.raises(RuntimeError, match="assert"):
        segmenter.segment(sitk.ReadImage(str(scan)))


def test_a_folder_goes_on_past_a_bad_case(model, scan, tmp_path):
    folder = tmp_path / "scäns with spaces"
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(b"not an image")
    shutil.copy(scan, folder / "b.nii.gz")
    events = []
    failures = segment_all(
        Segmenter(ModelFolder.open(model), CPU),
        find_tasks(folder, tmp_path / "out", ".nrrd"),
        levels="as-seen",
        report=events.append,
        cancellation=Cancellation(),
    )
    assert [failure.path for failure in failures] == [str(folder / "a.nii.gz")]
    assert failures[0].remedy
    assert (tmp_path / "out/b.nrrd").is_file()
    assert any(isinstance(event, Artifact) for event in events)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".seg.nrrd"])
def test_every_format_keeps_labels_and_grid(suffix, data_set, tmp_path):
    labels = sitk.ReadImage(str(data_set / "labelsTs/test_0001.nii.gz"))
    write_segmentation(labels, tmp_path / f"labels{suffix}")
    again = sitk.ReadImage(str(tmp_path / f"labels{suffix}"))
    assert_on_grid_of(again, labels)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(labels))


def test_a_slicer_segmentation_lists_its_structures_head_to_tail():
    labels = np.zeros((4, 10, 12), np.uint8)
    labels[1:3, 2:5, 3:9] = 3
    labels[2, 6:8, 1:2] = 2
    header = segment_header(labels)
    assert (header["Segment0_Name"], header["Segment1_Name"]) == ("L4", "L5")
    assert header["Segment0_Extent"] == "3 8 2 4 1 2"
    assert header["Segment0_LabelValue"] == "3"
    assert BY_LABEL[3].snomed in header["Segment0_Tags"]
    assert "Segment2_Name" not in header


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(CPS4Error, match="format"):
        write_segmentation(sitk.Image(2, 2, 2, sitk.sitkUInt8), tmp_path / "labels.png")


def test_evaluation_names_a_shift_and_skips_what_does_not_fit(data_set, tmp_path):
    truth = sitk.ReadImage(str(data_set / "labelsTs/test_0001.nii.gz"))
    (tmp_path / "truth").mkdir()
    (tmp_path / "found").mkdir()
    sitk.WriteImage(truth, str(tmp_path / "truth/a.nii.gz"))
    sitk.WriteImage(truth, str(tmp_path / "truth/b.nii.gz"))
    sitk.WriteImage(truth, str(tmp_path / "found/a.nii.gz"))
    sitk.WriteImage(truth[1:], str(tmp_path / "found/b.nii.gz"))
    results = evaluate(tmp_path / "found", tmp_path / "truth", tmp_path / "tables")
    assert results.summary()["mdice"] == 1
    assert results.summary()["level_accuracy"] == 1
    assert len(results.skipped) == 1
    assert {table.name for table in (tmp_path / "tables").glob("[a-z]*")} == {
        "cases.csv",
        "classes.csv",
        "summary.md",
        "summary.json",
    }


def test_evaluation_without_pandas_says_what_to_install(tmp_path):
    script = "import sys; sys.modules['pandas'] = None; from CPS4Core.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "evaluate", str(tmp_path), str(tmp_path), str(tmp_path)],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert "pip install pandas" in done.stderr
    assert "Traceback" not in done.stderr


def serve(*requests):
    """Return the worker's answers to requests, each a dictionary or a raw line."""
    events = []
    lines = [request if isinstance(request, str) else json.dumps(request) for request in requests]
    gate = threading.Event()

    def feed():
        yield from lines
        gate.wait(60)

    def report(event):
        events.append(event)
        if sum(isinstance(event, (Finished, Failed)) for event in events) == len(lines):
            gate.set()

    Worker(report).serve(feed())
    return events


def test_the_worker_refuses_levels_that_it_does_not_know(model, scan):
    fields = {
        "do": "segment",
        "model": str(model),
        "device": "cpu",
        "input": str(scan),
        "output": "labels.nrrd",
    }
    (answer,) = serve({"request": "1", "levels": "guessed", **fields})
    assert answer.remedy == "Use one of: counted, as-seen."


def test_the_worker_answers_and_survives_broken_requests(model, scan, tmp_path):
    warm = {"model": str(model), "device": "cpu", "input": str(scan)}
    segment = {"do": "segment", **warm}
    events = serve(
        "no json",
        {"request": "0", "do": "segment", "input": str(scan), "output": "x.nrrd"},
        {"request": "1", **segment, "model": str(tmp_path), "output": "x.nrrd"},
        {"request": "2", "do": "dance"},
        {"request": "3", "do": "segment", "model": str(model), "output": "x.nrrd"},
        {"request": "4", **segment, "output": str(tmp_path / "a.seg.nrrd")},
        {"request": "5", "do": "attend", **warm, "prompts": ["L4"], "output": str(tmp_path)},
        {"request": "6", **segment, "input": str(tmp_path / "none.nii.gz"), "output": "x.nrrd"},
        {"request": "7", **segment, "device": "abacus", "output": "x.nrrd"},
    )
    last = {event.request: event for event in events if isinstance(event, (Finished, Failed))}
    assert isinstance(last[None], Failed)
    assert "model" in last["0"].problem
    assert "no model folder" in last["1"].problem
    assert "dance" in last["2"].problem
    assert "input" in last["3"].problem
    assert isinstance(last["4"], Finished)
    assert (tmp_path / "a.seg.nrrd").is_file()
    assert (tmp_path / "class_03_attention.nrrd").is_file()
    assert "does not exist" in last["6"].problem
    assert "abacus" in last["7"].problem


def test_the_worker_keeps_the_last_model_and_each_answer_carries_its_request(
    model, scan, tmp_path, monkeypatch
):
    loaded, plain = [], ModelFolder.load_network

    def load_network(folder, part=NETWORK):
        loaded.append(folder.path)
        return plain(folder, part)

    monkeypatch.setattr(ModelFolder, "load_network", load_network)
    other = shutil.copytree(model, tmp_path / "other")
    segment = {"do": "segment", "device": "cpu", "input": str(scan), "output": str(tmp_path / "a.nrrd")}
    asked = {"1": model, "2": model, "3": other, "4": model}
    events = serve(*({"request": number, **segment, "model": str(path)} for number, path in asked.items()))
    assert loaded == [model, other, model]
    assert [event.request for event in events if isinstance(event, Artifact)] == list(asked)
    assert {event.request for event in events} == set(asked)


def test_the_worker_cancels_what_waits(model, scan, tmp_path):
    segment = {"do": "segment", "model": str(model), "device": "cpu", "input": str(scan)}
    events = serve(
        {"request": "1", **segment, "output": str(tmp_path / "a.nrrd")},
        {"request": "2", **segment, "output": str(tmp_path / "a.nrrd")},
        {"request": "3", "do": "cancel"},
    )
    last = {event.request: event for event in events if isinstance(event, Finished)}
    assert last["2"].cancelled
    assert not (tmp_path / "a.nrrd").exists()


def test_the_worker_checks_and_cancels_one_request_by_name(model, scan, data_set):
    warm = {"model": str(model), "device": "cpu", "input": str(scan)}
    check = {"do": "check", **warm, "labels": str(data_set / "labelsTs/test_0001.nii.gz")}
    events = serve(
        {"request": "1", "do": "segment", **warm, "output": str(data_set.parent / "labels.nrrd")},
        {"request": "2", **check},
        {"request": "3", **check},
        {"request": "4", "do": "cancel", "which": "2"},
        {"request": "5", **check, "labels": "none.nii.gz"},
        {"request": "6", **check, "network": "of another training"},
    )
    last = {event.request: event for event in events if isinstance(event, (Finished, Failed))}
    assert last["2"].cancelled
    assert not last["3"].cancelled
    assert "does not exist" in last["5"].problem
    assert "has changed" in last["6"].problem
    (found,) = (event for event in events if isinstance(event, Artifact) and event.role == "agreement")
    assert found.request == "3"
    for numbers in found.details["agreement"].values():
        assert {"network", "teacher"} <= set(numbers)
        assert all(0 <= number <= 1 for number in numbers.values())


def test_the_worker_takes_up_what_training_wrote_meanwhile(model, scan, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    opened = ModelFolder.open(folder)
    labels = str(tmp_path / "labels.nrrd")
    warm = {"model": str(folder), "device": "cpu", "input": str(scan)}
    segment = {"do": "segment", **warm, "output": labels, "levels": "as-seen"}
    check = {"do": "check", **warm, "labels": labels, "network": opened.sha256()}
    background = {
        name: torch.zeros_like(weight) for name, weight in opened.load_network().state_dict().items()
    }
    lines = [{"request": "1", **segment}, {"request": "2", **check}]
    events, answered = [], []

    def feed():
        yield from map(json.dumps, lines)
        assert first.wait(60)
        ModelFolder.write(folder, 10**5, {NETWORK: background}, opened.card)
        yield json.dumps({"request": "3", **check})
        yield json.dumps({"request": "4", **segment})
        assert second.wait(60)

    def report(event):
        events.append(event)
        if isinstance(event, (Finished, Failed)):
            answered.append(event)
        if len(answered) == 2:
            first.set()
        if len(answered) == 4:
            second.set()

    first, second = threading.Event(), threading.Event()
    Worker(report).serve(feed())
    last = {event.request: event for event in answered}
    assert all(isinstance(last[number], Finished) for number in "124")
    assert "has changed" in last["3"].problem
    before, after = (
        event.details for event in events if isinstance(event, Artifact) and event.role == "segmentation"
    )
    assert before["network"] == check["network"]
    assert before["confidence"]
    assert after["network"] == ModelFolder.open(folder).sha256() != before["network"]
    assert not after["confidence"]  # it sees background alone


@pytest.mark.parametrize("error", MEMORY_ERRORS)
def test_where_less_at_once_does_not_help_too_little_memory_is_said(
    error, model, scan, tmp_path, monkeypatch
):
    def encode(*_):
        raise error

    monkeypatch.setattr(AttentionMapper, "encode", encode)
    warm = {"model": str(model), "device": "cpu", "input": str(scan)}
    events = serve(
        {"request": "1", "do": "attend", **warm, "prompts": ["L4"], "output": str(tmp_path)},
        {"request": "2", "do": "segment", **warm, "output": str(tmp_path / "a.seg.nrrd")},
    )
    last = {event.request: event for event in events if isinstance(event, (Finished, Failed))}
    assert "not enough memory" in last["1"].problem
    assert "cpu" in last["1"].remedy
    assert isinstance(last["2"], Finished)


def test_the_command_line_says_so_too(scan, model, tmp_path):
    code = """
from unittest.mock import patch
from CPS4Core.cli import app
from small_models import MEMORY_ERRORS
with patch("CPS4Core.inference.attend.attend_volume", side_effect=MEMORY_ERRORS[1]):
    app()
"""
    arguments = ["attend", scan, tmp_path / "out", "--model", model, "--prompt", "L4"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 1
    assert "not enough memory" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "CPS4Core.cli", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )


def test_the_command_line_segments_a_folder_and_says_what_failed(model, scan, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    shutil.copy(scan, folder / "good.nii.gz")
    (folder / "bad.nii.gz").write_bytes(b"")
    done = command(
        "segment", folder, tmp_path / "out", "--model", model, "--device", "cpu", "--suffix", ".seg.nrrd"
    )
    assert done.returncode == 1
    assert "Not segmented" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out/good.seg.nrrd").is_file()


def test_the_command_line_writes_maps_and_a_figure(model, scan, tmp_path):
    done = command(
        "attend", scan, tmp_path, "--model", model, "--prompt", "L4", "--device", "cpu", "--events"
    )
    assert done.returncode == 0, done.stderr
    events = [parse(line) for line in done.stdout.splitlines()]
    assert isinstance(events[-1], Finished)
    (figure,) = (event.path for event in events if isinstance(event, Artifact) and event.role == "figure")
    assert Path(figure).read_bytes()[:4] == b"\x89PNG"


def test_no_map_overwrites_that_of_another_prompt(model, scan, tmp_path):
    events = []
    prompts = ["a disc?", "a disc!", "L4"]
    attend_volume(scan, tmp_path, ModelFolder.open(model), prompts, None, CPU, events.append, Cancellation())
    maps = [event for event in events if isinstance(event, Artifact) and event.role == "attention"]
    assert [event.details["prompt"] for event in maps][:2] == prompts[:2]
    files = {path for event in maps for path in (event.path, event.details["binary"])}
    assert files == {str(path) for path in tmp_path.glob("*.nii.gz")}
    assert len(files) == 6


def test_the_network_that_segments_computes_what_was_trained_in_fewer_steps(model):
    folder = ModelFolder.open(model)
    trained, folded = folder.load_network(), fold_batch_norms(folder.load_network())
    slices = torch.randn(2, 1, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(folded(slices), trained(slices), rtol=1e-4, atol=1e-4)
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def imported_by(*arguments):
    """Return the modules that a command of `cps4` imports."""
    code = (
        "import sys; from CPS4Core.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('IMPORTED', *sys.modules)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    return set(done.stdout.splitlines()[-1].removeprefix("IMPORTED ").split())


def test_segmenting_imports_nothing_that_it_does_not_use(model, scan, tmp_path):
    found = imported_by("segment", scan, tmp_path / "labels.nii.gz", "--model", model, "--device", "cpu")
    assert "torch" in found
    heavy = {"accelerate", "matplotlib", "pandas", "pydicom", "timm", "torchvision", "transformers"}
    assert not found & (heavy | {"torch._dynamo", "torch._inductor"})


def test_help_imports_nothing_heavy():
    heavy = {"accelerate", "numpy", "PIL", "scipy", "SimpleITK", "skimage", "torch", "transformers"}
    assert not imported_by("segment", "--help") & heavy


def test_what_reading_says_comes_in_the_order_of_the_scans(model, data_set, tmp_path):
    """Scans are read ahead; what is said of one still comes before its result and after that of the one before."""
    folder = tmp_path / "scans"
    folder.mkdir()
    volume = sitk.ReadImage(str(data_set / "imagesTs/test_0001_0000.nii.gz"))
    volume = sitk.DICOMOrient(volume, "LPS")
    single = volume[2:3]
    for name in "abc":
        sitk.WriteImage(single, str(folder / f"{name}.nii.gz"))
    events = []
    segment_all(
        Segmenter(ModelFolder.open(model), CPU),
        find_tasks(folder, tmp_path / "out", ".nii.gz"),
        levels="as-seen",
        report=events.append,
        cancellation=Cancellation(),
    )
    kinds = [type(event) for event in events if isinstance(event, (Warned, Artifact))]
    assert kinds == [Warned, Artifact] * 3
