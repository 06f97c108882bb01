"""Settings: presets, changes and what is refused."""

import json
import subprocess
import sys
import time

import pytest

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


@pytest.mark.parametrize(
    "change",
    ["train.methd=cps4", "nothing.x=1", "train.batch=0", "train.batch", "seed=-1", "train.ema_decay=1.0"],
)
def test_a_wrong_change_is_one_clear_error(change):
    with pytest.raises(CPS4Error) as caught:
        load_settings("paper", [change])
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(CPS4Error, match="paper, small"):
        load_settings("large")


def test_settings_survive_json():
    settings = load_settings("small")
    assert parse_settings(json.loads(settings.model_dump_json())) == settings


def test_the_modules_that_slicer_shares_import_fast_and_without_the_engine():
    code = "import sys; import CPS4Core.class_table, CPS4Core.events, CPS4Core.errors; print(*sys.modules)"
    start = time.perf_counter()
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout.split()
    assert time.perf_counter() - start < 5  # a bound that only a heavy import breaks, on a busy machine too
    assert not {"torch", "numpy", "pydantic", "SimpleITK", "transformers"} & set(loaded)
