"""Batches are dataclasses; each tensor in them has one entry a slice of one group, such as the unlabelled ones."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Batch = TypeVar("Batch", bound="DataclassInstance")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on ``device``."""
    return replace(batch, **{name: tensor.to(device) for name, tensor in _tensors(batch).items()})


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut each group of slices into ``parts`` of equal size, or nearly so; what is no tensor is the same in all."""
    pieces = {name: tensor.tensor_split(parts) for name, tensor in _tensors(batch).items()}
    return [replace(batch, **{name: piece[k] for name, piece in pieces.items()}) for k in range(parts)]


def most_parts(batch: Batch) -> int:
    """Return into how many parts a batch can be cut so that each has slices of every group that the batch has."""
    return min(len(tensor) for tensor in _tensors(batch).values() if len(tensor))


def _tensors(batch: Batch) -> dict[str, Tensor]:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
