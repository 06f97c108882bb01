"""What `cps4 attend` does: attention maps, binary maps and a figure like the paper's Fig. 5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import HEAD_TO_TAIL, short_name
from CPS4Core.data.geometry import check_sagittal
from CPS4Core.data.volumes import case_name, read_image, read_labels
from CPS4Core.events import Artifact, Finished, Progress, Reporter
from CPS4Core.figures import PromptPanel, attention_panel, fullest_slice
from CPS4Core.files import written_aside
from CPS4Core.inference.attention import AttentionMapper, EncodedVolume
from CPS4Core.inference.outputs import write_map, write_segmentation


def attend_volume(
    source: Path,
    target: Path,
    model_folder: Path,
    prompts: Sequence[str],
    labels: Path | None,
    device: torch.device,
    report: Reporter,
    cancellation: Cancellation,
) -> None:
    """Write the maps of ``prompts`` over the volume in ``source`` to the folder ``target``.

    Args:
        prompts: class names or any text; all classes, head to tail, if empty.
        labels: reference segmentation to show beside the maps, on the grid of the volume.

    Raises:
        CPS4Error: if the volume, the labels or the model cannot be used, or the folder cannot be written.
        Cancelled: if the user asked to stop; finished maps stay.
    """
    image = read_image(source)
    check_sagittal(image, source, report)
    reference = None if labels is None else read_labels(labels, like=image)
    mapper = AttentionMapper(model_folder, device)
    volume = mapper.encode(image, cancellation)
    chosen = list(prompts) or [short_name(label) for label in HEAD_TO_TAIL]
    for number, text in enumerate(chosen):
        cancellation.check()
        found = mapper.attend(volume, text)
        stem = f"{case_name(source)}_{_file_name(text)}"
        write_map(found.attention, target / f"{stem}_attention.nii.gz")
        write_segmentation(found.binary, target / f"{stem}_binary.nii.gz")
        details = {"prompt": found.prompt, "label": found.label, "peak": found.peak}
        report(Artifact("attention", str(target / f"{stem}_attention.nii.gz"), details))
        report(Progress(number + 1, len(chosen), "Attention maps"))
    figure = target / f"{case_name(source)}_attention.png"
    reference_slices = None if reference is None else volume.grid.labels_to_slices(reference)
    with written_aside(figure) as temporary:
        temporary.write_bytes(draw_panel(mapper, volume, chosen, reference_slices))
    report(Artifact("figure", str(figure)))
    report(Finished())


def draw_panel(
    mapper: AttentionMapper, volume: EncodedVolume, prompts: Sequence[str], labels: np.ndarray | None = None
) -> bytes:
    """Return a PNG of what ``prompts`` attend to in one slice.

    The slice is the middle one, or with ``labels`` (slices, AP, SI) the one that shows most structures.
    """
    k = len(volume.slices) // 2 if labels is None else fullest_slice(labels)
    crop = volume.grid.crop
    panels = []
    for text in prompts:
        _, label = mapper.prompt_for(text)
        attention, binary = mapper.slice_maps(volume, text, k)
        truth = None if labels is None or label is None else crop(labels[k] == label)
        title = text if label is None else short_name(label)
        panels.append(PromptPanel(title, crop(attention), crop(binary), truth))
    return attention_panel(crop(volume.slices[k]), panels)


def _file_name(text: str) -> str:
    """Return ``text`` as a part of a file name: letters and digits, at most 40 characters."""
    return "".join(each if each.isalnum() else "-" for each in text).strip("-")[:40] or "prompt"
