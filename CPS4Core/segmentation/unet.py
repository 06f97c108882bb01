"""The 2D residual U-Net that every system trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from CPS4Core.anatomy import NUM_CLASSES
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


class ResidualUNet(nn.Module):
    """A U-Net of residual blocks.

    Args:
        widths: channels of each level, the finest first.
        classes: number of logits.
    """

    def __init__(self, widths: Sequence[int], classes: int = NUM_CLASSES):
        super().__init__()
        finer, coarser = widths[:-1], widths[1:]
        self.encoder = nn.ModuleList(
            [ResidualBlock(inputs, outputs) for inputs, outputs in zip([1, *finer], widths, strict=True)]
        )
        self.down = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(below, here, 2, stride=2) for here, below in zip(finer, coarser, strict=True)]
        )
        self.decoder = nn.ModuleList([ResidualBlock(2 * here, here) for here in finer])
        self.head = nn.Conv2d(widths[0], classes, 1)

    @property
    def stride(self) -> int:
        """Both sides of an image must be multiples of this."""
        return 2 ** len(self.up)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the features of each level, the finest first, of slices (images, 1, H, W)."""
        features = [self.encoder[0](images)]
        for block in self.encoder[1:]:
            features.append(block(self.down(features[-1])))
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the finest decoder features, shape (images, widths[0], H, W)."""
        x = features[-1]
        for skip, up, block in reversed(list(zip(features[:-1], self.up, self.decoder, strict=True))):
            x = block(torch.cat([skip, up(x)], 1))
        return x

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (images, classes, H, W) of slices (images, 1, H, W)."""
        return self.head(self.decode(self.encode(images)))


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), BatchNorm2d(outputs)
