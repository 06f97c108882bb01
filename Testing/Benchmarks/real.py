"""How a model does on real scans that are labelled in part: shapes, names and levels, with pictures.

    python Testing/Benchmarks/real.py MODEL                         every set
    python Testing/Benchmarks/real.py MODEL --sets t1_bodies --limit 5
    python Testing/Benchmarks/real.py MODEL --sets spider_t2 --fold 0/5

Writes real.json, real.md and pictures of the best, the median and the worst scan of each set. Scans are segmented as
`cps4 segment` does, and scored on their own grid, only where the reference knows the truth:

- Where only vertebral bodies are labelled, that is on the bodies and up to 3 mm around them; other bone, such as
  posterior elements, lies outside or counts as any wrong voxel of the rim.
- Of the sacrum, `t1_bodies` labels the body of S1. The rim of its lower half is left out, since S2 joins it there.
- Of `tptbox_sample_mri` the order is known and no level: of the namings in that order, the one that agrees best.
- Elsewhere, voxels labelled 255 are left out.

Dice of all bones and of all discs ask for shapes alone; by name, they are means over the structures of the reference.
A level is right where the predicted structure that overlaps a reference structure most has its name.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from scipy.ndimage import center_of_mass, distance_transform_edt

from CPS4Core.class_table import BACKGROUND, BY_LABEL, IGNORE, short_name
from CPS4Core.config import InputSettings
from CPS4Core.data.geometry import SliceGrid, check_sagittal
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import case_name, check_same_grid, read_image, read_volume
from CPS4Core.devices import choose_device
from CPS4Core.evaluation.metrics import names_found, overlap, surface_distances
from CPS4Core.figures import fullest_slice, overlay
from CPS4Core.files import write_json
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.naming import LEVELS
from CPS4Core.shipped_model import model_path

DATA = Path(__file__).parents[3] / "shared/data"
BAND_MM = 3.0
"""How far from a labelled body the truth is known where bodies alone are labelled."""
SACRUM, L5 = 1, 2
DISC_LABELS = [label for label, structure in BY_LABEL.items() if structure.kind == "disc"]
BONE_LABELS = [label for label in BY_LABEL if label not in DISC_LABELS]
PICTURE = InputSettings(size=(32, 32), spacing_mm=1.0)


@dataclass(frozen=True)
class Scan:
    """A scan and its reference."""

    name: str
    image: sitk.Image
    references: list[np.ndarray]
    """Class labels, axes z, y, x; ``IGNORE`` where the truth is not known. Several where the levels are not known."""


def known_around_bodies(bodies: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Return labels of bodies with ``IGNORE`` where the truth is not known: further than ``BAND_MM`` from them.

    Around the body of S1, its half that faces away from L5 is not known either.

    Args:
        bodies: class labels of vertebral bodies and background.
        spacing: voxel size along each array axis, in mm.
    """
    distance, nearest = distance_transform_edt(bodies == BACKGROUND, sampling=spacing, return_indices=True)
    known = distance <= BAND_MM
    if {SACRUM, L5} <= set(np.unique(bodies)):
        s1, l5 = (np.array(center_of_mass(bodies == label)) for label in (SACRUM, L5))
        towards_l5 = (l5 - s1) * np.square(spacing)
        ahead = sum(axis * (place - start) for axis, place, start in zip(
            towards_l5, np.indices(bodies.shape, sparse=True), s1, strict=True))  # fmt: skip
        around_s1 = (bodies == BACKGROUND) & (bodies[tuple(nearest)] == SACRUM)
        known &= ~(around_s1 & (ahead < 0))
    return np.where(known, bodies, IGNORE).astype(np.uint8)


def named_from(instances: np.ndarray, highest: int) -> np.ndarray:
    """Return class labels for the instances of the sample: consecutive ones, the first vertebra being ``highest``.

    Args:
        instances: vertebrae from 1 up, head to tail, the disc below each at 100 more; endplates, from 200 on, are of
            neither kind.
        highest: label of a vertebra.
    """
    labels = np.where(instances < 200, BACKGROUND, IGNORE).astype(np.uint8)
    vertebrae = np.unique(instances[(instances > 0) & (instances < 100)])
    for number, value in enumerate(vertebrae):
        labels[instances == value] = highest - number
        labels[instances == value + 100] = highest - number + DISC_LABELS[0] - L5
    return labels


