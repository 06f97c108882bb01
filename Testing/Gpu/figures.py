"""What a GPU takes: times, ratios and memory. A figure with a bound says whether it holds."""

from __future__ import annotations

import time
from collections.abc import Callable

import SimpleITK as sitk
import torch
from setting import Setting
from timing import (
    StageTimes,
    bare_forward,
    bare_step,
    clock,
    fresh_accelerator,
    interleaved,
    slices_of,
    time_stage,
)
from torch import Tensor, nn

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import load_settings
from CPS4Core.events import silent
from CPS4Core.inference.batch import find_tasks, segment_all
from CPS4Core.synthesis.bank import Bank, draw_patient_maps
from CPS4Core.training.base import BaseTraining
from CPS4Core.training.learners import NetworkLearner
from CPS4Core.training.loop import TrainingLoop
from CPS4Core.training.run import make_accelerator, open_run

Result = tuple[bool | None, str]

MOST_OVER_FORWARD = 1.15
MOST_OVER_STEP = 1.25
COMPILE_SECONDS = 60.0
"""Longest that a first compiled pass may take to be worth a look."""


def cold_start(s: Setting) -> Result:
    """Cold start: the whole command `cps4 segment`"""
    if "cold start" not in s.shared:
        start = time.monotonic()
        s.cps4("segment", s.scan, s.folder / "cold.nii.gz", "--device", s.device, stdout=-3).wait()
        s.shared["cold start"] = time.monotonic() - start
    return None, f"{s.shared['cold start']:.2f} s"


def warm_study_base(s: Setting) -> Result:
    """Warm study of 15 x 512 x 512, preset base, over the bare forward of the same folded network"""
    return _warm(s, "base")


def warm_study_paper(s: Setting) -> Result:
    """Warm study of 15 x 512 x 512, preset paper, over the bare forward of the same folded network"""
    return _warm(s, "paper")


def _warm(s: Setting, name: str) -> Result:
    segmenter = s.segmenter(name)
    s.peak()
    forward = bare_forward(segmenter, s.phantom)
    whole, bare = interleaved([lambda: segmenter.segment(s.phantom), forward], 2 if s.tiny else 5, s.device)
    found = f"{whole / bare:.2f} ({1e3 * whole:.0f} ms / {1e3 * bare:.0f} ms), peak {_mib(s.peak())}"
    return None if s.tiny else whole / bare < MOST_OVER_FORWARD, found


def forward_variants(s: Setting) -> Result:
    """The forward of the preset paper: as it is, other layout, CUDA graph, torch.compile"""
    segmenter = s.segmenter("base" if s.tiny else "paper")
    slices = slices_of(segmenter, s.phantom).to(s.device, segmenter._dtype)
    network = segmenter.network
    variants = {"as it is": _forward_of(network, slices.contiguous(memory_format=segmenter._layout))}
    with torch.inference_mode():
        if s.device.type == "cuda":
            variants["CUDA graph"] = _graph_of(network, slices.contiguous(memory_format=segmenter._layout))
        compiled = _compiled(network, slices, s) if s.device.type == "cuda" and not s.tiny else None
    if compiled is not None:
        variants["torch.compile"] = compiled
    times = dict(zip(variants, interleaved(list(variants.values()), 5, s.device), strict=True))
    network.to(memory_format=torch.contiguous_format)
    (times["contiguous"],) = interleaved([_forward_of(network, slices.contiguous())], 5, s.device)
    return None, ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in times.items())


def _forward_of(network: nn.Module, slices: Tensor) -> Callable[[], object]:
    def forward() -> None:
        with torch.inference_mode():
            network(slices)

    return forward


def _graph_of(network: nn.Module, slices: Tensor) -> Callable[[], object]:
    for _ in range(3):
        network(slices)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(slices)
    return graph.replay


def _compiled(network: nn.Module, slices: Tensor, s: Setting) -> Callable[[], object] | None:
    forward = _forward_of(torch.compile(network), slices)
    try:
        return forward if clock(forward, s.device) < COMPILE_SECONDS else None
    except Exception:  # no compiler, or one that does not fit
        return None


def copies_to_the_device(s: Setting) -> Result:
    """A study's way to the device: from plain and from pinned memory"""
    slices = slices_of(s.segmenter(), s.phantom)
    if s.device.type != "cuda":
        return None, "no GPU"
    held = slices.pin_memory()
    plain, pinned, both = interleaved(
        [
            lambda: slices.to(s.device),
            lambda: held.to(s.device, non_blocking=True),
            lambda: slices.pin_memory().to(s.device, non_blocking=True),
        ],
        10,
        s.device,
    )
    return (
        None,
        f"plain {1e3 * plain:.2f} ms, pinned {1e3 * pinned:.2f} ms, pinning included {1e3 * both:.2f} ms",
    )


