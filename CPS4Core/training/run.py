"""One training run: its settings, where it computes, where it is kept, and how it is stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import Settings
from CPS4Core.devices import choose_precision, make_deterministic
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter
from CPS4Core.training.run_folder import RunFolder


@dataclass(frozen=True)
class Run:
    """What a stage and the training loop work with."""

    settings: Settings
    accelerator: Accelerator
    folder: RunFolder
    cancellation: Cancellation

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.accelerator.device

    def share_of(self, batch: int) -> int:
        """Return how many slices of a global batch this process takes.

        Raises:
            CPS4Error: if the batch cannot be shared out evenly.
        """
        share, rest = divmod(batch, self.accelerator.num_processes)
        if rest:
            raise CPS4Error(
                f"A batch of {batch} cannot be shared out evenly over {self.accelerator.num_processes} processes.",
                "Choose another batch size or number of processes.",
            )
        return share


def make_accelerator(device: torch.device) -> Accelerator:
    """Return the accelerator for ``device``, in the precision that suits it; several processes where launched so.

    From here on, the same seed gives the same run on the same machine.
    """
    make_deterministic(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)  # else it takes the first of its kind
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=choose_precision(device),
        kwargs_handlers=[
            # Statistics are the same in all processes (BatchNorm2d), and a text model has layers we don't use.
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
        ],
    )


@contextmanager
def open_run(
    output: Path,
    identity: dict[str, Any],
    settings: Settings,
    accelerator: Accelerator,
    report: Reporter,
    cancellation: Cancellation,
    *,
    unused: set[str],
) -> Iterator[Run]:
    """Open the run in the folder ``output``, new or one to go on with, and keep it locked meanwhile.

    Args:
        output: the run folder.
        identity: what determines the run beside the settings, in JSON values.
        settings: the whole settings.
        accelerator: device, precision and processes.
        report: receives the events.
        cancellation: tells when to stop.
        unused: names of the settings that do not matter here.

    Raises:
        CPS4Error: if another process uses the folder, if it holds another run, or if it cannot be written.
    """
    mattering = settings.model_dump(mode="json", exclude={*unused, "checkpoint_minutes"})
    identity = {"settings": mattering, **identity}
    with RunFolder(output, identity, report, main=accelerator.is_main_process) as folder:
        yield Run(settings, accelerator, folder, cancellation)
