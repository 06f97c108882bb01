"""The paper's Fig. 5: what the class prompts of several systems attend to in one test slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from CPS4Core.data.dataset import Case
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import read_image
from CPS4Core.figures import compared_attention, fullest_slice
from CPS4Core.inference.attention import AttentionMapper
from CPS4Core.inference.attention_figure import prompt_panels
from CPS4Core.model_folder import ModelFolder

PROMPTS = ("T12", "L1", "L2", "L3", "L4", "L5", "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S")


def attention_figure(
    encoders: Mapping[str, ModelFolder], case: Case, device: torch.device, prompts: Sequence[str] = PROMPTS
) -> bytes:
    """Return a PNG with a row of attention maps for each system, over the slice that shows most structures.

    Args:
        encoders: title -> model of stage 1; all see slices of one size.
        case: with labels.
        device: where to compute.
        prompts: class names.
    """
    assert case.label is not None
    image = read_image(case.image)
    reference = read_labels(case.label, like=image)
    systems = {}
    for title, model in encoders.items():
        mapper = AttentionMapper(model, device)
        volume = mapper.encode(image)
        labels = volume.grid.labels_to_slices(reference)
        k = fullest_slice(labels)
        systems[title] = prompt_panels(mapper, volume, prompts, k, labels)
    return compared_attention(volume.grid.crop(volume.slices[k]), systems)
