"""The command ``cps4``: one command a verb.

Heavy libraries are imported inside the commands, so that ``cps4 --help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import Card
from CPS4Core.config import PRESETS, load_settings
from CPS4Core.errors import Cancelled
from CPS4Core.events import Artifact, Event, Failed, Finished, Reporter
from CPS4Core.failures import failure_of
from CPS4Core.naming import Levels
from CPS4Core.processes import join_slurm_step, share_of
from CPS4Core.shipped_model import BASE, model_path
from CPS4Core.systems import METHODS, OBJECTIVES
from CPS4Core.terminal import JsonLines, Terminal

app = typer.Typer(
    name="cps4",
    help="Segment vertebrae and discs in spine MR, and train to do so with few labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

EventsOption = Annotated[
    bool, typer.Option("--events", help="Write one JSON object a line instead of progress bars.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:1.")]
PresetOption = Annotated[str, typer.Option(help=f"Settings to start from: {', '.join(PRESETS)}.")]
RunPresetOption = Annotated[
    str | None,
    typer.Option(
        help=f"Settings to start from: {', '.join(PRESETS)}.", show_default="that of --start, else paper"
    ),
]
SetOption = Annotated[
    list[str], typer.Option("--set", help="Change a setting: group.field=value. Repeatable.")
]
RatioOption = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the labelled patients to use.")]
SeedOption = Annotated[int, typer.Option(help="The same seed gives the same data set.")]
RunSeedOption = Annotated[
    int | None, typer.Option(help="The same seed gives the same run.", show_default="0")
]
CacheOption = Annotated[
    Path | None, typer.Option(help="Folder of prepared slices. Default: `preprocessed` in the data set.")
]
PixelOption = Annotated[
    float | None,
    typer.Option(
        min=0.05,
        max=5.0,
        help="Pixel size in mm of a PNG or JPEG of one sagittal slice: head up, front of the body on the left.",
    ),
]
DataArgument = Annotated[
    Path, typer.Argument(help="Data set folder (nnU-Net v2 layout; see `cps4 prepare`).")
]
RunArgument = Annotated[Path, typer.Argument(help="Run folder. The same command goes on with a stopped run.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Write over files that are there, whoever made or changed them.")
]
ModelOption = Annotated[
    str, typer.Option(help="Model folder, such as `model` in a training run; `base` comes with CPS4.")
]


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="Where the images are.")],
    destination: Annotated[Path, typer.Argument(help="New data set folder.")],
    scheme: Annotated[
        str,
        typer.Option("--from", help="mrspineseg, spider, totalspineseg, spineps, folder or dicom."),
    ] = "folder",
    seed: SeedOption = 0,
    pixel_mm: PixelOption = None,
    events: EventsOption = False,
) -> None:
    """Make a data set from MRSpineSeg, SPIDER, TotalSpineSeg, SPINEPS, a folder of volumes, or DICOM."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.data.prepare import prepare_data_set

        prepare_data_set(
            source,
            destination,
            scheme,
            seed=seed,
            report=_with_counts(report, events),
            cancellation=cancellation,
            pixel_mm=pixel_mm,
        )

    _run(job, events)


@app.command()
def inspect(data: DataArgument, events: EventsOption = False) -> None:
    """Show how many cases of a data set are labelled and unlabelled, and what is wrong with its files."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.data.inspect import inspect_data_set

        inspect_data_set(data, _with_counts(report, events), cancellation)

    _run(job, events, goes_on=False)


@app.command()
def add_case(
    data: DataArgument,
    image: Annotated[Path, typer.Argument(help="The volume.")],
    labels: Annotated[Path, typer.Argument(help="Its corrected labels, on the same grid.")],
    events: EventsOption = False,
) -> None:
    """Add a corrected segmentation to a data set as a labelled case."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.data.add_case import add_case as run_add_case

        run_add_case(data, image, labels, report)

    _run(job, events, goes_on=False)


