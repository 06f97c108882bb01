"""A trained model is a folder: safetensors weights beside a JSON card that says what they are.

    model/
        card.json                   what the model is: see CPS4Core.card
        network-000400.safetensors  the segmentation network (stage 2)
        teacher-000400.safetensors  its teacher, where the method has one
        encoders-000090.safetensors the class prompt model (stage 1)
        text/                       configuration and tokenizer of the text encoder

The card names its weight files, with their hashes, and is written last: a folder is always one consistent model,
the old one or the new one.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from torch import Tensor, nn

from CPS4Core import __version__
from CPS4Core.card import CLASSES, ENCODERS, NETWORK, TEACHER, Card, WeightsFile
from CPS4Core.config import EncoderSettings, Group, InputSettings, Settings, Widths
from CPS4Core.errors import CPS4Error
from CPS4Core.files import copy_file, sha256_of
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.size_limit import SizeLimit
from CPS4Core.vision_language.encoders import TextEncoder, save_text_architecture
from CPS4Core.vision_language.known_prompts import KnownPrompts
from CPS4Core.vision_language.model import ClassPromptModel, rebuild_model
from CPS4Core.weights import load_weights, save_weights

TEXT = "text"
_PARTS = {
    NETWORK: ("segmentation network", "`cps4 train`"),
    TEACHER: ("teacher", "`cps4 train` with a mean teacher"),
    ENCODERS: ("class prompt encoders", "`cps4 pretrain`"),
}
"""What each part is, and which command makes it."""

Weights = dict[str, dict[str, Tensor]]
"""The tensors of each part of a model, by name."""
G = TypeVar("G", bound=Group)
M = TypeVar("M", bound=nn.Module)


class NetworkSettings(Group):
    """The architecture of the segmentation network."""

    widths: Widths
    """Channels of each level, the finest first."""


class ModelFolder:
    """A trained model on the disk: its card, which is read once, and its parts, which are read when asked for.

    Args:
        path: the folder.
        card: what its card says.
    """

    def __init__(self, path: Path, card: Card):
        self.path = path
        self.card = card

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """Return the model in the folder ``path``.

        Raises:
            CPS4Error: if it holds no model, or one of a newer version, of another class table, or damaged.
        """
        return cls(Path(path), Card.read(Path(path)))

    @classmethod
    def write(
        cls,
        path: Path,
        step: int,
        weights: Weights,
        card: Card,
        *,
        text: TextEncoder | KnownPrompts | None = None,
        encoders: ModelFolder | None = None,
    ) -> None:
        """Write the weights of each part and then the card that names them; older weights of the parts go last.

        Args:
            path: the folder.
            step: of the training, which names the files.
            weights: the tensors of each part.
            card: what else the model is.
            text: the text encoder, if the encoders are among the weights.
            encoders: the model whose encoders this one takes along, if they are not.

        Raises:
            CPS4Error: if ``encoders`` has none, the disk is full or the folder cannot be written.
        """
        if isinstance(text, TextEncoder):
            save_text_architecture(text, path / TEXT)
        files = {} if encoders is None else {ENCODERS: encoders._copy_encoders(path)}
        for part, tensors in weights.items():
            file = path / f"{part}-{step:06d}.safetensors"
            save_weights(file, tensors)
            files[part] = WeightsFile(file.name, sha256_of(file))
        replace(card, weights=files).write(path)
        for part in weights:
            for old in path.glob(f"{part}-*.safetensors"):
                if old.name != files[part].file:
                    old.unlink()

    @cached_property
    def input(self) -> InputSettings:
        """How a volume becomes the slices that the networks see."""
        return self._parsed(InputSettings, self.card.input)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level of network and teacher, the finest first."""
        return self._parsed(NetworkSettings, self.card.network).widths

    @cached_property
    def encoder_settings(self) -> EncoderSettings:
        """The architecture of the class prompt model."""
        return self._parsed(EncoderSettings, self.card.encoders)

    def has(self, part: str) -> bool:
        """Return whether the model has a part: ``NETWORK``, ``TEACHER`` or ``ENCODERS``."""
        return part in self.card.weights

    def has_encoders_for(self, settings: Settings) -> bool:
        """Return whether it has encoders that see the same slices and are built as the settings say."""
        return self.has(ENCODERS) and (self.input, self.encoder_settings) == (
            settings.input,
            settings.encoders,
        )

    def add_to_card(self, **facts: Any) -> None:
        """Write more facts to the card.

        Raises:
            CPS4Error: if the disk is full or the folder cannot be written.
        """
        self.card = replace(self.card, **facts)
        self.card.write(self.path)

    def sha256(self, part: str = NETWORK) -> str:
        """Return the SHA-256 that the card gives for a part's weights: it tells one training from another.

        Raises:
            CPS4Error: if the model has not this part.
        """
        return self._weights(part).sha256

    def load_network(self, part: str = NETWORK) -> ResidualUNet:
        """Return the segmentation network or its ``TEACHER``, float32, in evaluation mode, on the CPU.

        Raises:
            CPS4Error: if there is none, or its weights are damaged or of another shape.
        """
        return self._filled(lambda: ResidualUNet(self.widths), self._weights(part))

    def load_encoders(self) -> ClassPromptModel:
        """Return the class prompt model, float32, in evaluation mode, on the CPU.

        Raises:
            CPS4Error: if there is none, or its weights are damaged or of another shape.
        """
        weights = self._weights(ENCODERS)
        return self._filled(
            lambda: rebuild_model(self.encoder_settings, self.input.size, self.path / TEXT), weights
        )

    def _weights(self, part: str) -> WeightsFile:
        if not self.has(part):
            what, command = _PARTS[part]
            raise CPS4Error(f"The model has no {what}.", f"Choose a model that {command} made.", self.path)
        return self.card.weights[part]

    def _filled(self, build: Callable[[], M], weights: WeightsFile) -> M:
        """Return a new module with the weights in place, whatever their precision in the file; float32.

        Nothing is built that is larger than what the file holds, and nothing read that does not fit what is built.
        """
        path = self.path / Path(weights.file).name
        with SizeLimit(path.stat().st_size if path.is_file() else 0):
            module = build()
        tensors, _ = load_weights(path, {name: value.shape for name, value in module.state_dict().items()})
        if sha256_of(path) != weights.sha256:
            raise CPS4Error(
                "The weights are not those that the card names.", "Copy the whole folder again.", path
            )
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise CPS4Error(
                "The weights hold values that are no numbers: the training had diverged.",
                "Train again with a lower learning rate.",
                path,
            )
        module.load_state_dict(tensors)
        return module.eval()

    def _copy_encoders(self, destination: Path) -> WeightsFile:
        """Copy the encoders to another folder, and return what its card should say of their weights."""
        weights = self._weights(ENCODERS)
        target = destination / Path(weights.file).name
        if not target.is_file() or sha256_of(target) != weights.sha256:
            # The weights last: they say that the rest is there, if the text encoder is not in its own package.
            for part in sorted(path for path in (self.path / TEXT).rglob("*") if path.is_file()):
                copy_file(part, destination / part.relative_to(self.path))
            copy_file(self.path / target.name, target)
        return weights

    def _parsed(self, group: type[G], values: dict[str, Any]) -> G:
        try:
            return group.model_validate(values)
        except ValidationError as error:
            raise CPS4Error(
                "The model's card describes a network that this version does not know.",
                "Copy the whole folder again, or update CPS4.",
                self.path,
            ) from error


def new_card(settings: Settings, *, encoders: ModelFolder | None = None, **facts: Any) -> Card:
    """Return the card of a model that ``settings`` trained, without weights.

    Args:
        settings: the whole settings of the run.
        encoders: the model whose encoders it takes along.
        facts: more fields of the card.
    """
    record = settings.model_dump(mode="json")
    if encoders is not None:
        # How they were trained too: the settings of this run say nothing of it.
        record |= {"encoders": encoders.card.encoders, "pretrain": encoders.card.settings.get("pretrain")}
    train = settings.train
    return Card(
        classes=dict(CLASSES),
        input=record["input"],
        network={"widths": list(train.widths)},
        encoders=record["encoders"],
        settings=record,
        weights={},
        least_peak=train.least_peak,
        versions={
            "python": platform.python_version(),
            "cps4": __version__,  # inside Slicer it is no installed package
            **{name: version(name) for name in ("torch", "timm", "transformers")},
        },
        **facts,
    )
