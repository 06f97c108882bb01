"""A T2-weighted sagittal scan of a phantom patient: tissues, coil, noise, and the true labels.

Tissues are painted one over the other with soft borders, so that a pixel at a border holds a mixture; slices are
averages of thinner ones. Signals are relative to cerebrospinal fluid at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from CPS4Core.class_table import BACKGROUND
from CPS4Core.synthesis.phantom.patient import Element, PhantomPatient
from CPS4Core.synthesis.shapes import ellipsoid, superellipse

SUB_SLICES = 3
"""Thin slices averaged into one."""
BONE_SHELL = 0.7
"""Half the thickness of the dark cortical bone and end-plates, in mm."""


@dataclass(frozen=True)
class Protocol:
    """What differs from scanner to scanner."""

    slices: int
    slice_mm: float
    pixel_mm: float
    rows: int
    columns: int
    centre: tuple[float, float, float]
    """Middle of the field of view, in patient coordinates, mm."""
    roll: tuple[float, float, float]
    """Turns of the patient about x, y and z, in radians."""
    fat: float
    marrow: float
    muscle: float
    cord: float
    noise: float
    blur: float
    gamma: float
    gain: float
    coil_depth: float
    """Distance, in mm, over which the signal of the surface coil falls to a third."""
    saturation: float
    """Signal left in front of the spine, 1 without a saturation band."""


class Scan:
    """Paints the tissues of a patient on a grid of slices, rows (to the back) and columns (to the feet)."""

    def __init__(self, patient: PhantomPatient, protocol: Protocol, random: np.random.Generator):
        self.patient = patient
        self.protocol = protocol
        self.random = random
        self.x, self.y, self.z = self._coordinates()
        self.side = self.x - patient.sideways(self.z).astype(np.float32)
        self.signal = np.zeros(self.x.shape, np.float32)
        self.labels = np.zeros(self.x.shape, np.uint8)

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the image, float32 in about 0 to 1000, and its labels, uint8, both (slices, rows, columns)."""
        self._soft_tissue()
        self._canal()
        for element in self.patient.elements:
            if element.kind == "vertebra":
                self._posterior_elements(element)
        for element in self.patient.elements:
            self._disc(element) if element.kind == "disc" else self._body(element)
        return self._acquire(), self.labels[SUB_SLICES // 2 :: SUB_SLICES].copy()

    def _coordinates(self) -> tuple[np.ndarray, ...]:
        p = self.protocol
        thin = p.slice_mm / SUB_SLICES
        axes = [
            (np.arange(p.slices * SUB_SLICES) - (p.slices * SUB_SLICES - 1) / 2) * thin,
            (np.arange(p.rows) - (p.rows - 1) / 2) * p.pixel_mm,
            ((p.columns - 1) / 2 - np.arange(p.columns)) * p.pixel_mm,
        ]
        x, y, z = np.meshgrid(*axes, indexing="ij")
        turn = _rotation(p.roll)
        return tuple(
            (turn[k, 0] * x + turn[k, 1] * y + turn[k, 2] * z + p.centre[k]).astype(np.float32)
            for k in range(3)
        )

    def _soft_tissue(self) -> None:
        """Back muscles and fat behind the spine, belly and great vessels in front of it."""
        p, patient = self.protocol, self.patient
        line = np.array([(element.z, element.y, element.depth) for element in patient.elements])
        line = line[np.argsort(line[:, 0])]
        spine_y = np.interp(self.z, line[:, 0], line[:, 1]).astype(np.float32)
        self.spine_y = spine_y
        behind = self.y - spine_y
        skin = float(np.max(line[:, 1])) + 48 * patient.size + patient.fat_mm
        belly = 0.30 + 0.22 * self._texture(9) + 0.12 * self._texture(3)
        self.signal[:] = np.clip(belly, 0.02, 1.0)
        streaks = self._texture((6, 2, 14))
        lean = p.muscle * (1 + 0.15 * self._texture(3))
        fatty = np.clip((streaks + 1.6 * patient.muscle_fat - 0.75) * 2, 0, 1)
        muscle = lean + (p.fat - lean) * fatty
        self._paint(behind - 8, muscle)
        self._paint(
            behind - (48 * patient.size + 6 * np.sin(self.z / 60)), p.fat * (1 + 0.05 * self._texture(4))
        )
        self._paint(behind - (skin - spine_y), 0.0)
        front = float(np.median(line[:, 2])) / 2
        for x, radius in ((9.0, 9.5), (-14.0, 10.5)):  # aorta and inferior vena cava
            above_fork = self.z - (60 * patient.size)
            distance = np.hypot(self.side - x, (self.y - spine_y) + front + radius + 3)
            self._paint(np.minimum(radius - distance, above_fork), 0.05)
        self._paint(-np.abs(behind + front + 1.5) + 1.5, p.fat * 0.8)

    def _canal(self) -> None:
        """Fat, dural sac with fluid, cord down to the conus and the roots below it."""
        p, size = self.protocol, self.patient.size
        points = np.array([self._canal_point(element) for element in self.patient.elements])
        points = points[np.argsort(points[:, 0])]
        centre = np.interp(self.z, points[:, 0], points[:, 1]).astype(np.float32)
        slope = np.interp(self.z, points[:, 0], points[:, 2]).astype(np.float32)
        back = (self.y - centre) * slope
        self._paint(11 * size - np.hypot(back * 1.05, self.side * 0.85), p.fat * 0.85)
        sac = np.clip((self.z + 45 * size) / 20, 0, 1) * 8.3 * size
        in_sac = sac - np.hypot(back, self.side * 0.8)
        roots = 0.62 + 0.38 * np.clip(
            1.3 * self._texture((1.2, 1.0, 30)) + np.clip((3 - back) / 5, -0.6, 1), -1, 1
        )
        fluid = np.where(self.z < self.patient.conus_z, np.clip(roots, 0.45, 1.0), 1.0)
        self._paint(in_sac, fluid)
        taper = np.clip((self.z - self.patient.conus_z) / 25, 0, 1) ** 0.5
        in_cord = np.where(taper > 0, 4.3 * taper - np.hypot(back - 0.5, self.side * 0.75), -1.0)
        self._paint(in_cord, p.cord)

    def _canal_point(self, element: Element) -> tuple[float, float, float]:
        """Return z, y and the cosine of the tilt of the canal behind an element."""
        offset = element.depth / 2 + 9.5 * self.patient.size
        y, z = element.back
        return element.z + offset * z, element.y + offset * y, float(np.cos(element.tilt))

    def _local(self, element: Element, reach: float) -> tuple[tuple, np.ndarray, np.ndarray, np.ndarray]:
        """Return the part of the grid within ``reach`` of an element, and there the element's own coordinates.

        Returns:
            The part as slices, and mm to the back, up, and sideways.
        """
        p = self.protocol
        point = (np.array([0.0, element.y, element.z]) - p.centre) @ _rotation(p.roll)
        reach_pixels = reach / p.pixel_mm
        middles = (point[1] / p.pixel_mm + (p.rows - 1) / 2, (p.columns - 1) / 2 - point[2] / p.pixel_mm)
        near = (
            slice(None),
            *(slice(max(0, int(m - reach_pixels)), max(0, int(m + reach_pixels) + 1)) for m in middles),
        )
        dy, dz = self.y[near] - np.float32(element.y), self.z[near] - np.float32(element.z)
        (back_y, back_z), (up_y, up_z) = element.back, element.up
        return near, dy * back_y + dz * back_z, dy * up_y + dz * up_z, self.side[near]

    def _body(self, element: Element) -> None:
        """A vertebral body or sacral segment: waisted, wedged, with a dark shell."""
        near, back, up, side = self._local(element, 0.75 * (element.depth + element.height))
        half = element.height / 2 - back * np.tan(element.wedge / 2)
        waist = 1 - 0.09 * (1 - np.clip(up / half, -1, 1) ** 2)
        radius = superellipse(back / (element.depth / 2 * waist), side / (element.width / 2))
        inside = np.minimum((1 - radius) * element.depth / 2, half - np.abs(up))
        marrow = (
            self.protocol.marrow
            * (1 + 0.06 * self._noise(element, near))
            * (0.85 if element.kind == "sacrum" else 1.0)
        )
        marrow = marrow * (1 - 0.45 * np.exp(-((up / 2.2) ** 2) - ((back - element.depth / 2) / 6) ** 2))
        self._paint(inside + BONE_SHELL, 0.06, near)
        self._paint(inside - BONE_SHELL, self._with_finding(element, marrow, back, up, side), near)
        self._name(near, inside > 0, element.label)

    def _with_finding(
        self, element: Element, marrow: np.ndarray, back: np.ndarray, up: np.ndarray, side: np.ndarray
    ) -> np.ndarray:
        if element.finding == "haemangioma":
            spot = np.exp(-((back + 4) ** 2 + up**2 + (side - 4) ** 2) / 60)
            return marrow + 0.45 * spot
        if element.finding == "node":
            pit = np.exp(-((back + 2) ** 2 / 12 + (up - element.height / 2) ** 2 / 18 + side**2 / 60))
            return marrow * (1 - 0.7 * pit)
        if element.finding == "oedema":
            return marrow + 0.3 * np.exp(-((up - element.height / 2) ** 2) / 30)
        return marrow

    def _disc(self, element: Element) -> None:
        """Dark annulus, bright nucleus in a young disc, a bulge to the back in an old one."""
        near, back, up, side = self._local(element, 0.75 * (element.depth + element.height))
        half = np.maximum(element.height / 2 - back * np.tan(element.wedge / 2), 0.5)
        depth = np.where(back > 0, element.depth / 2 + element.bulge, element.depth / 2)
        radius = superellipse(back / depth, side / (element.width / 2))
        inside = np.minimum((1 - radius) * element.depth / 2, half - np.abs(up))
        core = np.clip((0.72 - radius) * 4, 0, 1) * np.clip((1 - np.abs(up / half)) * 2.2, 0, 1)
        cleft = 1 - 0.25 * element.hydration * np.exp(-((up / (0.25 * element.height)) ** 2))
        value = 0.13 + (0.10 + 0.62 * element.hydration) * core * cleft
        self._paint(inside, value, near)
        self._name(near, inside > 0, element.label)

    def _posterior_elements(self, element: Element) -> None:
        """Pedicles, articular processes and laminae on both sides, the spinous process in the middle."""
        size = self.patient.size
        thoracic = element.height < 25.8 * size
        near, back, up, side = self._local(element, 1.6 * element.depth + 20)
        wall, apart = element.depth / 2, np.abs(side)
        pedicle = ellipsoid(back - wall - 6 * size, up - 0.2 * element.height, apart - 13 * size, (9, 7, 4.5))
        lamina = ellipsoid(
            back - wall - 17 * size, up + 0.25 * element.height, apart - 13 * size, (6.5, 18, 7)
        )
        droop = 0.75 if thoracic else 0.35
        tip = back - wall - (33 if thoracic else 31) * size
        spinous = ellipsoid(
            tip, up + 0.5 * element.height + droop * tip, side, (13, 6 if thoracic else 9.5, 3.6)
        )
        inside = reduce(np.maximum, (pedicle, lamina, spinous))
        self._paint(inside + BONE_SHELL, 0.08, near)
        self._paint(inside - BONE_SHELL, self.protocol.marrow * 0.9, near)
        self._name(near, inside > 0, element.label)

    def _paint(self, inside: np.ndarray, value: np.ndarray | float, near: tuple = ()) -> None:
        """Paint ``value`` where the distance ``inside`` (mm) is positive, mixed over one pixel at the border."""
        share = np.clip(inside / self.protocol.pixel_mm + 0.5, 0, 1)
        part = self.signal[near]
        part += share * (value - part)

    def _name(self, near: tuple, inside: np.ndarray, label: int) -> None:
        self.labels[near][inside] = label or BACKGROUND

    def _texture(self, mm: float | tuple[float, ...]) -> np.ndarray:
        """Return smooth noise of about unit size over the grid; ``mm`` is its grain along each axis."""
        p = self.protocol
        grain = np.broadcast_to(mm, 3) / (p.slice_mm / SUB_SLICES, p.pixel_mm, p.pixel_mm)
        fine = self.x.shape
        coarse = [int(np.ceil(count / max(cells, 1.0))) + 1 for count, cells in zip(fine, grain, strict=True)]
        texture = self.random.standard_normal(coarse).astype(np.float32)
        for axis in range(3):
            weights = _linear_weights(fine[axis], coarse[axis])
            texture = np.moveaxis(np.tensordot(weights, texture, (1, axis)), 0, axis)
        return texture

    def _noise(self, element: Element, near: tuple) -> np.ndarray:
        """Return a smooth marrow pattern for one vertebra."""
        phases = self.random.uniform(0, 2 * np.pi, 3)
        return (
            np.sin(self.y[near] / 3.1 + phases[0]) * np.sin(self.z[near] / 2.7 + phases[1])
            + 0.7 * np.sin(self.x[near] / 4.0 + phases[2])
        ).astype(np.float32)

    def _acquire(self) -> np.ndarray:
        """Average thin slices, blur, weight with the coil, add Rician noise."""
        p = self.protocol
        signal = self.signal.reshape(p.slices, SUB_SLICES, p.rows, p.columns).mean(1)
        y, z, spine_y = (field[SUB_SLICES // 2 :: SUB_SLICES] for field in (self.y, self.z, self.spine_y))
        signal = gaussian_filter(np.clip(signal, 0, None), (0, p.blur, p.blur)) ** p.gamma
        front = np.clip((y - spine_y + 32) / 10, 0, 1)
        signal = signal * (p.saturation + (1 - p.saturation) * front)
        coil = np.exp((y - spine_y - 35) / p.coil_depth) * np.exp(-(((z - p.centre[2]) / 240) ** 2))
        signal = signal * (0.35 + coil)
        noise = self.random.normal(0, p.noise, (2, *signal.shape))
        return (p.gain * np.hypot(signal + noise[0], noise[1])).astype(np.float32)


def _linear_weights(fine: int, coarse: int) -> np.ndarray:
    """Return the matrix (fine, coarse) that interpolates linearly from a coarse to a fine axis."""
    position = np.linspace(0, coarse - 1, fine, dtype=np.float32)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(coarse, dtype=np.float32)))


def _rotation(angles: tuple[float, float, float]) -> np.ndarray:
    return Rotation.from_euler("xyz", angles).as_matrix()
