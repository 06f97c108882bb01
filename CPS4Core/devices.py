"""Which device and precision a job uses."""

from __future__ import annotations

import os
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from CPS4Core.errors import CPS4Error

Precision = Literal["no", "bf16"]

NO_MEMORY = (
    "The device has not enough memory.",
    "Close other programs that use it, or compute on the processor (`cpu`), which is slower.",
)
"""Problem and remedy, where taking less at once does not help."""
_CUDA_IS_FULL = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
"""What CUDA and its libraries say."""


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
    except torch.OutOfMemoryError:  # it is there, and full
        raise
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
    """Whether the device had not enough memory.

    torch's own allocation for CUDA has an exception for it. MPS, the CPU and what CUDA's libraries allocate by
    themselves have only words.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    from accelerate.utils.memory import should_reduce_batch_size  # takes a second to import

    return should_reduce_batch_size(error) or any(words in str(error) for words in _CUDA_IS_FULL)


def make_deterministic(device: torch.device) -> None:
    """Make the same seed give the same run on the same machine.

    On CUDA, sums by atomic additions and the backward pass of fused attention differ from run to run: others serve.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Warned of, and not refused, is what has no other form and needs none: the pooling of windows that do not overlap.
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message=".*determinis", category=UserWarning)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not in torch's stub
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device. One that goes from the CPU to CUDA does not wait for what CUDA has yet to do."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def move(module: nn.Module, device: torch.device, layout: torch.memory_format) -> None:
    """Move a module to the device, its weights laid out as ``memory_format`` tells."""
    module.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # torch's own stub lacks it


def memory_format(device: torch.device, training: bool) -> torch.memory_format:
    """Return the layout in which the device convolves fastest: on the CPU, training has another than inference."""
    channels_last = device.type == "cuda" or (device.type == "cpu" and not training)
    return torch.channels_last if channels_last else torch.contiguous_format
