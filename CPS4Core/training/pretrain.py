"""What `cps4 pretrain` does: run stage 1."""

from __future__ import annotations

from pathlib import Path

import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS
from CPS4Core.config import Settings
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.training.inputs import open_inputs
from CPS4Core.training.loop import TrainingLoop
from CPS4Core.training.pretraining_stage import PretrainingStage
from CPS4Core.training.run import make_accelerator, open_run


def pretrain(
    data_set: Path,
    output: Path,
    settings: Settings,
    *,
    ratio: float,
    device: torch.device,
    report: Reporter,
    cancellation: Cancellation,
    cache: Path | None = None,
    start: Path | None = None,
) -> Path:
    """Run stage 1, or go on with the run in ``output``, and return the folder of the trained encoders.

    Args:
        data_set: folder in the layout of nnU-Net v2.
        output: run folder.
        settings: the whole settings; ``pretrain``, ``encoders``, ``input`` and ``augment`` matter here.
        ratio: share of the labelled patients whose labels are used, in (0, 1].
        device: where to compute.
        report: receives the events.
        cancellation: tells when to stop.
        cache: where prepared slices are kept; the data set's folder ``preprocessed`` if None.
        start: model folder whose encoders to begin with, of the same input and architecture; new ones if None.

    Raises:
        CPS4Error: if the data, the settings, the weights, the encoders to begin with or the output folder are not
            usable.
        Cancelled: if the user stopped it; the same call goes on.
    """
    begun = None if start is None else _open_start(settings, start)
    accelerator = make_accelerator(device)
    inputs = open_inputs(
        data_set, settings, ratio, cache, accelerator, report, cancellation, unlabelled=False
    )
    identity = {"stage": 1, "data": inputs.facts()}
    if begun is not None:
        identity["start"] = begun.sha256(ENCODERS)
    with open_run(output, identity, settings, accelerator, report, cancellation, unused={"train"}) as run:
        TrainingLoop(PretrainingStage(run, inputs, begun), run).run()
    return run.folder.model


def _open_start(settings: Settings, start: Path) -> ModelFolder:
    """Return the model in ``start``, if its encoders see the same slices and are built alike."""
    model = ModelFolder.open(start)
    if not model.has(ENCODERS):
        raise CPS4Error("The model to begin with has no encoders.", "Choose one of stage 1.", start)
    if not model.has_encoders_for(settings):
        raise CPS4Error(
            "The model to begin with was trained on slices of another size, or has other encoders.",
            "Use its preset and settings.",
            start,
        )
    return model