@app.command()
def pretrain(
    data: DataArgument,
    run: RunArgument,
    objective: Annotated[
        str | None, typer.Option(help=f"One of: {', '.join(OBJECTIVES)}.", show_default="cps4")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Model folder whose encoders to go on from, or `base`.")
    ] = None,
    preset: RunPresetOption = None,
    changes: SetOption = [],  # noqa: B006
    ratio: RatioOption = 1.0,
    seed: RunSeedOption = None,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    events: EventsOption = False,
) -> None:
    """Stage 1: couple each class prompt with its structure, on the labelled images."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.devices import choose_device
        from CPS4Core.training.pretrain import pretrain as run_pretrain

        begun = None if start is None else model_path(start)
        run_pretrain(
            data,
            run,
            load_settings(_preset(preset, begun), changes, {"pretrain.objective": objective, "seed": seed}),
            ratio=ratio,
            start=begun,
            device=choose_device(device),
            report=report,
            cancellation=cancellation,
            cache=cache,
        )

    _run(job, events)


@app.command()
def train(
    data: DataArgument,
    run: RunArgument,
    encoders: Annotated[
        str | None,
        typer.Option(
            help="Model folder of stage 1 (`cps4 pretrain`), or `base`, for methods that use text.",
            show_default="those of --start",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help=f"One of: {', '.join(METHODS)}.", show_default="cps4")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Model folder whose network to go on from, such as after adding cases, or `base`."),
    ] = None,
    preset: RunPresetOption = None,
    changes: SetOption = [],  # noqa: B006
    ratio: RatioOption = 1.0,
    seed: RunSeedOption = None,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    events: EventsOption = False,
) -> None:
    """Stage 2: learn to segment from labelled and unlabelled images."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.devices import choose_device
        from CPS4Core.training.train import train as run_train

        begun = None if start is None else model_path(start)
        run_train(
            data,
            run,
            load_settings(_preset(preset, begun), changes, {"train.method": method, "seed": seed}),
            ratio=ratio,
            encoders=None if encoders is None else model_path(encoders),
            start=begun,
            device=choose_device(device),
            report=report,
            cancellation=cancellation,
            cache=cache,
        )

    _run(job, events)


