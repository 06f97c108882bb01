"""Names of the levels as one ladder, from head to tail, so that all of them can move up or down together.

The class table holds T9 to the sacrum. What moves past its ends keeps its anatomical name (T8, S2), so that no
structure is lost and moving back restores every name.
"""

from __future__ import annotations

from CPS4Core.class_table import BY_LABEL, HEAD_TO_TAIL, Structure, find_label, structure_of

LADDER: tuple[str, ...] = (
    *(name for upper in range(1, 9) for name in (f"T{upper}", f"T{upper}/T{upper + 1}")),
    *(BY_LABEL[label].short for label in HEAD_TO_TAIL),
    *(name for upper in range(1, 5) for name in (f"S{upper}/S{upper + 1}", f"S{upper + 1}")),
)
"""From T1 to S5; bones and discs alternate."""
BONE_TO_BONE = 2
"""Steps on the ladder from one vertebra to the next."""
OUTSIDE_COLOUR = (160, 160, 160)


def step_of(name: str) -> int | None:
    """Return the step of a structure on the ladder, None if the name is no level."""
    structure = structure_named(name)
    on_ladder = name if structure is None else structure.short
    return LADDER.index(on_ladder) if on_ladder in LADDER else None


def name_at(step: int) -> str | None:
    """Return the name of the structure at a step, None where there is no vertebra any more."""
    return LADDER[step] if 0 <= step < len(LADDER) else None


def moved(name: str, levels: int) -> str | None:
    """Return the name ``levels`` vertebrae further down (negative: up), None if there is none.

    A name that is no level stays as it is.
    """
    step = step_of(name)
    return name if step is None else name_at(step + BONE_TO_BONE * levels)


def structure_named(name: str) -> Structure | None:
    """Return the structure of the class table with this name, None if it is not in the table."""
    return structure_of(find_label(name))


def is_disc(name: str) -> bool:
    """Whether a structure is a level, and a disc."""
    step = step_of(name)
    return step is not None and step % BONE_TO_BONE == 1
