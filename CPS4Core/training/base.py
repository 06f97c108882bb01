"""The stage that trains a part of the base model, on batches of synthetic, labelled and unlabelled slices.

Synthetic slices are drawn anew at each step from tissue maps (``synthesis``); real ones are seen in other looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from CPS4Core.config import InputSettings
from CPS4Core.data.slices import SliceStore
from CPS4Core.devices import memory_format, move
from CPS4Core.errors import CPS4Error
from CPS4Core.model_folder import ModelFolder, Weights, new_card
from CPS4Core.synthesis.appearance import Appearance
from CPS4Core.synthesis.bank import Bank
from CPS4Core.synthesis.recast import recast, two_looks
from CPS4Core.training.batches import to_device
from CPS4Core.training.learners import Learner
from CPS4Core.training.run import Run
from CPS4Core.training.sampling import EndlessShuffle
from CPS4Core.training.stage import Stage

SOURCE_MM = 1.0
SOURCE = InputSettings(size=(256, 352), spacing_mm=SOURCE_MM)
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


@dataclass(frozen=True)
class Batch:
    """What a step trains on."""

    images: Tensor
    """Synthetic and labelled slices, (n, 1, H, W)."""
    labels: Tensor
    """int64, (n, H, W)."""
    weak: Tensor | None = None
    """A weak look at each unlabelled slice, (m, 1, H, W)."""
    strong: Tensor | None = None
    """A strong look at each, the same shape."""
    seen: Tensor | None = None
    """Where the strong looks show something, bool, (m, H, W)."""


class BaseTraining(Stage[Loaded, Batch]):
    """Trains a learner.

    Args:
        run: settings, of which ``base`` and ``input`` matter; device, folder.
        learner: what is trained.
        steps: how many.
        bank: tissue maps.
        labelled: labelled slices; None to learn from synthetic ones alone.
        unlabelled: slices without labels; None unless the learner takes them.
    """

    name = "base model"
    command = "base"
    module: Learner
    rate_setting = "base.learning_rate"

    def __init__(
        self,
        run: Run,
        learner: Learner,
        steps: int,
        bank: Bank,
        labelled: Slices | None,
        unlabelled: Slices | None,
    ):
        base, seed = run.settings.base, run.settings.seed
        super().__init__(run, base.batch)
        if run.settings.input.spacing_mm is None:
            raise CPS4Error("The base model needs pixels of one size.", "Set input.spacing_mm, in mm.")
        self.spacing_mm = run.settings.input.spacing_mm
        self.bank = bank
        self.steps_per_epoch = min(EPOCH, steps)
        self.epochs = -(-steps // self.steps_per_epoch)
        self.validate_every = self.epochs
        self.counts = _share_out(base.batch, labelled is not None, unlabelled is not None)
        self.patients = EndlessShuffle(list(range(len(bank))), [seed, 31])
        self.order_labelled = None if labelled is None else EndlessShuffle(labelled.places, [seed, 32])
        self.order_unlabelled = None if unlabelled is None else EndlessShuffle(unlabelled.places, [seed, 34])
        self.layout = memory_format(self.device, training=True)
        self.module = learner
        move(self.module, self.device, self.layout)
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

    def load(self, step: int) -> Loaded:
        synthetic, labelled, unlabelled = self.counts
        maps = torch.from_numpy(self.bank.maps(self.patients.take(step * synthetic, synthetic)))
        images = labels = other = torch.zeros(0, *SOURCE.size)
        if labelled and self.order_labelled is not None:
            chosen = self.order_labelled.take(step * labelled, labelled)
            images = _stack(store.image(*place) for store, place in chosen)
            labels = _stack(store.label(*place) for store, place in chosen)
        if unlabelled and self.order_unlabelled is not None:
            chosen = self.order_unlabelled.take(step * unlabelled, unlabelled)
            other = _stack(store.image(*place) for store, place in chosen)
        return Loaded(maps, images[:, None], labels, other[:, None])

    def prepare(self, loaded: Loaded, step: int) -> Batch:
        seed = int(np.random.SeedSequence([self.settings.seed, 33, step]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        draw = Appearance(self.settings.input.size, self.spacing_mm, generator, self.device)
        real = to_device(loaded, self.device)
        images, labels = draw(real.maps)
        if len(real.labelled):
            recast_images, recast_labels = recast(draw, real.labelled, real.labels, SOURCE_MM)
            images, labels = torch.cat([images, recast_images]), torch.cat([labels, recast_labels])
        images = images.contiguous(memory_format=self.layout)
        if not len(real.unlabelled):
            return Batch(images, labels)
        weak, strong, seen = two_looks(draw, real.unlabelled, SOURCE_MM)
        weak, strong = (look.contiguous(memory_format=self.layout) for look in (weak, strong))
        return Batch(images, labels, weak, strong, seen)

    def loss(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if batch.strong is None:
            return module(batch.images, batch.labels)
        images = torch.cat([batch.images, batch.strong]).contiguous(memory_format=self.layout)
        return module(images, batch.labels, batch.weak, batch.seen)

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

    def model_weights(self) -> Weights:
        return {self.module.part: self.module.average.state_dict()}

    def write_model(self, weights: Weights, step: int, metrics: dict[str, float]) -> None:
        card = new_card(self.settings, stage=2, step=step, validation=metrics)
        ModelFolder.write(self.run.folder.model, step, weights, card)


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
