"""Batches are dataclasses; each tensor in them has one entry a slice of one group, such as the unlabelled ones.

A dataclass in a batch is one more group of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
from torch import Tensor

from CPS4Core.devices import moved

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Batch = TypeVar("Batch", bound="DataclassInstance")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on ``device``; those in pinned memory are copied while the device computes."""
    return _changed(batch, lambda tensor: moved(tensor, device))


def pinned(batch: Batch) -> Batch:
    """Return the batch in memory from which CUDA copies by itself; to be called in the thread that reads."""
    return _changed(batch, Tensor.pin_memory)


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut each group of slices into ``parts`` of equal size, or nearly so; what is no tensor is the same in all."""

    def part(tensor: Tensor, number: int) -> Tensor:
        return tensor.tensor_split(parts)[number]

    return [_changed(batch, partial(part, number=number)) for number in range(parts)]


def most_parts(batch: DataclassInstance) -> int:
    """Return into how many parts a batch can be cut so that each has slices of every group that the batch has."""
    return min(len(tensor) for tensor in _tensors(batch) if len(tensor))


def _changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    changed: dict[str, Any] = {}
    for name, value in _values(batch).items():
        if isinstance(value, Tensor):
            changed[name] = change(value)
        elif _is_group(value):
            changed[name] = _changed(value, change)
    return replace(batch, **changed)


def _tensors(batch: DataclassInstance) -> Iterator[Tensor]:
    for value in _values(batch).values():
        if isinstance(value, Tensor):
            yield value
        elif _is_group(value):
            yield from _tensors(value)


def _is_group(value: object) -> TypeGuard[DataclassInstance]:
    return is_dataclass(value) and not isinstance(value, type)


def _values(batch: DataclassInstance) -> dict[str, Any]:
    return {field.name: getattr(batch, field.name) for field in fields(batch)}
