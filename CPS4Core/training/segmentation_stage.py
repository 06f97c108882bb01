"""Stage 2: class prompt driven semi-supervised segmentation (paper, section 2.2), and every system beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from CPS4Core.card import NETWORK, TEACHER
from CPS4Core.class_table import short_name
from CPS4Core.data.augment import Augmentation, Draws
from CPS4Core.devices import memory_format, move, moved
from CPS4Core.evaluation.metrics import mean_scores
from CPS4Core.model_folder import ModelFolder, Weights, new_card
from CPS4Core.segmentation.methods.method import Batch, Method, TextTargets
from CPS4Core.size_limit import SizeLimit
from CPS4Core.systems import find_method
from CPS4Core.training.batches import to_device
from CPS4Core.training.counted_text import LevelCounter, counted_targets
from CPS4Core.training.inputs import TrainingInputs
from CPS4Core.training.map_store import MapStore, StoredMaps
from CPS4Core.training.rates import cosine_schedule
from CPS4Core.training.run import Run
from CPS4Core.training.sampling import EndlessShuffle
from CPS4Core.training.stage import Stage
from CPS4Core.training.text_trust import text_targets, trust_in
from CPS4Core.vision_language.maps import text_maps

RATE_DROP = 5
"""The learning rate is divided by this at each of ``rate_drops`` (paper, section 3)."""


@dataclass(frozen=True)
class LoadedSlices:
    """What a step reads from disk."""

    labelled: Tensor
    """x_l, standardised, shape (n, 1, H, W)."""
    labels: Tensor
    """y_g, uint8, ``IGNORE`` where unknown, shape (n, H, W)."""
    unlabelled: Tensor | None
    """x_u, standardised, shape (n, 1, H, W); None for a method without."""
    maps: StoredMaps | None
    """Of x_u; None for a method without text, or where levels are counted."""
    chosen: tuple[tuple[str, int], ...]
    """Case and number of each unlabelled slice."""
    changes_l: Draws
    """Of x_l."""
    changes_u: Draws | None
    """Of x_u."""


class SegmentationStage(Stage[LoadedSlices, Batch]):
    """Stage 2 on labelled and unlabelled slices.

    Args:
        run: settings, device, folder.
        inputs: prepared slices and their split.
        maps: text maps of the unlabelled slices and of validation cases, for a method that needs them.
        encoders: model of stage 1, whose encoders the finished model takes along.
        start: model whose network to begin with.
    """

    name = "stage 2"
    command = "train"
    module: Method
    rate_setting = "train.learning_rate"

    def __init__(
        self,
        run: Run,
        inputs: TrainingInputs,
        maps: MapStore | None = None,
        encoders: ModelFolder | None = None,
        start: ModelFolder | None = None,
    ):
        settings, train = run.settings, run.settings.train
        super().__init__(run, train.batch)
        self.inputs = inputs
        self.encoders = encoders
        self.maps = maps
        self.begun = start is not None
        self.trust = None if maps is None else trust_in(maps, inputs, settings).to(self.device)
        self.counter = None
        if maps is not None and self.trust is not None and train.count_every:
            self.counter = LevelCounter(run, inputs, maps, self.trust)
        labelled, unlabelled = map(inputs.store.slices_of, (inputs.split.labelled, inputs.split.unlabelled))
        method = find_method(train.method).load()
        self.labelled = EndlessShuffle(labelled, [settings.seed, 2])
        self.unlabelled = EndlessShuffle(unlabelled, [settings.seed, 3]) if method.needs_unlabelled else None
        self.epochs = train.epochs
        self.steps_per_epoch = train.steps_per_epoch or -(-len(unlabelled or labelled) // self.batch)
        self.validate_every = train.validate_every

        torch.manual_seed(settings.seed)
        with SizeLimit():
            self.module = method(train)
        if start is not None:
            self.module.start_from(start.load_network().state_dict())
        self.layout = memory_format(self.device, training=True)
        move(self.module, self.device, self.layout)
        self.optimizer = torch.optim.Adam(
            [parameter for parameter in self.module.parameters() if parameter.requires_grad],
            lr=train.learning_rate,
            weight_decay=train.weight_decay,
        )
        self.schedule = (
            cosine_schedule(self.optimizer, self.total_steps)
            if train.schedule == "cosine"
            else torch.optim.lr_scheduler.MultiStepLR(
                self.optimizer,
                milestones=[max(1, round(share * train.epochs)) for share in train.rate_drops],
                gamma=1 / RATE_DROP,
            )
        )

    def load(self, step: int) -> LoadedSlices:
        place = self.first_place(step)
        labelled = self.labelled.take(place, self.share)
        x_l, y_g = self.inputs.images(labelled), self.inputs.labels(labelled)
        x_u = maps = changes_u = None
        unlabelled: Sequence[tuple[str, int]] = ()
        if self.unlabelled is not None:
            unlabelled = self.unlabelled.take(place, self.share)
            x_u = self.inputs.images(unlabelled)
            maps = None if self.maps is None or self.counter else self.maps.stacked(unlabelled)
            changes_u = self.draw_changes(place, stream=22)
        changes_l = self.draw_changes(place, stream=21)
        return LoadedSlices(x_l, y_g, x_u, maps, tuple(unlabelled), changes_l, changes_u)

    def prepare(self, loaded: LoadedSlices, step: int) -> Batch:
        """Augment the slices, and their text maps with them."""
        slices, settings = to_device(loaded, self.device), self.settings.augment
        if self.counter is not None:
            self._count(self.counter, step)
        change_l = slices.changes_l.augmentation(settings)
        batch = Batch(
            labelled=self._seen(slices.labelled, change_l),
            labels=change_l.labels(slices.labels),
            unlabelled=slices.labelled[:0],
            progress=step / self.total_steps,
        )
        if slices.unlabelled is None or slices.changes_u is None:
            return batch
        change_u = slices.changes_u.augmentation(settings)
        two_views = self.settings.train.two_views and self.module.takes_two_views
        return replace(
            batch,
            unlabelled=self._seen(slices.unlabelled, change_u.of_place if two_views else change_u),
            strong=self._seen(slices.unlabelled, change_u) if two_views else None,
            text_targets=self._text_targets(slices, change_u),
        )

    def _seen(self, images: Tensor, change: Augmentation) -> Tensor:
        return change.images(images).contiguous(memory_format=self.layout)

    def _count(self, counter: LevelCounter, step: int) -> None:
        """Count the levels of the unlabelled volumes if it is time to; an untrained teacher has nothing to say."""
        number = step // (self.settings.train.count_every * self.steps_per_epoch)
        if counter.number == number or (number == 0 and not self.begun):
            return
        self.module.network.eval()
        counter.count(number, self.module.network)
        self.module.train()

    def _text_targets(self, slices: LoadedSlices, change: Augmentation) -> TextTargets | None:
        """Return what the text maps of the unlabelled slices (eq. 3) say, as far as they are trusted."""
        if self.counter is not None:
            labels = moved(self.counter.labels(slices.chosen), self.device)
            return counted_targets(change.labels(labels))
        stored = slices.maps
        if stored is None or self.trust is None:
            return None
        maps = text_maps(
            stored.attention,
            self.settings.input.size,
            thresholds=stored.thresholds,
            least_peak=self.settings.train.least_peak,
            change=change,
        )
        return text_targets(maps, self.trust, self.settings.train)

    def after_step(self, step: int) -> None:
        self.module.after_step(step)
        if self.settings.train.schedule == "cosine":
            self.schedule.step()

    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        if self.settings.train.schedule == "drops":
            self.schedule.step()

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return mDice and mIoU over the validation cases, on the canvas."""
        pairs = []
        for case in self.inputs.validation_cases:
            images = torch.from_numpy(self.inputs.store.images(case)).unsqueeze(1)
            with self.run.accelerator.autocast():
                predicted = torch.cat([self._predicted(few) for few in images.split(self.share)])
            pairs.append((predicted.numpy(), self.inputs.store.labels(case)))
        if not pairs:
            return {}
        mdice, miou = mean_scores(pairs)
        return {"validation_mdice": mdice, "validation_miou": miou}

    def score(self, metrics: dict[str, float]) -> float:
        return metrics["validation_mdice"]

    def after_validation(self, metrics: dict[str, float]) -> None:
        self.module.after_validation(self.score(metrics))

    @torch.inference_mode()
    def preview(self) -> bytes | None:
        shown = self.inputs.shown_slice
        if shown is None:
            return None
        found: dict[str, np.ndarray] = {}
        if self.maps is not None:
            maps = self.maps.maps(shown.case, shown.k, shown.image.shape, self.settings.train.least_peak)
            found["text maps"] = maps.labels.byte().numpy()
        found["prediction"] = self._predicted(torch.from_numpy(shown.image)[None, None])[0].numpy()
        return shown.preview(found)

    def model_weights(self) -> Weights:
        parts = {NETWORK: self.module.network, TEACHER: self.module.other_network}
        return {part: module.state_dict() for part, module in parts.items() if module is not None}

    def write_model(self, weights: Weights, step: int, metrics: dict[str, float]) -> None:
        facts = {"step": step, "validation": metrics, "data": self.inputs.facts()}
        if self.trust is not None:
            facts["text_trust"] = {
                short_name(k): round(trust, 3) for k, trust in enumerate(self.trust.tolist())
            }
        card = new_card(self.settings, encoders=self.encoders, stage=2, **facts)
        ModelFolder.write(self.run.folder.model, step, weights, card, encoders=self.encoders)

    def _predicted(self, images: Tensor) -> Tensor:
        """Return the network's labels of slices (images, 1, H, W), uint8, on the CPU."""
        return self.module.network(images.to(self.device)).argmax(1).byte().cpu()
