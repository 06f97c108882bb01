"""How much time the engine adds to the bare networks, and how memory grows with the number of cases.

    python Testing/Benchmarks/speed.py          writes Testing/Benchmarks/RESULTS.md

Segmenting is measured on a phantom with networks that trained for some minutes, and with random weights on noise. That
is the worst case: every structure is seen everywhere, and borders are everywhere when the classes are brought back
to the grid of the scan. Every figure is a median.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import SimpleITK as sitk
import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import NETWORK
from CPS4Core.config import Settings, load_settings
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.devices import choose_precision, memory_format
from CPS4Core.events import Finished, silent
from CPS4Core.inference.batch import Task, segment_one
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder, new_card
from CPS4Core.segmentation.methods.method import Batch
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.synthesis.phantom.data_set import write_phantom_data_set
from CPS4Core.synthesis.phantom.volume import PhantomOptions, make_phantom
from CPS4Core.systems import find_method
from CPS4Core.training.train import train

RESULTS = Path(__file__).parent / "RESULTS.md"
CPU = torch.device("cpu")
PHANTOM = PhantomOptions(slices=(15, 15), pixel_mm=(0.6, 0.6), field_of_view_mm=(307.2, 307.2))
"""About 15 slices of 512 x 512."""
QUICK = {
    "paper": [
        "train.method=supervised",
        "train.learning_rate=1e-3",
        "train.batch=2",
        "train.epochs=1",
        "train.steps_per_epoch=60",
    ],
    "small": ["train.method=supervised", "train.epochs=10"],
}
"""Trainings of some minutes, after which a network sees the spine and the background."""
BOUND = "1.15"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 100, 1000])
    arguments = parser.parse_args()
    lines = [
        "# Speed and memory",
        "",
        f"`python Testing/Benchmarks/speed.py --repeats {arguments.repeats} --cases "
        f"{' '.join(map(str, arguments.cases))}` on {machine()}.",
        "",
        "The study has 15 slices of 512 x 512. The trained networks learnt for some minutes on phantoms. Random "
        "weights on noise are the worst case: every structure is seen everywhere and brought back to the scan's grid.",
        "",
        "| what | measured | bound |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        phantom = make_phantom(0, PHANTOM).image
        for preset, changes in QUICK.items():
            settings = load_settings(preset, changes)
            trained = train_network(Path(folder) / preset, settings)
            random = write_model(Path(folder) / preset / "random", settings)
            lines += segmentation(f"{preset}, trained, a phantom", trained, phantom, arguments.repeats, BOUND)
            lines += segmentation(
                f"{preset}, random weights, noise", random, study(15, 512), arguments.repeats
            )
        lines += cold_start(trained, Path(folder))  # of the preset small, the last
        lines += stage_2_step(Path(folder) / "step")
        lines += growth(trained, Path(folder), arguments.cases)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def machine() -> str:
    """Return the kind of machine, in words."""
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU, torch {torch.__version__}"


def train_network(folder: Path, settings: Settings) -> Path:
    """Train a network on phantoms and return its model folder."""
    data = write_phantom_data_set(folder / "data", 12)
    options = {"ratio": 1.0, "encoders": None, "device": CPU, "cancellation": Cancellation()}
    return train(data, folder / "run", settings, report=silent, **options)


def segmentation(name: str, model: Path, image: sitk.Image, repeats: int, bound: str = "") -> list[str]:
    """Measure a warm segmentation of a study against the bare forward of its slices."""
    segmenter = Segmenter(ModelFolder.open(model), CPU)
    slices = torch.from_numpy(SliceGrid.of(image, segmenter.input, whole=True).to_slices(image)).unsqueeze(1)
    batches = slices.split(segmenter.slices_at_once(slices))
    batches = [batch.contiguous(memory_format=memory_format(CPU, training=False)) for batch in batches]
    half = choose_precision(CPU) == "bf16"

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                segmenter.network(batch)

    whole, alone = interleaved([lambda: segmenter.segment(image), bare], repeats)
    return [
        f"| segment, warm, {name}: time over the bare forward | "
        f"{whole / alone:.2f} ({whole:.2f} s / {alone:.2f} s) | {bound} |"
    ]


def cold_start(model: Path, folder: Path) -> list[str]:
    """Measure the parts of a cold `cps4 segment`, each in a new process."""
    scan = folder / "scan.nii.gz"
    sitk.WriteImage(study(15, 512), str(scan))
    parts = {
        "the interpreter": "pass",
        "and the libraries": "import CPS4Core.inference.segmenter",
        "and the model": "from CPS4Core.inference.segmenter import Segmenter; import torch, sys;"
        "from CPS4Core.model_folder import ModelFolder;"
        "Segmenter(ModelFolder.open(sys.argv[1]), torch.device('cpu'))",
    }
    lines = []
    for name, code in parts.items():
        seconds = clock(lambda code=code: subprocess.run([sys.executable, "-c", code, model], check=True))
        lines.append(f"| cold start: {name} | {seconds:.1f} s | |")
    command = ["segment", scan, folder / "out.nii.gz", "--model", model, "--device", "cpu"]
    whole = clock(
        lambda: subprocess.run(
            [sys.executable, "-m", "CPS4Core.cli", *command], check=True, capture_output=True
        )
    )
    return [*lines, f"| cold start: the whole command `cps4 segment` | {whole:.1f} s | |"]


def stage_2_step(folder: Path) -> list[str]:
    """Measure a stage-2 step against its own forwards and backward, and the wait for data."""
    settings = load_settings(
        "small", ["train.method=mean_teacher_hard", "train.epochs=1", "train.steps_per_epoch=30"]
    )
    data = write_phantom_data_set(folder / "data", 6, labelled=3, options=PhantomOptions(slices=(9, 9)))
    events: list = []
    options = {"ratio": 1.0, "encoders": None, "device": CPU, "cancellation": Cancellation()}
    train(data, folder / "run", settings, report=events.append, **options)
    (end,) = (event.details for event in events if isinstance(event, Finished))
    step = end["seconds"] / end["steps"]
    bare = bare_step(settings)
    return [
        f"| stage-2 step, mean teacher, preset small: time over its bare forwards and backward | {step / bare:.2f} "
        f"({step:.3f} s / {bare:.3f} s; the validation at the end of the epoch included) | 1.25 |",
        f"| share of stage 2 spent waiting for data | {100 * end['waiting_for_data']:.1f} % | |",
    ]


def bare_step(settings: Settings) -> float:
    """Return the seconds of the forwards and the backward of one step, on random slices."""
    method = find_method(settings.train.method).load()(settings.train).train()
    shape = (settings.train.batch, *settings.input.size)
    images = torch.randn(2, shape[0], 1, *shape[1:])
    batch = Batch(
        labelled=images[0], labels=torch.randint(0, 20, shape), unlabelled=images[1], progress=0.0, step=0
    )

    def step() -> None:
        method(batch)["total"].backward()

    (seconds,) = interleaved([step], 10)
    return seconds


def growth(model: Path, folder: Path, cases: list[int]) -> list[str]:
    """Measure the peak memory and the time of segmenting ever more cases with one warm model."""
    segmenter = Segmenter(ModelFolder.open(model), CPU)
    scan = folder / "small.nii.gz"
    sitk.WriteImage(study(9, 128), str(scan))
    lines, process = [], psutil.Process()
    for count in cases:
        peak = 0
        start = time.monotonic()
        for _ in range(count):
            segment_one(segmenter, Task(scan, folder / "out.nii.gz"), False, silent, Cancellation())
            peak = max(peak, process.memory_info().rss)
        seconds = (time.monotonic() - start) / count
        lines.append(
            f"| segment {count} cases: peak memory, time a case | {peak / 2**20:.0f} MiB, {seconds:.2f} s | |"
        )
    return lines


def study(slices: int, pixels: int) -> sitk.Image:
    """Return a sagittal volume of noise: 4 mm between slices, a field of view of 300 mm."""
    array = np.random.default_rng(0).normal(300, 80, (slices, pixels, pixels)).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((300 / pixels, 300 / pixels, 4.0))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, -1, 0))
    return image


def write_model(folder: Path, settings: Settings) -> Path:
    """Write a network with random weights and return its folder."""
    network = ResidualUNet(settings.train.widths)
    ModelFolder.write(folder, 0, {NETWORK: network.state_dict()}, new_card(settings, stage=2))
    return folder


def interleaved(actions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median seconds of each action; they take turns, so that a slow moment hits all of them."""
    for action in actions:
        action()
    times = [[clock(action) for action in actions] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def clock(action: Callable[[], object]) -> float:
    """Return the seconds that ``action`` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
