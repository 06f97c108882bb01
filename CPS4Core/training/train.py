"""Stage 2: class prompt driven semi-supervised segmentation (paper, section 2.2), and every system beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS, NETWORK, TEACHER
from CPS4Core.class_table import BACKGROUND, NUM_CLASSES, short_name
from CPS4Core.config import Settings
from CPS4Core.data.augment import Augmentation, draw
from CPS4Core.devices import make_deterministic, memory_format
from CPS4Core.errors import CPS4Error
from CPS4Core.evaluation.metrics import mean_scores
from CPS4Core.events import Reporter, Started
from CPS4Core.figures import fullest_slice, overlay
from CPS4Core.model_folder import ModelFolder, Weights, new_card
from CPS4Core.segmentation.methods.method import Batch
from CPS4Core.systems import find_method
from CPS4Core.training.inputs import TrainingInputs, open_inputs
from CPS4Core.training.loop import TrainingLoop, make_accelerator
from CPS4Core.training.map_store import MapStore, compute_text_maps
from CPS4Core.training.run_folder import RunFolder
from CPS4Core.training.sampling import EndlessShuffle
from CPS4Core.training.stage import Stage
from CPS4Core.training.text_trust import measure_text_trust
from CPS4Core.vision_language.maps import text_maps

RATE_DROP = 5
"""The learning rate is divided by this at each of ``rate_drops`` (paper, section 3)."""


class SegmentationStage(Stage):
    """Stage 2 on labelled and unlabelled slices.

    Args:
        inputs: prepared slices and their split.
        settings: the whole settings of the run.
        accelerator: device and processes.
        maps: text maps of the unlabelled slices and of validation cases, for a method that needs them.
        encoders: model of stage 1, whose encoders the finished model takes along.
        start: model whose network to begin with.
        model_folder: where the best network is written.
    """

    name = "stage 2"

    def __init__(
        self,
        inputs: TrainingInputs,
        settings: Settings,
        accelerator: Accelerator,
        maps: MapStore | None,
        encoders: ModelFolder | None,
        start: ModelFolder | None,
        model_folder: Path,
    ):
        self.inputs = inputs
        self.settings = settings
        self.accelerator = accelerator
        self.maps = maps
        self.trust = self._measured_trust()
        self.encoders = encoders
        self.model_folder = model_folder
        train = settings.train
        labelled = inputs.store.slices_of(inputs.split.labelled)
        unlabelled = inputs.store.slices_of(inputs.split.unlabelled)
        self.batch = inputs.share_of(train.batch, accelerator)
        self.labelled = EndlessShuffle(labelled, [settings.seed, 2])
        method = find_method(train.method).load()
        self.unlabelled = EndlessShuffle(unlabelled, [settings.seed, 3]) if method.needs_unlabelled else None
        self.epochs = train.epochs
        self.steps_per_epoch = train.steps_per_epoch or -(-len(unlabelled or labelled) // train.batch)
        self.validate_every = train.validate_every

        torch.manual_seed(settings.seed)
        self.module = method(train)
        if start is not None:
            self.module.start_from(start.load_network().state_dict())
        self.module.to(accelerator.device, memory_format=memory_format(accelerator.device, training=True))
        self.optimizer = torch.optim.Adam(
            [each for each in self.module.parameters() if each.requires_grad],
            lr=train.learning_rate,
            weight_decay=train.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer,
            milestones=[max(1, round(share * train.epochs)) for share in train.rate_drops],
            gamma=1 / RATE_DROP,
        )

    @property
    def smallest_batch(self) -> int:
        return self.batch

    def load(self, step: int) -> dict[str, Any]:
        start = step * self.settings.train.batch + self.accelerator.process_index * self.batch
        store = self.inputs.store
        chosen = self.labelled.take(start, self.batch)
        loaded = {
            "labelled": _stack(store.image(*each) for each in chosen).unsqueeze(1),
            "labels": _stack(store.label(*each) for each in chosen),
            "start": start,
        }
        if self.unlabelled is not None:
            chosen = self.unlabelled.take(start, self.batch)
            loaded["unlabelled"] = _stack(store.image(*each) for each in chosen).unsqueeze(1)
            if self.maps is not None:
                loaded["attention"] = _stack(self.maps.attention(*each) for each in chosen)
                loaded["thresholds"] = _stack(self.maps.thresholds(*each) for each in chosen)
        return loaded

    def prepare(self, loaded: dict[str, Any], step: int) -> Batch:
        device = self.accelerator.device
        on_device = {name: each.to(device) for name, each in loaded.items() if isinstance(each, Tensor)}
        change_l, change_u = (self._draw(loaded["start"], stream) for stream in (21, 22))
        layout = memory_format(device, training=True)
        images = change_l.images(on_device["labelled"])
        unlabelled = on_device.get("unlabelled", images[:0])
        batch = {
            "labelled": images.contiguous(memory_format=layout),
            "labels": change_l.labels(on_device["labels"]),
            "unlabelled": change_u.images(unlabelled).contiguous(memory_format=layout)
            if len(unlabelled)
            else unlabelled,
        }
        if "attention" in on_device:
            maps = text_maps(
                on_device["attention"],
                unlabelled.shape[-2:],
                thresholds=on_device["thresholds"],
                least_peak=self.settings.train.least_peak,
                change=change_u,
            )
            trust = self.trust.to(device)
            batch["text_maps"], batch["text_labels"] = maps.binary * trust[:, None, None], maps.labels
            batch["text_trust"] = float(self.trust[BACKGROUND])
        return Batch(**batch, progress=step / self.total_steps, step=step)

    def split(self, batch: Batch, parts: int) -> list[tuple]:
        return [(each,) for each in batch.split(parts)]

    def after_step(self, step: int) -> None:
        self.module.after_step(step)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return mDice and mIoU over the validation cases, on the canvas."""
        network = self.module.network
        pairs = []
        for case in self.inputs.validation_cases:
            images = torch.from_numpy(self.inputs.store.images(case)).unsqueeze(1)
            with self.accelerator.autocast():
                predicted = [
                    network(chunk.to(self.accelerator.device)).argmax(1).cpu()
                    for chunk in images.split(self.batch)
                ]
            pairs.append((torch.cat(predicted).numpy().astype(np.uint8), self.inputs.store.labels(case)))
        if not pairs:
            return {}
        mdice, miou = mean_scores(pairs)
        return {"validation_mdice": mdice, "validation_miou": miou}

    @torch.inference_mode()
    def preview(self) -> bytes | None:
        case = self.inputs.shown_case
        if case is None:
            return None
        truth = self.inputs.store.labels(case)
        k = fullest_slice(truth)
        image = self.inputs.store.images(case)[k]
        logits = self.module.network(torch.from_numpy(image)[None, None].to(self.accelerator.device))
        shown = {"prediction": logits.argmax(1)[0].byte().cpu().numpy(), "reference": truth[k]}
        if self.maps is not None:
            maps = self.maps.maps(case, k, image.shape, self.settings.train.least_peak)
            shown = {"text maps": maps.labels.byte().numpy(), **shown}
        return overlay(image, shown)

    def score(self, metrics: dict[str, float]) -> float:
        return metrics["validation_mdice"]

    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        self.schedule.step()

    def schedule_state(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_schedule_state(self, state: dict[str, Any]) -> None:
        # JSON has no Counter; the milestones come from the settings.
        self.schedule.load_state_dict({**state, "milestones": self.schedule.milestones})

    def model_weights(self) -> Weights:
        parts = {NETWORK: self.module.network, TEACHER: self.module.teacher_network}
        return {part: module.state_dict() for part, module in parts.items() if module is not None}

    def write_model(self, weights: Weights, step: int, metrics: dict[str, float]) -> None:
        facts = {"step": step, "validation": metrics, "data": self.inputs.facts()}
        if self.maps is not None:
            facts["text_trust"] = {short_name(k): round(float(each), 3) for k, each in enumerate(self.trust)}
        card = new_card(self.settings, encoders=self.encoders, stage=2, **facts)
        ModelFolder.write(self.model_folder, step, weights, card, encoders=self.encoders)

    def _draw(self, start: int, stream: int) -> Augmentation:
        seeds = [[self.settings.seed, stream, start + place] for place in range(self.batch)]
        return draw(self.settings.input.size, self.settings.augment, seeds, self.accelerator.device)

    def _measured_trust(self) -> Tensor:
        """Return the weight of each class's text maps, shape (classes,)."""
        cases, store = self.inputs.validation_cases, self.inputs.store
        if self.maps is None or self.settings.train.text_trust == "full" or not cases:
            return torch.ones(NUM_CLASSES)
        return measure_text_trust(
            (self._binary_maps(case) for case in cases),
            (store.labels(case) for case in cases),
            self.settings.train.least_trust,
        )

    def _binary_maps(self, case: str) -> Tensor:
        """Return the binary maps of all slices of a case, (slices, classes, H, W)."""
        size, least_peak = self.settings.input.size, self.settings.train.least_peak
        slices = range(self.inputs.store.counts[case])
        return torch.stack([self.maps.maps(case, k, size, least_peak).binary for k in slices])


def train(
    data_set: Path,
    output: Path,
    settings: Settings,
    *,
    ratio: float,
    encoders: Path | None,
    device: torch.device,
    report: Reporter,
    cancellation: Cancellation,
    cache: Path | None = None,
    start: Path | None = None,
) -> Path:
    """Run stage 2, or go on with the run in ``output``, and return the folder of the trained model.

    Args:
        data_set: folder in the layout of nnU-Net v2.
        output: run folder.
        settings: the whole settings; ``train``, ``input`` and ``augment`` matter here.
        ratio: share of the labelled patients whose labels are used, in (0, 1].
        encoders: model folder of stage 1; needed by a method that uses text maps.
        device: where to compute.
        report: receives the events.
        cancellation: tells when to stop.
        cache: where prepared slices are kept; the data set's folder ``preprocessed`` if None.
        start: model folder whose network to begin with, of the same input and widths; a new network if None.

    Raises:
        CPS4Error: if the data, the settings, the encoders, the network to begin with or the output folder are not
            usable.
        Cancelled: if the user stopped it; the same call goes on.
    """
    make_deterministic()
    system = find_method(settings.train.method)
    prompted = _open_encoders(settings, encoders) if system.needs_text else None
    begun = None if start is None else _open_start(settings, start)
    accelerator = make_accelerator(device)
    inputs = open_inputs(data_set, settings, ratio, cache, accelerator, report, cancellation, unlabelled=True)
    if system.load().needs_unlabelled and not inputs.store.slices_of(inputs.split.unlabelled):
        raise CPS4Error(
            "There is no unlabelled case to learn from.",
            "Add images without labels, choose a ratio below 1, or the method `supervised`.",
            data_set,
        )
    identity = {
        "stage": 2,
        "settings": settings.model_dump(mode="json", exclude={"pretrain", "encoders", "checkpoint_minutes"}),
        "data": inputs.facts(),
        "encoders": None if prompted is None else prompted.sha256(ENCODERS),
    }
    if begun is not None:
        identity["start"] = begun.sha256()
    with RunFolder(output, identity, report, main=accelerator.is_main_process) as run:
        maps = None
        if prompted is not None:
            # One is shown while training; all of them measure the trust.
            looked_at = inputs.validation_cases[: None if settings.train.text_trust == "measured" else 1]
            with accelerator.main_process_first():
                maps = compute_text_maps(
                    prompted.load_encoders(),
                    inputs.store,
                    [*inputs.split.unlabelled, *looked_at],
                    run.path / "text_maps" / identity["encoders"][:12],
                    accelerator.device,
                    run.report,
                    cancellation,
                )
        stage = SegmentationStage(inputs, settings, accelerator, maps, prompted, begun, run.model)
        run.report(Started("train", {"device": str(accelerator.device), "steps": stage.total_steps}))
        TrainingLoop(stage, run, settings, accelerator, cancellation).run()
    return run.model


def _open_encoders(settings: Settings, encoders: Path | None) -> ModelFolder:
    """Return the model of stage 1 in ``encoders``, if it was trained on slices like those of ``settings``."""
    if encoders is None:
        raise CPS4Error(
            f"The method {settings.train.method!r} needs trained encoders.",
            "Run `cps4 pretrain` first and name its model folder with --encoders.",
        )
    model = ModelFolder.open(encoders)
    if model.input != settings.input:
        raise CPS4Error(
            "The encoders were trained on slices of another size or spacing.",
            "Use the same preset and input settings in both stages.",
            encoders,
        )
    return model


def _open_start(settings: Settings, start: Path) -> ModelFolder:
    """Return the model in ``start``, if its network sees the same slices and has the same shape."""
    model = ModelFolder.open(start)
    if not model.has(NETWORK):
        raise CPS4Error(
            "The model to begin with has no segmentation network.", "Choose one of stage 2.", start
        )
    if (model.input, model.widths) != (settings.input, settings.train.widths):
        raise CPS4Error(
            "The model to begin with was trained on slices of another size, or has another network.",
            "Use its preset and settings.",
            start,
        )
    return model


def _stack(arrays: Any) -> Tensor:
    return torch.from_numpy(np.stack(list(arrays)))
