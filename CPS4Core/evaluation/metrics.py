"""How well a segmentation agrees with its reference: overlap, surface distances, levels.

Arrays hold class labels; voxels that are ``IGNORE`` in the reference count for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

from CPS4Core.class_table import BACKGROUND, BY_LABEL, IGNORE, NUM_CLASSES


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of each class, arrays of length 20."""

    predicted: np.ndarray
    reference: np.ndarray
    both: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """Structures, as booleans a class, in the reference or the prediction; never the background."""
        present = (self.predicted + self.reference) > 0
        present[BACKGROUND] = False
        return present

    @property
    def dice(self) -> np.ndarray:
        """Dice of each class, 0 to 1; NaN where it is in neither."""
        with np.errstate(invalid="ignore"):
            return 2 * self.both / (self.predicted + self.reference)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, 0 to 1; NaN where it is in neither."""
        with np.errstate(invalid="ignore"):
            return self.both / (self.predicted + self.reference - self.both)


def overlap(prediction: np.ndarray, reference: np.ndarray) -> Overlap:
    """Count the voxels of each class in the prediction, in the reference and in both."""
    table = confusion(prediction, reference)
    return Overlap(table.sum(0), table.sum(1), np.diagonal(table).copy())


def confusion(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return voxel counts (reference class, predicted class), shape (20, 20)."""
    known = reference != IGNORE
    pairs = reference[known].astype(np.int64) * NUM_CLASSES + prediction[known]
    return np.bincount(pairs, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def mean_scores(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Return mDice and mIoU, 0 to 1, of (prediction, reference) volumes.

    The mean goes over the structures present in the reference or the prediction, then over volumes. A volume
    without any structure in either counts as right.
    """
    dice, iou = [], []
    for prediction, reference in pairs:
        counts = overlap(prediction, reference)
        dice.append(counts.dice[counts.present].mean() if counts.present.any() else 1.0)
        iou.append(counts.iou[counts.present].mean() if counts.present.any() else 1.0)
    return float(np.mean(dice)), float(np.mean(iou))


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between the surfaces of one structure, in mm."""

    hausdorff95: float
    """95 % Hausdorff distance: the larger of the two directions' 95th percentiles."""
    average: float
    """Average symmetric surface distance."""


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]
) -> SurfaceDistances | None:
    """Return the surface distances of two masks, or None where one is empty.

    Args:
        prediction: bool, any number of axes; those of length 1 have no surface across them.
        reference: bool, the same shape.
        spacing: voxel size along each array axis, in mm.
    """
    if not (prediction.any() and reference.any()):
        return None
    flat = tuple(axis for axis, length in enumerate(reference.shape) if length == 1)
    spacing = tuple(np.delete(spacing, flat))
    (box,) = find_objects((prediction | reference).astype(np.uint8))
    masks = [np.pad(mask[box].squeeze(flat), 1) for mask in (prediction, reference)]
    surfaces = [mask & ~binary_erosion(mask) for mask in masks]
    ours, theirs = (
        distance_transform_edt(~other, sampling=spacing)[mine] for mine, other in (surfaces, surfaces[::-1])
    )
    return SurfaceDistances(
        hausdorff95=float(max(np.percentile(ours, 95), np.percentile(theirs, 95))),
        average=float((ours.sum() + theirs.sum()) / (len(ours) + len(theirs))),
    )


@dataclass(frozen=True)
class LevelAgreement:
    """Whether structures carry the right name."""

    right: int
    """Structures of the reference whose best overlapping predicted structure has their name."""
    total: int
    """Structures of the reference."""
    shift: int | None
    """Levels by which the whole prediction is shifted: 0 if right, +1 if every structure carries the name of the
    one below it; None where structures are shifted by different amounts."""

    @property
    def accuracy(self) -> float:
        """Share of structures with the right name, 0 to 1; NaN without any."""
        return self.right / self.total if self.total else float("nan")


def level_agreement(prediction: np.ndarray, reference: np.ndarray) -> LevelAgreement:
    """Compare the names of structures: each reference structure with the predicted one that overlaps it most.

    A structure that no predicted structure overlaps counts as wrong.
    """
    found = names_found(prediction, reference)
    right = sum(label == name for label, name in found.items())
    pairs = [(BY_LABEL[label], BY_LABEL[name]) for label, name in found.items() if name is not None]
    shifts = {true.level - said.level for true, said in pairs if true.is_disc == said.is_disc}
    return LevelAgreement(right, len(found), shifts.pop() if len(shifts) == 1 else None)


def names_found(prediction: np.ndarray, reference: np.ndarray) -> dict[int, int | None]:
    """Return, for each structure of the reference, the label of the predicted one that overlaps it most.

    None where no predicted structure overlaps it.
    """
    table = confusion(prediction, reference)[1:]
    present = np.flatnonzero(table.sum(1)) + 1
    table = table[:, 1:]
    return {
        int(label): int(table[label - 1].argmax()) + 1 if table[label - 1].any() else None
        for label in present
    }
