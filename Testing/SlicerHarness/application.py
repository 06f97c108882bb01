"""`slicer.app` and what hangs on it: scene, logics, modules, main window, settings."""

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

import shiboken6
import slicer_core
import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from . import colours, views
from .ctk_widgets import stored
from .file_io import qSlicerCoreIOManager
from .observing import Observing
from .qmrml_widgets import qMRMLSegmentEditorWidget, qSlicerWidget
from .version import minor

# The logics of Slicer's own modules, by the name under which `slicer.modules` and the other logics know them.
MODULE_LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Models": "vtkSlicerModelsLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Units": "vtkSlicerUnitsLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "SegmentEditor": "vtkSlicerSegmentEditorLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
}


class qSlicerAbstractCoreModule(QtCore.QObject):
    """A module: `slicer.modules.volumes`."""

    name = stored(str, "name", "")
    path = stored(str, "path", "")
    title = stored(str, "title", "")
    categories = stored("QStringList", "categories", ())
    contributors = stored("QStringList", "contributors", ())
    dependencies = stored("QVariantList", "dependencies", [])
    helpText = stored(str, "helpText", "")
    acknowledgementText = stored(str, "acknowledgementText", "")
    hidden = stored(bool, "hidden", False)
    index = stored(int, "index", -1)
    associatedNodeTypes = stored("QStringList", "associatedNodeTypes", ())

    def __init__(self, name: str, logic: Any = None):
        super().__init__()
        self.name, self.title, self._logic = name, name, logic
        self._widget: QtWidgets.QWidget | None = None

    def logic(self) -> Any:
        return self._logic


class qSlicerAbstractModule(qSlicerAbstractCoreModule):
    def widgetRepresentation(self) -> QtWidgets.QWidget | None:
        return self._widget


class qSlicerScriptedLoadableModule(qSlicerAbstractModule):
    """The C++ side of a scripted module; its Python side gets it as `parent`."""

    icon = stored("QVariant", "icon", None)

    def __init__(self, path: Path, source: Any, slicer: Any):
        super().__init__(path.stem, slicer_core.vtkSlicerScriptedLoadableModuleLogic())
        self.path = str(path)
        self._source, self._slicer = source, slicer
        self._instance = getattr(source, path.stem)(self)

    def widgetRepresentation(self) -> QtWidgets.QWidget:
        if self._widget is None:
            self._widget = qSlicerScriptedLoadableModuleWidget(self.name, self._source, self._slicer)
        return self._widget

    def _unload(self) -> None:
        if self._widget is not None:
            self._widget.deleteLater()
        self._widget = self._instance = self._source = self._slicer = None


class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
    """The panel of a scripted module; `self()` is the Python widget class."""

    def __init__(self, name: str, source: Any, slicer: Any):
        super().__init__()
        QtWidgets.QVBoxLayout(self)
        self.setMRMLScene(slicer.mrmlScene)
        self._name, self._slicer, self._entered = name, slicer, False
        self._python: Any = None
        self._make(source)

    def _make(self, source: Any) -> None:
        self._python = getattr(source, f"{self._name}Widget")(self)
        setattr(self._slicer.modules, f"{self._name}Widget", self._python)
        self._python.setup()

    def self(self) -> Any:
        return self._python

    def reload(self) -> None:
        self._make(sys.modules[self._name])

    def isEntered(self) -> bool:
        return self._entered

    def enter(self) -> None:
        self._entered = True
        if hasattr(self._python, "enter"):
            self._python.enter()

    def exit(self) -> None:
        self._entered = False
        if hasattr(self._python, "exit"):
            self._python.exit()

    moduleName = Property(str, lambda self: self._name)


class _SegmentEditorModuleWidget(qSlicerWidget):
    """`slicer.modules.segmenteditor.widgetRepresentation().self().editor`."""

    def __init__(self, scene: Any):
        super().__init__()
        self._editor = qMRMLSegmentEditorWidget(self)
        self._editor.setMRMLScene(scene)

    editor = property(lambda self: self._editor)

    def self(self) -> "_SegmentEditorModuleWidget":
        return self

    def enter(self) -> None: ...

    def exit(self) -> None: ...


