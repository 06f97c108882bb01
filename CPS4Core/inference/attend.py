"""Attention maps in files: what `cps4 attend` and the worker write."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS
from CPS4Core.class_table import HEAD_TO_TAIL, short_name
from CPS4Core.data.content import content_of, voxels_of
from CPS4Core.data.labels import read_labels
from CPS4Core.data.results import Maker, check_free, check_place, note
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
    overwrite: bool = False,
) -> None:
    """Write the maps of ``prompts`` over the volume in ``source``, and a figure of them, to the folder ``target``.

    Args:
        prompts: class names or any text; all classes, head to tail, if empty.
        labels: reference segmentation to show beside the maps, on the grid of the volume.
        pixel_mm: size of a pixel, where the source is a picture.
        overwrite: write over whatever is at the places of the maps.

    Raises:
        CPS4Error: if the volume, the labels or the model cannot be used, the folder cannot be written, or there is
            something at the place of a map that was not made from the same volume.
        Cancelled: if the user asked to stop; finished maps stay.
    """
    chosen = list(prompts) or [short_name(label) for label in HEAD_TO_TAIL]
    case = case_name(source) if source.is_file() else source.resolve().name
    named, figure = _named(case, chosen), target / f"{case}_attention.png"
    image = read_scan(source, report, pixel_mm)
    maker = {
        "command": "attend",
        "source": content_of(source),
        "encoders": model.sha256(ENCODERS),
        "pixel_mm": pixel_mm,
    }
    for path in (*(path for name in named for path in _places(target, name, ".nii.gz")), figure):
        check_place(path, [source, *([] if labels is None else [labels])])
        check_free(path, maker, overwrite)
    reference = None if labels is None else read_labels(labels, like=image)
    mapper = AttentionMapper(model, device)
    volume = mapper.encode(image, cancellation)
    write_maps(mapper, volume, named, target, ".nii.gz", report, cancellation, maker)
    truth = None if reference is None else volume.grid.labels_to_slices(reference)
    write_figure(mapper, volume, chosen, figure, report, truth, maker)
    report(Finished())


def write_maps(
    mapper: AttentionMapper,
    volume: EncodedVolume,
    prompts: Mapping[str, str],
    folder: Path,
    suffix: str,
    report: Reporter,
    cancellation: Cancellation,
    maker: Maker | None = None,
) -> None:
    """Write the attention map and the binary map of each prompt to ``folder``, and report them.

    Args:
        prompts: by the name that their files begin with: class names or any text.
        suffix: of the files, such as ``.nrrd``.
        maker: noted beside the files, so that a second run knows them.

    Raises:
        CPS4Error: if the folder cannot be written.
        Cancelled: if the user asked to stop; finished maps stay.
    """
    for number, (name, text) in enumerate(prompts.items(), start=1):
        cancellation.check()
        found = mapper.attend(volume, text)
        attention, binary = _places(folder, name, suffix)
        if maker is not None:
            note(attention, maker, voxels_of(found.attention))
            note(binary, maker, voxels_of(found.binary))
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
    maker: Maker | None = None,
) -> None:
    """Write a figure of what ``prompts`` attend to (see ``draw_panel``) to ``path``, and report it.

    Raises:
        CPS4Error: if the file cannot be written.
    """
    from CPS4Core.inference.attention_figure import (
        draw_panel,  # imports matplotlib, which the worker may never need
    )

    drawn = draw_panel(mapper, volume, prompts, labels)
    if maker is not None:
        note(path, maker, hashlib.sha256(drawn).hexdigest())
    with written_aside(path) as temporary:
        temporary.write_bytes(drawn)
    report(Artifact("figure", str(path)))


def _places(folder: Path, name: str, suffix: str) -> tuple[Path, Path]:
    """Return where the attention map and the binary map of a prompt go."""
    attention, binary = (folder / f"{name}_{kind}{suffix}" for kind in ("attention", "binary"))
    return attention, binary


def _named(case: str, prompts: Sequence[str]) -> dict[str, str]:
    """Return each prompt by a file name of its own: letters and digits of it, at most 40 characters."""
    named: dict[str, str] = {}
    taken: set[str] = set()
    for text in prompts:
        words = "".join(letter if letter.isalnum() else "-" for letter in text).strip("-")[:40] or "prompt"
        names = (f"{case}_{words}", *(f"{case}_{words}-{number}" for number in range(2, len(prompts) + 2)))
        name = next(name for name in names if name.casefold() not in taken)  # as Windows and macOS compare
        taken.add(name.casefold())
        named[name] = text
    return named
