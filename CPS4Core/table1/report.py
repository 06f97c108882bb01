"""Table 1 as Markdown and CSV, the paired tests, and the figures of the paper's Fig. 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import t, wilcoxon

from CPS4Core.files import written_aside
from CPS4Core.table1.plan import ABLATION, OURS, ROWS, Training

SCORES = ("mdice", "miou", "level_accuracy")
COUNTED = "counted_"
"""Before the name of a score: with the levels counted along the spine once the network has spoken."""
FEWEST_PAIRS = 6
"""With fewer, Wilcoxon's test cannot fall below 5 %."""


def write_report(found: Mapping[Training, Sequence[Mapping[str, Any]]], folder: Path) -> Path:
    """Write the report and return its Markdown file.

    Args:
        found: the scores of the test cases of each finished training: case, ``SCORES``, and the same counted.
        folder: for ``table1.md``, the CSV files and the figures.
    """
    scores = pd.DataFrame(
        [
            {"system": training.name, "ratio": training.ratio, "seed": training.seed, **case}
            for training, cases in found.items()
            for case in cases
        ],
        columns=["system", "ratio", "seed", "case", *SCORES, *(COUNTED + name for name in SCORES)],
    )
    counted = scores.drop(columns=list(SCORES)).rename(columns={COUNTED + name: name for name in SCORES})
    tests, tests_counted = paired_tests(scores), paired_tests(counted)
    text = "\n\n".join(
        [
            "# Table 1",
            main_table(scores),
            "## Ablation (Fig. 4a)",
            ablation_table(scores),
            "## CPS4 against each",
            paired_table(tests),
            "## With the levels counted along the spine at the end",
            main_table(counted),
            paired_table(tests_counted),
        ]
    )
    tables = {
        "scores.csv": scores.to_csv(index=False),
        "paired.csv": tests.to_csv(index=False),
        "paired_counted.csv": tests_counted.to_csv(index=False),
    }
    for name, content in {**tables, "table1.md": text + "\n"}.items():
        with written_aside(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    for name, figure in {"ratios.png": ratio_figure(scores), "ablation.png": ablation_figure(scores)}.items():
        with written_aside(folder / name) as temporary:
            figure.savefig(temporary, dpi=120)
    return folder / "table1.md"


def by_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the means over cases of each system, ratio and seed."""
    return scores.groupby(["system", "ratio", "seed"], as_index=False)[list(SCORES)].mean()


def main_table(scores: pd.DataFrame) -> str:
    """Return mDice, mIoU and level accuracy in %, mean ± standard deviation over seeds, as Markdown."""
    means = by_seed(scores)
    ratios = sorted(means.ratio.unique())
    heads = [f"{100 * ratio:g} %: {what}" for ratio in ratios for what in ("mDice", "mIoU", "levels")]
    lines = [_line(["system", "seeds", *heads]), _line(["---"] * (2 + len(heads)))]
    for name, row in ROWS.items():
        mine = means[means.system == name]
        if mine.empty:
            continue
        cells = []
        for ratio in ratios:
            there = mine[mine.ratio == ratio]
            cells += [in_percent(there[column]) for column in SCORES]
        lines.append(_line([row.title, str(mine.seed.nunique()), *cells]))
    return "\n".join(lines)


def ablation_table(scores: pd.DataFrame) -> str:
    """Return the mDice of the bars of Fig. 4a in %, as Markdown."""
    lines = [_line(["stage 1", "mDice"]), _line(["---", "---"])]
    lines += [_line([ABLATION[name].title, in_percent(values)]) for name, values in _ablation(scores).items()]
    return "\n".join(lines)


def paired_tests(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare CPS4 with each other system, test case by test case.

    A case's score is its mean over the seeds that both systems have. Wilcoxon's signed-rank test is two-sided, its p
    corrected by Holm over all comparisons; it is missing with fewer than ``FEWEST_PAIRS`` cases.

    Returns:
        One row a ratio and system: the number of cases, the mean difference of mDice (CPS4 less the other), its 95 %
        interval by Student's t, p and p_holm.
    """
    rows = []
    for (ratio, system), theirs in scores.groupby(["ratio", "system"], sort=False):
        ours = scores[(scores.system == OURS) & (scores.ratio == ratio)]
        keys = ["seed", "case"]
        pairs = (
            ours.merge(theirs, on=keys, suffixes=("", "_other"))
            .groupby("case")[["mdice", "mdice_other"]]
            .mean()
        )
        if system == OURS or pairs.empty:
            continue
        difference = (pairs.mdice - pairs.mdice_other).to_numpy()
        n = len(difference)
        half = t.ppf(0.975, n - 1) * difference.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
        p = wilcoxon(difference).pvalue if n >= FEWEST_PAIRS and np.any(difference) else np.nan
        mean = difference.mean()
        rows.append((ratio, system, n, mean, mean - half, mean + half, p))
    table = pd.DataFrame(rows, columns=["ratio", "system", "cases", "difference", "low", "high", "p"])
    table["p_holm"] = holm(table.p.to_numpy(dtype=float))
    return table


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number by Holm's method; missing ones stay missing."""
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    scaled = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return corrected


def paired_table(tests: pd.DataFrame) -> str:
    """Return the paired tests as Markdown, differences in points of mDice."""
    lines = [
        _line(["labels", "system", "cases", "CPS4 is better by", "95 %", "p (Holm)"]),
        _line(["---"] * 6),
    ]
    for row in tests.itertuples():
        title = {**ROWS, **ABLATION}[row.system].title
        interval = f"{100 * row.low:+.1f} to {100 * row.high:+.1f}"
        p = "" if np.isnan(row.p_holm) else f"{row.p_holm:.3f}"
        cells = [f"{100 * row.ratio:g} %", title, str(row.cases), f"{100 * row.difference:+.1f}", interval, p]
        lines.append(_line(cells))
    return "\n".join(lines)


def ratio_figure(scores: pd.DataFrame) -> Figure:
    """Return mDice over the labelled ratio, a line a system (Fig. 4b)."""
    means = by_seed(scores)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, row in ROWS.items():
        line = means[means.system == name].groupby("ratio").mdice.mean()
        if len(line):
            style = {"linewidth": 2.5, "color": "black"} if name == OURS else {"linewidth": 1}
            axes.plot(100 * line.index, 100 * line.to_numpy(), marker="o", label=row.title, **style)
    axes.set_xlabel("labelled patients (%)")
    axes.set_ylabel("mDice (%)")
    if axes.lines:
        axes.legend(fontsize=7, ncols=2)
    return figure


def ablation_figure(scores: pd.DataFrame) -> Figure:
    """Return the bars of Fig. 4a."""
    bars = _ablation(scores)
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    titles = [ABLATION[name].title for name in bars]
    axes.bar(titles, [100 * values.mean() for values in bars.values()], color="tab:blue")
    axes.set_ylabel("mDice (%)")
    return figure


def in_percent(values: pd.Series) -> str:
    """Return the mean in %, and the standard deviation where there is more than one; empty without any."""
    if values.empty:
        return ""
    mean = f"{100 * values.mean():.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * values.std(ddof=1):.1f}"


def _ablation(scores: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the mDice of each seed of the systems of the ablation that have run, at its smallest ratio."""
    means = by_seed(scores)
    smallest = means.ratio.min()
    bars = {name: means[(means.system == name) & (means.ratio == smallest)].mdice for name in ABLATION}
    return {name: values for name, values in bars.items() if len(values)}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
