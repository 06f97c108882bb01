"""The mean signal of each tissue in five kinds of image; the brightest is about 1.

Rough figures, as clinical scans show them: a middle to draw around.
"""

from __future__ import annotations

import torch

from CPS4Core.synthesis.tissues import TISSUES

_TABLE = """
tissue                T2     T1   STIR  water    fat
air                 0.00   0.00   0.00   0.00   0.00
fat                 0.75   1.00   0.08   0.12   1.00
skin                0.40   0.40   0.30   0.60   0.20
muscle              0.14   0.30   0.25   0.45   0.12
muscle_fat          0.60   0.80   0.15   0.30   0.70
organ_0             0.12   0.30   0.30   0.40   0.10
organ_1             0.30   0.40   0.45   0.50   0.20
organ_2             0.65   0.85   0.10   0.15   0.80
organ_3             0.20   0.25   0.20   0.30   0.10
organ_4             0.50   0.50   0.50   0.50   0.20
organ_5             0.80   0.60   0.80   0.65   0.30
vessel              0.05   0.10   0.15   0.70   0.06
ligament            0.06   0.10   0.06   0.30   0.10
epidural_fat        0.70   0.90   0.10   0.30   0.90
csf                 1.00   0.15   1.00   0.90   0.05
cord                0.45   0.35   0.50   0.75   0.08
root                0.55   0.25   0.60   0.80   0.10
nerve               0.35   0.35   0.50   0.60   0.20
interspinous        0.40   0.60   0.20   0.50   0.50
bladder             1.00   0.20   1.00   0.80   0.05
rectum              0.25   0.30   0.30   0.40   0.15
presacral_fat       0.70   0.90   0.10   0.20   0.90
metal               0.00   0.00   0.00   0.00   0.00
cortex              0.06   0.08   0.04   0.20   0.12
marrow              0.42   0.55   0.16   0.40   0.50
lesion              0.60   0.40   0.60   0.50   0.30
endplate            0.55   0.50   0.40   0.45   0.50
posterior_cortex    0.07   0.10   0.05   0.20   0.15
posterior_marrow    0.45   0.60   0.14   0.35   0.50
implant             0.00   0.00   0.00   0.00   0.00
sclerosis           0.30   0.35   0.20   0.45   0.35
annulus             0.10   0.25   0.12   0.70   0.10
nucleus             0.50   0.30   0.50   0.85   0.08
cleft               0.35   0.30   0.40   0.80   0.08
protrusion          0.15   0.27   0.20   0.70   0.10
"""

SHARES = {"T2": 0.40, "T1": 0.24, "STIR": 0.08, "water": 0.12, "fat": 0.04}
"""Of all images; the rest has signals from nowhere."""

_FAT_SHARES = {
    "fat": 1.0,
    "muscle_fat": 0.6,
    "organ_2": 0.8,
    "epidural_fat": 1.0,
    "interspinous": 0.4,
    "presacral_fat": 1.0,
    "marrow": 0.45,
    "endplate": 0.3,
    "posterior_marrow": 0.5,
}
"""Which part of a tissue's signal comes from fat, which some sequences show beside its place."""


def fat_shares() -> torch.Tensor:
    """Return the part of each tissue's signal that comes from fat, shape (tissues,), in the order of ``TISSUES``."""
    return torch.tensor([_FAT_SHARES.get(tissue, 0.0) for tissue in TISSUES])


def mean_signals() -> torch.Tensor:
    """Return the mean signals, shape (kinds of image, tissues), in the orders of ``SHARES`` and ``TISSUES``."""
    header, *lines = [line.split() for line in _TABLE.strip().splitlines()]
    rows = {name: [float(value) for value in values] for name, *values in lines}
    assert header[1:] == list(SHARES) and rows.keys() == set(TISSUES)
    return torch.tensor([rows[tissue] for tissue in TISSUES]).T.contiguous()
