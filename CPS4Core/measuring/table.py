"""The measures of a spine as a table: a row for each structure, and one for the lordosis L1-S1."""

from __future__ import annotations

import math

from CPS4Core.levels import LADDER
from CPS4Core.measuring.spine import FIRST, NOTHING, Spine

COLUMNS = (
    "structure",
    "volume (ml)",
    "anterior height (mm)",
    "middle height (mm)",
    "posterior height (mm)",
    "wedge (deg)",
    "disc height index",
    "slip (mm)",
    "lordosis (deg)",
    "not measured",
)
LUMBAR = f"{FIRST}-S1"
"""The row of the whole lumbar lordosis; slip and lordosis of a segment stand in the row of its disc."""
PROBLEMS = {
    "cut": "the border of the picture cuts it",
    "irregular": "it has not the shape of a body or disc",
}
DIGITS = (None, 3, 1, 1, 1, 1, 2, 1, 1, None)


def rows_of(spine: Spine) -> dict[str, tuple[str, ...]]:
    """Return the rows, by the name of the structure, head to tail; empty where nothing is measured."""
    names = sorted({*spine.shapes, *spine.segments}, key=LADDER.index)
    rows = {name: _row(spine, name) for name in names}
    return rows | {LUMBAR: _texts((LUMBAR, *[math.nan] * 7, spine.lordosis_deg, ""))}


def _row(spine: Spine, name: str) -> tuple[str, ...]:
    shape = spine.shapes.get(name, NOTHING)
    segment = spine.segments.get(name)
    of_segment = (math.nan,) * 3
    if segment is not None:
        of_segment = (segment.height_index, segment.slip_mm, segment.lordosis_deg)
    heights = (shape.anterior_mm, shape.middle_mm, shape.posterior_mm, shape.wedge_deg)
    problem = "" if shape.problem is None else PROBLEMS[shape.problem]
    return _texts((name, shape.volume_ml, *heights, *of_segment, problem))


def _texts(values: tuple[str | float, ...]) -> tuple[str, ...]:
    return tuple(
        value if isinstance(value, str) else "" if math.isnan(value) else f"{value:z.{digits}f}"
        for value, digits in zip(values, DIGITS, strict=True)
    )