class qSlicerModuleFactoryManager(QtCore.QObject):
    def __init__(self, modules: dict[str, qSlicerAbstractCoreModule]):
        super().__init__()
        self._modules = modules

    def loadedModuleNames(self) -> list[str]:
        return list(self._modules)

    def isLoaded(self, name: str) -> bool:
        return name in self._modules


class qSlicerModuleManager(QtCore.QObject):
    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._modules: dict[str, qSlicerAbstractCoreModule] = {}
        self._factory = qSlicerModuleFactoryManager(self._modules)

    def module(self, name: str) -> qSlicerAbstractCoreModule | None:
        return self._modules.get(name)

    def modulesNames(self) -> list[str]:
        return list(self._modules)

    def factoryManager(self) -> qSlicerModuleFactoryManager:
        return self._factory


class qSlicerModuleSelectorToolBar(QtWidgets.QToolBar):
    """Which module's panel is shown."""

    moduleSelected = Signal(str)

    def __init__(self, manager: qSlicerModuleManager, panel: QtWidgets.QScrollArea):
        super().__init__("Module")
        self._manager, self._panel, self._current = manager, panel, ""
        self._label = QtWidgets.QLabel("Modules: ")
        self.addWidget(self._label)

    def selectModule(self, name: str) -> None:
        module = self._manager.module(name)
        if module is None or name == self._current:
            return
        self._leave()
        self._current = name
        self._label.text = f"Modules: {module.title}"
        widget = module.widgetRepresentation()
        if widget is not None:
            self._panel.setWidget(widget)
            widget.show()
            widget.enter()
        self.moduleSelected.emit(name)

    selectedModule = Property(str, lambda self: self._current)

    def _leave(self) -> None:
        before = self._panel.takeWidget()
        if before is not None:
            before.setParent(None)
            before.exit()
        self._current = ""


class qSlicerMainWindow(QtWidgets.QMainWindow):
    def __init__(self, manager: qSlicerModuleManager):
        super().__init__()
        self.objectName, self.windowTitle = "qSlicerMainWindow", "3D Slicer"
        panel = QtWidgets.QScrollArea()
        panel.widgetResizable = True
        panel.objectName = "ModulePanel"
        dock = QtWidgets.QDockWidget(self)
        dock.objectName = "PanelDockWidget"
        dock.setWidget(panel)
        dock.setTitleBarWidget(QtWidgets.QWidget(dock))
        self.addDockWidget(QtCore.Qt.LeftDockWidgetArea, dock)
        self._selector = qSlicerModuleSelectorToolBar(manager, panel)
        self.addToolBar(self._selector)
        self.setCentralWidget(QtWidgets.QWidget(self))
        self.statusBar()
        self.resize(1280, 800)
        self.resizeDocks([dock], [420], QtCore.Qt.Horizontal)

    def moduleSelector(self) -> qSlicerModuleSelectorToolBar:
        return self._selector

    def pythonConsole(self) -> None:
        return None


class qSlicerCommandOptions(QtCore.QObject):
    noMainWindow = Property(bool, lambda self: False)
    testingEnabled = Property(bool, lambda self: False)


class qSlicerExtensionsManagerModel(QtCore.QObject):
    """The installed extensions; a test adds to `_installed`."""

    def __init__(self) -> None:
        super().__init__()
        self._installed: list[str] = []

    def isExtensionInstalled(self, name: str) -> bool:
        return name in self._installed


