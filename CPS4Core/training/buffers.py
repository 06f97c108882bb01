"""The way back from a step that did not fit into the memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BufferCopy:
    """A copy of a module's buffers, which batch normalisation changes in the forward pass, before a step can fail.

    The copy is made once and renewed in place: that allocates nothing and takes one call for each type of number.

    Args:
        module: on its device; its buffers must stay the same tensors.
    """

    def __init__(self, module: nn.Module):
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in module.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self._groups = [(buffers, [buffer.clone() for buffer in buffers]) for buffers in by_type.values()]

    @torch.no_grad()
    def renew(self) -> None:
        """Keep the buffers as they are now."""
        for buffers, copies in self._groups:
            torch._foreach_copy_(copies, buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Bring the buffers back to what they were at the last ``renew``."""
        for buffers, copies in self._groups:
            torch._foreach_copy_(buffers, copies)
