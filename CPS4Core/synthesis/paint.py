"""Paints the tissues of a synthetic patient on any grid of points: a sagittal slice, or a whole volume.

Each tissue is painted over the ones before it: what surrounds the spine first, then the canal, the posterior elements,
the discs, and last the vertebral bodies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from CPS4Core.synthesis.patient import Patient, Segment
from CPS4Core.synthesis.shapes import box, ellipsoid, superellipse
from CPS4Core.synthesis.tissues import ABOVE, SACRUM, bone, disc, surrounding

SHELL = 0.9
"""Thickness of the cortical bone, in mm."""


class Painter:
    """Paints one patient on points given in patient coordinates, in mm.

    Args:
        patient: whom to paint.
        x: to the left, shape (H, W), as ``y`` and ``z``.
        y: to the back; grows along the rows.
        z: to the head; falls along the columns.
        random: source of textures.
    """

    def __init__(
        self,
        patient: Patient,
        x: np.ndarray,
        y: np.ndarray,
        z: np.ndarray,
        random: np.random.Generator,
    ):
        self.patient = patient
        self.random = random
        self.y, self.z = y, z
        self.side = x - patient.sideways(z).astype(np.float32)
        self.codes = np.zeros(x.shape, np.uint8)
        self._grains: dict[float, np.ndarray] = {}
        self.pixel = abs(float(y[1, 0] - y[0, 0]))
        spine = sorted(
            (segment for segment in patient.segments if segment.kind != "coccyx"),
            key=lambda segment: segment.z,
        )
        line = np.array([(s.z, s.y, s.depth, s.tilt) for s in spine])
        self.spine_y, self.spine_depth, self.spine_tilt = (
            np.interp(z, line[:, 0], line[:, k]).astype(np.float32) for k in (1, 2, 3)
        )

    def paint(self) -> np.ndarray:
        """Return the codes of ``tissues``, uint8, (H, W)."""
        self._surroundings()
        self._canal()
        bodies = [segment for segment in self.patient.segments if segment.kind != "disc"]
        for segment in bodies:
            if segment.kind == "vertebra":
                self._posterior_elements(segment)
            elif segment.kind == "sacrum":
                self._sacral_wings(segment)
        for segment in self.patient.segments:
            if segment.kind in ("disc", "remnant"):
                self._disc(segment)
        for segment in bodies:
            if segment.kind in ("vertebra", "sacrum", "coccyx"):
                self._body(segment)
        return self.codes

    # What surrounds the spine

    def _surroundings(self) -> None:
        p, size = self.patient, self.patient.size
        behind = self.y - self.spine_y
        front = behind + self.spine_depth / 2
        self._organs()
        presacral = (self.z < 15) & (behind < 0)
        self._set(presacral & (front > -random_between(self.random, 4, 22)), "presacral_fat")
        gap = random_between(self.random, 0.5, 5) + 2 * self._texture(20)
        self._set((front > -gap) & (self.z > 0), "presacral_fat")
        self._vessels(front)
        # Psoas, which lies against the flanks of the bodies and thickens outwards; back muscles behind them.
        apart = np.abs(self.side) / size
        psoas = 26 * np.clip((apart - 15) / 9, 0, 1)
        self._set((np.abs(behind) < psoas * size) & (apart < 60), "muscle")
        self._set(behind > 8 * size, "muscle")
        fatty = self._texture((2.5, 16)) + 2.6 * p.muscle_fat - 1.45
        lower = np.clip((40 - self.z) / 80, 0, 0.8)  # the multifidus is fattest at the sacrum
        self._set((behind > 8 * size) & (fatty + lower > 0), "muscle_fat")
        depth = (50 + 10 * np.sin(self.z / 70 + random_between(self.random, 0, 6))) * size
        skin = float(np.percentile(self.spine_y, 85)) + 52 * size + p.fat_mm + 5 * self._texture((400, 60))
        self._set(behind > depth, "fat")
        self._set(self.y > skin, "skin")
        self._set(self.y > skin + 2.0, "air")
        belly = float(self.spine_y.mean()) - p.belly_mm + 8 * self._texture((400, 50))
        wall = p.fat_mm * random_between(self.random, 0.3, 1.2)
        self._set(self.y < belly + wall, "fat")
        self._set(self.y < belly, "air")

    def _organs(self) -> None:
        """Bowel, liver, kidney and fat as blobs of random shape; bladder and rectum in front of the sacrum."""
        fine, coarse = (
            self._texture(random_between(self.random, 7, 16)),
            self._texture(random_between(self.random, 25, 60)),
        )
        field = coarse + random_between(self.random, 0.2, 1.2) * fine
        self.codes[:] = surrounding("organ_0") + np.clip((field * 1.6 + 3).astype(int), 0, 5)
        if self.random.random() < 0.7:
            centre = random_between(self.random, -95, -45), random_between(self.random, -80, -20)
            self._ellipse(
                "bladder", centre, random_between(self.random, 15, 38), random_between(self.random, 12, 30)
            )
        if self.random.random() < 0.7:
            centre = random_between(self.random, -30, 5), random_between(self.random, -85, -35)
            self._ellipse(
                "rectum", centre, random_between(self.random, 7, 16), random_between(self.random, 18, 45)
            )

    def _ellipse(self, tissue: str, centre: tuple[float, float], deep: float, high: float) -> None:
        wobble = 1 + 0.15 * self._grain(15)
        inside = ((self.y - centre[0]) / deep) ** 2 + ((self.z - centre[1]) / high) ** 2 < wobble
        self._set(inside, tissue)

    def _vessels(self, front: np.ndarray) -> None:
        size = self.patient.size
        fork = self.z > random_between(self.random, 30, 75) * size
        for x, radius in ((9.0, 9.0), (-14.0, 10.5)):  # aorta and inferior vena cava
            radius = radius * size * random_between(self.random, 0.8, 1.25)
            distance = np.hypot(
                self.side - x, front + radius + random_between(self.random, 1, 6) + self._texture(50)
            )
            self._set((distance < radius) & fork, "vessel")
        # The iliac vessels run down beside the promontory.
        x = random_between(self.random, 12, 35)
        run = np.abs(front + 9 + 0.25 * self.z)
        self._set((np.abs(np.abs(self.side) - x) < 7) & (run < 6) & ~fork & (self.z > -60), "vessel")

    # The canal

    def _canal(self) -> None:
        p, size = self.patient, self.patient.size
        back = (self.y - self.spine_y) * np.cos(self.spine_tilt) - self.spine_depth / 2 - 9.5 * size
        sacral = np.clip((self.z + 95 * size) / 60, 0.25, 1)
        ligament = 0.9 + 0.5 * self._texture(30)
        self._set((np.hypot(back, self.side * 0.8) < 12 * size * sacral), "ligament")
        self._set((np.hypot(back, self.side * 0.8) < 11.2 * size * sacral * p.epidural), "epidural_fat")
        self._set((np.abs(back + 10.2 * size) < ligament) & (np.abs(self.side) < 9), "ligament")
        taper = np.clip((self.z - p.sac_end) / 25, 0, 1)
        squeeze = 1 + 0.06 * self._texture(18)
        sac = taper * 8.4 * size * p.sac * squeeze
        in_sac = np.hypot(back + 1.2 * (1 - taper), self.side * 0.75) < sac
        self._set(in_sac, "csf")
        # Roots lie at the back of the sac below the conus.
        strands = self._texture((1.3, 40)) + np.clip((back - 1.5) / 4, -0.9, 0.7)
        self._set(in_sac & (strands > 0.25) & (self.z < p.conus_z + 10), "root")
        cone = np.clip((self.z - p.conus_z) / 28, 0, 1) ** 0.5
        shift = random_between(self.random, -1.5, 1.5)
        self._set((np.hypot(back - shift, self.side * 0.75) < 4.4 * cone * size) & (cone > 0), "cord")

    # Bones and discs

    def _posterior_elements(self, segment: Segment) -> None:
        """Pedicles, articular processes, laminae and the spinous process; foramina with fat and a nerve."""
        size, thoracic = self.patient.size, segment.slot > 4
        near, back, up, side = self._local(segment, segment.depth + 48 * size)
        wall, apart, half = segment.depth / 2, np.abs(side), segment.height / 2
        wider = 1 + 0.1 * max(0, 3 - segment.slot)
        # The foramen below the pedicle.
        foramen = (
            (np.abs(apart - 15 * size) < 8 * size)
            & (np.abs(back - wall - 6) < 8 * size)
            & (np.abs(up + half) < half)
        )
        self._set(foramen, "epidural_fat", near)
        nerve = np.hypot((back - wall - 6) / 1.2, up + 0.55 * half) < 3.2 * size
        self._set(foramen & nerve, "nerve", near)
        # Between the spinous processes: ligament, striped with fat.
        tip = wall + (42 if not thoracic else 46) * size
        behind = (back > wall + 16 * size) & (back < tip) & (apart < 4.0)
        self._set(behind & (np.abs(up) < segment.height), "interspinous", near)
        self._set((np.abs(back - tip) < 1.2) & (apart < 5) & (np.abs(up) < segment.height), "ligament", near)
        if not segment.posterior:
            return
        jitter = self.random.normal(0, 1, 6)
        pedicle = ellipsoid(
            back - wall - 5 * size,
            up - 0.35 * half,
            apart - 13 * wider * size,
            (10 * size, 0.55 * half + 1, 5.0 * size),
        )
        pillar_back = wall + (16 + 0.6 * jitter[0]) * size - 0.22 * (up + 0.2 * half)
        pillar = ellipsoid(
            back - pillar_back,
            up + 0.35 * half,
            apart - 16 * wider * size,
            (6.5 * size, 1.55 * half, 7 * size),
        )
        lamina_back = wall + 20 * size - 0.25 * up
        lamina = ellipsoid(
            back - lamina_back, up + 0.45 * half, apart - 7 * size, (4.5 * size, 0.95 * half, 8 * size)
        )
        droop = (0.75 if thoracic else 0.22) + 0.05 * jitter[1]
        length = ((15 if thoracic else 13.5) + jitter[2]) * size
        centre = wall + (18 * size + length)
        high = ((5.5 if thoracic else 10.5) + 0.8 * jitter[3]) * size
        fall = up + (0.5 + 0.08 * jitter[4]) * half + droop * (back - wall - 18 * size)
        spinous = box(back - centre, fall, side - 0.6 * jitter[5], (length, high, 3.8 * size))
        inside = np.maximum.reduce((pedicle, pillar, lamina, spinous))
        self._bone(inside, segment, near, "posterior_")
        if segment.screw:
            rod = np.hypot(up - 0.3 * half, apart - 14 * size) < 4.5
            self._code((rod & (back > -0.6 * wall) & (back < wall + 26)), bone(segment.slot, "implant"), near)
            self._set((np.abs(back - wall - 30) < 5) & (np.abs(apart - 17) < 6), "metal", near)

    def _sacral_wings(self, segment: Segment) -> None:
        """The bone beside the sacral bodies, with its foramina, and the crest behind them."""
        size = self.patient.size
        near, back, up, side = self._local(segment, 1.3 * segment.depth + segment.height + 30)
        apart = np.abs(side)
        half, deep = segment.height / 2, segment.depth / 2
        shift = 0.18 * np.clip(apart - 22 * size, 0, None)
        wing = np.minimum.reduce(
            (
                segment.width / 2 - apart,
                half + 1.5 - np.abs(up),
                deep * 1.05 + 4 - np.abs(back - 5 - shift),
                apart - 19 * size,
            )
        )
        self._bone(wing, segment, near, "")
        hole = np.hypot(apart - 20 * size, (up + half) / 1.2) < 5.5 * size
        self._set(hole & (np.abs(back - 6) < deep + 6), "epidural_fat", near)
        self._set(hole & (np.hypot(apart - 20 * size, back - 3) < 3), "nerve", near)
        roof = deep + 19 * size * np.clip(segment.depth / (30 * size), 0.35, 1)
        crest = box(
            back - roof,
            up + 0.2 * half,
            np.maximum(apart - 8 * size, 0) * 0.5,
            (3.2 * size, half * 0.75, 4 * size),
        )
        self._bone(crest, segment, near, "posterior_")

    def _disc(self, segment: Segment) -> None:
        """Annulus and nucleus; wide enough to fill hollow end-plates, which the bodies then cover."""
        near, back, up, side = self._local(segment, 0.7 * segment.depth + segment.height + 4)
        half = np.maximum(segment.height / 2 - back * np.tan(segment.wedge / 2), 0.2)
        deep = segment.depth / 2
        swell = (
            3.5
            * np.clip(1 - (back / (0.75 * deep)) ** 2, 0, 1)
            * np.clip(1 - (side / (0.4 * segment.width)) ** 2, 0, 1)
        )
        reach = np.where(back > 0, deep + segment.bulge * np.exp(-((side / 12) ** 2)), deep)
        radius = superellipse(back / reach, side / (segment.width / 2))
        inside = np.minimum((1 - radius) * deep, half + swell - np.abs(up))
        slot = segment.slot
        self._code(inside > 0, disc(slot, "annulus"), near)
        wobble = 1 + 0.08 * self._grain(4)[near]
        core = (radius < segment.core * wobble) & (np.abs(up) < 0.8 * (half + swell))
        self._code((inside > 0) & core, disc(slot, "nucleus"), near)
        self._code((inside > 0) & core & (np.abs(up) < 0.12 * segment.height), disc(slot, "cleft"), near)
        if segment.bulge > 2.5:
            self._code((inside > 0) & (back > deep * 0.92), disc(slot, "protrusion"), near)

    def _body(self, segment: Segment) -> None:
        """A vertebral body or a segment of the sacrum: waisted, wedged, with hollow end-plates and rims."""
        near, back, up, side = self._local(segment, 0.75 * (segment.depth + segment.height) + 6)
        mean_half = segment.height / 2
        share = np.clip(up / segment.height + 0.5, 0, 1)
        deep = (segment.depth_low + (segment.depth_high - segment.depth_low) * share) / 2
        fallen = np.clip(np.abs(up) / mean_half, 0, 1)
        waist = 1 - (0.10 if segment.kind == "vertebra" else 0.04) * (1 - fallen**2)
        rim = (
            segment.rim
            * np.clip((fallen - 0.72) / 0.28, 0, 1) ** 2
            * np.clip(1 - np.abs(side) / (0.5 * segment.width), 0, 1)
        )
        wide = min(segment.width, 52 * self.patient.size) / 2
        reach = deep * waist + rim
        radius = superellipse(back / reach, side / (wide * waist))
        bowl = np.clip(1 - (back / (0.82 * deep)) ** 2, 0, 1) * np.clip(1 - (side / (0.85 * wide)) ** 2, 0, 1)
        half = mean_half - back * np.tan(segment.wedge / 2)
        half = half - np.where(up > 0, segment.concave_high, segment.concave_low) * bowl
        if segment.node:
            pit = np.exp(-((back + 0.15 * deep) ** 2) / 14 - side**2 / 60) * abs(segment.node)
            half = half - np.where((up > 0) == (segment.node < 0), pit, 0)
        edge = np.minimum((1 - radius) * reach, half - np.abs(up))
        corner = np.clip(1.6 - (1 - radius) * reach, 0, 1.6) * 0.35  # rounded corners
        inside = np.where(np.abs(up) > half - 2, edge - corner, edge)
        inside = inside + 0.25 * self._grain(5)[near]
        if segment.kind == "coccyx":
            self._code(inside > 0, bone(ABOVE, "cortex"), near)
            self._code(inside > SHELL, bone(ABOVE, "posterior_marrow"), near)
            return
        self._bone(inside, segment, near, "")
        marrow = inside > SHELL
        slot = segment.slot
        for place, depth in enumerate(segment.modic):
            if depth:
                plate = half - np.abs(up) < depth * (0.7 + 0.3 * self._grain(6)[near])
                self._code(marrow & plate & ((up > 0) == bool(place)), bone(slot, "endplate"), near)
        vein = (np.abs(up) < 1.6) & (back > 0.35 * deep) & (np.abs(side) < 7)
        if segment.kind == "vertebra":
            self._code(marrow & vein, bone(slot, "sclerosis"), near)
        for lesion in segment.lesions:
            distance = np.sqrt((back - lesion.back) ** 2 + (up - lesion.up) ** 2 + (side - lesion.side) ** 2)
            self._code(
                marrow & (distance < lesion.radius * (1 + 0.25 * self._grain(6)[near])),
                bone(slot, "lesion"),
                near,
            )
        if segment.screw:
            screw = np.hypot(up - 0.2 * mean_half, np.abs(side) - 13) < 3.5
            self._code((inside > 0) & screw & (back > -0.5 * deep), bone(slot, "implant"), near)

    def _bone(self, inside: np.ndarray, segment: Segment, near: tuple, part: str) -> None:
        slot = segment.slot if segment.kind != "sacrum" else SACRUM
        self._code(inside > 0, bone(slot, f"{part}cortex"), near)
        self._code(inside > SHELL, bone(slot, f"{part}marrow"), near)

    # Tools

    def _set(self, inside: np.ndarray, tissue: str, near: tuple = ()) -> None:
        self._code(inside, surrounding(tissue), near)

    def _code(self, inside: np.ndarray, code: int, near: tuple = ()) -> None:
        self.codes[near][inside] = code

    def _local(self, segment: Segment, reach: float) -> tuple[tuple, np.ndarray, np.ndarray, np.ndarray]:
        """Return the part of the grid within ``reach`` mm of a segment, and there mm to its back, up and sideways."""
        rows = np.searchsorted(self.y[:, 0], (segment.y - reach, segment.y + reach))
        columns = np.searchsorted(-self.z[0], (-segment.z - reach, -segment.z + reach))
        near = (slice(*rows), slice(*columns))
        dy, dz = self.y[near] - np.float32(segment.y), self.z[near] - np.float32(segment.z)
        (back_y, back_z), (up_y, up_z) = segment.back, segment.up
        return near, dy * back_y + dz * back_z, dy * up_y + dz * up_z, self.side[near]

    def _grain(self, mm: float) -> np.ndarray:
        """Return a texture that is drawn once a slice, for what differs from place to place anyway."""
        if mm not in self._grains:
            self._grains[mm] = self._texture(mm)
        return self._grains[mm]

    def _texture(self, mm: float | tuple[float, float]) -> np.ndarray:
        """Return smooth noise of about unit size over the grid; ``mm`` is its grain along rows and columns."""
        grain = np.broadcast_to(mm, 2) / self.pixel
        fine = self.y.shape
        coarse = [int(np.ceil(count / max(cells, 1.0))) + 2 for count, cells in zip(fine, grain, strict=True)]
        return smooth_noise(self.random, coarse, fine)


def smooth_noise(random: np.random.Generator, coarse: Sequence[int], fine: Sequence[int]) -> np.ndarray:
    """Return noise drawn on a coarse grid and interpolated linearly to a fine one, float32."""
    noise = random.standard_normal(coarse).astype(np.float32)
    for axis in (0, 1):
        position = np.linspace(0, coarse[axis] - 1.001, fine[axis], dtype=np.float32)
        before = position.astype(int)
        weight = position - before
        weight = weight[:, None] if axis == 0 else weight
        low = noise.take(before, axis)
        noise = low + weight * (noise.take(before + 1, axis) - low)
    return noise


def random_between(random: np.random.Generator, low: float, high: float) -> float:
    """Return a number drawn evenly between two others."""
    return float(random.uniform(low, high))
