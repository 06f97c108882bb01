"""What a training stage defines, and what all stages have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from CPS4Core.data.augment import Draws, draw
from CPS4Core.model_folder import Weights
from CPS4Core.training.run import Run

Loaded = TypeVar("Loaded")
"""What a step reads from disk: a dataclass."""
Prepared = TypeVar("Prepared")
"""What a step trains on: a dataclass of tensors (see ``CPS4Core.training.batches``)."""


class Stage(ABC, Generic[Loaded, Prepared]):
    """One of the training stages: its data, its module, its schedule.

    A step is ``load``, ``prepare``, ``loss``, a step of ``optimizer``, and ``after_step``; an epoch ends with
    ``validate`` and ``end_epoch``. A stage builds what is named below after it has called ``super().__init__``.

    Args:
        run: settings, device, folder.
        batch: slices of a step, of all processes together.

    Raises:
        CPS4Error: if the batch cannot be shared out evenly over the processes.
    """

    name: ClassVar[str]
    command: ClassVar[str]
    """Which command runs it."""
    rate_setting: ClassVar[str]
    """The setting of its learning rate."""
    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epochs: int
    steps_per_epoch: int
    validate_every: int = 1
    """Epochs between two validations."""

    def __init__(self, run: Run, batch: int):
        self.run = run
        self.settings = run.settings
        self.device = run.device
        self.batch = batch
        self.share = run.share_of(batch)
        """Slices of a step that this process takes."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @abstractmethod
    def load(self, step: int) -> Loaded:
        """Read this process's share of the batch of ``step``, draw its changes; called in a thread, ahead of time."""

    @abstractmethod
    def prepare(self, loaded: Loaded, step: int) -> Prepared:
        """Move what ``load`` returned to the device, augment it, and return the batch."""

    def loss(self, module: nn.Module, batch: Prepared) -> dict[str, Tensor]:
        """Return the terms of the loss of a batch or a part of it; ``total`` is minimised.

        Args:
            module: the stage's own, as it runs on the device or devices.
            batch: what ``prepare`` returned, or a part of it.
        """
        return module(batch)

    @abstractmethod
    def after_step(self, step: int) -> None:
        """Do what follows the optimiser; ``step`` counts from 1."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Return metrics of the validation cases; empty where there are none."""

    @abstractmethod
    def score(self, metrics: dict[str, float]) -> float:
        """Return how good the metrics are; the model with the highest score is kept."""

    def after_validation(self, metrics: dict[str, float]) -> None:
        """Let the module know how it did; not called without validation cases."""

    @abstractmethod
    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Adapt the learning rate; ``epoch`` counts from 1, ``metrics`` is empty without a validation."""

    def first_metrics(self) -> dict[str, float]:
        """Return what is worth a look before the first step."""
        return {}

    def finish(self) -> dict[str, float]:
        """Measure and write to the finished model's card what is worth knowing of it, and return it."""
        return {}

    @abstractmethod
    def preview(self) -> bytes | None:
        """Return a PNG of what the model makes of one validation slice; None where there is none."""

    @abstractmethod
    def model_weights(self) -> Weights:
        """Return the weights that the finished model needs."""

    @abstractmethod
    def write_model(self, weights: Weights, step: int, metrics: dict[str, float]) -> None:
        """Write the model that had ``weights`` at ``step`` to the run folder."""

    def first_place(self, step: int) -> int:
        """Return where in an endless row of slices this process's share of ``step`` begins."""
        return step * self.batch + self.run.accelerator.process_index * self.share

    def draw_changes(self, place: int, stream: int) -> Draws:
        """Draw the random change of each slice of this process's share.

        Args:
            place: of the first slice (see ``first_place``).
            stream: a number that tells this row of slices from others.
        """
        seeds = [[self.settings.seed, stream, place + k] for k in range(self.share)]
        return draw(self.settings.input.size, self.settings.augment, seeds)
