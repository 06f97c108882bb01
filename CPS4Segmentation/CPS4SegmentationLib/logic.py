"""What the panels share: the worker, the private folder, the model in use and the log."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from CPS4Core.card import Card
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Failed
from CPS4Core.shipped_model import base_model
from CPS4SegmentationLib.installation import install_missing, missing_packages
from CPS4SegmentationLib.parameters import Parameters
from CPS4SegmentationLib.remembered import setting
from CPS4SegmentationLib.volumes import VolumeFiles
from CPS4SegmentationLib.worker_client import WorkerClient

MOST_LINES = 2000
"""Lines of the log that are kept."""


class CPS4SegmentationLogic(ScriptedLoadableModuleLogic):
    """Starts the engine, hands it volumes, and keeps what it says. Needs no widget."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.folder = Path(tempfile.mkdtemp(prefix="cps4-", dir=slicer.app.temporaryPath))
        self.worker = WorkerClient(self.log)
        self.volumes = VolumeFiles(self.folder)
        self.lines: list[str] = []
        self.base_model = base_model()
        """The model that comes with CPS4; None if it is not here."""
        self._lacks_packages: bool | None = None
        self.on_line: Callable[[str], None] = lambda line: None

    def getParameterNode(self) -> Parameters:
        """Return the parameters of the scene."""
        return Parameters(ScriptedLoadableModuleLogic.getParameterNode(self))

    @property
    def model(self) -> Path | None:
        """The model folder in use: the chosen one, else the one that comes with CPS4; None without either."""
        chosen = setting("ModelFolder")
        return Path(chosen) if chosen else self.base_model

    @property
    def device(self) -> str:
        """Where to compute: ``auto``, ``cuda``, ``mps`` or ``cpu``."""
        return setting("Device") or "auto"

    def checked_model(self, needed: str, otherwise: str) -> Path:
        """Return the model folder in use if it has the part that is needed.

        Args:
            needed: part of a model, ``NETWORK`` or ``ENCODERS``.
            otherwise: what is wrong if it has not.

        Raises:
            CPS4Error: if there is no model, or it has not the part.
        """
        if self.model is None:
            raise CPS4Error(
                _("There is no model."), _("Choose a model folder under Segment, or train one under Train.")
            )
        if needed not in Card.read(self.model).weights:
            raise CPS4Error(otherwise, _("Choose a model of stage 2 that was trained with CPS4."), self.model)
        return self.model

    def lacks_packages(self) -> bool:
        """Whether Slicer's own Python computes and lacks packages; looked up once, and after an installation."""
        if setting("EnginePython"):
            return False
        if self._lacks_packages is None:
            self._lacks_packages = bool(missing_packages())
        return self._lacks_packages

    def install(self) -> bool:
        """Ask, then install what Slicer's own Python lacks; False if the user does not want it.

        Raises:
            CPS4Error: if the installation fails or runs already, or there is nothing to install.
        """
        try:
            return install_missing(self.log)
        finally:
            self._lacks_packages = None

    def ensure_engine(self) -> None:
        """On first use, offer to install what the engine lacks. A Python of the user's own is left alone.

        Raises:
            CPS4Error: if packages are missing and stay so.
        """
        if self.lacks_packages() and not self.install():
            raise CPS4Error(
                _("CPS4 cannot compute without its packages."),
                _("Press the button again to install them, or choose a Python of your own under Settings."),
            )

    def new_folder(self, name: str) -> Path:
        """Return a new empty folder inside the private one."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def log(self, line: str) -> None:
        """Keep a line for the log panel."""
        self.lines.append(f"{datetime.now():%H:%M:%S}  {line}")
        del self.lines[:-MOST_LINES]
        self.on_line(self.lines[-1])

    def close(self) -> None:
        """End the worker and remove the private folder."""
        self.worker.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def in_words(event: Failed | CPS4Error) -> str:
    """Return an error as the user reads it: the file, what is wrong, and the next step."""
    words = f"{event.problem} {event.remedy}"
    path = Path(event.path) if event.path else None
    # The copy of a volume that the engine reads would tell the user nothing.
    if path is None or Path(slicer.app.temporaryPath) in path.parents or path.name in words:
        return words
    return f"{path.name}: {words}"


def show_error(error: Failed | CPS4Error, log: Callable[[str], None]) -> None:
    """Show an error in words; the file that it concerns goes to the log."""
    log(f"{in_words(error)}" + (f" [{error.path}]" if error.path else ""))
    slicer.util.errorDisplay(in_words(error), windowTitle=_("CPS4"))
