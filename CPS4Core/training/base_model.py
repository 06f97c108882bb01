"""Makes the base model that comes with CPS4, from nothing: synthetic spines, then real scans, then the encoders.

    output/
        tissues/      tissue maps of synthetic patients
        slices/       real slices, prepared
        1-synthetic/  2-labelled/  3-prompts/  4-unlabelled/   one run each
        model/        the network and the encoders, in eight bits a number

A part that is finished is not repeated; a stopped one goes on.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS, NETWORK
from CPS4Core.config import Settings
from CPS4Core.data.dataset import Case, DataSet, open_data_set
from CPS4Core.data.slices import prepare_slices
from CPS4Core.eight_bits import compress
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Finished, Reporter, Started
from CPS4Core.files import read_json, write_json
from CPS4Core.model_folder import ModelFolder, new_card
from CPS4Core.synthesis.bank import Bank, draw_bank
from CPS4Core.training.base import SOURCE, BaseTraining, Slices
from CPS4Core.training.learners import Learner, NetworkLearner, PromptLearner, SemiSupervisedLearner
from CPS4Core.training.loop import TrainingLoop
from CPS4Core.training.run import make_accelerator, open_run
from CPS4Core.vision_language.model import build_model

DONE = "done.json"
"""In a part's folder once it is finished: what it took."""


@dataclass(frozen=True)
class Sources:
    """Real slices to learn from, and what they are."""

    labelled: Slices | None
    unlabelled: Slices | None
    facts: list[dict[str, Any]]


def make_base_model(
    output: Path,
    settings: Settings,
    data_sets: Sequence[Path],
    leave_out: Sequence[str],
    start: Path | None,
    minutes: float | None,
    device: torch.device,
    report: Reporter,
    cancellation: Cancellation,
) -> Path:
    """Make the base model, or go on with it, and return its folder.

    Args:
        output: folder for all that is made.
        settings: the preset ``base``, or one like it.
        data_sets: folders in the layout of nnU-Net v2; labelled and unlabelled cases are both used. Without any, the
            model learns from synthetic spines alone.
        leave_out: patterns of case names to keep for tests, such as ``spider*_005*``.
        start: model whose network and encoders to go on from, instead of learning from synthetic spines alone first.
        minutes: stop after this time; the same call goes on. None: no limit.
        device: where to compute.
        report: receives the events.
        cancellation: tells when to stop.

    Raises:
        CPS4Error: if a data set, ``start`` or the folder cannot be used.
        Cancelled: if the user asked to stop, or the time is over; the same call goes on.
    """
    if minutes is not None:
        _stop_after(minutes, cancellation)
    base = settings.base
    report(Started("base", {"device": str(device)}))
    bank = draw_bank(
        output / "tissues", base.patients, settings.seed, os.cpu_count() or 1, report, cancellation
    )
    sources = _open_sources(data_sets, leave_out, output / "slices", report, cancellation)
    begun = None if start is None else _begun(start, settings, sources)
    parts = _Parts(output, settings, bank, sources, begun, device, report, cancellation)

    network = start or parts.train(
        "1-synthetic", base.synthetic_steps, lambda: NetworkLearner(settings), None
    )
    if sources.labelled is not None:
        before = network
        network = parts.train(
            "2-labelled",
            base.labelled_steps,
            lambda: _started(NetworkLearner(settings), before),
            sources.labelled,
        )
    trunk = network
    encoders = parts.train(
        "3-prompts",
        base.prompt_steps,
        lambda: _prompt_learner(settings, begun, trunk),
        sources.labelled,
    )
    if sources.labelled is not None and sources.unlabelled is not None:
        network = parts.train(
            "4-unlabelled",
            base.unlabelled_steps,
            lambda: _started(
                SemiSupervisedLearner(settings, ModelFolder.open(encoders).load_encoders()), trunk
            ),
            sources.labelled,
            sources.unlabelled,
        )
    model = output / "model"
    _assemble(model, settings, network, encoders, parts, begun)
    report(Artifact("model", str(model), {}))
    report(Finished())
    return model


class _Parts:
    """Trains the parts of the model, each in a run folder of its own."""

    def __init__(
        self,
        output: Path,
        settings: Settings,
        bank: Bank,
        sources: Sources,
        begun: ModelFolder | None,
        device: torch.device,
        report: Reporter,
        cancellation: Cancellation,
    ):
        self.output = output
        self.settings = settings
        self.bank = bank
        self.sources = sources
        self.begun = begun
        self.device = device
        self.report = report
        self.cancellation = cancellation
        self.names: list[str] = []

    def train(
        self,
        name: str,
        steps: int,
        make: Callable[[], Learner],
        labelled: Slices | None,
        unlabelled: Slices | None = None,
    ) -> Path:
        """Train one part unless it is finished, and return its model folder."""
        self.names.append(name)
        folder = self.output / name
        identity = {
            "stage": name,
            "steps": steps,
            "data": self.sources.facts,
            "start": None if self.begun is None else _weights_of(self.begun),
        }
        accelerator = make_accelerator(self.device)
        with open_run(
            folder, identity, self.settings, accelerator, self._quiet, self.cancellation, unused={"augment"}
        ) as run:
            if (folder / DONE).is_file():
                return run.folder.model
            started = time.monotonic()
            torch.manual_seed(self.settings.seed)
            stage = BaseTraining(run, make(), steps, self.bank, labelled, unlabelled)
            TrainingLoop(stage, run).run()
            took = {
                "steps": stage.total_steps,
                "minutes_of_the_last_call": round((time.monotonic() - started) / 60, 1),
            }
            write_json(folder / DONE, took)
        return run.folder.model

    def history(self) -> dict[str, Any]:
        """Return what each part took."""
        return {name: read_json(self.output / name / DONE) for name in self.names}

    def _quiet(self, event: Any) -> None:
        """Pass on all but the start and the end of a part, which are not those of the whole."""
        if not isinstance(event, (Started, Finished, Artifact)):
            self.report(event)


