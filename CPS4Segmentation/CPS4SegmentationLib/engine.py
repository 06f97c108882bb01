"""How the engine (CPS4Core) is started: which Python, in which environment, and what it says while it runs."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from typing import Any

import qt
import slicer

from CPS4Core.events import Event, parse
from CPS4SegmentationLib import ENGINE_FOLDER
from CPS4SegmentationLib.remembered import setting

log = logging.getLogger(__name__)

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
        self._ended = False
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(engine_environment())
        self._process.readyReadStandardOutput.connect(self._read_output)
        self._process.readyReadStandardError.connect(self._read_errors)
        self._process.finished.connect(self._on_finished)
        self._process.errorOccurred.connect(self._on_error)
        self._process.start(engine_python(), ["-m", "CPS4Core.cli", *arguments])

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
        self._on_end = lambda code: None
        if self._ended:
            return
        self._ended = True
        self._process.closeWriteChannel()
        if not self._process.waitForFinished(int(1000 * seconds)):
            self._process.kill()
            self._process.waitForFinished(1000)

    def _read_output(self) -> None:
        for line in self._lines("output", self._process.readAllStandardOutput()):
            try:
                event = parse(line)
            except ValueError:
                self._on_log(line)
                continue
            self._on_event(event)

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
            qt.QTimer.singleShot(0, lambda: self._on_end(code))
