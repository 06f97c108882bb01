"""What the training loop needs to know of a stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn

from CPS4Core.model_folder import Weights


class Stage(ABC):
    """One of the two training stages: its data, its module, its schedule."""

    name: ClassVar[str]
    module: nn.Module
    """Called with the arguments that ``prepare`` returns, gives the terms of the loss; ``total`` is minimised."""
    optimizer: torch.optim.Optimizer
    epochs: int
    steps_per_epoch: int
    validate_every: int = 1
    """Epochs between two validations."""

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    @abstractmethod
    def smallest_batch(self) -> int:
        """Slices of the smaller group in this process's share of a batch: the most parts it can be cut into."""

    @abstractmethod
    def load(self, step: int) -> Any:
        """Read this process's share of the batch of ``step`` from disk; called in a thread, ahead of time."""

    @abstractmethod
    def prepare(self, loaded: Any, step: int) -> Any:
        """Move what ``load`` returned to the device, augment it, and return the batch."""

    @abstractmethod
    def split(self, batch: Any, parts: int) -> list[tuple]:
        """Cut a batch into ``parts`` of equal size, each as arguments of ``module``."""

    def after_step(self, step: int) -> None:  # noqa: B027
        """Do what follows the optimiser; ``step`` counts from 1."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Return metrics of the validation cases; empty where there are none."""

    @abstractmethod
    def preview(self) -> bytes | None:
        """Return a PNG of what the model makes of one validation slice; None where there is none."""

    @abstractmethod
    def score(self, metrics: dict[str, float]) -> float:
        """Return how good the metrics are; the model with the highest score is kept."""

    @abstractmethod
    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Adapt the learning rate; ``epoch`` counts from 1, ``metrics`` is empty without a validation."""

    @abstractmethod
    def schedule_state(self) -> dict[str, Any]:
        """Return the state of the learning rate schedule."""

    @abstractmethod
    def load_schedule_state(self, state: dict[str, Any]) -> None:
        """Take up the state of the learning rate schedule."""

    @abstractmethod
    def model_weights(self) -> Weights:
        """Return the weights that the finished model needs."""

    @abstractmethod
    def write_model(self, weights: Weights, step: int, metrics: dict[str, float]) -> None:
        """Write the model that had ``weights`` at ``step`` to the run folder."""
