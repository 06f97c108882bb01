"""The model that comes with CPS4 is found wherever CPS4 is, and taken where no other is named."""

import importlib.metadata
import json
import shutil
import sys
import threading
import tomllib
from pathlib import Path

import pytest
import SimpleITK as sitk
from small_models import tiny_changes
from typer.testing import CliRunner

from CPS4Core import shipped_model
from CPS4Core.card import ENCODERS, NETWORK, Card
from CPS4Core.cli import _preset, app
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Failed, Finished, parse
from CPS4Core.inference.worker import Worker
from CPS4Core.model_folder import ModelFolder
from CPS4Core.shipped_model import base_model, model_path

ROOT = Path(__file__).parents[2]


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """No model is beside the engine: it looks in a folder that does not exist yet."""
    monkeypatch.setattr(shipped_model, "BESIDE", tmp_path / "Resources" / "Models" / "base")
    monkeypatch.setattr(shipped_model, "_TARGET", tmp_path / "share" / "cps4" / "Models" / "base")
    # An editable installation lists the checkout's files.
    monkeypatch.setattr(shipped_model, "files", lambda package: [])
    return tmp_path


@pytest.fixture
def shipped(elsewhere, trained_model):
    """A small model stands in for the one that comes with CPS4."""
    shutil.copytree(trained_model, shipped_model.BESIDE)
    return shipped_model.BESIDE


def test_it_is_beside_the_engine_in_a_checkout_and_in_slicer():
    assert shipped_model.BESIDE == ROOT / "Resources" / "Models" / "base"


def test_base_is_a_name_and_anything_else_a_path(shipped):
    assert model_path("base") == base_model() == shipped
    assert model_path("./base") == Path("base")
    assert model_path("runs/stage2/model") == Path("runs/stage2/model")


def test_without_it_the_remedy_is_said(elsewhere):
    assert base_model() is None
    with pytest.raises(CPS4Error, match="make base"):
        model_path("base")


def test_an_installed_package_has_it_among_its_data(elsewhere, trained_model, monkeypatch):
    library, data = elsewhere / "lib", elsewhere / "share" / "cps4" / "Models" / "base"
    monkeypatch.setattr(shipped_model, "_TARGET", elsewhere / "nowhere")
    monkeypatch.setattr(shipped_model, "files", importlib.metadata.files)
    shutil.copytree(trained_model, data)
    about = library / "cps4-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cps4\nVersion: 0.1.0\n")
    (about / "RECORD").write_text(
        "CPS4Core/__init__.py,,\n../share/cps4/Models/README.md,,\n../share/cps4/Models/base/card.json,,\n"
    )
    monkeypatch.setattr(sys, "path", [str(library), *sys.path])
    assert base_model() == data


def test_the_package_takes_every_kind_of_file_of_a_model():
    """Its data are listed folder by folder: a model with a folder inside would lose it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["data-files"]
    packed = {path for patterns in listed.values() for pattern in patterns for path in ROOT.glob(pattern)}
    assert {path for path in (ROOT / "Resources" / "Models").rglob("*") if path.is_file()} == packed


def test_the_command_line_segments_and_attends_with_it(shipped, data_set, tmp_path):
    scan = data_set / "imagesTs/test_0001_0000.nii.gz"
    done = CliRunner().invoke(app, ["segment", str(scan), str(tmp_path / "out.nii.gz"), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert sitk.ReadImage(str(tmp_path / "out.nii.gz")).GetSize() == sitk.ReadImage(str(scan)).GetSize()
    maps = ["attend", str(scan), str(tmp_path / "maps"), "--prompt", "L4", "--device", "cpu"]
    assert CliRunner().invoke(app, maps).exit_code == 0
    assert list((tmp_path / "maps").glob("*L4_attention.nii.gz"))
    check = ["check", str(scan), str(tmp_path / "out.nii.gz"), "--model", "base", "--device", "cpu"]
    assert CliRunner().invoke(app, check).exit_code == 0


def test_the_command_line_says_that_it_is_missing(elsewhere, data_set, tmp_path):
    scan = data_set / "imagesTs/test_0001_0000.nii.gz"
    done = CliRunner().invoke(app, ["segment", str(scan), str(tmp_path / "out.nii.gz"), "--events"])
    (failed,) = (event for event in map(parse, done.stdout.splitlines()) if isinstance(event, Failed))
    assert done.exit_code == 1
    assert "base model is not here" in failed.problem
    assert "--model" in failed.remedy


def test_the_worker_loads_it_by_name(shipped, data_set, tmp_path):
    events, answered = [], threading.Event()
    result = tmp_path / "out.nii.gz"
    request = {
        "request": "a",
        "do": "segment",
        "model": "base",
        "device": "cpu",
        "input": str(data_set / "imagesTs/test_0001_0000.nii.gz"),
        "output": str(result),
    }

    def report(event):
        events.append(event)
        if isinstance(event, (Finished, Failed)):
            answered.set()

    def requests():
        yield json.dumps(request)
        answered.wait(60)

    Worker(report).serve(requests())
    assert isinstance(events[-1], Finished)
    assert result.is_file()


def test_both_stages_start_from_it(shipped, data_set, text_model, tmp_path):
    """By the command line, with settings by which they all but stay where they start."""
    changes = [
        *tiny_changes(text_model),
        "pretrain.learning_rate=1e-12",
        "pretrain.epochs=1",
        "train.learning_rate=1e-12",
        "train.epochs=1",
        "train.steps_per_epoch=1",
    ]
    changes = [part for change in changes for part in ("--set", change)]
    for verb in ("pretrain", "train"):
        arguments = [
            verb,
            str(data_set),
            str(tmp_path / verb),
            "--start",
            "base",
            "--device",
            "cpu",
            *changes,
        ]
        done = CliRunner().invoke(app, [*arguments, "--cache", str(tmp_path / "cache"), "--events"])
        assert done.exit_code == 0, done.output
        assert any(isinstance(event, Artifact) for event in map(parse, done.stdout.splitlines()))
    begun, pretrained, trained = map(
        ModelFolder.open, (shipped, tmp_path / "pretrain/model", tmp_path / "train/model")
    )
    assert trained.card.settings["preset"] == pretrained.card.settings["preset"] == "small"
    assert trained.sha256(ENCODERS) == begun.sha256(ENCODERS)
    for one, other in (
        (begun.load_encoders(), pretrained.load_encoders()),
        (begun.load_network(), trained.load_network()),
    ):
        ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
        assert ours.keys() == theirs.keys()
        assert all(ours[name].allclose(theirs[name], atol=1e-6) for name in ours)


def test_the_preset_is_that_of_the_model_to_start_from(shipped):
    assert _preset(None, shipped) == "small"
    assert _preset("paper", shipped) == "paper"
    assert _preset(None, None) == "paper"


@pytest.mark.skipif(base_model() is None, reason="the base model is not made yet")
def test_what_ships_can_segment_attend_and_be_trained_on():
    card = Card.read(base_model())
    assert {NETWORK, ENCODERS} <= card.weights.keys()
    assert card.settings["preset"] == "base"
    assert card.about["name"] == "CPS4 base"
    assert all((base_model() / weights.file).is_file() for weights in card.weights.values())