def score(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> dict[str, Any]:
    """Return the scores of one scan; None where the reference lacks what a score asks for.

    Args:
        prediction: class labels.
        reference: class labels, ``IGNORE`` where the truth is not known.
        spacing: voxel size along each array axis, in mm.
    """
    known = reference != IGNORE
    counts = overlap(prediction, reference)
    names = names_found(prediction, reference)
    scores: dict[str, Any] = {}
    for kind, labels in (("bones", BONE_LABELS), ("discs", DISC_LABELS)):
        present = [label for label in labels if label in names]
        found, truth = (np.isin(classes, labels) & known for classes in (prediction, reference))
        both = found.sum() + truth.sum()
        scores |= {
            kind: float(2 * (found & truth).sum() / both) if present else None,
            f"{kind}_by_name": float(counts.dice[present].mean()) if present else None,
            f"{kind}_right": sum(names[label] == label for label in present),
            f"{kind}_named": len(present),
        }
        if kind == "bones":
            distances = surface_distances(found, truth, spacing)
            scores["bones_hd95_mm"] = None if distances is None else distances.hausdorff95
    right = sum(label == name for label, name in names.items())
    return {
        **scores,
        "levels_right": right,
        "all_levels_right": right == len(names),
        "by_name": float(counts.dice[list(names)].mean()),
        "names": {short_name(k): "none" if v is None else short_name(v) for k, v in names.items()},
    }


def scans_of(folder: Path, bodies_only: bool = False, wanted: Callable[[str], bool] = bool) -> Iterator[Scan]:
    """Yield the scans of a data set whose names are ``wanted``, with what is known of them."""
    for path in sorted((folder / "imagesTr").glob("*.nii.gz")):
        name = case_name(path).removesuffix("_0000")
        if wanted(name):
            image = read_image(path)
            labels = sitk.GetArrayFromImage(read_labels(folder / f"labelsTr/{name}.nii.gz", like=image))
            if bodies_only:
                labels = known_around_bodies(labels, image.GetSpacing()[::-1])
            yield Scan(name, image, [labels])


def sample_scan(folder: Path, wanted: Callable[[str], bool] = bool) -> Iterator[Scan]:
    """Yield the cropped sample, with every naming in its order."""
    image = read_image(folder / "sub-mri_label-6_T2w.nii.gz")
    instances = sitk.GetArrayFromImage(read_volume(folder / "sub-mri_seg-vert_label-6_msk.nii.gz"))
    count = len(np.unique(instances[(instances > 0) & (instances < 100)]))
    namings = [named_from(instances, highest) for highest in range(L5 + count - 1, max(BONE_LABELS) + 1)]
    if wanted("sample"):
        yield Scan("sample", image, namings)


SETS: dict[str, Callable[..., Iterator[Scan]]] = {
    "lumbar_dev": partial(scans_of, bodies_only=True),
    "t1_bodies": partial(scans_of, bodies_only=True),
    "spider_t2": scans_of,
    "tptbox_sample_mri": sample_scan,
}


@dataclass(frozen=True)
class Result:
    """One scan with its scores, and a slice to look at."""

    name: str
    scores: dict[str, Any]
    picture: tuple[np.ndarray, np.ndarray, np.ndarray]
    """The slice, the reference and the prediction, (AP, SI)."""


def try_scan(segmenter: Segmenter, scan: Scan, options: dict[str, Any]) -> Result:
    """Segment and score a scan."""
    check_sagittal(scan.image)
    start = time.perf_counter()
    labels = segmenter.segment(scan.image, **options).labels
    seconds = time.perf_counter() - start
    check_same_grid(labels, scan.image, Path(scan.name))
    prediction = sitk.GetArrayFromImage(labels)
    spacing = scan.image.GetSpacing()[::-1]
    tried = [(score(prediction, reference, spacing), reference) for reference in scan.references]
    scores, reference = max(tried, key=lambda scored: (scored[0]["levels_right"], scored[0]["by_name"]))
    return Result(scan.name, {**scores, "seconds": seconds}, middle_slice(scan.image, reference, prediction))


def middle_slice(image: sitk.Image, reference: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the slice of a scan in which the reference shows most, with both labels, (AP, SI), 1 mm pixels."""
    grid = SliceGrid.of(image, PICTURE, whole=True)
    stacks = [grid.to_slices(image)]
    for labels in (np.where(reference == IGNORE, BACKGROUND, reference), prediction):
        volume = sitk.GetImageFromArray(labels)
        volume.CopyInformation(image)
        stacks.append(grid.labels_to_slices(volume))
    k = fullest_slice(stacks[1])
    return tuple(grid.crop(stack[k]) for stack in stacks)


def summary_of(results: list[Result]) -> dict[str, Any]:
    """Return means over scans, shares of structures and scans, and how many scans there are."""

    def mean(name: str) -> float | None:
        values = [result.scores[name] for result in results if result.scores[name] is not None]
        return statistics.fmean(values) if values else None

    def share(right: str, of: str) -> float | None:
        total = sum(result.scores[of] for result in results)
        return sum(result.scores[right] for result in results) / total if total else None

    means = ("bones", "bones_by_name", "discs", "discs_by_name", "bones_hd95_mm", "by_name", "seconds")
    return {
        "scans": len(results),
        **{name: mean(name) for name in means},
        "bone_levels": share("bones_right", "bones_named"),
        "disc_levels": share("discs_right", "discs_named"),
        "all_levels_right": statistics.fmean(result.scores["all_levels_right"] for result in results),
        "scans_without_bone": sum(result.scores["bones_hd95_mm"] is None for result in results),
    }


COLUMNS = {
    "scans": "scans",
    "bones": "bones",
    "bones_by_name": "bones by name",
    "discs": "discs",
    "discs_by_name": "discs by name",
    "bone_levels": "bone levels",
    "disc_levels": "disc levels",
    "all_levels_right": "all levels right",
    "bones_hd95_mm": "HD95, mm",
    "seconds": "s a scan",
}
IN_PERCENT = ("bone_levels", "disc_levels", "all_levels_right")


def table_of(report: dict[str, Any]) -> str:
    """Return the means of each set as Markdown."""
    lines = [
        f"Network {report['network'][:12]}, `{report['command']}`, {report['machine']}.",
        "",
        f"| set | {' | '.join(COLUMNS.values())} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name, scores in report["sets"].items():
        cells = [_cell(column, scores["mean"][column]) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(column: str, value: float | None) -> str:
    if value is None or column == "scans":
        return "" if value is None else str(value)
    if column in IN_PERCENT:
        return f"{100 * value:.0f} %"
    return f"{value:.1f}" if column in ("bones_hd95_mm", "seconds") else f"{value:.3f}"


def draw(results: list[Result], folder: Path, name: str) -> None:
    """Write pictures of the best, the median and the worst scan by Dice by name."""
    ranked = sorted(results, key=lambda result: -result.scores["by_name"])
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    for place, result in chosen.items():
        image, reference, prediction = result.picture
        png = overlay(image, {"reference": reference, f"{place}: {result.name}": prediction})
        (folder / f"{name}_{place}.png").write_bytes(png)


def held_out(folder: Path, fold: str) -> set[str]:
    """Return the names of a data set's patients in fold K of N, as ``K/N``: every N-th of the sorted, from K on."""
    number, folds = map(int, fold.split("/"))
    names = sorted(case_name(path).removesuffix("_0000") for path in (folder / "imagesTr").glob("*.nii.gz"))
    return set(names[number::folds])


def machine(device: torch.device) -> str:
    """Return the kind of machine, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = (line.partition(":")[2].strip() for line in info.read_text().splitlines())
        model = next((name for name in names if "CPU" in name or "Processor" in name), model)
    return f"{model}, {torch.get_num_threads()} of its threads"


def main() -> None:
    """Score a model as the command line asks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="model folder, or `base`")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the sets")
    parser.add_argument("--limit", type=int, help="scans of each set, for a quick look")
    parser.add_argument("--only", type=Path, help="file with the names of the scans to take, one a line")
    parser.add_argument("--fold", help="K/N: of spider_t2, every N-th patient from the K-th on (from 0)")
    parser.add_argument("--levels", choices=LEVELS, default="counted", help="as in `cps4 segment`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="default: build/real/HASH")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    segmenter = Segmenter(ModelFolder.open(model_path(arguments.model)), device)
    output = arguments.output or Path("build/real") / segmenter.sha256[:12]
    output.mkdir(parents=True, exist_ok=True)
    only = None if arguments.only is None else set(arguments.only.read_text(encoding="utf-8").split())
    report = {
        "network": segmenter.sha256,
        "command": shlex.join(["python", *sys.argv]),
        "machine": machine(device),
        "sets": {},
    }
    for name in arguments.sets:
        folder = arguments.data / name
        wanted = held_out(folder, arguments.fold) if arguments.fold and name == "spider_t2" else only
        scans = SETS[name](folder, wanted=bool if wanted is None else wanted.__contains__)
        results = []
        for scan in islice(scans, arguments.limit):
            results.append(try_scan(segmenter, scan, {"levels": arguments.levels}))
            scores = results[-1].scores
            print(name, scan.name, *(f"{k} {scores[k]:.3f}" for k in ("bones", "by_name")), flush=True)
        if results:
            cases = {result.name: result.scores for result in results}
            report["sets"][name] = {"mean": summary_of(results), "scans": cases}
            draw(results, output, name)
    write_json(output / "real.json", report)
    (output / "real.md").write_text(table_of(report), encoding="utf-8")
    print(table_of(report))


if __name__ == "__main__":
    main()
