"""The mean teacher and the pseudo-labels that class prompts enhance (eq. 4 and 7)."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

from CPS4Core.class_table import IGNORE

TargetKind = Literal["logits", "softmax", "probabilities", "literal", "normalised"]


def enhance(
    z_t: Tensor, text_maps: Tensor, kind: TargetKind = "logits", teacher_weight: float = 1.0
) -> Tensor:
    """Return the target of eq. 7: the teacher's output y_t and the text maps y_text, added.

    y_t is what the network gives (eq. 4), its logits z_t. A set map is worth one logit: it decides where the teacher
    is unsure, and cannot overrule a teacher who is sure.

    Args:
        z_t: the teacher's logits, shape (..., classes, H, W).
        text_maps: y_text, the stacked binary maps of eq. 3, the same shape: bool, or the weight of each where it is
            set, 0 to 1.
        kind: with p_t = softmax(z_t), ``logits``: argmax(z_t + y_text); ``softmax``: argmax(p_t + softmax(y_text));
            ``probabilities``: argmax(p_t + y_text), where a map that is set alone always wins; ``literal``: the sum
            p_t + y_text itself, so that the loss equals CE(s, p_t) + CE(s, y_text); ``normalised``: that sum, scaled
            to one over the classes.
        teacher_weight: of z_t or p_t in the sum.

    Returns:
        Labels, int64, shape (..., H, W); of ``literal`` and ``normalised`` class weights, shape (..., classes, H, W).
    """
    y_text = text_maps.to(z_t.dtype)
    if kind == "logits":
        return (teacher_weight * z_t + y_text).argmax(-3)
    if kind == "softmax":
        y_text = y_text.softmax(-3)
    total = teacher_weight * z_t.softmax(-3) + y_text
    if kind == "literal":
        return total
    if kind == "normalised":
        return total / total.sum(-3, keepdim=True)
    return total.argmax(-3)


def keep_confident(target: Tensor, certainty: Tensor, least: float) -> Tensor:
    """Return a target without the pixels of which nobody is sure.

    Args:
        target: labels, int64, shape (..., H, W); or class weights, shape (..., classes, H, W).
        certainty: of each class at each pixel, 0 to 1, shape (..., classes, H, W).
        least: the least certainty of the label; of class weights, of any class.

    Returns:
        The target; where the certainty is below ``least``, ``IGNORE`` or zero weights.
    """
    if target.is_floating_point():
        return leave_out(target, certainty.amax(-3) < least)
    return leave_out(target, certainty.gather(-3, target.unsqueeze(-3)).squeeze(-3) < least)


def leave_out(target: Tensor, where: Tensor) -> Tensor:
    """Return a target, labels or class weights, that says nothing ``where``, bool, shape (..., H, W)."""
    return target * ~where.unsqueeze(-3) if target.is_floating_point() else target.masked_fill(where, IGNORE)


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
    def logits(self, images: Tensor) -> Tensor:
        """Return z_t, float32, shape (images, classes, H, W)."""
        return self.network(images).float()

    def forward(self, images: Tensor) -> Tensor:
        """Return softmax probabilities (images, classes, H, W)."""
        return self.logits(images).softmax(1)

    @torch.no_grad()
    def follow(self, student: nn.Module, step: int) -> None:
        """Move the weights towards the student's, by min(1 - 1 / (step + 1), decay)."""
        keep = min(1 - 1 / (step + 1), self.decay)
        torch._foreach_lerp_(list(self.network.parameters()), list(student.parameters()), 1 - keep)
        if self.average_buffers:
            for mine, theirs in zip(self.network.buffers(), student.buffers(), strict=True):
                mine.lerp_(theirs, 1 - keep) if mine.is_floating_point() else mine.copy_(theirs)
