"""What a job says while it runs: one JSON object a line.

A job reports through a ``Reporter``, any callable that takes an ``Event``. The same events go to the
terminal (progress bars), to the run folder (``events.jsonl``) and to 3D Slicer (standard output). Standard
library only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """The part that every event shares.

    ``time`` is in seconds since 1970. A worker's answer names the ``request`` that it belongs to.
    """

    kind: ClassVar[str] = "event"
    time: float = field(default_factory=time.time, kw_only=True)
    request: str | None = field(default=None, kw_only=True)

    def to_json(self) -> str:
        """Return the event as one line of JSON, ``{"event": KIND, ...}``, in ASCII, without the line end.

        ASCII, because a line may reach its reader in pieces, cut within a letter.
        """
        values = {
            name: value for name, value in asdict(self).items() if name != "request" or value is not None
        }
        return json.dumps({"event": self.kind, **values})


@dataclass(frozen=True)
class Started(Event):
    """A job began; ``details`` says on what device, with what settings."""

    kind = "started"
    job: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress(Event):
    """``done`` of ``total`` units are finished; ``seconds_left`` is an estimate, None while unknown."""

    kind = "progress"
    done: int
    total: int
    message: str = ""
    seconds_left: float | None = None


@dataclass(frozen=True)
class Metric(Event):
    """Values of named curves at one step, such as ``{"loss": 0.31}``."""

    kind = "metric"
    step: int
    values: dict[str, float]


@dataclass(frozen=True)
class Artifact(Event):
    """A file or folder is complete and may be opened; ``role`` says what it is, such as ``segmentation``."""

    kind = "artifact"
    role: str
    path: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Warned(Event):
    """Something the user should know although the job goes on."""

    kind = "warning"
    message: str


@dataclass(frozen=True)
class Failed(Event):
    """The job, or one case of a batch, ended with an error; ``remedy`` is the next step."""

    kind = "failed"
    problem: str
    remedy: str
    path: str | None = None


@dataclass(frozen=True)
class Finished(Event):
    """The job ended; ``cancelled`` where the user stopped it."""

    kind = "finished"
    cancelled: bool = False
    details: dict[str, Any] = field(default_factory=dict)


EVENTS: dict[str, type[Event]] = {
    event.kind: event for event in (Started, Progress, Metric, Artifact, Warned, Failed, Finished)
}

Reporter = Callable[[Event], None]


def silent(event: Event) -> None:
    """Report nothing."""


def parse(line: str) -> Event:
    """Return the event written on ``line``.

    Raises:
        ValueError: if the line is not an event of this module.
    """
    values = json.loads(line)
    if not isinstance(values, dict) or values.get("event") not in EVENTS:
        raise ValueError(f"not an event: {line[:200]}")
    try:
        return EVENTS[values.pop("event")](**values)
    except TypeError as error:
        raise ValueError(f"not an event: {line[:200]}") from error
