"""The demo's report: what was done, what came out, and what it does not show."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch

from CPS4Core.card import Card
from CPS4Core.class_table import BONES, DISCS, HEAD_TO_TAIL, short_name
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.data.labels import read_labels
from CPS4Core.data.volumes import case_name, read_image, read_scan, read_volume
from CPS4Core.demo.journey import Journey
from CPS4Core.demo.real_sample import RealResult
from CPS4Core.demo.report import Report
from CPS4Core.figures import curves, fullest_slice, overlay
from CPS4Core.files import written_aside
from CPS4Core.inference.attention import AttentionMapper
from CPS4Core.inference.attention_figure import draw_panel
from CPS4Core.model_folder import ModelFolder
from CPS4Core.training.run_folder import read_curves

LOWEST_LEVEL = 2
"""Of the real sample, taken for L4: its masks do not say."""
LOSSES = {
    "total": "total",
    "token": "token (eq. 1)",
    "pixel": "pixel (eq. 2)",
    "sup": "supervised (eq. 5)",
    "semi_text": "text (eq. 6)",
    "semi_enhance": "enhanced (eq. 7)",
}


def write_story(journey: Journey) -> Path:
    """Write ``report.html`` of a finished journey and return its path; its pictures stay beside it as PNG files.

    Raises:
        CPS4Error: if the folder cannot be written.
    """
    report = _Page(
        "CPS4: from a few labelled spine MRs to named vertebrae and discs", journey.folder / "pictures"
    )
    _facts(report, journey)
    if journey.at_once:
        _at_once(report, journey)
    report.notice(
        "From here on the scans are phantoms, not patients: a seeded generator of T2-like spine MR. What they show is "
        "that every part works, and how the systems compare on them. They say nothing about clinical accuracy."
    )
    _data(report, journey)
    _stage_1(report, journey)
    _stage_2(report, journey)
    _test(report, journey)
    if journey.real is not None:
        _real(report, journey, journey.real)
    _next(report)
    page = journey.folder / "report.html"
    report.write(page)
    return page


class _Page(Report):
    """A report that also keeps its pictures as files, for a README or a talk."""

    def __init__(self, title: str, pictures: Path):
        super().__init__(title)
        self.pictures = pictures

    def picture(self, name: str, png: bytes, caption: str) -> None:
        with written_aside(self.pictures / f"{name}.png") as temporary:
            temporary.write_bytes(png)
        self.figure(png, caption)


def _facts(report: Report, journey: Journey) -> None:
    card = Card.read(journey.encoders)
    counts = card.data
    minutes = sum(journey.seconds.values()) / 60
    report.facts(
        {
            "Machine": f"{platform.machine()}, {torch.get_num_threads()} CPU threads, computing on {journey.device}",
            "Time": f"{minutes:.1f} minutes in this call ("
            + ", ".join(f"{part} {seconds:.0f} s" for part, seconds in journey.seconds.items())
            + ")",
            "Patients": f"{counts['labelled_cases']} labelled to learn from, {counts['validation_cases']} labelled to "
            f"validate, {counts['unlabelled_cases']} unlabelled or with their labels hidden",
            "Software": ", ".join(f"{name} {version}" for name, version in card.versions.items()),
        }
    )


def _at_once(report: _Page, journey: Journey) -> None:
    report.section(
        "Real scans, at once",
        "What the model that comes with CPS4 makes of real scans, without any training. Its card says what it learnt "
        "from and how it was tested; it is no medical device.",
    )
    for number, real in enumerate(journey.at_once, start=1):
        image = read_scan(real.scan)
        grid = SliceGrid.of(image, journey.settings.input, whole=True)
        slices = grid.crop(grid.to_slices(image))
        labels = grid.crop(grid.labels_to_slices(read_labels(real.segmentation, like=image)))
        k = fullest_slice(labels)
        names = [short_name(label) for label in HEAD_TO_TAIL if (labels == label).any()]
        found = f"Found: {', '.join(names)}." if names else "Nothing was found."
        report.picture(
            f"at-once{number}",
            overlay(slices[k], {"CPS4 base": labels[k]}),
            " ".join([f"{case_name(real.scan)}, one slice.", found, *real.doubts]),
        )


def _data(report: _Page, journey: Journey) -> None:
    report.section(
        "The scans",
        "Each volume is stored in another orientation, spacing and field of view. cps4 prepare brought them into one "
        "layout; here are test scans in canonical view with their true labels.",
    )
    for number, case in enumerate(_tests(journey)[:2], start=1):
        slices, truth = _canonical(journey, *case)
        k = fullest_slice(truth)
        report.picture(
            f"scan{number}", overlay(slices[k], {"truth": truth[k]}), f"{case_name(case[0])}, one slice."
        )


def _stage_1(report: _Page, journey: Journey) -> None:
    report.section(
        "Stage 1: what each class prompt attends to",
        "A vision transformer and a text encoder learn one space, in which the prompt of each class, such as “A "
        "magnetic resonance image of a Lumbar Vertebra 4.”, is close to the patches that show the structure.",
    )
    found = read_curves(journey.stage_1)
    lines = {title: found[name] for name, title in LOSSES.items() if name in found}
    lines["validation"] = found["validation_total"]
    report.picture("stage1", curves(lines, "Stage 1 loss"), "Loss of stage 1 over its steps.")
    image, labels = _tests(journey)[0]
    volume_image = read_image(image)
    mapper = AttentionMapper(ModelFolder.open(journey.encoders), journey.device)
    volume = mapper.encode(volume_image)
    truth = volume.grid.labels_to_slices(read_labels(labels, like=volume_image))
    present = set(np.unique(truth[fullest_slice(truth)]).tolist())
    prompts = [short_name(label) for label in HEAD_TO_TAIL if label in present]
    report.picture(
        "attention",
        draw_panel(mapper, volume, prompts, truth),
        "For each class prompt: the structure, the attention map A, and the binary map OTSU(Up(A)) (eq. 3).",
    )
    similarity = mapper.model.prompt_similarity().fill_diagonal_(-1).max()
    report.text(
        f"The two most similar class prompts have a cosine of {float(similarity):.2f} in the joint space."
    )


def _stage_2(report: _Page, journey: Journey) -> None:
    report.section(
        "Stage 2: learning from unlabelled scans",
        "A student network learns from the labelled slices, and on the others from its own moving average, the "
        "teacher. In CPS4 the binary maps of stage 1 improve what the teacher says, where they agreed well enough "
        f"with the labels of the validation scans: here those of {_trusted(journey)}.",
    )
    scores = {}
    for system, model in journey.models.items():
        found = read_curves(model.parent)
        scores[system] = found["validation_mdice"]
        lines = {title: found[name] for name, title in LOSSES.items() if name in found}
        report.picture(
            f"losses-{system.replace(' ', '-')}", curves(lines, f"{system}: losses"), f"Losses of {system}."
        )
    report.picture("validation", curves(scores, "Validation mDice"), "Mean Dice over the validation scans.")


def _trusted(journey: Journey) -> str:
    """Return the structures whose text maps counted, in words."""
    trust = Card.read(journey.models["CPS4"]).text_trust
    names = [short_name(k) for k in HEAD_TO_TAIL if trust[short_name(k)] > 0]
    return ", ".join(names) if names else "no structure, so that the teacher decided alone"


def _test(report: _Page, journey: Journey) -> None:
    report.section(
        "On test scans",
        "Segmented at their own resolution and orientation. Level accuracy is the share of structures whose best "
        "overlapping segment carries the right name: an L3 called L4 counts as wrong however well it is outlined.",
    )
    means = {system: results.summary() for system, results in journey.results.items()}
    columns = {
        "mdice": ("mDice", 3),
        "miou": ("mIoU", 3),
        "hd95_mm": ("HD95, mm", 1),
        "assd_mm": ("surface distance, mm", 2),
        "level_accuracy": ("level accuracy", 3),
    }
    table = {
        title: [_number(scores[name], digits) for scores in means.values()]
        for name, (title, digits) in columns.items()
    }
    report.table(pd.DataFrame(table, index=list(means)), f"Means over {len(_tests(journey))} test scans.")
    dice = {system: results.by_class().dice_mean for system, results in journey.results.items()}
    report.table(
        pd.DataFrame(dice).map(lambda value: _number(value, 3)).T.rename_axis(None), "Dice of each structure."
    )
    for number, (image, labels) in enumerate(_tests(journey)[:2], start=1):
        slices, truth = _canonical(journey, image, labels)
        k = fullest_slice(truth)
        shown = {"truth": truth[k]}
        for system in journey.models:
            path = journey.segmented(system) / image.name
            shown[system] = _canonical(journey, image, path)[1][k]
        report.picture(f"test{number}", overlay(slices[k], shown), f"{case_name(image)}: the same slice.")


def _real(report: _Page, journey: Journey, real: RealResult) -> None:
    report.section(
        "A real spine MR",
        "The T2-weighted sample of the TPTBox package (Apache-2.0): a crop of three lumbar vertebrae, 1.5 mm. CPS4 "
        "base is the model that comes with CPS4; the others have seen phantoms only. The masks that come with it "
        "number the structures in order, without saying which level they are.",
    )
    rows = {
        system: {
            name: _number(value, 3) if isinstance(value, float) else value for name, value in scores.items()
        }
        for system, scores in real.scores.items()
    }
    report.table(pd.DataFrame(rows).T, "Against the masks: all vertebrae, all discs, and the names given.")
    image = read_image(real.sample.image)
    grid = SliceGrid.of(image, journey.settings.input, whole=True)
    slices = grid.crop(grid.to_slices(image))
    masks = grid.crop(grid.labels_to_slices(_as_classes(read_volume(real.sample.masks))))
    k = fullest_slice(masks)
    shown = {"masks (levels assumed)": masks[k]}
    for system, path in real.segmentations.items():
        shown[system] = grid.crop(grid.labels_to_slices(read_labels(path, like=image)))[k]
    report.picture("real", overlay(slices[k], shown), "The real scan, its masks, and what each system says.")


def _next(report: Report) -> None:
    report.section(
        "What to do next",
        "Use your own scans: cps4 prepare, then cps4 pretrain, cps4 train and cps4 segment with --preset paper on a "
        "machine with a GPU and the pretrained encoders (cps4 doctor says which are missing). The small encoders of "
        "this demo start from random weights and see a handful of patients: their maps are far coarser than those of "
        "pretrained ones.",
    )


def _tests(journey: Journey) -> list[tuple[Path, Path]]:
    """Return (image, labels) of each test scan."""
    folder = journey.folder / "scans" / "test"
    return [(path, folder / "labels" / path.name) for path in sorted((folder / "images").iterdir())]


def _canonical(journey: Journey, image_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return slices and labels of a scan in canonical view, each (slices, AP, SI)."""
    image = read_image(image_path)
    grid = SliceGrid.of(image, journey.settings.input, whole=True)
    labels = grid.labels_to_slices(read_labels(labels_path, like=image))
    return grid.crop(grid.to_slices(image)), grid.crop(labels)


def _as_classes(masks: sitk.Image) -> sitk.Image:
    """Return instance masks as class labels, as if the lowest vertebra were L4."""
    array = sitk.GetArrayFromImage(masks).astype(int)
    labels = np.zeros(array.shape, np.uint8)
    for values, structures in ((range(1, 100), BONES), (range(100, 200), DISCS)):
        found = [value for value in np.unique(array) if value in values]
        for value, structure in zip(reversed(found), structures[LOWEST_LEVEL:], strict=False):
            labels[array == value] = structure.label
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(masks)
    return image


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"