class qSlicerApplication(QtCore.QObject, Observing):
    """`slicer.app`. What Qt's application object has is passed on to it."""

    startupCompleted = Signal()
    mrmlSceneChanged = Signal(object)

    majorVersion = Property(int, lambda self: 5)
    minorVersion = Property(int, lambda self: minor())
    temporaryPath = stored(str, "temporaryPath", "")
    slicerHome = Property(str, lambda self: str(Path(self.temporaryPath) / "SlicerHome"))
    extensionsInstallPath = Property(str, lambda self: str(Path(self.temporaryPath) / "Extensions"))
    isInstalled = Property(bool, lambda self: True)
    os = Property(str, lambda self: {"linux": "linux", "darwin": "macosx"}.get(sys.platform, "win"))
    documentationBaseUrl = Property(str, lambda self: "https://slicer.readthedocs.io/en/latest/")

    def __init__(self, slicer: Any):
        super().__init__()
        self._slicer = slicer
        self._exit_status: int | None = None
        self._opened_node: Any = None
        self._make_scene()
        self._modules = qSlicerModuleManager()
        self._io = qSlicerCoreIOManager(self._scene, self.moduleLogic)
        self._recent_files: list[str] = []
        self._io.newFileLoaded.connect(self._add_to_recent_files)
        self._extensions = qSlicerExtensionsManagerModel()
        self._options = qSlicerCommandOptions()
        self._window = qSlicerMainWindow(self._modules)
        self._layouts = views.qMRMLLayoutManager(self._logic, self._scene, self._window.centralWidget())
        self.observe(self._scene, slicer_core.vtkMRMLScene.NodeAddedEvent, self._add_to_subject_hierarchy)

    def _make_scene(self) -> None:
        self._scene = slicer_core.vtkMRMLScene()
        crosshair = slicer_core.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self._scene.AddNode(crosshair)
        self._logic = slicer_core.vtkSlicerApplicationLogic()
        self._logic.SetMRMLScene(self._scene)
        colour_logic = self._logic.GetColorLogic()
        colour_logic.SetMRMLScene(self._scene)
        colour_logic.AddDefaultColorNodes()
        colours.add_file_colour_nodes(self._scene)
        self._make_data_manager()
        self._logic.SetSliceLogics(vtk.vtkCollection())
        self._logic.SetViewLogics(vtk.vtkCollection())
        right_of_patient_on_the_left = True
        slicer_core.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(
            self._scene, right_of_patient_on_the_left
        )
        self._logics = {"Colors": colour_logic}  # the application logic only points at them
        for name in MODULE_LOGICS:
            self._make_logic(name)
        for name, logic in self._logics.items():
            self._logic.SetModuleLogic(name, logic)

    def _make_logic(self, name: str) -> Any:
        logic = self._logics[name] = getattr(slicer_core, MODULE_LOGICS[name])()
        logic.SetMRMLScene(self._scene)
        logic.SetMRMLApplicationLogic(self._logic)
        return logic

    def _make_data_manager(self) -> None:
        """Without it no .mrb is read."""
        self._remote_io = slicer_core.vtkMRMLRemoteIOLogic()
        self._data_io = slicer_core.vtkDataIOManagerLogic()
        self._data_io.SetMRMLApplicationLogic(self._logic)
        self._data_io.SetAndObserveDataIOManager(self._remote_io.GetDataIOManager())
        self._logic.SetMRMLSceneDataIO(self._scene, self._remote_io, self._data_io)

    def __getattr__(self, name: str) -> Any:
        """What QApplication has (processEvents, palette, topLevelWidgets); Qt asks this last."""
        application = QtWidgets.QApplication.instance()
        if name.startswith("_") or not hasattr(application, name):
            raise AttributeError(f"slicer.app has no attribute '{name}'")
        return getattr(application, name)

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def moduleLogic(self, name: str) -> Any:
        return self._logics.get(name) if name else self._logic

    def layoutManager(self) -> views.qMRMLLayoutManager:
        return self._layouts

    def moduleManager(self) -> qSlicerModuleManager:
        return self._modules

    def coreIOManager(self) -> qSlicerCoreIOManager:
        return self._io

    def ioManager(self) -> qSlicerCoreIOManager:
        return self._io

    def extensionsManagerModel(self) -> qSlicerExtensionsManagerModel:
        return self._extensions

    def commandOptions(self) -> qSlicerCommandOptions:
        return self._options

    def testingEnabled(self) -> bool:
        """False, so that messages to the user are shown, and recorded by the harness."""
        return False

    def settings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def userSettings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def revisionUserSettings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def environment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        """What the application was started with: nothing of what its launcher, or a test since, put there."""
        return self._startup_environment

    def translate(self, context: str, text: str) -> str:
        return text

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def openNodeModule(self, node: Any, role: str = "", context: str = "") -> None:
        self._opened_node = node

    def pauseRender(self) -> None: ...

    def resumeRender(self) -> None: ...

    def restart(self) -> None:
        self._exit_status = 0

    def exit(self, status: int = 0) -> None:
        self._exit_status = status

    def pythonConsole(self) -> None:
        return None

    def _add_to_subject_hierarchy(self) -> None:
        """What Slicer's subject hierarchy plugins do, which are Qt classes: data nodes get an item."""
        hierarchy = slicer_core.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)
        for index in range(self._scene.GetNumberOfNodes()):
            node = self._scene.GetNthNode(index)
            is_data = node.IsA("vtkMRMLStorableNode") and not node.IsA("vtkMRMLColorNode")
            if (
                hierarchy
                and is_data
                and not node.GetHideFromEditors()
                and not hierarchy.GetItemByDataNode(node)
            ):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    def _add_to_recent_files(self, properties: dict[str, Any]) -> None:
        """File > Recent lists all that goes through the input and output manager."""
        self._recent_files.append(str(properties["fileName"]))

    def _load_module(self, path: Path) -> qSlicerScriptedLoadableModule:
        specification = importlib.util.spec_from_file_location(path.stem, path)
        source = importlib.util.module_from_spec(specification)
        sys.modules[path.stem] = source
        specification.loader.exec_module(source)
        module = qSlicerScriptedLoadableModule(path, source, self._slicer)
        self._add_module(module)
        setattr(self._slicer.modules, f"{path.stem}Instance", module._instance)
        return module

    def _add_module(self, module: qSlicerAbstractCoreModule) -> None:
        self._modules._modules[module.name] = module
        setattr(self._slicer.modules, module.name.lower(), module)
        setattr(self._slicer.moduleNames, module.name, module.name)
        self._modules.moduleLoaded.emit(module.name)

    def _add_builtin_modules(self) -> None:
        for name in ("Colors", *MODULE_LOGICS):
            self._add_module(qSlicerAbstractModule(name, self.moduleLogic(name)))
        self._modules.module("SegmentEditor")._widget = _SegmentEditorModuleWidget(self._scene)

    def _start_afresh(self, folder: Path) -> None:
        """As just started: an empty scene, the first layout, no scripted module, nothing asked for."""
        folder.mkdir(parents=True, exist_ok=True)
        self.temporaryPath = str(folder)
        self._logic.SetTemporaryPath(str(folder))
        self._scene.SetRootDirectory(str(folder))
        self._remote_io.GetCacheManager().SetRemoteCacheDirectory(str(folder / "cache"))
        self._extensions._installed = []
        terminologies = self._make_logic("Terminologies")  # which keeps what it has loaded
        self._logic.SetModuleLogic("Terminologies", terminologies)
        self._modules.module("Terminologies")._logic = terminologies
        self._recent_files.clear()
        self._startup_environment = QtCore.QProcessEnvironment.systemEnvironment()
        self._exit_status = self._opened_node = None
        self._layouts.setLayout(slicer_core.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._window.resize(1280, 800)

    def _close_modules(self) -> None:
        """Leaves the shown module and unloads the scripted ones."""
        self._window.moduleSelector()._leave()
        for module in [
            m for m in self._modules._modules.values() if isinstance(m, qSlicerScriptedLoadableModule)
        ]:
            self._modules.moduleAboutToBeUnloaded.emit(module.name)
            module._unload()
            del self._modules._modules[module.name]
            for name in (module.name.lower(), f"{module.name}Instance", f"{module.name}Widget"):
                vars(self._slicer.modules).pop(name, None)
            sys.modules.pop(module.name, None)
        QtWidgets.QApplication.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)

    def _clear_scene(self) -> None:
        """Closes the scene, and removes what survives this (the parameter nodes of modules)."""
        self._scene.Clear(False)
        nodes = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        for node in [n for n in nodes if n.IsA("vtkMRMLScriptedModuleNode")]:
            self._scene.RemoveNode(node)
        self._window.hide()

    def _shut_down(self) -> None:
        """Lets go of views and window, before the interpreter does so in any order."""
        self.stop_observing()
        self._layouts._release()
        shiboken6.delete(self._window)


CLASSES = {
    name: value
    for name, value in globals().items()
    if name.startswith("qSlicer") and inspect.isclass(value) and name != "qSlicerWidget"
}
