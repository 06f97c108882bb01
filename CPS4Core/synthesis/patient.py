"""A synthetic patient: mean sizes (``sizes``); posture, variants and disease drawn at random.

The sacrum follows published means of its segments: it tapers, curves most at S3, and keeps remnants of its discs.
Coordinates are those of the patient, in mm: x to the left, y to the back, z to the head; the middle of the upper
end-plate of S1 is the origin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from CPS4Core.synthesis.sizes import LORDOSIS_SHARES, SIZES, LevelSize
from CPS4Core.synthesis.stacking import Leaning, hang, stack
from CPS4Core.synthesis.tissues import ABOVE, SACRUM

HIGHER = tuple(
    LevelSize(*mean)
    for mean in (
        (24.5, 28.5, 19.2, 4.0),
        (23.0, 28.0, 18.7, 4.0),
        (21.5, 28.0, 18.2, 4.0),
        (20.0, 29.0, 17.5, 4.0),
        (17.5, 29.0, 14.5, 4.5),
        (16.5, 27.0, 13.0, 4.5),
        (16.0, 25.0, 12.5, 4.5),
    )
)
"""T4 to T1 and C7 to C5: seen in scans of the whole spine."""

SACRAL = (
    # height, depth of the lower end, width, kyphosis to the segment below in degrees
    (29.0, 22.0, 100.0, 8.0),
    (25.0, 16.5, 88.0, 16.0),
    (20.0, 13.0, 72.0, 20.0),
    (17.0, 10.5, 58.0, 12.0),
    (15.0, 8.5, 42.0, 10.0),
)
"""S1 to S5."""
COCCYX = ((9.0, 7.5), (7.0, 6.0), (6.0, 4.5))
"""Height and depth."""


@dataclass(frozen=True)
class Lesion:
    """A round change of the marrow, in the coordinates of its vertebra."""

    back: float
    up: float
    side: float
    radius: float


@dataclass(frozen=True)
class Segment(Leaning):
    """A vertebral body, a disc, or a piece of the sacrum or coccyx."""

    kind: Literal["vertebra", "disc", "sacrum", "remnant", "coccyx"]
    slot: int
    """Which one (``tissues``)."""
    y: float
    z: float
    tilt: float
    """Lean of its axis to the front, in radians."""
    depth_low: float
    depth_high: float
    width: float
    height: float
    wedge: float
    """Angle between its upper and lower face, in radians; positive where it is higher in front."""
    concave_low: float = 0.0
    concave_high: float = 0.0
    """How far the end-plates are hollow, in mm."""
    rim: float = 0.0
    """How far osteophytes reach out at the corners, in mm."""
    bulge: float = 0.0
    """Of a disc, in mm to the back."""
    core: float = 0.7
    """Share of a disc's radius that is nucleus."""
    lesions: tuple[Lesion, ...] = ()
    modic: tuple[float, float] = (0.0, 0.0)
    """Depth of the changed marrow at the lower and upper end-plate, in mm."""
    node: float = 0.0
    """Depth of a Schmorl node in the lower end-plate, in mm; negative: in the upper one."""
    posterior: bool = True
    """Whether it has its posterior elements: a laminectomy takes them away."""
    screw: bool = False

    @property
    def depth(self) -> float:
        """Mean depth, in mm."""
        return (self.depth_low + self.depth_high) / 2


@dataclass(frozen=True)
class Patient:
    """One patient."""

    segments: tuple[Segment, ...]
    conus_z: float
    curves: tuple[tuple[float, float, float], ...]
    """Sideways curves of the spine: amplitude in mm, wavelength in mm, phase."""
    fat_mm: float
    """Fat under the skin of the back."""
    belly_mm: float
    """From the front of the spine to the skin of the belly."""
    muscle_fat: float
    """Share of fat in the back muscles, 0 to 1."""
    sac: float
    """Width of the dural sac, 1 the mean."""
    size: float
    """Scale of all bones, 1 the mean."""
    sac_end: float
    """z where the dural sac ends."""
    epidural: float = 1.0
    organs: tuple[float, ...] = field(default=())

    def sideways(self, z: np.ndarray) -> np.ndarray:
        """Return the x of the spine's midline at heights z."""
        waves = [a * np.sin(2 * np.pi * z / length + phase) for a, length, phase in self.curves]
        return np.sum(waves, axis=0)


