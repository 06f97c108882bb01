"""The warm worker: requests on standard input, events on standard output, one JSON object a line.

    {"request": "1", "do": "load", "model": "run/model", "device": "auto"}
    {"request": "2", "do": "segment", "input": "scan.nii.gz", "output": "labels.seg.nrrd", "level_order": false}
    {"request": "3", "do": "attend", "input": "scan.nii.gz", "prompts": ["L4", "a herniated disc"], "output": "maps"}
    {"request": "4", "do": "figure", "input": "scan.nii.gz", "prompts": ["L4"], "output": "figure.png"}
    {"request": "5", "do": "check", "input": "scan.nii.gz", "labels": "labels.seg.nrrd", "network": "59de0c..."}
    {"request": "6", "do": "cancel"}
    {"request": "7", "do": "cancel", "which": "5"}
    {"request": "8", "do": "shutdown"}

Every answer is an event that carries its ``request``; ``finished`` or ``failed`` is the last one. Requests wait in
line, except ``cancel``, which stops the running one and those that wait, or one of them. The model and the last volume
stay in memory, until training writes other weights into the model's folder. ``check`` is refused where ``network``,
the SHA-256 that came with the segmentation, is not that of the model; it may be left out. The worker ends with
``shutdown`` or when its standard input closes.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS, NETWORK
from CPS4Core.data.volumes import read_scan
from CPS4Core.devices import NO_MEMORY, choose_device, is_out_of_memory
from CPS4Core.errors import Cancelled, CPS4Error
from CPS4Core.events import Event, Failed, Finished, Reporter, Started
from CPS4Core.inference.agreement import Checker, asks_prompts, check_files
from CPS4Core.inference.attend import write_figure, write_maps
from CPS4Core.inference.attention import AttentionMapper, EncodedVolume
from CPS4Core.inference.batch import Task, segment_one
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.shipped_model import model_path

log = logging.getLogger(__name__)


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
        self._model: Path | None = None
        self._weights: dict[str, Any] | None = None
        self._device_name = "auto"
        self._segmenter: Segmenter | None = None
        self._mapper: AttentionMapper | None = None
        self._checker: Checker | None = None
        self._volume: tuple[tuple, EncodedVolume] | None = None

    def serve(self, lines: Iterable[str]) -> None:
        """Answer the requests on ``lines`` until it ends or asks for shutdown."""
        threading.Thread(target=self._listen, args=(lines,), daemon=True, name="requests").start()
        while (waiting := self._waiting.get()) is not None:
            request, self._cancellation = waiting
            self._answer(request)
            self._cancellations.remove((_name(request), self._cancellation))

    def _listen(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.strip():
                self._receive(line)
        self._cancel()
        self._waiting.put(None)

    def _receive(self, line: str) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError
        except ValueError:
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
        name = _name(request)
        verbs: dict[str, Callable[[dict[str, Any], Reporter], None]] = {
            "load": self._load,
            "segment": self._segment,
            "attend": self._attend,
            "figure": self._figure,
            "check": self._check,
        }

        def report(event: Event) -> None:
            self._report(replace(event, request=name))

        try:
            self._cancellation.check()
            verb = verbs.get(str(request.get("do")))
            if verb is None:
                raise CPS4Error(
                    f"There is no request {request.get('do')!r}.", f"Use one of: {', '.join(verbs)}."
                )
            verb(request, report)
            report(Finished())
        except Cancelled:
            report(Finished(cancelled=True))
        except CPS4Error as error:
            report(Failed(error.problem, error.remedy, None if error.path is None else str(error.path)))
        except KeyError as error:
            report(Failed(f"The request lacks {error}.", "Send it again with that field."))
        except Exception as error:
            log.exception("request %s failed", name)
            unexpected = ("Something unexpected went wrong.", "See the log, then try again.")
            report(Failed(*(NO_MEMORY if is_out_of_memory(error) else unexpected)))

    def _load(self, request: dict[str, Any], report: Reporter) -> None:
        model, device = model_path(request["model"]), request.get("device", "auto")
        if (model, device) != (self._model, self._device_name):
            self._model, self._device_name, self._weights = model, device, None
        opened = self._loaded_model()
        details = {"card": asdict(opened.card), "device": str(choose_device(device))}
        if opened.has(NETWORK):
            self._warm_segmenter(report)
        elif opened.has(ENCODERS):
            self._warm_mapper()
        report(Started("load", details))

    def _segment(self, request: dict[str, Any], report: Reporter) -> None:
        task = Task(Path(request["input"]), Path(request["output"]))
        level_order = bool(request.get("level_order", False))
        segment_one(self._warm_segmenter(report), task, level_order, report, self._cancellation)

    def _attend(self, request: dict[str, Any], report: Reporter) -> None:
        mapper = self._warm_mapper()
        volume = self._encoded(mapper, Path(request["input"]), report)
        prompts = {}
        for number, text in enumerate(request["prompts"]):
            _, label = mapper.prompt_for(text)
            prompts[f"prompt_{number:02d}" if label is None else f"class_{label:02d}"] = text
        write_maps(mapper, volume, prompts, Path(request["output"]), ".nrrd", report, self._cancellation)

    def _figure(self, request: dict[str, Any], report: Reporter) -> None:
        mapper = self._warm_mapper()
        volume = self._encoded(mapper, Path(request["input"]), report)
        write_figure(mapper, volume, list(request["prompts"]), Path(request["output"]), report)

    def _check(self, request: dict[str, Any], report: Reporter) -> None:
        network = self._warm_segmenter(report)
        if request.get("network", network.sha256) != network.sha256:
            raise CPS4Error(
                "The model has changed since it made the segmentation.", "Segment the volume again."
            )
        if self._checker is None:
            mapper = self._warm_mapper() if asks_prompts(self._loaded_model()) else None
            self._checker = Checker.of(self._loaded_model(), network, mapper)
        source, labels = Path(request["input"]), Path(request["labels"])
        check_files(self._checker, source, labels, report, self._cancellation)

    def _warm_segmenter(self, report: Reporter) -> Segmenter:
        model = self._loaded_model()
        if self._segmenter is None:
            self._segmenter = Segmenter(model, choose_device(self._device_name), report)
        return self._segmenter

    def _warm_mapper(self) -> AttentionMapper:
        model = self._loaded_model()
        if self._mapper is None:
            self._mapper = AttentionMapper(model, choose_device(self._device_name))
        return self._mapper

    def _loaded_model(self) -> ModelFolder:
        """Return the model's folder; what is in memory goes if the folder holds other weights by now."""
        if self._model is None:
            raise CPS4Error("No model is loaded.", "Send a `load` request first.")
        opened = ModelFolder.open(self._model)
        weights = opened.card.weights
        if weights != self._weights:
            self._weights = weights
            self._segmenter = self._mapper = self._checker = self._volume = None
        return opened

    def _encoded(self, mapper: AttentionMapper, path: Path, report: Reporter) -> EncodedVolume:
        """Return the encoded volume in ``path``, from memory if it is the last one and has not changed."""
        status = path.stat() if path.exists() else None
        key = (path, status and status.st_mtime_ns, status and status.st_size)
        if self._volume is None or self._volume[0] != key:
            self._volume = (key, mapper.encode(read_scan(path, report), self._cancellation))
        return self._volume[1]


def _name(request: dict[str, Any]) -> str:
    return str(request.get("request", ""))
