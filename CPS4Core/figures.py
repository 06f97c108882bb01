"""Pictures of slices, labels, attention maps and curves, as PNG bytes.

Slices are arrays (AP, SI); they are shown upright, the head at the top and the front of the body on the left.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from CPS4Core.class_table import BY_LABEL, HEAD_TO_TAIL, NUM_CLASSES

INK, PAPER, MUTED = "#e8e6e3", "#16181c", "#9aa0a6"
ATTENTION_COLORS = "inferno"
PROMPTS_IN_A_ROW = 10
LABEL_COLORS = ListedColormap(
    [(0, 0, 0, 0)]
    + [tuple(channel / 255 for channel in BY_LABEL[label].color) for label in range(1, NUM_CLASSES)]
)


@dataclass(frozen=True)
class PromptPanel:
    """What one prompt attends to in one slice; all arrays (AP, SI)."""

    title: str
    attention: np.ndarray
    """Up(A), 0 to 1."""
    binary: np.ndarray
    """OTSU(Up(A)), bool."""
    truth: np.ndarray | None
    """Where the structure is, bool, if it is known."""


def attention_panel(image: np.ndarray, panels: Sequence[PromptPanel]) -> bytes:
    """Return a figure like the paper's Fig. 5: for each prompt the truth, its attention map and its binary map.

    Args:
        image: the slice, standardised.
        panels: one a prompt; the truth's row is left out where no panel has one.
    """
    kinds = ["truth"] if any(panel.truth is not None for panel in panels) else []
    kinds += ["attention", "binary"]
    groups = [panels[k : k + PROMPTS_IN_A_ROW] for k in range(0, len(panels), PROMPTS_IN_A_ROW)]
    return _rows_of_panels(image, [[(kind, kind, group) for kind in kinds] for group in groups])


def compared_attention(image: np.ndarray, systems: Mapping[str, Sequence[PromptPanel]]) -> bytes:
    """Return the paper's Fig. 5: for each prompt the truth, and below it the attention of each system.

    Args:
        image: the slice, standardised.
        systems: title -> one panel a prompt, the same prompts in all.
    """
    first = next(iter(systems.values()))
    rows = [("truth", "truth", first), *((title, "attention", panels) for title, panels in systems.items())]
    return _rows_of_panels(image, [rows])


def _rows_of_panels(
    image: np.ndarray, groups: Sequence[Sequence[tuple[str, str, Sequence[PromptPanel]]]]
) -> bytes:
    """Return a figure of groups of rows, each with its title, what is drawn of its panels, and these."""
    rows = len(groups[0])
    columns = max(len(panels) for group in groups for *_, panels in group)
    height = image.shape[1] / image.shape[0]
    figure = _figure(1.15 * columns + 0.6, (1.1 * height * rows + 0.4) * len(groups))
    axes = figure.subplots(len(groups) * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, group in enumerate(groups):
        for row, (title, kind, panels) in enumerate(group):
            here = axes[number * rows + row]
            for axis, panel in zip(here, panels, strict=False):
                _show(axis, image)
                _draw_panel(axis, panel, kind)
                if row == 0:
                    axis.set_title(panel.title, color=INK, fontsize=9)
            here[0].text(
                -0.06, 0.5, title, color=MUTED, fontsize=8, rotation=90, va="center", ha="right",
                transform=here[0].transAxes,
            )  # fmt: skip
    return _png(figure)


def overlay(image: np.ndarray, labelled: Mapping[str, np.ndarray]) -> bytes:
    """Return the slice alone and under each of several label maps, with the names of the structures.

    Args:
        image: the slice, standardised.
        labelled: title -> labels (AP, SI).
    """
    height = 3.0 * image.shape[1] / image.shape[0] + 0.4
    figure = _figure(2.4 * (1 + len(labelled)) + 1.2, min(height, 6.5))
    axes = figure.subplots(1, 1 + len(labelled), squeeze=False)[0]
    _show(axes[0], image, "image")
    for axis, (title, labels) in zip(axes[1:], labelled.items(), strict=True):
        _show(axis, image, title)
        axis.imshow(
            labels.T, cmap=LABEL_COLORS, vmin=0, vmax=NUM_CLASSES - 1, alpha=0.55, interpolation="nearest"
        )
        for label in np.unique(labels[(labels > 0) & (labels < NUM_CLASSES)]):
            axis.contour(label == labels.T, levels=[0.5], colors=[LABEL_COLORS(int(label))], linewidths=0.8)
    shown = {int(label) for labels in labelled.values() for label in np.unique(labels)}
    figure.legend(
        handles=[
            Patch(color=LABEL_COLORS(label), label=BY_LABEL[label].short)
            for label in HEAD_TO_TAIL
            if label in shown
        ],
        loc="outside right center",
        frameon=False,
        labelcolor=INK,
        fontsize=8,
    )
    return _png(figure)


def fullest_slice(labels: np.ndarray) -> int:
    """Return the slice of (slices, AP, SI) with most structures; of several, the one where they cover most."""
    return max(range(len(labels)), key=lambda k: (len(np.unique(labels[k])), (labels[k] > 0).sum()))


def curves(lines: Mapping[str, Sequence[tuple[int, float]]], title: str = "") -> bytes:
    """Return a line chart of named (step, value) sequences."""
    figure = _figure(6.4, 3.2)
    axis = figure.subplots()
    axis.set_facecolor(PAPER)
    for name, points in lines.items():
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, label=name.replace("_", " "), linewidth=1.6)
    axis.set_title(title, color=INK, fontsize=10, loc="left")
    axis.set_xlabel("step", color=MUTED, fontsize=8)
    axis.tick_params(colors=MUTED, labelsize=8)
    axis.grid(color=MUTED, alpha=0.15)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.legend(frameon=False, labelcolor=INK, fontsize=8)
    return _png(figure)


def _draw_panel(axis: Axes, panel: PromptPanel, kind: str) -> None:
    if kind == "attention":
        # Attention itself is the opacity, so that the anatomy stays visible where there is none.
        axis.imshow(
            panel.attention.T,
            cmap=ATTENTION_COLORS,
            vmin=0,
            vmax=1,
            alpha=np.clip(panel.attention.T * 1.2, 0.15, 0.85),
        )
        return
    mask = panel.truth if kind == "truth" else panel.binary
    if mask is not None and mask.any():
        axis.imshow(
            np.ma.masked_equal(mask.T, 0),
            cmap=ListedColormap(["#4cc9f0"]),
            alpha=0.6,
            interpolation="nearest",
        )


def _show(axis: Axes, image: np.ndarray, title: str = "") -> None:
    # Fat beside the surface coil outshines the spine: let it saturate.
    low, high = np.percentile(image, [1, 96])
    axis.imshow(image.T, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="bilinear")
    axis.set_title(title, color=INK, fontsize=9)
    axis.axis("off")


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()
