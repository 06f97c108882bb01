"""A training run is a folder.

    run/
        config.json             what determines the run: stage, settings, data
        events.jsonl            what the run said, one JSON object a line
        checkpoint.safetensors  where a stopped run goes on
        model/                  the best model so far
        preview.png             what the model makes of one validation slice

One process uses it at a time.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from CPS4Core.errors import CPS4Error
from CPS4Core.events import Event, Metric, Reporter, parse
from CPS4Core.files import as_user_error, read_json, remove_unfinished, write_json


class RunFolder:
    """The folder of one run, locked while in use.

    Args:
        path: the folder; it is made if it does not exist.
        identity: what determines the run, in JSON values. A run goes on only with the same.
        report: where events go beside ``events.jsonl``.
        main: whether this process writes; of several that train together, only the first does.

    Raises:
        CPS4Error: on entering, if another process uses the folder, if it holds another run, or if it cannot be
            written.
    """

    def __init__(self, path: str | Path, identity: dict[str, Any], report: Reporter, main: bool = True):
        self.path = Path(path)
        self.identity = json.loads(json.dumps(identity))
        self._forward = report
        self._main = main
        self._lock = FileLock(self.path / "run.lock", blocking=False)

    @property
    def checkpoint(self) -> Path:
        """The state from which a stopped run goes on."""
        return self.path / "checkpoint.safetensors"

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.path / "model"

    @property
    def events(self) -> Path:
        """The log of the run, one event a line."""
        return self.path / "events.jsonl"

    @property
    def preview(self) -> Path:
        """The picture of a validation slice."""
        return self.path / "preview.png"

    def report(self, event: Event) -> None:
        """Add ``event`` to the run's log and pass it on."""
        if not self._main:
            return
        try:
            with self.events.open("a", encoding="utf-8") as file:
                file.write(event.to_json() + "\n")
        except OSError as error:
            raise as_user_error(error, self.events) from error
        self._forward(event)

    def __enter__(self) -> RunFolder:
        if not self._main:
            return self
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise CPS4Error(
                "Another process is using this run folder.",
                "Wait for it, or choose another output folder.",
                self.path,
            ) from error
        except OSError as error:
            raise as_user_error(error, self.path) from error
        try:
            self._claim()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _claim(self) -> None:
        """Write what determines the run, or check that it is the same run."""
        config = self.path / "config.json"
        if not config.exists():
            foreign = [
                path for path in (self.checkpoint, self.model, self.events, self.preview) if path.exists()
            ]
            if foreign:
                raise CPS4Error(
                    "The folder holds files that no training made here.",
                    "Choose another output folder.",
                    foreign[0],
                )
            write_json(config, self.identity)
            return
        remove_unfinished(self.path)
        different = [name for name, value in self.identity.items() if read_json(config).get(name) != value]
        if different:
            raise CPS4Error(
                f"The folder holds another run: its {' and '.join(different)} differ.",
                "Choose another output folder, or repeat the same command to go on with that run.",
                self.path,
            )


def read_curves(run: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves of a run: for each name, (step, value) in order of steps.

    Steps that a resumed run repeated count once.
    """
    curves: dict[str, dict[int, float]] = {}
    events = Path(run) / "events.jsonl"
    if not events.is_file():
        raise CPS4Error("This is no run folder: it has no events.jsonl.", "Choose a training run.", run)
    for line in events.read_text(encoding="utf-8").splitlines():
        try:
            event = parse(line)
        except ValueError:
            continue  # a kill can cut the last line short
        if isinstance(event, Metric):
            for name, value in event.values.items():
                curves.setdefault(name, {})[event.step] = value
    return {name: sorted(points.items()) for name, points in curves.items()}
