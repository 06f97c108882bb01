"""The mean teacher and the pseudo-labels that class prompts enhance (eq. 4 and 7)."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

from CPS4Core.class_table import IGNORE

TargetKind = Literal["hard", "literal", "normalised"]


def enhance(teacher_probabilities: Tensor, text_maps: Tensor, kind: TargetKind = "hard") -> Tensor:
    """Return the target of eq. 7: the teacher's pseudo-label y_t and the text maps y_text, added.

    Where one class's map is set, the text decides; where several overlap, the teacher chooses among them; where
    none is, the teacher decides alone.

    Args:
        teacher_probabilities: softmax of the teacher's logits, shape (..., classes, H, W).
        text_maps: y_text, the stacked binary maps of eq. 3, the same shape: bool, or the weight of each where it is
            set, 0 to 1.
        kind: ``hard``: argmax of the sum; ``literal``: the sum itself, so that the loss equals
            CE(s, y_t) + CE(s, y_text); ``normalised``: the sum scaled to one over the classes.

    Returns:
        ``hard``: labels, int64, shape (..., H, W); else class weights, shape (..., classes, H, W).
    """
    total = teacher_probabilities + text_maps.to(teacher_probabilities.dtype)
    if kind == "hard":
        return total.argmax(-3)
    if kind == "literal":
        return total
    return total / total.sum(-3, keepdim=True)


def keep_confident(target: Tensor, teacher_probabilities: Tensor, least: float) -> Tensor:
    """Return a target without the pixels where the teacher is unsure.

    Args:
        target: labels, int64, shape (..., H, W); or class weights, shape (..., classes, H, W).
        teacher_probabilities: softmax of the teacher's logits, shape (..., classes, H, W).
        least: the teacher's least probability of its own class, 0 to 1.

    Returns:
        The target; where the teacher is below ``least``, ``IGNORE`` or zero weights.
    """
    sure, labels = teacher_probabilities.max(-3)
    if target.shape == labels.shape:
        return target.masked_fill(sure < least, IGNORE)
    return target * (sure >= least).unsqueeze(-3)


def ramp(progress: float, length: float) -> float:
    """Return the weight of pseudo-labels at ``progress``: exp(-5 (1 - progress / length)^2), then 1.

    Args:
        progress: share of the training done, 0 to 1.
        length: share of the training over which the weight rises; 0: it is 1 from the start.
    """
    return 1.0 if progress >= length else math.exp(-5 * (1 - progress / length) ** 2)


class MeanTeacher(nn.Module):
    """The teacher f_theta_t: a copy of the student whose weights follow it by moving average (eq. 4).

    Args:
        student: f_theta_s.
        decay: largest share of the old weights that an update keeps.
        average_buffers: also average the batch normalisation statistics. If not, the teacher normalises with the
            statistics of its own batch, as the reference implementation of Mean Teacher does.
    """

    def __init__(self, student: nn.Module, decay: float, average_buffers: bool = True):
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay
        self.average_buffers = average_buffers
        self.train()

    def train(self, mode: bool = True) -> MeanTeacher:
        """Keep the teacher in evaluation mode where it has averaged statistics to use."""
        super().train(mode)
        self.network.train(mode and not self.average_buffers)
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return softmax probabilities (images, classes, H, W)."""
        return self.network(images).float().softmax(1)

    @torch.no_grad()
    def follow(self, student: nn.Module, step: int) -> None:
        """Move the weights towards the student's, by min(1 - 1 / (step + 1), decay)."""
        keep = min(1 - 1 / (step + 1), self.decay)
        torch._foreach_lerp_(list(self.network.parameters()), list(student.parameters()), 1 - keep)
        if self.average_buffers:
            for mine, theirs in zip(self.network.buffers(), student.buffers(), strict=True):
                mine.lerp_(theirs, 1 - keep) if mine.is_floating_point() else mine.copy_(theirs)