@app.command()
def base(
    output: Annotated[
        Path, typer.Argument(help="Folder for everything that is made. The same command goes on.")
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            help="Data set to learn from beside synthetic spines, with labels or without. Repeatable."
        ),
    ] = [],  # noqa: B006
    leave_out: Annotated[
        list[str],
        typer.Option(help="Cases to keep for tests, such as 'spider*_005*'. Repeatable."),
    ] = [],  # noqa: B006
    start: Annotated[
        str | None,
        typer.Option(
            help="Model folder whose network and encoders to go on from with labelled data, or `base`.",
            show_default="synthetic spines alone come first",
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Stop after this time.")] = None,
    preset: PresetOption = "base",
    changes: SetOption = [],  # noqa: B006
    seed: RunSeedOption = None,
    device: DeviceOption = "auto",
    events: EventsOption = False,
) -> None:
    """Make the base model that comes with CPS4: from synthetic spines, and from real scans where there are some."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.devices import choose_device
        from CPS4Core.training.base_model import make_base_model

        settings = load_settings(preset, changes, {"seed": seed})
        begun = None if start is None else model_path(start)
        make_base_model(
            output, settings, data, leave_out, begun, minutes, choose_device(device), report, cancellation
        )

    _run(job, events)


@app.command()
def table1(
    data: DataArgument,
    output: Annotated[Path, typer.Argument(help="Folder of the table. The same command goes on with it.")],
    system: Annotated[
        list[str], typer.Option(help="A row of the table, such as mean_teacher. Repeatable. Default: all.")
    ] = [],  # noqa: B006
    ratio: Annotated[
        list[float],
        typer.Option(
            min=0.0, max=1.0, help="Share of the labelled patients. Repeatable. Default: the paper's."
        ),
    ] = [],  # noqa: B006
    seed: Annotated[list[int], typer.Option(help="Repeatable. Default: 0, 1 and 2.")] = [],  # noqa: B006
    ablation: Annotated[
        bool, typer.Option(help="Also the ablation of Fig. 4a, at the smallest ratio.")
    ] = True,
    only_plan: Annotated[bool, typer.Option("--plan", help="Only say what it will take and needs.")] = False,
    start: Annotated[
        str | None,
        typer.Option(help="Model folder whose network and encoders every system begins with, or `base`."),
    ] = None,
    preset: RunPresetOption = None,
    changes: SetOption = [],  # noqa: B006
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    events: EventsOption = False,
) -> None:
    """Table 1 of the paper: train and score every system at every ratio, with a report and paired tests."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.devices import choose_device
        from CPS4Core.table1.plan import RATIOS, SEEDS, plan
        from CPS4Core.table1.run import Table

        trainings = plan(system, ratio or RATIOS, seed or SEEDS, ablation)
        begun = None if start is None else model_path(start)
        table = Table(
            data,
            output,
            trainings,
            _preset(preset, begun),
            changes,
            choose_device(device),
            report,
            cancellation,
            cache,
            begun,
        )
        outlook = table.outlook()
        if not events:
            sys.stdout.write(outlook.text())
        if not only_plan:
            path = table.run()
            if not events:
                sys.stdout.write(path.read_text(encoding="utf-8"))
        report(Finished(details={"left": len(table.left())}))

    _run(job, events)


@app.command()
def segment(
    source: Annotated[
        Path, typer.Argument(help="A volume, a folder of volumes, a DICOM series, or a picture.")
    ],
    target: Annotated[Path, typer.Argument(help="Result file (.nii.gz, .nrrd, .seg.nrrd), or a folder.")],
    model: ModelOption = BASE,
    suffix: Annotated[str, typer.Option(help="Format of results in a folder.")] = ".nii.gz",
    levels: Annotated[
        Levels, typer.Option(help="Name structures by counting along the spine, or each pixel as seen.")
    ] = "counted",
    pixel_mm: PixelOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    events: EventsOption = False,
) -> None:
    """Segment volumes. A bad one is skipped and listed at the end; the same command goes on where it stopped."""

    def job(report: Reporter, cancellation: Cancellation) -> int:
        from CPS4Core.devices import choose_device
        from CPS4Core.inference.batch import find_tasks, segment_all
        from CPS4Core.inference.segmenter import Segmenter
        from CPS4Core.model_folder import ModelFolder

        tasks = share_of(find_tasks(source, target, suffix, pixel_mm))
        segmenter = Segmenter(ModelFolder.open(model_path(model)), choose_device(device), report)
        failures = segment_all(
            segmenter, tasks, levels=levels, report=report, cancellation=cancellation, overwrite=overwrite
        )
        report(Finished(details={"segmented": len(tasks) - len(failures), "failed": len(failures)}))
        if failures and not events:
            _print_failures(failures, "Not segmented")
        return 1 if failures else 0

    _run(job, events)


@app.command()
def attend(
    source: Annotated[Path, typer.Argument(help="A volume or a DICOM series.")],
    target: Annotated[Path, typer.Argument(help="Folder for the maps and the figure.")],
    model: ModelOption = BASE,
    prompts: Annotated[
        list[str],
        typer.Option("--prompt", help="A class name (L4) or any text. Repeatable. Default: all classes."),
    ] = [],  # noqa: B006
    labels: Annotated[
        Path | None, typer.Option(help="Reference segmentation to show beside the maps.")
    ] = None,
    pixel_mm: PixelOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    events: EventsOption = False,
) -> None:
    """Write the attention map and the binary map of class prompts, and a figure of them."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.devices import choose_device
        from CPS4Core.inference.attend import attend_volume
        from CPS4Core.model_folder import ModelFolder

        opened, where = ModelFolder.open(model_path(model)), choose_device(device)
        attend_volume(
            source, target, opened, prompts, labels, where, report, cancellation, pixel_mm, overwrite
        )

    _run(job, events, goes_on=False)


@app.command()
def check(
    source: Annotated[Path, typer.Argument(help="A volume or a DICOM series.")],
    labels: Annotated[Path, typer.Argument(help="Its segmentation, on the same grid.")],
    model: ModelOption = BASE,
    pixel_mm: PixelOption = None,
    device: DeviceOption = "auto",
    events: EventsOption = False,
) -> None:
    """Show how sure a model is of each structure of a segmentation: network, teacher and class prompts."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.devices import choose_device
        from CPS4Core.inference.agreement import check_files
        from CPS4Core.inference.model import Model
        from CPS4Core.model_folder import ModelFolder

        checker = Model(ModelFolder.open(model_path(model)), choose_device(device), report).checker
        found = check_files(checker, source, labels, report, cancellation, pixel_mm)
        report(Finished())
        if not events:
            _print_agreement(found)

    _run(job, events, goes_on=False)


@app.command()
def measure(
    source: Annotated[Path, typer.Argument(help="A segmentation, or a folder of them and of folders below.")],
    table: Annotated[Path | None, typer.Argument(help="CSV file.", show_default="the terminal")] = None,
    overwrite: OverwriteOption = False,
    events: EventsOption = False,
) -> None:
    """Measure segmentations: volumes, heights, wedge and lordosis angles, disc height indices and slips, as CSV."""

    def job(report: Reporter, cancellation: Cancellation) -> int:
        from CPS4Core.evaluation.measure import check_table, measure_files
        from CPS4Core.files import written_aside

        if table is not None:
            check_table(table, source, overwrite)
        text, failures = measure_files(source, report, cancellation)
        if table is not None:
            with written_aside(table) as aside:
                aside.write_text(text, encoding="utf-8", newline="")
            report(Artifact("measurements", str(table)))
        elif not events:
            sys.stdout.write(text)
        report(Finished(details={"failed": len(failures)}))
        if failures and not events:
            _print_failures(failures, "Not measured")
        return 1 if failures else 0

    _run(job, events)


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Segmentations: a folder or a file.")],
    references: Annotated[Path, typer.Argument(help="Reference labels: a folder or a file.")],
    output: Annotated[Path, typer.Argument(help="Folder for the tables.")],
    overwrite: OverwriteOption = False,
    events: EventsOption = False,
) -> None:
    """Compare segmentations with references: Dice, IoU, surface distances, level accuracy."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.evaluation.evaluate import evaluate as run_evaluate

        run_evaluate(predictions, references, output, report, overwrite)
        if not events:
            sys.stdout.write((output / "summary.md").read_text(encoding="utf-8"))

    _run(job, events, goes_on=False)


@app.command()
def worker() -> None:
    """Keep a model warm: JSON requests on standard input, events on standard output (used by 3D Slicer)."""
    from CPS4Core.inference.worker import Worker

    _prepare_libraries()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    with JsonLines() as report:
        Worker(report).serve(sys.stdin)


@app.command()
def doctor(
    fetch: Annotated[
        str, typer.Option(help="Download the weights of an encoder of the preset: vision or text.")
    ] = "",
    preset: PresetOption = "paper",
    json_output: Annotated[bool, typer.Option("--json", help="Write JSON for a program.")] = False,
) -> None:
    """Show devices, precision, versions, and which weights are here or how to get them."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.doctor import examine, fetch_weights, show

        if fetch:
            fetch_weights(fetch, load_settings(preset).encoders)
        show(examine(load_settings(preset)), as_json=json_output)

    _run(job, events=False, goes_on=False)


