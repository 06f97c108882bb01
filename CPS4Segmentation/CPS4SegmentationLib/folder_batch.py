"""A folder of scans, segmented in the background into files of another folder, and measured if that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Event, Failed, Progress, Warned
from CPS4SegmentationLib.batch_table import BatchTable
from CPS4SegmentationLib.job import Job, Outcome

SUFFIX = ".seg.nrrd"
"""With names and colours, as Slicer reads them."""


@dataclass(frozen=True)
class FolderOrder:
    """What to segment, and into what."""

    scans: Path
    results: Path
    model: Path
    model_name: str
    device: str
    count_levels: bool
    measures: bool
    """Measure the results too."""

    def check(self) -> None:
        """Refuse folders that cannot be what they are given as.

        Raises:
            CPS4Error: if there is no such folder of scans, or the results' folder holds them.
        """
        if not self.scans.is_dir():
            raise CPS4Error(_("There is no such folder of scans."), _("Choose the folder."), self.scans)
        if self.results.exists() and not self.results.is_dir():
            raise CPS4Error(
                _("The results' place is a file."), _("Choose a folder for the results."), self.results
            )
        scans, results = self.scans.resolve(), self.results.resolve()
        if results == scans or results in scans.parents:
            raise CPS4Error(
                _("The folder of the results holds the scans."),
                _("Choose another folder, or a new one below the scans."),
                self.results,
            )

    @property
    def command(self) -> list[str]:
        """What segments."""
        levels = "counted" if self.count_levels else "as-seen"
        return [
            "segment", str(self.scans), str(self.results), "--model", str(self.model),
            "--suffix", SUFFIX, "--levels", levels, "--device", self.device,
        ]  # fmt: skip

    def measure_command(self) -> list[str]:
        """Return what measures, into a table of a name that is free."""
        names = (f"measures{'' if number == 1 else f'-{number}'}.csv" for number in count(1))
        table = next(path for name in names if not (path := self.results / name).exists())
        return ["measure", str(self.results), str(table)]


@dataclass(frozen=True)
class FileResult:
    """A result on the disk."""

    scan: Path
    path: Path
    details: dict[str, Any]
    """What the engine says of it; of one that was there already, only by which network, unless it was corrected."""
    model: str
    """Name of the model."""


class FolderBatch:
    """Runs an order, and fills a table while it does.

    Args:
        order: that has been checked.
        table: to fill.
        open_result: shows a result.
        on_progress: receives progress.
        on_log: receives lines for the log.
        on_end: called once with words for how it ended.
    """

    def __init__(
        self,
        order: FolderOrder,
        table: BatchTable,
        open_result: Callable[[FileResult], None],
        on_progress: Callable[[Progress], None],
        on_log: Callable[[str], None],
        on_end: Callable[[str], None],
    ):
        self._order, self._table, self._open_result = order, table, open_result
        self._on_progress, self._on_log, self._on_end = on_progress, on_log, on_end
        self._there_already = 0
        self._measures = ""
        self._job = Job([order.command], self._on_event, on_log, self._on_segmented)

    def stop(self) -> None:
        """Stop; what is done stays."""
        self._job.stop()

    def close(self) -> None:
        """Stop now; nobody is told."""
        self._job.close()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._on_progress(event)
        elif isinstance(event, Warned):
            self._on_log(event.message)
        elif isinstance(event, Failed):
            self._on_log(f"{event.path}: {event.problem} {event.remedy}")
            self._table.add_failed(self._name(event.path), event.problem, event.remedy)
        elif isinstance(event, Artifact) and event.role == "segmentation":
            self._add_result(event)
        elif isinstance(event, Artifact):
            self._measures = _("The measures are in {name}.").format(name=Path(event.path).name)

    def _add_result(self, event: Artifact) -> None:
        details = event.details
        if details.get("there already"):
            self._there_already += 1
            outcome = _("There already.")
        else:
            found = _("{count} structures found.").format(count=len(details["confidence"]))
            outcome = " ".join([found, *(_(doubt) for doubt in details["doubts"])])
        scan = self._order.scans / details["source"]
        if not scan.exists():  # the folder is one series
            scan = self._order.scans
        result = FileResult(scan, Path(event.path), details, self._order.model_name)
        self._table.add_done(self._name(details["source"]), outcome, lambda: self._open_result(result))

    def _name(self, path: str | None) -> str:
        """Return how the table names a file: as it lies in the folder of the scans or of the results."""
        if path is None:
            return self._order.scans.name
        for folder in (self._order.results, self._order.scans):
            if folder in Path(path).parents:
                return Path(path).relative_to(folder).as_posix()
        return Path(path).name if Path(path).is_absolute() else path

    def _on_segmented(self, outcome: Outcome) -> None:
        if outcome is Outcome.DONE and self._order.measures and self._table.done:
            command = self._order.measure_command()
            self._job = Job([command], self._on_event, self._on_log, self._end)
        else:
            self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        parts = [
            _("{done} segmented, {failed} failed.").format(
                done=self._table.done - self._there_already, failed=self._table.failed
            )
        ]
        if self._there_already:
            parts.append(_("{count} were there already.").format(count=self._there_already))
        if outcome is Outcome.STOPPED:
            parts = [_("Stopped."), *parts, _("Segment folder goes on where it stopped.")]
        elif outcome is Outcome.FAILED:
            parts = [_("It did not come to its end: see the table."), *parts]
        self._on_end(" ".join([*parts, self._measures]).strip())
