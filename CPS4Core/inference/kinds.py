"""Kinds before names: a pixel is bone by the sum of all vertebrae, though the network may not know which one it is."""

from __future__ import annotations

import torch
from torch import Tensor

from CPS4Core.class_table import NUM_CLASSES, STRUCTURES

BACKGROUND, SACRUM, VERTEBRA, DISC = range(4)
"""Channels of the kinds."""
_CHANNEL = {"sacrum": SACRUM, "vertebra": VERTEBRA, "disc": DISC}
KIND_OF = torch.zeros(NUM_CLASSES, dtype=torch.long)
"""By label."""
for _structure in STRUCTURES:
    KIND_OF[_structure.label] = _CHANNEL[_structure.kind]

STEP = 0.01
"""By how much the score of a pixel's own name is above those of other names of its kind: so that a border between two
names lies halfway between their pixels, and that to the background where the kind ends."""


def kinds_of(logits: Tensor) -> Tensor:
    """Return the logits of background, sacrum, vertebra and disc, (n, 4, AP, SI), from (n, 20, AP, SI) of classes."""
    return torch.stack([logits[:, kind == KIND_OF].logsumexp(1) for kind in range(4)], 1)


def names_of(logits: Tensor, kinds: Tensor) -> Tensor:
    """Return the likeliest class of the likeliest kind, uint8, (n, AP, SI)."""
    best = kinds.argmax(1, keepdim=True)
    of_kind = KIND_OF.to(logits.device)[:, None, None] == best
    return logits.masked_fill(~of_kind, -torch.inf).argmax(1).byte()


def scores_of(kinds: Tensor, named: Tensor) -> Tensor:
    """Return class scores (n, 20, AP, SI) that are highest where ``named`` says, and smooth at the borders of kinds.

    Args:
        kinds: logits of the kinds, (n, 4, AP, SI).
        named: labels of the same pixels, uint8, (n, AP, SI); where another kind than the likeliest is named, the
            logits of the two are exchanged.
    """
    own = KIND_OF[named.long()].unsqueeze(1)
    best, likeliest = kinds.max(1, keepdim=True)
    exchanged = kinds.scatter(1, likeliest, kinds.gather(1, own)).scatter(1, own, best)
    scores = exchanged[:, KIND_OF]
    return scores.scatter_add(1, named.long().unsqueeze(1), torch.full_like(best, STEP))


def certainty_of(kinds: Tensor, named: Tensor) -> Tensor:
    """Return the probability of the kind at each pixel that is named, in the order of ``nonzero``."""
    structures = named != 0
    logits = kinds.movedim(1, -1)[structures]
    return logits.softmax(-1).gather(1, KIND_OF[named[structures].long()].unsqueeze(1)).squeeze(1)
