"""How the engine (CPS4Core) is started: which Python, in which environment, and what it says while it runs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import qt
import slicer

from CPS4Core.events import Event, parse
from CPS4SegmentationLib import ENGINE_FOLDER
from CPS4SegmentationLib.remembered import setting

log = logging.getLogger(__name__)

START = Path(__file__).with_name("engine_start.py")
STOP_SECONDS = 5
"""How long a process that was asked to stop may take before it is killed; a job writes its checkpoint meanwhile."""


def engine_python() -> str:
    """Return the Python that runs the engine: the user's own environment, else Slicer's."""
    return setting("EnginePython") or shutil.which("PythonSlicer") or sys.executable


def engine_environment() -> qt.QProcessEnvironment:
    """Return the environment of the engine: UTF-8 everywhere, and this version of the engine first.

    A Python of the user's own gets the environment that Slicer was started with: Slicer's libraries would break it.
    """
    own = bool(setting("EnginePython"))
    environment = slicer.app.startupEnvironment() if own else qt.QProcessEnvironment.systemEnvironment()
    if own:
        environment.remove("PYTHONHOME")
    environment.insert("PYTHONPATH", str(ENGINE_FOLDER))
    environment.insert("PYTHONUTF8", "1")
    environment.insert("PYTHONIOENCODING", "utf-8")
    environment.insert("PYTHONUNBUFFERED", "1")
    return environment


class EngineProcess:
    """One run of ``cps4`` in the background.

    What it says is handled in its order, one thing after the other. A handler may let Qt's events through, as a
    question to the user does; what is said meanwhile waits until it has returned. What a handler raises goes to the
    log, and the next event is handled.

    Args:
        arguments: of ``cps4``, each one separately.
        on_event: receives what the engine reports.
        on_log: receives lines for the log.
        on_end: called once, with the exit code, when the process has ended; -1 if it crashed or never started.
    """

    def __init__(
        self,
        arguments: list[str],
        on_event: Callable[[Event], None],
        on_log: Callable[[str], None],
        on_end: Callable[[int], None],
    ):
        self._on_event, self._on_log, self._on_end = on_event, on_log, on_end
        self._unfinished = {"output": b"", "errors": b""}
        self._untold: deque[Callable[[], None]] = deque()
        self._telling = False
        self._process_id: int | None = None
        self._ended = False
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(engine_environment())
        self._slots: tuple[tuple[Any, Callable[..., None]], ...] = (
            (self._process.readyReadStandardOutput, self._read_output),
            (self._process.readyReadStandardError, self._read_errors),
            (self._process.finished, self._on_finished),
            (self._process.errorOccurred, self._on_error),
        )
        for said, slot in self._slots:
            said.connect(slot)
        self._process.start(engine_python(), [str(START), str(ENGINE_FOLDER), *arguments])

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return not self._ended

    def send(self, request: dict[str, Any] | str) -> None:
        """Write one line to the engine: a request of the worker, or a word such as ``cancel``."""
        line = request if isinstance(request, str) else json.dumps(request)
        if self.running:
            self._process.write(line.encode() + b"\n")

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the process now and tell nobody: close its input, wait, and kill it if it does not end by itself."""
        self._on_event = lambda event: None
        self._on_end = lambda code: None
        if self._ended:
            return
        self._ended = True
        self._process.closeWriteChannel()
        if not self._process.waitForFinished(int(1000 * seconds)):
            self._kill()
        self._disconnect()

    def _kill(self) -> None:
        """End the engine itself: Slicer's Python is a launcher, which would leave it running."""
        if self._process_id is not None:
            with suppress(OSError):  # it ended by itself
                os.kill(self._process_id, getattr(signal, "SIGKILL", signal.SIGTERM))
        if self._process_id is None or not self._process.waitForFinished(1000):
            self._process.kill()
            self._process.waitForFinished(1000)

    def _tell(self, handler: Callable[[], None]) -> None:
        self._untold.append(handler)
        if self._telling:
            return
        self._telling = True
        while self._untold:
            try:
                self._untold.popleft()()
            except Exception as error:
                log.exception("what the engine said could not be handled")
                self._on_log(f"{type(error).__name__}: {error}")
        self._telling = False

    def _read_output(self) -> None:
        for line in self._lines("output", self._process.readAllStandardOutput()):
            try:
                event = parse(line)
            except ValueError:
                self._take_line(line)
            else:
                self._tell(partial(self._pass_on, event))

    def _pass_on(self, event: Event) -> None:
        """Hand an event to whoever listens when its turn comes."""
        self._on_event(event)

    def _take_line(self, line: str) -> None:
        """Take a line that is no event; the first one says which process the engine is."""
        if self._process_id is None and line.startswith('{"process":'):
            started = json.loads(line)
            self._process_id = started["process"]
            line = f"CPS4 {started['version']} in {started['folder']}, process {self._process_id}"
        self._on_log(line)

    def _read_errors(self) -> None:
        for line in self._lines("errors", self._process.readAllStandardError()):
            self._on_log(line)

    def _lines(self, channel: str, chunk: qt.QByteArray) -> list[str]:
        """Return the complete lines; a line may come in pieces."""
        data = chunk.data()
        data = data if isinstance(data, bytes) else data.encode()
        *lines, self._unfinished[channel] = (self._unfinished[channel] + data).split(b"\n")
        # A progress bar overwrites its line: what it said last counts.
        return [
            line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2] for line in lines if line.strip()
        ]

    def _on_finished(self, *_: int) -> None:
        self._read_output()
        self._read_errors()
        normal = self._process.exitStatus() == qt.QProcess.NormalExit
        self._end(self._process.exitCode() if normal else -1)

    def _on_error(self, error: int) -> None:
        if error == qt.QProcess.FailedToStart:
            self._on_log(f"{engine_python()}: {self._process.errorString()}")
            self._end(-1)

    def _end(self, code: int) -> None:
        """Tell of the end once the process's own signal is through: whoever hears of it may let go of the process."""
        if not self._ended:
            self._ended = True
            qt.QTimer.singleShot(0, lambda: self._after_end(code))

    def _after_end(self, code: int) -> None:
        self._disconnect()
        self._tell(lambda: self._on_end(code))

    def _disconnect(self) -> None:
        """Let go of the slots: a connection keeps them alive, and they the process."""
        for said, slot in self._slots:
            said.disconnect(slot)
        self._slots = ()
