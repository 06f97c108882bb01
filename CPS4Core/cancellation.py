"""A polite way to stop: Ctrl-C, a termination signal, or the line ``cancel`` on standard input."""

from __future__ import annotations

import signal
import sys
import threading

from CPS4Core.errors import Cancelled


class Cancellation:
    """Whether the user asked the job to stop; the job looks between two steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether the user asked to stop."""
        return self._event.is_set()

    def request(self) -> None:
        """Ask the job to stop at the next safe point."""
        self._event.set()

    def check(self) -> None:
        """Raise ``Cancelled`` if the user asked to stop."""
        if self.requested:
            raise Cancelled

    def listen_to_signals(self) -> None:
        """Stop politely on SIGINT and SIGTERM; a second SIGINT stops at once."""

        def handle(number: int, frame: object) -> None:
            if self.requested and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.request()

        signal.signal(signal.SIGINT, handle)
        signal.signal(signal.SIGTERM, handle)

    def listen_to_input(self) -> None:
        """Stop politely when a line ``cancel`` comes on standard input."""

        def read() -> None:
            for line in sys.stdin:
                if line.strip() == "cancel":
                    self.request()
                    return

        threading.Thread(target=read, daemon=True, name="cancel-listener").start()
