"""Each panel, in the light and in the dark style, wide and narrow: every text can be read, nothing is cut off."""

import numpy as np
import pytest
from PySide6 import QtWidgets
from PySide6.QtGui import QImage

PANELS = ("segment", "attention", "review", "train", "settings")
NARROW = 300
"""Width of the module in pixels that Slicer's window may leave on a small screen."""
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


def test_a_colour_of_its_own_would_be_found(module):
    label = module.panel("segment").ui.cardLabel
    assert contrast(label) >= READABLE
    module.harness.use_dark_style()
    label.setStyleSheet("color: #303030")
    module.harness.process_events()
    assert contrast(label) < READABLE


def missing_pixels(widget):
    """How many pixels a label or a button lacks in width or height to show its whole text; none if at most zero."""
    if isinstance(widget, QtWidgets.QLabel) and widget.wordWrap:
        widest = max(widget.fontMetrics().horizontalAdvance(word) for word in widget.text.split())
        return max(widest - widget.width, widget.heightForWidth(widget.width) - widget.height)
    if type(widget).__name__ == "ctkCollapsibleButton":
        arrow_and_margins = 28
        return widget.fontMetrics().horizontalAdvance(widget.text) + arrow_and_margins - widget.width
    needed = widget.minimumSizeHint
    return max(needed.width() - widget.width, needed.height() - widget.height)


def cut_off(panel):
    """The labels and buttons of a panel, enabled or not, that cannot show their whole text."""
    widgets = [
        widget
        for kind in (QtWidgets.QLabel, QtWidgets.QAbstractButton)
        for widget in panel.widget.findChildren(kind)
        if widget.isVisible() and widget.text
    ]
    assert widgets
    return [widget.objectName for widget in widgets if missing_pixels(widget) > 0]


def test_nothing_is_cut_off_in_a_narrow_panel(used):
    used.widget.parent.setFixedWidth(NARROW)
    segment = used.panel("segment")
    segment.ui.folderButton.collapsed = False
    segment._table.add_failed("patient 1/T2 sagittal.nii.gz", "The file is truncated.", "Copy it again.")
    used.harness.process_events()
    assert segment.ui.batchTable.isVisible()
    assert not segment.ui.batchTable.horizontalScrollBar().isVisible()
    segment.refresh()
    for name in PANELS:
        panel = used.panel(name)
        used.harness.process_events()
        too_wide = panel.widget.minimumSizeHint.width() - panel.widget.width
        assert too_wide <= 0, f"{name} is {too_wide} pixels too wide"
        assert not cut_off(panel), name
    table = used.panel("review").ui.structureTable
    used.harness.process_events()
    assert not table.horizontalScrollBar().isVisible()
    flags, margins = 3, 8  # what to look at: its words stand below each other, and each must fit
    bar = table.verticalScrollBar()
    available = table.columnWidth(flags) - margins - (0 if bar.isVisible() else bar.sizeHint.width())
    for word in {word for text in used.widget.review._words.values() for word in text.split()}:
        assert table.fontMetrics().horizontalAdvance(f"{word},") <= available, word


def test_what_is_cut_off_would_be_found(module):
    panel = module.panel("segment")
    module.harness.process_events()
    assert not cut_off(panel)
    panel.ui.segmentButton.setFixedWidth(20)
    panel.ui.cardLabel.setFixedHeight(10)
    module.harness.process_events()
    assert cut_off(panel) == ["cardLabel", "segmentButton"]
