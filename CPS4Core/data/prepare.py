"""Making a data set in the one layout from what people have.

Images and labels keep their own grid; files are written anew, so that nothing of a DICOM header or of a file's name
comes along. A case that cannot be used is skipped and named at the end; the source is never changed. Prepared again, a
data set keeps its cases under their names, takes in new scans and changed ones, and leaves alone what somebody has
changed in it (``CPS4Core.data.ledger``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.content import content_of
from CPS4Core.data.dataset import CHANNEL, DataSet, known_patients, open_data_set, write_description
from CPS4Core.data.dicom import Series, read_series
from CPS4Core.data.geometry import check_sagittal, is_single_slice, warn_of_single_slices
from CPS4Core.data.label_schemes import SCHEMES, Scheme, mrspineseg
from CPS4Core.data.labels import read_labels
from CPS4Core.data.ledger import Ledger, Origin
from CPS4Core.data.pictures import is_picture, warn_of_pictures
from CPS4Core.data.sources import FINDERS, LABEL_ENDINGS, Source, Sources
from CPS4Core.data.splits import FILE as SPLITS
from CPS4Core.data.splits import describe_splits
from CPS4Core.data.turns import writing_to
from CPS4Core.data.volumes import check_image, list_scans, read_image, shown
from CPS4Core.data.writing import write_volume
from CPS4Core.errors import CPS4Error, listed
from CPS4Core.events import Artifact, Failed, Finished, Progress, Reporter, Warned
from CPS4Core.failures import failure_of, is_below
from CPS4Core.files import read_json, write_json


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
        destination: new folder, or one that was prepared from the same source, in part or whole.
        scheme: ``mrspineseg``, ``spider``, ``totalspineseg``, ``spineps``, ``folder`` or ``dicom``.
        seed: of the splits.
        report: receives progress and skipped cases.
        cancellation: tells when to stop.
        pixel_mm: size of a pixel, where the sources are pictures.

    Raises:
        CPS4Error: if the scheme is not known, no case can be used, or the destination cannot be written or holds
            something else.
        Cancelled: if the user asked to stop; the same call goes on.
    """
    if scheme not in FINDERS:
        raise CPS4Error(f"There is no source {scheme!r}.", f"Choose one of: {', '.join(FINDERS)}.")
    if not source.is_dir():
        raise CPS4Error("The source folder does not exist.", "Check the path.", source)
    if destination.resolve() == source.resolve():
        raise CPS4Error(
            "The data set cannot be its own source.", "Choose another folder for it.", destination
        )
    found = FINDERS[scheme](source)
    if not found.cases and not found.faults:
        raise CPS4Error(
            f"The folder holds no image laid out as {scheme!r}.", "See `cps4 prepare --help`.", source
        )
    with writing_to(destination, report, cancellation):
        work = Preparation(source, destination, found, SCHEMES.get(scheme, mrspineseg), pixel_mm, report)
        return work.run(cancellation, seed)


