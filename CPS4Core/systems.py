"""The systems of the paper's Table 1 by name: what stage 1 and stage 2 can train.

It imports nothing but the standard library, so that 3D Slicer and the command line list them without the engine.
"""

from __future__ import annotations

OBJECTIVES: dict[str, str] = {
    "cps4": "CPS4",
    "clip": "CLIP",
    "medclip": "MedCLIP",
    "mgca": "MGCA",
    "egma": "EGMA, class masks as gaze",
    "filip": "EGMA, no gaze (FILIP)",
    "dusss": "DuSSS",
}
"""Objectives of stage 1, with their titles. The classes are in ``CPS4Core.vision_language.objectives``."""

METHODS: dict[str, str] = {
    "cps4": "CPS4",
    "mean_teacher": "Mean Teacher",
    "mean_teacher_hard": "Mean Teacher, hard labels",
    "bcp": "BCP",
    "mc_net": "MC-Net",
    "mc_net_plus": "MC-Net+",
    "ss_net": "SS-Net",
    "ucmt": "UCMT",
    "graphcl": "GraphCL",
    "graphcl_text": "GraphCL with class prompts",
    "dusss": "DuSSS",
    "supervised": "Labelled images only",
}
"""Methods of stage 2, with their titles. The classes are in ``CPS4Core.segmentation.methods``."""

WITH_TEXT = frozenset({"cps4", "graphcl_text", "dusss"})
"""Methods of stage 2 that need the encoders of stage 1."""
