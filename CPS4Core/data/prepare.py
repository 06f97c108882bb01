"""Making a data set in the one layout from what people have.

Images and labels keep their own grid; files are written anew, so that nothing of a DICOM header or of a file's name
comes along. A case that cannot be used is skipped and named at the end; the source is never changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.dataset import CHANNEL, DataSet, open_data_set, write_description
from CPS4Core.data.dicom import Series, find_series, patient_key, read_series
from CPS4Core.data.geometry import check_sagittal, is_single_slice, warn_of_single_slices
from CPS4Core.data.label_schemes import SCHEMES, class_table
from CPS4Core.data.pictures import is_picture, warn_of_pictures
from CPS4Core.data.splits import write_splits
from CPS4Core.data.volumes import (
    case_name,
    check_image,
    check_same_grid,
    read_image,
    read_volume,
    volumes_among,
)
from CPS4Core.data.writing import write_volume
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Failed, Finished, Progress, Reporter
from CPS4Core.files import write_json


@dataclass(frozen=True)
class Source:
    """One case before it is prepared."""

    image: Path | Series
    label: Path | None = None
    name: str | None = None
    """Of the case; numbered if None, where a file's name may hold a patient's."""
    patient: str | None = None
    """Cases of one patient share it; None: a patient of its own."""
    test: bool = False


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
    found = list(FINDERS[scheme](source))
    if not found:
        raise CPS4Error(
            f"The folder holds no image laid out as {scheme!r}.", "See `cps4 prepare --help`.", source
        )
    translate = SCHEMES.get(scheme, class_table)
    used: dict[str, Source] = {}
    failures, single_slices = [], 0
    for number, each in enumerate(found, start=1):
        cancellation.check()
        name = each.name or f"{'test' if each.test else 'case'}_{number:04d}"
        try:
            single_slices += _write_case(each, destination, name, translate, pixel_mm)
        except CPS4Error as error:
            if error.path is not None and destination in error.path.parents:
                raise
            failures.append(Failed(error.problem, error.remedy, str(error.path or _where(each))))
            report(failures[-1])
        else:
            used[name] = each
        report(Progress(number, len(found), "Preparing the data set"))
    warn_of_single_slices(single_slices, report)
    if any(isinstance(each.image, Path) and is_picture(each.image) for each in used.values()):
        warn_of_pictures(pixel_mm, report)
    if not used:
        raise CPS4Error("No case could be used.", "See the errors above for each file.", source)
    return _describe(source, destination, used, seed, report, len(failures))


def _describe(
    source: Path, destination: Path, used: dict[str, Source], seed: int, report: Reporter, skipped: int
) -> DataSet:
    """Write what describes the data set: its classes, its patients, where cases came from, its splits."""
    patients = {name: each.patient for name, each in used.items() if each.patient is not None}
    training = sum(not each.test for each in used.values())
    write_description(destination, destination.name, training, patients)
    origins = {name: _where(each).relative_to(source).as_posix() for name, each in used.items()}
    write_json(destination / "sources.json", origins)
    data_set = open_data_set(destination)
    if data_set.labelled:
        write_splits(data_set, seed)
    counts = {
        "labelled": len(data_set.labelled),
        "unlabelled": len(data_set.unlabelled),
        "test": len(data_set.test),
    }
    report(Artifact("data set", str(destination), {**counts, "skipped": skipped}))
    report(Finished(details={**counts, "skipped": skipped}))
    return data_set


def _write_case(
    source: Source,
    destination: Path,
    name: str,
    translate: Callable[[sitk.Image], sitk.Image],
    pixel_mm: float | None,
) -> bool:
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
    check_sagittal(image, _where(source))
    if source.label is not None:
        labels = read_volume(source.label, pixel_mm)
        check_same_grid(labels, image, source.label)
        try:
            write_volume(translate(labels), label_path)
        except CPS4Error as error:
            raise CPS4Error(error.problem, error.remedy, error.path or source.label) from error
    write_volume(image, image_path)
    return is_single_slice(image)


def _read(source: Path | Series, pixel_mm: float | None) -> sitk.Image:
    if isinstance(source, Series):
        return check_image(read_series(source), source.folder)
    return read_image(source, pixel_mm)


def _where(source: Source) -> Path:
    return source.image.folder if isinstance(source.image, Series) else source.image


def _find_mrspineseg(folder: Path) -> Iterator[Source]:
    """``train/MR/Case7.nii.gz`` and ``train/Mask/mask_case7.nii.gz``; other folders with ``MR`` are tests."""
    for image in sorted(folder.rglob("*.nii.gz"), key=_by_number):
        match = re.fullmatch(r"case(\d+)", case_name(image), re.IGNORECASE)
        if not match or image.parent.name != "MR":
            continue
        masks = {case_name(path).lower(): path for path in _volumes(image.parents[1] / "Mask")}
        test = image.parents[1].name != "train"
        name = f"{image.parents[1].name}_{match[1]}" if test else f"case_{match[1]}"
        yield Source(image, masks.get(f"mask_case{match[1]}"), name, test=test)


def _find_spider(folder: Path) -> Iterator[Source]:
    """``images/12_t2.mha`` and ``masks/12_t2.mha``; T2 series only, all of one number are one patient."""
    for image in sorted(_volumes(folder / "images"), key=_by_number):
        match = re.fullmatch(r"(\d+)_(t2.*)", case_name(image), re.IGNORECASE)
        if match:
            label = folder / "masks" / image.name
            yield Source(image, label if label.exists() else None, f"spider_{match[0]}", f"spider_{match[1]}")


def _find_pairs(folder: Path) -> Iterator[Source]:
    """``images/NAME.nii.gz`` and ``labels/NAME.nii.gz``, or just volumes in the folder."""
    has_images = (folder / "images").is_dir()
    labels = {_plain_name(path): path for path in _volumes(folder / "labels")} if has_images else {}
    for image in _volumes(folder / "images" if has_images else folder):
        yield Source(image, labels.get(_plain_name(image)))


def _find_dicom(folder: Path) -> Iterator[Source]:
    """Every DICOM series with at least two files, in the folder and below."""
    patients: dict[str, str] = {}
    for each in sorted([folder, *(path for path in folder.rglob("*") if path.is_dir())]):
        for series in find_series(each):
            if len(series.files) > 1:
                key = hashlib.sha256(patient_key(series).encode()).hexdigest()
                patient = patients.setdefault(key, f"patient_{len(patients) + 1:04d}")
                yield Source(series, patient=patient)


FINDERS: dict[str, Callable[[Path], Iterator[Source]]] = {
    "mrspineseg": _find_mrspineseg,
    "spider": _find_spider,
    "totalspineseg": _find_pairs,
    "spineps": _find_pairs,
    "folder": _find_pairs,
    "dicom": _find_dicom,
}


def _volumes(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return volumes_among(folder.iterdir())


def _plain_name(path: Path) -> str:
    return case_name(path).removesuffix(CHANNEL)


def _by_number(path: Path) -> tuple[str, int, str]:
    """Sort key: folder, first number in the name, name."""
    numbers = re.findall(r"\d+", path.name)
    return str(path.parent), int(numbers[0]) if numbers else 0, path.name
