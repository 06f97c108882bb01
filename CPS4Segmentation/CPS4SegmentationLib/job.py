"""A job: commands of the engine, run one after the other in the background.

A command is done when that is the last thing it says, also with the exit code of single cases that failed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from slicer.i18n import tr as _

from CPS4Core.events import Event, Failed, Finished
from CPS4SegmentationLib.engine import EngineProcess

STOPPED = 130
"""Exit code of a command that the user stopped."""
CASES_FAILED = 1
"""Exit code of a command that is done, but for single cases; and of one that failed as a whole."""


class Outcome(Enum):
    """How a job ended."""

    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


class Job:
    """Runs commands until the last one is done, one fails, or the user stops it.

    Args:
        commands: arguments of ``cps4``, each command a list.
        on_event: receives what the engine reports; a failure always comes as an event too.
        on_log: receives lines for the log.
        on_end: called once, with the outcome.
    """

    def __init__(
        self,
        commands: list[list[str]],
        on_event: Callable[[Event], None],
        on_log: Callable[[str], None],
        on_end: Callable[[Outcome], None],
    ):
        self._waiting = list(commands)
        self._on_event, self._on_log, self._on_end = on_event, on_log, on_end
        self._process: EngineProcess | None = None
        self._stopping = False
        self._next()

    def stop(self) -> None:
        """Ask the running command to stop; it writes a checkpoint first."""
        self._stopping = True
        self._waiting.clear()
        if self._process is not None:
            self._process.send("cancel")

    def close(self) -> None:
        """Stop now and wait for it; nobody is told any more."""
        self._on_event = lambda event: None
        self._on_end = lambda outcome: None
        if self._process is not None and self._process.running:
            self.stop()
            self._process.stop()

    def _next(self) -> None:
        self._failed = self._finished = False
        arguments = [*self._waiting.pop(0), "--events"]
        self._process = EngineProcess(arguments, self._take, self._on_log, self._on_command_end)

    def _take(self, event: Event) -> None:
        self._failed = self._failed or isinstance(event, Failed)
        self._finished = isinstance(event, Finished) or (self._finished and not isinstance(event, Failed))
        self._on_event(event)

    def _on_command_end(self, code: int) -> None:
        if self._stopping or code == STOPPED:
            self._on_end(Outcome.STOPPED)
        elif code not in (0, CASES_FAILED) or not self._finished:
            if not self._failed:
                self._on_event(
                    Failed(
                        _("The engine stopped unexpectedly."),
                        _("Start it again: it goes on where it stopped. The log under Settings says more."),
                    )
                )
            self._on_end(Outcome.FAILED)
        elif self._waiting:
            self._next()
        else:
            self._on_end(Outcome.DONE)
