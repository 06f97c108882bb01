"""Settings: presets, changes and what is refused."""

import importlib
import json
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from CPS4Core.cancellation import Cancellation
from CPS4Core.cli import app
from CPS4Core.config import PAPER, load_settings, parse_settings
from CPS4Core.errors import CPS4Error


def test_the_paper_preset_says_what_the_paper_says():
    assert PAPER.input.size == (256, 512)
    assert PAPER.pretrain.learning_rate == 1e-5
    assert PAPER.train.epochs == 300
    assert PAPER.train.batch == 8
    assert PAPER.train.learning_rate == PAPER.train.weight_decay == 1e-4
    assert [round(share * PAPER.train.epochs) for share in PAPER.train.rate_drops] == [100, 200]


def test_changes_apply_to_one_field_each():
    settings = load_settings(
        "small", ["train.presence_gate=true", "encoders.text=a/b", "input.size=[64, 128]"]
    )
    assert settings.train.presence_gate is True
    assert settings.encoders.text == "a/b"
    assert settings.input.size == (64, 128)
    assert settings.pretrain == load_settings("small").pretrain


def test_a_comparison_system_has_settings_of_its_own():
    train = load_settings("paper", ["train.baselines.bcp.largest_component=false"]).train
    assert not train.baselines.bcp.largest_component
    assert train.model_copy(update={"baselines": PAPER.train.baselines}) == PAPER.train


@pytest.mark.parametrize(
    "change",
    [
        "train.methd=cps4",
        "nothing.x=1",
        "train.batch=0",
        "train.batch",
        "seed=-1",
        "train.ema_decay=1.0",
        "train.baselines.bpc.largest_component=true",
        "train.baselines.bcp.largest=true",
    ],
)
def test_a_wrong_change_is_one_clear_error(change):
    with pytest.raises(CPS4Error) as caught:
        load_settings("paper", [change])
    assert "\n" not in str(caught.value)


def test_an_option_that_was_not_given_changes_nothing():
    settings = load_settings("paper", ["train.method=mc_net", "seed=7"], {"train.method": None, "seed": None})
    assert (settings.train.method, settings.seed) == ("mc_net", 7)


def test_an_option_that_was_given_counts():
    settings = load_settings("paper", ["seed=7"], {"train.method": "ucmt", "seed": 7})
    assert (settings.train.method, settings.seed) == ("ucmt", 7)


@pytest.mark.parametrize(
    "change", ["train.method=cps4", 'train.method="cps4"', "seed=0", "preset=small", " seed = 1"]
)
def test_an_option_and_a_change_that_contradict_each_other_are_one_clear_error(change):
    with pytest.raises(CPS4Error, match="twice"):
        load_settings("paper", [change], {"train.method": "mc_net", "seed": 7})


@pytest.fixture
def command_line(monkeypatch):
    """The command ``cps4`` in this process, whose signals stay those of pytest."""
    monkeypatch.setattr(Cancellation, "listen_to_signals", lambda self: None)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("command", "changes", "expected"),
    [
        ("train", ["--set=train.method=mc_net", "--set=seed=7"], ("mc_net", "cps4", 7)),
        ("train", ["--method=ucmt"], ("ucmt", "cps4", 0)),
        ("train", ["--method=ucmt", "--seed=3"], ("ucmt", "cps4", 3)),
        ("pretrain", ["--set=pretrain.objective=clip", "--set=seed=7"], ("cps4", "clip", 7)),
        ("pretrain", ["--objective=mgca"], ("cps4", "mgca", 0)),
    ],
)
def test_the_command_line_trains_what_was_asked_for(command, changes, expected, command_line, monkeypatch):
    module = importlib.import_module(f"CPS4Core.training.{command}")
    settings = []
    monkeypatch.setattr(module, command, lambda data, run, given, **more: settings.append(given))
    result = command_line(command, "data", "run", "--device=cpu", *changes)
    assert result.exit_code == 0, result.output
    (found,) = settings
    assert (found.train.method, found.pretrain.objective, found.seed) == expected


def test_the_command_line_tells_a_contradiction(command_line):
    result = command_line("train", "data", "run", "--method=ucmt", "--set=train.method=bcp")
    assert result.exit_code == 1
    assert "twice" in result.output and "Traceback" not in result.output


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(CPS4Error, match="paper, small"):
        load_settings("large")


def test_settings_survive_json():
    settings = load_settings("small")
    assert parse_settings(json.loads(settings.model_dump_json())) == settings


def test_the_modules_that_slicer_shares_import_fast_and_without_the_engine():
    code = "import sys; import CPS4Core.class_table, CPS4Core.events, CPS4Core.systems; print(*sys.modules)"
    start = time.perf_counter()
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout.split()
    assert time.perf_counter() - start < 5  # a bound that only a heavy import breaks, on a busy machine too
    assert not {"torch", "numpy", "pydantic", "SimpleITK", "transformers"} & set(loaded)


def test_a_number_that_is_none_is_refused():
    with pytest.raises(CPS4Error, match="'seed' is not valid"):
        load_settings("small", ["seed=NaN"])
    with pytest.raises(CPS4Error, match=r"must be multiples of 4, as train\.widths has 3 levels"):
        load_settings("small", ["train.widths=[4,8,16]", "input.size=[30,64]"])