class Preparation:
    """One run of ``prepare_data_set``, while no other process writes to the data set."""

    def __init__(
        self,
        source: Path,
        destination: Path,
        found: Sources,
        scheme: Scheme,
        pixel_mm: float | None,
        report: Reporter,
    ):
        self.source = source
        self.destination = destination
        self.found = found
        self.scheme = scheme
        self.pixel_mm = pixel_mm
        self.report = report
        self.ledger = Ledger(destination)
        self.keys = [case.key(source) for case in found.cases]
        self.highest = max((_number(name) for name in self.ledger.cases), default=0)
        self.patients: dict[str, str] = {}
        self.used: dict[str, Source] = {}
        self.failures: list[Failed] = []
        self.single_slices = 0

    def run(self, cancellation: Cancellation, seed: int) -> DataSet:
        """Prepare all cases, and describe the data set."""
        for fault in self.found.faults:
            self._fail(fault)
        named = self._name_cases(cancellation)
        for number, (name, case, origin) in enumerate(named, start=1):
            cancellation.check()
            try:
                self._prepare(name, case, origin)
            except Exception as error:  # of one case; the others have their turn
                if is_below(error, self.destination):
                    raise  # nor can the others be written
                self._fail(error, case.title)
            self.report(Progress(number, len(named), "Preparing the data set"))
        self._warn()
        if not self.used:
            raise CPS4Error("No case could be used.", "See the errors above for each file.", self.source)
        data_set = self._describe(seed)
        counts: dict[str, Any] = {
            "labelled": len(data_set.labelled),
            "unlabelled": len(data_set.unlabelled),
            "test": len(data_set.test),
            "skipped": len(self.failures),
            "matched": {rule: count for rule, count in self.found.matched.items() if count},
            "unmatched": len(self.found.unmatched),
        }
        self.report(Artifact("data set", str(self.destination), counts))
        self.report(Finished(details=counts))
        return data_set

    def _name_cases(self, cancellation: Cancellation) -> list[tuple[str, Source, Origin]]:
        """Return every case that can be read with its name, an old one where it is known, and what it comes from."""
        contents: list[tuple[Source, str, str, str | None]] = []
        for key, case in zip(self.keys, self.found.cases, strict=True):
            cancellation.check()
            try:
                label = None if case.label is None else content_of(case.label)
                contents.append((case, key, case.content(), label))
            except CPS4Error as error:
                self._fail(error, case.title)
            self.report(Progress(len(contents), len(self.keys), "Looking at the sources"))
        self._check_same_source({content for _, _, content, _ in contents})
        names = []
        for position, (case, key, content, _) in enumerate(contents, start=1):
            names.append(case.name or self._known_name(key, content) or self._new_name(case, position))
        self._know_patients(names, [case for case, *_ in contents])
        same: dict[str, str] = {}
        named = []
        for name, (case, key, content, label) in zip(names, contents, strict=True):
            # Two files of one image are of one patient: one would train and the other validate.
            first = same.setdefault(content, name)
            patient = case.patient or self._patient(case) or (None if first == name else first)
            named.append((name, case, Origin(key, content, label, patient, self._pixel_mm(case))))
        if len(same) < len(named):
            self.report(
                Warned(
                    f"{len(named) - len(same)} scans are the same as another: they count as one patient's."
                )
            )
        return named

    def _check_same_source(self, contents: set[str]) -> None:
        known = self.ledger.cases.values()
        if known and contents and not any(origin.image in contents for origin in known):
            raise CPS4Error(
                "The data set was prepared from other scans.",
                "Prepare these into a new folder, or all of them together from one.",
                self.destination,
            )

    def _known_name(self, key: str, content: str) -> str | None:
        """Return the name of the case that was made from a source before, under this or another name."""
        known = self.ledger.cases.items()
        by_key = (name for name, origin in known if origin.source == key)
        moved = (name for name, origin in known if origin.image == content and origin.source not in self.keys)
        return next(by_key, None) or next(moved, None)

    def _new_name(self, case: Source, position: int) -> str:
        self.highest = max(position, self.highest + 1)
        return f"{'test' if case.test else 'case'}_{self.highest:04d}"

    def _pixel_mm(self, case: Source) -> float | None:
        return self.pixel_mm if is_picture(case.place) else None

    def _know_patients(self, names: list[str], cases: list[Source]) -> None:
        """Take up the numbers of patients from before."""
        for name, case in zip(names, cases, strict=True):
            known = self.ledger.cases.get(name)
            if case.patient_key is not None and known is not None and known.patient is not None:
                self.patients[case.patient_key] = known.patient

    def _patient(self, case: Source) -> str | None:
        """Return the number of the patient whose own must not be written."""
        if case.patient_key is None:
            return None
        taken = [origin.patient or "" for origin in self.ledger.cases.values()]
        number = 1 + max(map(_number, [*taken, *self.patients.values()]), default=0)
        return self.patients.setdefault(case.patient_key, f"patient_{number:04d}")

    def _prepare(self, name: str, case: Source, origin: Origin) -> None:
        """Write a case, unless it is there already or somebody has changed it."""
        known = self.ledger.cases.get(name)
        if known is not None and self._stays(name, known, origin):
            if self.ledger.is_complete(name) and known.made_alike(origin):
                self.ledger.rename(name, origin)
        else:
            self._write(name, case, origin)
        self.used[name] = case

    def _stays(self, name: str, known: Origin, origin: Origin) -> bool:
        """Return whether a known case is not written again, and say so where its source has changed."""
        if self.ledger.is_complete(name) and known.made_alike(origin):
            return True
        why = None
        if self.ledger.changed_since(name):
            why = "was changed in the data set"
        elif known.label is not None and origin.label is None:
            why = "has labels, which the source no longer has"
        elif self._added_labels(name, known):
            why = "got labels in the data set"
        if why is not None:
            self.report(
                Warned(
                    f"{name} {why}, and stays as it is. To make it anew from the source, remove its files."
                )
            )
        return why is not None

    def _added_labels(self, name: str, known: Origin) -> bool:
        files = (self.destination / part / f"{name}.nii.gz" for part in ("labelsTr", "labelsTs"))
        return any(
            file.is_file() and file.relative_to(self.destination).as_posix() not in known.written
            for file in files
        )

    def _write(self, name: str, case: Source, origin: Origin) -> None:
        """Write image and labels of a case; the image last, since it makes the case exist."""
        image = _read(case.image, self.pixel_mm)
        check_sagittal(image, shown(case.place))
        part = "Ts" if case.test else "Tr"
        image_path = self.destination / f"images{part}" / f"{name}{CHANNEL}.nii.gz"
        volumes = {image_path: image}
        if case.label is not None:
            labels = read_labels(case.label, image, self.scheme, self.pixel_mm)
            volumes = {self.destination / f"labels{part}" / f"{name}.nii.gz": labels, **volumes}
        self.ledger.begin(name, origin, list(volumes))
        for path, volume in volumes.items():
            write_volume(volume, path)
        self.ledger.finish(name, list(volumes))
        self.single_slices += is_single_slice(image)

    def _fail(self, error: Exception, where: str | None = None) -> None:
        self.failures.append(failure_of(error, where))
        self.report(self.failures[-1])

    def _warn(self) -> None:
        warn_of_single_slices(self.single_slices, self.report)
        if self.pixel_mm is not None and any(is_picture(case.place) for case in self.used.values()):
            warn_of_pictures(self.pixel_mm, self.report)
        _warn_of_unmatched(self.found, self.report)
        gone = [name for name, origin in self.ledger.cases.items() if origin.source not in self.keys]
        if gone:
            self.report(
                Warned(
                    f"{len(gone)} cases come from scans that are no longer in the source, and stay: {listed(gone)}."
                )
            )

    def _describe(self, seed: int) -> DataSet:
        """Write what describes the data set: its classes, its patients, its splits."""
        patients = known_patients(self.destination)
        patients |= {
            name: origin.patient for name, origin in self.ledger.cases.items() if origin.patient is not None
        }
        training = len(list_scans(self.destination / "imagesTr"))
        write_description(self.destination, self.destination.name, training, patients)
        data_set = open_data_set(self.destination)
        if data_set.labelled:
            self._split(data_set, seed)
        return data_set

    def _split(self, data_set: DataSet, seed: int) -> None:
        """Write the splits, unless somebody has changed them."""
        path = self.destination / SPLITS
        new = describe_splits(data_set, seed)
        old = read_json(path) if path.is_file() else None
        if old not in (None, new):
            if not self.ledger.owns_splits(path):
                self.report(
                    Warned(
                        f"{SPLITS} was changed, and stays as it is. Remove it to have all cases split anew."
                    )
                )
                return
            self.report(
                Warned(f"The cases have changed, so {SPLITS} was made anew: earlier trainings had another.")
            )
        if old != new:
            write_json(path, new)
        self.ledger.note_splits(path)


def _number(name: str) -> int:
    """Return the number at the end of a name, 0 if there is none."""
    found = re.search(r"_(\d+)$", name)
    return int(found[1]) if found else 0


def _warn_of_unmatched(found: Sources, report: Reporter) -> None:
    if found.unmatched:
        report(
            Warned(
                f"{len(found.unmatched)} label files belong to no image and are left out: "
                f"{listed([path.name for path in found.unmatched])}. Name a label file as its image, or with one of "
                f"{', '.join(LABEL_ENDINGS)} after that name."
            )
        )


def _read(source: Path | Series, pixel_mm: float | None) -> sitk.Image:
    if isinstance(source, Series):
        return check_image(read_series(source))
    return read_image(source, pixel_mm)
