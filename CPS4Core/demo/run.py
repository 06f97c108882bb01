"""`cps4 demo`: the whole journey, from a folder of scans to a report that a person enjoys reading.

First the model that comes with CPS4 segments real scans, where some are at hand; then both stages learn from phantoms.
Stopped, it goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import load_settings
from CPS4Core.data.prepare import prepare_data_set
from CPS4Core.demo.journey import Journey
from CPS4Core.demo.real_sample import Sample, extract_sample, try_real_sample
from CPS4Core.demo.real_scans import segment_at_once
from CPS4Core.demo.scans import write_scans
from CPS4Core.demo.story import write_story
from CPS4Core.errors import CPS4Error
from CPS4Core.evaluation.evaluate import Results, evaluate
from CPS4Core.events import Artifact, Event, Finished, Reporter, Started, Warned
from CPS4Core.inference.batch import find_tasks, segment_all
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.shipped_model import base_model
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.train import train

RATIO = 0.5
"""Share of the patients whose labels the demo uses."""
SYSTEMS = {"CPS4": "cps4", "mean teacher": "mean_teacher"}


def run_demo(
    output: Path,
    sample: Path | None,
    scans: Sequence[Path],
    device: torch.device,
    report: Reporter,
    cancellation: Cancellation,
    changes: tuple[str, ...] = (),
    patients: int = 32,
) -> Path:
    """Run the journey and return the path of the report.

    Args:
        output: folder for everything.
        sample: wheel that holds a real spine MR with masks; left out if None.
        scans: real scans to segment with the model that comes with CPS4.
        device: where to compute.
        report: receives the events.
        cancellation: tells when to stop.
        changes: to the preset ``small``, as for ``--set``.
        patients: synthetic training patients.

    Raises:
        CPS4Error: if the output cannot be written or an encoder is missing.
        Cancelled: if the user asked to stop; the same call goes on.
    """
    journey = Journey(Path(output), device, load_settings("small", changes), base=base_model())
    tell = _without_ends(report)
    common: dict[str, Any] = {"device": device, "report": tell, "cancellation": cancellation}

    real = None if sample is None else _extracted(sample, journey.folder / "real", report)
    if journey.base is not None:
        with _timed(journey, "real scans", report):
            journey.at_once = segment_at_once(
                [*([] if real is None else [real.image]), *scans],
                Segmenter(ModelFolder.open(journey.base), device, tell),
                journey.folder / "at-once",
                tell,
                cancellation,
            )
    with _timed(journey, "making phantoms", report):
        phantoms = write_scans(journey.folder / "scans", patients, tell, cancellation)
    with _timed(journey, "prepare", report):
        prepare_data_set(phantoms, journey.data, "folder", seed=0, report=tell, cancellation=cancellation)
    with _timed(journey, "stage 1", report):
        pretrain(journey.data, journey.stage_1, journey.settings, ratio=RATIO, **common)
    for system, method in SYSTEMS.items():
        with _timed(journey, f"stage 2, {system}", report):
            settings = load_settings("small", [*changes, f'train.method="{method}"'])
            output = journey.folder / f"stage2-{method}"
            journey.models[system] = train(
                journey.data, output, settings, ratio=RATIO, encoders=journey.encoders, **common
            )
    with _timed(journey, "segment and evaluate", report):
        for system, model in journey.models.items():
            journey.results[system] = _segment_and_score(journey, system, model, tell, cancellation)
    if real is not None:
        with _timed(journey, "the real scan", report):
            models = ({} if journey.base is None else {"CPS4 base": journey.base}) | journey.models
            journey.real = try_real_sample(real, models, device, journey.folder / "real")
    page = write_story(journey)
    report(Artifact("report", str(page)))
    report(Finished())
    return page


def _extracted(wheel: Path, folder: Path, report: Reporter) -> Sample | None:
    try:
        return extract_sample(wheel, folder)
    except CPS4Error as error:
        report(Warned(f"The real scan is left out: {error.problem} {error.remedy}"))
        return None


def _segment_and_score(
    journey: Journey, system: str, model: Path, report: Reporter, cancellation: Cancellation
) -> Results:
    """Segment the test scans with ``model``, at native resolution, and compare them with their labels."""
    tests = journey.folder / "scans" / "test"
    target = journey.segmented(system)
    segmenter = Segmenter(ModelFolder.open(model), journey.device, report)
    tasks = find_tasks(tests / "images", target, ".nii.gz")
    segment_all(segmenter, tasks, levels="as-seen", report=report, cancellation=cancellation, overwrite=True)
    return evaluate(target, tests / "labels", journey.folder / "evaluation" / target.name, report)


def _without_ends(report: Reporter) -> Reporter:
    """Return a reporter that passes on everything but the end of a part: the demo ends once."""

    def tell(event: Event) -> None:
        if not isinstance(event, Finished):
            report(event)

    return tell


@contextmanager
def _timed(journey: Journey, part: str, report: Reporter) -> Iterator[None]:
    report(Started(f"demo: {part}"))
    start = time.monotonic()
    yield
    journey.seconds[part] = time.monotonic() - start
