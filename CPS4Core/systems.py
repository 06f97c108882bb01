"""The systems of the paper's Table 1 by name: what stage 1 and stage 2 can train.

The tables below register them all, and are all that the product knows of ``CPS4Core.baselines``. Nothing heavy is
imported, so that 3D Slicer and the command line list the systems without the engine; a system's own module is imported
when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from CPS4Core.errors import CPS4Error


@dataclass(frozen=True)
class System:
    """What can be known of a system without importing it."""

    title: str
    """Its name for people."""
    path: str
    """Its class, as ``module:Class``."""
    needs_text: bool = False
    """Whether its stage 2 learns from text maps, which the encoders of stage 1 make."""

    def load(self) -> Any:
        """Return its class."""
        return resolve_name(self.path)


_MINE = "CPS4Core.segmentation.methods"
_THEIRS = "CPS4Core.baselines"

METHODS: dict[str, System] = {
    "cps4": System("CPS4", f"{_MINE}.cps4:CPS4", needs_text=True),
    "mean_teacher": System("Mean Teacher", f"{_MINE}.mean_teacher:SoftMeanTeacher"),
    "supervised": System("Labelled images only", f"{_MINE}.supervised:Supervised"),
    "mean_teacher_hard": System("Mean Teacher, hard labels", f"{_MINE}.mean_teacher:HardMeanTeacher"),
    "bcp": System("BCP", f"{_THEIRS}.methods.bcp:BCP"),
    "mc_net": System("MC-Net", f"{_THEIRS}.methods.mc_net:MCNet"),
    "mc_net_plus": System("MC-Net+", f"{_THEIRS}.methods.mc_net:MCNetPlus"),
    "ss_net": System("SS-Net", f"{_THEIRS}.methods.ss_net:SSNet"),
    "ucmt": System("UCMT", f"{_THEIRS}.methods.ucmt:UCMT"),
    "graphcl": System("GraphCL", f"{_THEIRS}.methods.graphcl:GraphCL"),
    "graphcl_text": System(
        "GraphCL with class prompts", f"{_THEIRS}.methods.graphcl:GraphCLText", needs_text=True
    ),
    "dusss": System("DuSSS", f"{_THEIRS}.methods.dusss:DuSSSSegmentation", needs_text=True),
}
"""Methods of stage 2: a ``CPS4Core.segmentation.methods.method.Method`` each."""

OBJECTIVES: dict[str, System] = {
    "cps4": System("CPS4", "CPS4Core.vision_language.objective:CPS4Objective"),
    "clip": System("CLIP", f"{_THEIRS}.objectives.clip:CLIP"),
    "medclip": System("MedCLIP", f"{_THEIRS}.objectives.medclip:MedCLIP"),
    "mgca": System("MGCA", f"{_THEIRS}.objectives.mgca:MGCA"),
    "egma": System("EGMA, class masks as gaze", f"{_THEIRS}.objectives.egma:EGMA"),
    "filip": System("EGMA, no gaze (FILIP)", f"{_THEIRS}.objectives.egma:FILIP"),
    "dusss": System("DuSSS", f"{_THEIRS}.objectives.dusss:DuSSS"),
}
"""Objectives of stage 1: a ``CPS4Core.vision_language.objective.Objective`` each."""


BASELINE_SETTINGS = f"{_THEIRS}.settings:BaselineSettings"
"""The settings of the comparison systems."""


def find_method(name: str) -> System:
    """Return the method of stage 2 called ``name``.

    Raises:
        CPS4Error: if there is none.
    """
    return _find(METHODS, "method", name)


def find_objective(name: str) -> System:
    """Return the objective of stage 1 called ``name``.

    Raises:
        CPS4Error: if there is none.
    """
    return _find(OBJECTIVES, "stage 1 objective", name)


def _find(systems: Mapping[str, System], what: str, name: str) -> System:
    if name not in systems:
        raise CPS4Error(f"There is no {what} {name!r}.", f"Choose one of: {', '.join(systems)}.")
    return systems[name]