def stage_1_paper(s: Setting) -> Result:
    """Stage-1 step, preset paper, over its loss, backward pass and optimiser alone"""
    return _step(s, 1, "paper")


def stage_2_paper(s: Setting) -> Result:
    """Stage-2 step of the mean teacher, preset paper, over its loss, backward pass and optimiser alone"""
    return _step(s, 2, "paper")


def stage_1_base(s: Setting) -> Result:
    """Stage-1 step, preset base, over its loss, backward pass and optimiser alone"""
    return _step(s, 1, "base")


def stage_2_base(s: Setting) -> Result:
    """Stage-2 step of the mean teacher, preset base, over its loss, backward pass and optimiser alone"""
    return _step(s, 2, "base")


def _step(s: Setting, stage: int, preset: str) -> Result:
    settings = s.settings(preset, "train.method=mean_teacher_hard")
    output = s.folder / f"step {stage} {preset}"
    found = time_stage(
        stage, s.data, output, settings, s.device, 12 if s.tiny else 60, bare_repeats=3 if s.tiny else 20
    )
    return None if s.tiny else found.step / found.bare < MOST_OVER_STEP, _in_words(found)


def _in_words(found: StageTimes) -> str:
    return (
        f"{found.step / found.bare:.2f} ({1e3 * found.step:.1f} ms / {1e3 * found.bare:.1f} ms), "
        f"waiting for data {100 * found.waiting:.1f} %, peak {_mib(found.peak)}"
    )


def base_training_step(s: Setting) -> Result:
    """A step of the base model's training on synthetic spines"""
    steps = 4 if s.tiny else 60
    settings = load_settings("base", ["base.batch=2", "train.widths=[4, 8]"] if s.tiny else [])
    bank = _FewPatients(2 if s.tiny else 8)
    fresh_accelerator()
    identity, unused = {"check": "base"}, {"augment"}
    with open_run(
        s.folder / "base step",
        identity,
        settings,
        make_accelerator(s.device),
        silent,
        Cancellation(),
        unused=unused,
    ) as run:
        stage = BaseTraining(run, NetworkLearner(settings), steps, bank, None, None)
        loop = TrainingLoop(stage, run)
        seconds = clock(loop.run, s.device)
        (bare,) = interleaved([lambda: bare_step(loop)], 3 if s.tiny else 20, s.device)
    return (
        None,
        f"{1e3 * seconds / steps:.1f} ms with its start; bare {1e3 * bare:.1f} ms; peak {_mib(s.peak())}",
    )


class _FewPatients(Bank):
    """Some patients in memory."""

    def __init__(self, count: int):
        super().__init__(())
        object.__setattr__(self, "_maps", [draw_patient_maps(0, k) for k in range(count)])

    def __len__(self) -> int:
        return len(self._maps)

    def maps(self, patients):
        return torch.stack([torch.from_numpy(self._maps[k]) for k in patients]).numpy()


def folder_throughput(s: Setting) -> Result:
    """A folder of studies: time a case, over that of a warm one in memory"""
    cases, source = 3 if s.tiny else 30, s.folder / "many"
    source.mkdir(exist_ok=True)
    for number in range(cases):
        image = sitk.Image(s.phantom)
        image.SetPixel(0, 0, 0, number)  # so that no two are the same
        sitk.WriteImage(image, str(source / f"{number:03d}.nrrd"), useCompression=False)
    segmenter, tasks = s.segmenter(), find_tasks(source, s.folder / "many labels", ".nrrd")
    (alone,) = interleaved([lambda: segmenter.segment(s.phantom)], 3, s.device)
    start = time.perf_counter()
    failed = segment_all(segmenter, tasks, levels="counted", report=silent, cancellation=Cancellation())
    seconds = (time.perf_counter() - start) / cases
    return not failed, f"{1e3 * seconds:.0f} ms a case, {seconds / alone:.2f} of one in memory"


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count else "not told"


FIGURES = (
    cold_start,
    warm_study_base,
    warm_study_paper,
    forward_variants,
    copies_to_the_device,
    stage_1_paper,
    stage_2_paper,
    stage_1_base,
    stage_2_base,
    base_training_step,
    folder_throughput,
)
