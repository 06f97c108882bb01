"""How sure a model is of a segmentation: its network, its teacher and its class prompts, each asked by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS, TEACHER
from CPS4Core.class_table import BY_LABEL, NUM_CLASSES
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import read_scan
from CPS4Core.devices import is_out_of_memory
from CPS4Core.events import Artifact, Reporter, Warned
from CPS4Core.inference.attention import AttentionMapper
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.vision_language.maps import text_labels

SLICES_AT_ONCE = 4
"""Slices whose class prompt maps are made between two looks at whether to stop."""


@dataclass(frozen=True)
class Agreement:
    """What speaks for one structure of a segmentation, each 0 to 1."""

    network: float
    """Mean probability that the network gives to the structure's label over its voxels."""
    teacher: float | None
    """Dice of the structure with that of the teacher; None where the model has no teacher."""
    prompts: float | None
    """Share of the structure that the merged class prompt maps (eq. 3) call the same; None where the model has no
    encoders or they do not fit into the memory, or its card says that the maps of this class are not to be
    trusted."""

    def known(self) -> dict[str, float]:
        """Return what is at hand, by name, to four digits."""
        return {name: round(value, 4) for name, value in asdict(self).items() if value is not None}

    @property
    def confidence(self) -> float:
        """The mean of what is at hand."""
        known = self.known().values()
        return sum(known) / len(known)


class Checker:
    """Asks the parts of a model what they think of a segmentation.

    Args:
        network: the model's network.
        teacher: its teacher, None if it has none.
        mapper: its class prompt model, None if it has none.
        trust: how far its card trusts the class prompt maps, 0 to 1, by short name; fully where not named.
    """

    def __init__(
        self,
        network: Segmenter,
        teacher: Segmenter | None,
        mapper: AttentionMapper | None,
        trust: Mapping[str, float],
    ):
        self.network = network
        self.teacher = teacher
        self.mapper = mapper
        self.trust = trust

    @classmethod
    def of(cls, model: ModelFolder, network: Segmenter, mapper: AttentionMapper | None = None) -> Checker:
        """Return the checker of a model.

        Args:
            model: one that ``cps4 train`` made.
            network: its network, loaded.
            mapper: its class prompt model if that is loaded; else it is, where a check asks it.

        Raises:
            CPS4Error: if a part of the model is damaged.
        """
        device, teacher = network.device, None
        if model.has(TEACHER):
            teacher = Segmenter(model, device, network.report, TEACHER)
        if mapper is None and asks_prompts(model):
            mapper = AttentionMapper(model, device)
        return cls(network, teacher, mapper, model.card.text_trust)

    def check(
        self, image: sitk.Image, labels: sitk.Image, cancellation: Cancellation | None = None
    ) -> dict[int, Agreement]:
        """Return the agreement on each structure of a segmentation.

        Args:
            image: a scalar volume, any orientation.
            labels: its segmentation, class labels, uint8, on the same grid.

        Raises:
            Cancelled: if the user asked to stop.
            CPS4Error: if the device's memory does not suffice for one slice.
        """
        grid = SliceGrid.of(image, self.network.input, whole=True)
        slices = torch.from_numpy(grid.to_slices(image)).unsqueeze(1)
        looked_at = torch.from_numpy(grid.labels_to_slices(labels)).long()
        present = np.unique(sitk.GetArrayViewFromImage(labels))
        # A structure that is too small for the canvas counts as one that nothing speaks for.
        voxels = _count(looked_at).clamp_min(1)
        network = _summed_probability(self.network, slices, looked_at, cancellation) / voxels
        teacher = prompts = None
        if self.teacher is not None:
            named = _best_labels(self.teacher, slices, cancellation)
            teacher = 2 * _count(looked_at[named == looked_at]) / (voxels + _count(named))
        if self.mapper is not None and any(
            label in present and _is_trusted(self.trust, label) for label in BY_LABEL
        ):
            try:
                named = torch.cat(list(_prompt_labels(self.mapper, slices, cancellation)))
                prompts = _count(looked_at[named == looked_at]) / voxels
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self.network.report(Warned("Not enough memory for the class prompts: they are left out."))
        return {
            label: Agreement(
                float(network[label]),
                None if teacher is None else float(teacher[label]),
                None if prompts is None or not _is_trusted(self.trust, label) else float(prompts[label]),
            )
            for label in BY_LABEL
            if label in present
        }


def asks_prompts(model: ModelFolder) -> bool:
    """Whether a check asks the class prompts: the model has encoders, and its card trusts some structure's maps."""
    trust = model.card.text_trust
    return model.has(ENCODERS) and any(_is_trusted(trust, label) for label in BY_LABEL)


def _is_trusted(trust: Mapping[str, float], label: int) -> bool:
    return trust.get(BY_LABEL[label].short, 1.0) > 0


def _count(labels: Tensor) -> Tensor:
    """Return the voxels of each class, float64, shape (classes,)."""
    return torch.bincount(labels.flatten(), minlength=NUM_CLASSES).double()


def _summed_probability(
    segmenter: Segmenter, slices: Tensor, labels: Tensor, cancellation: Cancellation | None
) -> Tensor:
    """Return the sum over the voxels of each class in ``labels`` of its probability, float64, shape (classes,)."""

    def probability(logits: Tensor, place: slice) -> Tensor:
        logits, wanted = logits.float(), labels[place].to(logits.device).unsqueeze(1)
        return (logits.gather(1, wanted) - logits.logsumexp(1, keepdim=True)).exp().squeeze(1).cpu()

    found = torch.cat(list(segmenter.forward(slices, probability, cancellation)))
    return torch.bincount(labels.flatten(), found.flatten().double(), minlength=NUM_CLASSES)


def _best_labels(segmenter: Segmenter, slices: Tensor, cancellation: Cancellation | None) -> Tensor:
    """Return the network's label of each canvas pixel, int64, (slices, AP, SI)."""
    return torch.cat(list(segmenter.forward(slices, lambda logits, _: logits.argmax(1).cpu(), cancellation)))


def _prompt_labels(
    mapper: AttentionMapper, slices: Tensor, cancellation: Cancellation | None
) -> Iterator[Tensor]:
    """Yield the merged class prompt maps, int64, (few, AP, SI), a few slices at a time."""
    for few in slices.squeeze(1).split(SLICES_AT_ONCE):
        if cancellation is not None:
            cancellation.check()
        labels = text_labels(mapper.model, few.numpy(), mapper.least_peak)
        yield torch.from_numpy(labels.astype(np.int64))


def check_files(
    checker: Checker,
    source: Path,
    labels: Path,
    report: Reporter,
    cancellation: Cancellation,
    pixel_mm: float | None = None,
) -> dict[int, Agreement]:
    """Report and return the agreement on the segmentation in ``labels`` of the volume in ``source``.

    Raises:
        CPS4Error: if a file cannot be used, or the two do not belong together.
        Cancelled: if the user asked to stop.
    """
    image = read_scan(source, pixel_mm=pixel_mm)
    found = checker.check(image, read_labels(labels, like=image), cancellation)
    report(
        Artifact(
            "agreement",
            str(labels),
            {"agreement": {str(label): answer.known() for label, answer in found.items()}},
        )
    )
    return found
