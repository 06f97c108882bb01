"""Comparing segmentations with references: tables by case and by class, for programs and for people."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CPS4Core.class_table import BACKGROUND, BY_LABEL, HEAD_TO_TAIL, IGNORE
from CPS4Core.data.dataset import plain_name
from CPS4Core.data.labels import read_labels
from CPS4Core.data.results import check_free, note
from CPS4Core.data.volumes import by_case, list_volumes
from CPS4Core.errors import CPS4Error
from CPS4Core.evaluation.metrics import level_agreement, overlap, surface_distances
from CPS4Core.events import Artifact, Failed, Finished, Progress, Reporter, Warned, silent
from CPS4Core.failures import failure_of
from CPS4Core.files import written_aside

try:
    import pandas as pd
except ModuleNotFoundError as error:
    raise CPS4Error("The tables of an evaluation need the package pandas.", "pip install pandas") from error

COLUMNS = {
    "mdice": "mDice",
    "miou": "mIoU",
    "mdice_present": "mDice, in the reference only",
    "hd95_mm": "HD95 (mm)",
    "assd_mm": "surface distance (mm)",
    "level_accuracy": "level accuracy",
}
TABLES = ("cases.csv", "classes.csv", "summary.md")
SUMMARY = "summary.json"
MAKER = {"command": "evaluate"}
SCORES = ("dice", "iou", "hd95_mm", "assd_mm")
"""Of one structure in one case."""


@dataclass(frozen=True)
class Results:
    """Scores of all cases."""

    cases: pd.DataFrame
    """One row a case: the columns of ``COLUMNS`` and ``level_shift``."""
    structures: pd.DataFrame
    """One row a case and structure: dice, iou, hd95_mm, assd_mm."""
    skipped: tuple[Failed, ...]
    missed: tuple[str, ...] = ()
    """Cases whose reference has no segmentation: none of their structures was found."""

    def summary(self) -> dict[str, Any]:
        """Return the means over cases and what was skipped, in JSON values."""
        means = {name: _number(self.cases[name].mean()) for name in COLUMNS}
        return {
            "cases": len(self.cases),
            **means,
            "missed": list(self.missed),
            "skipped": [f"{failed.path}: {failed.problem}" for failed in self.skipped],
        }

    def by_class(self) -> pd.DataFrame:
        """Return mean and standard deviation of each structure over cases, head to tail."""
        order = [BY_LABEL[label].short for label in HEAD_TO_TAIL]
        grouped = self.structures.groupby("structure")[list(SCORES)]
        names = [f"{name}_{what}" for name in SCORES for what in ("mean", "sd")]
        table = grouped.agg(["mean", "std"]).set_axis(names, axis=1)
        table.insert(0, "n", grouped.size())
        return table.reindex([name for name in order if name in table.index])


def evaluate(
    predictions: Path, references: Path, output: Path, report: Reporter = silent, overwrite: bool = False
) -> Results:
    """Compare segmentations with references and write ``cases.csv``, ``classes.csv``, ``summary.md`` and ``.json``.

    Args:
        predictions: a segmentation, or a folder of them.
        references: its reference, or a folder with references of the same case names. A reference without a
            segmentation counts as a case in which nothing was found.
        output: folder for the tables.
        report: receives progress and skipped cases.
        overwrite: write over whatever is at the places of the tables.

    Raises:
        CPS4Error: if there is no pair to compare, the folder cannot be written, or it holds files of these names
            that no evaluation made.
    """
    for name in (*TABLES, SUMMARY):
        check_free(Path(output) / name, MAKER, overwrite)
    rows, structures, skipped = [], [], []
    pairs = _pairs(Path(predictions), Path(references), report)
    for done, (name, prediction, reference) in enumerate(pairs):
        try:
            case, classes = score_case(prediction, reference)
        except Exception as error:  # of one case; the others have their turn
            skipped.append(failure_of(error, reference))
            report(skipped[-1])
        else:
            rows.append({"case": name, **case})
            structures += [{"case": name, **scores} for scores in classes]
        report(Progress(done + 1, len(pairs), "Evaluating"))
    if not rows:
        raise CPS4Error("No case could be compared.", "See the errors above for each file.", predictions)
    results = Results(
        pd.DataFrame(rows),
        pd.DataFrame(structures, columns=["case", "structure", *SCORES]),
        tuple(skipped),
        tuple(name for name, prediction, _ in pairs if prediction is None),
    )
    _write(results, Path(output))
    report(Artifact("evaluation", str(Path(output) / "summary.md"), results.summary()))
    report(Finished())
    return results


def score_case(
    prediction_path: Path | None, reference_path: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the scores of one case, and those of each of its structures.

    Args:
        prediction_path: the segmentation; None where there is none, which scores as an empty one.
        reference_path: its reference.

    Raises:
        CPS4Error: if a file cannot be read or the grids differ.
    """
    reference_image = read_labels(reference_path)
    reference = sitk.GetArrayFromImage(reference_image)
    prediction = np.zeros_like(reference)
    if prediction_path is not None:
        prediction = sitk.GetArrayFromImage(read_labels(prediction_path, like=reference_image))
        prediction[prediction == IGNORE] = BACKGROUND  # a segmentation says of each voxel what it is
    spacing = reference_image.GetSpacing()[::-1]
    counts = overlap(prediction, reference)
    prediction[reference == IGNORE] = IGNORE
    classes = []
    for label in np.flatnonzero(counts.present):
        distances = surface_distances(prediction == label, reference == label, spacing)
        classes.append(
            {
                "structure": BY_LABEL[int(label)].short,
                "dice": counts.dice[label],
                "iou": counts.iou[label],
                "hd95_mm": None if distances is None else distances.hausdorff95,
                "assd_mm": None if distances is None else distances.average,
            }
        )
    table = pd.DataFrame(classes, columns=["structure", *SCORES]).astype(dict.fromkeys(SCORES, float))
    levels = level_agreement(np.where(prediction == IGNORE, 0, prediction), reference)
    in_reference = (counts.reference > 0) & counts.present
    case = {
        "mdice": table.dice.mean(),
        "miou": table.iou.mean(),
        "mdice_present": counts.dice[in_reference].mean() if in_reference.any() else np.nan,
        "hd95_mm": table.hd95_mm.mean(),
        "assd_mm": table.assd_mm.mean(),
        "level_accuracy": levels.accuracy,
        "level_shift": levels.shift,
    }
    return case, classes


