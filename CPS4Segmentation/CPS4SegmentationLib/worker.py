"""The warm worker: one background process that keeps the model loaded and answers one request after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from CPS4Core.events import Event, Failed, Finished, Warned
from CPS4SegmentationLib.engine import EngineProcess


@dataclass
class Request:
    """What was asked, and who wants the answers; ``finished`` or ``failed`` is the last one."""

    number: str
    fields: dict[str, Any]
    on_event: Callable[[Event], None]


class WorkerClient:
    """Sends requests to ``cps4 worker``, which is started when first needed and again if it died.

    Args:
        on_log: receives lines for the log.
    """

    def __init__(self, on_log: Callable[[str], None]):
        self._on_log = on_log
        self._process: EngineProcess | None = None
        self._loaded: tuple[str, str] | None = None
        self._loaded_by = ""
        self._requests: dict[str, Request] = {}
        self._count = 0

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        return bool(self._requests)

    def load(self, model: Path, device: str, on_event: Callable[[Event], None]) -> None:
        """Load a model; its card is in the details of the answer ``started``."""
        self._loaded = (str(model), device)
        self._loaded_by = self._send({"do": "load", "model": str(model), "device": device}, on_event)

    def segment(
        self,
        model: Path,
        device: str,
        source: Path,
        target: Path,
        level_order: bool,
        on_event: Callable[[Event], None],
    ) -> None:
        """Segment the volume in ``source``; the answer ``artifact`` names the result."""
        fields = {"do": "segment", "input": str(source), "output": str(target), "level_order": level_order}
        self._ask(fields, model, device, on_event)

    def attend(
        self,
        model: Path,
        device: str,
        source: Path,
        target: Path,
        prompts: list[str],
        on_event: Callable[[Event], None],
    ) -> None:
        """Compute the attention maps of prompts; one answer ``artifact`` a prompt."""
        fields = {"do": "attend", "input": str(source), "output": str(target), "prompts": prompts}
        self._ask(fields, model, device, on_event)

    def figure(
        self,
        model: Path,
        device: str,
        source: Path,
        target: Path,
        prompts: list[str],
        on_event: Callable[[Event], None],
    ) -> None:
        """Draw image, attention and binary maps of prompts as a picture; the answer ``artifact`` names it."""
        fields = {"do": "figure", "input": str(source), "output": str(target), "prompts": prompts}
        self._ask(fields, model, device, on_event)

    def cancel(self) -> None:
        """Stop the running request and those that wait; each still gets its last answer."""
        if self._process is not None and self._requests:
            self._process.send({"do": "cancel"})
            if self._loaded_by in self._requests:
                self._loaded = None  # loading is given up too

    def close(self) -> None:
        """End the worker; nobody gets an answer any more."""
        self._requests.clear()
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._loaded = None

    def _ask(
        self, fields: dict[str, Any], model: Path, device: str, on_event: Callable[[Event], None]
    ) -> None:
        """Send a request to the worker with this model, loading it first where another one or none is there."""
        failures: list[Failed] = []

        def on_load(event: Event) -> None:
            if isinstance(event, Warned):
                on_event(event)
            elif isinstance(event, Failed):
                failures.append(event)

        def on_answer(event: Event) -> None:
            # If loading failed, that is why the request fails.
            on_event(failures[0] if failures and isinstance(event, Failed) else event)

        if self._loaded != (str(model), device) or self._process is None:
            self.load(model, device, on_load)
        self._send(fields, on_answer)

    def _send(self, fields: dict[str, Any], on_event: Callable[[Event], None]) -> str:
        """Send a request and return its number."""
        self._count += 1
        request = Request(str(self._count), fields, on_event)
        self._requests[request.number] = request
        if self._process is None:
            self._process = EngineProcess(["worker"], self._on_event, self._on_log, self._on_end)
        self._process.send({"request": request.number, **fields})
        return request.number

    def _on_event(self, event: Event) -> None:
        request = self._requests.get(event.request or "")
        if request is None:
            return
        if isinstance(event, Finished | Failed):
            del self._requests[request.number]
            loaded = isinstance(event, Finished) and not event.cancelled
            if request.number == self._loaded_by and not loaded:
                self._loaded = None
        request.on_event(event)

    def _on_end(self, code: int) -> None:
        """The worker died: tell everybody who waits. The next request starts it again."""
        self._process, self._loaded = None, None
        waiting, self._requests = list(self._requests.values()), {}
        self._on_log(f"The engine ended with code {code}.")
        for request in waiting:
            request.on_event(
                Failed(
                    _("The engine stopped unexpectedly."),
                    _("Try again: it is started anew. If that happens again, see the log under Settings."),
                    request=request.number,
                )
            )
