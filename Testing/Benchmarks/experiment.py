"""CPS4 against its baselines on phantoms, with 5 % of the patients labelled and three seeds.

    python Testing/Benchmarks/experiment.py run --seed 0        one seed: stage 1, every system, its scores
    python Testing/Benchmarks/experiment.py variants --seed 0   the same for what goes beyond the paper
    python Testing/Benchmarks/experiment.py long --seed 0       some of them with three times the steps
    python Testing/Benchmarks/experiment.py others --seed 0     the other systems of the paper's Table 1
    python Testing/Benchmarks/experiment.py table               the table of all seeds that have run

Every system has the same network, data, augmentation and number of steps. Test cases are segmented and scored at
their native resolution. "Oracle maps" puts perfect attention, made from the hidden labels of the unlabelled cases,
in the place of the text maps: what CPS4 would gain if its prompts were never wrong. Stopped, `run` goes on where it
was.
"""

from __future__ import annotations

import argparse
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch
from oracles import oracle_attention, oracle_labels

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import NUM_CLASSES, short_name
from CPS4Core.config import load_settings
from CPS4Core.data.array_files import ArrayFiles
from CPS4Core.data.dataset import open_data_set
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import read_image
from CPS4Core.evaluation.metrics import level_agreement, mean_scores, overlap
from CPS4Core.events import Metric, silent
from CPS4Core.files import read_json, write_json
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.phantom.data_set import write_phantom_data_set
from CPS4Core.training.map_store import MapStore
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.train import train
from CPS4Core.vision_language.maps import text_labels, text_maps

RESULTS = Path(__file__).parent / "experiment.json"
CASES, TEST_CASES, RATIO = 120, 8, 0.05
CPU = torch.device("cpu")

# Stage 1: name -> settings.
ENCODERS = {
    "paper": [],
    "absent": ["pretrain.absent_classes=true"],
    "softmax": ["encoders.attention=class_softmax", "pretrain.absent_classes=true"],
    "dinov2": [
        "encoders.vision_pretrained=true",
        'encoders.vision_options={"patch_size": 5}',
        "pretrain.learning_rate=1e-4",
    ],
    **{
        name: [f"pretrain.objective={name}"] for name in ("clip", "medclip", "mgca", "egma", "filip", "dusss")
    },
}
DINOV2 = Path(__file__).parents[3] / "shared/weights/dinov2_small/model.safetensors"
"""Pretrained weights of DINOv2 ViT-S/14 under timm's names, for the stage 1 `dinov2`."""
# The preset `small` protects its few steps against early pseudo-labels; the paper does not.
PAPER = [
    "train.ramp=0",
    "train.dice_share=0",
    'train.enhanced_target="hard"',
    "train.teacher_weight=1",
    'train.text_trust="full"',
]
RAMP, GATE = "train.ramp=0.5", "train.presence_gate=true"
DICE, SURE = "train.dice_share=0.5", "train.confidence=0.8"
NO_FLOOR = "train.least_trust=0"
EQUAL = [RAMP, DICE, 'train.enhanced_target="normalised"', 'train.text_trust="measured"', NO_FLOOR]
TRUST = [
    "train.ramp=1",
    DICE,
    'train.enhanced_target="literal"',
    "train.teacher_weight=0.1",
    'train.text_trust="measured"',
]
# Systems: name -> method, stage 1, settings, labelled ratio.
SYSTEMS = {
    "supervised, 5 % labels": ("supervised", None, [], RATIO),
    "mean teacher, published": ("mean_teacher", None, [], RATIO),
    "mean teacher, hard labels": ("mean_teacher_hard", None, [], RATIO),
    "CPS4, paper": ("cps4", "paper", [], RATIO),
    "mean teacher, hard labels, ramp": ("mean_teacher_hard", None, [RAMP], RATIO),
    "CPS4, ramp": ("cps4", "paper", [RAMP], RATIO),
    "CPS4, trust": ("cps4", "paper", TRUST, RATIO),
}
VARIANTS = {
    "CPS4, oracle maps": ("cps4", "paper", [], RATIO),
    "mean teacher, hard labels, ramp, Dice": ("mean_teacher_hard", None, [RAMP, DICE], RATIO),
    "CPS4, ramp, Dice": ("cps4", "paper", [RAMP, DICE], RATIO),
    "mean teacher, hard labels, ramp, Dice, confidence": (
        "mean_teacher_hard",
        None,
        [RAMP, DICE, SURE],
        RATIO,
    ),
    "CPS4, ramp, Dice, confidence": ("cps4", "paper", [RAMP, DICE, SURE], RATIO),
    "CPS4, trust, no floor, equal weights": ("cps4", "paper", EQUAL, RATIO),
    "CPS4, trust, oracle maps": ("cps4", "paper", TRUST, RATIO),
    "CPS4, trust, no floor": ("cps4", "paper", [*TRUST, NO_FLOOR], RATIO),
    "CPS4, trust, no floor, oracle maps": ("cps4", "paper", [*TRUST, NO_FLOOR], RATIO),
    "CPS4, trust, no floor, absent classes, gate": ("cps4", "absent", [*TRUST, NO_FLOOR, GATE], RATIO),
    "CPS4, trust, no floor, class softmax, gate": (
        "cps4",
        "softmax",
        [*TRUST, NO_FLOOR, GATE, "train.presence_threshold=0.3"],
        RATIO,
    ),
    "CPS4, trust, DINOv2": ("cps4", "dinov2", TRUST, RATIO),
    "supervised, 5 % labels, Dice": ("supervised", None, [DICE], RATIO),
    "supervised, all labels": ("supervised", None, [], 1.0),
}
"""Tried on one seed."""
LONGER = "train.epochs=75"
LONG = {
    "supervised, 5 % labels, 3 x steps": ("supervised", None, [LONGER], RATIO),
    "supervised, all labels, 3 x steps": ("supervised", None, [LONGER], 1.0),
    "mean teacher, published, 3 x steps": ("mean_teacher", None, [LONGER], RATIO),
    "CPS4, trust, 3 x steps": ("cps4", "paper", [*TRUST, LONGER], RATIO),
}
"""Whether 1,000 steps are enough to compare."""
OTHERS = {
    "BCP": ("bcp", None, [], RATIO),
    "MC-Net": ("mc_net", None, [], RATIO),
    "MC-Net+": ("mc_net_plus", None, [], RATIO),
    "SS-Net": ("ss_net", None, [], RATIO),
    "UCMT": ("ucmt", None, [], RATIO),
    "GraphCL": ("graphcl", None, [], RATIO),
    "GraphCL with class prompts": ("graphcl_text", "paper", [], RATIO),
    # Text as far as it agrees with validation labels, as in "CPS4, trust, no floor".
    "CLIP": ("cps4", "clip", [*TRUST, NO_FLOOR], RATIO),
    "MedCLIP": ("cps4", "medclip", [*TRUST, NO_FLOOR], RATIO),
    "MGCA": ("cps4", "mgca", [*TRUST, NO_FLOOR], RATIO),
    "EGMA, class masks as gaze": ("cps4", "egma", [*TRUST, NO_FLOOR], RATIO),
    "EGMA, no gaze (FILIP)": ("cps4", "filip", [*TRUST, NO_FLOOR], RATIO),
    "DuSSS": ("dusss", "dusss", [*TRUST, NO_FLOOR], RATIO),
}
"""The other systems of Table 1. Stage 1 by another objective is followed by the same stage 2."""


