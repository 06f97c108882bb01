"""What every panel has: its widget, the logic, the scene's parameters, and a line that says what happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from CPS4SegmentationLib.logic import CPS4SegmentationLogic
from CPS4SegmentationLib.parameters import Parameters


class Panel:
    """One tab of the module.

    Args:
        widget: the panel as its ``.ui`` file describes it.
        logic: shared by all panels.
    """

    ui_file = ""

    def __init__(self, widget: Any, logic: CPS4SegmentationLogic):
        self.widget = widget
        self.ui = slicer.util.childWidgetVariables(widget)
        self.logic = logic
        self.parameters: Parameters | None = None
        self._gui_tag: int | None = None
        self.changed: Callable[[], None] = lambda: None
        """Called when the volume, the model or the segmentation changed, so that other panels can follow."""

    @property
    def scene(self) -> Parameters:
        """The scene's parameters, for what can happen only while there is a scene."""
        assert self.parameters is not None
        return self.parameters

    def use_scene(self, parameters: Parameters) -> None:
        """Take the parameters of the scene, and keep them and the widgets equal."""
        self.disconnect()
        self.parameters = parameters
        self._gui_tag = parameters.connectGui(self.ui)
        self.refresh()

    def disconnect(self) -> None:
        """Let the widgets and the scene's parameters go apart; what runs goes on."""
        if self._gui_tag is not None:
            self.scene.disconnectGui(self._gui_tag)
            self._gui_tag = None

    def forget_scene(self) -> None:
        """Let go of the scene's parameters, and end what runs on the scene's nodes."""
        self.disconnect()
        self.parameters = None

    def refresh(self) -> None:
        """Enable what can be done now; called whenever something that panels share has changed."""

    def leave(self) -> None:
        """The user goes to another tab or module: put tools away that are in hand."""

    def close(self) -> None:
        """The module is unloaded: stop what runs."""

    def say(self, text: str) -> None:
        """Show one line on what happens."""
        self.ui.statusLabel.text = text


def on_path(edit: Any, take: Callable[[str], None]) -> None:
    """Call ``take`` with the path of a ``ctkPathLineEdit`` whenever it changes, also with none.

    ``currentPathChanged`` says nothing of a field that was emptied.
    """
    edit.connect("currentPathChanged(QString)", take)
    edit.connect("validInputChanged(bool)", lambda valid: None if valid else take(edit.currentPath))


def fit_to_contents(table: Any, stretched: int) -> None:
    """Size rows and columns of a table by what they hold; the column ``stretched`` takes the rest of the width."""
    table.verticalHeader().visible = False
    table.verticalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    table.horizontalHeader().setSectionResizeMode(stretched, qt.QHeaderView.Stretch)
