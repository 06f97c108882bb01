"""A trained model is a folder: safetensors weights beside a JSON card that says what they are.

    model/
        card.json                   classes, input, settings, versions, data, validation
        network-000400.safetensors  the segmentation network (stage 2)
        teacher-000400.safetensors  its teacher, where the method has one
        encoders-000090.safetensors the class prompt model (stage 1)
        text/                       configuration and tokenizer of the text encoder

The card names its weight files, with their hashes, and is written last: a folder is always one consistent model,
the old one or the new one.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from CPS4Core import __version__
from CPS4Core.class_table import NUM_CLASSES, STRUCTURES
from CPS4Core.config import Settings, parse_settings
from CPS4Core.errors import CPS4Error
from CPS4Core.files import read_json, write_json
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.vision_language.encoders import TextEncoder, save_text_architecture
from CPS4Core.vision_language.model import ClassPromptModel, rebuild_model
from CPS4Core.weights import load_weights, save_weights

FORMAT = 1
CARD = "card.json"
TEXT = "text"
NETWORK = "network"
TEACHER = "teacher"
ENCODERS = "encoders"
_PARTS = {
    NETWORK: ("segmentation network", "`cps4 train`"),
    TEACHER: ("teacher", "`cps4 train` with a mean teacher"),
    ENCODERS: ("class prompt encoders", "`cps4 pretrain`"),
}
"""What each part is, and which command makes it."""


def new_card(settings: Settings, **facts: Any) -> dict[str, Any]:
    """Return the card of a model that ``settings`` trained; ``facts`` are what else it should say."""
    return {
        "format": FORMAT,
        "classes": new_classes(),
        "settings": settings.model_dump(mode="json"),
        "versions": {
            "python": platform.python_version(),
            "cps4": __version__,  # inside Slicer it is no installed package
            **{name: version(name) for name in ("torch", "timm", "transformers")},
        },
        "weights": {},
        **facts,
    }


Weights = dict[str, dict[str, Tensor]]
"""The tensors of each part of a model, by name."""


def write_weights(folder: Path, step: int, weights: Weights, card: dict[str, Any]) -> None:
    """Write the weights of each part and then the card that names them; older weights of the parts go last.

    Raises:
        CPS4Error: if the disk is full or the folder cannot be written.
    """
    for part, tensors in weights.items():
        path = folder / f"{part}-{step:06d}.safetensors"
        save_weights(path, tensors)
        card["weights"][part] = {"file": path.name, "sha256": _hash(path)}
    write_json(folder / CARD, card)
    for part in weights:
        for old in folder.glob(f"{part}-*.safetensors"):
            if old.name != card["weights"][part]["file"]:
                old.unlink()


def write_text_architecture(folder: Path, model: ClassPromptModel) -> None:
    """Write what rebuilds the text encoder of ``model`` without a network."""
    if isinstance(model.text, TextEncoder):
        save_text_architecture(model.text, folder / TEXT)


def copy_encoders(source: Path, destination: Path, card: dict[str, Any]) -> None:
    """Copy the encoders of the model in ``source`` to ``destination``, and name them in ``card``.

    Raises:
        CPS4Error: if ``source`` has none.
    """
    entry = _entry(source, read_card(source), ENCODERS)
    destination.mkdir(parents=True, exist_ok=True)
    target = destination / entry["file"]
    if not target.is_file() or _hash(target) != entry["sha256"]:
        shutil.copyfile(source / entry["file"], target)
        if (source / TEXT).is_dir():
            shutil.copytree(source / TEXT, destination / TEXT, dirs_exist_ok=True)
    card["weights"][ENCODERS] = entry


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of the model in ``folder``.

    Raises:
        CPS4Error: if the folder holds no model, or one of another version or class table.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise CPS4Error(
            f"This is no model folder: it has no {CARD}.",
            "Choose the folder `model` of a training run.",
            folder,
        )
    card = read_json(folder / CARD)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise CPS4Error(
            "The model was written by another version of CPS4.", "Train it again or update CPS4.", folder
        )
    classes = card.get("classes", {})
    if len(classes) != NUM_CLASSES or classes != new_classes():
        raise CPS4Error(
            f"The model knows {len(classes)} classes; this version has {NUM_CLASSES}, in its own order.",
            "Train it again with this version.",
            folder,
        )
    if not _is_complete(card):
        raise CPS4Error(
            "The model's card lacks its settings or its weights.", "Copy the whole folder again.", folder
        )
    return card


def _is_complete(card: dict[str, Any]) -> bool:
    weights = card.get("weights")
    return (
        isinstance(card.get("settings"), dict)
        and isinstance(weights, dict)
        and all(isinstance(each, dict) and {"file", "sha256"} <= each.keys() for each in weights.values())
    )


def new_classes() -> dict[str, int]:
    """Return the class table as a card holds it."""
    return {"background": 0, **{structure.short: structure.label for structure in STRUCTURES}}


def card_settings(card: dict[str, Any]) -> Settings:
    """Return the settings that trained the model of ``card``."""
    return parse_settings(card["settings"])


def load_network(folder: Path, part: str = NETWORK) -> ResidualUNet:
    """Return the segmentation network of the model in ``folder``, in evaluation mode, on the CPU.

    Args:
        part: ``NETWORK`` or its ``TEACHER``.

    Raises:
        CPS4Error: if there is none, or its weights are damaged or of another shape.
    """
    card = read_card(folder)
    network = ResidualUNet(card_settings(card).train.widths)
    _fill(network, folder, _entry(folder, card, part))
    return network.eval()


def load_encoders(folder: Path) -> ClassPromptModel:
    """Return the class prompt model of the model in ``folder``, in evaluation mode, on the CPU.

    Raises:
        CPS4Error: if there is none, or its weights are damaged or of another shape.
    """
    card = read_card(folder)
    settings = card_settings(card)
    model = rebuild_model(settings.encoders, settings.input.size, Path(folder) / TEXT)
    _fill(model, folder, _entry(folder, card, ENCODERS))
    return model.eval()


def hash_of(folder: Path, part: str = NETWORK) -> str:
    """Return the SHA-256 that the card gives for a part's weights: it tells one training from another.

    Raises:
        CPS4Error: if the folder holds no model, or not this part.
    """
    return _entry(folder, read_card(folder), part)["sha256"]


def has(folder: Path, part: str) -> bool:
    """Return whether the model in ``folder`` has ``part``."""
    return part in read_card(folder)["weights"]


def _entry(folder: Path, card: dict[str, Any], part: str) -> dict[str, str]:
    if part not in card["weights"]:
        what, command = _PARTS[part]
        raise CPS4Error(f"The model has no {what}.", f"Choose a model that {command} made.", folder)
    return card["weights"][part]


def _fill(module: nn.Module, folder: Path, entry: dict[str, str]) -> None:
    path = Path(folder) / Path(entry["file"]).name
    tensors, _ = load_weights(path)
    if _hash(path) != entry["sha256"]:
        raise CPS4Error(
            "The weights are not those that the card names.", "Copy the whole folder again.", path
        )
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CPS4Error(
            "The weights do not fit the network that the card describes.",
            "Copy the whole folder again.",
            path,
        ) from error


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
