"""Segmenting files, folders and DICOM series, one after the other; a bad case does not stop the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.dicom import find_series
from CPS4Core.data.pictures import is_picture
from CPS4Core.data.volumes import IMAGE_SUFFIXES, case_name, list_scans, read_scan, visible_files
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Failed, Progress, Reporter, Warned
from CPS4Core.inference.outputs import SEGMENTATION_SUFFIXES, write_segmentation
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.naming import Levels

DICOM_INDEX = "DICOMDIR"
"""A file that lists the series in the folders beside it, and is none."""


@dataclass(frozen=True)
class Task:
    """One volume to segment, and where its result goes."""

    source: Path
    target: Path
    pixel_mm: float | None = None
    """Size of a pixel, where the source is a picture."""


def find_tasks(source: Path, target: Path, suffix: str, pixel_mm: float | None = None) -> list[Task]:
    """Return what to segment.

    Args:
        source: a volume, a DICOM series folder, or a folder of volumes and of DICOM series folders.
        target: the result's file if ``source`` is one volume and ``target`` has a known suffix; else a folder.
        suffix: of results in a folder, such as ``.nii.gz``.
        pixel_mm: size of a pixel, where the sources are pictures.

    Raises:
        CPS4Error: if there is nothing to segment.
    """
    if not source.exists():
        raise CPS4Error("The input does not exist.", "Check the path.", source)
    scans = _scans(source)
    if not scans:
        raise CPS4Error(
            "The folder holds no scan.",
            f"Scans end in {', '.join(IMAGE_SUFFIXES)}, are pictures or DICOM series.",
            source,
        )
    if scans == [source] and target.name.lower().endswith(SEGMENTATION_SUFFIXES):
        return [Task(source, target, pixel_mm)]
    return [Task(scan, target / f"{case_name(scan)}{suffix}", pixel_mm) for scan in scans]


def segment_all(
    segmenter: Segmenter,
    tasks: Sequence[Task],
    *,
    levels: Levels,
    report: Reporter,
    cancellation: Cancellation,
) -> list[Failed]:
    """Segment every task that falls to this process, and return those that failed.

    Several processes (``accelerate launch``) share the tasks out.

    Raises:
        Cancelled: if the user asked to stop; finished results stay.
    """
    failures = []
    with PartialState().split_between_processes(list(tasks)) as mine:
        for number, task in enumerate(mine):
            cancellation.check()
            try:
                segment_one(segmenter, task, levels, report, cancellation, done=number, total=len(mine))
            except CPS4Error as error:
                path = str(error.path or task.source)
                failures.append(Failed(error.problem, error.remedy, path))
                report(failures[-1])
    return failures


def segment_one(
    segmenter: Segmenter,
    task: Task,
    levels: Levels,
    report: Reporter,
    cancellation: Cancellation,
    done: int = 0,
    total: int = 1,
) -> None:
    """Segment one volume and write the result.

    Args:
        levels: name structures by counting along the spine, or as the network sees each pixel.
        done: volumes of the batch that are finished, for the progress.
        total: volumes in the batch.

    Raises:
        CPS4Error: if the volume cannot be read or is not sagittal, or the result cannot be written.
        Cancelled: if the user asked to stop.
    """
    image = read_scan(task.source, report, task.pixel_mm)

    def progress(slices: int, of: int) -> None:
        report(Progress(done * of + slices, total * of, f"Segmenting {task.source.name}"))

    result = segmenter.segment(image, levels=levels, cancellation=cancellation, progress=progress)
    write_segmentation(result.labels, task.target)
    confidence = {str(label): round(value, 4) for label, value in result.confidence.items()}
    details = {
        "source": str(task.source),
        "confidence": confidence,
        "network": segmenter.sha256,
        "doubts": list(result.doubts),
    }
    for doubt in result.doubts:
        report(Warned(f"{task.source.name}: {doubt}"))
    report(Artifact("segmentation", str(task.target), details))


def _scans(source: Path) -> list[Path]:
    """Return the scans in ``source``: itself, files with a known suffix, or folders of DICOM files."""
    if source.is_file():
        return [source]
    scans = list_scans(source)
    if scans and not (is_picture(scans[0]) and find_series(source)):
        return scans
    folders = [source, *sorted(path for path in source.rglob("*") if path.is_dir())]
    return [folder for folder in folders if any(path.name != DICOM_INDEX for path in visible_files(folder))]
