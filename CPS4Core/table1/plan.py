"""Which trainings make Table 1 and the ablation of Fig. 4a."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from CPS4Core.config import PAPER, Settings, load_settings
from CPS4Core.errors import CPS4Error

OURS = "cps4"
RATIOS = (0.05, 0.1, 0.25, 0.5)
"""Labelled ratios of the paper."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Row:
    """A system: its stage 2, and where that uses text, its stage 1."""

    title: str
    method: str
    objective: str | None = None
    terms: str | None = None
    """Which losses of CPS4's stage 1; the settings' if None."""
    changes: tuple[str, ...] = ()
    """Settings of stage 2 that differ from the table's, as ``--set`` takes them."""

    @property
    def encoders(self) -> str | None:
        """Name of its stage 1, which rows may share; None without text."""
        return self.objective if self.terms is None else f"{self.objective}-{self.terms}"

    def settings(self, preset: str, changes: Sequence[str], seed: int) -> Settings:
        """Return its settings.

        Raises:
            CPS4Error: if a change is not valid, or names what the table itself chooses.
        """
        chosen = {
            "train.method": self.method,
            "pretrain.objective": self.objective,
            "pretrain.terms": self.terms,
            "seed": seed,
        }
        return load_settings(preset, [*changes, *self.changes], chosen)


AS_PUBLISHED = tuple(
    f"train.{name}={json.dumps(getattr(PAPER.train, name))}"
    for name in (
        "enhanced_target",
        "teacher_weight",
        "text_trust",
        "text_weight",
        "merged_by",
        "unmapped",
        "confidence",
        "count_every",
        "two_views",
        "ramp",
    )
)
"""How the paper uses the text maps, and no more; whatever the table's settings do with them."""

ROWS: dict[str, Row] = {
    "supervised": Row("Labelled images only", "supervised"),
    "mean_teacher": Row("MT", "mean_teacher"),
    "mean_teacher_hard": Row("MT, hard labels", "mean_teacher_hard"),
    "bcp": Row("BCP", "bcp"),
    "mc_net": Row("MC-Net", "mc_net"),
    "ss_net": Row("SS-Net", "ss_net"),
    "ucmt": Row("UCMT", "ucmt"),
    "clip": Row("CLIP", "cps4", "clip"),
    "medclip": Row("MedCLIP", "cps4", "medclip"),
    "mgca": Row("MGCA", "cps4", "mgca"),
    "egma": Row("EGMA", "cps4", "egma"),
    "dusss": Row("DuSSS", "dusss", "dusss"),
    "graphcl": Row("GraphCL", "graphcl"),
    "graphcl_text": Row("GraphCL with class prompts", "graphcl_text", "cps4"),
    "cps4_paper": Row("CPS4, as published", "cps4", "cps4", changes=AS_PUBLISHED),
    OURS: Row("CPS4", "cps4", "cps4"),
}
"""The rows of Table 1, as the paper has them, and more: two baselines, GraphCL with text, and CPS4 as the settings
have it beside CPS4 as published."""

ABLATION: dict[str, Row] = {
    "mean_teacher_hard": ROWS["mean_teacher_hard"],
    "cps4_token": Row("+ token loss", "cps4", "cps4", "token"),
    "cps4_pixel": Row("+ pixel loss", "cps4", "cps4", "pixel"),
    OURS: ROWS[OURS],
}
"""The bars of Fig. 4a; the first is CPS4 without text."""


@dataclass(frozen=True)
class Training:
    """One cell of the table with one seed."""

    name: str
    row: Row
    ratio: float
    seed: int

    @property
    def place(self) -> str:
        """Its folder, from that of the table."""
        return f"runs/{self.ratio:g}/{self.name}/seed{self.seed}"

    @property
    def encoders(self) -> str | None:
        """The folder of its stage 1, from that of the table; None without text."""
        encoders = self.row.encoders
        return None if encoders is None else f"stage1/{self.ratio:g}/{encoders}/seed{self.seed}"


def plan(
    names: Sequence[str], ratios: Sequence[float], seeds: Sequence[int], ablation: bool
) -> list[Training]:
    """Return the trainings, seed by seed, so that a table that is stopped early is a table of fewer seeds.

    Args:
        names: of ``ROWS``; all if empty.
        ratios: of labelled patients.
        seeds: of each.
        ablation: also those of Fig. 4a, at the smallest ratio.

    Raises:
        CPS4Error: if a system is not known.
    """
    if unknown := [name for name in names if name not in ROWS]:
        raise CPS4Error(f"Table 1 has no system {unknown[0]!r}.", f"Choose among: {', '.join(ROWS)}.")
    chosen = {name: ROWS[name] for name in names} if names else ROWS
    trainings = []
    for seed in seeds:
        for ratio in sorted(ratios):
            rows = {**chosen, **(ABLATION if ablation and ratio == min(ratios) else {})}
            trainings += [Training(name, row, ratio, seed) for name, row in rows.items()]
    return trainings
