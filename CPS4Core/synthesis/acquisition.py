"""What reading an image line by line does to it: ringing, ghosts, motion, wrap, and fat beside its place.

Everything but the fat happens where a scanner works, in the spectrum of the image (k-space), along the direction in
which the lines follow one another (phase encoding).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from CPS4Core.synthesis.appearance import Appearance

RINGING, GHOSTS, MOTION, WRAP, SHIFTED_FAT = 0.35, 0.3, 0.2, 0.15, 0.5
"""Shares of the images that have each flaw."""
MOST_SHIFT_MM = 2.5
"""Of fat against water: up to three pixels of a scan with a narrow bandwidth."""


def read_out(draw: Appearance, images: Tensor) -> Tensor:
    """Return images (count, H, W) as they come out of a spectrum that was read line by line.

    Args:
        draw: the random source.
        images: signal, at least 0.
    """
    count, height, width = images.shape
    rows = torch.fft.fftfreq(height, device=draw.device)[:, None].expand(height, width // 2 + 1)
    columns = torch.fft.rfftfreq(width, device=draw.device).expand(height, -1)
    by_rows = (draw.rand(count) < 0.5)[:, None, None]
    line = torch.where(by_rows, rows, columns)  # in cycles a pixel

    spectrum = torch.fft.rfft2(images)
    spectrum = spectrum * (line.abs() <= _for_some(draw, RINGING, draw.uniform(count, 0.22, 0.5), 1.0))
    # A signal that pulsates from line to line shows again at a distance, to both sides.
    strength = _for_some(draw, GHOSTS, draw.uniform(count, 0, 0.2), 0.0)
    distance = draw.uniform(count, 8, 60)[:, None, None]
    spectrum = spectrum * (1 + strength * torch.cos(2 * math.pi * line * distance))
    # The patient moved before the outer lines were read.
    late = line.abs() > draw.uniform(count, 0.04, 0.25)[:, None, None]
    y, x = (_for_some(draw, MOTION, draw.uniform(count, -2.5, 2.5), 0.0) for _ in range(2))
    moved = torch.polar(torch.ones((), device=draw.device), -2 * math.pi * (rows * y + columns * x))
    spectrum = torch.where(late, spectrum * moved, spectrum)
    return _wrapped(draw, torch.fft.irfft2(spectrum, s=(height, width)).clamp_min(0))


def shift_fat(draw: Appearance, signal: Tensor, fat_share: Tensor, pixel_mm: float) -> Tensor:
    """Return the signal with that of fat beside its place, as its lower frequency makes a scanner believe.

    Args:
        draw: the random source.
        signal: (count, rows, columns).
        fat_share: which part of it comes from fat, 0 to 1, the same shape.
        pixel_mm: pixel size.
    """
    most = MOST_SHIFT_MM / pixel_mm
    # On the CPU: a shift by whole pixels is a number that the device would have to be waited for.
    pixels = most * (2 * torch.rand(len(signal), generator=draw.generator) - 1)
    pixels = pixels * (torch.rand(len(signal), generator=draw.generator) < SHIFTED_FAT)
    axes = torch.rand(len(signal), generator=draw.generator) < 0.5
    fat = signal * fat_share
    moved = [
        part.roll(int(shift), dims=int(axis))
        for part, shift, axis in zip(fat, pixels.round().tolist(), axes.tolist(), strict=True)
    ]
    return signal - fat + torch.stack(moved)


def _wrapped(draw: Appearance, images: Tensor) -> Tensor:
    """Fold what lies in front of the field of view onto its back, or what lies above onto its lower end."""
    count = len(images)
    strength = _for_some(draw, WRAP, draw.uniform(count, 0.2, 1.0), 0.0)
    dim = 1 + int(torch.randint(0, 2, (), generator=draw.generator))
    folded = int(images.shape[dim] * (0.04 + 0.14 * float(torch.rand((), generator=draw.generator))))
    images = images.clone()
    front, back = images.narrow(dim, 0, folded), images.narrow(dim, images.shape[dim] - folded, folded)
    back += strength * front
    return images


def _for_some(draw: Appearance, share: float, value: Tensor, otherwise: float) -> Tensor:
    """Return ``value`` for a share of the images and ``otherwise`` for the rest, to multiply images with."""
    chosen = draw.rand(len(value)) < share
    return torch.where(chosen, value, torch.full_like(value, otherwise))[:, None, None]
