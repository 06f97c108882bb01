"""From any volume to canonical slices and back, exactly.

A stack of slices is an array (slices, AP, SI): slices from right to left, rows from anterior to posterior, columns
from superior to inferior, as in the paper (256 x 512). Axes are permuted and flipped to the nearest anatomical ones,
which an oblique volume keeps too; only the two in-plane axes are ever interpolated. Coordinates are those of pixel
centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from CPS4Core.class_table import BACKGROUND
from CPS4Core.config import InputSettings
from CPS4Core.data.axis import Axis
from CPS4Core.data.best_classes import ScoresAt, best_classes
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter, Warned, silent

CANONICAL = ("L", "P", "I")
"""Where the axes of a stack of slices point: slices to the left, rows posterior, columns inferior."""
OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "I": "S", "S": "I"}
THICK_MM = 2.0
"""Slices thinner than this can be cut in any direction."""
CLIP_PERCENT = 0.5
"""Share of the darkest and of the brightest pixels that are clipped before standardising."""
FEWEST_SHOWN = 16
"""A picture has at least so many rows and columns; with fewer, no border is taken off."""
Stack = TypeVar("Stack", np.ndarray, Tensor)
ONE_SLICE_LACKS = "what lies beside it is missing, and nothing can be measured in 3D"
"""What the user should know of a scan of one slice."""


@dataclass(frozen=True)
class SliceGrid:
    """Where canonical slices lie in a volume.

    Build it with ``SliceGrid.of``.
    """

    size: tuple[int, int, int]
    """Of the volume, in the order of its axes x, y, z."""
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    order: tuple[int, int, int]
    """Array axes (z, y, x) of the volume in the order slices, rows, columns."""
    flips: tuple[int, ...]
    """Axes of the stack that run against those of the volume."""
    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, image: sitk.Image, settings: InputSettings, whole: bool = False) -> SliceGrid:
        """Lay canonical slices into a volume.

        A canvas of fixed spacing leaves out an empty border, which many a scan has been padded with: nothing is to be
        found there, and it would shift the standardised intensities.

        Args:
            image: a 3D volume of any orientation.
            settings: size and spacing of the canvas.
            whole: let a canvas of fixed spacing grow until it covers the whole picture, for inference.
        """
        order, flips = stack_axes(image.GetDirection())
        lengths = [image.GetSize()[::-1][axis] for axis in order]
        spacing = [image.GetSpacing()[::-1][axis] for axis in order]
        if settings.spacing_mm is None:
            # The paper: the centre half of the rows and all columns, stretched to the canvas.
            rows = Axis.stretched(lengths[1], settings.size[0], lengths[1] / 4, lengths[1] / 2)
            columns = Axis.stretched(lengths[2], settings.size[1], 0.0, float(lengths[2]))
        else:
            array = sitk.GetArrayViewFromImage(image)
            lowest = array.min()
            rows, columns = (
                Axis.centred(
                    lengths[k],
                    settings.size[k - 1],
                    settings.spacing_mm / spacing[k],
                    whole,
                    _empty_border(array, lowest, order[k], turned=k in flips),
                )
                for k in (1, 2)
            )
        return cls(
            image.GetSize(),
            image.GetSpacing(),
            image.GetOrigin(),
            image.GetDirection(),
            order,
            flips,
            rows,
            columns,
        )

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between slices and between the canvas's rows and columns, in mm."""
        slices, rows, columns = (self.spacing[::-1][axis] for axis in self.order)
        return slices, rows * self.rows.step, columns * self.columns.step

    def crop(self, stack: Stack) -> Stack:
        """Return the part of slices (..., AP, SI) that lies inside the picture, without the empty canvas; a view."""
        return stack[..., self.rows.window, self.columns.window]

    def to_slices(self, image: sitk.Image) -> np.ndarray:
        """Return the standardised slices of a volume, float32, (slices, AP, SI); zero outside of the picture.

        Intensities are interpolated with cubic splines, clipped to their central 99 % and standardised to mean 0
        and standard deviation 1 over the picture.
        """
        # Products by torch: after numpy's, idle threads of its own would hold up the networks.
        stack = torch.from_numpy(self._canonical(sitk.GetArrayViewFromImage(image)).astype(np.float32))
        slices = self.columns.resample(self.rows.resample(stack).mT).mT.contiguous().numpy()
        values = self.crop(slices)
        values = values.clip(*np.percentile(values, [CLIP_PERCENT, 100 - CLIP_PERCENT]))
        self.crop(slices)[:] = (values - values.mean()) / max(float(values.std()), 1e-6)
        return slices

    def labels_to_slices(self, labels: sitk.Image) -> np.ndarray:
        """Return the labels on the canvas, uint8, (slices, AP, SI), nearest neighbour; background outside."""
        stack = self._canonical(sitk.GetArrayViewFromImage(labels))
        rows, columns = (
            axis.positions.round().astype(int).clip(axis.first, axis.last)
            for axis in (self.rows, self.columns)
        )
        slices = stack[:, rows][:, :, columns].astype(np.uint8)
        slices[:, ~self.rows.inside] = BACKGROUND
        slices[:, :, ~self.columns.inside] = BACKGROUND
        return slices

    def labels_from_slices(self, scores_at: ScoresAt, best: Tensor) -> Tensor:
        """Return the best class at each of the volume's own pixels, uint8, (slices, rows, columns).

        The scores are interpolated linearly, so that borders are smooth. Outside the canvas is background.
        ``to_image`` makes a volume of the labels of all slices.

        Args:
            scores_at: returns the class scores at some pixels of the canvas (see ``ScoresAt``).
            best: the class with the highest score, uint8, shape (slices, AP, SI), on any device.
        """
        return best_classes(scores_at, best, self.rows, self.columns)

    def map_from_slices(self, values: np.ndarray) -> sitk.Image:
        """Return values on the canvas (slices, AP, SI) on the volume's own grid, float32, linear; 0 outside."""
        stack = np.zeros(self._stack_shape(), np.float32)
        rows, columns = self.rows.back(), self.columns.back()
        for plane, found in zip(stack, values, strict=True):
            plane[rows[0], columns[0]] = _interpolate(found.astype(np.float32), rows, columns)
        return self.to_image(stack)

    def to_image(self, stack: np.ndarray) -> sitk.Image:
        """Return a stack of the volume's own pixels as an image with the volume's geometry."""
        array = np.flip(stack, self.flips).transpose(np.argsort(self.order))
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def _canonical(self, array: np.ndarray) -> np.ndarray:
        return np.flip(array.transpose(self.order), self.flips)

    def _stack_shape(self) -> tuple[int, int, int]:
        slices, rows, columns = (self.size[::-1][axis] for axis in self.order)
        return slices, rows, columns


