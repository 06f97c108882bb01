"""The modules `slicer`, `qt` and `ctk` as a scripted module imports them.

`slicer.util` is Slicer's own file, which comes with slicer-core; the MRML and logic classes are slicer-core's. All
three modules answer only to names that `names/` lists: slicer-core puts more into `slicer` than Slicer does.
"""

import atexit
import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer.util as slicer_util
import slicer_core
from PySide6 import QtCore, QtWidgets

from . import application, ctk_widgets, i18n, pythonqt, qmrml_widgets, views
from .dicom import DICOMDatabase
from .names_lists import names_of
from .ui_loader import QUiLoader
from .version import behave_as, is_current

WIDGETS = qmrml_widgets.WIDGETS | views.WIDGETS
SUBMODULES = {
    "ScriptedLoadableModule": "scripted_loadable_module",
    "parameterNodeWrapper": "parameter_node",
    "packaging": "packaging",
}
DICOM_PLUGINS = Path(__file__).parent / "dicom_plugins"
"""On the path in Slicer 5.12; before, the extension QuantitativeReporting brings them."""


class StrictModule(types.ModuleType):
    """A module whose unknown names get an answer that helps."""

    def __init__(
        self, name: str, explain: Callable[[str], str], find: Callable[[str], Any] = lambda name: None
    ):
        super().__init__(name)
        self._explain, self._find = explain, find

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if (value := self._find(name)) is not None:
            setattr(self, name, value)
            return value
        raise AttributeError(self._explain(name))


def make_qt() -> StrictModule:
    def find(name: str) -> Any:
        if name == "QUiLoader":
            return QUiLoader
        if name not in names_of("qt"):
            return None
        return next((getattr(m, name) for m in pythonqt.QT_MODULES if hasattr(m, name)), None)

    def explain(name: str) -> str:
        known = name in names_of("qt")
        return f"qt.{name} is in Slicer's Qt 5, but not in PySide6" if known else f"PythonQt has no qt.{name}"

    return StrictModule("qt", explain, find)


def make_ctk() -> StrictModule:
    def explain(name: str) -> str:
        known = name in names_of("ctk")
        return f"the harness has no stand-in for ctk.{name}" if known else f"CTK has no {name}"

    return StrictModule("ctk", explain, ctk_widgets.WIDGETS.get)


def make_slicer() -> StrictModule:
    def find(name: str) -> Any:
        if name in SUBMODULES:
            return sys.modules.get(f"slicer.{name}")
        if name in application.CLASSES or name in WIDGETS:
            return application.CLASSES.get(name) or WIDGETS[name]
        is_vtk_class = name in names_of("slicer") or name.startswith("vtkAddon")
        return getattr(slicer_core, name, None) if is_vtk_class and name.startswith("vtk") else None

    def explain(name: str) -> str:
        known = name in names_of("slicer")
        return (
            f"the harness has no stand-in for slicer.{name}" if known else f"Slicer 5.10 has no slicer.{name}"
        )

    module = StrictModule("slicer", explain, find)
    module.__path__ = []
    module.util, module.i18n = slicer_util, i18n
    module.modules = StrictModule("slicer.modules", lambda name: f"no module '{name}' is loaded")
    module.moduleNames = StrictModule("slicer.moduleNames", lambda name: f"no module '{name}' is loaded")
    return module


class Installation:
    """The application of this process, and the three modules in which it lives.

    As in Slicer there is one, with one scene: a second in the same process would meet displayable managers that
    still know the first. `enter` makes it as new and puts the modules into sys.modules, `leave` takes them out.
    """

    _only: "Installation | None" = None

    @classmethod
    def get(cls) -> "Installation":
        cls._only = cls._only or cls()
        return cls._only

    def __init__(self) -> None:
        pythonqt.adopt()
        QUiLoader.custom_widgets = {
            name: cls
            for name, cls in (ctk_widgets.WIDGETS | WIDGETS).items()
            if issubclass(cls, QtWidgets.QWidget)
        }
        self.slicer = make_slicer()
        self._modules = {
            "slicer": self.slicer,
            "slicer.util": slicer_util,
            "slicer.i18n": i18n,
            "slicer.modules": self.slicer.modules,
            "slicer.moduleNames": self.slicer.moduleNames,
            "qt": make_qt(),
            "ctk": make_ctk(),
        }
        self._put_in()
        for public, own in SUBMODULES.items():
            self._modules[f"slicer.{public}"] = importlib.import_module(f"{__package__}.{own}")
        self.packaging, self._pip_install = self._modules["slicer.packaging"], slicer_util.pip_install
        self.app = application.qSlicerApplication(self.slicer)
        self.slicer.app, self.slicer.mrmlScene = self.app, self.app.mrmlScene()
        self.app._add_builtin_modules()
        self._take_out()
        atexit.register(self.app._shut_down)

    def enter(self, folder: Path, version: str) -> None:
        behave_as(version)
        QtCore.QCoreApplication.setOrganizationName("NA-MIC")
        QtCore.QCoreApplication.setApplicationName("Slicer")
        QtCore.QCoreApplication.setApplicationVersion(f"{version}.0")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
        QtCore.QSettings.setPath(
            QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, str(folder / "settings")
        )
        self._put_in()
        vars(self.slicer).pop("selfTests", None)
        self.packaging.requested, self.packaging.constrained, self.packaging.on_install = [], "", None
        self.slicer.dicomDatabase = DICOMDatabase()
        if is_current():
            sys.path.insert(0, str(DICOM_PLUGINS))
        else:
            self._take_out_packaging()
        self.app._start_afresh(folder)

    def leave(self) -> None:
        self.app._close_modules()
        self._modules["slicer.parameterNodeWrapper"].forget_left_behind()
        self.app._clear_scene()
        pythonqt.forget_connections()
        if str(DICOM_PLUGINS) in sys.path:
            sys.path.remove(str(DICOM_PLUGINS))
        sys.modules.pop("DICOMSegmentationPlugin", None)
        self._modules["slicer.packaging"] = self.packaging
        slicer_util.pip_install = self._pip_install
        self._take_out()

    def _take_out_packaging(self) -> None:
        """Slicer 5.10 has `slicer.util.pip_install` alone."""
        del self._modules["slicer.packaging"], sys.modules["slicer.packaging"]
        vars(self.slicer).pop("packaging", None)
        slicer_util.pip_install = self.packaging.run_pip

    def _put_in(self) -> None:
        self._before = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_slicer(name)}
        sys.modules |= self._modules

    def _take_out(self) -> None:
        for name in [name for name in sys.modules if _is_slicer(name) or name in ("qt", "ctk")]:
            del sys.modules[name]
        sys.modules |= self._before


def _is_slicer(name: str) -> bool:
    return name == "slicer" or name.startswith("slicer.")
