"""Refuses to build a network that is too large, before it takes memory.

What describes a network may come from anywhere: a card, a configuration, ``--set``. Each tensor that is about to be
made is counted first.
"""

from __future__ import annotations

import math
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from CPS4Core.errors import CPS4Error

MOST_WEIGHTS = 1_000_000_000
"""Of any network that is built here: more than those of the largest vision transformers; 4 GB."""
MOST_TENSORS = 20_000
"""That are made meanwhile: a network of many layers has some thousands."""
ROOM = 4_000_000
"""Numbers that a network makes beside its weights, such as tables of positions."""


class SizeLimit(TorchDispatchMode):
    """While entered, tensors of ``most`` numbers in all may be made.

    Raises:
        CPS4Error: when more are asked for, before they take memory.
    """

    def __init__(self, most: int = MOST_WEIGHTS):
        super().__init__()
        self._numbers = min(most, MOST_WEIGHTS) + ROOM
        self._tensors = MOST_TENSORS

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare torch from importing its compiler, for seconds, only to keep it away from what is here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Count what is about to be made, then make it."""
        kwargs = kwargs or {}
        size = _size_of_new(func, args, kwargs)
        if size is not None:
            self._tensors -= 1
            self._numbers -= math.prod(size)
            if self._numbers < 0 or self._tensors < 0:
                raise CPS4Error(
                    "The network that is described is too large.",
                    "Check the sizes in its settings, or copy the whole model folder again.",
                )
        return func(*args, **kwargs)


def _size_of_new(func: Any, args: tuple, kwargs: dict) -> Any:
    """Return the size of the tensor that an operation makes from nothing; None if it does something else."""
    names = [argument.name for argument in func._schema.arguments]
    if names and names[0] == "size":
        return args[0] if args else kwargs["size"]
    if "steps" in names:  # of a row of numbers
        place = names.index("steps")
        return [args[place] if place < len(args) else kwargs["steps"]]
    return None
