"""From the class scores of a volume's slices to kinds of structures, and to levels counted along the spine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from CPS4Core.class_table import BACKGROUND
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.naming.name import Naming, name_levels
from CPS4Core.segmentation.kinds import kinds_of, names_of, near_structures


@dataclass(frozen=True)
class Seen:
    """What class scores say of slices, kept where something may be."""

    near: Tensor
    """Where that is, bool, (n, AP, SI)."""
    kinds: Tensor
    """Logits of background, sacrum, vertebra and disc, (pixels, 4), in the order of ``nonzero``."""
    names: Tensor
    """Likeliest class of the likeliest kind, uint8, (pixels,)."""
    votes: Tensor
    """Probability of the classes 1 to 19 at the pixels whose name is not background, (structures, 19)."""

    @classmethod
    def of(cls, logits: Tensor) -> Seen:
        """Look at logits (n, 20, AP, SI), on any device; what is kept is on the CPU."""
        near = near_structures(logits)
        seen = logits.movedim(1, -1)[near].float()
        kinds = kinds_of(seen)
        names = names_of(seen, kinds)
        votes = seen[names != BACKGROUND].softmax(1)[:, 1:]
        return cls(near.cpu(), kinds.cpu(), names.cpu(), votes.cpu())

    @classmethod
    def joined(cls, parts: list[Seen]) -> Seen:
        """Return what was seen of all slices of a volume."""
        return cls(
            *(
                torch.cat([getattr(part, name) for part in parts])
                for name in ("near", "kinds", "names", "votes")
            )
        )


def count_levels(seen: Seen, grid: SliceGrid) -> tuple[Tensor, Naming]:
    """Name the structures of a volume by counting along the spine.

    Args:
        seen: of all slices.
        grid: where they lie.

    Returns:
        Labels, uint8, (slices, AP, SI), and the naming.
    """
    labels, inside = torch.zeros(seen.near.shape, dtype=torch.uint8), torch.zeros_like(seen.near)
    labels[seen.near] = seen.names
    grid.crop(inside)[:] = True
    votes = seen.votes[inside[labels != BACKGROUND]]
    naming = name_levels(grid.crop(labels).numpy(), grid.spacing_mm, votes.numpy())
    named = torch.zeros_like(labels)
    grid.crop(named)[:] = torch.from_numpy(naming.labels)
    return named, naming
