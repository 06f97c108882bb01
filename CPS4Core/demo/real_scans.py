"""Real scans, segmented at once with the model that comes with CPS4: what a user gets without any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.volumes import case_name
from CPS4Core.events import Artifact, Event, Failed, Reporter, Warned
from CPS4Core.inference.batch import Task, segment_all
from CPS4Core.inference.segmenter import Segmenter


@dataclass(frozen=True)
class RealScan:
    """A real scan and what the model says of it."""

    scan: Path
    segmentation: Path
    doubts: tuple[str, ...]
    """What the model says of the levels, in sentences."""


def segment_at_once(
    scans: Sequence[Path], segmenter: Segmenter, folder: Path, report: Reporter, cancellation: Cancellation
) -> list[RealScan]:
    """Segment scans into ``folder`` and return them; one that cannot be read is left out with a word.

    Raises:
        Cancelled: if the user asked to stop.
    """
    tasks = [
        Task(scan, folder / f"{number:02d}_{case_name(scan)}.nii.gz")
        for number, scan in enumerate(scans, start=1)
    ]
    doubts: dict[str, list[str]] = {}

    def tell(event: Event) -> None:
        if isinstance(event, Failed):
            event = Warned(f"{event.path} is left out: {event.problem} {event.remedy}")
        elif isinstance(event, Artifact):
            doubts[event.path] = event.details["doubts"]
        report(event)

    # The folder is the demo's own, and what was made before is made anew for its doubts.
    segment_all(segmenter, tasks, levels="counted", report=tell, cancellation=cancellation, overwrite=True)
    return [
        RealScan(task.source, task.target, tuple(doubts[str(task.target)]))
        for task in tasks
        if str(task.target) in doubts
    ]
