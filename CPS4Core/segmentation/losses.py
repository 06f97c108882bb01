"""Losses of stage 2 (eq. 5-7). The paper writes a minus before a cross-entropy; the cross-entropy is minimised."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, distributed

from CPS4Core.class_table import IGNORE


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of eq. 5-7: the mean over the pixels of an image, then over images.

    Args:
        logits: shape (images, classes, H, W).
        target: labels, int64, (images, H, W), ``IGNORE`` where unknown; or class weights, (images, classes, H, W).
        weight: how much each labelled pixel counts, 0 to 1, (images, H, W); fully if None.
    """
    logits = logits.float()
    if target.is_floating_point():
        return -(target * logits.log_softmax(1)).sum(1).mean()
    per_pixel = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    if weight is not None:
        per_pixel = per_pixel * weight
    known = (target != IGNORE).sum((1, 2)).clamp_min(1)
    return (per_pixel.sum((1, 2)) / known).mean()


def one_hot_where_known(labels: Tensor, classes: int) -> Tensor:
    """Return labels (images, H, W) as float32 (images, classes, H, W), zero in all classes where ``IGNORE``."""
    known = labels != IGNORE
    return (F.one_hot(labels * known, classes) * known[..., None]).movedim(-1, 1).float()


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return one minus the Dice of softmax and labels over the batch of all processes, mean over all classes.

    Args:
        logits: shape (images, classes, H, W).
        target: labels, int64, shape (images, H, W), ``IGNORE`` where unknown.
    """
    known = (target != IGNORE).unsqueeze(1)
    truth = one_hot_where_known(target, logits.shape[1])
    probabilities = logits.float().softmax(1) * known
    return dice_distance(probabilities, truth, of_all_processes=True)


def dice_distance(p: Tensor, q: Tensor, *, of_all_processes: bool = False) -> Tensor:
    """Return one minus the soft Dice of two maps over the batch, mean over classes: a scalar in [0, 1].

    2 sum(p q) / (sum(p^2) + sum(q^2))

    Args:
        p: values in [0, 1], shape (images, classes, H, W).
        q: the same.
        of_all_processes: over the batch of all processes and not of this one alone.
    """
    overlap, size = (p * q).sum((0, 2, 3)), (p.square() + q.square()).sum((0, 2, 3))
    if of_all_processes:
        overlap, size = _over_processes(overlap), _over_processes(size)
    return (1 - (2 * overlap + 1e-5) / (size + 1e-5)).mean()


def _over_processes(sums: Tensor) -> Tensor:
    """Add up what each process has summed over its share of the batch; the gradient flows back to all of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return sums
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(sums)
