"""Weights in eight bits a number, for a model that travels: half the size of half precision, and the same results.

A matrix, or the kernels of a convolution, becomes whole numbers from -127 to 127 with a scale for each of its rows
(each output channel). Everything else, such as biases and norms, is small and becomes half precision.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = "/scale"
"""What the name of a tensor's scales ends in; no module names a parameter so."""
LEVELS = 127
LEAST_IN_A_ROW = 16
"""Shorter rows gain too little to carry a scale each."""


def compress(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in eight bits, each with its scales beside it under the name ``NAME/scale``.

    Args:
        tensors: finite weights by name; those that are no floating point numbers stay as they are.
    """
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            small[name] = tensor
        elif tensor.dim() < 2 or tensor[0].numel() < LEAST_IN_A_ROW:
            small[name] = tensor.half()
        else:
            rows = tensor.float().flatten(1)
            # A row of zeros has a scale too.
            scale = (rows.abs().amax(1) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
            small[name] = (rows / scale[:, None]).round().to(torch.int8).view_as(tensor)
            small[name + SCALE] = scale
    return small


def restore(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that ``compress`` was given, those in eight bits as float32.

    Args:
        tensors: weights by name; tensors without scales stay as they are.
    """
    return {
        name: _in_full(tensor, tensors[name + SCALE]) if name + SCALE in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith(SCALE)
    }


def _in_full(levels: Tensor, scale: Tensor) -> Tensor:
    return levels.float() * scale.view(-1, *(1,) * (levels.dim() - 1))
