"""What `cps4 train` does: run stage 2."""

from __future__ import annotations

from pathlib import Path

import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS, NETWORK
from CPS4Core.config import Settings
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Reporter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.systems import find_method
from CPS4Core.training.inputs import TrainingInputs, open_inputs
from CPS4Core.training.loop import TrainingLoop
from CPS4Core.training.map_store import MapStore, compute_text_maps
from CPS4Core.training.run import Run, make_accelerator, open_run
from CPS4Core.training.segmentation_stage import SegmentationStage


def train(
    data_set: Path,
    output: Path,
    settings: Settings,
    *,
    ratio: float,
    encoders: Path | None,
    device: torch.device,
    report: Reporter,
    cancellation: Cancellation,
    cache: Path | None = None,
    start: Path | None = None,
) -> Path:
    """Run stage 2, or go on with the run in ``output``, and return the folder of the trained model.

    Args:
        data_set: folder in the layout of nnU-Net v2.
        output: run folder.
        settings: the whole settings; ``train``, ``input`` and ``augment`` matter here.
        ratio: share of the labelled patients whose labels are used, in (0, 1].
        encoders: model folder of stage 1, for a method that uses text maps; those of ``start`` if None.
        device: where to compute.
        report: receives the events.
        cancellation: tells when to stop.
        cache: where prepared slices are kept; the data set's folder ``preprocessed`` if None.
        start: model folder whose network to begin with, of the same input and widths; a new network if None.

    Raises:
        CPS4Error: if the data, the settings, the encoders, the network to begin with or the output folder are not
            usable.
        Cancelled: if the user stopped it; the same call goes on.
    """
    system = find_method(settings.train.method)
    begun = None if start is None else _open_start(settings, start)
    if encoders is None and begun is not None and begun.has(ENCODERS):
        encoders = start
    prompted = _open_encoders(settings, encoders) if system.needs_text else None
    accelerator = make_accelerator(device)
    inputs = open_inputs(data_set, settings, ratio, cache, accelerator, report, cancellation, unlabelled=True)
    if system.load().needs_unlabelled and not inputs.store.slices_of(inputs.split.unlabelled):
        raise CPS4Error(
            "There is no unlabelled case to learn from.",
            "Add images without labels, choose a ratio below 1, or the method `supervised`.",
            data_set,
        )
    identity = {
        "stage": 2,
        "data": inputs.facts(),
        "encoders": None if prompted is None else prompted.sha256(ENCODERS),
    }
    if begun is not None:
        identity["start"] = begun.sha256()
    unused = {"pretrain", "encoders"}
    with open_run(output, identity, settings, accelerator, report, cancellation, unused=unused) as run:
        maps = None if prompted is None else _text_maps(run, inputs, prompted)
        TrainingLoop(SegmentationStage(run, inputs, maps, prompted, begun), run).run()
    return run.folder.model


def _text_maps(run: Run, inputs: TrainingInputs, encoders: ModelFolder) -> MapStore:
    """Compute the text maps that stage 2 needs, or take up those that the run folder has."""
    # Of the validation cases one is shown while training; all of them measure the trust.
    looked_at = inputs.validation_cases[: None if run.settings.train.text_trust == "measured" else 1]
    with run.accelerator.main_process_first():
        return compute_text_maps(
            encoders.load_encoders(),
            inputs.store,
            [*inputs.split.unlabelled, *looked_at],
            run.folder.path / "text_maps" / encoders.sha256(ENCODERS)[:12],
            run.device,
            run.folder.report,
            run.cancellation,
        )


def _open_encoders(settings: Settings, encoders: Path | None) -> ModelFolder:
    """Return the model of stage 1 in ``encoders``, if it was trained on slices like those of ``settings``."""
    if encoders is None:
        raise CPS4Error(
            f"The method {settings.train.method!r} needs trained encoders.",
            "Run `cps4 pretrain` first and name its model folder with --encoders.",
        )
    model = ModelFolder.open(encoders)
    if model.input != settings.input:
        raise CPS4Error(
            "The encoders were trained on slices of another size or spacing.",
            "Use the same preset and input settings in both stages.",
            encoders,
        )
    return model


def _open_start(settings: Settings, start: Path) -> ModelFolder:
    """Return the model in ``start``, if its network sees the same slices and has the same shape."""
    model = ModelFolder.open(start)
    if not model.has(NETWORK):
        raise CPS4Error(
            "The model to begin with has no segmentation network.", "Choose one of stage 2.", start
        )
    if (model.input, model.widths) != (settings.input, settings.train.widths):
        raise CPS4Error(
            "The model to begin with was trained on slices of another size, or has another network.",
            "Use its preset and settings.",
            start,
        )
    return model
