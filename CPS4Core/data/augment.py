"""Random changes of place and of intensity, drawn on the CPU and made on the device of the batch.

One warp a slice moves the image, its labels and its attention maps alike. Each slice draws from its own generator,
seeded by run, step and place in the global batch: the same slices come out however many processes share the work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from CPS4Core.class_table import BACKGROUND
from CPS4Core.config import AugmentSettings
from CPS4Core.devices import moved

BIAS_POINTS = 3, 5
"""Points of the gain along H and W; between them it is smooth."""


@dataclass(frozen=True)
class Augmentation:
    """What happens to each slice of a batch."""

    grid: Tensor
    """Where each output pixel samples the input, as ``grid_sample`` takes it, shape (slices, H, W, 2)."""
    contrast: Tensor
    """Factor on the deviation from the slice's mean, shape (slices,)."""
    gamma: Tensor | None = None
    """Exponent of the intensities, scaled to 0 to 1 in each slice, shape (slices,)."""
    bias: Tensor | None = None
    """Logarithm of the coil's gain at a few points, which lie evenly over the slice, shape (slices, 1, h, w)."""
    blur: Tensor | None = None
    """Standard deviation of a Gaussian filter in pixels, shape (slices,), on the CPU."""

    @property
    def of_place(self) -> Augmentation:
        """The same change without that of intensities."""
        return Augmentation(self.grid, torch.ones_like(self.contrast))

    @property
    def inside(self) -> Tensor:
        """Which output pixels come from within the slice, bool, shape (slices, H, W)."""
        return (self.grid.abs() <= 1).all(-1)

    def images(self, images: Tensor) -> Tensor:
        """Warp slices (slices, 1, H, W), zero outside, and change their intensities."""
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (images - mean) * self.contrast[:, None, None, None] + mean
        if self.gamma is not None or self.bias is not None:
            images = self._tone(images)
        if self.blur is not None:
            images = blur(images, self.blur)
        return F.grid_sample(images, self.grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _tone(self, images: Tensor) -> Tensor:
        """Apply gamma and gain to what lies above the darkest pixel of each slice."""
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        width = (high - low).clamp_min(1e-6)
        values = (images - low) / width
        if self.gamma is not None:
            values = values ** self.gamma[:, None, None, None]
        if self.bias is not None:
            gain = F.interpolate(self.bias, size=images.shape[-2:], mode="bicubic", align_corners=True)
            values = values * gain.exp()
        return low + width * values

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


@dataclass(frozen=True)
class Draws:
    """The random numbers of each slice's change, (slices, ...); drawn on the CPU, then moved to the device."""

    angle: Tensor
    shift: Tensor
    contrast: Tensor
    noise: Tensor
    """Of the elastic change, shape (slices, 2, H, W)."""
    scale: Tensor
    gamma: Tensor
    bias: Tensor
    sigma: tuple[float, ...]
    """Of the blur; it decides how large a filter is, for which nobody should wait for the device."""

    def augmentation(self, settings: AugmentSettings) -> Augmentation:
        """Return the change, on the device where the numbers are.

        Args:
            settings: those that the numbers were drawn with.
        """
        width = torch.full((len(self.noise),), settings.elastic_sigma)
        displacement = blur(self.noise, width, outside="zeros") * settings.elastic_alpha
        return Augmentation(
            _grid(self.angle, self.shift, displacement, self.scale),
            self.contrast,
            self.gamma if settings.gamma else None,
            self.bias if settings.bias else None,
            torch.tensor(self.sigma) if settings.blur else None,
        )


def draw(size: tuple[int, int], settings: AugmentSettings, seeds: Sequence[Sequence[int]]) -> Draws:
    """Draw one random change for each slice.

    Args:
        size: (H, W) of the slices.
        settings: how much may change.
        seeds: integers that identify each slice's draw.
    """
    drawn = [_draw_one(size, settings, np.random.default_rng(list(seed))) for seed in seeds]
    angle, shift, contrast, noise, scale, gamma, bias, sigma = (
        torch.from_numpy(np.stack(values)) for values in zip(*drawn, strict=True)
    )
    return Draws(angle, shift, contrast, noise, scale, gamma, bias, tuple(sigma.tolist()))


def _draw_one(
    size: tuple[int, int], settings: AugmentSettings, random: np.random.Generator
) -> tuple[np.ndarray, ...]:
    angle = math.radians(random.uniform(-settings.rotation_degrees, settings.rotation_degrees))
    shift = random.uniform(-settings.shift, settings.shift)
    contrast = random.uniform(*settings.contrast) if random.random() < settings.contrast_probability else 1.0
    if random.random() < settings.elastic_probability:
        noise = random.standard_normal((2, *size), np.float32)
    else:
        noise = np.zeros((2, *size), np.float32)
    scale, gamma = (
        math.exp(random.uniform(-1, 1) * math.log1p(most)) for most in (settings.scale, settings.gamma)
    )
    bias = settings.bias * random.standard_normal((1, *BIAS_POINTS), np.float32)
    sigma = random.uniform(0, settings.blur)
    drawn = (angle, shift, contrast, noise, scale, gamma, bias, sigma)
    return tuple(np.asarray(value, np.float32) for value in drawn)


def _grid(angle: Tensor, shift: Tensor, displacement: Tensor, scale: Tensor) -> Tensor:
    """Return the sampling grid of a turn and a zoom about the centre, a shift along W, a displacement in pixels."""
    H, W = displacement.shape[-2:]
    rows = torch.arange(H, device=angle.device) - (H - 1) / 2
    columns = torch.arange(W, device=angle.device) - (W - 1) / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    cosine, sine = ((f(angle) / scale)[:, None, None] for f in (torch.cos, torch.sin))
    rotated_y = cosine * y - sine * x + displacement[:, 0]
    rotated_x = sine * y + cosine * x + displacement[:, 1] + shift[:, None, None] * W
    return torch.stack([rotated_x * 2 / W, rotated_y * 2 / H], -1)


def blur(planes: Tensor, sigma: Tensor, outside: Literal["edge", "zeros"] = "edge") -> Tensor:
    """Filter images with a Gaussian, each with its own.

    Args:
        planes: shape (images, channels, H, W).
        sigma: in pixels, >= 0, shape (images,); on the CPU, or the device is waited for.
        outside: what lies beyond the border.
    """
    radius = max(1, math.ceil(3 * max(sigma.tolist())))
    offsets = torch.arange(-radius, radius + 1, device=sigma.device, dtype=planes.dtype)
    kernel = (-0.5 * (offsets / sigma[:, None].clamp_min(1e-3)) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(planes.shape[1], 0)[:, None]
    kernel = moved(kernel, planes.device)
    rows = planes.flatten(0, 1)[None]
    mode = "replicate" if outside == "edge" else "constant"
    rows = F.pad(rows, (radius, radius, radius, radius), mode)
    rows = F.conv2d(rows, kernel[..., None], groups=len(kernel))
    return F.conv2d(rows, kernel[:, :, None], groups=len(kernel)).reshape(planes.shape)
