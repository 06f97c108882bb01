"""Real scans, segmented at once with the model that comes with CPS4: what a user gets without any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.volumes import case_name, read_scan
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Progress, Reporter, Warned
from CPS4Core.inference.outputs import write_segmentation
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
        CPS4Error: if the folder cannot be written.
        Cancelled: if the user asked to stop.
    """
    found = []
    for done, scan in enumerate(scans, start=1):
        cancellation.check()
        try:
            image = read_scan(scan)
            result = segmenter.segment(image, cancellation=cancellation)
        except CPS4Error as error:
            report(Warned(f"{scan.name} is left out: {error.problem} {error.remedy}"))
            continue
        segmentation = folder / f"{case_name(scan)}.nii.gz"
        write_segmentation(result.labels, segmentation)
        found.append(RealScan(scan, segmentation, result.doubts))
        report(Progress(done, len(scans), "Segmenting real scans"))
    return found
