"""Attention maps in files: what `cps4 attend` and the worker write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import HEAD_TO_TAIL, short_name
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import case_name, read_scan
from CPS4Core.events import Artifact, Finished, Progress, Reporter
from CPS4Core.files import written_aside
from CPS4Core.inference.attention import AttentionMapper, EncodedVolume
from CPS4Core.inference.outputs import write_map, write_segmentation
from CPS4Core.model_folder import ModelFolder


def attend_volume(
    source: Path,
    target: Path,
    model: ModelFolder,
    prompts: Sequence[str],
    labels: Path | None,
    device: torch.device,
    report: Reporter,
    cancellation: Cancellation,
    pixel_mm: float | None = None,
) -> None:
    """Write the maps of ``prompts`` over the volume in ``source``, and a figure of them, to the folder ``target``.

    Args:
        prompts: class names or any text; all classes, head to tail, if empty.
        labels: reference segmentation to show beside the maps, on the grid of the volume.
        pixel_mm: size of a pixel, where the source is a picture.

    Raises:
        CPS4Error: if the volume, the labels or the model cannot be used, or the folder cannot be written.
        Cancelled: if the user asked to stop; finished maps stay.
    """
    image = read_scan(source, report, pixel_mm)
    reference = None if labels is None else read_labels(labels, like=image)
    mapper = AttentionMapper(model, device)
    volume = mapper.encode(image, cancellation)
    chosen = list(prompts) or [short_name(label) for label in HEAD_TO_TAIL]
    case = case_name(source)
    write_maps(mapper, volume, _named(case, chosen), target, ".nii.gz", report, cancellation)
    truth = None if reference is None else volume.grid.labels_to_slices(reference)
    write_figure(mapper, volume, chosen, target / f"{case}_attention.png", report, truth)
    report(Finished())


def write_maps(
    mapper: AttentionMapper,
    volume: EncodedVolume,
    prompts: Mapping[str, str],
    folder: Path,
    suffix: str,
    report: Reporter,
    cancellation: Cancellation,
) -> None:
    """Write the attention map and the binary map of each prompt to ``folder``, and report them.

    Args:
        prompts: by the name that their files begin with: class names or any text.
        suffix: of the files, such as ``.nrrd``.

    Raises:
        CPS4Error: if the folder cannot be written.
        Cancelled: if the user asked to stop; finished maps stay.
    """
    for number, (name, text) in enumerate(prompts.items(), start=1):
        cancellation.check()
        found = mapper.attend(volume, text)
        attention, binary = (folder / f"{name}_{kind}{suffix}" for kind in ("attention", "binary"))
        write_map(found.attention, attention)
        write_segmentation(found.binary, binary)
        details = {"prompt": found.prompt, "label": found.label, "peak": found.peak, "binary": str(binary)}
        report(Artifact("attention", str(attention), details))
        report(Progress(number, len(prompts), "Attention maps"))


def write_figure(
    mapper: AttentionMapper,
    volume: EncodedVolume,
    prompts: Sequence[str],
    path: Path,
    report: Reporter,
    labels: np.ndarray | None = None,
) -> None:
    """Write a figure of what ``prompts`` attend to (see ``draw_panel``) to ``path``, and report it.

    Raises:
        CPS4Error: if the file cannot be written.
    """
    from CPS4Core.inference.attention_figure import (
        draw_panel,  # imports matplotlib, which the worker may never need
    )

    with written_aside(path) as temporary:
        temporary.write_bytes(draw_panel(mapper, volume, prompts, labels))
    report(Artifact("figure", str(path)))


def _named(case: str, prompts: Sequence[str]) -> dict[str, str]:
    """Return each prompt by a file name of its own: letters and digits of it, at most 40 characters."""
    named: dict[str, str] = {}
    for number, text in enumerate(prompts, start=1):
        words = "".join(letter if letter.isalnum() else "-" for letter in text).strip("-")[:40] or "prompt"
        name = f"{case}_{words}"
        named[name if name not in named else f"{name}-{number}"] = text
    return named
