"""Each panel, in the light and in the dark style, wide and narrow: every text can be read, nothing is cut off."""

import numpy as np
import pytest
from PySide6 import QtWidgets
from PySide6.QtGui import QImage

PANELS = ("segment", "attention", "review", "train", "settings")
NARROW = 330
"""Width of a module panel in pixels that Slicer's window may leave on a small screen."""
READABLE = 4.5
"""Least contrast of text by the guidelines for accessible content (WCAG 2, AA)."""


def luminance(colours):
    """Return the relative luminance of colours 0 to 255, last axis RGB."""
    linear = np.where(
        colours / 255 <= 0.04045, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4
    )
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def contrast(widget):
    """Return the contrast between the lightest and the darkest pixel of a widget as it is drawn."""
    image = widget.grab().toImage().convertToFormat(QImage.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    light = luminance(rows[:, : 3 * image.width()].reshape(-1, 3).astype(float))
    return (light.max() + 0.05) / (light.min() + 0.05)


def shown(panel, kind):
    widgets = [
        widget for widget in panel.widget.findChildren(kind) if widget.isVisible() and widget.isEnabled()
    ]
    return [widget for widget in widgets if widget.text]


@pytest.fixture
def used(module):
    """The module after a segmentation and an attention map."""
    module.choose_model()
    module.load()
    module.segment()
    attention = module.panel("attention")
    attention.ui.promptEdit.text = "L4"
    attention.ui.promptButton.click()
    module.wait(lambda: attention.ui.makeSegmentButton.enabled)
    train = module.panel("train")
    train.ui.dataEdit.currentPath = str(module.trained / "data")
    module.wait(lambda: "labelled" in train.ui.dataLabel.text)
    return module


def test_every_text_can_be_read_in_both_styles(used):
    for style in ("light", "dark"):
        if style == "dark":
            used.harness.use_dark_style()
        for name in PANELS:
            panel = used.panel(name)
            texts = [*shown(panel, QtWidgets.QLabel), *shown(panel, QtWidgets.QAbstractButton)]
            assert texts
            for widget in texts:
                assert contrast(widget) >= READABLE, f"{style} {name}: {widget.objectName()}"


def test_a_colour_of_its_own_would_be_found(used):
    label = used.panel("segment").ui.cardLabel
    assert contrast(label) >= READABLE
    used.harness.use_dark_style()
    label.setStyleSheet("color: #303030")
    used.harness.process_events()
    assert contrast(label) < READABLE


def test_nothing_is_cut_off_in_a_narrow_panel(used):
    window = used.widget.parent
    window.setFixedWidth(NARROW)
    for name in PANELS:
        panel = used.panel(name)
        used.harness.process_events()
        for button in shown(panel, QtWidgets.QAbstractButton):
            needed = button.fontMetrics().horizontalAdvance(button.text)
            assert button.width >= needed, f"{name}: {button.objectName()}"
    table = used.panel("review").ui.structureTable
    used.harness.process_events()
    what_to_look_at = 4
    assert table.columnWidth(what_to_look_at) >= 60
    assert not table.horizontalScrollBar().isVisible()
