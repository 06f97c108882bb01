"""The systems of Table 1: the lists that Slicer and the command line show are what the engine has, and each trains."""

import math

import pytest
import torch
from small_models import StopAt, tiny_changes

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import load_settings
from CPS4Core.errors import Cancelled
from CPS4Core.events import silent
from CPS4Core.segmentation.methods.method import Method
from CPS4Core.systems import METHODS, OBJECTIVES
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.run_folder import read_curves
from CPS4Core.training.train import train
from CPS4Core.vision_language.objective import Objective
from CPS4Core.weights import load_weights

pytestmark = pytest.mark.slow

STEPS = 6


@pytest.fixture(scope="module")
def common(data_set, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return {"ratio": 1.0, "device": torch.device("cpu"), "report": silent, "cache": cache}


def assert_trained_alike(whole, stopped):
    """Compare the state of two runs bit by bit, and look whether the loss stayed finite."""
    ours, theirs = (load_weights(run / "checkpoint.safetensors")[0] for run in (whole, stopped))
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    for curve in read_curves(whole).values():
        assert all(math.isfinite(value) for _, value in curve)


def test_the_table_names_what_the_engine_has():
    assert all(issubclass(system.load(), Method) for system in METHODS.values())
    assert all(issubclass(system.load(), Objective) for system in OBJECTIVES.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_resumes_to_the_same_bits(
    method, data_set, text_model, trained_model, common, tmp_path
):
    changes = ["train.epochs=1", f"train.steps_per_epoch={STEPS}", f"train.method={method}"]
    settings = load_settings("small", [*tiny_changes(text_model), *changes])
    encoders = trained_model if METHODS[method].needs_text else None

    def run(name, cancellation):
        train(data_set, tmp_path / name, settings, encoders=encoders, cancellation=cancellation, **common)

    run("whole", Cancellation())
    with pytest.raises(Cancelled):
        run("stopped", StopAt(STEPS // 2))
    run("stopped", Cancellation())
    assert_trained_alike(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_and_resumes_to_the_same_bits(
    objective, data_set, text_model, common, tmp_path
):
    changes = ["pretrain.epochs=2", f"pretrain.objective={objective}"]
    settings = load_settings("small", [*tiny_changes(text_model), *changes])

    def run(name, cancellation):
        pretrain(data_set, tmp_path / name, settings, cancellation=cancellation, **common)

    run("whole", Cancellation())
    with pytest.raises(Cancelled):
        run("stopped", StopAt(2))
    run("stopped", Cancellation())
    assert_trained_alike(tmp_path / "whole", tmp_path / "stopped")
