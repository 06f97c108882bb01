"""The objectives of stage 1: one file each, one interface, found by name."""

from __future__ import annotations

from CPS4Core.errors import CPS4Error
from CPS4Core.vision_language.objectives.cps4 import CPS4Objective
from CPS4Core.vision_language.objectives.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = {"cps4": CPS4Objective}


def find_objective(name: str) -> type[Objective]:
    """Return the objective called ``name``.

    Raises:
        CPS4Error: if there is none.
    """
    if name not in OBJECTIVES:
        raise CPS4Error(
            f"There is no stage 1 objective {name!r}.", f"Choose one of: {', '.join(OBJECTIVES)}."
        )
    return OBJECTIVES[name]
