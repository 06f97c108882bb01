"""Kills, full disks and two processes at once, at random moments: what is there in the end is what would be anyway.

    python Testing/Torture/torture.py FOLDER --kills 100

Each job (prepare, stage 1, stage 2, segmenting a folder) is run undisturbed first. Then it is started again and again
in a new folder, and killed each time (SIGKILL) at a moment drawn at random over what is left of it, until it has come
to its end; the folder must then hold the same files to the byte, and the model the same weights. The same with a disk
that is full at a random moment and later has space, and with two processes that do the same at once.

Linux; the full disks need root. Jobs are forked from this process, which has imported everything: kills fall into the
work, not into imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from small_models import MODELS, TINY_PHANTOMS, tiny_changes, write_text_model

import CPS4Core.data.prepare
import CPS4Core.inference.batch
import CPS4Core.training.pretrain
import CPS4Core.training.train  # noqa: F401
from CPS4Core.cli import app
from CPS4Core.files import UNFINISHED
from CPS4Core.synthesis.phantom.data_set import write_phantom_data_set

FORK = multiprocessing.get_context("fork")
TIMES = ("events.jsonl", "preview.png", "run.lock", "data.lock")
"""Files that tell when something was done, or by whom; they differ between two undisturbed runs too."""
MOST_STARTS = 400
"""Of one job: beyond that it makes no headway."""


@dataclass
class Job:
    """A command that writes to a folder, which is put in for ``OUT``."""

    name: str
    command: list[str]
    seconds: float = 0.0
    """What it takes undisturbed."""
    size: int = 0
    """Bytes of what it writes."""
    expected: dict[str, str] = field(default_factory=dict)
    """Its files, by their hashes."""

    def start(self, out: Path, log: Path) -> multiprocessing.Process:
        """Start it in a process of its own."""
        arguments = [str(out) if part == "OUT" else part for part in self.command]
        process = FORK.Process(target=_run, args=(arguments, log))
        process.start()
        return process


def _run(arguments: list[str], log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
        sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8")
        sys.argv = ["cps4", *arguments]
        try:
            app()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder and below, without those that tell times and unfinished ones."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in TIMES and not path.name.startswith(UNFINISHED):
            data = path.read_bytes()
            if path.name in ("dataset.json", "card.json"):  # they hold the folder's name
                data = data.replace(folder.name.encode(), b"FOLDER")
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


@dataclass
class Torture:
    """The jobs, what happened to them, and what came out wrong."""

    folder: Path
    jobs: list[Job]
    draw: random.Random
    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def undisturbed(self, job: Job) -> None:
        out = self.folder / "undisturbed" / job.name
        started = time.monotonic()
        process = job.start(out, self.folder / "undisturbed.log")
        process.join()
        if process.exitcode:
            raise SystemExit(f"{job.name} fails undisturbed: see {self.folder / 'undisturbed.log'}")
        job.seconds = time.monotonic() - started
        job.expected = files(out)
        job.size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())

    def kill(self, job: Job, most: int) -> int:
        """Run a job to its end with kills in between, at most as many; return how many there were."""
        out = self.new_folder(job)
        kills, left = 0, job.seconds
        for _ in range(MOST_STARTS):
            process = job.start(out, self.log)
            process.join(self.draw.uniform(0, left) if kills < most else None)
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += 1
                continue
            if process.exitcode:
                self.faults.append(f"{job.name} ended with {process.exitcode} after {kills} kills")
            break
        else:
            self.faults.append(f"{job.name} made no headway in {MOST_STARTS} starts")
        self.compare(job, out, f"{kills} kills")
        self.counts[f"kills in {job.name}"] += kills
        return kills

    def fill_disk(self, job: Job) -> None:
        """Run a job on a disk that is full at some moment, then give it space."""
        out = self.new_folder(job)
        out.mkdir(parents=True)
        disk = out.with_name(f"{out.name} disk")
        disk.mkdir()
        size = self.draw.randint(16 * 1024, max(32 * 1024, job.size))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
        try:
            place = disk / job.name
            first = job.start(place, self.log)
            first.join()
            if first.exitcode == 0:
                self.counts["disks that sufficed"] += 1
            else:
                self.counts[f"full disks in {job.name}"] += 1
                said = self.log.read_text(encoding="utf-8", errors="replace")
                if "Traceback" in said or "unexpected" in said:
                    self.faults.append(
                        f"{job.name} on a disk of {size} bytes: no clear error, see {self.log}"
                    )
                subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
                second = job.start(place, self.log)
                second.join()
                if second.exitcode:
                    self.faults.append(f"{job.name} did not go on when its disk had space")
            self.compare(job, place, f"a disk of {size} bytes")
        finally:
            subprocess.run(["umount", disk], check=True)

    def twice_at_once(self, job: Job) -> None:
        """Run the same command in two processes; one may be refused, the result is whole."""
        out = self.new_folder(job)
        first = job.start(out, self.log)
        time.sleep(self.draw.uniform(0, job.seconds))
        second = job.start(out, self.log)
        first.join()
        second.join()
        if first.exitcode and second.exitcode:
            self.faults.append(f"{job.name} twice at once: both failed")
        self.compare(job, out, "two processes at once")
        self.counts[f"pairs of {job.name}"] += 1

    def new_folder(self, job: Job) -> Path:
        shutil.rmtree(self.folder / "disturbed", ignore_errors=True)
        self.log = self.folder / "disturbed.log"
        self.log.unlink(missing_ok=True)
        return self.folder / "disturbed" / job.name

    def compare(self, job: Job, out: Path, what: str) -> None:
        found = files(out)
        different = [name for name in {*found, *job.expected} if found.get(name) != job.expected.get(name)]
        if different:
            self.faults.append(f"{job.name}, {what}: {', '.join(sorted(different)[:8])} differ")
            kept = self.folder / "faults" / str(len(self.faults))
            shutil.copytree(out, kept, dirs_exist_ok=True)
            shutil.copy(self.log, kept)
        else:
            self.counts["equal in the end"] += 1
        if "Traceback" in self.log.read_text(encoding="utf-8", errors="replace"):
            self.faults.append(f"{job.name}, {what}: a stack trace")


def make_jobs(folder: Path) -> list[Job]:
    """Write scans, a data set and a text model, and return the jobs on them."""
    text = write_text_model(folder / "text model")
    data = write_phantom_data_set(folder / "data", 6, test_cases=1, labelled=4, options=TINY_PHANTOMS)
    for images, labels in (("imagesTr", "labelsTr"),):
        for path in sorted((data / images).iterdir()):
            name = path.name.replace("_0000", "")
            for part, source in (("images", path), ("labels", data / labels / name)):
                if source.exists():
                    (folder / "scans" / part).mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, folder / "scans" / part / name)
    changes = [
        part
        for change in [*tiny_changes(text), "train.epochs=12", "pretrain.epochs=12"]
        for part in ("--set", change)
    ]
    common = ["--preset", "small", *changes, "--device", "cpu"]
    encoders = folder / "undisturbed/pretrain/model"
    return [
        Job("prepare", ["prepare", str(folder / "scans"), "OUT"]),
        Job("pretrain", ["pretrain", str(data), "OUT", *common]),
        Job("train", ["train", str(data), "OUT", *common, "--encoders", str(encoders)]),
        Job(
            "segment",
            [
                "segment",
                str(folder / "scans/images"),
                "OUT",
                "--model",
                str(MODELS / "format-2"),
                "--device",
                "cpu",
            ],
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(chosen.folder, ignore_errors=True)
    chosen.folder.mkdir(parents=True)
    started = time.monotonic()
    torture = Torture(chosen.folder.resolve(), make_jobs(chosen.folder.resolve()), random.Random(chosen.seed))
    for job in torture.jobs:
        torture.undisturbed(job)
        print(f"{job.name}: {job.seconds:.1f} s undisturbed, {len(job.expected)} files", flush=True)
    kills = number = 0
    while kills < chosen.kills:
        kills += torture.kill(torture.jobs[number % len(torture.jobs)], most=8)
        number += 1
        print(f"{kills} kills, {len(torture.faults)} faults", flush=True)
    rounds = max(1, chosen.kills // 20)
    can_mount = os.geteuid() == 0
    for _ in range(rounds):
        for job in torture.jobs:
            torture.twice_at_once(job)
            if can_mount:
                torture.fill_disk(job)
    report = {
        "kills": kills,
        "counts": dict(sorted(torture.counts.items())),
        "full disks": "tried" if can_mount else "not tried: they need root",
        "faults": torture.faults,
        "seconds": round(time.monotonic() - started),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    (torture.folder / "report.json").write_text(json.dumps(report, indent=2))
    print(json.dumps(report, indent=2))
    return 1 if torture.faults else 0


if __name__ == "__main__":
    sys.exit(main())
