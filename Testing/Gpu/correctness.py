"""What must hold on a GPU. Each check returns whether it does, and what it found, in words."""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path

import torch
from setting import CPU, Setting, dice, labels_of, memory_for, precision
from small_models import StopAt
from timing import StageTimes, fresh_accelerator, slices_of, time_stage

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.volumes import read_scan
from CPS4Core.errors import Cancelled
from CPS4Core.events import Warned, silent
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.segmentation.methods.supervised import Supervised
from CPS4Core.training.pretrain import pretrain
from CPS4Core.weights import load_weights

Result = tuple[bool | None, str]

CLOSE_CALL = 1e-3
"""Between the two best logits: then rounding may decide."""
LEAST_DICE = 0.995
SAME_PATH = 0.02
"""Largest relative difference of a loss on the two devices, in float32, as long as rounding has not grown."""
CANCEL_SECONDS = 5.0
LESS_MEMORY = 0.6


def labels_in_float32(s: Setting) -> Result:
    """Labels in float32 are those of the CPU, but where the two best classes are within 1e-3"""
    sure, differing, pixels, largest = 0, 0, 0, 0.0
    with precision("no"):
        here, there = s.segmenter(), s.segmenter(device=CPU)
        for image in s.images.values():
            slices = slices_of(here, image)
            one, other = (
                torch.cat(list(net.forward(slices, lambda logits, _: logits.float().cpu(), None)))
                for net in (here, there)
            )
            best = other.topk(2, dim=1).values
            wrong = one.argmax(1) != other.argmax(1)
            sure += int((wrong & (best[:, 0] - best[:, 1] >= CLOSE_CALL)).sum())
            differing, pixels = differing + int(wrong.sum()), pixels + wrong.numel()
            largest = max(largest, float((one - other).abs().max()))
    found = f"{differing} of {pixels} pixels differ, {sure} of them sure; logits by up to {largest:.1e}"
    return sure == 0, found


def labels_in_bf16(s: Setting) -> Result:
    """Labels in bf16 against float32: Dice above 0.995"""
    found = {}
    for name, image in s.images.items():
        volumes = []
        for chosen in ("no", "bf16"):
            with precision(chosen):
                volumes.append(labels_of(s.segmenter().segment(image).labels))
        found[name] = dice(*volumes)
    return min(found.values()) > LEAST_DICE, ", ".join(f"{name} {value:.4f}" for name, value in found.items())


def stage_1_learns(s: Setting) -> Result:
    """Stage 1: losses are finite, and in float32 those of the CPU at first"""
    return _learns(s, 1, s.settings("small"))


def stage_2_learns(s: Setting) -> Result:
    """Stage 2: losses are finite, and in float32 those of the CPU at first"""
    return _learns(s, 2, s.settings("small", "train.method=cps4"))


def _learns(s: Setting, stage: int, settings) -> Result:
    long, short = (20, 10) if s.tiny else (200, 20)
    encoders = None if stage == 1 else s.shared.get("encoders")
    if stage == 2 and encoders is None:
        return False, "stage 1 left no encoders"

    def trained(name: str, device: torch.device, steps: int) -> StageTimes:
        run = s.folder / f"stage {stage} {name}"
        return time_stage(stage, s.data, run, settings, device, steps, encoders=encoders)

    whole = trained("whole", s.device, long)
    finite = all(map(math.isfinite, whole.losses.values())) and len(whole.losses) == long // 10
    with precision("no"):
        here, there = trained("here", s.device, short), trained("there", CPU, short)
    if stage == 1:
        s.shared["encoders"] = there.model
    apart = max(abs(here.losses[step] / there.losses[step] - 1) for step in there.losses)
    first, last = whole.losses[10], whole.losses[long]
    found = (
        f"{long} steps, loss {first:.3f} to {last:.3f}; first {short} steps {100 * apart:.2g} % off the CPU's"
    )
    return finite and apart < SAME_PATH, found


def resumes_to_the_same_bits(s: Setting) -> Result:
    """Stopped and killed trainings end in the bits of uninterrupted ones"""
    found = {"stage 1 stopped": _stopped(s), "stage 2 killed": _killed(s)}
    return all(found.values()), ", ".join(
        f"{name}: {'same' if ok else 'other'}" for name, ok in found.items()
    )


def _stopped(s: Setting) -> bool:
    settings = s.settings("small", "pretrain.epochs=6", "checkpoint_minutes=0")

    def run(name: str, cancellation: Cancellation) -> Path:
        fresh_accelerator()
        common = {"ratio": 1.0, "device": s.device, "report": silent, "cache": s.folder / "cache"}
        return pretrain(s.data, s.folder / name, settings, cancellation=cancellation, **common)

    whole = run("whole", Cancellation())
    try:
        run("in parts", StopAt(20))
        raise AssertionError("the training ended before it was stopped")
    except Cancelled:
        pass
    return _same_bits(whole, run("in parts", Cancellation()))


