"""How a job's events look in a terminal: one progress bar with the time left, or JSON lines for a program."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from CPS4Core.events import Artifact, Event, Failed, Finished, Metric, Started, Warned
from CPS4Core.events import Progress as ProgressEvent


class JsonLines:
    """Reports events as JSON lines on standard output, in UTF-8 whatever the system's code page."""

    def __enter__(self) -> JsonLines:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
        return self

    def __exit__(self, *details: object) -> None:
        pass

    def __call__(self, event: Event) -> None:
        """Write the event as a line of JSON."""
        sys.stdout.write(event.to_json() + "\n")
        sys.stdout.flush()


class Terminal:
    """Reports events to a person: progress bar, warnings, results.

    Args:
        goes_on: whether the job, once stopped and run again, goes on where it was.
    """

    def __init__(self, goes_on: bool = True) -> None:
        self._stopped = (
            "Stopped. Run the same command to go on." if goes_on else "Stopped. The same command starts anew."
        )
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Terminal:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show the event."""
        if isinstance(event, ProgressEvent):
            self._show_progress(event)
        elif isinstance(event, Metric):
            self._show_metric(event)
        elif isinstance(event, Started):
            device = event.details.get("device")
            self.console.print(escape(f"Started: {event.job}" + (f" on {device}" if device else "")))
        elif isinstance(event, Artifact):
            self.console.print(f"[green]{escape(event.role)}[/]: {escape(event.path)}")
        elif isinstance(event, Warned):
            self.console.print(f"[yellow]Warning[/]: {escape(event.message)}")
        elif isinstance(event, Failed):
            where = "" if event.path is None else f"{event.path}: "
            self.console.print("[red]Error[/]: " + escape(f"{where}{event.problem} {event.remedy}"))
        elif isinstance(event, Finished) and event.cancelled:
            self.console.print(self._stopped)

    def _show_progress(self, event: ProgressEvent) -> None:
        left = "" if event.seconds_left is None else f"about {_duration(event.seconds_left)} left"
        if self._task is None:
            self._task = self._bar.add_task(event.message, left=left)
        self._bar.update(
            self._task, description=event.message, completed=event.done, total=event.total, left=left
        )

    def _show_metric(self, event: Metric) -> None:
        validation = {k: v for k, v in event.values.items() if k.startswith("validation_")}
        if validation:
            values = ", ".join(f"{k.removeprefix('validation_')} {v:.4f}" for k, v in validation.items())
            self.console.print(escape(f"Step {event.step}, validation: {values}"))
        if "maps_training" in event.values:
            self.console.print(verdict_on_maps(event.values))


def verdict_on_maps(found: dict[str, float]) -> str:
    """Return the go or no-go of stage 1 in words (see ``CPS4Core.training.map_check``)."""
    parts = [f"raw maps: mDice {100 * found['maps_training']:.1f} on training patients"]
    parts.append(f"{100 * found['maps_ceiling']:.1f} would be perfect")
    if "maps_new" in found:
        parts.insert(1, f"{100 * found['maps_new']:.1f} on new ones")
    canvas, anatomy = found["names_follow_canvas"], found["names_follow_anatomy"]
    parts.append(f"names follow the canvas by {canvas:.2f} and the anatomy by {anatomy:.2f}")
    said = "; ".join(parts)
    if found["maps_training"] < found["maps_ceiling"] / 2:
        return f"No go: {said}. Train longer: set pretrain.epochs higher."
    if anatomy <= canvas:
        return f"No go: {said}. Set augment.shift and augment.scale, or use more patients."
    return f"Go: {said}."


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