def _pairs(predictions: Path, references: Path, report: Reporter) -> list[tuple[str, Path | None, Path]]:
    """Return (case, segmentation or None, reference) of every reference; segmentations without one are named."""
    for path in (predictions, references):
        if not path.exists():
            raise CPS4Error("The path does not exist.", "Check it.", path)
    if predictions.is_file() and references.is_file():
        return [(plain_name(predictions), predictions, references)]
    found, known = _by_name(predictions), _by_name(references)
    if not found.keys() & known.keys():
        raise CPS4Error(
            "No segmentation has a reference of the same name.",
            "Compare folders of the same cases.",
            predictions,
        )
    for names, what in (
        (known.keys() - found.keys(), "references have no segmentation and count as missed"),
        (found.keys() - known.keys(), "segmentations have no reference and are left out"),
    ):
        if names:
            report(Warned(f"{len(names)} {what}: {', '.join(sorted(names))}."))
    return [(name, found.get(name), path) for name, path in known.items()]


def _by_name(path: Path) -> dict[str, Path]:
    return by_case([path] if path.is_file() else list_volumes(path), plain_name)


def _write(results: Results, output: Path) -> None:
    texts = [results.cases.to_csv(index=False), results.by_class().to_csv(), as_markdown(results)]
    texts.append(json.dumps(results.summary(), indent=2, ensure_ascii=False) + "\n")
    for name, text in zip((*TABLES, SUMMARY), texts, strict=True):
        written = text.encode()
        note(output / name, MAKER, hashlib.sha256(written).hexdigest())
        with written_aside(output / name) as temporary:
            temporary.write_bytes(written)


def as_markdown(results: Results) -> str:
    """Return the results as tables for a person."""
    lines = [f"# Evaluation of {len(results.cases)} cases", "", "| measure | mean | sd |", "|---|---|---|"]
    for name, title in COLUMNS.items():
        lines.append(f"| {title} | {results.cases[name].mean():.3f} | {results.cases[name].std():.3f} |")
    shifted = results.cases[results.cases.level_shift.fillna(0) != 0]
    if len(shifted):
        names = ", ".join(f"{row.case} ({row.level_shift:+.0f})" for row in shifted.itertuples())
        lines += ["", f"**Every level is shifted** in {len(shifted)} cases: {names}."]
    lines += ["", "| structure | cases | Dice | HD95 (mm) | surface distance (mm) |", "|---|---|---|---|---|"]
    for name, row in results.by_class().iterrows():
        lines.append(
            f"| {name} | {row.n:.0f} | {row.dice_mean:.3f} ± {row.dice_sd:.3f} "
            f"| {row.hd95_mm_mean:.1f} | {row.assd_mm_mean:.2f} |"
        )
    if results.missed:
        lines += ["", f"**No segmentation**, so that nothing was found: {', '.join(results.missed)}."]
    if results.skipped:
        lines += ["", "Not compared:", ""]
        lines += [
            f"- {Path(fault.path or '').name}: {fault.problem} {fault.remedy}" for fault in results.skipped
        ]
    return "\n".join(lines) + "\n"


def _number(value: float) -> float | None:
    """Return a number that JSON can hold."""
    return None if np.isnan(value) else float(value)
