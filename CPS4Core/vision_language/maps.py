"""From attention maps to class prompt guided segmentation maps (eq. 3).

y_text_i = OTSU(Up(F_I F_T,i^T)),   y_text = stack_i(y_text_i)
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from skimage.filters import threshold_otsu
from torch import Tensor

from CPS4Core.class_table import BACKGROUND
from CPS4Core.vision_language.model import ClassPromptModel

OTSU_BINS = 256
ABSENT = 2.0
"""Threshold of a class held to be absent: no attention reaches it."""


def upsample(attention: Tensor, size: tuple[int, int]) -> Tensor:
    """Up of eq. 3, bilinear: (..., classes, h, w) to (..., classes, H, W)."""
    flat = attention.reshape(-1, 1, *attention.shape[-2:])
    return F.interpolate(flat, size=size, mode="bilinear", align_corners=False).reshape(
        *attention.shape[:-2], *size
    )


def otsu_thresholds(attention: Tensor) -> Tensor:
    """Return Otsu's threshold of each class's upsampled map, from 256 bins.

    Args:
        attention: Up(A), values in (0, 1), shape (classes, H, W).

    Returns:
        Thresholds, float32, shape (classes,). A constant map gets its own value, so that nothing exceeds it.
    """
    # In float32 a map that is all but constant has no room for the bins.
    maps = attention.detach().cpu().double().numpy()
    thresholds = [threshold_otsu(each, nbins=OTSU_BINS) for each in maps]
    return torch.from_numpy(np.asarray(thresholds, dtype=np.float32)).to(attention.device)


def binary_maps(attention: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the binary segmentation map of each class prompt (eq. 3).

    Args:
        attention: A of one image, values in (0, 1), shape (classes, h, w).
        size: (H, W) of the image.

    Returns:
        y_text, bool, shape (classes, H, W). Otsu always finds a foreground, even where the class is absent.
    """
    upsampled = upsample(attention.float(), size)
    return threshold_maps(upsampled, otsu_thresholds(upsampled))


def threshold_maps(attention: Tensor, thresholds: Tensor) -> Tensor:
    """Return where Up(A) (..., classes, H, W) exceeds the threshold (..., classes) of its class."""
    return attention > thresholds[..., None, None]


def merge_maps(binary: Tensor, attention: Tensor) -> Tensor:
    """Merge the binary maps of all classes into one label map.

    Where several maps are set, the class with the largest attention wins; where none is, it is background.

    Args:
        binary: y_text, bool, shape (..., classes, H, W).
        attention: Up(A), the same shape.

    Returns:
        Labels, int64, shape (..., H, W).
    """
    strongest = attention.masked_fill(~binary, -torch.inf).argmax(-3)
    return torch.where(binary.any(-3), strongest, BACKGROUND)


def gate_absent(thresholds: Tensor, attention: Tensor, least_peak: float) -> Tensor:
    """Return thresholds that leave the map of an absent class empty (option ``presence_gate``).

    A class counts as absent from the image where its peak attention stays below ``least_peak``. The peak tells
    presence only if stage 1 was trained with ``absent_classes``.

    Args:
        thresholds: shape (..., classes).
        attention: A or Up(A), shape (..., classes, h, w).
    """
    absent = attention.amax((-2, -1)) < least_peak
    return thresholds.masked_fill(absent, ABSENT)


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
    images = torch.from_numpy(slices).unsqueeze(1).to(device).split(8)
    attention = torch.cat([model.attention(each, F_T) for each in images])
    return merged_labels(attention, slices.shape[-2:], least_peak)


def merged_labels(attention: Tensor, size: tuple[int, int], least_peak: float) -> np.ndarray:
    merged = []
    for A in attention:
        upsampled = upsample(A, size)
        thresholds = gate_absent(otsu_thresholds(upsampled), A, least_peak)
        merged.append(merge_maps(threshold_maps(upsampled, thresholds), upsampled))
    return torch.stack(merged).to(torch.uint8).cpu().numpy()
