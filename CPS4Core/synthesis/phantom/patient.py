"""The anatomy of a phantom: sizes from the literature, posture and degeneration drawn at random.

Lordosis and kyphosis have the ranges of adult standing radiographs, flattened as in lying patients. Coordinates are
those of the patient, in mm: x to the left, y to the back, z to the head. The middle of the upper end-plate of S1 is
the origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from CPS4Core.class_table import BACKGROUND, BONES, DISCS
from CPS4Core.synthesis.sizes import LORDOSIS_SHARES, SIZES
from CPS4Core.synthesis.stacking import Leaning, stack

SACRUM_HEIGHTS = (29.0, 24.0, 20.0, 17.0, 14.0)

MarrowFinding = Literal["haemangioma", "node", "oedema"]
MARROW_FINDINGS: tuple[MarrowFinding, ...] = get_args(MarrowFinding)
"""What the marrow of a vertebra may show."""


@dataclass(frozen=True)
class Element(Leaning):
    """A vertebral body, a disc or a sacral segment."""

    kind: Literal["vertebra", "disc", "sacrum"]
    label: int
    y: float
    z: float
    tilt: float
    """Lean of its axis to the front, in radians."""
    depth: float
    width: float
    height: float
    wedge: float
    """Angle between its upper and lower face, in radians; positive where it is higher in front."""
    hydration: float = 0.0
    """Of a disc: 1 young and bright, 0 dark."""
    bulge: float = 0.0
    """Of a disc, in mm to the back."""
    finding: MarrowFinding | None = None
    """Of a vertebra."""


@dataclass(frozen=True)
class PhantomPatient:
    """One phantom patient."""

    elements: tuple[Element, ...]
    conus_z: float
    """Where the cord ends."""
    scoliosis: tuple[float, float]
    """Amplitude in mm and phase of the spine's sideways curve."""
    fat_mm: float
    """Thickness of the fat under the skin of the back."""
    muscle_fat: float
    """Share of fat in the back muscles, 0 to 1."""
    size: float
    """Scale of all bones, 1 the mean."""

    def sideways(self, z: np.ndarray) -> np.ndarray:
        """Return the x of the spine's midline at heights z."""
        amplitude, phase = self.scoliosis
        return amplitude * np.sin(z / 90.0 + phase)


def draw_phantom_patient(random: np.random.Generator, pathology: bool) -> PhantomPatient:
    """Draw a patient.

    Args:
        random: source of all that varies.
        pathology: whether degeneration, fractures and marrow findings occur.
    """
    size = float(np.clip(random.normal(1.06, 0.07), 0.9, 1.25))
    slope = np.radians(np.clip(random.normal(37, 7), 22, 52))
    # A steep sacrum goes with a deep lordosis: the spine stays upright.
    lordosis = slope + np.radians(np.clip(random.normal(15, 6), 2, 28))
    kyphosis = np.radians(np.clip(random.normal(24, 8), 8, 42))
    age = random.uniform() if pathology else 0.1
    spine = _draw_spine(random, size, slope, lordosis, kyphosis, age, pathology)
    elements = (*_draw_sacrum(random, size, slope), *spine)
    bodies = {element.label: element for element in spine if element.kind == "vertebra" and element.label}
    conus = bodies[6].z + random.normal(0, 12) * size
    return PhantomPatient(
        elements=elements,
        conus_z=float(conus),
        scoliosis=(float(random.normal(0, 3.5)), float(random.uniform(0, 2 * np.pi))),
        fat_mm=float(random.uniform(8, 40)),
        muscle_fat=float(np.clip(random.normal(0.15 + 0.35 * age, 0.1), 0.02, 0.7)),
        size=size,
    )


def _draw_spine(
    random: np.random.Generator,
    size: float,
    slope: float,
    lordosis: float,
    kyphosis: float,
    age: float,
    pathology: bool,
) -> list[Element]:
    """Stack discs and vertebrae on the sacrum; each face leans as the angles of those below add up."""
    y = z = 0.0
    tilt = slope
    elements = []
    for number, mean in enumerate(SIZES):
        known = number < len(DISCS)  # above T9, levels are seen but not labelled
        lumbar = number < len(LORDOSIS_SHARES)
        turn = lordosis * LORDOSIS_SHARES[number] if lumbar else -kyphosis / 8
        turn += np.radians(random.normal(0, 1.2))
        degeneration = float(np.clip(random.normal(age, 0.25) if pathology else 0.1, 0, 1))
        fracture = pathology and random.random() < 0.02 + 0.03 * age
        height = mean.height * size * random.normal(1, 0.035)
        depth, width = (
            mean.depth * size * random.normal(1, 0.03),
            mean.width * size * random.normal(1, 0.03),
        )

        disc_height = mean.disc_height * size * random.normal(1, 0.1) * (1 - 0.5 * degeneration**1.5)
        disc_wedge, body_wedge = 0.65 * turn, 0.35 * turn
        y, z, tilt, disc = stack(y, z, tilt, max(disc_height, 2.5), disc_wedge)
        elements.append(
            Element(
                "disc",
                DISCS[number].label if known else BACKGROUND,
                *disc,
                depth * 1.02,
                width,
                max(disc_height, 2.5),
                disc_wedge,
                hydration=float(np.clip(1.05 - 1.1 * degeneration, 0, 1)),
                bulge=float(max(0.0, random.normal(3.5 * degeneration - 0.8, 1.2))),
            )
        )
        if fracture:
            height *= 0.85
            body_wedge -= np.radians(random.uniform(5, 12))
        y, z, tilt, body = stack(y, z, tilt, height, body_wedge)
        finding = (
            MARROW_FINDINGS[random.choice(len(MARROW_FINDINGS))]
            if random.random() < 0.12 * pathology
            else None
        )
        label = BONES[number + 1].label if known else BACKGROUND
        elements.append(Element("vertebra", label, *body, depth, width, height, body_wedge, finding=finding))
    return elements


def _draw_sacrum(random: np.random.Generator, size: float, slope: float) -> list[Element]:
    """Five fused segments below the origin, curving to the front."""
    y = z = 0.0
    tilt = slope
    bend = np.radians(np.clip(random.normal(62, 14), 30, 90)) / len(SACRUM_HEIGHTS)
    elements = []
    for number, mean in enumerate(SACRUM_HEIGHTS):
        height = mean * size * random.normal(1, 0.04)
        shrink = 1 - 0.17 * number
        tilt -= bend / 2
        y, z = y + np.sin(tilt) * height / 2, z - np.cos(tilt) * height / 2
        elements.append(
            Element(
                "sacrum",
                BONES[0].label,
                float(y),
                float(z),
                float(tilt),
                32.0 * size * shrink**1.4,
                52.0 * size * shrink,
                height,
                -bend,
            )
        )
        y, z = y + np.sin(tilt) * height / 2, z - np.cos(tilt) * height / 2
        tilt -= bend / 2
    return elements
