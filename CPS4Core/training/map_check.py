"""What the class prompt maps of stage 1 are worth by themselves, before stage 2 learns from them.

Raw maps that do not fit the training patients are not trained enough. Where they fit those and no new ones, or where
their names stay in place while the anatomy is shifted, stage 1 has learnt where on the canvas a name is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from CPS4Core.class_table import BACKGROUND, BONES
from CPS4Core.evaluation.metrics import mean_scores
from CPS4Core.training.inputs import TrainingInputs
from CPS4Core.vision_language.losses import token_masks
from CPS4Core.vision_language.maps import text_labels, text_maps
from CPS4Core.vision_language.model import ClassPromptModel

MOST_CASES = 4
"""Of each kind that are looked at."""
USUAL_LEVEL = 1 / 12
"""Height of a level as a share of the slice, where the labels show no two neighbours."""


def judge_maps(model: ClassPromptModel, inputs: TrainingInputs) -> dict[str, float]:
    """Return the go or no-go of stage 1, all values 0 to 1.

    ``maps_training`` and ``maps_new``: mDice of the raw maps (eq. 3, merged) of some training patients and of the
    validation patients; ``maps_ceiling``: what perfect maps on the same tokens would reach on the training patients;
    ``names_follow_canvas`` and ``names_follow_anatomy``: see ``shift_test``.

    Args:
        model: trained encoders.
        inputs: the data they were trained on.
    """

    def named(images: np.ndarray) -> np.ndarray:
        return text_labels(model, images)

    store = inputs.store
    training = [case for case in inputs.split.labelled if case in store.counts][:MOST_CASES]
    new = inputs.validation_cases[:MOST_CASES]
    shifted = new or training
    grid = model.vision.grid(store.image(*store.slices_of(training)[0]).shape)
    found = {
        "maps_training": _mdice(named, inputs, training),
        "maps_ceiling": ceiling([store.labels(case) for case in training], grid),
    }
    if new:
        found["maps_new"] = _mdice(named, inputs, new)
    canvas, anatomy = shift_test(
        named, [store.images(case) for case in shifted], [store.labels(case) for case in shifted]
    )
    return {**found, "names_follow_canvas": canvas, "names_follow_anatomy": anatomy}


def ceiling(labels: Sequence[np.ndarray], grid: tuple[int, int]) -> float:
    """Return the mDice of perfect maps: the share of each token that each class covers, by eq. 3.

    Args:
        labels: of each case, (slices, AP, SI).
        grid: (h, w) of the tokens.
    """
    pairs = []
    for truth in labels:
        share, _ = token_masks(torch.from_numpy(truth), grid, "share")
        pairs.append((text_maps(share, truth.shape[-2:]).labels.numpy(), truth))
    return mean_scores(pairs)[0]


def shift_test(
    named: Callable[[np.ndarray], np.ndarray], images: Sequence[np.ndarray], labels: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Return how far names stay in place, and how far they move along, when slices are shifted by one level.

    Both are shares of the pixels that are some structure in both namings that are compared: that of the shifted slice
    with that of the slice itself, left in place or shifted.

    Args:
        named: gives slices, float32, (slices, AP, SI), their labels.
        images: of each case.
        labels: of the same cases, to know how high a level is.
    """
    same, kept = np.zeros(2), np.zeros(2)
    for slices, truth in zip(images, labels, strict=True):
        pixels = level_height(truth)
        before, after = named(slices), named(_shifted(slices, pixels, slices.min()))
        for k, compared in enumerate((before, _shifted(before, pixels, BACKGROUND))):
            both = (compared != BACKGROUND) & (after != BACKGROUND)
            both[..., :pixels] = False  # here nothing came from within the slice
            same[k] += (compared == after)[both].sum()
            kept[k] += both.sum()
    canvas, anatomy = same / np.maximum(kept, 1)
    return float(canvas), float(anatomy)


def level_height(labels: np.ndarray) -> int:
    """Return the usual distance of neighbouring vertebrae along the spine, in pixels.

    Args:
        labels: of a case, (slices, AP, SI).
    """
    present = [bone.label for bone in BONES if (labels == bone.label).any()]
    centres = {label: np.nonzero(labels == label)[-1].mean() for label in present}
    distances = [abs(centres[label] - centres[label + 1]) for label in present if label + 1 in centres]
    return max(1, round(float(np.median(distances)) if distances else USUAL_LEVEL * labels.shape[-1]))


def _mdice(named: Callable[[np.ndarray], np.ndarray], inputs: TrainingInputs, cases: Sequence[str]) -> float:
    return mean_scores((named(inputs.store.images(case)), inputs.store.labels(case)) for case in cases)[0]


def _shifted(slices: np.ndarray, pixels: int, outside: float) -> np.ndarray:
    """Return slices moved towards the end of their last axis."""
    moved = np.full_like(slices, outside)
    moved[..., pixels:] = slices[..., :-pixels]
    return moved