def _killed(s: Setting) -> bool:
    epochs, steps = (8, 5) if s.tiny else (10, 20)
    settings = s.settings("small")
    fields = {
        "input.size": list(settings.input.size),
        "input.spacing_mm": settings.input.spacing_mm,
        "train.widths": list(settings.train.widths),
        "train.epochs": epochs,
        "train.steps_per_epoch": steps,
        "checkpoint_minutes": 0,
    }
    options = ["--preset=small", "--method=mean_teacher_hard", f"--device={s.device}", "--ratio=1"]
    options += [
        f"--cache={s.folder / 'cache'}",
        *(f"--set={name}={json.dumps(value)}" for name, value in fields.items()),
    ]
    whole, killed = s.folder / "run whole", s.folder / "run killed"
    processes = [s.cps4("train", s.data, run, *options, stdout=-3) for run in (whole, killed)]
    checkpoint = killed / "checkpoint.safetensors"
    while processes[1].poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    assert processes[1].poll() is None, "the training ended before it was killed"
    processes[1].kill()
    processes[1].wait()
    again = s.cps4("train", s.data, killed, *options, stdout=-3)
    assert [process.wait() for process in (processes[0], again)] == [0, 0], "a training failed"
    return _same_bits(whole / "model", killed / "model")


def _same_bits(one: Path, other: Path) -> bool:
    def tensors(folder: Path) -> dict[str, torch.Tensor]:
        parts = ModelFolder.open(folder).card.weights.values()
        return {
            f"{part.file}.{k}": v for part in parts for k, v in load_weights(folder / part.file)[0].items()
        }

    ours, theirs = tensors(one), tensors(other)
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


def segments_with_less_memory(s: Setting) -> Result:
    """Segmenting with 60 % of the memory that it took: in smaller parts, with the same labels"""
    name = "base" if s.tiny else "paper"
    enough, said = s.segmenter(name), []
    s.peak()
    before = labels_of(enough.segment(s.phantom, levels="seen").labels)
    peak, at_once = s.peak(), enough.slices_at_once(slices_of(enough, s.phantom))
    del enough
    s.tidy()
    little = Segmenter(s.model(name), s.device, said.append)
    with memory_for(s.device, LESS_MEMORY, peak, (Segmenter, "_logits"), most=1):
        after = labels_of(little.segment(s.phantom, levels="seen").labels)
    fewer = little.slices_at_once(slices_of(little, s.phantom))
    same, here = dice(before, after), little.device.type == s.device.type
    at_once = min(at_once, *s.phantom.GetSize())
    found = f"{at_once} slices at once, then {fewer}; Dice {same:.4f}; {'here' if here else 'on the CPU'}"
    return fewer < at_once and same > LEAST_DICE and here, found


def trains_with_less_memory(s: Setting) -> Result:
    """Training with 60 % of the memory that it took: in parts, with finite losses"""
    settings = s.settings("small" if s.tiny else "paper", "train.method=supervised")

    def run(name: str) -> StageTimes:
        return time_stage(2, s.data, s.folder / name, settings, s.device, 10)

    peak = run("enough").peak
    s.tidy()
    with memory_for(s.device, LESS_MEMORY, peak, (Supervised, "forward"), most=1):
        little = run("little")
    said = [
        event.message for event in little.events if isinstance(event, Warned) and "parts" in event.message
    ]
    return bool(said) and math.isfinite(little.losses[10]), said[0] if said else "all fitted"


def worker_stays_warm_and_cancels(s: Setting) -> Result:
    """The worker's second segmentation is the faster one; a cancelled one ends within 5 s"""
    import subprocess

    worker = s.cps4("worker", stdin=subprocess.PIPE)

    def ask(number: int, **more: object) -> None:
        fields = {"request": str(number), "model": "base", "device": str(s.device), **more}
        worker.stdin.write(json.dumps(fields) + "\n")
        worker.stdin.flush()

    def answer(number: int) -> dict:
        while line := worker.stdout.readline():
            event = json.loads(line)
            if event.get("request") == str(number) and event["event"] in ("finished", "failed"):
                return event
        raise AssertionError("the worker ended")

    times = []
    for number in (1, 2):
        start = time.monotonic()
        ask(number, do="segment", input=str(s.scan), output=str(s.folder / f"worker {number}.nii.gz"))
        assert answer(number)["event"] == "finished"
        times.append(time.monotonic() - start)
    for number in range(10, 40):
        ask(number, do="segment", input=str(s.scan), output=str(s.folder / f"worker {number}.nii.gz"))
    threading.Event().wait(times[1] / 2)
    start = time.monotonic()
    ask(50, do="cancel")
    last = answer(39)
    stopped = time.monotonic() - start
    ask(51, do="shutdown")
    worker.stdin.close()
    worker.wait(timeout=30)
    found = f"first {times[0]:.2f} s, second {times[1]:.2f} s; cancelled in {stopped:.2f} s"
    return times[1] < times[0] and bool(last.get("cancelled")) and stopped < CANCEL_SECONDS, found


def two_processes_on_one_card(s: Setting) -> Result:
    """Two processes segment at once on one card: the labels of one alone"""
    start = time.monotonic()
    assert s.cps4("segment", s.scan, s.folder / "alone.nii.gz", "--device", s.device, stdout=-3).wait() == 0
    s.shared["cold start"] = time.monotonic() - start
    pair = [s.folder / "two" / name for name in ("a.nii.gz", "b.nii.gz")]
    both = [s.cps4("segment", s.scan, path, "--device", s.device, stdout=-3) for path in pair]
    assert [process.wait() for process in both] == [0, 0], "a process failed"
    alone = labels_of(read_scan(s.folder / "alone.nii.gz", silent))
    same = [dice(alone, labels_of(read_scan(path, silent))) for path in pair]
    return min(same) == 1.0, f"Dice {min(same):.4f}"


CHECKS = (
    labels_in_float32,
    labels_in_bf16,
    stage_1_learns,
    stage_2_learns,
    resumes_to_the_same_bits,
    segments_with_less_memory,
    trains_with_less_memory,
    worker_stays_warm_and_cancels,
    two_processes_on_one_card,
)
