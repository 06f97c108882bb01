"""What the checks share: the device, data that they make, models, and processes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import SimpleITK as sitk
import torch
from packages import ROOT
from small_models import MEMORY_ERRORS, write_text_model
from timing import study

from CPS4Core.card import NETWORK
from CPS4Core.config import Settings, load_settings
from CPS4Core.data.volumes import list_scans, read_scan
from CPS4Core.events import silent
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder, new_card
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.shipped_model import BASE, model_path
from CPS4Core.synthesis.phantom.data_set import write_phantom_data_set
from CPS4Core.synthesis.phantom.volume import PhantomOptions

CPU = torch.device("cpu")
TEXT_SIZES = {"paper": (768, 12, 12, 3072), "base": (384, 6, 12, 1536), "small": (384, 6, 12, 1536)}
"""Width, layers, heads and inner width of a text encoder as large as that of each preset; its weights are random."""
MOST_SCANS = 4


@dataclass
class Setting:
    """Where the checks run, and what on. Build it with ``Setting.make``."""

    device: torch.device
    tiny: bool
    folder: Path
    scans: list[Path]
    shared: dict[str, Any] = field(default_factory=dict)
    """What a check leaves for later ones."""

    @classmethod
    def make(cls, device: str, tiny: bool, folder: Path, scans: Path | None) -> Setting:
        found = [] if scans is None else list_scans(scans)[:MOST_SCANS]
        return cls(torch.device(device), tiny, folder, found)

    def machine(self) -> str:
        """Return the kind of machine, in words."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "no GPU"
        return f"{name}, {os.cpu_count()} CPU cores, torch {torch.__version__}"

    def tidy(self) -> None:
        """Give back what the last check held of the device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)
            torch.cuda.empty_cache()

    def settings(self, preset: str, *changes: str) -> Settings:
        """Return a preset whose encoders begin with random weights of its own sizes; tiny ones in a rehearsal."""
        width, *sizes = (16, 1, 2, 32) if self.tiny else TEXT_SIZES[preset]
        text = self.folder / f"text of {preset}"
        if not text.exists():
            write_text_model(text, width, *sizes)
        all_changes = [
            f"encoders.text={text}",
            "encoders.vision_pretrained=false",
            f"encoders.text_width={width}",
        ]
        if self.tiny:
            all_changes += [
                "input.size=[32, 64]",
                "input.spacing_mm=4.5",
                "train.widths=[4, 8]",
                "train.batch=2",
            ]
            all_changes += ["pretrain.batch=2", "encoders.dimension=8"]
            if preset == "base":
                all_changes.append('encoders.vision_options={"widths": [4, 8, 8], "level": 1}')
            else:
                options = '{"patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}'
                all_changes += [f"encoders.vision_options={options}", "encoders.vision=vit_tiny_patch16_224"]
        return load_settings(preset, [*all_changes, *changes])

    @cached_property
    def data(self) -> Path:
        """A data set of phantoms, half of them labelled."""
        tiny = PhantomOptions(slices=(3, 4), pixel_mm=(2.6, 3.2), field_of_view_mm=(270, 300))
        options = tiny if self.tiny else PhantomOptions(slices=(9, 12))
        return write_phantom_data_set(
            self.folder / "data", 6 if self.tiny else 10, labelled=4, options=options
        )

    @cached_property
    def phantom(self) -> sitk.Image:
        """A study of 15 slices of 512 x 512; a small one in a rehearsal."""
        return study(3, 128) if self.tiny else study(15, 512)

    @cached_property
    def images(self) -> dict[str, sitk.Image]:
        """The phantom and the real scans, by name."""
        return {"phantom": self.phantom} | {path.name: read_scan(path, silent) for path in self.scans}

    @cached_property
    def scan(self) -> Path:
        """The phantom's file."""
        path = self.folder / "scan.nii.gz"
        sitk.WriteImage(self.phantom, str(path))
        return path

    def model(self, name: str) -> ModelFolder:
        """Return the model that comes with CPS4, ``base``, or a network of random weights of another preset."""
        if name == BASE:
            return ModelFolder.open(model_path(BASE))
        folder = self.folder / f"random {name}"
        if not folder.exists():
            settings = self.settings(name)
            network = ResidualUNet(settings.train.widths)
            ModelFolder.write(folder, 0, {NETWORK: network.state_dict()}, new_card(settings, stage=2))
        return ModelFolder.open(folder)

    def segmenter(self, name: str = BASE, device: torch.device | None = None) -> Segmenter:
        """Return the segmenter of a model, on the device of the checks or another."""
        return Segmenter(self.model(name), device or self.device)

    def cps4(self, *arguments: object, **options: Any) -> subprocess.Popen:
        """Start the command ``cps4`` in a process of its own."""
        command = [sys.executable, "-m", "CPS4Core.cli", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "encoding": "utf-8"}
        return subprocess.Popen(command, cwd=ROOT, **(pipes | options))

    def peak(self) -> int:
        """Return the most bytes that the device has held since it was last asked; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0
        most = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return most


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Compute in ``bf16`` or float32 (``no``), the latter exactly, wherever a device would choose otherwise."""
    places = ("inference.segmenter", "training.run")
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        first, second = (patch(f"CPS4Core.{place}.choose_precision", return_value=name) for place in places)
        with first, second:
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


@contextmanager
def memory_for(
    device: torch.device, share: float, peak: int, where: tuple[Any, str], most: int
) -> Iterator[None]:
    """Let the device have only a share of the memory that was needed.

    On CUDA torch's allocator keeps to it. Elsewhere the method ``where`` refuses more than ``most`` slices.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        held, total = (
            torch.cuda.memory_allocated(device),
            torch.cuda.get_device_properties(device).total_memory,
        )
        torch.cuda.set_per_process_memory_fraction((held + share * (peak - held)) / total, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    owner, name = where
    plain = getattr(owner, name)

    def refuse(self: Any, batch: Any) -> Any:
        if len(getattr(batch, "labelled", batch)) > most:
            raise MEMORY_ERRORS[0]
        return plain(self, batch)

    with patch.object(owner, name, refuse):
        yield


def labels_of(image: sitk.Image) -> np.ndarray:
    """Return the labels of an image, (z, y, x)."""
    return sitk.GetArrayFromImage(image)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Dice of all structures together: how many of the voxels of any have the same label."""
    same = ((one == other) & (one > 0)).sum()
    total = (one > 0).sum() + (other > 0).sum()
    return 1.0 if total == 0 else float(2 * same / total)


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(values))
