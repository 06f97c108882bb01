"""The card of a model folder: what the model is, in JSON beside its weights.

    {
        "format": 2,
        "classes": {"background": 0, "S": 1, ...},
        "input": {"size": [256, 512], "spacing_mm": null},
        "network": {"widths": [32, 64, 128, 256, 512]},
        "encoders": {"vision": "vit_base_patch16_224...", ...},
        "weights": {"network": {"file": "network-000400.safetensors", "sha256": "59de0c..."}, ...},
        "text_trust": {"L4": 0.62, ...}, "least_peak": 0.0,
        "settings": ..., "versions": ..., "stage": 2, "step": 400, "validation": ..., "data": ...
    }

The first lines say all that is needed to compute with the model; the last one is a record of how it was made. Python
alone reads a card, so that Slicer's process can.

**The rule for formats.** A version of CPS4 reads every older format. A card may gain facts at any time: what a version
does not know, it passes over. Whoever changes anything else raises ``FORMAT``, adds the step from the last one to
``_UPGRADES``, and adds a tiny model of the new format to ``Testing/Core/models``, where it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from CPS4Core.class_table import NUM_CLASSES, STRUCTURES
from CPS4Core.errors import CPS4Error
from CPS4Core.files import read_json, write_json

FORMAT = 2
CARD = "card.json"
NETWORK = "network"
"""The segmentation network (stage 2)."""
TEACHER = "teacher"
"""The other one of a mean teacher's pair: the student, where its average segments, or the teacher."""
ENCODERS = "encoders"
"""The class prompt model (stage 1)."""
CLASSES = {"background": 0, **{structure.short: structure.label for structure in STRUCTURES}}
"""The class table, as a card holds it."""


@dataclass(frozen=True)
class WeightsFile:
    """Where the weights of a part of a model are, and what they are."""

    file: str
    """Name of a safetensors file in the model's folder."""
    sha256: str
    """Of the file; it tells one training from another."""


@dataclass(frozen=True)
class Card:
    """What a card says, apart from its format."""

    classes: dict[str, int]
    """Label of each class, by short name."""
    input: dict[str, Any]
    """How a volume becomes slices: the fields of ``CPS4Core.config.InputSettings``."""
    network: dict[str, Any]
    """The architecture of network and teacher: ``widths``, channels of each level, the finest first."""
    encoders: dict[str, Any]
    """The architecture of the class prompt model: the fields of ``CPS4Core.config.EncoderSettings``."""
    settings: dict[str, Any]
    """The whole settings of the training, for the record."""
    weights: dict[str, WeightsFile]
    """By part: ``NETWORK``, ``TEACHER``, ``ENCODERS``."""
    text_trust: dict[str, float] = field(default_factory=dict)
    """How far the class prompt maps are to be trusted, 0 to 1, by short name; fully where not named."""
    least_peak: float = 0.0
    """Least peak attention of a class that counts as present, 0 to 1."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of Python, CPS4 and the libraries that trained it."""
    stage: int = 0
    """The last stage of training, 1 or 2."""
    step: int = 0
    """The step of that stage at which it was best."""
    validation: dict[str, float] = field(default_factory=dict)
    """Scores on the validation cases."""
    raw_maps: dict[str, float] = field(default_factory=dict)
    """What the class prompt maps of stage 1 reach by themselves (``CPS4Core.training.map_check``)."""
    data: dict[str, Any] = field(default_factory=dict)
    """Numbers of cases, and a hash of the list of them."""
    about: dict[str, Any] = field(default_factory=dict)
    """What a person should know of a model that ships: ``name``, how it was made, its scores, its limits."""

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Return the card of the model in ``folder``, of this format or an older one.

        Raises:
            CPS4Error: if the folder holds no model, or one of a newer version, of another class table, or damaged.
        """
        if not holds_model(folder):
            raise CPS4Error(
                f"This is no model folder: it has no {CARD}.",
                "Choose the folder `model` of a training run.",
                folder,
            )
        said = read_json(folder / CARD)
        if isinstance(said, dict) and isinstance(said.get("format"), int) and said["format"] > FORMAT:
            raise CPS4Error("The model was written by a newer version of CPS4.", "Update CPS4.", folder)
        try:
            for number in range(_format_of(said), FORMAT):
                said = _UPGRADES[number](said)
            card = cls._parse(said)
        except (KeyError, TypeError, ValueError) as error:
            raise CPS4Error(
                "The model's card lacks its settings or its weights.", "Copy the whole folder again.", folder
            ) from error
        if card.classes != CLASSES:
            raise CPS4Error(
                f"The model knows {len(card.classes)} classes; this version has {NUM_CLASSES}, in its own order.",
                "Train it again with this version.",
                folder,
            )
        return card

    def write(self, folder: Path) -> None:
        """Write the card to ``folder``, aside and renamed.

        Raises:
            CPS4Error: if the disk is full or the folder cannot be written.
        """
        write_json(folder / CARD, {"format": FORMAT, **asdict(self)})

    @classmethod
    def _parse(cls, said: dict[str, Any]) -> Card:
        names = [of_card.name for of_card in fields(cls)]
        known = {name: said[name] for name in names if name in said}
        for name, value in known.items():
            if isinstance(value, dict) != (name not in ("least_peak", "stage", "step")):
                raise TypeError(name)
        known["least_peak"] = float(known.get("least_peak", 0.0))
        known["weights"] = {
            part: WeightsFile(str(entry["file"]), str(entry["sha256"]))
            for part, entry in said["weights"].items()
        }
        return cls(**known)


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a model, of whatever format."""
    return (Path(folder) / CARD).is_file()


def _format_of(said: dict[str, Any]) -> int:
    number = said["format"]
    if number not in (*_UPGRADES, FORMAT):
        raise KeyError(number)
    return number


def _from_1(said: dict[str, Any]) -> dict[str, Any]:
    """Format 1 named what the networks are among the settings of the training alone."""
    settings = said["settings"]
    train = settings["train"]
    return {
        **said,
        "input": settings["input"],
        "network": {"widths": train["widths"]},
        "encoders": settings["encoders"],
        "least_peak": train["presence_threshold"] if train["presence_gate"] else 0.0,
    }


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""From each older format to the next."""
