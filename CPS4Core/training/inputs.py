"""What both stages train on: the data set, its split and its prepared slices."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import Settings
from CPS4Core.data.dataset import open_data_set
from CPS4Core.data.slices import SliceStore, prepare_slices
from CPS4Core.data.splits import Split, split_for_ratio
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter, Warned, silent


@dataclass(frozen=True)
class TrainingInputs:
    """A data set, split and prepared."""

    split: Split
    store: SliceStore
    ratio: float

    @property
    def shown_case(self) -> str | None:
        """The validation case whose preview a training shows, None if none could be read."""
        return next(iter(self.validation_cases), None)

    @property
    def validation_cases(self) -> list[str]:
        """The validation cases that could be read."""
        return [case for case in self.split.validation if case in self.store.counts]

    def facts(self) -> dict[str, Any]:
        """Return what a model card says of the data: counts, and a hash of the list of cases and their use."""
        listed = json.dumps(asdict(self.split), sort_keys=True) + json.dumps(
            self.store.counts, sort_keys=True
        )
        return {
            "ratio": self.ratio,
            "labelled_cases": len(self.split.labelled),
            "validation_cases": len(self.split.validation),
            "unlabelled_cases": len(self.split.unlabelled),
            "hash": hashlib.sha256(listed.encode()).hexdigest(),
        }

    @staticmethod
    def share_of(batch: int, accelerator: Accelerator) -> int:
        """Return how many slices of a global batch this process takes.

        Raises:
            CPS4Error: if the batch cannot be shared out evenly.
        """
        share, rest = divmod(batch, accelerator.num_processes)
        if rest:
            raise CPS4Error(
                f"A batch of {batch} cannot be shared out evenly over {accelerator.num_processes} processes.",
                "Choose another batch size or number of processes.",
            )
        return share


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
    for problem in opened.problems:
        quiet(Warned(str(problem)))
    with accelerator.main_process_first():
        folder = cache or Path(data_set) / "preprocessed"
        store = prepare_slices(cases, settings.input, folder, quiet, cancellation)
    if not store.slices_of(split.labelled):
        raise CPS4Error("No labelled case could be read.", "See the warnings above for each file.", data_set)
    return TrainingInputs(split, store, ratio)
