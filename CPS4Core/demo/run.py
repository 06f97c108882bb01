"""`cps4 demo`: the whole journey, from a folder of scans to a report that a person enjoys reading.

Stopped, it goes on where it was. The scans are phantoms, and a real spine MR where one is at hand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import load_settings
from CPS4Core.data.prepare import prepare_data_set
from CPS4Core.demo.journey import Journey
from CPS4Core.demo.real_sample import try_real_sample
from CPS4Core.demo.scans import write_scans
from CPS4Core.demo.story import write_story
from CPS4Core.errors import CPS4Error
from CPS4Core.evaluation.evaluate import Results, evaluate
from CPS4Core.events import Artifact, Event, Finished, Reporter, Started, Warned
from CPS4Core.inference.batch import find_tasks, segment_all
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.train import train

RATIO = 0.5
"""Share of the patients whose labels the demo uses."""
SYSTEMS = {"CPS4": "cps4", "mean teacher": "mean_teacher"}


def run_demo(
    output: Path,
    sample: Path | None,
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
        device: where to compute.
        report: receives the events.
        cancellation: tells when to stop.
        changes: to the preset ``small``, as for ``--set``.
        patients: synthetic training patients.

    Raises:
        CPS4Error: if the output cannot be written or an encoder is missing.
        Cancelled: if the user asked to stop; the same call goes on.
    """
    journey = Journey(Path(output), device, load_settings("small", changes))
    tell = _without_ends(report)
    common = {"device": device, "report": tell, "cancellation": cancellation}

    with _timed(journey, "making the scans", report):
        scans = write_scans(journey.folder / "scans", patients, tell, cancellation)
    with _timed(journey, "prepare", report):
        prepare_data_set(scans, journey.data, "folder", seed=0, report=tell, cancellation=cancellation)
    with _timed(journey, "stage 1", report):
        journey.encoders = pretrain(
            journey.data, journey.folder / "stage1", journey.settings, ratio=RATIO, **common
        )
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
    if sample is not None:
        with _timed(journey, "the real scan", report):
            try:
                journey.real = try_real_sample(sample, journey.models, device, journey.folder / "real")
            except CPS4Error as error:
                report(Warned(f"The real scan is left out: {error.problem} {error.remedy}"))
    page = write_story(journey)
    report(Artifact("report", str(page)))
    report(Finished())
    return page


def _segment_and_score(
    journey: Journey, system: str, model: Path, report: Reporter, cancellation: Cancellation
) -> Results:
    """Segment the test scans with ``model``, at native resolution, and compare them with their labels."""
    tests = journey.folder / "scans" / "test"
    target = journey.segmented(system)
    segmenter = Segmenter(ModelFolder.open(model), journey.device, report)
    tasks = find_tasks(tests / "images", target, ".nii.gz")
    segment_all(segmenter, tasks, levels="as-seen", report=report, cancellation=cancellation)
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