def draw_patient(random: np.random.Generator) -> Patient:
    """Draw a patient, from children to the very large, healthy or not."""
    size = float(np.clip(random.normal(1.03, 0.1), 0.72, 1.32))
    age = float(random.uniform())
    slope = np.radians(np.clip(random.normal(38, 8), 15, 62))
    lordosis = slope + np.radians(np.clip(random.normal(14, 9), -8, 34))
    kyphosis = np.radians(np.clip(random.normal(26, 12), 0, 65))
    spine = _draw_spine(random, size, slope, lordosis, kyphosis, age)
    sacrum = _draw_sacrum(random, size, slope, spine[1].depth_low)
    l1 = next(segment for segment in spine if segment.kind == "vertebra" and segment.slot == 4)
    strong = random.random() < 0.1
    amplitude = abs(random.normal(0, 14 if strong else 3))
    return Patient(
        segments=(*sacrum, *spine),
        conus_z=float(l1.z + random.normal(0, 16) * size),
        curves=(
            (float(amplitude), float(random.uniform(220, 420)), float(random.uniform(0, 2 * np.pi))),
            (
                float(amplitude * random.uniform(0, 0.3)),
                float(random.uniform(110, 180)),
                float(random.uniform(0, 6.3)),
            ),
        ),
        fat_mm=float(random.gamma(2.2, 9.0) + 3),
        belly_mm=float(random.normal(105, 35)),
        muscle_fat=float(np.clip(random.normal(0.12 + 0.4 * age, 0.12), 0.0, 0.8)),
        sac=float(np.clip(random.normal(1.0, 0.13), 0.6, 1.4)),
        size=size,
        sac_end=float(random.normal(-45, 10) * size),
        epidural=float(random.choice([1.0, 1.0, 1.0, 1.5])),
    )


def _draw_spine(
    random: np.random.Generator,
    size: float,
    slope: float,
    lordosis: float,
    kyphosis: float,
    age: float,
) -> list[Segment]:
    """Stack discs and vertebrae on the sacrum; each face leans as the angles of those below add up."""
    y = z = 0.0
    tilt = slope
    # A sixth or a missing lumbar vertebra: sizes move by one, names count from the sacrum.
    variant = int(random.choice([0, 1, -1], p=[0.93, 0.04, 0.03]))
    sizes = [*SIZES, *HIGHER]
    sizes = {0: sizes, 1: [sizes[0], *sizes], -1: sizes[1:]}[variant]
    lumbar = 5 + variant
    shares = np.interp(np.linspace(0, 4, lumbar), range(5), LORDOSIS_SHARES)
    shares = shares / shares.sum()
    uniform = random.normal(1, 0.05)
    depth_scale, height_scale = random.normal(1, 0.06), random.normal(1, 0.05)
    hollow = abs(random.normal(1.3, 0.7))
    osteoporotic = random.random() < 0.15 * age
    fused = int(random.integers(0, 12)) if random.random() < 0.04 else -1
    slip_at = int(random.integers(0, 3)) if random.random() < 0.08 else -1
    surgery = int(random.integers(0, 4)) if random.random() < 0.05 else -1
    segments: list[Segment] = []
    for number, level in enumerate(sizes):
        slot = number if number < ABOVE else ABOVE
        turn = lordosis * shares[number] if number < lumbar else -kyphosis / 11
        turn += np.radians(random.normal(0, 1.6))
        worn = float(np.clip(random.normal(0.75 * age, 0.25), 0, 1))
        height = level.height * size * height_scale * random.normal(1, 0.035)
        depth = level.depth * size * depth_scale * random.normal(1, 0.03)
        width = level.width * size * random.normal(1, 0.04)
        disc_height = max(
            level.disc_height * size * uniform * random.normal(1, 0.12) * (1 - 0.65 * worn**1.5), 1.2
        )
        if number == fused:
            disc_height = 0.3
        disc_share = 0.65 if number < lumbar else 0.35
        y, z, tilt, middle = stack(y, z, tilt, disc_height, disc_share * turn)
        segments.append(
            Segment(
                "disc",
                slot,
                *middle,
                depth * 1.03,
                depth * 1.03,
                width,
                disc_height,
                disc_share * turn,
                bulge=float(max(0.0, random.normal(3.5 * worn - 0.8, 1.4))),
                core=float(random.uniform(0.55, 0.85)),
            )
        )
        if number == slip_at:
            shift = random.uniform(3, 11) * random.choice([-1, 1, -1])
            y, z = y + shift * np.cos(tilt), z + shift * np.sin(tilt)
        wedge = (1 - disc_share) * turn
        if random.random() < (0.25 if osteoporotic else 0.015):
            crush = random.uniform(0.08, 0.5)
            wedge -= np.radians(random.uniform(0, 22)) * crush * 2
            height *= 1 - 0.5 * crush
        taper = random.normal(1.01, 0.02)
        y, z, tilt, middle = stack(y, z, tilt, height, wedge)
        concave = hollow * size * (2.2 if osteoporotic else 1.0)
        modic = random.random() < 0.18 * worn
        segments.append(
            Segment(
                "vertebra",
                slot,
                *middle,
                depth * taper,
                depth / taper,
                width,
                height,
                wedge,
                concave_low=float(max(0.0, random.normal(1.25 * concave, 0.5))),
                concave_high=float(max(0.0, random.normal(0.75 * concave, 0.5))),
                rim=float(max(0.0, random.normal(4.0 * worn - 1.5, 1.0))),
                lesions=_draw_lesions(random, depth, height),
                modic=(
                    float(random.uniform(2, 9) * modic),
                    float(random.uniform(2, 9) * modic * random.integers(0, 2)),
                ),
                node=float(random.normal(0, 4)) if random.random() < 0.06 else 0.0,
                posterior=not (0 <= surgery <= 3 and number in (surgery, surgery + 1)),
                screw=surgery >= 0 and number in (surgery, surgery + 1) and random.random() < 0.8,
            )
        )
    return segments


