"""Segmenting files, folders and DICOM series, one after the other; a bad case does not stop the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.content import content_of, voxels_of
from CPS4Core.data.dicom import holds_dicom
from CPS4Core.data.listing import folders_below
from CPS4Core.data.pictures import is_picture
from CPS4Core.data.read_ahead import read_ahead
from CPS4Core.data.results import Maker, State, check_free, check_place, is_result, note, state_of
from CPS4Core.data.volumes import IMAGE_SUFFIXES, case_name, list_scans, read_scan
from CPS4Core.errors import Cancelled, CPS4Error
from CPS4Core.events import Artifact, Event, Failed, Progress, Reporter, Warned
from CPS4Core.failures import failure_of
from CPS4Core.inference.outputs import SEGMENTATION_SUFFIXES, check_suffix, write_segmentation
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.naming import Levels


@dataclass(frozen=True)
class Task:
    """One volume to segment, and where its result goes."""

    source: Path
    target: Path
    pixel_mm: float | None = None
    """Size of a pixel, where the source is a picture."""
    folder: Path | None = None
    """What holds all scans of the batch."""

    @property
    def title(self) -> str:
        """How messages name the scan: as it lies in the folder; else as its file or, of a series, as its result."""
        if self.folder is not None and self.folder != self.source:
            return self.source.relative_to(self.folder).as_posix()
        return self.source.name if self.source.is_file() else case_name(self.target)


def find_tasks(source: Path, target: Path, suffix: str, pixel_mm: float | None = None) -> list[Task]:
    """Return what to segment.

    Args:
        source: a volume, a DICOM series folder, or a folder of volumes and of DICOM series folders.
        target: the result's file if ``source`` is one volume and ``target`` has a known suffix; else a folder.
        suffix: of results in a folder, such as ``.nii.gz``.
        pixel_mm: size of a pixel, where the sources are pictures.

    Raises:
        CPS4Error: if there is nothing to segment, the suffix is not known, two results would have one name, or one
            would take the place of a scan.
    """
    if not source.exists():
        raise CPS4Error("The input does not exist.", "Check the path.", source)
    check_suffix(suffix)
    scans = _scans(source, target)
    if not scans:
        raise CPS4Error(
            "The folder holds no scan.",
            f"Scans end in {', '.join(IMAGE_SUFFIXES)}, are pictures or DICOM series.",
            source,
        )
    if target.name.lower().endswith(SEGMENTATION_SUFFIXES) and not target.is_dir():
        if len(scans) > 1:
            raise CPS4Error(
                f"There are {len(scans)} scans, but the results' place is the name of one file.",
                "Name a folder for the results.",
                target,
            )
        targets = [target]
    else:
        targets = [target / f"{name}{suffix}" for name in _names(scans, source)]
    for place in targets:
        check_place(place, scans)
    folder = source if source.is_dir() else None
    return [Task(scan, place, pixel_mm, folder) for scan, place in zip(scans, targets, strict=True)]


def _names(scans: Sequence[Path], source: Path) -> list[str]:
    """Return the name of each scan's result below the results' folder: where the scan lies below ``source``."""
    names = []
    for scan in scans:
        below = scan.parent.relative_to(source) if scan.is_file() and scan != source else Path()
        name = case_name(scan) if scan.is_file() else scan.resolve().name
        if scan.is_dir() and scan != source:
            below = scan.relative_to(source).parent
        names.append((below / name).as_posix())
    taken = Counter(name.casefold() for name in names)  # as Windows and macOS compare names
    told = [
        f"{name}_{_suffix_of(scan)}" if taken[name.casefold()] > 1 else name
        for name, scan in zip(names, scans, strict=True)
    ]
    for name, count in Counter(name.casefold() for name in told).items():
        if count > 1:
            raise CPS4Error(f"{count} scans would give results of one name: {name}.", "Rename them.", source)
    return told


def _suffix_of(scan: Path) -> str:
    """Return what tells a scan from others of the same name, such as ``nii-gz``."""
    return "dicom" if scan.is_dir() else scan.name[len(case_name(scan)) + 1 :].replace(".", "-")


def segment_all(
    segmenter: Segmenter,
    tasks: Sequence[Task],
    *,
    levels: Levels,
    report: Reporter,
    cancellation: Cancellation,
    overwrite: bool = False,
) -> list[Failed]:
    """Segment one task after the other, and return those that failed.

    A result that is there already is not made again. The next scan is read meanwhile.

    Args:
        segmenter: the network.
        tasks: what to segment.
        levels: as for ``segment_one``.
        report: receives progress and failures.
        cancellation: tells when to stop.
        overwrite: write over whatever is at the place of a result.

    Raises:
        Cancelled: if the user asked to stop; finished results stay.
    """
    failures = []

    def prepare(number: int) -> _Prepared:
        return _prepare(segmenter, tasks[number], levels, overwrite)

    upcoming = read_ahead(prepare, range(len(tasks)), ahead=1)
    for number, (task, (prepared, _)) in enumerate(zip(tasks, upcoming, strict=True)):
        cancellation.check()
        for event in prepared.said:
            report(event)
        try:
            if prepared.error is not None:
                raise prepared.error
            if prepared.image is None:
                _say_it_is_there(task, prepared, report)
            else:
                segment_image(
                    segmenter,
                    prepared.image,
                    task,
                    levels,
                    report,
                    cancellation,
                    done=number,
                    total=len(tasks),
                    maker=prepared.maker,
                )
        except Cancelled:
            raise
        except Exception as error:  # of one scan; the others have their turn
            failures.append(failure_of(error, task.title))
            report(failures[-1])
        report(Progress(number + 1, len(tasks), "Segmenting"))
    return failures


@dataclass
class _Prepared:
    """A task when its turn comes."""

    said: list[Event]
    """What was said while reading."""
    maker: Maker | None = None
    state: State = State.FREE
    """Of the place of the result."""
    image: sitk.Image | None = None
    """The scan; None where its result is there already."""
    error: Exception | None = None
    """Why it cannot be segmented."""


def _prepare(segmenter: Segmenter, task: Task, levels: Levels, overwrite: bool) -> _Prepared:
    """Read the scan of a task unless its result is there already; an error waits until its turn comes."""
    prepared = _Prepared([])
    try:
        prepared.maker = _maker(segmenter, task, levels)
        prepared.state = State.FREE if overwrite else state_of(task.target, prepared.maker)
        if prepared.state in (State.FREE, State.FOREIGN):
            check_free(task.target, prepared.maker, overwrite)
            check_place(task.target, [task.source])
            prepared.image = read_scan(task.source, prepared.said.append, task.pixel_mm)
    except Exception as error:
        prepared.error = error
    return prepared


def _maker(segmenter: Segmenter, task: Task, levels: Levels) -> Maker:
    return {
        "command": "segment",
        "source": content_of(task.source),
        "network": segmenter.sha256,
        "levels": levels,
        "pixel_mm": task.pixel_mm,
    }


def _say_it_is_there(task: Task, prepared: _Prepared, report: Reporter) -> None:
    details: dict[str, Any] = {"source": task.title, "there already": True}
    if prepared.state is State.CHANGED:
        report(Warned(f"{task.target.name} was corrected since it was made, and stays as it is."))
    elif prepared.maker is not None:
        details["network"] = prepared.maker["network"]
    report(Artifact("segmentation", str(task.target), details))


def segment_one(
    segmenter: Segmenter, task: Task, levels: Levels, report: Reporter, cancellation: Cancellation
) -> None:
    """Read one volume, segment it and write the result.

    Raises:
        CPS4Error: if the volume cannot be read or is not sagittal, or the result cannot be written.
        Cancelled: if the user asked to stop.
    """
    check_place(task.target, [task.source])
    image = read_scan(task.source, report, task.pixel_mm)
    segment_image(segmenter, image, task, levels, report, cancellation)


def segment_image(
    segmenter: Segmenter,
    image: sitk.Image,
    task: Task,
    levels: Levels,
    report: Reporter,
    cancellation: Cancellation,
    done: int = 0,
    total: int = 1,
    maker: Maker | None = None,
) -> None:
    """Segment the volume of a task and write the result.

    Args:
        image: the volume.
        levels: name structures by counting along the spine, or as the network sees each pixel.
        done: volumes of the batch that are finished, for the progress.
        total: volumes in the batch.
        maker: noted beside the result, so that a second run knows it.

    Raises:
        CPS4Error: if the device's memory does not suffice, or the result cannot be written.
        Cancelled: if the user asked to stop.
    """

    def progress(slices: int, of: int) -> None:
        report(Progress(done * of + slices, total * of, f"Segmenting {task.title}"))

    result = segmenter.segment(image, levels=levels, cancellation=cancellation, progress=progress)
    if maker is not None:
        note(task.target, maker, voxels_of(result.labels))
    write_segmentation(result.labels, task.target)
    confidence = {str(label): round(value, 4) for label, value in result.confidence.items()}
    details = {
        "source": task.title,
        "confidence": confidence,
        "network": segmenter.sha256,
        "doubts": list(result.doubts),
    }
    for doubt in result.doubts:
        report(Warned(f"{task.title}: {doubt}"))
    if not result.confidence:
        report(Warned(f"{task.title}: no structure was found; the result is empty."))
    report(Artifact("segmentation", str(task.target), details))


def _unmade(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not is_result(path)]


def _scans(source: Path, target: Path) -> list[Path]:
    """Return the scans in ``source``: itself, or the volumes in it and the folders of DICOM series below.

    Where no volume lies in ``source`` itself, those in the folders below count; the results' folder never does, nor
    does a result that lies among the scans.
    """
    if source.is_file():
        return [source]
    scans = _unmade(list_scans(source))
    if scans and is_picture(scans[0]) and holds_dicom(source):
        scans = []
    below = [folder for folder in folders_below(source) if not _is_in(folder, target) or folder == source]
    found = []
    for folder in below:
        volumes = scans if folder == source else [] if scans else _unmade(list_scans(folder))
        if volumes and not (is_picture(volumes[0]) and holds_dicom(folder)):
            found += volumes
        elif holds_dicom(folder):
            found.append(folder)
    return found


def _is_in(folder: Path, other: Path) -> bool:
    return other.resolve() in (folder.resolve(), *folder.resolve().parents)
