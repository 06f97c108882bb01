"""Names of the levels as one ladder, from head to tail, so that all of them can move up or down together.

The class table holds T9 to the sacrum. What moves past its ends keeps its anatomical name (T8, S2), so that no
structure is lost and moving back restores every name.
"""

from __future__ import annotations

import re

from CPS4Core.class_table import BY_LABEL, HEAD_TO_TAIL, Structure, find_label

BONE_TO_BONE = 2
"""Steps on the ladder from one vertebra to the next: bones and discs alternate."""
LOWEST = len(HEAD_TO_TAIL) - 1
"""Step of the sacrum. T9 has step 0; structures above it have negative steps."""
OUTSIDE_COLOUR = (160, 160, 160)


def step_of(name: str) -> int | None:
    """Return the step of a structure on the ladder, None if the name is no level."""
    label = find_label(name)
    if label in BY_LABEL:
        return HEAD_TO_TAIL.index(label)
    if match := re.fullmatch(r"T(\d+)(?:/T(\d+))?", name):
        upper, lower = int(match[1]), match[2]
        above = 2 * (9 - upper)
        if not 1 <= upper <= 8 or (lower is not None and int(lower) != upper + 1):
            return None
        return -above + (1 if lower is not None else 0)
    if match := re.fullmatch(r"S(\d+)(?:/S(\d+))?", name):
        upper, lower = int(match[1]), match[2]
        if lower is not None:
            return LOWEST + 2 * upper - 1 if int(lower) == upper + 1 else None
        return LOWEST + 2 * (upper - 1) if upper >= 2 else None
    return None


def name_at(step: int) -> str | None:
    """Return the name of the structure at a step, None where there is no vertebra any more."""
    if 0 <= step <= LOWEST:
        return BY_LABEL[HEAD_TO_TAIL[step]].short
    if step < 0:
        upper = 9 - (-step + 1) // 2
        if upper < 1:
            return None
        return f"T{upper}" if step % 2 == 0 else f"T{upper}/T{upper + 1}"
    upper = (step - LOWEST + 1) // 2
    if upper > 4:
        return None
    return f"S{upper + 1}" if (step - LOWEST) % 2 == 0 else f"S{upper}/S{upper + 1}"


def moved(name: str, levels: int) -> str | None:
    """Return the name ``levels`` vertebrae further down (negative: up), None if there is none.

    A name that is no level stays as it is.
    """
    step = step_of(name)
    return name if step is None else name_at(step + BONE_TO_BONE * levels)


def structure_named(name: str) -> Structure | None:
    """Return the structure of the class table with this name, None if it is not in the table."""
    return BY_LABEL.get(find_label(name))


def is_disc(name: str) -> bool:
    """Whether a level is a disc."""
    return "/" in name
