"""The text maps of eq. 3, computed once for each unlabelled case and kept on disk.

Kept are the attention maps at token resolution and Otsu's thresholds, a hundredth of the size of the binary maps.
Upsampled and thresholded on the device, they give the same maps, warped along with an augmented image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.array_files import ArrayFiles
from CPS4Core.data.slices import SliceStore
from CPS4Core.events import Progress, Reporter
from CPS4Core.vision_language.maps import SLICES_AT_ONCE, TextMaps, text_maps
from CPS4Core.vision_language.model import ClassPromptModel


@dataclass(frozen=True)
class StoredMaps:
    """What is kept of the maps of some slices."""

    attention: Tensor
    """A, float32 in (0, 1), shape (slices, classes, h, w)."""
    thresholds: Tensor
    """Otsu's threshold of each map, float32, shape (slices, classes)."""


@dataclass(frozen=True)
class MapStore:
    """The attention maps and thresholds of cases."""

    arrays: ArrayFiles

    def attention(self, case: str, k: int) -> np.ndarray:
        """Return A of one slice, float32 in (0, 1), (classes, h, w)."""
        return self.arrays.read(case, "attention")[k].astype(np.float32)

    def thresholds(self, case: str, k: int) -> np.ndarray:
        """Return Otsu's threshold of each class on Up(A) of one slice, float32, (classes,)."""
        return np.array(self.arrays.read(case, "thresholds")[k])

    def stacked(self, slices: Sequence[tuple[str, int]]) -> StoredMaps:
        """Return what is kept of several slices."""
        pairs = ((self.attention(case, k), self.thresholds(case, k)) for case, k in slices)
        return StoredMaps(*(torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs, strict=True)))

    def maps(self, case: str, k: int, size: Sequence[int], least_peak: float) -> TextMaps:
        """Return the text maps of one slice of ``size``."""
        A, thresholds = (torch.from_numpy(read(case, k)) for read in (self.attention, self.thresholds))
        return text_maps(A, size, thresholds=thresholds, least_peak=least_peak)

    def binary_maps(self, case: str, slices: Iterable[int], size: Sequence[int], least_peak: float) -> Tensor:
        """Return y_text of eq. 3 of several slices of a case, bool, (slices, classes, H, W)."""
        return torch.stack([self.maps(case, k, size, least_peak).binary for k in slices])


@torch.inference_mode()
def compute_text_maps(
    model: ClassPromptModel,
    store: SliceStore,
    cases: Sequence[str],
    folder: Path,
    device: torch.device,
    report: Reporter,
    cancellation: Cancellation,
) -> MapStore:
    """Compute the text maps of ``cases`` that ``folder`` lacks; the encoders are frozen.

    Raises:
        Cancelled: if the user asked to stop; what is computed stays.
        CPS4Error: if the folder cannot be written.
    """
    model = model.to(device).eval()
    arrays = ArrayFiles(folder)
    F_T = model.prompt_tokens(model.class_prompts())
    cases = [case for case in cases if case in store.counts]  # those that could be read
    for done, case in enumerate(cases):
        cancellation.check()
        if not arrays.has(case, "thresholds"):
            attention, thresholds = _case_maps(model, F_T, store.images(case), device)
            arrays.write(case, "attention", attention)
            arrays.write(case, "thresholds", thresholds)
        report(Progress(done + 1, len(cases), "Text maps"))
    return MapStore(arrays)


def _case_maps(
    model: ClassPromptModel, F_T: Tensor, images: np.ndarray, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Return A, float16, (slices, classes, h, w), and the thresholds, float32, (slices, classes)."""
    attention, thresholds = [], []
    for chunk in torch.from_numpy(images).unsqueeze(1).split(SLICES_AT_ONCE):
        # Rounded first: the thresholds must belong to the maps as they will be read.
        A = model.attention(chunk.to(device), F_T).half()
        attention.append(A.cpu().numpy())
        thresholds.append(text_maps(A, images.shape[-2:]).thresholds.cpu().numpy())
    return np.concatenate(attention), np.concatenate(thresholds)
