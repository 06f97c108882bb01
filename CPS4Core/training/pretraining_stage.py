"""Stage 1: class-specific consistency constrained pretraining of the encoders (paper, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from CPS4Core.card import ENCODERS
from CPS4Core.data.augment import Draws
from CPS4Core.model_folder import ModelFolder, Weights, new_card
from CPS4Core.systems import find_objective
from CPS4Core.training.batches import to_device
from CPS4Core.training.inputs import TrainingInputs
from CPS4Core.training.map_check import judge_maps
from CPS4Core.training.rates import cosine_schedule
from CPS4Core.training.run import Run
from CPS4Core.training.sampling import EndlessShuffle
from CPS4Core.training.stage import Stage
from CPS4Core.vision_language.maps import text_labels
from CPS4Core.vision_language.model import build_model
from CPS4Core.vision_language.objective import Objective

PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.5, 10
"""The learning rate is halved after this many epochs without a better validation loss."""


@dataclass(frozen=True)
class LabelledSlices:
    """Slices of a step, as they are on disk or augmented."""

    images: Tensor
    """Standardised, shape (n, 1, H, W)."""
    labels: Tensor
    """``IGNORE`` where unknown, integer, shape (n, H, W)."""
    changes: Draws | None = None
    """What is yet to happen to them."""


class PretrainingStage(Stage[LabelledSlices, LabelledSlices]):
    """Stage 1 on the labelled slices.

    Args:
        run: settings, device, folder.
        inputs: prepared slices and their split.
        start: model whose encoders to begin with.
    """

    name = "stage 1"
    command = "pretrain"
    module: Objective
    rate_setting = "pretrain.learning_rate"

    def __init__(self, run: Run, inputs: TrainingInputs, start: ModelFolder | None = None):
        settings = run.settings
        super().__init__(run, settings.pretrain.batch)
        self.inputs = inputs
        slices = inputs.store.slices_of(inputs.split.labelled)
        self.order = EndlessShuffle(slices, [settings.seed, 1])
        self.epochs = settings.pretrain.epochs
        self.steps_per_epoch = -(-len(slices) // self.batch)

        torch.manual_seed(settings.seed)
        model = (
            build_model(settings.encoders, settings.input.size) if start is None else start.load_encoders()
        )
        objective = find_objective(settings.pretrain.objective).load()
        self.module = objective(model, settings.pretrain).to(self.device)
        self.optimizer = torch.optim.Adam(self._parameters(), lr=settings.pretrain.learning_rate)
        self.schedule = (
            cosine_schedule(self.optimizer, self.total_steps, settings.pretrain.warm_up)
            if settings.pretrain.schedule == "cosine"
            else ReduceLROnPlateau(self.optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE)
        )

    def load(self, step: int) -> LabelledSlices:
        place = self.first_place(step)
        return replace(
            self._read(self.order.take(place, self.share)), changes=self.draw_changes(place, stream=11)
        )

    def prepare(self, loaded: LabelledSlices, step: int) -> LabelledSlices:
        slices = to_device(loaded, self.device)
        assert slices.changes is not None
        change = slices.changes.augmentation(self.settings.augment)
        return LabelledSlices(change.images(slices.images), change.labels(slices.labels))

    def loss(self, module: nn.Module, batch: LabelledSlices) -> dict[str, Tensor]:
        return module(batch.images, batch.labels)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the mean loss terms over the validation slices."""
        slices = self.inputs.store.slices_of(self.inputs.split.validation)
        sums: dict[str, float] = {}
        for start in range(0, len(slices), self.share):
            batch = to_device(self._read(slices[start : start + self.share]), self.device)
            for name, value in self.module(batch.images, batch.labels.long()).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.images)
        return {f"validation_{name}": value / len(slices) for name, value in sums.items()}

    def score(self, metrics: dict[str, float]) -> float:
        return -metrics["validation_total"]

    def after_step(self, step: int) -> None:
        self.module.after_step(step)
        if self.settings.pretrain.schedule == "cosine":
            self.schedule.step()

    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        if metrics and isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(metrics["validation_total"])

    def first_metrics(self) -> dict[str, float]:
        similarity = self.module.model.prompt_similarity().fill_diagonal_(-1).max()
        return {"largest_prompt_similarity": float(similarity)}

    def preview(self) -> bytes | None:
        shown = self.inputs.shown_slice
        if shown is None:
            return None
        return shown.preview({"text maps": text_labels(self.module.model, shown.image[None])[0]})

    def model_weights(self) -> Weights:
        return {ENCODERS: self.module.model.state_dict()}

    def write_model(self, weights: Weights, step: int, metrics: dict[str, float]) -> None:
        card = new_card(self.settings, stage=1, step=step, validation=metrics, data=self.inputs.facts())
        ModelFolder.write(self.run.folder.model, step, weights, card, text=self.module.model.text)

    def finish(self) -> dict[str, float]:
        model = ModelFolder.open(self.run.folder.model)
        if not model.card.raw_maps:
            encoders = model.load_encoders().to(self.device)
            found = judge_maps(encoders, self.inputs)
            model.add_to_card(raw_maps=found)
        return ModelFolder.open(self.run.folder.model).card.raw_maps

    def _read(self, chosen: Sequence[tuple[str, int]]) -> LabelledSlices:
        return LabelledSlices(self.inputs.images(chosen), self.inputs.labels(chosen))

    def _parameters(self) -> list[dict[str, Any]]:
        """Return the parameters to train, the text encoder's with their own learning rate."""
        text, rate = self.module.model.text, self.settings.pretrain.text_learning_rate
        if rate == 0:
            text.freeze()
        theirs = {id(parameter) for parameter in text.parameters()}
        others = [parameter for parameter in self.module.parameters() if id(parameter) not in theirs]
        groups: list[dict[str, Any]] = [{"params": others}]
        if rate != 0:
            rate = self.settings.pretrain.learning_rate if rate is None else rate
            groups.append({"params": list(text.parameters()), "lr": rate})
        return groups
