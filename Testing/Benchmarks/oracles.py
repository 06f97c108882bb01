"""The ceiling of the token grid: what perfect attention would give."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from CPS4Core.class_table import NUM_CLASSES
from CPS4Core.vision_language.maps import text_maps


def oracle_labels(labels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return what eq. 3 makes of perfect attention: each class's share of every patch, upsampled, Otsu, merged.

    No attention map on this grid can be expected to do better.

    Args:
        labels: true labels of a case on the canvas, (slices, AP, SI).
        grid: (h, w) of the attention map.

    Returns:
        Labels, uint8, the same shape.
    """
    maps = text_maps(oracle_attention(labels, grid), labels.shape[-2:])
    return maps.labels.to(torch.uint8).numpy()


def oracle_attention(labels: np.ndarray, grid: tuple[int, int]) -> torch.Tensor:
    """Return perfect attention: each class's share of every patch, float32, (slices, classes, h, w).

    Args:
        labels: true labels of a case on the canvas, (slices, AP, SI).
        grid: (h, w) of the attention map.
    """
    truth = F.one_hot(torch.from_numpy(labels.astype(np.int64)), NUM_CLASSES).movedim(-1, 1).float()
    return F.adaptive_avg_pool2d(truth, grid)
