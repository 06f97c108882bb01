"""The stage that trains a part of the base model, on batches of synthetic, labelled and unlabelled slices.

Synthetic slices are drawn anew at each step from tissue maps (``synthesis``); real ones are seen in other looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from CPS4Core.config import InputSettings, Settings
from CPS4Core.data.slices import SliceStore
from CPS4Core.devices import memory_format
from CPS4Core.model_folder import ModelFolder, Weights, new_card
from CPS4Core.synthesis.appearance import Appearance
from CPS4Core.synthesis.bank import Bank
from CPS4Core.synthesis.recast import recast, two_looks
from CPS4Core.training.learners import Learner
from CPS4Core.training.sampling import EndlessShuffle
from CPS4Core.training.stage import Stage

SOURCE = InputSettings(size=(256, 352), spacing_mm=1.0)
"""How real slices are kept: finer and wider than the network's input, which is cut out of them at random."""
WARM_UP = 200
"""Steps over which the learning rate rises."""
EPOCH = 50
"""Steps between two chances to write a checkpoint."""
LEAST_RATE = 5e-4
"""Of the learning rate, at the end."""


@dataclass(frozen=True)
class Slices:
    """Real slices to learn from."""

    places: tuple[tuple[SliceStore, tuple[str, int]], ...]
    """Where each slice is: its store, its case and its number."""


@dataclass(frozen=True)
class Loaded:
    """What a step reads from disk."""

    maps: Tensor
    """Tissue codes, uint8, (synthetic, planes, rows, columns)."""
    labelled: Tensor
    """(labelled, 1, rows, columns) on ``SOURCE``."""
    labels: Tensor
    """uint8, (labelled, rows, columns)."""
    unlabelled: Tensor
    """(unlabelled, 1, rows, columns)."""


class BaseTraining(Stage):
    """Trains a learner.

    Args:
        learner: what is trained.
        settings: the whole settings; ``base`` and ``input`` matter.
        steps: how many.
        bank: tissue maps.
        labelled: labelled slices; None to learn from synthetic ones alone.
        unlabelled: slices without labels; None unless the learner takes them.
        accelerator: device and processes.
        model_folder: where the model is written.
    """

    name = "base model"

    def __init__(
        self,
        learner: Learner,
        settings: Settings,
        steps: int,
        bank: Bank,
        labelled: Slices | None,
        unlabelled: Slices | None,
        accelerator: Accelerator,
        model_folder: Path,
    ):
        self.settings = settings
        self.bank = bank
        self.accelerator = accelerator
        self.model_folder = model_folder
        base = settings.base
        self.steps_per_epoch = min(EPOCH, steps)
        self.epochs = -(-steps // self.steps_per_epoch)
        self.validate_every = self.epochs
        self.counts = _share_out(base.batch, labelled is not None, unlabelled is not None)
        seed = settings.seed
        self.patients = EndlessShuffle(list(range(len(bank))), [seed, 31])
        self.order_labelled = None if labelled is None else EndlessShuffle(labelled.places, [seed, 32])
        self.order_unlabelled = None if unlabelled is None else EndlessShuffle(unlabelled.places, [seed, 34])
        self.module = learner.to(
            accelerator.device, memory_format=memory_format(accelerator.device, training=True)
        )
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in learner.model.parameters() if parameter.requires_grad],
            lr=base.learning_rate,
            weight_decay=base.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)

    def _rate(self, step: int) -> float:
        rise = min(1.0, (step + 1) / WARM_UP)
        fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / self.total_steps))
        return rise * fall + LEAST_RATE

    @property
    def smallest_batch(self) -> int:
        return self.settings.base.batch

    def load(self, step: int) -> Loaded:
        synthetic, labelled, unlabelled = self.counts
        maps = torch.from_numpy(self.bank.maps(self.patients.take(step * synthetic, synthetic)))
        images = labels = other = torch.zeros(0, *SOURCE.size)
        if labelled:
            chosen = self.order_labelled.take(step * labelled, labelled)
            images = _stack(store.image(*place) for store, place in chosen)
            labels = _stack(store.label(*place) for store, place in chosen)
        if unlabelled:
            chosen = self.order_unlabelled.take(step * unlabelled, unlabelled)
            other = _stack(store.image(*place) for store, place in chosen)
        return Loaded(maps, images[:, None], labels, other[:, None])

    def prepare(self, loaded: Loaded, step: int) -> tuple[Tensor, ...]:
        device = self.accelerator.device
        seed = int(np.random.SeedSequence([self.settings.seed, 33, step]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        draw = Appearance(self.settings.input.size, self.settings.input.spacing_mm, generator, device)
        images, labels = draw(loaded.maps)
        if len(loaded.labelled):
            real = recast(draw, loaded.labelled.to(device), loaded.labels.to(device), SOURCE.spacing_mm)
            images, labels = torch.cat([images, real[0]]), torch.cat([labels, real[1]])
        layout = memory_format(device, training=True)
        if not len(loaded.unlabelled):
            return images.contiguous(memory_format=layout), labels
        weak, strong, seen = two_looks(draw, loaded.unlabelled.to(device), SOURCE.spacing_mm)
        images = torch.cat([images, strong]).contiguous(memory_format=layout)
        return images, labels, weak.contiguous(memory_format=layout), seen

    def split(self, batch: tuple[Tensor, ...], parts: int) -> list[tuple]:
        return list(zip(*(tensor.chunk(parts) for tensor in batch), strict=True))

    def after_step(self, step: int) -> None:
        self.module.update_average(step)
        self.schedule.step()

    def validate(self) -> dict[str, float]:
        return {}

    def preview(self) -> bytes | None:
        return None

    def score(self, metrics: dict[str, float]) -> float:
        return 0.0

    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        pass

    def schedule_state(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_schedule_state(self, state: dict[str, Any]) -> None:
        self.schedule.load_state_dict(state)

    def model_weights(self) -> Weights:
        return {self.module.part: self.module.average.state_dict()}

    def write_model(self, weights: Weights, step: int, metrics: dict[str, float]) -> None:
        card = new_card(self.settings, stage=2, step=step, validation=metrics)
        ModelFolder.write(self.model_folder, step, weights, card)


def _share_out(batch: int, labelled: bool, unlabelled: bool) -> tuple[int, int, int]:
    """Return how many slices of a batch are synthetic, labelled and unlabelled."""
    if not labelled:
        return batch, 0, 0
    if not unlabelled:
        return batch - batch // 2, batch // 2, 0
    few = batch // 4
    return (batch - few) // 2, batch - few - (batch - few) // 2, few


def _stack(arrays: Any) -> Tensor:
    return torch.from_numpy(np.stack(list(arrays)))
