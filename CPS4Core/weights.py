"""Named tensors in safetensors files. No other format is ever opened: a pickle can run code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from CPS4Core.eight_bits import SCALE, restore
from CPS4Core.errors import CPS4Error
from CPS4Core.files import not_whole, written_aside

MOST_HEADER = 100 * 2**20
"""Bytes; safetensors opens no longer one."""


def save_weights(path: Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Write named tensors to a safetensors file, aside and renamed.

    Raises:
        CPS4Error: if the disk is full or the folder cannot be written.
    """
    # A tensor may be a view or share memory (tied weights), which the format does not allow.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with written_aside(path) as temporary:
        try:
            save_file(copies, temporary, metadata=header or {})
        except SafetensorError as error:
            if "os error" in str(error).lower():
                raise not_whole(path) from error
            raise


def load_weights(
    path: Path, shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, on the CPU, and its header; those in eight bits become float32.

    Args:
        path: the file.
        shapes: those that the tensors must have, by name: no other is read into memory.

    Raises:
        CPS4Error: if the file is missing, truncated, or no safetensors file, or its tensors have other names or
            shapes.
    """
    if not path.is_file():
        raise CPS4Error("The file is missing.", "Copy the whole folder again.", path)
    if shapes is not None and path.stat().st_size > _most_bytes(shapes):
        raise _unfit(path)
    try:
        with safe_open(path, framework="pt") as file:
            if shapes is not None:
                _check_shapes(file, shapes, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return restore(tensors), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CPS4Error(
            "The file is truncated or is no safetensors file.",
            "Copy it again. CPS4 opens safetensors only: other formats can run code.",
            path,
        ) from error


def _check_shapes(file: Any, shapes: Mapping[str, Sequence[int]], path: Path) -> None:
    found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    wanted = {name: list(shape) for name, shape in shapes.items()}
    scales = {name + SCALE: shape[:1] for name, shape in wanted.items() if name + SCALE in found}
    if found != wanted | scales:
        raise _unfit(path)


def _most_bytes(shapes: Mapping[str, Sequence[int]]) -> int:
    """Return what a file of tensors of these shapes takes at most: 8 bytes a number, and a header."""
    return 8 * sum(map(math.prod, shapes.values())) + MOST_HEADER


def _unfit(path: Path) -> CPS4Error:
    return CPS4Error(
        "The weights do not fit the network that the card describes.", "Copy the whole folder again.", path
    )