def run(folder: Path, seed: int, systems: dict[str, tuple]) -> None:
    """Train and score systems with one seed, and the encoders that they need."""
    data = write_phantom_data_set(folder / "data", CASES, test_cases=TEST_CASES)
    common = {"device": CPU, "report": progress, "cancellation": Cancellation(), "cache": folder / "cache"}
    scores = read_json(RESULTS) if RESULTS.exists() else {}
    encoders = {}
    for name in {variant: None for _, variant, *_ in systems.values() if variant is not None}:
        changes = [*ENCODERS[name], f"seed={seed}"]
        if name == "dinov2":
            changes.append(f"encoders.vision={json.dumps(str(dinov2_folder(folder)))}")
        settings = load_settings("small", changes)
        print(f"seed {seed}: stage 1, {name}", flush=True)
        output = folder / f"seed{seed}" / f"stage1-{name}"
        encoders[name] = pretrain(data, output, settings, ratio=RATIO, **common)
        if f"maps/{name}/{seed}" not in scores:
            save(f"maps/{name}/{seed}", score_maps(encoders[name], data))
    systems = {name: each for name, each in systems.items() if f"systems/{name}/{seed}" not in scores}
    for system, (method, variant, changes, ratio) in systems.items():
        settings = load_settings("small", [*PAPER, *changes, f'train.method="{method}"', f"seed={seed}"])
        print(f"seed {seed}: {system}", flush=True)
        slug = "".join(each if each.isalnum() else "-" for each in system)
        with oracle_maps() if "oracle" in system else nullcontext():
            model = train(
                data,
                folder / f"seed{seed}" / slug,
                settings,
                ratio=ratio,
                encoders=encoders[variant] if variant else None,
                **common,
            )
        save(f"systems/{system}/{seed}", score_model(model, data))


def dinov2_folder(folder: Path) -> Path:
    """Return a folder that holds DINOv2's weights and says which model of timm they belong to."""
    vision = folder / "dinov2"
    vision.mkdir(parents=True, exist_ok=True)
    write_json(vision / "config.json", {"architecture": "vit_small_patch14_dinov2"})
    shutil.copyfile(DINOV2, vision / "model.safetensors")
    return vision.resolve()


