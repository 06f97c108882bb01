"""Model folders that are damaged, foreign or hostile are refused with one clear error, and nothing in them runs."""

import json
import pickle
import shutil
import subprocess
import sys

import pytest

from CPS4Core.card import ENCODERS, NETWORK
from CPS4Core.errors import CPS4Error
from CPS4Core.model_folder import ModelFolder


@pytest.fixture
def copy(trained_model, tmp_path):
    return shutil.copytree(trained_model, tmp_path / "model")


def change(folder, **fields):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **fields}))


def weights(folder, part=NETWORK):
    return folder / json.loads((folder / "card.json").read_text())["weights"][part]["file"]


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_another_class_count_and_version(copy):
    change(copy, classes={"background": 0, "L5": 1})
    with pytest.raises(CPS4Error, match="2 classes"):
        ModelFolder.open(copy).load_network()
    change(copy, format=99)
    with pytest.raises(CPS4Error, match="newer version"):
        ModelFolder.open(copy).load_network()


def test_truncated_weights(copy):
    path = weights(copy)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CPS4Error) as caught:
        ModelFolder.open(copy).load_network()
    assert caught.value.path == path or path.name in str(caught.value)


@pytest.mark.parametrize("part", [NETWORK, ENCODERS])
def test_a_pickle_in_disguise_is_not_opened(copy, part, tmp_path):
    target = tmp_path / "attacked"
    weights(copy, part).write_bytes(pickle.dumps(Attack(target)))
    with pytest.raises(CPS4Error):
        ModelFolder.open(copy).load_network() if part == NETWORK else ModelFolder.open(copy).load_encoders()
    assert not target.exists()


def test_weights_outside_the_folder_are_not_read(copy, trained_model):
    outside = copy.parent / "outside.safetensors"
    shutil.copy(weights(trained_model), outside)
    card = json.loads((copy / "card.json").read_text())
    for name in ("../outside.safetensors", str(outside)):
        card["weights"][NETWORK]["file"] = name
        change(copy, weights=card["weights"])
        with pytest.raises(CPS4Error):
            ModelFolder.open(copy).load_network()


@pytest.mark.parametrize("text", ["[]", "{", "null", '{"format": 1}', ""])
def test_a_card_that_is_none(copy, text):
    (copy / "card.json").write_text(text)
    with pytest.raises(CPS4Error):
        ModelFolder.open(copy).load_network()


@pytest.mark.parametrize("fields", [{"weights": []}, {"weights": {"network": {}}}, {"settings": None}])
def test_a_card_that_lacks_parts(copy, fields):
    change(copy, **fields)
    with pytest.raises(CPS4Error, match="card lacks"):
        ModelFolder.open(copy).load_network()


def test_a_text_encoder_that_brings_code_is_not_run(copy, tmp_path):
    target = tmp_path / "attacked"
    (copy / "text" / "evil.py").write_text(f"open({str(target)!r}, 'w')")
    config = json.loads((copy / "text" / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = "evil"
    (copy / "text" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CPS4Error):
        ModelFolder.open(copy).load_encoders()
    assert not target.exists()


def test_the_command_line_names_the_model_and_shows_no_trace(copy, data_set, tmp_path):
    change(copy, format=99)
    scan = data_set / "imagesTs/test_0001_0000.nii.gz"
    done = subprocess.run(
        [sys.executable, "-m", "CPS4Core.cli", "segment", scan, tmp_path / "out", "--model", copy],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert "newer version" in done.stderr
    assert "Traceback" not in done.stderr
