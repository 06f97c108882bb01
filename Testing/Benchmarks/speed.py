"""How much time the engine adds to the bare networks, and how memory grows with the number of cases.

    python Testing/Benchmarks/speed.py --threads 1          writes build/speed.md; RESULTS.md has what was found

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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import SimpleITK as sitk
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from timing import bare_forward, clock, interleaved, study, time_stage

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import NETWORK
from CPS4Core.config import Settings, load_settings
from CPS4Core.events import silent
from CPS4Core.inference.batch import Task, segment_one
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder, new_card
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.shipped_model import BASE, model_path
from CPS4Core.synthesis.phantom.data_set import write_phantom_data_set
from CPS4Core.synthesis.phantom.volume import PhantomOptions
from CPS4Core.training.train import train

OUTPUT = Path(__file__).parents[2] / "build/speed.md"
CPU = torch.device("cpu")
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
PARTS = ("segment", "cold", "step", "growth", "large")
MOST_MEMORY = 4 * 2**30


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--threads", type=int, default=1, help="of a process")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--presets", nargs="+", choices=["base", *QUICK], default=["base", *QUICK])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # of the processes that are started
    lines = [
        "# Speed and memory",
        "",
        f"`python Testing/Benchmarks/speed.py {' '.join(sys.argv[1:])}` on {machine()}.",
        "",
        "The study has 15 slices of 512 x 512. The bare forward is that of the same network, its batch normalisations "
        "folded into its convolutions as the engine does, on prepared slices. Networks of `paper` and `small` "
        "learnt for some minutes on phantoms, `base` is the model that comes with CPS4. Random weights on noise are "
        "the worst case: every structure is seen everywhere and brought back to the scan's grid.",
        "",
        "| what | measured | bound |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder, shipped = Path(name), model_path(BASE)
        if "segment" in arguments.parts:
            lines += segmentations(folder, arguments.presets, arguments.repeats)
        if "cold" in arguments.parts:
            lines += cold_start(shipped, folder)
        if "step" in arguments.parts:
            lines += stage_2_step(folder / "step")
        if "growth" in arguments.parts:
            lines += growth(shipped, folder, arguments.cases)
        if "large" in arguments.parts:
            lines += large_scans(shipped, folder)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def machine() -> str:
    """Return the kind of machine, in words."""
    threads = torch.get_num_threads()
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU, {threads} "
        f"{'thread' if threads == 1 else 'threads'}, torch {torch.__version__}"
    )


def segmentations(folder: Path, presets: list[str], repeats: int) -> list[str]:
    """Measure warm segmentations of a phantom and of noise against the bare forward, for each preset."""
    lines, phantom = [], study(15, 512)
    for preset in presets:
        if preset == "base":
            lines += segmentation("base, a phantom", model_path(BASE), phantom, repeats, BOUND)
            continue
        settings = load_settings(preset, QUICK[preset])
        trained = train_network(folder / preset, settings)
        random = write_model(folder / preset / "random", settings)
        lines += segmentation(f"{preset}, trained, a phantom", trained, phantom, repeats, BOUND)
        lines += segmentation(f"{preset}, random weights, noise", random, noise(15, 512), repeats)
    return lines


def train_network(folder: Path, settings: Settings) -> Path:
    """Train a network on phantoms and return its model folder."""
    data = write_phantom_data_set(folder / "data", 12)
    options = {"ratio": 1.0, "encoders": None, "device": CPU, "cancellation": Cancellation()}
    return train(data, folder / "run", settings, report=silent, **options)


def segmentation(name: str, model: Path, image: sitk.Image, repeats: int, bound: str = "") -> list[str]:
    """Measure a warm segmentation of a study against the bare forward of its slices."""
    segmenter = Segmenter(ModelFolder.open(model), CPU)
    forward = bare_forward(segmenter, image)
    whole, alone = interleaved([lambda: segmenter.segment(image), forward], repeats)
    return [
        f"| segment, warm, {name}: time over the bare forward | "
        f"{whole / alone:.2f} ({whole:.3f} s / {alone:.3f} s) | {bound} |"
    ]


def cold_start(model: Path, folder: Path) -> list[str]:
    """Measure the parts of a cold `cps4 segment`, each in a new process."""
    scan = folder / "scan.nii.gz"
    sitk.WriteImage(noise(15, 512), str(scan))
    parts = {
        "the interpreter": "pass",
        "and the libraries": "import CPS4Core.inference.segmenter",
        "and the model": "from CPS4Core.inference.segmenter import Segmenter; import torch, sys;"
        "from CPS4Core.model_folder import ModelFolder;"
        "Segmenter(ModelFolder.open(sys.argv[1]), torch.device('cpu'))",
    }
    commands = {name: ["-c", code, model] for name, code in parts.items()}
    commands["`cps4 segment --help`"] = ["-m", "CPS4Core.cli", "segment", "--help"]
    whole = ["segment", scan, folder / "out.nii.gz", "--device", "cpu", "--overwrite"]
    commands["the whole command `cps4 segment`"] = ["-m", "CPS4Core.cli", *whole]
    bounds = {"the whole command `cps4 segment`": "2 s"}
    times = {
        name: statistics.median(_process(command) for _ in range(3)) for name, command in commands.items()
    }
    return [
        f"| cold start: {name} | {seconds:.2f} s | {bounds.get(name, '')} |"
        for name, seconds in times.items()
    ]


def _process(arguments: list) -> float:
    return clock(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))


def stage_2_step(folder: Path) -> list[str]:
    """Measure a stage-2 step against its own forwards, backward and optimiser, and the wait for data."""
    settings = load_settings("small", ["train.method=mean_teacher_hard"])
    data = write_phantom_data_set(folder / "data", 6, labelled=3, options=PhantomOptions(slices=(9, 9)))
    found = time_stage(2, data, folder / "run", settings, CPU, 40, bare_repeats=20)
    return [
        f"| stage-2 step, mean teacher, preset small: time over its loss, backward and optimiser alone | "
        f"{found.step / found.bare:.2f} ({found.step:.3f} s / {found.bare:.3f} s) | 1.25 |",
        f"| share of stage 2 spent waiting for data | {100 * found.waiting:.1f} % | |",
    ]


def growth(model: Path, folder: Path, cases: list[int]) -> list[str]:
    """Measure the peak memory and the time of segmenting ever more cases with one warm model."""
    segmenter = Segmenter(ModelFolder.open(model), CPU)
    scan = folder / "small.nii.gz"
    sitk.WriteImage(study(5, 128), str(scan))
    task = Task(scan, folder / "out.nii.gz")
    lines, process = [], psutil.Process()
    for count in cases:
        peak = 0
        start = time.monotonic()
        for _ in range(count):
            segment_one(segmenter, task, "counted", silent, Cancellation())
            peak = max(peak, process.memory_info().rss)
        seconds = (time.monotonic() - start) / count
        lines.append(
            f"| segment {count} cases: peak memory, time a case | {peak / 2**20:.0f} MiB, {seconds:.2f} s | |"
        )
    return lines


def large_scans(model: Path, folder: Path) -> list[str]:
    """Measure time and peak memory of segmenting large scans, each in a process of its own; on Linux."""
    code = (
        "import sys, time, torch; from CPS4Core.inference.segmenter import Segmenter;"
        "from CPS4Core.model_folder import ModelFolder; from CPS4Core.data.volumes import read_scan;"
        "segmenter = Segmenter(ModelFolder.open(sys.argv[1]), torch.device('cpu')); start = time.perf_counter();"
        "found = segmenter.segment(read_scan(sys.argv[2])); seconds = time.perf_counter() - start;"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1];"
        "print(seconds, peak, len(found.confidence))"
    )
    lines = []
    for name, image in large_images():
        scan = folder / "large.nrrd"
        sitk.WriteImage(image, str(scan))
        command = [sys.executable, "-c", code, str(model), str(scan)]
        told = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.split()
        seconds, kib, structures = float(told[0]), int(told[1]), int(told[2])
        assert 1024 * kib < MOST_MEMORY, f"{name}: {kib} KiB"
        lines.append(
            f"| segment, base, {name}, read included: time, peak memory | {seconds:.1f} s, {kib / 1024:.0f} MiB "
            f"({structures} structures) | 4096 MiB |"
        )
    return lines


def large_images() -> Iterator[tuple[str, sitk.Image]]:
    """Yield scans made of phantoms: a whole spine (phantoms on end), 1 mm isotropic (side by side), 1024 x 1024."""
    phantom = study(15, 512)
    values = sitk.GetArrayFromImage(phantom)
    yield (
        "whole spine, 15 x 512 x 1280",
        _like(phantom, np.concatenate([values, values, values[..., :256]], 2)),
    )
    cubes = [round(length * mm) for length, mm in zip(phantom.GetSize(), phantom.GetSpacing(), strict=True)]
    thin = sitk.Resample(
        phantom,
        cubes,
        sitk.Transform(),
        sitk.sitkLinear,
        phantom.GetOrigin(),
        (1.0, 1.0, 1.0),
        phantom.GetDirection(),
    )
    beside = np.concatenate([sitk.GetArrayFromImage(thin)] * 3, 0)[:192]
    yield f"1 mm isotropic, {' x '.join(map(str, beside.shape))}", _like(thin, beside)
    fine = sitk.Expand(phantom, (2, 2, 1), sitk.sitkLinear)
    yield "15 x 1024 x 1024", fine


def _like(image: sitk.Image, array: np.ndarray) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(image.GetSpacing())
    made.SetDirection(image.GetDirection())
    return made


def noise(slices: int, pixels: int) -> sitk.Image:
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


if __name__ == "__main__":
    main()
