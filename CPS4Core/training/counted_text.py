"""The levels of unlabelled volumes, counted along the spine by teacher and text together. Beyond the paper.

A pixel by itself tells bone from disc far better than L3 from L4. Counted, a volume's names are right or wrong as a
whole, and where the counting is unsure nothing is said. The counted labels stand for the text maps in eq. 6 and 7.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from CPS4Core.class_table import BACKGROUND, IGNORE, NUM_CLASSES
from CPS4Core.data.array_files import ArrayFiles
from CPS4Core.events import Progress
from CPS4Core.naming.name import Naming
from CPS4Core.segmentation.counting import Seen, count_levels
from CPS4Core.segmentation.kinds import certainty_of
from CPS4Core.segmentation.losses import one_hot_where_known
from CPS4Core.segmentation.methods.method import TextTargets
from CPS4Core.training.inputs import TrainingInputs
from CPS4Core.training.map_store import MapStore
from CPS4Core.training.run import Run
from CPS4Core.vision_language.maps import SLICES_AT_ONCE

LEAST_NAME = 0.5
"""Least probability of a structure's name; where the sacrum is not in view, none is above."""
LABELS = "labels"


class LevelCounter:
    """Counts the levels of the unlabelled cases, and keeps the labels beside their text maps.

    Args:
        run: settings, device, processes.
        inputs: the cases.
        maps: their text maps.
        trust: in the maps of each class, 0 to 1, shape (classes,).
    """

    def __init__(self, run: Run, inputs: TrainingInputs, maps: MapStore, trust: Tensor):
        self.run = run
        self.inputs = inputs
        self.maps = maps
        self.trust = trust.cpu()
        self.folder = maps.arrays.folder / "counted"
        self.cases = [case for case in inputs.split.unlabelled if case in inputs.store.counts]
        self.number: int | None = None
        """Of the last counting."""

    @torch.inference_mode()
    def count(self, number: int, teacher: nn.Module) -> None:
        """Count anew, or take up what the folder has of this counting; several processes share the cases.

        Args:
            number: of the counting; one that is repeated after a stop finds the same teacher.
            teacher: network in evaluation mode.

        Raises:
            Cancelled: if the user asked to stop; what is counted stays.
        """
        arrays = self._arrays(number)
        accelerator = self.run.accelerator
        mine = self.cases[accelerator.process_index :: accelerator.num_processes]
        for done, case in enumerate(mine, start=1):
            if accelerator.num_processes == 1:  # of several, none may leave the others waiting
                self.run.cancellation.check()
            if not arrays.has(case, LABELS):
                arrays.write(case, LABELS, self._counted(case, teacher))
            self.run.folder.report(Progress(done, len(mine), "Counting levels"))
        accelerator.wait_for_everyone()
        self.number = number

    def labels(self, slices: Sequence[tuple[str, int]]) -> Tensor:
        """Return the labels of slices by the last counting, uint8, (slices, AP, SI).

        ``IGNORE`` where unsure: everywhere before the first counting.
        """
        if self.number is None:
            return torch.full((len(slices), *self.run.settings.input.size), IGNORE, dtype=torch.uint8)
        arrays = self._arrays(self.number)
        return torch.from_numpy(np.stack([arrays.read(case, LABELS)[k] for case, k in slices]))

    def _arrays(self, number: int) -> ArrayFiles:
        """Return what is kept of a counting."""
        return ArrayFiles(self.folder / f"{number:03d}")

    def _counted(self, case: str, teacher: nn.Module) -> np.ndarray:
        images = torch.from_numpy(self.inputs.store.images(case)).unsqueeze(1)
        parts, start = [], 0
        for few in images.split(SLICES_AT_ONCE):
            with self.run.accelerator.autocast():
                z_t = teacher(few.to(self.run.device)).float().cpu()
            y_text = self._text(case, range(start, start + len(few)))
            parts.append(Seen.of(z_t + y_text))  # as in eq. 7
            start += len(few)
        seen_of_all = Seen.joined(parts)
        named, naming = count_levels(seen_of_all, self.inputs.grid(case, self.run.settings.input))
        return sure_labels(seen_of_all, named, naming, self.run.settings.train.confidence).numpy()

    def _text(self, case: str, slices: Sequence[int]) -> Tensor:
        """Return y_text of eq. 3, as far as it is trusted, float32, (slices, classes, AP, SI)."""
        size, least_peak = self.run.settings.input.size, self.run.settings.train.least_peak
        return self.maps.binary_maps(case, slices, size, least_peak) * self.trust[:, None, None]


def sure_labels(seen: Seen, named: Tensor, naming: Naming, least_kind: float) -> Tensor:
    """Return counted labels with ``IGNORE`` where the kind of a pixel or the name of a structure is unsure.

    Args:
        seen: of the volume.
        named: its counted labels, uint8, (slices, AP, SI).
        naming: how sure they are.
        least_kind: least probability of the kind that a pixel was given, 0 to 1.
    """
    labels = named.clone()
    of_near = named[seen.near]
    labels[seen.near] = of_near.masked_fill(certainty_of(seen.kinds, of_near) < least_kind, IGNORE)
    for label in named.unique().tolist():
        if label != BACKGROUND and naming.certainty(label) < LEAST_NAME:
            labels[named == label] = IGNORE
    return labels


def counted_targets(labels: Tensor) -> TextTargets:
    """Return counted labels (slices, H, W), int64, in the place of text maps."""
    maps = one_hot_where_known(labels, NUM_CLASSES)
    return TextTargets(maps, labels, torch.ones_like(labels, dtype=torch.float32), maps)