def check_sagittal(image: sitk.Image, path: Path | None = None, report: Reporter = silent) -> None:
    """Check that the volume can be cut into sagittal slices, of which one is enough.

    Args:
        image: a 3D volume.
        path: where it comes from.
        report: receives a warning on what a single slice lacks.

    Raises:
        CPS4Error: if it is a stack of thick axial or coronal slices, or a single one of these.
    """
    order, _ = stack_axes(image.GetDirection())
    left_right, *in_plane = (image.GetSpacing()[::-1][axis] for axis in order)
    lengths = [image.GetSize()[::-1][axis] for axis in order[1:]]
    for length, spacing, name in zip(lengths, in_plane, ("coronal", "axial"), strict=True):
        if length < 2:
            raise CPS4Error(
                f"The scan is a single {name} slice.", "Choose the sagittal series of the same study.", path
            )
        if spacing > THICK_MM and spacing > 2 * left_right and spacing >= max(in_plane):
            raise CPS4Error(
                f"The scan is a stack of {name} slices, {spacing:.1f} mm apart.",
                "Choose the sagittal series of the same study.",
                path,
            )
    if is_single_slice(image):
        report(Warned(f"The scan is a single sagittal slice: {ONE_SLICE_LACKS}."))


def is_single_slice(image: sitk.Image) -> bool:
    """Return whether a volume is one sagittal slice."""
    order, _ = stack_axes(image.GetDirection())
    return image.GetSize()[::-1][order[0]] == 1


def warn_of_single_slices(cases: int, report: Reporter) -> None:
    """Report how many cases of a data set are single slices, if any are."""
    if cases:
        report(
            Warned(f"{cases} {'case is' if cases == 1 else 'cases are'} a single slice: {ONE_SLICE_LACKS}.")
        )


def stack_axes(direction: tuple[float, ...]) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Return how an array (z, y, x) of a volume becomes a stack of slices.

    Args:
        direction: the volume's direction cosines.

    Returns:
        The order of the array's axes in the stack, and the axes of the stack to flip.
    """
    pointing = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)[::-1]
    slices, rows, columns = (
        next(axis for axis, letter in enumerate(pointing) if letter in (wanted, OPPOSITE[wanted]))
        for wanted in CANONICAL
    )
    order = (slices, rows, columns)
    flips = tuple(k for k, wanted in enumerate(CANONICAL) if pointing[order[k]] != wanted)
    return order, flips


def _empty_border(array: np.ndarray, lowest: float, axis: int, turned: bool) -> tuple[int, int]:
    """Return how many planes of a volume show nothing but its lowest value, before and after the picture.

    None where hardly anything would be left.

    Args:
        array: of the volume.
        lowest: its lowest value.
        axis: across the planes.
        turned: count from the other end.
    """
    planes = np.moveaxis(array, axis, 0)
    before, after = (
        next((k for k, plane in enumerate(towards) if (plane != lowest).any()), len(planes))
        for towards in (planes, planes[::-1])
    )
    if len(planes) - before - after < FEWEST_SHOWN:
        return 0, 0
    return (after, before) if turned else (before, after)


def _interpolate(values: np.ndarray, rows: tuple, columns: tuple) -> np.ndarray:
    """Interpolate values (H, W) linearly, first along the columns, then along the rows."""
    for axis, (_, before, weight) in ((1, columns), (0, rows)):
        weight = weight if axis == 1 else weight[:, None]
        low = values.take(before, axis)
        values = low + weight * (values.take(before + 1, axis) - low)
    return values
