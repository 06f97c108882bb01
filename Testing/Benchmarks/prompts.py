"""What the class prompts of a model see in real scans: raw text maps (eq. 3) against the references, with pictures.

    python Testing/Benchmarks/prompts.py MODEL --sets t1_bodies spider_t2 --limit 10

No segmentation network takes part. Maps are scored as `real.py` scores segmentations, on the canvas of the encoders.
Writes prompts.json, prompts.md and, of the median scan of each set, a picture of all 20 prompts.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from real import DATA, SETS, Result, Scan, held_out, machine, score, summary_of, table_of

from CPS4Core.card import ENCODERS
from CPS4Core.class_table import BACKGROUND, IGNORE, NUM_CLASSES, short_name
from CPS4Core.devices import choose_device
from CPS4Core.figures import PromptPanel, attention_panel, fullest_slice
from CPS4Core.files import write_json
from CPS4Core.inference.attention import AttentionMapper
from CPS4Core.model_folder import ModelFolder
from CPS4Core.vision_language.maps import TextMaps, text_maps


@torch.inference_mode()
def look(mapper: AttentionMapper, scan: Scan) -> tuple[TextMaps, np.ndarray, np.ndarray, tuple[float, ...]]:
    """Return the maps of a scan, its slices, its reference on their canvas, and the voxel size there, in mm."""
    volume = mapper.encode(scan.image)
    F_T = mapper.model.prompt_tokens(mapper.model.class_prompts())
    maps = text_maps(
        mapper.model.attend(volume.tokens, F_T), volume.slices.shape[-2:], least_peak=mapper.least_peak
    )
    labels = sitk.GetImageFromArray(scan.references[0])
    labels.CopyInformation(scan.image)
    reference = volume.grid.labels_to_slices(labels)
    slices_mm = volume.grid.spacing[::-1][volume.grid.order[0]]
    return maps, volume.slices, reference, (slices_mm, mapper.input.spacing_mm, mapper.input.spacing_mm)


def picture(maps: TextMaps, slices: np.ndarray, reference: np.ndarray) -> bytes:
    """Return a picture of all prompts in the slice where the reference shows most."""
    k = fullest_slice(np.where(reference == IGNORE, BACKGROUND, reference))
    panels = [
        PromptPanel(
            "background" if label == BACKGROUND else short_name(label),
            maps.attention[k, label].numpy(),
            maps.binary[k, label].numpy(),
            reference[k] == label,
        )
        for label in range(NUM_CLASSES)
    ]
    return attention_panel(slices[k], panels)


def main() -> None:
    """Score the prompts of a model as the command line asks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--sets", nargs="+", choices=list(SETS)[:3], default=list(SETS)[:3])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the sets")
    parser.add_argument("--limit", type=int, help="scans of each set")
    parser.add_argument("--fold", help="K/N: of spider_t2, every N-th patient from the K-th on (from 0)")
    parser.add_argument("--output", type=Path, default=Path("build/prompts"))
    arguments = parser.parse_args()

    device = choose_device("cpu")
    model = ModelFolder.open(arguments.model)
    mapper = AttentionMapper(model, device)
    arguments.output.mkdir(parents=True, exist_ok=True)
    report = {
        "network": model.sha256(ENCODERS),
        "command": shlex.join(["python", *sys.argv]),
        "machine": machine(device),
        "sets": {},
    }
    for name in arguments.sets:
        folder = arguments.data / name
        wanted = held_out(folder, arguments.fold) if arguments.fold and name == "spider_t2" else None
        scans = SETS[name](folder, wanted=bool if wanted is None else wanted.__contains__)
        results, kept = [], {}
        for scan in islice(scans, arguments.limit):
            maps, slices, reference, spacing = look(mapper, scan)
            scores = score(maps.labels.numpy().astype(np.uint8), reference, spacing)
            results.append(Result(scan.name, {**scores, "seconds": 0.0}, (slices, reference, reference)))
            kept[scan.name] = (scores["by_name"], maps, slices, reference)
            print(name, scan.name, *(f"{key} {scores[key]:.3f}" for key in ("bones", "by_name")), flush=True)
        cases = {result.name: result.scores for result in results}
        report["sets"][name] = {"mean": summary_of(results), "scans": cases}
        _, *median = sorted(kept.values(), key=lambda found: found[0])[len(kept) // 2]
        (arguments.output / f"prompts_{name}.png").write_bytes(picture(*median))
    write_json(arguments.output / "prompts.json", report)
    (arguments.output / "prompts.md").write_text(table_of(report), encoding="utf-8")
    print(table_of(report))


if __name__ == "__main__":
    main()
