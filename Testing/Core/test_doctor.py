"""What `cps4 doctor` says of the machine and of weights that are missing."""

import json
import subprocess
import sys

import huggingface_hub
import pytest

from CPS4Core.config import PAPER
from CPS4Core.doctor import examine, fetch_weights
from CPS4Core.errors import CPS4Error


def test_missing_weights_are_named_with_the_command_that_gets_them():
    found = examine(PAPER)
    assert {encoder["kind"] for encoder in found.weights} == {"vision", "text"}
    for encoder in found.weights:
        assert f"cps4 doctor --fetch {encoder['kind']}" in encoder["state"]
    assert found.devices[-1]["name"] == "cpu"
    assert found.versions["torch"] != "missing"


def test_present_weights_are_said_to_be_here(tiny_settings):
    states = {encoder["kind"]: encoder["state"] for encoder in examine(tiny_settings).weights}
    assert states["text"] == "here"


def test_the_command_answers_in_json():
    done = subprocess.run(
        [sys.executable, "-m", "CPS4Core.cli", "doctor", "--json"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert json.loads(done.stdout)["devices"]


def test_weights_that_are_no_safetensors_are_not_taken(monkeypatch, tmp_path):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        (tmp_path / "config.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CPS4Error, match="without safetensors"):
        fetch_weights("text", PAPER.encoders)
    ((name, patterns),) = asked
    assert name == PAPER.encoders.text
    assert not any("bin" in pattern or "pickle" in pattern for pattern in patterns)
    (tmp_path / "model.safetensors").write_bytes(b"")
    fetch_weights("text", PAPER.encoders)


def test_a_download_that_fails_says_what_to_do(monkeypatch):
    def download(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CPS4Error, match="proxy"):
        fetch_weights("vision", PAPER.encoders)
