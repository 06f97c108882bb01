"""The warm worker: one background process that keeps the model loaded and answers one request after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from CPS4Core.events import Event, Failed, Finished
from CPS4SegmentationLib.engine import EngineProcess


@dataclass
class Request:
    """What was asked, and who wants the answers; ``finished`` or ``failed`` is the last one."""

    number: str
    fields: dict[str, Any]
    on_event: Callable[[Event], None]


@dataclass
class Check:
    """A check that waits until nothing else is asked."""

    fields: dict[str, Any]
    on_event: Callable[[Event], None]


class WorkerClient:
    """Sends requests to ``cps4 worker``, which is started when first needed and again if it died.

    Checks wait until nothing else is asked, and make way for what is.

    Args:
        on_log: receives lines for the log.
    """

    def __init__(self, on_log: Callable[[str], None]):
        self._on_log = on_log
        self._process: EngineProcess | None = None
        self._requests: dict[str, Request] = {}
        self._count = 0
        self._in_use: tuple[str, str] | None = None
        self._checks: deque[Check] = deque()
        self._checking = ""
        self._put_off = False

    def segment(
        self,
        model: Path,
        device: str,
        source: Path,
        target: Path,
        count_levels: bool,
        on_event: Callable[[Event], None],
    ) -> None:
        """Segment the volume in ``source``; the answer ``artifact`` names the result."""
        levels = "counted" if count_levels else "as-seen"
        fields = {"do": "segment", "input": str(source), "output": str(target), "levels": levels}
        self._ask(model, device, fields, on_event)

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
        self._ask(model, device, fields, on_event)

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
        self._ask(model, device, fields, on_event)

    def check(
        self,
        model: Path,
        device: str,
        source: Path,
        labels: Path,
        network: str,
        on_event: Callable[[Event], None],
    ) -> None:
        """Ask how sure the model is of a segmentation; the answer ``artifact`` holds the agreement by label.

        There is no answer if the user asks another model for something before it comes to that, and ``failed`` if
        the weights of the network are no longer those with the SHA-256 ``network``.
        """
        fields = {"do": "check", "input": str(source), "labels": str(labels), "network": network}
        self._checks.append(Check({"model": str(model), "device": device, **fields}, on_event))
        self._check_next()

    def forget_checks(self) -> None:
        """Drop the checks; nobody gets an answer."""
        self._checks.clear()
        if self._checking in self._requests:
            self._requests[self._checking].on_event = lambda event: None
            self._cancel_check()

    def cancel(self) -> None:
        """Stop the running request and those that wait; each still gets its last answer."""
        if self._process is not None and self._requests:
            self._process.send({"do": "cancel"})

    def close(self) -> None:
        """End the worker; nobody gets an answer any more."""
        self._requests.clear()
        self._checks.clear()
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _ask(
        self, model: Path, device: str, fields: dict[str, Any], on_event: Callable[[Event], None]
    ) -> None:
        """Send what the user asks of a model, which the worker keeps warm from here on."""
        self._in_use = (str(model), device)
        self._send({"model": str(model), "device": device, **fields}, on_event)

    def _cancel_check(self) -> None:
        if self._process is not None:
            self._process.send({"do": "cancel", "which": self._checking})

    def _send(self, fields: dict[str, Any], on_event: Callable[[Event], None]) -> str:
        """Send a request and return its number; a running check makes way for it."""
        if self._checking in self._requests and not self._put_off:
            self._put_off = True
            self._cancel_check()
        self._count += 1
        request = Request(str(self._count), fields, on_event)
        self._requests[request.number] = request
        if self._process is None:
            self._process = EngineProcess(["worker"], self._on_event, self._on_log, self._on_end)
        self._process.send({"request": request.number, **fields})
        return request.number

    def _check_next(self) -> None:
        """Start the next check if nothing else is asked. Loading a model again for it would hold up the user."""
        while self._checks and not self._requests:
            check = self._checks.popleft()
            if (check.fields["model"], check.fields["device"]) != self._in_use:
                continue

            def on_answer(event: Event, check: Check = check) -> None:
                if self._put_off and isinstance(event, Finished) and event.cancelled:
                    self._checks.appendleft(check)
                else:
                    check.on_event(event)

            self._put_off = False
            self._checking = self._send(check.fields, on_answer)

    def _on_event(self, event: Event) -> None:
        request = self._requests.get(event.request or "")
        if request is None:
            return
        if isinstance(event, Finished | Failed):
            del self._requests[request.number]
        request.on_event(event)
        self._check_next()

    def _on_end(self, code: int) -> None:
        """The worker died: tell everybody who waits. The next request starts it again."""
        self._process = None
        waiting, self._requests = list(self._requests.values()), {}
        self._checks.clear()
        self._on_log(f"The engine ended with code {code}.")
        for request in waiting:
            request.on_event(
                Failed(
                    _("The engine stopped unexpectedly."),
                    _("Try again: it is started anew. If that happens again, see the log under Settings."),
                    request=request.number,
                )
            )
