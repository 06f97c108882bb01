"""How far the text maps can be trusted, measured on the validation cases, which neither stage trains on.

Text maps that are wrong teach stage 2 what is wrong: with few labels, stage 1 may find the spine and not the level.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from CPS4Core.class_table import BACKGROUND, IGNORE, NUM_CLASSES
from CPS4Core.config import Settings, TrainSettings
from CPS4Core.segmentation.methods.method import TextTargets
from CPS4Core.training.inputs import TrainingInputs
from CPS4Core.training.map_store import MapStore
from CPS4Core.vision_language.maps import TextMaps, merge_maps


def trust_in(maps: MapStore, inputs: TrainingInputs, settings: Settings) -> Tensor:
    """Return the weight of each class's text maps as the settings want it; 1 where there is no validation case.

    Returns:
        float32, 0 to 1, shape (classes,).
    """
    cases, store = inputs.validation_cases, inputs.store
    if settings.train.text_trust == "full" or not cases:
        return torch.ones(NUM_CLASSES)
    size, least_peak = settings.input.size, settings.train.least_peak

    stacked = (maps.binary_maps(case, range(store.counts[case]), size, least_peak) for case in cases)
    labels = (store.labels(case) for case in cases)
    return measure_text_trust(stacked, labels, settings.train.least_trust)


def text_targets(maps: TextMaps, trust: Tensor, settings: TrainSettings) -> TextTargets:
    """Return what the text says of slices, as far as it is trusted.

    Args:
        maps: of the slices, shape (slices, classes, H, W).
        trust: in the maps of each class, 0 to 1, shape (classes,).
        settings: how maps are merged, and what is where none is set.
    """
    of_class = trust[:, None, None]
    trusted = maps.binary & (of_class > 0)
    strength = maps.attention if settings.merged_by == "attention" else maps.over_threshold
    labels = merge_maps(trusted, strength, BACKGROUND if settings.unmapped == "background" else IGNORE)
    return TextTargets(
        maps=maps.binary * of_class,
        labels=labels,
        trust=trust[labels.masked_fill(labels == IGNORE, BACKGROUND)],
        certainty=maps.attention * maps.binary * of_class,
    )


def measure_text_trust(
    stacked_maps: Iterable[Tensor], labels: Iterable[np.ndarray], least: float = 0.0
) -> Tensor:
    """Return the weight of each class's text maps: their Dice with the labels over all slices.

    The background's is the mean of the others: its own Dice is high for any map that avoids most of the spine, and
    would let it overrule every structure.

    Args:
        stacked_maps: for each case the binary maps of eq. 3, bool, shape (slices, classes, H, W).
        labels: of the same cases, shape (slices, H, W).
        least: a structure with less gets 0.

    Returns:
        float32, 0 to 1, shape (classes,).
    """
    shared, total = torch.zeros(NUM_CLASSES), torch.zeros(NUM_CLASSES)
    for maps, truth in zip(stacked_maps, labels, strict=True):
        known = torch.from_numpy(truth.astype(np.int64))
        for k in range(NUM_CLASSES):
            mask = known == k
            shared[k] += (maps[:, k] & mask).sum()
            total[k] += maps[:, k].sum() + mask.sum()
    trust = 2 * shared / total.clamp_min(1)
    trust[trust < least] = 0
    structures = [k for k in range(NUM_CLASSES) if k != BACKGROUND]
    trust[BACKGROUND] = trust[structures].mean()
    return trust
