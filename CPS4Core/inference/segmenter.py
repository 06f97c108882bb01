"""From a volume to its labels, on the volume's own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from CPS4Core.anatomy import NUM_CLASSES
from CPS4Core.cancellation import Cancellation
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter, Warned, silent
from CPS4Core.inference.level_order import relabel_by_order
from CPS4Core.model_folder import card_settings, load_network, read_card
from CPS4Core.training.devices import choose_precision, memory_format

SLICES_AT_ONCE = {"cuda": 16, "mps": 8, "cpu": 4}
"""Slices in one forward pass: as many as keep the device busy."""


@dataclass(frozen=True)
class Segmentation:
    """What the network says of one volume."""

    labels: sitk.Image
    """Class labels, uint8, on the grid of the volume."""
    confidence: dict[int, float]
    """Mean softmax probability of each structure over its own voxels, 0 to 1."""


class Segmenter:
    """A segmentation network, loaded once for many volumes.

    Args:
        model_folder: a model that ``cps4 train`` made.
        device: where to compute.
        report: receives warnings.

    Raises:
        CPS4Error: if the folder holds no usable model.
    """

    def __init__(self, model_folder: Path, device: torch.device, report: Reporter = silent):
        self.settings = card_settings(read_card(model_folder))
        self.device = device
        self.report = report
        self.network = load_network(model_folder).to(device, memory_format=memory_format(device))
        self._at_once = SLICES_AT_ONCE[device.type]

    def segment(
        self,
        image: sitk.Image,
        *,
        level_order: bool = False,
        cancellation: Cancellation | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Segmentation:
        """Segment a volume.

        Args:
            image: a scalar volume, any orientation.
            level_order: relabel the structures so that the levels follow the fixed order of the spine.
            cancellation: tells when to stop.
            progress: called with the slices done and their number.

        Raises:
            Cancelled: if the user asked to stop.
            CPS4Error: if the device's memory does not suffice for one slice.
        """
        grid = SliceGrid.of(image, self.settings.input, whole=True)
        slices = torch.from_numpy(grid.to_slices(image)).unsqueeze(1)
        chunks = []
        for chunk in self._forward(slices, cancellation):
            chunks.append(chunk)
            progress(sum(len(logits) for logits, *_ in chunks), len(slices))
        logits, labels, certainty = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        if level_order:
            ordered = relabel_by_order(labels)
            logits, labels = _exchange_levels(logits, labels, ordered), ordered
        return Segmentation(grid.labels_from_slices(logits), _mean_by_label(certainty, labels))

    @torch.inference_mode()
    def _forward(self, slices: Tensor, cancellation: Cancellation | None) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield logits (n, classes, AP, SI), labels and their softmax (n, AP, SI), a few slices at a time."""
        done = 0
        while done < len(slices):
            if cancellation is not None:
                cancellation.check()
            chunk = slices[done : done + self._at_once]
            try:
                logits = self._logits(chunk)
                highest, labels = logits.max(1)
                certainty = (highest - logits.logsumexp(1)).exp()
            except torch.OutOfMemoryError:
                self._use_less_memory()
                continue
            done += len(chunk)
            yield logits.cpu().numpy(), labels.to(torch.uint8).cpu().numpy(), certainty.cpu().numpy()

    def _logits(self, slices: Tensor) -> Tensor:
        precision = choose_precision(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return self.network(slices.to(self.device, memory_format=memory_format(self.device))).float()

    def _use_less_memory(self) -> None:
        """Take fewer slices at once, and in the end the CPU."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._at_once > 1:
            self._at_once //= 2
        elif self.device.type != "cpu":
            self.report(
                Warned("Not enough GPU memory for one slice: going on with the CPU, which is slower.")
            )
            self.device = torch.device("cpu")
            self.network.to(self.device)
        else:
            raise CPS4Error(
                "The memory does not suffice for one slice.", "Close other programs, or use a smaller volume."
            )


def _mean_by_label(certainty: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Return the mean certainty of each structure over its voxels."""
    counts = np.bincount(labels.ravel(), minlength=NUM_CLASSES)
    sums = np.bincount(labels.ravel(), certainty.ravel(), minlength=NUM_CLASSES)
    return {label: float(sums[label] / counts[label]) for label in range(1, NUM_CLASSES) if counts[label]}


def _exchange_levels(logits: np.ndarray, labels: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Exchange the logits of the old and the new label wherever a voxel was relabelled."""
    logits = logits.copy()
    k, i, j = np.nonzero(labels != ordered)
    old, new = labels[k, i, j], ordered[k, i, j]
    logits[k, old, i, j], logits[k, new, i, j] = logits[k, new, i, j], logits[k, old, i, j]
    return logits