def oracle_maps() -> patch:
    """Replace the text maps of stage 2 with perfect attention: each class's share of every token."""

    def compute(model, store, cases, folder, *_):
        arrays = ArrayFiles(folder)
        for case in cases:
            labels = store.labels(case)
            attention = oracle_attention(labels, model.vision.grid(labels.shape[-2:])).half()
            thresholds = text_maps(attention, labels.shape[-2:]).thresholds
            arrays.write(case, "attention", attention.numpy())
            arrays.write(case, "thresholds", thresholds.numpy())
        return MapStore(arrays)

    return patch("CPS4Core.training.train.compute_text_maps", compute)


def score_model(model: Path, data: Path) -> dict:
    """Return the scores of a model on the test cases, at native resolution; with the level order beside it."""
    segmenter = Segmenter(ModelFolder.open(model), CPU)
    found: dict[str, list] = {"pairs": [], "ordered": []}
    for case in open_data_set(data).test:
        image = read_image(case.image)
        truth = sitk.GetArrayFromImage(read_labels(case.label, like=image))
        for name, level_order in (("pairs", False), ("ordered", True)):
            labels = segmenter.segment(image, level_order=level_order).labels
            found[name].append((sitk.GetArrayFromImage(labels), truth))
    return {**scores_of(found["pairs"]), "level_order": scores_of(found["ordered"])}


def score_maps(model: Path, data: Path) -> dict:
    """Return the scores of the raw text maps, gated or not, and of the oracle, on the canvas of the test cases."""
    encoders = ModelFolder.open(model).load_encoders()
    settings = load_settings("small").input
    grid = encoders.vision.grid(settings.size)
    found: dict[str, list] = {"text": [], "gated": [], "oracle": []}
    for case in open_data_set(data).test:
        image = read_image(case.image)
        where = SliceGrid.of(image, settings)
        truth = where.labels_to_slices(read_labels(case.label, like=image))
        slices = where.to_slices(image)
        found["text"].append((text_labels(encoders, slices), truth))
        found["gated"].append((text_labels(encoders, slices, least_peak=0.5), truth))
        found["oracle"].append((oracle_labels(truth, grid), truth))
    similarity = encoders.prompt_similarity().fill_diagonal_(-1).max()
    return {
        **{name: scores_of(pairs) for name, pairs in found.items()},
        "prompt_similarity": float(similarity),
    }


def scores_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict:
    """Return mDice, mIoU, level accuracy and the Dice of each class."""
    mdice, miou = mean_scores(pairs)
    agreements = [level_agreement(*pair) for pair in pairs]
    dice = np.array([overlap(*pair).dice for pair in pairs])
    return {
        "mdice": mdice,
        "miou": miou,
        "level_accuracy": sum(each.right for each in agreements) / sum(each.total for each in agreements),
        "classes": {short_name(k): round(float(np.nanmean(dice[:, k])), 4) for k in range(1, NUM_CLASSES)},
    }


def save(name: str, scores: dict) -> None:
    """Add scores to the results, which other seeds may be writing too."""
    from filelock import FileLock

    with FileLock(RESULTS.with_suffix(".lock")):
        results = read_json(RESULTS) if RESULTS.exists() else {}
        results[name] = scores
        write_json(RESULTS, results)
    print(name, json.dumps({k: v for k, v in scores.items() if not isinstance(v, dict)}), flush=True)


def table() -> str:
    """Return the results as Markdown: mean ± standard deviation over seeds, in %."""
    results = read_json(RESULTS)
    rows = []
    for name, scores in results.items():
        kind, system, _ = name.split("/")
        if kind == "systems":
            rows.append((system, scores))
            rows.append((f"{system} + level order", scores["level_order"]))
        else:
            rows += [(f"raw maps: {system}, {part}", scores[part]) for part in ("text", "gated", "oracle")]
    columns = {"mdice": "mDice", "miou": "mIoU", "level_accuracy": "level accuracy"}
    frame = pd.DataFrame(
        [{"system": system, **{v: scores[k] for k, v in columns.items()}} for system, scores in rows]
    )
    lines = ["| system | seeds | mDice | mIoU | level accuracy |", "|---|---|---|---|---|"]
    for system, group in frame.groupby("system", sort=False):
        cells = [in_percent(group[c]) for c in columns.values()]
        lines.append(f"| {system} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def in_percent(values: pd.Series) -> str:
    """Return the mean, and the standard deviation where there is more than one."""
    mean = f"{100 * values.mean():.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * values.std(ddof=1):.1f}"


def progress(event) -> None:
    """Print the validation scores."""
    if isinstance(event, Metric) and any(name.startswith("validation") for name in event.values):
        print(event.step, {k: round(v, 4) for k, v in event.values.items()}, flush=True)
    else:
        silent(event)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "variants", "long", "others", "table"])
    parser.add_argument("--folder", type=Path, default=Path("build/experiment"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--system", help="only the one of this name")
    arguments = parser.parse_args()
    if arguments.command == "table":
        print(table())
    else:
        systems = {"run": SYSTEMS, "variants": VARIANTS, "long": LONG, "others": OTHERS}[arguments.command]
        if arguments.system is not None:
            systems = {arguments.system: systems[arguments.system]}
        run(arguments.folder, arguments.seed, systems)
