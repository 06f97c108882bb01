"""The warm worker: requests on standard input, events on standard output, one JSON object a line.

    {"request": "1", "model": "run/model", "device": "auto", "do": "segment",
        "input": "scan.nii.gz", "output": "labels.seg.nrrd", "levels": "counted"}
    {"request": "2", "model": "run/model", "device": "auto", "do": "attend",
        "input": "scan.nii.gz", "prompts": ["L4", "a herniated disc"], "output": "maps"}
    {"request": "3", "model": "run/model", "device": "auto", "do": "figure",
        "input": "scan.nii.gz", "prompts": ["L4"], "output": "figure.png"}
    {"request": "4", "model": "run/model", "device": "auto", "do": "check",
        "input": "scan.nii.gz", "labels": "labels.seg.nrrd", "network": "59de0c..."}
    {"request": "5", "do": "cancel"}
    {"request": "6", "do": "cancel", "which": "4"}
    {"request": "7", "do": "shutdown"}

Every answer is an event that carries its ``request``; ``finished`` or ``failed`` is the last one. Requests wait in
line, except ``cancel``, which stops the running one and those that wait, or one of them. Each request names its model
and may name its device. The last model and the last volume stay in memory, until training writes other weights into
the model's folder: only the first request with a model is slow. ``check`` is refused where ``network``, the SHA-256
that came with the segmentation, is not that of the model; it may be left out. The worker ends with ``shutdown`` or
when its standard input closes.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import Card
from CPS4Core.data.volumes import read_scan
from CPS4Core.devices import choose_device
from CPS4Core.errors import Cancelled, CPS4Error
from CPS4Core.events import Event, Failed, Finished, Reporter
from CPS4Core.failures import failure_of
from CPS4Core.inference.agreement import check_files
from CPS4Core.inference.attend import write_figure, write_maps
from CPS4Core.inference.attention import AttentionMapper, EncodedVolume
from CPS4Core.inference.batch import Task, segment_one
from CPS4Core.inference.model import Model
from CPS4Core.model_folder import ModelFolder
from CPS4Core.naming import LEVELS
from CPS4Core.shipped_model import model_path

NEEDS = {
    "segment": ("model", "input", "output"),
    "attend": ("model", "input", "prompts", "output"),
    "figure": ("model", "input", "prompts", "output"),
    "check": ("model", "input", "labels"),
}
"""The fields that a request must have."""
TEXTS = ("model", "device", "input", "output", "labels", "levels", "network", "prompts")
"""The fields that are texts."""


class Worker:
    """Keeps a model warm and answers requests.

    Args:
        report: receives the answers.
    """

    def __init__(self, report: Reporter):
        self._report = report
        self._waiting: queue.Queue[tuple[dict[str, Any], Cancellation] | None] = queue.Queue()
        self._cancellations: list[tuple[str, Cancellation]] = []
        self._cancellation = Cancellation()
        self._request = ""
        self._model: tuple[tuple[Path, Card, str], Model] | None = None
        self._volume: tuple[tuple, EncodedVolume] | None = None

    def serve(self, lines: Iterable[str]) -> None:
        """Answer the requests on ``lines`` until it ends or asks for shutdown."""
        threading.Thread(target=self._listen, args=(lines,), daemon=True, name="requests").start()
        while (waiting := self._waiting.get()) is not None:
            request, self._cancellation = waiting
            self._answer(request)
            self._cancellations.remove((_name(request), self._cancellation))

    def _listen(self, lines: Iterable[str]) -> None:
        try:
            for line in lines:
                if line.strip():
                    self._receive(line)
        finally:
            self._cancel()
            self._waiting.put(None)

    def _receive(self, line: str) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError
        except (ValueError, RecursionError):
            self._report(Failed("The request is no JSON object.", "Send one JSON object a line."))
            return
        if request.get("do") in ("cancel", "shutdown"):
            self._cancel(request.get("which"))
            self._report(Finished(request=_name(request)))
            if request["do"] == "shutdown":
                self._waiting.put(None)
            return
        cancellation = Cancellation()
        self._cancellations.append((_name(request), cancellation))
        self._waiting.put((request, cancellation))

    def _cancel(self, which: str | None = None) -> None:
        """Stop the running request and those that wait, or only the one called ``which``."""
        for name, cancellation in list(self._cancellations):
            if which in (None, name):
                cancellation.request()

    def _answer(self, request: dict[str, Any]) -> None:
        """Do one request; whatever goes wrong, say so and live on."""
        self._request = _name(request)
        verbs: dict[str, Callable[[dict[str, Any]], None]] = {
            "segment": self._segment,
            "attend": self._attend,
            "figure": self._figure,
            "check": self._check,
        }
        try:
            self._cancellation.check()
            verb = verbs.get(str(request.get("do")))
            if verb is None:
                raise CPS4Error(
                    f"There is no request {request.get('do')!r}.", f"Use one of: {', '.join(verbs)}."
                )
            _check_fields(request, NEEDS[str(request["do"])])
            verb(request)
            self._tell(Finished())
        except Cancelled:
            self._tell(Finished(cancelled=True))
        except Exception as error:
            self._tell(failure_of(error))

    def _tell(self, event: Event) -> None:
        """Report an event of the running request."""
        self._report(replace(event, request=self._request))

    def _segment(self, request: dict[str, Any]) -> None:
        model = self._warm(request)
        task = Task(Path(request["input"]), Path(request["output"]))
        levels = request.get("levels", "counted")
        if levels not in LEVELS:
            raise CPS4Error(f"Levels cannot be {levels!r}.", f"Use one of: {', '.join(LEVELS)}.")
        segment_one(model.segmenter, task, levels, self._tell, self._cancellation)

    def _attend(self, request: dict[str, Any]) -> None:
        mapper = self._warm(request).mapper
        volume = self._encoded(mapper, Path(request["input"]))
        prompts = {}
        for number, text in enumerate(request["prompts"]):
            _, label = mapper.prompt_for(text)
            prompts[f"prompt_{number:02d}" if label is None else f"class_{label:02d}"] = text
        write_maps(mapper, volume, prompts, Path(request["output"]), ".nrrd", self._tell, self._cancellation)

    def _figure(self, request: dict[str, Any]) -> None:
        mapper = self._warm(request).mapper
        volume = self._encoded(mapper, Path(request["input"]))
        write_figure(mapper, volume, list(request["prompts"]), Path(request["output"]), self._tell)

    def _check(self, request: dict[str, Any]) -> None:
        model = self._warm(request)
        sha256 = model.folder.sha256()
        if request.get("network", sha256) != sha256:
            raise CPS4Error(
                "The model has changed since it made the segmentation.", "Segment the volume again."
            )
        source, labels = Path(request["input"]), Path(request["labels"])
        check_files(model.checker, source, labels, self._tell, self._cancellation)

    def _warm(self, request: dict[str, Any]) -> Model:
        """Return the model that a request names: the last one, unless its folder holds another by now."""
        folder, device = ModelFolder.open(model_path(request["model"])), request.get("device", "auto")
        asked = (folder.path, folder.card, device)
        if self._model is None or self._model[0] != asked:
            self._model = self._volume = None
            self._model = (asked, Model(folder, choose_device(device), self._tell))
        return self._model[1]

    def _encoded(self, mapper: AttentionMapper, path: Path) -> EncodedVolume:
        """Return the encoded volume in ``path``, from memory if it is the last one and has not changed."""
        status = path.stat() if path.exists() else None
        key = (path, status and status.st_mtime_ns, status and status.st_size)
        if self._volume is None or self._volume[0] != key:
            self._volume = (key, mapper.encode(read_scan(path, self._tell), self._cancellation))
        return self._volume[1]


def _check_fields(request: dict[str, Any], needed: Sequence[str]) -> None:
    """Check that a request has the fields that it needs, and that each is a text; the prompts are a list of them."""
    for name in needed:
        if name not in request:
            raise CPS4Error(f"The request lacks {name!r}.", "Send it again with that field.")
    for name, value in request.items():
        texts = value if name == "prompts" and isinstance(value, list) else [value]
        if name in TEXTS and not all(isinstance(text, str) for text in texts):
            raise CPS4Error(f"The request's {name!r} is no text.", "Send it again with a text there.")


def _name(request: dict[str, Any]) -> str:
    return str(request.get("request", ""))
