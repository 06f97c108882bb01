"""How the learning rate rises and falls over a training, step by step."""

from __future__ import annotations

import math

import torch

LEAST = 1e-3
"""Of the learning rate, at the end."""


def warm_cosine(step: int, steps: int, warm_up: float = 0.0) -> float:
    """Return the share of the learning rate at ``step``: a straight rise, then half a cosine down to ``LEAST``.

    Args:
        step: counts from 0.
        steps: of the training.
        warm_up: share of the steps over which the rate rises, 0 to 1.
    """
    rising = warm_up * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    done = min(1.0, (step - rising) / max(1.0, steps - 1 - rising))
    return LEAST + (1 - LEAST) * (1 + math.cos(math.pi * done)) / 2


def cosine_schedule(
    optimizer: torch.optim.Optimizer, steps: int, warm_up: float = 0.0
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the schedule of ``warm_cosine``, to be stepped after each step."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps, warm_up))
