"""Whole phantom volumes: patient, scanner, and the grid of the file."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from CPS4Core.synthesis.phantom.patient import PhantomPatient, draw_phantom_patient
from CPS4Core.synthesis.phantom.scan import Protocol, Scan

STORED_ORIENTATIONS = tuple(
    "".join(letters)
    for axes in itertools.permutations(("LR", "PA", "SI"))
    for letters in itertools.product(*axes)
)
"""The 48 ways in which a volume's axes can point."""
CANONICAL_DIRECTION = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], float)
"""Columns: where x (feet), y (back) and z (left) of the painted grid point in the patient."""


@dataclass(frozen=True)
class PhantomOptions:
    """What may vary between phantoms."""

    slices: tuple[int, int] = (12, 18)
    pixel_mm: tuple[float, float] = (1.0, 1.4)
    field_of_view_mm: tuple[float, float] = (270.0, 340.0)
    vary_orientation: bool = True
    """Store the axes in any of the 48 orders and directions, slightly oblique."""
    pathology: bool = True


@dataclass(frozen=True)
class Phantom:
    """A synthetic scan and its true labels, on one grid."""

    image: sitk.Image
    """int16."""
    labels: sitk.Image
    """Class labels, uint8."""
    patient: PhantomPatient


def make_phantom(seed: int, options: PhantomOptions | None = None) -> Phantom:
    """Make one phantom volume; the same seed and options give the same voxels.

    Args:
        seed: identifies the patient and the scan.
        options: what may vary; the defaults if None.
    """
    options = options or PhantomOptions()
    random = np.random.default_rng([seed, 4])
    patient = draw_phantom_patient(random, options.pathology)
    protocol = _draw_protocol(random, patient, options)
    image, labels = Scan(patient, protocol, random).run()
    direction = CANONICAL_DIRECTION
    orientation = None
    if options.vary_orientation:
        direction = Rotation.from_euler("xyz", random.normal(0, 4, 3), degrees=True).as_matrix() @ direction
        orientation = STORED_ORIENTATIONS[random.integers(len(STORED_ORIENTATIONS))]
    spacing = (protocol.pixel_mm, protocol.pixel_mm, protocol.slice_mm)
    origin = random.uniform(-60, 60, 3)
    scan, truth = (
        _as_image(array, spacing, origin, direction, orientation)
        for array in (image.clip(0, 32767).astype(np.int16), labels)
    )
    return Phantom(scan, truth, patient)


def _draw_protocol(random: np.random.Generator, patient: PhantomPatient, options: PhantomOptions) -> Protocol:
    pixel = random.uniform(*options.pixel_mm)
    extent = random.uniform(*options.field_of_view_mm)
    centre_z = random.normal(95, 22) * patient.size
    line = np.array(sorted((element.z, element.y) for element in patient.elements))
    spine_y = np.interp(centre_z, line[:, 0], line[:, 1])
    return Protocol(
        slices=int(random.integers(options.slices[0], options.slices[1] + 1)),
        slice_mm=float(random.uniform(4.0, 4.8)),
        pixel_mm=float(pixel),
        rows=round(extent / pixel),
        columns=round(extent * random.uniform(0.95, 1.05) / pixel),
        centre=(float(random.normal(0, 3)), float(spine_y + random.normal(8, 10)), float(centre_z)),
        roll=tuple(np.radians(random.normal(0, (5, 2, 3)))),
        fat=float(random.uniform(0.7, 1.1)),
        marrow=float(random.uniform(0.32, 0.6)),
        muscle=float(random.uniform(0.14, 0.26)),
        cord=float(random.uniform(0.42, 0.6)),
        noise=float(random.uniform(0.015, 0.05)),
        blur=float(random.uniform(0.4, 0.8)),
        gamma=float(random.uniform(0.8, 1.25)),
        gain=float(random.uniform(250, 1200)),
        coil_depth=float(random.uniform(80, 220)),
        saturation=float(random.uniform(0.12, 0.5) if random.random() < 0.6 else 1.0),
    )


def _as_image(
    array: np.ndarray,
    spacing: tuple[float, float, float],
    origin: np.ndarray,
    direction: np.ndarray,
    orientation: str | None,
) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image if orientation is None else sitk.DICOMOrient(image, orientation)
