"""How benchmarks take times: of a forward pass, of a training step, of either without the engine around it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import SimpleITK as sitk
import torch
from accelerate.state import AcceleratorState

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import Settings
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.devices import choose_precision, memory_format
from CPS4Core.events import Event, Finished, Metric
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.synthesis.phantom.volume import PhantomOptions, make_phantom
from CPS4Core.training.loop import TrainingLoop
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.train import train

WARM_UP = 5
"""Steps of a training that no time is taken of."""


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(action: Callable[[], object], device: torch.device | None = None) -> float:
    """Return the seconds that ``action`` takes, what it leaves to the device included."""
    where = device or torch.device("cpu")
    synchronise(where)
    start = time.perf_counter()
    action()
    synchronise(where)
    return time.perf_counter() - start


def interleaved(
    actions: list[Callable[[], object]], repeats: int, device: torch.device | None = None
) -> list[float]:
    """Return the median seconds of each action; they take turns, so that a slow moment hits all of them."""
    for action in actions:
        action()
    times = [[clock(action, device) for action in actions] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def study(slices: int, pixels: int) -> sitk.Image:
    """Return a sagittal phantom of exactly ``slices`` of ``pixels`` x ``pixels``; its array is (slices, AP, SI)."""
    mm = 307.2 / pixels
    options = PhantomOptions(
        slices=(slices, slices), pixel_mm=(mm, mm), field_of_view_mm=(307.2, 307.2), vary_orientation=False
    )
    image = make_phantom(0, options).image
    lacking = [max(0, pixels - length) for length in image.GetSize()[:2]]
    return sitk.RegionOfInterest(sitk.ConstantPad(image, (0, 0, 0), (*lacking, 0)), (pixels, pixels, slices))


def slices_of(segmenter: Segmenter, image: sitk.Image) -> torch.Tensor:
    """Return the slices that the network sees of a volume, (n, 1, AP, SI), on the CPU."""
    grid = SliceGrid.of(image, segmenter.input, whole=True)
    return torch.from_numpy(grid.to_slices(image)).unsqueeze(1)


def bare_forward(segmenter: Segmenter, image: sitk.Image) -> Callable[[], None]:
    """Return the forward pass alone: the segmenter's own folded network on slices that lie on the device already."""
    device, slices = segmenter.device, slices_of(segmenter, image)
    dtype = torch.bfloat16 if choose_precision(device) == "bf16" else torch.float32
    batches = [
        batch.to(device, dtype).contiguous(memory_format=memory_format(device, training=False))
        for batch in slices.split(segmenter.slices_at_once(slices))
    ]

    @torch.inference_mode()
    def forward() -> None:
        for batch in batches:
            segmenter.network(batch)

    return forward


@dataclass
class StageTimes:
    """What a training took."""

    step: float = 0.0
    """Seconds of a step, in a row of them."""
    bare: float = 0.0
    """Seconds of its loss, backward pass and optimiser alone, on one batch that lies on the device already."""
    waiting: float = 0.0
    """Share of the time spent waiting for data."""
    peak: int = 0
    """Bytes of the device's memory; 0 where it does not tell."""
    losses: dict[int, float] = field(default_factory=dict)
    """By step."""
    events: list[Event] = field(default_factory=list)
    model: Path = Path()


def time_stage(
    stage: int,
    data: Path,
    output: Path,
    settings: Settings,
    device: torch.device,
    steps: int,
    *,
    encoders: Path | None = None,
    bare_repeats: int = 0,
) -> StageTimes:
    """Train a stage for some steps without a look at the validation cases, and take its times.

    Args:
        stage: 1 or 2.
        data: data set folder.
        output: run folder.
        settings: the whole settings.
        device: where to compute.
        steps: how many.
        encoders: of stage 2.
        bare_repeats: bare steps to take the time of; 0: none.
    """
    found = StageTimes()

    class Timed(TrainingLoop):
        def __init__(self, stage: Any, run: Any):
            super().__init__(stage, run)
            stage.epochs, stage.steps_per_epoch = 1, steps
            self.ends: list[float] = []

        def _train_step(self, loaded: Any) -> Any:
            terms = super()._train_step(loaded)
            if self.step + 1 in (WARM_UP, steps):
                synchronise(device)
                self.ends.append(time.perf_counter())
            return terms

        def run(self) -> None:
            super().run()
            if len(self.ends) == 2:
                found.step = (self.ends[1] - self.ends[0]) / (steps - WARM_UP)
            if bare_repeats:
                (found.bare,) = interleaved([lambda: bare_step(self)], bare_repeats, device)

    fresh_accelerator()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    module = "pretrain" if stage == 1 else "train"
    common: dict[str, Any] = {
        "ratio": 1.0,
        "device": device,
        "report": found.events.append,
        "cancellation": Cancellation(),
        "cache": output.parent / "cache",
    }
    with patch(f"CPS4Core.training.{module}.TrainingLoop", Timed):
        if stage == 1:
            found.model = pretrain(data, output, settings, **common)
        else:
            found.model = train(data, output, settings, encoders=encoders, **common)
    if device.type == "cuda":
        found.peak = torch.cuda.max_memory_allocated(device)
    for event in found.events:
        if isinstance(event, Metric) and "total" in event.values:
            found.losses[event.step] = event.values["total"]
        if isinstance(event, Finished):
            found.waiting = event.details["waiting_for_data"]
    return found


_BATCHES: dict[int, Any] = {}


def bare_step(loop: TrainingLoop) -> None:
    """Do the loss, the backward pass and the optimiser's step of a training on one batch, and nothing else."""
    stage = loop.stage
    if id(loop) not in _BATCHES:
        _BATCHES.clear()
        _BATCHES[id(loop)] = stage.prepare(stage.load(0), 0)
    with loop.accelerator.autocast():
        terms = stage.loss(stage.module, _BATCHES[id(loop)])
    terms["total"].backward()
    stage.optimizer.step()
    stage.optimizer.zero_grad()


def fresh_accelerator() -> None:
    """Let the next training choose its device and precision; accelerate keeps the first for the life of a process."""
    AcceleratorState._reset_state(True)
