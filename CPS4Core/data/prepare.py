"""Making a data set in the one layout from what people have.

Images and labels keep their own grid; files are written anew, so that nothing of a DICOM header or of a file's name
comes along. A case that cannot be used is skipped and named at the end; the source is never changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.dataset import CHANNEL, DataSet, open_data_set, write_description
from CPS4Core.data.dicom import Series, read_series
from CPS4Core.data.geometry import check_sagittal, is_single_slice, warn_of_single_slices
from CPS4Core.data.label_schemes import SCHEMES, Scheme, mrspineseg
from CPS4Core.data.labels import read_labels
from CPS4Core.data.pictures import is_picture, warn_of_pictures
from CPS4Core.data.sources import FINDERS, LABEL_ENDINGS, Source, Sources
from CPS4Core.data.splits import write_splits
from CPS4Core.data.volumes import check_image, read_image
from CPS4Core.data.writing import write_volume
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Failed, Finished, Progress, Reporter, Warned
from CPS4Core.files import write_json


def prepare_data_set(
    source: Path,
    destination: Path,
    scheme: str,
    *,
    seed: int,
    report: Reporter,
    cancellation: Cancellation,
    pixel_mm: float | None = None,
) -> DataSet:
    """Make the data set ``destination`` from ``source``.

    Args:
        source: a folder, laid out as ``scheme`` says (see ``FINDERS``).
        destination: new folder, or one that an interrupted run began.
        scheme: ``mrspineseg``, ``spider``, ``totalspineseg``, ``spineps``, ``folder`` or ``dicom``.
        seed: of the splits.
        report: receives progress and skipped cases.
        cancellation: tells when to stop.
        pixel_mm: size of a pixel, where the sources are pictures.

    Raises:
        CPS4Error: if the scheme is not known, no case can be used, or the destination cannot be written.
        Cancelled: if the user asked to stop; the same call goes on.
    """
    if scheme not in FINDERS:
        raise CPS4Error(f"There is no source {scheme!r}.", f"Choose one of: {', '.join(FINDERS)}.")
    if not source.is_dir():
        raise CPS4Error("The source folder does not exist.", "Check the path.", source)
    found = FINDERS[scheme](source)
    if not found.cases:
        raise CPS4Error(
            f"The folder holds no image laid out as {scheme!r}.", "See `cps4 prepare --help`.", source
        )
    label_scheme = SCHEMES.get(scheme, mrspineseg)
    used: dict[str, Source] = {}
    failures, single_slices = [], 0
    for number, case in enumerate(found.cases, start=1):
        cancellation.check()
        name = case.name or f"{'test' if case.test else 'case'}_{number:04d}"
        try:
            single_slices += _write_case(case, destination, name, label_scheme, pixel_mm)
        except CPS4Error as error:
            if error.path is not None and destination in error.path.parents:
                raise
            failures.append(Failed(error.problem, error.remedy, str(error.path or case.place)))
            report(failures[-1])
        else:
            used[name] = case
        report(Progress(number, len(found.cases), "Preparing the data set"))
    warn_of_single_slices(single_slices, report)
    if pixel_mm is not None and any(is_picture(case.place) for case in used.values()):
        warn_of_pictures(pixel_mm, report)
    _warn_of_unmatched(found, report)
    if not used:
        raise CPS4Error("No case could be used.", "See the errors above for each file.", source)
    data_set = _describe(source, destination, used, seed)
    counts: dict[str, Any] = {
        "labelled": len(data_set.labelled),
        "unlabelled": len(data_set.unlabelled),
        "test": len(data_set.test),
        "skipped": len(failures),
        "matched": {rule: count for rule, count in found.matched.items() if count},
        "unmatched": len(found.unmatched),
    }
    report(Artifact("data set", str(destination), counts))
    report(Finished(details=counts))
    return data_set


def _warn_of_unmatched(found: Sources, report: Reporter) -> None:
    lost = [path.name for path in found.unmatched]
    if lost:
        report(
            Warned(
                f"{len(lost)} label files belong to no image and are left out: {', '.join(lost[:6])}"
                f"{', ...' if len(lost) > 6 else ''}. Name a label file as its image, or with one of "
                f"{', '.join(LABEL_ENDINGS)} after that name."
            )
        )


def _describe(source: Path, destination: Path, used: dict[str, Source], seed: int) -> DataSet:
    """Write what describes the data set: its classes, its patients, where cases came from, its splits."""
    patients = {name: case.patient for name, case in used.items() if case.patient is not None}
    training = sum(not case.test for case in used.values())
    write_description(destination, destination.name, training, patients)
    origins = {name: case.place.relative_to(source).as_posix() for name, case in used.items()}
    write_json(destination / "sources.json", origins)
    data_set = open_data_set(destination)
    if data_set.labelled:
        write_splits(data_set, seed)
    return data_set


def _write_case(source: Source, destination: Path, name: str, scheme: Scheme, pixel_mm: float | None) -> bool:
    """Write the image and the labels of one case; the image last, since it makes the case exist.

    Returns:
        Whether the case is new and a single slice.
    """
    part = "Ts" if source.test else "Tr"
    image_path = destination / f"images{part}" / f"{name}{CHANNEL}.nii.gz"
    label_path = destination / f"labels{part}" / f"{name}.nii.gz"
    if image_path.exists() and (source.label is None or label_path.exists()):
        return False
    image = _read(source.image, pixel_mm)
    check_sagittal(image, source.place)
    if source.label is not None:
        write_volume(read_labels(source.label, image, scheme, pixel_mm), label_path)
    write_volume(image, image_path)
    return is_single_slice(image)


def _read(source: Path | Series, pixel_mm: float | None) -> sitk.Image:
    if isinstance(source, Series):
        return check_image(read_series(source), source.folder)
    return read_image(source, pixel_mm)
