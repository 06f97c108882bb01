"""The attention maps of one volume, as the worker wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CPS4Core.class_table import BACKGROUND, HEAD_TO_TAIL, short_name
from CPS4Core.events import Artifact

PRESENT = 0.5
"""A class counts as present where its attention reaches this somewhere in the volume."""

LABELS = (*HEAD_TO_TAIL, BACKGROUND)
"""The rows of the table: the structures from head to tail, then the background."""
CLASSES = tuple(short_name(label) for label in LABELS)
"""Their names."""


@dataclass(frozen=True)
class AttentionMap:
    """What one prompt attends to."""

    prompt: str
    """The whole sentence that the text encoder read."""
    label: int | None
    """The class that the prompt names, None for a free prompt."""
    peak: float
    """Largest attention in the volume, 0 to 1."""
    attention_file: Path
    binary_file: Path

    @classmethod
    def of(cls, event: Artifact) -> AttentionMap:
        """Return the map that the worker announces."""
        details = event.details
        return cls(
            details["prompt"],
            details["label"],
            float(details["peak"]),
            Path(event.path),
            Path(details["binary"]),
        )

    @property
    def present(self) -> bool:
        """Whether the prompt's structure seems to be in the volume."""
        return self.peak >= PRESENT

    def attention(self) -> np.ndarray:
        """Return the attention, float32 in (0, 1), axes k, j, i of the volume."""
        return _read(self.attention_file)

    def binary(self) -> np.ndarray:
        """Return the binary (Otsu) map, uint8, axes k, j, i of the volume."""
        return _read(self.binary_file)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Dice of two masks; NaN if both are empty."""
    one, other = one > 0, other > 0
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else float("nan")


def _read(path: Path) -> np.ndarray:
    # Slicer brings SimpleITK; it is loaded when first needed.
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
