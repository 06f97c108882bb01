"""Mean sizes of adult vertebrae and discs, from the literature, rounded, in mm.

- vertebral bodies: Panjabi et al., Thoracic human vertebrae, Spine 16 (1991), and Human lumbar vertebrae, Spine 17
  (1992): end-plate width and depth, posterior body height;
- discs: Gilad and Nissan, Spine 11 (1986), and Zhou et al., European Spine Journal 9 (2000), for lumbar heights;
  thoracic discs are lower, falling to about 4 mm;
- lordosis: two thirds of it lie below L4.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LevelSize:
    """Mean sizes of one vertebra and of the disc below it."""

    depth: float
    width: float
    height: float
    disc_height: float


SIZES = (
    LevelSize(35.0, 48.0, 26.0, 10.0),  # L5
    LevelSize(35.5, 46.5, 27.0, 11.0),  # L4
    LevelSize(35.0, 44.5, 27.0, 10.5),  # L3
    LevelSize(34.5, 43.0, 27.0, 9.5),  # L2
    LevelSize(34.0, 41.5, 26.5, 8.0),  # L1
    LevelSize(32.5, 40.5, 25.5, 6.5),  # T12
    LevelSize(31.5, 38.0, 24.0, 5.5),  # T11
    LevelSize(30.5, 35.0, 22.8, 4.8),  # T10
    LevelSize(29.5, 32.5, 21.8, 4.4),  # T9
    LevelSize(28.5, 31.0, 21.2, 4.2),  # T8
    LevelSize(27.5, 30.0, 20.7, 4.0),  # T7
    LevelSize(26.5, 29.5, 20.2, 4.0),  # T6
    LevelSize(25.5, 29.0, 19.7, 4.0),  # T5
)
"""From L5 upwards."""

LORDOSIS_SHARES = (0.36, 0.28, 0.16, 0.12, 0.08)
"""Of the lumbar lordosis, from L5/S to L1/L2, shared between disc and vertebra."""
