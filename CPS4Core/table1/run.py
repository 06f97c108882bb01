"""What `cps4 table1` does: train what is missing, score it, and keep the report up to date.

    output/
        table.json                     what determines the table beside the systems, ratios and seeds
        stage1/RATIO/OBJECTIVE/seedN/  the runs of stage 1, which systems share
        runs/RATIO/SYSTEM/seedN/       the runs of stage 2, each with scores.json once it is finished
        report/                        table1.md, scores.csv, paired.csv, figures; attention.png is Fig. 5

A training that is finished is never repeated. Several processes, on one machine or many that see the folder, take
trainings that no other one is at.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from filelock import FileLock, Timeout

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS, NETWORK, holds_model
from CPS4Core.config import Settings
from CPS4Core.data.dataset import DataSet, open_data_set
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import read_image
from CPS4Core.errors import CPS4Error
from CPS4Core.evaluation.metrics import level_agreement, overlap
from CPS4Core.events import Artifact, Event, Finished, Progress, Reporter
from CPS4Core.files import read_json, write_json, written_aside
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.naming import LEVELS
from CPS4Core.systems import find_objective
from CPS4Core.table1.attention import attention_figure
from CPS4Core.table1.outlook import Outlook, look_ahead
from CPS4Core.table1.plan import Training
from CPS4Core.table1.report import COUNTED, write_report
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.train import train

SCORES = "scores.json"
WAIT = 2.0
"""Seconds between two looks whether another process has finished a stage 1."""


class Table:
    """The trainings of a table, in their folder.

    Args:
        data_set: folder in the layout of nnU-Net v2, with labelled test cases.
        output: folder of the table.
        trainings: what it consists of.
        preset: settings to start from.
        changes: of the settings, the same for all systems.
        device: where to compute.
        report: receives the events.
        cancellation: tells when to stop.
        cache: where prepared slices are kept; the data set's folder ``preprocessed`` if None.
        start: model whose encoders and network every system begins with; new ones if None.

    Raises:
        CPS4Error: if the data set or the settings are not usable, or ``output`` holds a table of other ones.
    """

    def __init__(
        self,
        data_set: Path,
        output: Path,
        trainings: Sequence[Training],
        preset: str,
        changes: Sequence[str],
        device: torch.device,
        report: Reporter,
        cancellation: Cancellation,
        cache: Path | None = None,
        start: Path | None = None,
    ):
        self.data_set: DataSet = open_data_set(data_set)
        self.output = Path(output)
        self.trainings = trainings
        self.settings: dict[Training, Settings] = {
            training: training.row.settings(preset, changes, training.seed) for training in trainings
        }
        self.device = device
        self.report = report
        self.cancellation = cancellation
        self.cache = cache
        self.start = start
        identity = {"data": str(Path(data_set).resolve()), "preset": preset, "changes": list(changes)}
        if start is not None:
            begun = ModelFolder.open(start)
            identity["start"] = [begun.sha256(part) for part in (NETWORK, ENCODERS) if begun.has(part)]
        self._claim(identity)

    def left(self) -> list[Training]:
        """Return the trainings that are not finished."""
        return [training for training in self.trainings if not self._scores(training).is_file()]

    def outlook(self) -> Outlook:
        """Return what is left to do, and what it takes.

        Raises:
            CPS4Error: if something that it needs is missing.
        """
        left = self.left()
        done = len(self.trainings) - len(left)
        return look_ahead(left, done, self.settings, self.data_set, self.output, self.device)

    def run(self) -> Path:
        """Train and score what no other process is at, and return the report.

        Raises:
            Cancelled: if the user stopped it; the same command goes on.
            CPS4Error: if a training is not possible.
        """
        for training in self.left():
            self.cancellation.check()
            with _if_free(self.output / training.place / "table.lock") as free:
                if free and not self._scores(training).is_file():
                    self._train(training)
            done = len(self.trainings) - len(self.left())
            self.report(Progress(done, len(self.trainings), "Table 1"))
        self._draw_attention()
        return self.write_report()

    def write_report(self) -> Path:
        """Write the report of the trainings that are finished, and return its Markdown file."""
        scored = [training for training in self.trainings if self._scores(training).is_file()]
        found = {training: read_json(self._scores(training))["cases"] for training in scored}
        path = write_report(found, self.output / "report")
        self.report(Artifact("report", str(path)))
        return path

    def _draw_attention(self) -> None:
        """Draw Fig. 5 of every stage 1 that is finished, with the first seed and the smallest ratio."""
        first = next((t for t in self.trainings if t.encoders is not None), None)
        case = next((case for case in self.data_set.test if case.label is not None), None)
        if first is None or case is None:
            return
        alike = [t for t in self.trainings if (t.ratio, t.seed) == (first.ratio, first.seed)]
        encoders = {}
        for training in alike:
            objective, place = training.row.objective, training.encoders
            if objective is None or place is None or training.row.terms is not None:
                continue
            model = self.output / place / "model"
            if holds_model(model):
                encoders[find_objective(objective).title] = ModelFolder.open(model)
        if encoders:
            path = self.output / "report" / "attention.png"
            drawn = attention_figure(encoders, case, self.device)
            with written_aside(path) as temporary:
                temporary.write_bytes(drawn)
            self.report(Artifact("figure", str(path)))

    def _train(self, training: Training) -> None:
        settings, place = self.settings[training], self.output / training.place
        common: dict[str, Any] = {
            "ratio": training.ratio,
            "device": self.device,
            "report": self._pass_on,
            "cancellation": self.cancellation,
            "cache": self.cache,
            "start": self.start,
        }
        encoders = None
        if training.encoders is not None:
            folder = self.output / training.encoders
            with self._waiting(folder / "table.lock"):
                encoders = pretrain(self.data_set.folder, folder, settings, **common)
        model = train(self.data_set.folder, place, settings, encoders=encoders, **common)
        shutil.rmtree(
            place / "text_maps", ignore_errors=True
        )  # as large as all else, and made again if need be
        write_json(self._scores(training), {"cases": self._score(model)})
        self.write_report()

    def _score(self, model: Path) -> list[dict[str, Any]]:
        """Return the scores of each labelled test case, at native resolution."""
        segmenter = Segmenter(ModelFolder.open(model), self.device)
        rows = []
        for case in self.data_set.test:
            if case.label is None:
                continue
            image = read_image(case.image)
            truth = sitk.GetArrayFromImage(read_labels(case.label, like=image))
            row: dict[str, Any] = {"case": case.name}
            for levels in LEVELS:
                prefix = COUNTED if levels == "counted" else ""
                found = segmenter.segment(image, levels=levels, cancellation=self.cancellation).labels
                scores = case_scores(sitk.GetArrayFromImage(found), truth)
                row |= {prefix + name: value for name, value in scores.items()}
            rows.append(row)
        return rows

    def _scores(self, training: Training) -> Path:
        return self.output / training.place / SCORES

    def _pass_on(self, event: Event) -> None:
        """Report what a training says, except that it is finished: the table is not."""
        if not isinstance(event, Finished):
            self.report(event)

    @contextmanager
    def _waiting(self, path: Path) -> Iterator[None]:
        """Hold a lock, waiting while another process does."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        while not lock.is_locked:
            self.cancellation.check()
            try:
                lock.acquire(timeout=WAIT)
            except Timeout:
                continue
        try:
            yield
        finally:
            lock.release()

    def _claim(self, identity: dict[str, Any]) -> None:
        path = self.output / "table.json"
        if not path.is_file():
            write_json(path, identity)
            return
        before = read_json(path)
        names = {**before, **identity}
        if different := [name for name in names if before.get(name) != identity.get(name)]:
            raise CPS4Error(
                f"The folder holds another table: its {' and '.join(different)} differ.",
                "Choose another output folder, or repeat the command that began it.",
                self.output,
            )


def case_scores(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return mDice, mIoU and the level accuracy of a case, 0 to 1."""
    counts = overlap(prediction, reference)
    present = counts.present
    return {
        "mdice": float(counts.dice[present].mean()) if present.any() else 1.0,
        "miou": float(counts.iou[present].mean()) if present.any() else 1.0,
        "level_accuracy": level_agreement(prediction, reference).accuracy,
    }


@contextmanager
def _if_free(path: Path) -> Iterator[bool]:
    """Hold a lock if no other process does, and tell whether."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