def _weights_of(model: ModelFolder) -> dict[str, str]:
    """Return the SHA-256 of each part that a training goes on from."""
    return {part: model.sha256(part) for part in (NETWORK, ENCODERS) if model.has(part)}


def _begun(start: Path, settings: Settings, sources: Sources) -> ModelFolder:
    """Return the model to go on from, which must be a network of the same shape."""
    model = ModelFolder.open(start)
    if sources.labelled is None:
        raise CPS4Error("There is nothing to go on with.", "Name a data set with labels: --data.", start)
    if model.widths != settings.train.widths:
        raise CPS4Error(
            f"Its network has the widths {list(model.widths)}, the settings {list(settings.train.widths)}.",
            "Go on from a model of the same preset.",
            start,
        )
    return model


def _started(learner: Learner, model: Path) -> Learner:
    learner.start_from(ModelFolder.open(model).load_network())
    return learner


def _prompt_learner(settings: Settings, begun: ModelFolder | None, network: Path) -> Learner:
    """Go on with the encoders of a model, if it has such; else begin with the trunk of the network."""
    if begun is not None and begun.has_encoders_for(settings):
        return PromptLearner(begun.load_encoders(), settings)
    return _started(PromptLearner(build_model(settings.encoders, settings.input.size), settings), network)


def _open_sources(
    folders: Sequence[Path],
    leave_out: Sequence[str],
    cache: Path,
    report: Reporter,
    cancellation: Cancellation,
) -> Sources:
    labelled, unlabelled, facts = [], [], []
    for folder in folders:
        data_set = open_data_set(folder)
        with_labels = _kept(data_set.labelled, leave_out)
        without = _kept(data_set.unlabelled, leave_out)
        facts.append(_facts(data_set, with_labels, without))
        if not with_labels and not without:
            raise CPS4Error("Nothing is left to learn from.", "Leave out fewer cases.", folder)
        store = prepare_slices(
            [*with_labels, *without], SOURCE, cache / Path(folder).name, report, cancellation
        )
        labelled += [(store, place) for place in store.slices_of([case.name for case in with_labels])]
        unlabelled += [(store, place) for place in store.slices_of([case.name for case in without])]
    return Sources(_slices(labelled), _slices(unlabelled), facts)


def _slices(places: list) -> Slices | None:
    return Slices(tuple(places)) if places else None


def _kept(cases: Sequence[Case], leave_out: Sequence[str]) -> list[Case]:
    return [case for case in cases if not any(fnmatch(case.name, pattern) for pattern in leave_out)]


def _facts(data_set: DataSet, labelled: list[Case], unlabelled: list[Case]) -> dict[str, Any]:
    """Return what the card says of a data set; its description is that of ``dataset.json``."""
    described = read_json(data_set.folder / "dataset.json")
    return {
        "name": described.get("name", data_set.folder.name),
        **{key: described[key] for key in ("licence", "reference", "description") if key in described},
        "labelled": [case.name for case in labelled],
        "unlabelled": [case.name for case in unlabelled],
    }


def _assemble(
    model: Path,
    settings: Settings,
    network: Path,
    encoders: Path,
    parts: _Parts,
    begun: ModelFolder | None,
) -> None:
    """Write the model: both parts in eight bits a number, and a card that says how it came about."""
    history = parts.history()
    about: dict[str, Any] = {
        "name": "CPS4 base",
        "parts": history,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "data_sets": parts.sources.facts,
    }
    if begun is not None:
        about["went_on_from"] = {"network": begun.sha256(), **begun.card.about}
    weights = {
        NETWORK: compress(ModelFolder.open(network).load_network().state_dict()),
        ENCODERS: compress(ModelFolder.open(encoders).load_encoders().state_dict()),
    }
    before = 0 if begun is None else begun.card.step
    steps = before + sum(part["steps"] for part in history.values())
    ModelFolder.write(model, steps, weights, new_card(settings, stage=2, step=steps, about=about))


def _stop_after(minutes: float, cancellation: Cancellation) -> None:
    timer = threading.Timer(60 * minutes, cancellation.request)
    timer.daemon = True
    timer.start()
