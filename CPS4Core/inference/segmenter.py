"""From a volume to its labels, on the volume's own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import SimpleITK as sitk
import torch
from torch import Tensor

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import NETWORK
from CPS4Core.class_table import BACKGROUND, NUM_CLASSES
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.devices import choose_precision, is_out_of_memory, memory_format, move
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter, Warned, silent
from CPS4Core.inference.kinds import certainty_of, kinds_of, names_of, scores_of
from CPS4Core.model_folder import ModelFolder
from CPS4Core.naming import Levels
from CPS4Core.naming.name import name_levels

T = TypeVar("T")
OnSlices = Callable[[int, int], None]
"""Called with the slices done and their number."""

PIXELS_AT_ONCE = {"cuda": 2**21, "mps": 2**20, "cpu": 2**17}
"""Pixels in one forward pass, in whole slices: as many as keep the device busy, and on the CPU in its cache."""


@dataclass(frozen=True)
class SegmentedVolume:
    """What the network says of one volume."""

    labels: sitk.Image
    """Class labels, uint8, on the grid of the volume."""
    confidence: dict[int, float]
    """Probability of each structure, 0 to 1, mean over its own voxels: softmax of its class; where levels are counted,
    of its kind, times that of its name."""
    doubts: tuple[str, ...] = ()
    """What to tell the user of the levels, in sentences."""


class Segmenter:
    """A segmentation network, loaded once for many volumes.

    Args:
        model: one that ``cps4 train`` made.
        device: where to compute.
        report: receives warnings.
        part: which of the model's networks, ``NETWORK`` or ``TEACHER``.

    Raises:
        CPS4Error: if the model has no such part, or a damaged one.
    """

    def __init__(
        self, model: ModelFolder, device: torch.device, report: Reporter = silent, part: str = NETWORK
    ):
        self.input = model.input
        self.device = device
        self.report = report
        self.sha256 = model.sha256(part)  # of the weights, by the card
        self.network = model.load_network(part)
        move(self.network, device, memory_format(device, training=False))
        self._pixels_at_once = PIXELS_AT_ONCE[device.type]

    def segment(
        self,
        image: sitk.Image,
        *,
        levels: Levels = "counted",
        cancellation: Cancellation | None = None,
        progress: OnSlices = lambda done, total: None,
    ) -> SegmentedVolume:
        """Segment a volume.

        Args:
            image: a scalar volume, any orientation.
            levels: name structures by counting along the spine, or as the network sees each pixel.
            cancellation: tells when to stop.
            progress: called with the slices done and their number.

        Raises:
            Cancelled: if the user asked to stop.
            CPS4Error: if the device's memory does not suffice for one slice.
        """
        grid = SliceGrid.of(image, self.input, whole=True)
        slices = torch.from_numpy(grid.to_slices(image)).unsqueeze(1)
        find = self._counted if levels == "counted" else self._as_seen
        return find(grid, slices, cancellation, progress)

    def _as_seen(
        self, grid: SliceGrid, slices: Tensor, cancellation: Cancellation | None, progress: OnSlices
    ) -> SegmentedVolume:
        def look(logits: Tensor, _: slice) -> tuple[Tensor, Tensor, Tensor]:
            best, labels = logits.max(1)
            labels = labels.byte()
            structures = labels != BACKGROUND
            certainty = (best[structures] - logits.movedim(1, -1)[structures].logsumexp(-1)).exp()
            return labels.cpu(), certainty.cpu(), grid.labels_from_slices(logits, labels).cpu()

        labels, certainty, result = self._look_at_all(slices, look, cancellation, progress)
        structures = labels != BACKGROUND
        return SegmentedVolume(grid.to_image(result.numpy()), _mean_by_label(certainty, labels[structures]))

    def _counted(
        self, grid: SliceGrid, slices: Tensor, cancellation: Cancellation | None, progress: OnSlices
    ) -> SegmentedVolume:
        def look(logits: Tensor, _: slice) -> tuple[Tensor, Tensor, Tensor]:
            kinds = kinds_of(logits)
            labels = names_of(logits, kinds)
            votes = grid.crop(logits.softmax(1)).movedim(1, -1)[grid.crop(labels) != BACKGROUND, 1:]
            return labels.cpu(), votes.cpu(), kinds.cpu()

        labels, votes, kinds = self._look_at_all(slices, look, cancellation, progress)
        naming = name_levels(grid.crop(labels.numpy()), grid.spacing_mm, votes.numpy())
        named = torch.zeros_like(labels)
        grid.crop(named.numpy())[:] = naming.labels

        at_once = self.slices_at_once(slices)
        pairs = zip(kinds.split(at_once), named.split(at_once), strict=True)
        result = torch.cat([grid.labels_from_slices(scores_of(*pair), pair[1]) for pair in pairs])
        # Between two slices' scores a name can arise that no voxel of the canvas has.
        result = result.masked_fill(~torch.isin(result, named.unique()), BACKGROUND)
        structures = named != BACKGROUND
        confidence = _mean_by_label(certainty_of(kinds, named), named[structures])
        confidence = {label: value * naming.certainty(label) for label, value in confidence.items()}
        return SegmentedVolume(grid.to_image(result.numpy()), confidence, naming.doubts)

    def _look_at_all(
        self,
        slices: Tensor,
        look: Callable[[Tensor, slice], tuple[Tensor, ...]],
        cancellation: Cancellation | None,
        progress: OnSlices,
    ) -> tuple[Tensor, ...]:
        """Return what ``look`` makes of the logits of all slices."""
        chunks = []
        for chunk in self.forward(slices, look, cancellation):
            chunks.append(chunk)
            progress(sum(len(labels) for labels, *_ in chunks), len(slices))
        return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))

    def slices_at_once(self, slices: Tensor) -> int:
        """Return how many of the slices (n, 1, AP, SI) go through the network together."""
        return max(1, self._pixels_at_once // slices[0].numel())

    @torch.inference_mode()
    def forward(
        self, slices: Tensor, then: Callable[[Tensor, slice], T], cancellation: Cancellation | None
    ) -> Iterator[T]:
        """Run the network on standardised slices (n, 1, AP, SI), a few at a time.

        Yields:
            What ``then`` makes of the logits (few, classes, AP, SI) and the place of their slices.

        Raises:
            Cancelled: if the user asked to stop.
            CPS4Error: if the device's memory does not suffice for one slice.
        """
        done = 0
        while done < len(slices):
            if cancellation is not None:
                cancellation.check()
            place = slice(done, done + self.slices_at_once(slices))
            chunk = slices[place]
            try:
                made = then(self._logits(chunk), place)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._use_less_memory(chunk)
                continue
            done += len(chunk)
            yield made

    def _logits(self, slices: Tensor) -> Tensor:
        precision = choose_precision(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            layout = memory_format(self.device, training=False)
            return self.network(slices.to(self.device, memory_format=layout)).float()

    def _use_less_memory(self, chunk: Tensor) -> None:
        """Take fewer slices at once than in ``chunk``, and in the end the CPU."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(chunk) > 1:
            self._pixels_at_once = chunk.numel() // 2
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


def _mean_by_label(certainty: Tensor, labels: Tensor) -> dict[int, float]:
    """Return the mean certainty of each structure over its voxels."""
    counts = torch.bincount(labels, minlength=NUM_CLASSES)
    sums = torch.bincount(labels, certainty, minlength=NUM_CLASSES)
    return {label: float(sums[label] / counts[label]) for label in range(1, NUM_CLASSES) if counts[label]}
