"""From attention maps to class prompt guided segmentation maps (eq. 3).

y_text_i = OTSU(Up(F_I F_T,i^T)),   y_text = stack_i(y_text_i)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from skimage.filters import threshold_otsu
from torch import Tensor

from CPS4Core.class_table import BACKGROUND
from CPS4Core.data.augment import Augmentation
from CPS4Core.vision_language.model import ClassPromptModel

OTSU_BINS = 256
ABSENT = 2.0
"""Threshold of a class held to be absent: no attention reaches it."""
SLICES_AT_ONCE = 4


@dataclass(frozen=True)
class TextMaps:
    """What the class prompts say of slices (eq. 3)."""

    attention: Tensor
    """Up(A), float32 in (0, 1), shape (..., classes, H, W)."""
    thresholds: Tensor
    """Of each map, float32, shape (..., classes)."""
    binary: Tensor
    """y_text, bool, the shape of ``attention``."""

    @property
    def labels(self) -> Tensor:
        """The maps merged into labels, int64, shape (..., H, W)."""
        return merge_maps(self.binary, self.attention)

    @property
    def over_threshold(self) -> Tensor:
        """Up(A) over the threshold of its class, which makes classes comparable, the shape of ``attention``."""
        return self.attention / self.thresholds[..., None, None].clamp_min(torch.finfo(torch.float32).tiny)


def text_maps(
    A: Tensor,
    size: Sequence[int],
    *,
    thresholds: Tensor | None = None,
    least_peak: float = 0.0,
    change: Augmentation | None = None,
) -> TextMaps:
    """Return y_text_i = OTSU(Up(A_i)), A = F_I F_T^T, of each class prompt i (eq. 3).

    Args:
        A: attention maps, values in (0, 1), shape (..., classes, h, w). Each map is looked at alone.
        size: (H, W) of the slices.
        thresholds: Otsu's, shape (..., classes), where they are known: they take longest to find.
        least_peak: a class whose peak of A stays below counts as absent and its map is empty; 0: none does.
        change: augmentation of the slices, for A of shape (slices, classes, h, w): its warp upsamples too, and what
            comes from outside of a slice is in no map.
    """
    upsampled = upsample(A.float(), size) if change is None else change.attention(A)
    if thresholds is None:
        thresholds = otsu_thresholds(upsampled)
    thresholds = gate_absent(thresholds, A, least_peak)
    binary = upsampled > thresholds[..., None, None]
    if change is not None:
        binary &= change.inside.unsqueeze(1)
    return TextMaps(upsampled, thresholds, binary)


def upsample(attention: Tensor, size: Sequence[int]) -> Tensor:
    """Up of eq. 3, bilinear: (..., classes, h, w) to (..., classes, H, W)."""
    flat = attention.reshape(-1, 1, *attention.shape[-2:])
    return F.interpolate(flat, size=size, mode="bilinear", align_corners=False).reshape(
        *attention.shape[:-2], *size
    )


def otsu_thresholds(attention: Tensor) -> Tensor:
    """Return Otsu's threshold of each upsampled map, from 256 bins.

    Args:
        attention: Up(A), values in (0, 1), shape (..., classes, H, W).

    Returns:
        Thresholds, float32, shape (..., classes). A constant map gets its own value, so that nothing exceeds it. Otsu
        always finds a foreground in any other, even where the class is absent.
    """
    # In float32 a map that is all but constant has no room for the bins.
    maps = attention.detach().cpu().double().flatten(0, -3).numpy()
    thresholds = np.asarray([threshold_otsu(one, nbins=OTSU_BINS) for one in maps], dtype=np.float32)
    return torch.from_numpy(thresholds).to(attention.device).reshape(attention.shape[:-2])


def merge_maps(binary: Tensor, strength: Tensor, unmapped: int = BACKGROUND) -> Tensor:
    """Merge the binary maps of all classes into one label map.

    Where several maps are set, the class of the largest strength wins.

    Args:
        binary: y_text, bool, shape (..., classes, H, W).
        strength: Up(A), or Up(A) over its threshold, the same shape.
        unmapped: the label where no map is set.

    Returns:
        Labels, int64, shape (..., H, W).
    """
    strongest = strength.masked_fill(~binary, -torch.inf).argmax(-3)
    return torch.where(binary.any(-3), strongest, unmapped)


def gate_absent(thresholds: Tensor, attention: Tensor, least_peak: float) -> Tensor:
    """Return thresholds that leave the map of an absent class empty (setting ``presence_gate``).

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
    F_T = model.prompt_tokens(model.class_prompts())
    labels = []
    for images in torch.from_numpy(slices).unsqueeze(1).to(model.w.device).split(SLICES_AT_ONCE):
        A = model.attention(images, F_T)
        labels.append(text_maps(A, slices.shape[-2:], least_peak=least_peak).labels)
    return torch.cat(labels).to(torch.uint8).cpu().numpy()
