"""A progress bar with the time left."""

from __future__ import annotations

import time

import qt
from slicer.i18n import tr as _

from CPS4Core.events import Progress


class ProgressDisplay:
    """Shows progress events on a bar, with the engine's estimate of the time left or its own.

    Args:
        bar: is hidden while nothing runs.
    """

    def __init__(self, bar: qt.QProgressBar):
        self._bar = bar
        self._started = 0.0
        self.reset()

    def start(self, message: str) -> None:
        """Show that something began whose length is not known yet."""
        self._started = time.monotonic()
        self._bar.setRange(0, 0)
        self._bar.setFormat(message)
        self._bar.visible = True

    def show(self, event: Progress) -> None:
        """Show how far the engine is."""
        if not self._bar.visible:
            self.start(event.message)
        left = event.seconds_left
        if left is None and event.done:
            left = (time.monotonic() - self._started) * (event.total - event.done) / event.done
        self._bar.setRange(0, max(event.total, 1))
        self._bar.setValue(event.done)
        parts = [event.message, "%p %"] + ([] if left is None else [time_left(left)])
        self._bar.setFormat("  ".join(part for part in parts if part))

    def reset(self) -> None:
        """Hide the bar."""
        self._bar.setRange(0, 1)
        self._bar.setValue(0)
        self._bar.visible = False


def time_left(seconds: float) -> str:
    """Return a duration in words, in the unit that matters."""
    if seconds < 60:
        return _("{seconds} s left").format(seconds=max(1, round(seconds)))
    if seconds < 3600:
        return _("{minutes} min left").format(minutes=round(seconds / 60))
    return _("{hours} h left").format(hours=f"{seconds / 3600:.1f}")
