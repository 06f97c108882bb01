"""The entry point: an application in which scripted modules are opened, clicked and photographed."""

import gc
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import psutil
import vtk
from PySide6 import QtCore, QtGui, QtTest, QtWidgets

from .dark_style import dark_palette
from .dialogs import Dialogs
from .dicom import load_study
from .launcher import make_launcher
from .slicer_module import Installation
from .version import CURRENT
from .views import ctkVTKAbstractView, grab

FONT_FAMILIES = ("DejaVu Sans", "Noto Sans", "Liberation Sans", "Arial", "Helvetica")


class SlicerHarness:
    """Use as a context manager, or through the fixture `slicer_harness`.

    Args:
        folder: for temporary files and settings.
        version: of the Slicer to behave as, one of `version.VERSIONS`.

    Attributes:
        slicer: the module `slicer`, as the module under test imports it.
        dialogs: the messages shown, and the answers to questions and file dialogs.
        vtk_errors: what VTK and MRML wrote as errors.
        leaks: after `close`, what the module left behind: observers, processes, widgets; empty if all is well.
    """

    def __init__(self, folder: Path, version: str = CURRENT):
        self.qt_application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
        self._palette = self.qt_application.palette()
        self.folder = Path(folder)
        self.dialogs = Dialogs()
        self.vtk_errors: list[str] = []
        self.leaks: list[str] = []
        self._modules: list[Any] = []
        self._paths: list[str] = []
        self._processes = _children()
        self._path_variable = os.environ["PATH"]
        vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
        self._installation = Installation.get()
        self._catch_vtk_errors()
        self._installation.enter(self.folder, version)
        self.vtk_errors.clear()  # of the terminologies logic, which misses Slicer's own terminologies
        self._undo_dialogs = self.dialogs.install()
        self.slicer = self._installation.slicer
        self._use_a_font()

    def __enter__(self) -> "SlicerHarness":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def load_module(self, path: Path | str, at_start: bool = True) -> Any:
        """Loads a scripted module's file as Slicer does at its start, or, as the extension wizard does, later; returns
        `slicer.modules.<name>`."""
        path = Path(path)
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
            self._paths.append(str(path.parent))
        module = self._installation.app._load_module(path)
        self._modules.append(module.name)
        if at_start:
            self._installation.app.startupCompleted.emit()
        return module

    def open_module(self, path: Path | str, at_start: bool = True) -> Any:
        """Loads a scripted module and shows its panel; returns the Python widget class."""
        module = self.load_module(path, at_start)
        self.main_window.show()
        self.slicer.util.selectModule(module.name)
        self.process_events()
        return module.widgetRepresentation().self()

    @property
    def main_window(self) -> QtWidgets.QMainWindow:
        return self._installation.app._window

    @property
    def packaging(self) -> Any:
        """What was asked of pip, and what an installation does: `slicer.packaging`, which Slicer 5.10 lacks."""
        return self._installation.packaging

    @property
    def recent_files(self) -> list[str]:
        """File > Recent."""
        return list(self._installation.app._recent_files)

    def install_launcher(self) -> Path:
        """Puts `PythonSlicer` on the PATH; returns the folder of packages that it puts before all others."""
        packages = self.folder / "lib" / "Python" / "site-packages"
        packages.mkdir(parents=True)
        program = make_launcher(self.folder / "bin", packages)
        os.environ["PATH"] = os.pathsep.join([str(program.parent), self._path_variable])
        return packages

    def process_events(self) -> None:
        self.qt_application.processEvents()

    def wait_until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Runs the event loop until the condition holds; AssertionError when it doesn't in time."""
        timer = QtCore.QElapsedTimer()
        timer.start()
        while not condition():
            if timer.elapsed() > seconds * 1000:
                raise AssertionError(f"not within {seconds} s: {getattr(condition, '__name__', condition)}")
            self.qt_application.processEvents(QtCore.QEventLoop.AllEvents, 20)

    def load_dicom(self, folder: Path | str) -> list[Any]:
        """Imports a study into the DICOM database and loads it: a volume a series."""
        volumes = load_study(self.slicer, Path(folder))
        self.process_events()
        return volumes

    def close_scene(self) -> None:
        """File > Close scene."""
        self.slicer.mrmlScene.Clear(False)
        self.process_events()

    def reopen_scene(self, path: Path | str) -> None:
        """Saves the scene (.mrb or .mrml), closes it and opens it again."""
        assert self.slicer.util.saveScene(str(path))
        self.close_scene()
        self.slicer.util.loadScene(str(path))
        self.process_events()

    def use_dark_style(self) -> None:
        """Edit > Application settings > Appearance > Dark Slicer."""
        self.qt_application.setPalette(dark_palette())
        self.process_events()

    def photograph(
        self, widget: QtWidgets.QWidget, path: Path | str, width: int = 0, height: int = 0
    ) -> Path:
        """Writes a widget as PNG, with the views in it. With a width alone, it is as high as its contents."""
        widget.show()
        if width:
            widget.setFixedWidth(width)
            self.process_events()
            needed = max(widget.sizeHint.height(), widget.layout().heightForWidth(width))
            widget.setFixedHeight(height or needed)
        self.process_events()
        _write(widget.grab().toImage(), path)
        no_limit = 2**24 - 1  # QWIDGETSIZE_MAX
        widget.setMinimumSize(0, 0)
        widget.setMaximumSize(no_limit, no_limit)
        return Path(path)

    def render_slice_view(
        self, path: Path | str, name: str = "Red", size: tuple[int, int] = (512, 512), fit: bool = True
    ) -> Path:
        """Writes a slice view as PNG, rendered by Slicer's displayable managers: volumes, segmentations, markups."""
        widget = self._installation.app.layoutManager().sliceWidget(name)
        view = widget.sliceView()
        view.resize(*size)
        view.forceRender()
        if fit:
            widget.sliceLogic().FitSliceToBackground()
            view.forceRender()
        return self._write_view(view, path)

    def render_3d_view(self, path: Path | str, index: int = 0, size: tuple[int, int] = (512, 512)) -> Path:
        view = self._installation.app.layoutManager().threeDWidget(index).threeDView()
        view.resize(*size)
        view.resetFocalPoint()
        view.forceRender()
        return self._write_view(view, path)

    def click_in_slice_view(
        self, name: str, ras: tuple[float, float, float], button: QtCore.Qt.MouseButton = QtCore.Qt.LeftButton
    ) -> None:
        """Moves the mouse in a slice view to where a point of the patient lies, RAS, mm, and clicks there."""
        widget = self._installation.app.layoutManager().sliceWidget(name)
        view = widget.sliceView()
        view.forceRender()
        to_view = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(widget.mrmlSliceNode().GetXYToRAS(), to_view)
        x, y = to_view.MultiplyPoint((*ras, 1.0))[:2]
        place = QtCore.QPointF(round(x), view.height - 1 - round(y))
        QtGui.QCursor.setPos(view.mapToGlobal(place.toPoint()))
        for kind, pressed, held in (
            (QtCore.QEvent.MouseMove, QtCore.Qt.NoButton, QtCore.Qt.NoButton),
            (QtCore.QEvent.MouseButtonPress, button, button),
            (QtCore.QEvent.MouseButtonRelease, button, QtCore.Qt.NoButton),
        ):
            event = QtGui.QMouseEvent(
                kind, place, view.mapToGlobal(place), pressed, held, QtCore.Qt.NoModifier
            )
            self.qt_application.sendEvent(view, event)
        self.process_events()

    def press_key(self, key: QtCore.Qt.Key) -> None:
        """Presses a key in the main window."""
        self.main_window.activateWindow()
        self.process_events()
        QtTest.QTest.keyClick(self.main_window, key)
        self.process_events()

    def _write_view(self, view: ctkVTKAbstractView, path: Path | str) -> Path:
        _write(grab(view.renderWindow()), path)
        return Path(path)

    def close(self) -> None:
        """Unloads the modules, ends the application, and notes what is left in `leaks`."""
        if self._installation is None:
            return
        widgets = self._python_widgets()
        references = {type(widget).__name__: weakref.ref(widget) for widget in widgets}
        self._installation.app._close_modules()
        self.qt_application.setPalette(self._palette)
        self.process_events()
        self.leaks += self._observers_left(widgets)
        _, running = psutil.wait_procs([p for p in _children() if p not in self._processes], timeout=0.5)
        self.leaks += [f"process {p.pid} still runs: {p.name()}" for p in running]
        widgets.clear()
        self._installation.leave()
        self._installation = self.slicer = None
        self._undo_dialogs()
        os.environ["PATH"] = self._path_variable
        for path in self._paths:
            sys.path.remove(path)
        for name in (
            "last_exc",
            "last_type",
            "last_value",
            "last_traceback",
        ):  # would hold the module's frames
            vars(sys).pop(name, None)
        gc.collect()
        self.leaks += [
            f"{name} is still held (by an observer or a timer)" for name, ref in references.items() if ref()
        ]

    def _python_widgets(self) -> list[Any]:
        modules = [self.slicer.util.getModule(name) for name in self._modules]
        return [module._widget.self() for module in modules if module._widget is not None]

    def _observers_left(self, widgets: list[Any]) -> list[str]:
        mixins = [w for w in widgets if isinstance(w, self.slicer.util.VTKObservationMixin)]
        return [
            f"{type(widget).__name__} still observes {observation[0].GetClassName()} with {observation[2].__name__}"
            for widget in mixins
            for observation in widget.Observations
        ]

    def _catch_vtk_errors(self) -> None:
        window = vtk.vtkOutputWindow()
        window.SetDisplayModeToNever()

        @vtk.calldata_type(vtk.VTK_STRING)
        def note(caller: Any, event: str, text: str) -> None:
            self.vtk_errors.append(text)

        window.AddObserver("ErrorEvent", note)
        vtk.vtkOutputWindow.SetInstance(window)

    def _use_a_font(self) -> None:
        """The off-screen platform has no fonts of its own; matplotlib brings one."""
        if not set(FONT_FAMILIES) & set(QtGui.QFontDatabase.families()):
            from matplotlib import get_data_path

            QtGui.QFontDatabase.addApplicationFont(
                str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
            )
        available = [family for family in FONT_FAMILIES if family in QtGui.QFontDatabase.families()]
        self.qt_application.setFont(QtGui.QFont(available[0], 9))


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _write(image: QtGui.QImage, path: Path | str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if not image.save(str(path)):
        raise OSError(f"the picture can't be written: {path}")
