"""BCP: bidirectional copy-paste between labelled and unlabelled slices (Bai et al., 2023).

All labelled and unlabelled slices of a step are mixed both ways; the authors mix one half of them each way. The
pretraining hands the network that validated best over to student and teacher; the optimiser goes on, where theirs
begins anew.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from skimage.measure import label as connected
from torch import Tensor, nn

from CPS4Core.class_table import BACKGROUND, IGNORE
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.losses import cross_entropy, dice_loss
from CPS4Core.segmentation.methods.method import Batch, TaughtMethod

PRETRAINING = 1 / 4
"""Share of the training before unlabelled slices come in: 10,000 of the published 40,000 iterations."""
BETA = 2 / 3
"""Sides of the box that is pasted, as a share of those of the slice."""
ALPHA = 0.5
"""Weight of pseudo-labels beside true labels."""


class Mixed(NamedTuple):
    """Slices with a box of one another pasted in."""

    images: Tensor
    """Shape (k, 1, H, W)."""
    true: Tensor
    """Labels where a labelled slice shows, ``IGNORE`` elsewhere, int64, shape (k, H, W)."""
    pseudo: Tensor | None
    """Pseudo-labels where an unlabelled slice shows, ``IGNORE`` elsewhere, the same shape; None while pretraining."""


class BCP(TaughtMethod):
    """L_seg on the labelled parts + alpha L_seg on the pseudo-labelled parts of mixed slices."""

    average_buffers = False
    best_score: Tensor
    handed_over: Tensor

    @property
    def network(self) -> nn.Module:
        # While pretraining the teacher has seen no slice, and knows no statistics.
        return self.teacher.network if self.handed_over else self.student

    @property
    def other_network(self) -> nn.Module:
        return self.student if self.handed_over else self.teacher.network

    def __init__(self, settings: TrainSettings):
        super().__init__(settings)
        self.best = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("best_score", torch.tensor(-math.inf))
        self.register_buffer("handed_over", torch.tensor(False))

    def after_validation(self, score: float) -> None:
        """Keep the network if it is the best of the pretraining so far."""
        if not self.handed_over and score > self.best_score:
            self.best.load_state_dict(self.network.state_dict())
            self.best_score.fill_(score)

    @torch.no_grad()
    def hand_over(self) -> None:
        """Let student and teacher go on from the best network of the pretraining, where one was validated."""
        if not self.handed_over and self.best_score.isfinite():
            for network in (self.student, self.teacher.network):
                network.load_state_dict(self.best.state_dict())
        self.handed_over.fill_(True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        mixed = self.mix(batch)
        return self.terms(self.student(mixed.images), mixed)

    def mix(self, batch: Batch) -> Mixed:
        """Paste between labelled slices while pretraining; then both ways between labelled and unlabelled ones."""
        x_l, y_l, x_u = batch.labelled, batch.labels, batch.unlabelled
        M = outside_box(x_l.shape[-2:]).to(x_l.device)
        if batch.progress < PRETRAINING:
            return Mixed(torch.where(M, x_l, x_l.roll(1, 0)), torch.where(M, y_l, y_l.roll(1, 0)), None)
        self.hand_over()
        y_u = self.pseudo_labels(batch)
        pairs = min(len(x_l), len(x_u))
        x_l, y_l, x_u, y_u = x_l[:pairs], y_l[:pairs], x_u[:pairs], y_u[:pairs]
        return Mixed(
            torch.cat([torch.where(M, x_l, x_u), torch.where(M, x_u, x_l)]),  # X_in, X_out
            torch.cat([y_l.masked_fill(~M, IGNORE), y_l.masked_fill(M, IGNORE)]),
            torch.cat([y_u.masked_fill(M, IGNORE), y_u.masked_fill(~M, IGNORE)]),
        )

    def terms(self, logits: Tensor, mixed: Mixed) -> dict[str, Tensor]:
        """Return the terms of the loss, each the mean over the mixed slices."""
        supervised = segmentation_loss(logits, mixed.true)
        if mixed.pseudo is None:
            return {"total": supervised, "sup": supervised}
        pseudo = segmentation_loss(logits, mixed.pseudo)
        return {"total": supervised + ALPHA * pseudo, "sup": supervised, "pseudo": pseudo}

    def pseudo_labels(self, batch: Batch) -> Tensor:
        """Return the labels of the unlabelled slices, int64, shape (m, H, W)."""
        labels = self.teacher_labels(batch)
        return largest_components(labels) if self.settings.baselines.bcp.largest_component else labels

    def teacher_labels(self, batch: Batch) -> Tensor:
        """Return what the teacher makes of the unlabelled slices, int64, shape (m, H, W)."""
        return self.teacher(batch.unlabelled).argmax(1)


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return L_seg, the mean of cross-entropy and Dice loss where ``labels`` is not ``IGNORE``."""
    return (cross_entropy(logits, labels) + dice_loss(logits, labels)) / 2


def outside_box(size: Sequence[int]) -> Tensor:
    """Return the mask M, bool, shape ``size``: false in a box of ``BETA`` of each side at a random place."""
    M = torch.ones(size, dtype=torch.bool)
    height, width = (int(BETA * side) for side in size)
    top = int(torch.randint(size[0] - height + 1, ()))
    left = int(torch.randint(size[1] - width + 1, ()))
    M[top : top + height, left : left + width] = False
    return M


def largest_components(labels: Tensor) -> Tensor:
    """Return ``labels``, shape (slices, H, W), with all but the largest piece of each structure as background."""
    slices = [_largest_components(plane) for plane in labels.cpu().numpy()]
    return torch.from_numpy(np.stack(slices)).to(labels.device)


def _largest_components(labels: np.ndarray) -> np.ndarray:
    pieces = connected(labels, background=BACKGROUND)
    sizes = np.bincount(pieces.ravel())
    kept = np.full_like(labels, BACKGROUND)
    for structure in np.setdiff1d(labels, BACKGROUND):
        candidates = np.unique(pieces[labels == structure])
        kept[pieces == candidates[sizes[candidates].argmax()]] = structure
    return kept
