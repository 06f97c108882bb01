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
from CPS4Core.data.best_classes import scores_in
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.devices import choose_precision, is_out_of_memory, memory_format, move
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter, Warned, silent
from CPS4Core.model_folder import ModelFolder
from CPS4Core.naming import Levels
from CPS4Core.segmentation.batch_norm import fold_batch_norms
from CPS4Core.segmentation.counting import Seen, count_levels
from CPS4Core.segmentation.kinds import KindMap, certainty_of, near_structures, scores_of

T = TypeVar("T")
OnSlices = Callable[[int, int], None]
"""Called with the slices done and their number."""

PIXELS_AT_ONCE = {"cuda": 2**21, "mps": 2**20, "cpu": 2**18}
"""Pixels in one forward pass, in whole slices: as many as keep the device busy, and on the CPU in its cache."""
BACK_AT_ONCE = 16
"""Slices whose labels are brought back to the volume together."""


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
        self.report = report
        self.sha256 = model.sha256(part)  # of the weights, by the card
        self.network = fold_batch_norms(model.load_network(part))
        self._compute_on(device)
        self._pixels_at_once = PIXELS_AT_ONCE[device.type]

    def _compute_on(self, device: torch.device) -> None:
        self.device = device
        self._dtype = torch.bfloat16 if choose_precision(device) == "bf16" else torch.float32
        self._layout = memory_format(device, training=False)
        move(self.network, device, self._layout)
        self.network.to(self._dtype)

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
        def look(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            near = near_structures(logits)
            certainty, names = logits.movedim(1, -1)[near].float().softmax(1).max(1)
            labels, structures = near.byte(), names != BACKGROUND
            labels[near] = names.byte()
            result = grid.labels_from_slices(scores_in(logits), labels)
            return result.cpu(), names[structures].cpu(), certainty[structures].cpu()

        parts = self._look_at_all(slices, look, cancellation, progress)
        result, labels, certainty = (torch.cat(kept) for kept in zip(*parts, strict=True))
        return SegmentedVolume(grid.to_image(result.numpy()), _mean_by_label(certainty, labels))

    def _counted(
        self, grid: SliceGrid, slices: Tensor, cancellation: Cancellation | None, progress: OnSlices
    ) -> SegmentedVolume:
        seen = Seen.joined(self._look_at_all(slices, Seen.of, cancellation, progress))
        named, naming = count_levels(seen, grid)

        kind_map = KindMap(seen.near, seen.kinds)
        present = torch.bincount(named.flatten(), minlength=NUM_CLASSES) > 0
        result = []
        for start in range(0, len(named), BACK_AT_ONCE):
            few = named[start : start + BACK_AT_ONCE]

            def scores_at(k: Tensor, i: Tensor, j: Tensor, start: int = start, few: Tensor = few) -> Tensor:
                return scores_of(kind_map.at((start + k, i, j)), few[k, i, j], present)

            result.append(grid.labels_from_slices(scores_at, few))
        where = named.nonzero(as_tuple=True)
        confidence = _mean_by_label(certainty_of(kind_map.at(where), named[where]), named[where])
        confidence = {label: value * naming.certainty(label) for label, value in confidence.items()}
        return SegmentedVolume(grid.to_image(torch.cat(result).numpy()), confidence, naming.doubts)

    def _look_at_all(
        self,
        slices: Tensor,
        look: Callable[[Tensor], T],
        cancellation: Cancellation | None,
        progress: OnSlices,
    ) -> list[T]:
        """Return what ``look`` makes of the logits of all slices, a few slices at a time."""
        parts = []
        for done, part in self.forward(
            slices, lambda logits, place: (place.stop, look(logits)), cancellation
        ):
            parts.append(part)
            progress(min(done, len(slices)), len(slices))
        return parts

    def slices_at_once(self, slices: Tensor) -> int:
        """Return how many of the slices (n, 1, AP, SI) go through the network together."""
        return max(1, self._pixels_at_once // slices[0].numel())

    @torch.inference_mode()
    def forward(
        self, slices: Tensor, then: Callable[[Tensor, slice], T], cancellation: Cancellation | None
    ) -> Iterator[T]:
        """Run the network on standardised slices (n, 1, AP, SI), a few at a time.

        Yields:
            What ``then`` makes of the logits (few, classes, AP, SI), in the device's precision, and the place of
            their slices.

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
            fits = True
            try:
                made = then(self._logits(chunk), place)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                fits = False
            if fits:
                done += len(chunk)
                yield made
            else:  # not above, where the error still holds what was computed
                self._use_less_memory(chunk)

    def _logits(self, slices: Tensor) -> Tensor:
        return self.network(slices.to(self.device, self._dtype, memory_format=self._layout))

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
            self._compute_on(torch.device("cpu"))
        else:
            raise CPS4Error(
                "The memory does not suffice for one slice.", "Close other programs, or use a smaller volume."
            )


def _mean_by_label(certainty: Tensor, labels: Tensor) -> dict[int, float]:
    """Return the mean certainty of each structure over its voxels."""
    counts = torch.bincount(labels, minlength=NUM_CLASSES)
    sums = torch.bincount(labels, certainty, minlength=NUM_CLASSES)
    return {label: float(sums[label] / counts[label]) for label in range(1, NUM_CLASSES) if counts[label]}
