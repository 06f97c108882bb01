"""The systems of Table 1: one file each, one interface, found by name."""

from __future__ import annotations

from CPS4Core.errors import CPS4Error
from CPS4Core.segmentation.methods.bcp import BCP
from CPS4Core.segmentation.methods.cps4 import CPS4
from CPS4Core.segmentation.methods.dusss import DuSSSSegmentation
from CPS4Core.segmentation.methods.graphcl import GraphCL, GraphCLText
from CPS4Core.segmentation.methods.mc_net import MCNet, MCNetPlus
from CPS4Core.segmentation.methods.mean_teacher import HardMeanTeacher, SoftMeanTeacher
from CPS4Core.segmentation.methods.method import Batch, Method
from CPS4Core.segmentation.methods.ss_net import SSNet
from CPS4Core.segmentation.methods.supervised import Supervised
from CPS4Core.segmentation.methods.ucmt import UCMT

METHODS: dict[str, type[Method]] = {
    "cps4": CPS4,
    "mean_teacher": SoftMeanTeacher,
    "mean_teacher_hard": HardMeanTeacher,
    "bcp": BCP,
    "mc_net": MCNet,
    "mc_net_plus": MCNetPlus,
    "ss_net": SSNet,
    "ucmt": UCMT,
    "graphcl": GraphCL,
    "graphcl_text": GraphCLText,
    "dusss": DuSSSSegmentation,
    "supervised": Supervised,
}
"""In the order of ``CPS4Core.systems``, which names them for people."""


def find_method(name: str) -> type[Method]:
    """Return the method called ``name``.

    Raises:
        CPS4Error: if there is none.
    """
    if name not in METHODS:
        raise CPS4Error(f"There is no method {name!r}.", f"Choose one of: {', '.join(METHODS)}.")
    return METHODS[name]


__all__ = ["METHODS", "Batch", "Method", "find_method"]