@app.command()
def demo(
    output: Annotated[Path, typer.Argument(help="Folder for everything the demo makes.")] = Path(
        "build/demo"
    ),
    sample: Annotated[
        Path | None, typer.Option(help="A real spine MR to segment too: the downloaded `tptbox` wheel.")
    ] = None,
    scan: Annotated[
        list[Path],
        typer.Option(help="A real scan to segment with the model that comes with CPS4. Repeatable."),
    ] = [],  # noqa: B006
    device: DeviceOption = "auto",
    events: EventsOption = False,
) -> None:
    """The whole journey: real scans at once; prepare, both stages, segment, evaluate on phantoms; a report."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        from CPS4Core.demo.run import run_demo
        from CPS4Core.devices import choose_device

        run_demo(output, sample, scan, choose_device(device), report, cancellation)

    _run(job, events)


@app.command()
def settings(
    preset: PresetOption = "paper",
    changes: SetOption = [],  # noqa: B006
) -> None:
    """Show every setting of a preset as JSON; the names are what --set takes."""

    def job(report: Reporter, cancellation: Cancellation) -> None:
        sys.stdout.write(load_settings(preset, changes).model_dump_json(indent=2) + "\n")

    _run(job, events=False, goes_on=False)


def main() -> None:
    """Run the command line."""
    app()


def _preset(named: str | None, start: Path | None) -> str:
    """Return the preset of a run: the one that is named, else that of the model to start from."""
    if named is not None or start is None:
        return named or "paper"
    return str(Card.read(start).settings.get("preset", "paper"))


def _with_counts(report: Reporter, events: bool) -> Reporter:
    """Return a reporter that also tells a person how many cases a data set has, and how their labels were found."""

    def tell(event: Event) -> None:
        report(event)
        if isinstance(event, Finished) and not events:
            counts = [f"{event.details[name]} {name}" for name in ("labelled", "unlabelled", "test")]
            sys.stdout.write(", ".join(counts) + "\n")
            for rule, count in event.details.get("matched", {}).items():
                sys.stdout.write(f"{count} label files found by {rule}\n")

    return tell


def _run(job: Callable[[Reporter, Cancellation], Any], events: bool, goes_on: bool = True) -> None:
    """Run a job, report what happens, and exit with 0, 1 after an error, or 130 when stopped.

    Args:
        job: what to do; it returns the exit code, or None for 0.
        events: write JSON lines instead of words.
        goes_on: whether the job, once stopped and run again, goes on where it was.
    """
    join_slurm_step()
    _prepare_libraries()
    cancellation = Cancellation()
    cancellation.listen_to_signals()
    if events:
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        cancellation.listen_to_input()
    output: AbstractContextManager = JsonLines() if events else Terminal(goes_on)
    with output as report:
        try:
            code = job(report, cancellation) or 0
        except Cancelled:
            report(Finished(cancelled=True))
            code = 130
        except Exception as error:
            report(failure_of(error))
            code = 1
    raise typer.Exit(code)


def _print_failures(failures: list[Failed], title: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("File", "Problem", "What to do", title=title)
    for failure in failures:
        table.add_row(*map(escape, (Path(failure.path or "").name, failure.problem, failure.remedy)))
    Console(stderr=True).print(table)


def _print_agreement(found: dict[int, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from CPS4Core.class_table import HEAD_TO_TAIL, short_name

    table = Table("Structure", "Confidence", "Network", "Teacher", "Class prompts")
    for label in HEAD_TO_TAIL:
        if label in found:
            numbers = (
                found[label].confidence,
                found[label].network,
                found[label].teacher,
                found[label].prompts,
            )
            table.add_row(
                short_name(label), *("" if number is None else f"{number:.2f}" for number in numbers)
            )
    Console().print(table)


def _prepare_libraries() -> None:
    """Keep the libraries quiet and away from the network, unless the user fetches weights."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


if __name__ == "__main__":
    main()
