"""What the text alone can give: the oracle ceiling of the token grid, and the raw text maps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F

from CPS4Core.class_table import NUM_CLASSES
from CPS4Core.vision_language.maps import gate_absent, merge_maps, otsu_thresholds, threshold_maps, upsample
from CPS4Core.vision_language.model import ClassPromptModel


def oracle_labels(labels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return what eq. 3 makes of perfect attention: each class's share of every patch, upsampled, Otsu, merged.

    No attention map on this grid can be expected to do better.

    Args:
        labels: true labels of a case on the canvas, (slices, AP, SI).
        grid: (h, w) of the attention map.

    Returns:
        Labels, uint8, the same shape.
    """
    return _merged(oracle_attention(labels, grid), labels.shape[-2:], least_peak=0.0)


def oracle_attention(labels: np.ndarray, grid: tuple[int, int]) -> torch.Tensor:
    """Return perfect attention: each class's share of every patch, float32, (slices, classes, h, w).

    Args:
        labels: true labels of a case on the canvas, (slices, AP, SI).
        grid: (h, w) of the attention map.
    """
    truth = F.one_hot(torch.from_numpy(labels.astype(np.int64)), NUM_CLASSES).movedim(-1, 1).float()
    return F.adaptive_avg_pool2d(truth, grid)


@torch.inference_mode()
def text_labels(model: ClassPromptModel, slices: np.ndarray, least_peak: float = 0.0) -> np.ndarray:
    """Return the merged text maps (eq. 3) of a case.

    Args:
        model: trained encoders, on the CPU or another device.
        slices: standardised slices, float32, (slices, AP, SI).
        least_peak: the presence gate; 0 leaves every map as it is.

    Returns:
        Labels, uint8, the same shape.
    """
    device = model.w.device
    F_T = model.prompt_tokens(model.class_prompts())
    images: Iterable[torch.Tensor] = torch.from_numpy(slices).unsqueeze(1).to(device).split(8)
    attention = torch.cat([model.attention(each, F_T) for each in images])
    return _merged(attention, slices.shape[-2:], least_peak)


def _merged(attention: torch.Tensor, size: tuple[int, int], least_peak: float) -> np.ndarray:
    merged = []
    for A in attention:
        upsampled = upsample(A, size)
        thresholds = gate_absent(otsu_thresholds(upsampled), A, least_peak)
        merged.append(merge_maps(threshold_maps(upsampled, thresholds), upsampled))
    return torch.stack(merged).to(torch.uint8).cpu().numpy()
