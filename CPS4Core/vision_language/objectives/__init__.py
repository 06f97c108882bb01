"""The objectives of stage 1: one file each, one interface, found by name."""

from __future__ import annotations

from CPS4Core.errors import CPS4Error
from CPS4Core.vision_language.objectives.clip import CLIP
from CPS4Core.vision_language.objectives.cps4 import CPS4Objective
from CPS4Core.vision_language.objectives.dusss import DuSSS
from CPS4Core.vision_language.objectives.egma import EGMA, FILIP
from CPS4Core.vision_language.objectives.medclip import MedCLIP
from CPS4Core.vision_language.objectives.mgca import MGCA
from CPS4Core.vision_language.objectives.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "cps4": CPS4Objective,
    "clip": CLIP,
    "medclip": MedCLIP,
    "mgca": MGCA,
    "egma": EGMA,
    "filip": FILIP,
    "dusss": DuSSS,
}
"""In the order of ``CPS4Core.systems``, which names them for people."""


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
