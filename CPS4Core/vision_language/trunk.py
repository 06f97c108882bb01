"""The residual U-Net as vision encoder: features of one of its coarser levels are the patch tokens.

A transformer that starts from random weights needs far more slices than a convolutional trunk, which can also begin
with the weights of a trained segmentation network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from CPS4Core.segmentation.unet import ResidualUNet

NAME = "residual_unet"
"""What ``encoders.vision`` calls it."""


class UNetVisionEncoder(nn.Module):
    """A residual U-Net without its finest levels.

    Args:
        widths: channels of each level, the finest first.
        level: whose features are the tokens; each level halves the resolution.
    """

    def __init__(self, widths: Sequence[int], level: int):
        super().__init__()
        self.network = ResidualUNet(widths)
        self.level = level
        self.width: int = widths[level]
        self.patch: tuple[int, int] = (2**level, 2**level)
        self._multiple = 2 ** (len(widths) - 1)
        for unused in range(level):
            self.network.decoder.up[unused] = nn.Identity()
            self.network.decoder.blocks[unused] = nn.Identity()
        self.network.decoder.head = nn.Identity()

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with the weights of a segmentation network of the same widths."""
        mine = self.network.state_dict()
        self.network.load_state_dict({name: weights[name] for name in mine})

    def grid(self, size: Sequence[int]) -> tuple[int, int]:
        """Return (h, w), the tokens along each axis of an image of ``size`` (H, W)."""
        h, w = (max(1, round(pixels / self._multiple)) * self._multiple // self.patch[0] for pixels in size)
        return h, w

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode slices (images, 1, H, W) into one token each and their patch tokens.

        An image whose size the U-Net cannot halve is stretched to the nearest one that it can.

        Returns:
            The mean of the patch tokens, shape (images, width), and the patch tokens, shape (images, h * w, width).
        """
        h, w = self.grid(images.shape[-2:])
        size = (h * self.patch[0], w * self.patch[1])
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        features = self.network.decoder.features(self.network.encode(images), self.level)
        patches = features.flatten(2).mT
        return patches.mean(1), patches
