"""The state of a training run in one safetensors file: it is complete or it is not there.

Tensors carry the names of the state they belong to; everything else is JSON in the file's header.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from CPS4Core.errors import CPS4Error
from CPS4Core.weights import load_weights, save_weights


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a nested state of dicts, lists, tensors and JSON values to ``path``, aside and renamed.

    Raises:
        CPS4Error: if the disk is full or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    plain = _take_tensors(state, "", tensors)
    save_weights(path, tensors, {"state": json.dumps(plain)})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the nested state that ``save_checkpoint`` wrote, tensors on the CPU.

    Raises:
        CPS4Error: if the file is missing, truncated, or no checkpoint.
    """
    tensors, header = load_weights(path)
    if "state" not in header:
        raise CPS4Error("The file is no CPS4 checkpoint.", "Choose another output folder.", path)
    return _put_tensors(json.loads(header["state"]), tensors)


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a nested value to ``tensors`` and leave a mark in their place."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        # Keys may be integers (optimiser states), which JSON would turn into strings.
        return {
            "items": [[key, _take_tensors(entry, f"{name}.{key}", tensors)] for key, entry in value.items()]
        }
    if isinstance(value, (list, tuple)):
        return [_take_tensors(entry, f"{name}.{index}", tensors) for index, entry in enumerate(value)]
    return value


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _put_tensors(entry, tensors) for key, entry in value["items"]}
    if isinstance(value, list):
        return [_put_tensors(entry, tensors) for entry in value]
    return value
