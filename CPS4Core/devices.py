"""Which device and precision a job uses."""

from __future__ import annotations

import os
from typing import Literal

import torch
from torch import nn

from CPS4Core.errors import CPS4Error

Precision = Literal["no", "bf16"]

NO_MEMORY = (
    "The device has not enough memory.",
    "Close other programs that use it, or compute on the processor (`cpu`), which is slower.",
)
"""Problem and remedy, where taking less at once does not help."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:1``.

    ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        CPS4Error: if this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CPS4Error(f"There is no device {name!r} here.", "Use `auto`, or see `cps4 doctor`.") from error
    return device


def choose_precision(device: torch.device) -> Precision:
    """Return ``bf16`` where the device computes it faster than float32, else ``no`` (float32)."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "no"
    return "no"


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device had not enough memory. CUDA has an exception of its own for it; MPS and the CPU have not."""
    from accelerate.utils.memory import should_reduce_batch_size  # takes a second to import

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def make_deterministic() -> None:
    """Make the same seed give the same run on the same machine."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def move(module: nn.Module, device: torch.device, layout: torch.memory_format) -> None:
    """Move a module to the device, its weights laid out as ``memory_format`` tells."""
    module.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # torch's own stub lacks it


def memory_format(device: torch.device, training: bool) -> torch.memory_format:
    """Return the layout in which the device convolves fastest: on the CPU, training has another than inference."""
    channels_last = device.type == "cuda" or (device.type == "cpu" and not training)
    return torch.channels_last if channels_last else torch.contiguous_format
