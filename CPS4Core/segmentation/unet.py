"""The 2D residual U-Net that every system trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from CPS4Core.class_table import NUM_CLASSES
from CPS4Core.segmentation.batch_norm import BatchNorm2d


class ResidualBlock(nn.Module):
    """Three convolutions, each with batch normalisation and ReLU, and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            *_convolution(inputs, outputs),
            nn.ReLU(inplace=True),
            *_convolution(outputs, outputs),
            nn.ReLU(inplace=True),
            *_convolution(outputs, outputs),
        )
        self.shortcut = (
            nn.Identity()
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convolutions(x) + self.shortcut(x))


Upsampling = Literal["transposed", "bilinear", "nearest"]


class Decoder(nn.Module):
    """The way back up: from the features of each level to logits.

    Args:
        widths: channels of each level, the finest first.
        classes: number of logits.
        upsampling: how features are doubled in size: by a transposed convolution, or by interpolation and a
            convolution of one pixel.
    """

    def __init__(
        self, widths: Sequence[int], classes: int = NUM_CLASSES, upsampling: Upsampling = "transposed"
    ):
        super().__init__()
        finer, coarser = widths[:-1], widths[1:]
        self.up = nn.ModuleList(
            [_doubling(below, here, upsampling) for here, below in zip(finer, coarser, strict=True)]
        )
        self.blocks = nn.ModuleList([ResidualBlock(2 * here, here) for here in finer])
        self.head: nn.Module = nn.Conv2d(widths[0], classes, 1)

    def features(self, encoded: list[Tensor], level: int = 0) -> Tensor:
        """Return the features of a level, shape (images, widths[level], H / 2^level, W / 2^level).

        Args:
            encoded: features of each level, the finest first.
            level: how far to go up; 0 is the finest.
        """
        x = encoded[-1]
        for here in reversed(range(level, len(self.up))):
            x = self.blocks[here](torch.cat([encoded[here], self.up[here](x)], 1))
        return x

    def forward(self, encoded: list[Tensor]) -> Tensor:
        """Return logits (images, classes, H, W) of the features of each level, the finest first."""
        return self.head(self.features(encoded))


class ResidualUNet(nn.Module):
    """A U-Net of residual blocks.

    Args:
        widths: channels of each level, the finest first.
        classes: number of logits.
    """

    def __init__(self, widths: Sequence[int], classes: int = NUM_CLASSES):
        super().__init__()
        self.encoder = nn.ModuleList(
            [
                ResidualBlock(inputs, outputs)
                for inputs, outputs in zip([1, *widths[:-1]], widths, strict=True)
            ]
        )
        self.down = nn.MaxPool2d(2)
        self.decoder = Decoder(widths, classes)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the features of each level, the finest first, of slices (images, 1, H, W)."""
        features = [self.encoder[0](images)]
        for block in self.encoder[1:]:
            features.append(block(self.down(features[-1])))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (images, classes, H, W) of slices (images, 1, H, W)."""
        return self.decoder(self.encode(images))


def _doubling(inputs: int, outputs: int, upsampling: Upsampling) -> nn.Module:
    if upsampling == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
    # The convolution first: it does the same on a quarter of the pixels.
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=2, mode=upsampling))


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), BatchNorm2d(outputs)