def _draw_lesions(random: np.random.Generator, depth: float, height: float) -> tuple[Lesion, ...]:
    if random.random() > 0.1:
        return ()
    return tuple(
        Lesion(
            float(random.uniform(-0.4, 0.5) * depth),
            float(random.uniform(-0.4, 0.4) * height),
            float(random.normal(0, 9)),
            float(random.uniform(3, 14)),
        )
        for _ in range(random.integers(1, 3))
    )


def _draw_sacrum(random: np.random.Generator, size: float, slope: float, top_depth: float) -> list[Segment]:
    """Five segments below the origin with remnants of discs between them, and the coccyx."""
    y = z = 0.0
    tilt = slope
    depth = top_depth * random.normal(0.95, 0.04)
    curved = np.clip(random.normal(1.0, 0.3), 0.3, 1.8)
    # A transitional S1 has a whole disc below it.
    lumbarised = random.random() < 0.07
    segments: list[Segment] = []
    for number, (mean_height, low, width, bend) in enumerate(SACRAL):
        height = mean_height * size * random.normal(1, 0.05)
        low_depth = low * size * random.normal(1, 0.07)
        if number == 0 and lumbarised:
            low_depth = 0.5 * (low_depth + depth)
        wedge = np.radians(random.normal(4 if number == 0 else 0, 3))
        y, z, tilt, middle = hang(y, z, tilt, height, wedge)
        segments.append(
            Segment(
                "sacrum",
                SACRUM,
                *middle,
                low_depth,
                depth,
                width * size,
                height,
                wedge,
                concave_high=float(abs(random.normal(1.0, 0.6))) if number == 0 else 0.0,
                lesions=_draw_lesions(random, depth, height),
            )
        )
        remnant = max(0.0, random.normal(2.2 if number == 0 else 1.0, 1.2)) * size
        if number == 0 and lumbarised:
            remnant = random.uniform(3, 7) * size
        if number < 4:
            y, z, tilt, middle = hang(
                y, z, tilt, max(remnant, 0.2), -np.radians(bend * curved * random.normal(1, 0.3))
            )
            if remnant > 0.8:
                share = random.uniform(0.55, 1.0)
                segments.append(
                    Segment(
                        "remnant",
                        SACRUM,
                        *middle,
                        low_depth * share,
                        low_depth * share,
                        40 * size,
                        remnant,
                        0.0,
                        core=0.6,
                    )
                )
        depth = low_depth * random.uniform(0.92, 1.0)
    for height, depth_here in COCCYX[: random.integers(1, 4)]:
        y, z, tilt, _ = hang(y, z, tilt, 1.5 * size, -np.radians(random.uniform(0, 25)))
        y, z, tilt, middle = hang(y, z, tilt, height * size, 0.0)
        segments.append(
            Segment(
                "coccyx",
                ABOVE,
                *middle,
                depth_here * size * 0.8,
                depth_here * size,
                18 * size,
                height * size,
                0.0,
            )
        )
    return segments
