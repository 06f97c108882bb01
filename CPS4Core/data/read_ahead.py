"""Batches and scans are read from disk in a thread, before they are needed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Loaded = TypeVar("Loaded")


def read_ahead(load: Callable[[int], Loaded], steps: range, ahead: int) -> Iterator[tuple[Loaded, float]]:
    """Yield ``load(step)`` of each step, read in a thread before it is needed, and the seconds spent waiting.

    Args:
        load: reads what a step needs.
        steps: in this order.
        ahead: how many are read before they are needed.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    waiting: deque[Future] = deque()
    upcoming = iter(steps)
    try:
        for step in upcoming:
            waiting.append(pool.submit(load, step))
            if len(waiting) == ahead:
                break
        while waiting:
            start = time.monotonic()
            loaded = waiting.popleft().result()
            waited = time.monotonic() - start
            for step in upcoming:
                waiting.append(pool.submit(load, step))
                break
            yield loaded, waited
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
