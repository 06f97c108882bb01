"""What both stages train on: the data set, its split and its prepared slices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import InputSettings, Settings
from CPS4Core.data.dataset import open_data_set
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.data.slices import SliceStore, prepare_slices
from CPS4Core.data.splits import Split, say_left_out, split_for_ratio
from CPS4Core.data.volumes import read_scan
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter, Warned, silent
from CPS4Core.figures import fullest_slice, overlay


@dataclass(frozen=True)
class ShownSlice:
    """A validation slice to show while training."""

    case: str
    k: int
    image: np.ndarray
    """Standardised, (AP, SI)."""
    labels: np.ndarray
    """Its reference, (AP, SI)."""

    def preview(self, found: Mapping[str, np.ndarray]) -> bytes:
        """Return a PNG of what was found, title -> labels (AP, SI), beside the reference."""
        return overlay(self.image, {**found, "reference": self.labels})


@dataclass(frozen=True)
class TrainingInputs:
    """A data set, split and prepared."""

    split: Split
    store: SliceStore
    ratio: float
    scans: Mapping[str, Path]
    """The image file of each case."""

    def grid(self, case: str, settings: InputSettings) -> SliceGrid:
        """Return where the prepared slices of a case lie in its scan."""
        return SliceGrid.of(read_scan(self.scans[case]), settings)

    @property
    def validation_cases(self) -> list[str]:
        """The validation cases that could be read."""
        return [case for case in self.split.validation if case in self.store.counts]

    def facts(self) -> dict[str, Any]:
        """Return what a model card says of the data: counts, and a hash of what the cases hold and of their use."""
        listed = json.dumps([asdict(self.split), self.store.hashes], sort_keys=True)
        return {
            "ratio": self.ratio,
            "labelled_cases": len(self.split.labelled),
            "validation_cases": len(self.split.validation),
            "unlabelled_cases": len(self.split.unlabelled),
            "hash": hashlib.sha256(listed.encode()).hexdigest(),
        }

    def images(self, slices: Sequence[tuple[str, int]]) -> Tensor:
        """Return standardised slices, float32, shape (slices, 1, AP, SI)."""
        return torch.from_numpy(np.stack([self.store.image(case, k) for case, k in slices])).unsqueeze(1)

    def labels(self, slices: Sequence[tuple[str, int]]) -> Tensor:
        """Return the labels of slices, uint8, shape (slices, AP, SI)."""
        return torch.from_numpy(np.stack([self.store.label(case, k) for case, k in slices]))

    @cached_property
    def shown_slice(self) -> ShownSlice | None:
        """The validation slice whose preview a training shows: the fullest of a case; None if none could be read."""
        if not self.validation_cases:
            return None
        case = self.validation_cases[0]
        labels = self.store.labels(case)
        k = fullest_slice(labels)
        return ShownSlice(case, k, self.store.image(case, k), labels[k])


def open_inputs(
    data_set: Path,
    settings: Settings,
    ratio: float,
    cache: Path | None,
    accelerator: Accelerator,
    report: Reporter,
    cancellation: Cancellation,
    *,
    unlabelled: bool,
) -> TrainingInputs:
    """Open and split the data set and prepare its slices; of several processes, the first prepares for all.

    Args:
        unlabelled: also prepare the unlabelled cases, which stage 1 does not need.

    Raises:
        CPS4Error: if the data set has no case, no label that can be read, or a split that does not hold.
    """
    opened = open_data_set(data_set)
    split = split_for_ratio(opened, ratio, settings.seed)
    used = {*split.labelled, *split.validation, *(split.unlabelled if unlabelled else ())}
    cases = [case for case in opened.cases if case.name in used]
    quiet = report if accelerator.is_main_process else silent
    lost = say_left_out(split, opened)
    for problem in (*opened.problems, *([] if lost is None else [lost])):
        quiet(Warned(str(problem)))
    with accelerator.main_process_first():
        folder = cache or Path(data_set) / "preprocessed"
        store = prepare_slices(cases, settings.input, folder, quiet, cancellation)
    if not store.slices_of(split.labelled):
        raise CPS4Error("No labelled case could be read.", "See the warnings above for each file.", data_set)
    return TrainingInputs(split, store, ratio, {case.name: case.image for case in cases})
