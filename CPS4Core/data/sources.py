"""What people have: the images in a folder that is laid out in some way, and the labels that belong to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from CPS4Core.data.content import content_of, content_of_all
from CPS4Core.data.dataset import plain_name
from CPS4Core.data.dicom import Series, find_series
from CPS4Core.data.listing import folders_below
from CPS4Core.data.volumes import by_case, case_name, list_scans, list_volumes
from CPS4Core.errors import CPS4Error

SAME_NAME = "the image's name"
LABEL_ENDINGS = ("_seg", "-seg", "_label", "-label", "_labels", "-labels", "_mask", "-mask")
"""What label files of other programs have after the name of the image."""


@dataclass(frozen=True)
class Source:
    """One case before it is prepared."""

    image: Path | Series
    label: Path | None = None
    name: str | None = None
    """Of the case; numbered if None, where a file's name may hold a patient's."""
    patient: str | None = None
    """Cases of one patient share it; None: a patient of its own."""
    where: str = ""
    """Which folder a series lies in, where its name must not be said."""
    patient_key: str | None = None
    """What cases of one patient share where it must not be written, since it may tell who the patient is."""
    test: bool = False

    @property
    def place(self) -> Path:
        """The file of the image, or the folder of its series."""
        return self.image.folder if isinstance(self.image, Series) else self.image

    def key(self, folder: Path) -> str:
        """Return what the image is called in ``folder``: its path there; of a DICOM series a hash of its numbers."""
        if isinstance(self.image, Series):
            return self.image.identity
        return self.image.relative_to(folder).as_posix()

    def content(self) -> str:
        """Return the SHA-256 of the image's file, or of all files of its series.

        Raises:
            CPS4Error: if a file cannot be read.
        """
        if isinstance(self.image, Series):
            return content_of_all(self.image.files)
        return content_of(self.image)

    @property
    def title(self) -> str:
        """How messages name the image."""
        if isinstance(self.image, Series):
            return f"{self.image.title} in {self.where}"
        return str(self.image)


@dataclass
class Sources:
    """The cases in a folder, and how its label files belong to them."""

    cases: list[Source] = field(default_factory=list)
    matched: Counter[str] = field(default_factory=Counter)
    """How many label files belong to an image, by what they are named after."""
    unmatched: list[Path] = field(default_factory=list)
    """Label files that belong to no image."""
    faults: list[CPS4Error] = field(default_factory=list)
    """Folders that could not be looked into."""


def find_mrspineseg(folder: Path) -> Sources:
    """``train/MR/Case7.nii.gz`` and ``train/Mask/mask_case7.nii.gz``; other folders with ``MR`` are tests."""
    found = Sources()
    for part in sorted({path.parent for path in (folder, *folder.rglob("MR")) if path.name == "MR"}):
        masks = {case_name(path).lower(): path for path in list_volumes(part / "Mask")}
        for image in sorted(list_scans(part / "MR"), key=_by_number):
            match = re.fullmatch(r"case(\d+)", case_name(image), re.IGNORECASE)
            if match:
                test = part.name != "train"
                mask = masks.pop(f"mask_case{match[1]}", None)
                found.matched["mask_ and the image's name"] += mask is not None
                name = f"{part.name}_{match[1]}" if test else f"case_{match[1]}"
                found.cases.append(Source(image, mask, name, test=test))
        found.unmatched += masks.values()
    return found


def find_spider(folder: Path) -> Sources:
    """``images/12_t2.mha`` and ``masks/12_t2.mha``; T2 series only, all of one number are one patient."""
    found = Sources()
    masks = by_case(list_volumes(folder / "masks"))
    for image in sorted(list_scans(folder / "images"), key=_by_number):
        mask = masks.pop(case_name(image), None)
        match = re.fullmatch(r"(\d+)_(t2.*)", case_name(image), re.IGNORECASE)
        if match:
            found.matched[SAME_NAME] += mask is not None
            found.cases.append(Source(image, mask, f"spider_{match[0]}", f"spider_{match[1]}"))
    found.unmatched += masks.values()
    return found


def find_pairs(folder: Path) -> Sources:
    """Volumes in ``images`` or the folder itself, their labels in ``labels`` or beside them.

    Labels are named as the image, or end in one of ``LABEL_ENDINGS`` in addition. A Slicer segmentation is no image.
    """
    place = folder / "images" if (folder / "images").is_dir() else folder
    volumes = list_volumes(place)
    scans = {plain_name(path) for path in list_scans(place)}
    beside = [path for path in volumes if path not in list_scans(place) or _image_name(path) in scans]
    images = [path for path in volumes if path not in beside]
    labels = by_case([*list_volumes(folder / "labels"), *beside], plain_name)
    found = Sources()
    chosen: dict[Path, Path] = {}
    for ending in ("", *LABEL_ENDINGS):
        for image in images:
            label = labels.get(plain_name(image) + ending)
            if label is not None and image not in chosen and label not in chosen.values():
                chosen[image] = label
                found.matched[f"{SAME_NAME} and {ending}" if ending else SAME_NAME] += 1
    found.cases = [Source(image, chosen.get(image)) for image in images]
    found.unmatched = [path for path in labels.values() if path not in chosen.values()]
    return found


def _image_name(label: Path) -> str | None:
    """Return the name of the image that a label file is named after with an ending, None if it has none."""
    name = plain_name(label)
    return next((name.removesuffix(ending) for ending in LABEL_ENDINGS if name.endswith(ending)), None)


def find_dicom(folder: Path) -> Sources:
    """Every DICOM series in the folder and below."""
    found = Sources()
    folders = folders_below(folder)
    for number, below in enumerate(folders, start=1):
        where = f"folder {number} of {len(folders)} by name"
        try:
            found.cases += [Source(one, where=where, patient_key=one.patient) for one in find_series(below)]
        except CPS4Error as error:
            found.faults.append(CPS4Error(f"In {where}: {error.problem}", error.remedy))
    return found


FINDERS: dict[str, Callable[[Path], Sources]] = {
    "mrspineseg": find_mrspineseg,
    "spider": find_spider,
    "totalspineseg": find_pairs,
    "spineps": find_pairs,
    "folder": find_pairs,
    "dicom": find_dicom,
}


def _by_number(path: Path) -> tuple[int, str]:
    """Sort key: first number in the name, name."""
    numbers = re.findall(r"\d+", path.name)
    return int(numbers[0]) if numbers else 0, path.name
