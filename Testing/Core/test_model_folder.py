"""A model folder: one entrance, a card that is read in every format, weights that fill the network.

`models/format-N` is a tiny model that a version with that format wrote, with what it answered then. When `FORMAT` is
raised, `python Testing/Core/test_model_folder.py` adds the model of the new one; the others stay as they are.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from small_models import MODELS, write_random_model, write_text_model

from CPS4Core.card import CARD, ENCODERS, FORMAT, NETWORK, TEACHER, Card, holds_model
from CPS4Core.config import InputSettings
from CPS4Core.eight_bits import compress
from CPS4Core.errors import CPS4Error
from CPS4Core.model_folder import ModelFolder
from CPS4Core.weights import load_weights, save_weights

ANSWERS = "answers.json"
RAMP = torch.linspace(-1, 1, 32 * 64).reshape(1, 1, 32, 64)


def answers(model):
    """Return what a model says of a slice that is a ramp: logits of a pixel, and A of a patch."""
    with torch.inference_mode():
        logits = {part: model.load_network(part)(RAMP)[0, :, 20, 40].tolist() for part in (NETWORK, TEACHER)}
    return {**logits, ENCODERS: answers_of_encoders(model)}


def answers_of_encoders(model):
    """Return A of a patch of the ramp, by class."""
    encoders = model.load_encoders()
    with torch.inference_mode():
        attention = encoders.attention(RAMP, encoders.prompt_tokens(encoders.class_prompts()))
    return attention[0, :, 2, 5].tolist()


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_every_format_is_read_and_answers_as_it_did(number):
    folder = MODELS / f"format-{number}"
    assert json.loads((folder / CARD).read_text())["format"] == number
    model = ModelFolder.open(folder)
    assert model.input == InputSettings(size=(32, 64), spacing_mm=4.5)
    assert model.widths == (4, 8)
    assert model.encoder_settings.dimension == 8
    assert model.card.least_peak == 0.25
    assert model.card.text_trust == {"L4": 0.5}
    assert (model.card.stage, model.card.step, model.card.data["labelled_cases"]) == (2, 12, 4)
    then = json.loads((folder / ANSWERS).read_text())
    now = answers(model)
    assert now.keys() == then.keys() == {NETWORK, TEACHER, ENCODERS}
    for name, values in now.items():
        assert values == pytest.approx(then[name], abs=1e-4), name
        assert max(values) - min(values) > 0.01


def test_a_card_that_is_written_again_says_the_same_in_the_new_format(tmp_path):
    card = Card.read(MODELS / "format-1")
    card.write(tmp_path)
    assert Card.read(tmp_path) == card
    assert json.loads((tmp_path / CARD).read_text())["format"] == FORMAT


def test_facts_of_a_later_version_are_passed_over(tmp_path):
    shutil.copytree(MODELS / f"format-{FORMAT}", tmp_path, dirs_exist_ok=True)
    said = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**said, "weather": "fair"}))
    assert ModelFolder.open(tmp_path).card == ModelFolder.open(MODELS / f"format-{FORMAT}").card


def test_an_architecture_of_a_later_version_is_not_guessed_at(tmp_path):
    shutil.copytree(MODELS / f"format-{FORMAT}", tmp_path, dirs_exist_ok=True)
    said = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**said, "network": {**said["network"], "heads": 2}}))
    with pytest.raises(CPS4Error, match="does not know"):
        ModelFolder.open(tmp_path).load_network()


def test_the_card_is_read_once(tmp_path):
    shutil.copytree(MODELS / f"format-{FORMAT}", tmp_path, dirs_exist_ok=True)
    model = ModelFolder.open(tmp_path)
    (tmp_path / CARD).unlink()
    assert not holds_model(tmp_path)
    assert model.has(TEACHER)
    assert answers(model)


def halved(tensors):
    return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("shrink", "stored_as", "near"), [(halved, torch.float16, 0.01), (compress, torch.int8, 0.05)]
)
def test_weights_of_less_precision_fill_a_float32_network(tmp_path, shrink, stored_as, near):
    original = ModelFolder.open(MODELS / f"format-{FORMAT}")
    parts = {
        NETWORK: original.load_network(),
        TEACHER: original.load_network(TEACHER),
        ENCODERS: original.load_encoders(),
    }
    text = parts[ENCODERS].text
    small = {part: shrink(module.state_dict()) for part, module in parts.items()}
    ModelFolder.write(tmp_path, 12, small, original.card, text=text)
    with safe_open(next(tmp_path.glob("network-*.safetensors")), framework="pt") as file:
        assert stored_as in {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    model = ModelFolder.open(tmp_path)
    assert model.sha256() != original.sha256()
    for module in (model.load_network(), model.load_encoders()):
        assert {weight.dtype for weight in module.parameters()} == {torch.float32}
    now, then = answers(model), answers(original)
    for name in then:
        assert now[name] == pytest.approx(then[name], abs=near)


def test_older_weights_go_once_the_card_names_the_new_ones(tmp_path):
    original = ModelFolder.open(MODELS / f"format-{FORMAT}")
    weights = {NETWORK: original.load_network().state_dict()}
    for step in (1, 2):
        ModelFolder.write(tmp_path, step, weights, original.card, encoders=original)
    assert [path.name for path in tmp_path.glob("network-*")] == ["network-000002.safetensors"]
    model = ModelFolder.open(tmp_path)
    assert not model.has(TEACHER)
    assert model.sha256(ENCODERS) == original.sha256(ENCODERS)
    assert answers(original)[ENCODERS] == answers_of_encoders(model)
    with pytest.raises(CPS4Error, match="no teacher"):
        model.load_network(TEACHER)


def test_weights_whose_hash_is_another_are_refused(tmp_path):
    shutil.copytree(MODELS / f"format-{FORMAT}", tmp_path, dirs_exist_ok=True)
    model = ModelFolder.open(tmp_path)
    path = tmp_path / model.card.weights[NETWORK].file
    tensors, _ = load_weights(path)
    save_weights(path, {name: tensor + 1 for name, tensor in tensors.items()})
    with pytest.raises(CPS4Error, match="not those that the card names"):
        model.load_network()


def test_the_card_needs_python_alone():
    code = "import sys, CPS4Core.card; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert not {"torch", "numpy", "pydantic", "safetensors"} & set(done.stdout.split())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        written = write_random_model(MODELS / f"format-{FORMAT}", write_text_model(Path(name) / "text model"))
    then = answers(ModelFolder.open(written))
    (written / ANSWERS).write_text(json.dumps(then, indent=2) + "\n", encoding="utf-8")
