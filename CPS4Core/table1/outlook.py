"""What a table will take and need, told before it starts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from CPS4Core.class_table import NUM_CLASSES
from CPS4Core.config import Settings
from CPS4Core.data.dataset import DataSet
from CPS4Core.data.splits import FILE, split_for_ratio
from CPS4Core.errors import CPS4Error
from CPS4Core.segmentation.methods.method import Batch, TextTargets
from CPS4Core.systems import find_method
from CPS4Core.table1.plan import Training
from CPS4Core.training.batches import to_device
from CPS4Core.vision_language.model import build_model

COPIES = 6
"""Of a method's weights that a run keeps: the model, and the checkpoint with the optimiser's two averages."""
SLICES = 15
"""Of a case, where they are not counted yet."""


@dataclass(frozen=True)
class Outlook:
    """Of the trainings that are left."""

    done: int
    left: int
    steps: int
    """Of stage 2."""
    seconds: float
    """On one such device, without stage 1 and the scoring; measured on one step of each method."""
    disk: int
    """Bytes."""
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return it in words."""
        hours = self.seconds / 3600
        lines = [
            f"{self.done + self.left} trainings: {self.done} finished, {self.left} left, {self.steps} steps.",
            f"About {hours:.1f} hours on one such device, stage 1 and scoring aside; "
            f"{self.disk / 2**30:.1f} GiB of disk.",
            "Start the same command several times to share the trainings out; stop it whenever you like.",
        ]
        return "\n".join([*lines, *self.notes]) + "\n"


def look_ahead(
    left: Sequence[Training],
    done: int,
    settings: dict[Training, Settings],
    data_set: DataSet,
    output: Path,
    device: torch.device,
) -> Outlook:
    """Return what the trainings that are ``left`` take, and make sure that what they need is there.

    Raises:
        CPS4Error: if no test case is labelled, an encoder's weights are missing, or the disk is too small.
    """
    if not any(case.label is not None for case in data_set.test):
        raise CPS4Error(
            "The data set has no labelled test case to score the systems on.",
            "Put images in its folder imagesTs and their labels in labelsTs.",
            data_set.folder,
        )
    texts = {t: settings[t] for t in left if t.encoders is not None}
    if texts:
        first = next(iter(texts.values()))
        build_model(first.encoders, first.input.size)
    notes = []
    if (data_set.folder / FILE).is_file():
        notes.append(
            f"All seeds share the split in {FILE}: delete it to let each seed draw its own patients."
        )
    seconds, steps, disk, known = 0.0, 0, 0, {}
    for training in left:
        one = settings[training]
        if training.row.method not in known:
            known[training.row.method] = measure(one, device)
        a_step, size = known[training.row.method]
        split = split_for_ratio(data_set, training.ratio, training.seed)
        slices = SLICES * len(split.unlabelled or split.labelled)
        count = one.train.epochs * (one.train.steps_per_epoch or -(-slices // one.train.batch))
        steps, seconds, disk = steps + count, seconds + count * a_step, disk + COPIES * size
    parent = next(path for path in (output, *output.absolute().parents) if path.exists())
    if shutil.disk_usage(parent).free < disk:
        raise CPS4Error(
            f"The table needs {disk / 2**30:.1f} GiB, and the disk has less.",
            "Choose another folder, or fewer systems, ratios or seeds.",
            output,
        )
    return Outlook(done, len(left), steps, seconds, disk, tuple(notes))


def measure(settings: Settings, device: torch.device) -> tuple[float, int]:
    """Return the seconds of a step of stage 2, and the bytes of the method's weights.

    One labelled and one unlabelled slice of noise are trained on, and the time is that for all slices of a step.
    """
    method = find_method(settings.train.method).load()(settings.train).to(device)
    x, maps = torch.randn(1, 1, *settings.input.size), torch.zeros(1, NUM_CLASSES, *settings.input.size)
    labels = torch.zeros(1, *settings.input.size, dtype=torch.long)
    text = TextTargets(maps, labels, torch.ones(labels.shape), maps)
    batch = to_device(Batch(x, labels, x, text, progress=0.9), device)
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        method(batch)["total"].backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    size = sum(tensor.numel() * tensor.element_size() for tensor in method.state_dict().values())
    return seconds * settings.train.batch, size
