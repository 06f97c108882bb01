"""Kinds before names: a pixel is bone by the sum of all vertebrae, though the network may not know which one it is.

Most pixels are surely background: only the others are looked at, as a list.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from CPS4Core.class_table import NUM_CLASSES, STRUCTURES

BACKGROUND, SACRUM, VERTEBRA, DISC = range(4)
"""Channels of the kinds."""
_CHANNEL = {"sacrum": SACRUM, "vertebra": VERTEBRA, "disc": DISC}
KIND_OF = torch.zeros(NUM_CLASSES, dtype=torch.long)
"""By label."""
for _structure in STRUCTURES:
    KIND_OF[_structure.label] = _CHANNEL[_structure.kind]
_IS_OF_KIND = one_hot(KIND_OF).float()
"""(classes, kinds)."""
LEAST = 1e-30
"""A probability less than this is as good as none."""

SURE = 3.0
"""Where the logit of background is so far above all others, no kind is likelier: log 9 would do for nine classes."""
SURELY_BACKGROUND = (0.0, -20.0, -20.0, -20.0)
"""Logits of the kinds where nobody looked."""
STEP = 0.01
"""By how much the score of a pixel's own name is above those of other names of its kind: so that a border between two
names lies halfway between their pixels, and that to the background where the kind ends."""
NEVER = -1e4
"""Score of a name that nothing has."""


def near_structures(logits: Tensor) -> Tensor:
    """Return which pixels may be of a structure, or are beside one that may, bool, (n, AP, SI).

    Args:
        logits: of the classes, (n, 20, AP, SI).
    """
    others = logits[:, BACKGROUND + 1 :].contiguous().amax(1)
    return _and_beside(logits[:, BACKGROUND] - others < SURE)


def kinds_of(logits: Tensor) -> Tensor:
    """Return the logits of background, sacrum, vertebra and disc, (pixels, 4), from (pixels, 20) of classes."""
    top = logits.amax(1, keepdim=True)
    sums = (logits - top).exp() @ _IS_OF_KIND.to(logits.device)
    return sums.clamp_min(LEAST).log() + top


def names_of(logits: Tensor, kinds: Tensor) -> Tensor:
    """Return the likeliest class of the likeliest kind of each pixel, uint8, (pixels,)."""
    of_kind = KIND_OF.to(logits.device) == kinds.argmax(1, keepdim=True)
    return logits.masked_fill(~of_kind, -torch.inf).argmax(1).byte()


def scores_of(kinds: Tensor, named: Tensor, present: Tensor) -> Tensor:
    """Return class scores (pixels, 20) that are highest where ``named`` says, and smooth at the borders of kinds.

    Args:
        kinds: logits of the kinds, (pixels, 4).
        named: labels of the same pixels, uint8, (pixels,); where another kind than the likeliest is named, the logits
            of the two are exchanged.
        present: which classes the volume has, bool, (20,): between two pixels, no other can arise.
    """
    named = named.long().unsqueeze(1)
    own = KIND_OF[named]
    best, likeliest = kinds.max(1, keepdim=True)
    exchanged = kinds.scatter(1, likeliest, kinds.gather(1, own)).scatter(1, own, best)
    scores = exchanged[:, KIND_OF].masked_fill(~present, NEVER)
    return scores.scatter_add(1, named, torch.full_like(best, STEP))


def certainty_of(kinds: Tensor, named: Tensor) -> Tensor:
    """Return the probability of the kind that each pixel is named, (pixels,).

    Args:
        kinds: logits of the kinds, (pixels, 4).
        named: labels of the same pixels, uint8, (pixels,).
    """
    return kinds.softmax(1).gather(1, KIND_OF[named.long()].unsqueeze(1)).squeeze(1)


class KindMap:
    """The logits of the kinds at every pixel of some slices, kept for those alone that somebody looked at.

    Args:
        near: which pixels these are, bool, (n, AP, SI).
        kinds: their logits, (pixels, 4), in the order of ``nonzero``.
    """

    def __init__(self, near: Tensor, kinds: Tensor):
        self._kinds = torch.cat([kinds, kinds.new_tensor([SURELY_BACKGROUND])])
        self._place = torch.full(near.shape, len(kinds), dtype=torch.int32)
        self._place[near] = torch.arange(len(kinds), dtype=torch.int32)

    def at(self, where: tuple[Tensor, ...]) -> Tensor:
        """Return the logits (pixels, 4) at some pixels: slices, rows and columns."""
        return self._kinds[self._place[where].long()]


def _and_beside(pixels: Tensor) -> Tensor:
    """Return the pixels (n, AP, SI) and all eight beside each."""
    for axis in (1, 2):
        wider, others = pixels.clone(), pixels.shape[axis] - 1
        wider.narrow(axis, 1, others).logical_or_(pixels.narrow(axis, 0, others))
        wider.narrow(axis, 0, others).logical_or_(pixels.narrow(axis, 1, others))
        pixels = wider
    return pixels
