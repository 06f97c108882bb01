"""Random appearance: tissue maps become images of any scanner, drawn anew at each step, on the device.

Each tissue gets a signal from a prior (T2-, T1-, STIR-, water- or fat-like) or from nowhere, each structure a
change of its own; then fat beside its place, texture, partial volume, coil, bias, saturation bands, what reading line
by line does (``acquisition``), resolution, noise, and the borders of the field of view. (Billot et al., SynthSeg,
Medical Image Analysis 2023, draw signals at random from label maps; tissues finer than the labels, and priors, bring
them nearer to what scanners make.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from CPS4Core.class_table import BACKGROUND
from CPS4Core.devices import moved
from CPS4Core.synthesis.acquisition import read_out, shift_fat
from CPS4Core.synthesis.bank import PIXEL_MM
from CPS4Core.synthesis.contrasts import SHARES, fat_shares, mean_signals
from CPS4Core.synthesis.tissues import LABEL_OF, STRUCTURE_OF, STRUCTURES, TISSUE_OF, TISSUES

LEAST_PIXELS = 64
"""A picture with fewer pixels in the field of view shows nothing."""
SAMPLED = 7
"""Of every so many pixels one tells how bright an image is; odd, so that not all are of the same columns."""
_SHARES = torch.tensor(list(SHARES.values()))
_MEANS = mean_signals()
_FAT_SHARES = fat_shares()
_TISSUE_OF, _STRUCTURE_OF = torch.from_numpy(TISSUE_OF), torch.from_numpy(STRUCTURE_OF)
_LABEL_OF = torch.from_numpy(LABEL_OF.astype("int64"))


class Appearance:
    """Draws images and labels from tissue maps.

    Args:
        size: (H, W) of the images.
        spacing_mm: their pixel size.
        generator: source of all that varies, on the CPU; the same state gives the same images.
        device: where to compute.
    """

    def __init__(
        self, size: tuple[int, int], spacing_mm: float, generator: torch.Generator, device: torch.device
    ):
        self.size = size
        self.spacing_mm = spacing_mm
        self.generator = generator
        self.device = device

    def __call__(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and labels of patients.

        Args:
            maps: tissue codes, uint8, (patients, planes, rows, columns).

        Returns:
            Standardised images (patients, 1, H, W) and class labels, int64, (patients, H, W).
        """
        codes = moved(maps, self.device).long()
        signal = self._signal(codes)
        grid, inside = self._view(len(maps), codes.shape[-2:])
        images = F.grid_sample(signal, grid, padding_mode="border", align_corners=False)
        labels = _LABEL_OF.to(self.device)[codes[:, 0]]
        labels = nearest(labels, grid)
        return finish(self._scanner(images), labels.masked_fill(~inside, BACKGROUND), inside, self)

    # Signal

    def _signal(self, codes: Tensor) -> Tensor:
        """Return the signal with its texture, averaged over the planes, (patients, 1, rows, columns)."""
        patients, planes, rows, columns = codes.shape
        table = self._table(patients)
        flat = codes.flatten(1)
        signal = table.gather(1, flat).view(patients, planes, rows, columns)
        share = self.uniform(patients, 0.5, 1.0)[:, None, None] if planes == 2 else 1.0
        signal = signal[:, 0] * share + signal[:, -1] * (1 - share)
        fat = _FAT_SHARES.to(self.device)[_TISSUE_OF.to(self.device)[codes[:, 0]]]
        signal = shift_fat(self, signal, fat, PIXEL_MM)
        fine, coarse = (
            self.noise(patients, rows // 3, columns // 3, rows, columns),
            self.noise(patients, 20, 38, rows, columns),
        )
        signal = signal * (1 + self.up_to(patients, 0.14) * fine + self.up_to(patients, 0.12) * coarse)
        return signal.clamp_min(0)[:, None]

    def _table(self, patients: int) -> Tensor:
        """Return a signal for each code, (patients, codes)."""
        prior = torch.multinomial(
            torch.cat([_SHARES, 1 - _SHARES.sum(0, keepdim=True)]),
            patients,
            replacement=True,
            generator=self.generator,
        )
        anything = torch.rand(patients, len(TISSUES), generator=self.generator)
        means = torch.cat([_MEANS, _MEANS[:1]])[prior]
        spread = torch.rand(patients, 1, generator=self.generator) * 0.16
        near = means * (1 + 2 * spread * self.normal_cpu(patients, len(TISSUES))) + spread * self.normal_cpu(
            patients, len(TISSUES)
        )
        from_nowhere = (prior == len(SHARES))[:, None]
        tissues = torch.where(from_nowhere, anything, near).clamp(0, 1.4)
        index = {name: place for place, name in enumerate(TISSUES)}

        def set_where(share: float, target: str, value: Tensor) -> None:
            chosen = from_nowhere[:, 0] & (torch.rand(patients, generator=self.generator) < share)
            tissues[:, index[target]] = torch.where(chosen, value, tissues[:, index[target]])

        def factor(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(patients, generator=self.generator)

        # What holds of nearly every sequence: air is dark, cortical bone too, marrow is marrow in front and behind.
        set_where(0.95, "air", 0.03 * factor(0, 1))
        set_where(0.95, "metal", 0.05 * factor(0, 1))
        set_where(0.95, "implant", 0.05 * factor(0, 1))
        set_where(0.85, "cortex", tissues[:, index["marrow"]] * factor(0.05, 0.6))
        set_where(0.8, "posterior_marrow", tissues[:, index["marrow"]] * factor(0.8, 1.25))
        set_where(0.8, "posterior_cortex", tissues[:, index["cortex"]])
        set_where(0.7, "epidural_fat", tissues[:, index["fat"]])
        set_where(0.7, "presacral_fat", tissues[:, index["fat"]])
        set_where(0.7, "sclerosis", tissues[:, index["marrow"]] * factor(0.6, 1.2))
        set_where(0.6, "cleft", tissues[:, index["nucleus"]])
        set_where(0.5, "endplate", tissues[:, index["marrow"]] * factor(0.6, 1.5))

        table = tissues[:, _TISSUE_OF]
        # Each structure a little brighter or darker than its neighbours; discs from bright to black.
        own = 1 + 0.14 * torch.rand(patients, 1, generator=self.generator) * self.normal_cpu(
            patients, STRUCTURES
        )
        table = table * own[:, _STRUCTURE_OF]
        dryness = torch.rand(patients, 1, generator=self.generator) * torch.rand(
            patients, STRUCTURES, generator=self.generator
        )
        annulus = table[:, _ANNULUS_OF]
        table = torch.where(
            _IS_CORE, annulus + (table - annulus) * (1 - 0.95 * dryness[:, _STRUCTURE_OF]), table
        )
        # Contents of the belly differ more.
        organs = torch.rand(patients, len(_ORGANS), generator=self.generator)
        mixed = torch.rand(patients, 1, generator=self.generator)
        table[:, _ORGANS] = table[:, _ORGANS] * mixed + organs * table[:, _ORGANS].amax(1, keepdim=True) * (
            1 - mixed
        )
        # Lesions and changed end-plates may be anything.
        changed = torch.rand(patients, len(_CHANGED), generator=self.generator) * 1.1
        table[:, _CHANGED] = torch.where(
            torch.rand(changed.shape, generator=self.generator) < 0.5, changed, table[:, _CHANGED]
        )
        return moved(table.clamp(0, 1.6), self.device)

    # Where and how large

    def _view(self, patients: int, rows_columns: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return where each pixel of the images lies in the maps (for ``grid_sample``), and which lie in them."""
        rows, columns = rows_columns
        return view(
            self,
            patients,
            (rows, columns),
            PIXEL_MM,
            turn=12.0,
            scale=(0.78, 1.25),
            stretch=0.1,
            shift=(28.0, 75.0),
            bend=6.0,
        )

    # The scanner

    def _scanner(self, images: Tensor) -> Tensor:
        """Return images (patients, 1, H, W) with the flaws of coils, sequences and motion."""
        patients, _, height, width = images.shape
        images = images[:, 0]
        images = images * self.shading(patients)
        # A saturation band in front of the spine.
        band = torch.where(
            self.rand(patients) < 0.35, self.uniform(patients, 0.05, 0.7), torch.ones((), device=self.device)
        )
        edge = self.uniform(patients, 0.08, 0.45)[:, None, None] * height + self.uniform(
            patients, -0.15, 0.15
        )[:, None, None] * (torch.arange(width, device=self.device) - width / 2)
        front = ((torch.arange(height, device=self.device)[None, :, None] - edge) / 6).clamp(0, 1)
        images = images * (band[:, None, None] + (1 - band[:, None, None]) * front)
        images = read_out(self, images) ** self.uniform(patients, 0.65, 1.5)[:, None, None]
        return images[:, None]

    def shading(self, patients: int) -> Tensor:
        """Return the bias field and the fall of a surface coil's signal to the front, (patients, H, W)."""
        height, width = self.size
        bias = (self.up_to(patients, 0.35) * self.noise(patients, 3, 4, height, width)).exp()
        fall = self.uniform(patients, 0, 3.2)[:, None, None] * (self.rand(patients) < 0.75)[:, None, None]
        depth = torch.arange(height, device=self.device)[None, :, None] / height - 0.6
        along = (torch.arange(width, device=self.device)[None, None] / width - 0.5) * 2
        ends = (
            -self.up_to(patients, 1.2) * (along - self.uniform(patients, -0.3, 0.3)[:, None, None]) ** 2
        ).exp()
        return bias * (depth * fall).exp() * ends

    # Tools; everything is drawn on the CPU, so that a seed means the same on every device

    def rand(self, *shape: int) -> Tensor:
        """Return numbers in (0, 1)."""
        return moved(torch.rand(shape, generator=self.generator), self.device)

    def number(self, low: float, high: float) -> float:
        """Return one number between two others, which is known without asking the device."""
        return float(low + (high - low) * torch.rand(1, generator=self.generator))

    def normal_cpu(self, *shape: int) -> Tensor:
        """Return normal numbers, on the CPU."""
        return torch.randn(shape, generator=self.generator)

    def uniform(self, count: int, low: float, high: float) -> Tensor:
        """Return ``count`` numbers between two others."""
        return low + (high - low) * self.rand(count)

    def up_to(self, count: int, most: float) -> Tensor:
        """Return ``count`` numbers from 0 to ``most``, to multiply images (count, H, W) with."""
        return self.uniform(count, 0, most)[:, None, None]

    def noise(self, count: int, coarse_rows: int, coarse_columns: int, rows: int, columns: int) -> Tensor:
        """Return smooth noise of about unit size, (count, rows, columns)."""
        drawn = moved(self.normal_cpu(count, 1, coarse_rows, coarse_columns), self.device)
        return F.interpolate(drawn, (rows, columns), mode="bilinear", align_corners=False)[:, 0]


def view(
    draw: Appearance,
    count: int,
    source: Sequence[int],
    source_mm: float,
    *,
    turn: float,
    scale: tuple[float, float],
    stretch: float,
    shift: tuple[float, float],
    bend: float,
) -> tuple[Tensor, Tensor]:
    """Draw how ``count`` pictures look at their sources: turned, scaled, shifted and bent.

    Args:
        draw: the random source, the size and the spacing of the pictures.
        count: how many.
        source: rows and columns of the source.
        source_mm: its pixel size.
        turn: largest rotation, in degrees.
        scale: smallest and largest magnification.
        stretch: largest difference of the magnification of rows and columns.
        shift: largest shift along rows and columns, in mm.
        bend: largest elastic shift, in mm.

    Returns:
        A grid for ``grid_sample``, (count, H, W, 2), and which pixels lie in the source, (count, H, W).
    """
    height, width = draw.size
    y, x = torch.meshgrid(
        (torch.arange(height, device=draw.device) - (height - 1) / 2) * draw.spacing_mm,
        (torch.arange(width, device=draw.device) - (width - 1) / 2) * draw.spacing_mm,
        indexing="ij",
    )
    angle = draw.uniform(count, -turn, turn)[:, None, None] * (math.pi / 180)
    size = torch.exp(draw.uniform(count, math.log(scale[0]), math.log(scale[1])))[:, None, None]
    aspect = 1 + draw.uniform(count, -stretch, stretch)[:, None, None]
    cosine, sine = angle.cos(), angle.sin()
    rows = (cosine * y - sine * x) / (size * aspect) + draw.uniform(count, -shift[0], shift[0])[:, None, None]
    columns = (sine * y + cosine * x) / size + draw.uniform(count, -shift[1], shift[1])[:, None, None]
    for axis in (rows, columns):
        axis += draw.up_to(count, bend) * draw.noise(count, 4, 7, height, width)
        axis += draw.up_to(count, bend / 5) * draw.noise(count, 14, 24, height, width)
    grid = torch.stack([columns * 2 / (source[1] * source_mm), rows * 2 / (source[0] * source_mm)], -1)
    return grid, (grid.abs() <= 1).all(-1)


def finish(images: Tensor, labels: Tensor, inside: Tensor, draw: Appearance) -> tuple[Tensor, Tensor]:
    """Lower the resolution, add noise, cut the field of view, and standardise.

    Args:
        images: (count, 1, H, W).
        labels: (count, H, W).
        inside: pixels that are known, (count, H, W).
        draw: the random source.

    Returns:
        The images and the labels; outside the field of view the images are 0 and the labels background.
    """
    count, _, height, width = images.shape
    scaled = images.std((1, 2, 3), keepdim=True)
    for k in range(count):
        coarse_rows, coarse_columns = (max(16, int(side / draw.number(1.0, 2.0))) for side in (height, width))
        small = F.interpolate(images[k : k + 1], (coarse_rows, coarse_columns), mode="area")
        noise = moved(draw.normal_cpu(*small.shape), draw.device)
        small = small + noise * scaled[k] * draw.number(0, 0.12)
        images[k : k + 1] = F.interpolate(small, (height, width), mode="bicubic", align_corners=False)
    noise = moved(draw.normal_cpu(*images.shape), draw.device)
    images = images + noise * scaled * draw.up_to(count, 0.15)[:, None]
    inside = inside & field_of_view(draw, count)
    images = standardise(images, inside)
    # A volume is standardised as a whole: a slice of it is not quite.
    images = (
        images * draw.uniform(count, 0.8, 1.25)[:, None, None, None]
        + draw.uniform(count, -0.2, 0.2)[:, None, None, None]
    )
    return images * inside[:, None], labels.masked_fill(~inside, BACKGROUND)


def nearest(labels: Tensor, grid: Tensor) -> Tensor:
    """Return labels (count, rows, columns) at the points of a grid, int64; background outside."""
    sampled = F.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)
    return sampled[:, 0].long()


def standardise(images: Tensor, inside: Tensor) -> Tensor:
    """Clip images (count, 1, H, W) to their central 99 % and standardise them where ``inside``; else 0.

    The device is never waited for.
    """
    pixels, known = images.flatten(1), inside.flatten(1)
    sample = pixels.masked_fill(~known, math.nan)[:, ::SAMPLED]
    low, high = torch.nanquantile(sample, torch.tensor([0.005, 0.995], device=images.device), dim=1)[
        ..., None
    ]
    clipped = torch.where(known, pixels.clamp(low, high), 0)
    count = known.sum(1, keepdim=True)
    centred = (clipped - clipped.sum(1, keepdim=True) / count) * known
    deviation = (centred.square().sum(1, keepdim=True) / (count - 1)).sqrt()
    standard = centred / deviation.clamp_min(1e-6)
    enough = known[:, ::SAMPLED].sum(1, keepdim=True) >= LEAST_PIXELS // SAMPLED
    return torch.where(enough, standard, 0).view_as(images)


def field_of_view(draw: Appearance, count: int) -> Tensor:
    """Return which pixels a scanner's field of view holds, from four levels to the whole canvas, (count, H, W)."""
    height, width = draw.size
    rows, columns = torch.arange(height, device=draw.device), torch.arange(width, device=draw.device)
    deep = draw.uniform(count, 0.72, 1.1) * height
    wide = draw.uniform(count, 0.55, 1.1) * width
    whole = draw.rand(count) < 0.25
    deep, wide = torch.where(whole, height * 1.0, deep), torch.where(whole, width * 1.0, wide)
    top = draw.rand(count) * (height - deep).clamp_min(0)
    left = draw.rand(count) * (width - wide).clamp_min(0)
    in_rows = (rows >= top[:, None]) & (rows < (top + deep)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    return in_rows[:, :, None] & in_columns[:, None]


def _code_tables() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return of each code: its annulus, whether it is a disc's core, the belly's codes, and what disease changes."""
    names = [TISSUES[place] for place in TISSUE_OF]
    annulus = torch.arange(len(names))
    for code, name in enumerate(names):
        if name in ("nucleus", "cleft"):
            annulus[code] = next(
                other
                for other in range(len(names))
                if names[other] == "annulus" and STRUCTURE_OF[other] == STRUCTURE_OF[code]
            )
    core = torch.tensor([name in ("nucleus", "cleft") for name in names])
    organs = torch.tensor([code for code, name in enumerate(names) if name.startswith("organ")])
    changed = torch.tensor([code for code, name in enumerate(names) if name in ("lesion", "endplate")])
    return annulus, core, organs, changed


_ANNULUS_OF, _IS_CORE, _ORGANS, _CHANGED = _code_tables()
