"""Which slices a step takes: endless passes over a list, each in a new seeded order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")


class EndlessShuffle(Generic[Item]):
    """Items at any position of an endless sequence of shuffled passes; no state, so any step can be repeated.

    Args:
        items: what one pass takes, in any order.
        seed: integers that identify the sequence.
    """

    def __init__(self, items: Sequence[Item], seed: Sequence[int]):
        self.items = list(items)
        self.seed = list(seed)
        self._order = lru_cache(maxsize=2)(self._shuffle)

    def take(self, start: int, count: int) -> list[Item]:
        """Return the items at positions ``start`` to ``start + count - 1``."""
        return [self._item(position) for position in range(start, start + count)]

    def _item(self, position: int) -> Item:
        number, place = divmod(position, len(self.items))
        return self.items[self._order(number)[place]]

    def _shuffle(self, number: int) -> np.ndarray:
        return np.random.default_rng([*self.seed, number]).permutation(len(self.items))
