"""The training loop of both stages.

Everything random in a step is drawn from the seed and the step's number, so a run needs no state of random
generators: started again from a checkpoint, it repeats the same steps and ends in the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from CPS4Core.data.read_ahead import read_ahead
from CPS4Core.devices import is_out_of_memory
from CPS4Core.errors import Cancelled, CPS4Error
from CPS4Core.events import Artifact, Event, Finished, Metric, Progress, Started, Warned
from CPS4Core.files import written_aside
from CPS4Core.model_folder import Weights
from CPS4Core.training.batches import most_parts, pinned, split
from CPS4Core.training.buffers import BufferCopy
from CPS4Core.training.checkpoint import load_checkpoint, save_checkpoint
from CPS4Core.training.run import Run
from CPS4Core.training.stage import Stage

LOAD_AHEAD = 4
"""Batches that are read before they are needed."""
LOG_EVERY = 10
"""Steps between two points of the loss curves."""
PREVIEW_SECONDS = 15
"""Least time between two previews."""


class TrainingLoop:
    """Runs a stage from its checkpoint, or from the start, to its end.

    Args:
        stage: what to train.
        run: its settings, device, folder, and the way to stop it.
    """

    def __init__(self, stage: Stage, run: Run):
        self.stage = stage
        self.accelerator = run.accelerator
        self.run_folder = run.folder
        self.settings = run.settings
        self.cancellation = run.cancellation
        self.step = 0
        self.best_score = -np.inf
        self._unwritten: tuple[Weights, int, dict[str, float]] | None = None
        self._saved_at = time.monotonic()
        self._shown_at = time.monotonic()
        self._waited = 0.0
        self._parts = self._most_parts = 1

    def run(self) -> None:
        """Train to the end.

        Raises:
            Cancelled: if the user stopped it; the checkpoint is written.
            CPS4Error: if the device has not enough memory for one slice, or the disk is full.
        """
        device, steps = str(self.accelerator.device), self.stage.total_steps
        self._report(Started(self.stage.command, {"device": device, "steps": steps}))
        if metrics := self.stage.first_metrics():
            self._report(Metric(0, metrics))
        if self.run_folder.checkpoint.exists():
            self._resume()
        self.module, self.optimizer = self.accelerator.prepare(self.stage.module, self.stage.optimizer)
        self.module.train()
        self._buffers = BufferCopy(self.stage.module)
        self._finite = torch.ones((), dtype=torch.bool, device=self.accelerator.device)
        started, first = time.monotonic(), self.step
        for loaded in self._batches():
            if self._cancelled():
                self._check_finite()
                self._save()
                raise Cancelled
            try:
                terms = self._train_step(loaded)
            except Cancelled:  # before anything of the step has changed
                self._check_finite()
                self._save()
                raise
            self.step += 1
            self.stage.after_step(self.step)
            self._tell(terms, started, first)
            if self.step % self.stage.steps_per_epoch == 0:
                self._end_epoch()
        self._save()
        if self.accelerator.is_main_process and (found := self.stage.finish()):
            self._report(Metric(self.step, found))
        seconds = time.monotonic() - started
        details = {
            "steps": self.step,
            "seconds": seconds,
            "waiting_for_data": self._waited / max(seconds, 1e-9),
        }
        self._report(Artifact("model", str(self.run_folder.model), {"score": float(self.best_score)}))
        self._report(Finished(details=details))

    def _cancelled(self) -> bool:
        """Return whether any process was asked to stop, so that all stop at the same step."""
        if self.accelerator.num_processes == 1:  # no question to the device, which would have to answer first
            return self.cancellation.requested
        requested = torch.tensor(float(self.cancellation.requested), device=self.accelerator.device)
        return bool(self.accelerator.reduce(requested, "sum") > 0)

    def _train_step(self, loaded: Any) -> dict[str, Tensor]:
        """Do one optimiser step; with too little memory, in smaller parts of the same batch."""
        while (terms := self._gradients(loaded)) is None:
            self._halve()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return terms

    def _gradients(self, loaded: Any) -> dict[str, Tensor] | None:
        """Add up the gradients of a step and return the terms of its loss.

        None if the memory does not suffice; then nothing has changed. Where the optimiser runs out of memory, smaller
        parts do not help.
        """
        torch.manual_seed(self._step_seed())
        batch = self.stage.prepare(loaded, self.step)
        self._most_parts = most_parts(batch)
        self._buffers.renew()
        try:
            return self._backward(split(batch, self._parts))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self.optimizer.zero_grad()
        self._buffers.restore()
        return None

    def _backward(self, parts: list[Any]) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts, start=1):
            last = number == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                terms = self.stage.loss(self.module, part)
                self.accelerator.backward(terms["total"] / len(parts))
            self._finite &= terms["total"].detach().isfinite()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(parts)
        return sums

    def _halve(self) -> None:
        """Use parts half as large from now on; the batch as a whole stays the same."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        remedy = "Use a device with more memory, a smaller input.size or smaller train.widths."
        if self.accelerator.num_processes > 1:
            raise CPS4Error("A device ran out of memory.", f"Set a smaller batch. {remedy}")
        self._parts *= 2
        if self._parts > self._most_parts:
            raise CPS4Error("The device's memory does not suffice for one slice.", remedy)
        self._report(
            Warned(f"Not enough device memory: going on in {self._parts} parts a step, with the same batch.")
        )

    def _end_epoch(self) -> None:
        self._check_finite()
        epoch = self.step // self.stage.steps_per_epoch
        metrics: dict[str, float] = {}
        if epoch % self.stage.validate_every == 0 or self.step == self.stage.total_steps:
            self.module.eval()
            metrics = self.stage.validate()
            self._show_preview()
            self.module.train()
            self._keep_if_best(metrics)
            if metrics:
                self.stage.after_validation(metrics)
        self.stage.end_epoch(epoch, metrics)
        if metrics:
            self._report(Metric(self.step, metrics))
        if time.monotonic() - self._saved_at >= 60 * self.settings.checkpoint_minutes:
            self._save()

    def _check_finite(self) -> None:
        """Check that no loss was infinite or NaN so far; what such steps made must not be kept."""
        if not self._finite:
            raise CPS4Error(
                f"The training has diverged: by step {self.step} the loss is no number.",
                f"Set a lower learning rate ({self.stage.rate_setting}), and choose another output folder.",
                self.run_folder.path,
            )

    def _show_preview(self) -> None:
        """Write a picture of what the model makes of a validation slice, now and then and at the end."""
        due = time.monotonic() - self._shown_at >= PREVIEW_SECONDS or self.step == self.stage.total_steps
        if not due or not self.accelerator.is_main_process:
            return
        if (picture := self.stage.preview()) is not None:
            with written_aside(self.run_folder.preview) as temporary:
                temporary.write_bytes(picture)
            self._report(Artifact("preview", str(self.run_folder.preview), {"step": self.step}))
        self._shown_at = time.monotonic()

    def _keep_if_best(self, metrics: dict[str, float]) -> None:
        """Remember the weights with the best validation score; without validation, the latest."""
        score = self.stage.score(metrics) if metrics else float(self.step)
        if score > self.best_score:
            self.best_score = score
            weights = {
                part: {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
                for part, tensors in self.stage.model_weights().items()
            }
            self._unwritten = (weights, self.step, metrics)

    def _save(self) -> None:
        """Write the best model and the checkpoint; in this order, so that a checkpoint's best model exists."""
        if self.accelerator.is_main_process:
            if self._unwritten is not None:
                self.stage.write_model(*self._unwritten)
                self._unwritten = None
            state = {
                "step": self.step,
                "best_score": float(self.best_score),
                "parts": self._parts,
                "module": self.stage.module.state_dict(),
                "optimizer": self.stage.optimizer.state_dict(),
                "schedule": self.stage.schedule.state_dict(),
            }
            save_checkpoint(self.run_folder.checkpoint, state)
        self.accelerator.wait_for_everyone()
        self._saved_at = time.monotonic()

    def _resume(self) -> None:
        state = load_checkpoint(self.run_folder.checkpoint)
        self.step = state["step"]
        self.best_score = state["best_score"]
        self._parts = state["parts"]
        self.stage.module.load_state_dict(state["module"])
        self.stage.optimizer.load_state_dict(state["optimizer"])
        self.stage.schedule.load_state_dict(state["schedule"])

    def _batches(self) -> Iterator[Any]:
        """Yield the loaded batch of each remaining step, read ahead in a thread."""
        steps = range(self.step, self.stage.total_steps)
        for loaded, waited in read_ahead(self._load, steps, LOAD_AHEAD):
            self._waited += waited
            yield loaded

    def _load(self, step: int) -> Any:
        loaded = self.stage.load(step)
        return pinned(loaded) if self.accelerator.device.type == "cuda" else loaded

    def _step_seed(self) -> int:
        sequence = np.random.SeedSequence([self.settings.seed, self.step, self.accelerator.process_index])
        return int(sequence.generate_state(1)[0])

    def _tell(self, terms: dict[str, Tensor], started: float, first: int) -> None:
        if self.step % LOG_EVERY and self.step != self.stage.total_steps:
            return
        self._check_finite()
        means = self.accelerator.reduce(terms, "mean")
        rate = self.stage.optimizer.param_groups[0]["lr"]
        self._report(Metric(self.step, {**{k: float(v) for k, v in means.items()}, "learning_rate": rate}))
        seconds = (time.monotonic() - started) / (self.step - first)
        left = seconds * (self.stage.total_steps - self.step)
        self._report(Progress(self.step, self.stage.total_steps, self.stage.name, left))

    def _report(self, event: Event) -> None:
        if self.accelerator.is_main_process:
            self.run_folder.report(event)
