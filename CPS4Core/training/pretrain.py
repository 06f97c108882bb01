"""Stage 1: class-specific consistency constrained pretraining of the encoders (paper, section 2.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS
from CPS4Core.config import Settings
from CPS4Core.data.augment import draw
from CPS4Core.devices import make_deterministic
from CPS4Core.events import Metric, Reporter, Started
from CPS4Core.figures import fullest_slice, overlay
from CPS4Core.model_folder import ModelFolder, Weights, new_card
from CPS4Core.systems import find_objective
from CPS4Core.training.inputs import TrainingInputs, open_inputs
from CPS4Core.training.loop import TrainingLoop, make_accelerator
from CPS4Core.training.run_folder import RunFolder
from CPS4Core.training.sampling import EndlessShuffle
from CPS4Core.training.stage import Stage
from CPS4Core.vision_language.maps import text_labels
from CPS4Core.vision_language.model import build_model


class Pretraining(Stage):
    """Stage 1 on the labelled slices.

    Args:
        inputs: prepared slices and their split.
        settings: the whole settings of the run.
        accelerator: device and processes.
        model_folder: where the best encoders are written.
    """

    name = "stage 1"

    def __init__(
        self, inputs: TrainingInputs, settings: Settings, accelerator: Accelerator, model_folder: Path
    ):
        self.inputs = inputs
        self.settings = settings
        self.accelerator = accelerator
        self.model_folder = model_folder
        self.slices = inputs.store.slices_of(inputs.split.labelled)
        self.validation = inputs.store.slices_of(inputs.split.validation)
        self.batch = inputs.share_of(settings.pretrain.batch, accelerator)
        self.order = EndlessShuffle(self.slices, [settings.seed, 1])
        self.epochs = settings.pretrain.epochs
        self.steps_per_epoch = -(-len(self.slices) // settings.pretrain.batch)

        torch.manual_seed(settings.seed)
        model = build_model(settings.encoders, settings.input.size)
        self.module = (
            find_objective(settings.pretrain.objective)
            .load()(model, settings.pretrain)
            .to(accelerator.device)
        )
        self.optimizer = torch.optim.Adam(self._parameters(), lr=settings.pretrain.learning_rate)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer,
            factor=settings.pretrain.plateau_factor,
            patience=settings.pretrain.plateau_patience,
        )

    @property
    def smallest_batch(self) -> int:
        return self.batch

    def load(self, step: int) -> tuple[Tensor, Tensor, list[list[int]]]:
        start = step * self.settings.pretrain.batch + self.accelerator.process_index * self.batch
        chosen = self.order.take(start, self.batch)
        seeds = [[self.settings.seed, 11, start + place] for place in range(self.batch)]
        return *self._read(chosen), seeds

    def prepare(self, loaded: tuple[Tensor, Tensor, list[list[int]]], step: int) -> tuple[Tensor, Tensor]:
        images, labels = (each.to(self.accelerator.device) for each in loaded[:2])
        if not self.settings.pretrain.augment:
            return images, labels.long()
        change = draw(images.shape[-2:], self.settings.augment, loaded[2], self.accelerator.device)
        return change.images(images), change.labels(labels)

    def split(self, batch: tuple[Tensor, Tensor], parts: int) -> list[tuple]:
        return list(zip(*(each.chunk(parts) for each in batch), strict=True))

    def after_step(self, step: int) -> None:
        self.module.after_step(step)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the mean loss terms over the validation slices."""
        sums: dict[str, float] = {}
        for start in range(0, len(self.validation), self.batch):
            chosen = self.validation[start : start + self.batch]
            images, labels = (each.to(self.accelerator.device) for each in self._read(chosen))
            for name, value in self.module(images, labels.long()).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(chosen)
        return {f"validation_{name}": value / len(self.validation) for name, value in sums.items()}

    def preview(self) -> bytes | None:
        case = self.inputs.shown_case
        if case is None:
            return None
        truth = self.inputs.store.labels(case)
        k = fullest_slice(truth)
        image = self.inputs.store.images(case)[k]
        shown = text_labels(self.module.model, image[None])[0]
        return overlay(image, {"text maps": shown, "reference": truth[k]})

    def score(self, metrics: dict[str, float]) -> float:
        return -metrics["validation_total"]

    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        if metrics:
            self.schedule.step(metrics["validation_total"])

    def schedule_state(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_schedule_state(self, state: dict[str, Any]) -> None:
        self.schedule.load_state_dict(state)

    def model_weights(self) -> Weights:
        return {ENCODERS: self.module.model.state_dict()}

    def write_model(self, weights: Weights, step: int, metrics: dict[str, float]) -> None:
        card = new_card(self.settings, stage=1, step=step, validation=metrics, data=self.inputs.facts())
        ModelFolder.write(self.model_folder, step, weights, card, text=self.module.model.text)

    def _parameters(self) -> list[dict[str, Any]]:
        """Return the parameters to train, the text encoder's with their own learning rate."""
        text, rate = self.module.model.text, self.settings.pretrain.text_learning_rate
        if rate == 0:
            text.freeze()
        mine = {id(each) for each in text.parameters()}
        groups = [{"params": [each for each in self.module.parameters() if id(each) not in mine]}]
        if rate != 0:
            rate = self.settings.pretrain.learning_rate if rate is None else rate
            groups.append({"params": list(text.parameters()), "lr": rate})
        return groups

    def _read(self, chosen: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
        store = self.inputs.store
        images = np.stack([store.image(case, k) for case, k in chosen])
        labels = np.stack([store.label(case, k) for case, k in chosen])
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels)


def pretrain(
    data_set: Path,
    output: Path,
    settings: Settings,
    *,
    ratio: float,
    device: torch.device,
    report: Reporter,
    cancellation: Cancellation,
    cache: Path | None = None,
) -> Path:
    """Run stage 1, or go on with the run in ``output``, and return the folder of the trained encoders.

    Args:
        data_set: folder in the layout of nnU-Net v2.
        output: run folder.
        settings: the whole settings; ``pretrain``, ``encoders``, ``input`` and ``augment`` matter here.
        ratio: share of the labelled patients whose labels are used, in (0, 1].
        device: where to compute.
        report: receives the events.
        cancellation: tells when to stop.
        cache: where prepared slices are kept; the data set's folder ``preprocessed`` if None.

    Raises:
        CPS4Error: if the data, the settings, the weights or the output folder are not usable.
        Cancelled: if the user stopped it; the same call goes on.
    """
    make_deterministic()
    accelerator = make_accelerator(device)
    inputs = open_inputs(
        data_set, settings, ratio, cache, accelerator, report, cancellation, unlabelled=False
    )
    identity = {
        "stage": 1,
        "settings": settings.model_dump(mode="json", exclude={"train", "checkpoint_minutes"}),
        "data": inputs.facts(),
    }
    with RunFolder(output, identity, report, main=accelerator.is_main_process) as run:
        stage = Pretraining(inputs, settings, accelerator, run.model)
        similarity = stage.module.model.prompt_similarity().fill_diagonal_(-1).max()
        run.report(Started("pretrain", {"device": str(accelerator.device), "steps": stage.total_steps}))
        run.report(Metric(0, {"largest_prompt_similarity": float(similarity)}))
        TrainingLoop(stage, run, settings, accelerator, cancellation).run()
    return run.model
