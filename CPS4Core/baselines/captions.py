"""What a labelled slice shows, in words: the texts that image and text contrast need, which no data set here has."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from CPS4Core.class_table import BACKGROUND, IGNORE, NUM_CLASSES, class_name


def present_classes(labels: Tensor) -> Tensor:
    """Return which classes a slice shows, the background included.

    Args:
        labels: class labels, ``IGNORE`` where unknown, int64, shape (images, H, W).

    Returns:
        bool, shape (images, classes).
    """
    known = labels != IGNORE
    shown = F.one_hot(labels * known, NUM_CLASSES).bool() & known.unsqueeze(-1)
    return shown.flatten(1, 2).any(1)


def caption(present: Tensor) -> str:
    """Return the caption of a slice: the names of its structures.

    Args:
        present: bool, shape (classes,).
    """
    names = [class_name(k) for k in present.nonzero().flatten().tolist() if k != BACKGROUND]
    return f"A magnetic resonance image of {', '.join(names) or class_name(BACKGROUND)}."


def same_caption(present: Tensor) -> Tensor:
    """Return which slices share a caption and so are positives of each other, bool, shape (images, images)."""
    structures = present[:, BACKGROUND + 1 :]
    return (structures.unsqueeze(0) == structures.unsqueeze(1)).all(-1)
