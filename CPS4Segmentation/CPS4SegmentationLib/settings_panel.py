"""The panel Settings: the Python that computes, what it lacks, and the log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from CPS4Core.errors import CPS4Error
from CPS4SegmentationLib.engine import EngineProcess
from CPS4SegmentationLib.logic import CPS4SegmentationLogic, show_error
from CPS4SegmentationLib.panel import Panel, on_path
from CPS4SegmentationLib.remembered import remember, setting


class SettingsPanel(Panel):
    """Checks and chooses the engine, and shows its log."""

    ui_file = "SettingsPanel.ui"

    def __init__(self, widget: Any, logic: CPS4SegmentationLogic):
        super().__init__(widget, logic)
        self._check: EngineProcess | None = None
        self._answer: list[str] = []
        self.ui.pythonEdit.currentPath = setting("EnginePython")
        on_path(self.ui.pythonEdit, self._on_python)
        self.ui.installButton.connect("clicked()", self.install)
        self.ui.checkButton.connect("clicked()", self.check)
        self.ui.copyButton.connect("clicked()", self.copy_log)
        for line in logic.lines:
            self._show_line(line)
        logic.on_line = self._show_line
        self.refresh()

    def install(self) -> None:
        """Install what is missing in Slicer's Python, after asking."""
        try:
            if self.logic.install():
                self.check()
        except CPS4Error as error:
            show_error(error, self.logic.log)
        self.refresh()

    def check(self) -> None:
        """Ask the engine what it has: devices, versions, weights."""
        if self._check is not None and self._check.running:
            return
        self._answer = []
        self.ui.engineLabel.text = _("Looking...")
        self._check = EngineProcess(
            ["doctor", "--json", "--preset", "small"],
            lambda event: None,
            self._answer.append,
            self._on_checked,
        )

    def copy_log(self) -> None:
        """Copy the log to the clipboard."""
        qt.QApplication.clipboard().setText("\n".join(self.logic.lines))

    def close(self) -> None:
        """The module is unloaded."""
        self.logic.on_line = lambda line: None
        if self._check is not None:
            self._check.stop(0)

    def refresh(self) -> None:
        """Offer the installation only where Slicer's own Python computes and lacks something."""
        self.ui.installButton.enabled = self.logic.lacks_packages()

    def _on_checked(self, code: int) -> None:
        try:
            found = json.loads("\n".join(self._answer[next(self._start_of_json()) :]))
        except (ValueError, StopIteration):
            for line in self._answer:
                self.logic.log(line)
            self.ui.engineLabel.text = _("The engine does not run with this Python. {remedy}").format(
                remedy=_("Install cps4 there with pip; the log has the details.")
                if setting("EnginePython")
                else _("Press Install what is missing; the log has the details.")
            )
            return
        self.ui.engineLabel.text = describe(found)

    def _start_of_json(self) -> Any:
        return (number for number, line in enumerate(self._answer) if line.startswith("{"))

    def _on_python(self, path: str) -> None:
        """Take a Python of the user's own, if it is one; empty takes Slicer's again."""
        if path and not (Path(path).is_file() or shutil.which(path)):
            self.ui.engineLabel.text = _("There is no such program: {path}").format(path=path)
            return
        remember("EnginePython", path)
        self.logic.worker.close()
        self.refresh()
        self.check()

    def _show_line(self, line: str) -> None:
        self.ui.logEdit.appendPlainText(line)


def describe(found: dict[str, Any]) -> str:
    """Return what the doctor found in a few words."""
    devices = ", ".join(f"{device['name']} ({device['what']})" for device in found["devices"])
    missing = [name for name, version in found["versions"].items() if version == "missing"]
    lines = [
        _("Ready: {system}, torch {torch}.").format(
            system=found["system"], torch=found["versions"].get("torch", "?")
        )
        if not missing
        else _("Missing: {names}.").format(names=", ".join(missing)),
        _("Computes on: {devices}.").format(devices=devices),
    ]
    return "\n".join(lines)
