"""Random rotation, elastic deformation and contrast, on the device of the batch.

One warp a slice moves the image, its labels and its attention maps alike. Each slice draws from its own generator,
seeded by run, step and place in the global batch: the same slices come out however many processes share the work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from CPS4Core.class_table import BACKGROUND
from CPS4Core.config import AugmentSettings


@dataclass(frozen=True)
class Augmentation:
    """What happens to each slice of a batch."""

    grid: Tensor
    """Where each output pixel samples the input, as ``grid_sample`` takes it, shape (slices, H, W, 2)."""
    contrast: Tensor
    """Factor on the deviation from the slice's mean, shape (slices,)."""

    @property
    def inside(self) -> Tensor:
        """Which output pixels come from within the slice, bool, shape (slices, H, W)."""
        return (self.grid.abs() <= 1).all(-1)

    def images(self, images: Tensor) -> Tensor:
        """Warp slices (slices, 1, H, W), zero outside, and change their contrast."""
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (images - mean) * self.contrast[:, None, None, None] + mean
        return F.grid_sample(images, self.grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def labels(self, labels: Tensor) -> Tensor:
        """Warp labels (slices, H, W), int64, nearest neighbour, background outside."""
        warped = F.grid_sample(
            labels.unsqueeze(1).float(), self.grid, mode="nearest", padding_mode="border", align_corners=False
        )
        return torch.where(self.inside, warped.squeeze(1).long(), BACKGROUND)

    def attention(self, attention: Tensor) -> Tensor:
        """Upsample attention (slices, classes, h, w) to the slice (H, W) and warp it, in one bilinear step."""
        return F.grid_sample(
            attention, self.grid, mode="bilinear", padding_mode="border", align_corners=False
        )


def draw(
    size: tuple[int, int], settings: AugmentSettings, seeds: Sequence[Sequence[int]], device: torch.device
) -> Augmentation:
    """Draw one random change for each slice.

    Args:
        size: (H, W) of the slices.
        settings: how much may change.
        seeds: integers that identify each slice's draw.
        device: where the batch is.
    """
    drawn = [_draw_one(size, settings, np.random.default_rng(list(seed))) for seed in seeds]
    angle, shift, contrast, noise = (np.stack(values) for values in zip(*drawn, strict=True))
    displacement = (
        _smooth(torch.from_numpy(noise).to(device), settings.elastic_sigma) * settings.elastic_alpha
    )
    grid = _grid(size, torch.from_numpy(angle).to(device), torch.from_numpy(shift).to(device), displacement)
    return Augmentation(grid, torch.from_numpy(contrast).to(device))


def _draw_one(size: tuple[int, int], settings: AugmentSettings, random: np.random.Generator) -> tuple:
    angle = math.radians(random.uniform(-settings.rotation_degrees, settings.rotation_degrees))
    shift = random.uniform(-settings.shift, settings.shift)
    contrast = random.uniform(*settings.contrast) if random.random() < settings.contrast_probability else 1.0
    if random.random() < settings.elastic_probability:
        noise = random.uniform(-1, 1, (2, *size)).astype(np.float32)
    else:
        noise = np.zeros((2, *size), np.float32)
    return np.float32(angle), np.float32(shift), np.float32(contrast), noise


def _grid(size: tuple[int, int], angle: Tensor, shift: Tensor, displacement: Tensor) -> Tensor:
    """Return the sampling grid of a rotation about the centre, a shift along W and a displacement in pixels."""
    H, W = size
    rows = torch.arange(H, device=angle.device) - (H - 1) / 2
    columns = torch.arange(W, device=angle.device) - (W - 1) / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    rotated_y = cosine * y - sine * x + displacement[:, 0]
    rotated_x = sine * y + cosine * x + displacement[:, 1] + shift[:, None, None] * W
    return torch.stack([rotated_x * 2 / W, rotated_y * 2 / H], -1)


def _smooth(noise: Tensor, sigma: float) -> Tensor:
    """Filter noise (slices, 2, H, W) with a Gaussian of ``sigma`` pixels."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=noise.device, dtype=noise.dtype)
    kernel = (-0.5 * (offsets / sigma) ** 2).exp()
    kernel = kernel / kernel.sum()
    planes = noise.flatten(0, 1).unsqueeze(1)
    planes = F.conv2d(planes, kernel[None, None, :, None], padding=(radius, 0))
    planes = F.conv2d(planes, kernel[None, None, None, :], padding=(0, radius))
    return planes.reshape(noise.shape)
