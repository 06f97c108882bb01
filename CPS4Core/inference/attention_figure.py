"""A figure of attention maps, like the paper's Fig. 5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from CPS4Core.class_table import short_name
from CPS4Core.figures import PromptPanel, attention_panel, fullest_slice
from CPS4Core.inference.attention import AttentionMapper, EncodedVolume


def draw_panel(
    mapper: AttentionMapper, volume: EncodedVolume, prompts: Sequence[str], labels: np.ndarray | None = None
) -> bytes:
    """Return a PNG of what ``prompts`` attend to in one slice.

    The slice is the middle one, or with ``labels`` (slices, AP, SI) the one that shows most structures.
    """
    k = len(volume.slices) // 2 if labels is None else fullest_slice(labels)
    panels = prompt_panels(mapper, volume, prompts, k, labels)
    return attention_panel(volume.grid.crop(volume.slices[k]), panels)


def prompt_panels(
    mapper: AttentionMapper,
    volume: EncodedVolume,
    prompts: Sequence[str],
    k: int,
    labels: np.ndarray | None = None,
) -> list[PromptPanel]:
    """Return what each of ``prompts`` attends to in slice ``k``; ``labels`` as for ``draw_panel``."""
    crop = volume.grid.crop
    panels = []
    for text in prompts:
        _, label = mapper.prompt_for(text)
        attention, binary = mapper.slice_maps(volume, text, k)
        truth = None if labels is None or label is None else crop(labels[k] == label)
        title = text if label is None else short_name(label)
        panels.append(PromptPanel(title, crop(attention), crop(binary), truth))
    return panels
