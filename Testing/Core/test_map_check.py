"""The go or no-go of stage 1: its numbers by hand, and where they are kept and told."""

import numpy as np
import pytest
from small_models import tiny_changes
from typer.testing import CliRunner

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import Card
from CPS4Core.cli import app
from CPS4Core.terminal import verdict_on_maps
from CPS4Core.training.map_check import ceiling, level_height, shift_test

LEVEL = 6


def column(levels):
    """Return labels of one slice: a stack of vertebrae, each ``LEVEL`` pixels high, from T9 down."""
    labels = np.zeros((1, 8, 60), np.uint8)
    for k in range(levels):
        start = 6 + k * LEVEL
        labels[0, 2:6, start : start + LEVEL] = levels - k
    return labels


def test_a_level_is_as_high_as_neighbours_are_apart():
    assert level_height(column(7)) == LEVEL
    assert level_height(np.zeros((1, 8, 60), np.uint8)) == 5


def test_names_that_follow_the_anatomy_move_along():
    labels = column(7)
    # Each vertebra's intensity is its name.
    canvas, anatomy = shift_test(
        lambda images: images.astype(np.uint8), [labels.astype(np.float32)], [labels]
    )
    assert anatomy == 1
    assert canvas == 0  # one level further down, every pixel carries its neighbour's name


def test_names_that_follow_the_canvas_stay():
    labels = column(7)
    place = np.maximum(1, (np.arange(60) // LEVEL) % 9)

    def by_place(images):
        return np.where(images > 0, place, 0).astype(np.uint8)

    canvas, anatomy = shift_test(by_place, [labels.astype(np.float32)], [labels])
    assert (canvas, anatomy) == (1, 0)


def test_the_ceiling_is_that_of_the_tokens():
    labels = column(7)
    assert ceiling([labels], (8, 60)) == 1
    # Tokens of 2 x 6 pixels fit the vertebrae; of 8 x 20 pixels three share one.
    assert ceiling([labels], (4, 10)) > 0.75 > 0.4 > ceiling([labels], (1, 3))


@pytest.mark.parametrize(
    ("training", "canvas", "anatomy", "begins"),
    [(0.7, 0.2, 0.8, "Go:"), (0.07, 0.2, 0.8, "No go:"), (0.7, 0.75, 0.45, "No go:")],
)
def test_the_verdict_in_words(training, canvas, anatomy, begins):
    found = {
        "maps_training": training,
        "maps_new": 0.053,
        "maps_ceiling": 0.816,
        "names_follow_canvas": canvas,
        "names_follow_anatomy": anatomy,
    }
    said = verdict_on_maps(found)
    assert said.startswith(begins)
    assert f"{100 * training:.1f} on training patients; 5.3 on new ones; 81.6 would be perfect" in said
    assert f"the canvas by {canvas:.2f} and the anatomy by {anatomy:.2f}" in said


def test_pretraining_tells_its_go_or_no_go_and_keeps_it_in_the_card(
    data_set, text_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(Cancellation, "listen_to_signals", lambda self: None)
    cosine = ['pretrain.schedule="cosine"', "pretrain.warm_up=0.2", "pretrain.epochs=1"]
    changes = [f"--set={change}" for change in [*tiny_changes(text_model), *cosine]]
    command = ["pretrain", str(data_set), str(tmp_path / "run"), "--preset=small", "--device=cpu", *changes]
    command.append(f"--cache={tmp_path / 'cache'}")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = Card.read(tmp_path / "run/model").raw_maps
    assert set(found) == {
        "maps_training", "maps_ceiling", "maps_new", "names_follow_canvas", "names_follow_anatomy",
    }  # fmt: skip
    assert all(0 <= value <= 1 for value in found.values())
    assert verdict_on_maps(found) in result.output
