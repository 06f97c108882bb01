"""Slicer's slice, 3D and plot views: its own logics and displayable managers, rendered off screen.

Slicer's view widgets draw through OpenGL into their window. Here VTK renders off screen, and the widget paints the
image, so that a photograph of the main window shows the views too. The mouse goes the way it goes in Slicer: from Qt
to VTK's interactor, and from there by Slicer's interactor style to the displayable manager that wants it.
"""

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import slicer_core
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal
from PySide6.QtCore import Qt as QtNamespace
from vtk.util.numpy_support import vtk_to_numpy

from .observing import Observing
from .qmrml_widgets import Scene, qMRMLWidget

SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
)
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)


def grab(window: vtk.vtkRenderWindow) -> QtGui.QImage:
    """The image of a render window."""
    capture = vtk.vtkWindowToImageFilter()
    capture.SetInput(window)
    capture.ReadFrontBufferOff()
    capture.Update()
    image = capture.GetOutput()
    width, height, _ = image.GetDimensions()
    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)
    pixels = np.ascontiguousarray(pixels[::-1])
    return QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format_RGB888).copy()


class _RenderedWidget(QtWidgets.QWidget):
    """A widget that shows what VTK renders."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._renderer = vtk.vtkRenderer()
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetMultiSamples(4)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.Initialize()
        self.setMinimumSize(60, 60)
        self.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Expanding)

    def _render(self) -> QtGui.QImage:
        self._window.SetSize(max(self.width, 1), max(self.height, 1))
        self._interactor.Render()
        return grab(self._window)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        QtGui.QPainter(self).drawImage(0, 0, self._render())

    def _release(self) -> None:
        self._window.Finalize()


class ctkVTKAbstractView(_RenderedWidget):
    """A view of the scene."""

    def renderWindow(self) -> vtk.vtkRenderWindow:
        return self._window

    def interactor(self) -> vtk.vtkRenderWindowInteractor:
        return self._interactor

    def forceRender(self) -> None:
        self._render()

    def scheduleRender(self) -> None:
        self.update()

    def enterEvent(self, event: QtGui.QEnterEvent) -> None:
        self._interactor.InvokeEvent("EnterEvent")

    def leaveEvent(self, event: QtCore.QEvent) -> None:
        self._interactor.InvokeEvent("LeaveEvent")

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        self._pass_on(event, "MouseMoveEvent")

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        self._pass_on(event, f"{event.button().name}PressEvent")

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:
        self._pass_on(event, f"{event.button().name}ReleaseEvent")

    def _pass_on(self, event: QtGui.QMouseEvent, name: str) -> None:
        place, held = event.position(), event.modifiers()
        self._interactor.SetEventInformation(
            round(place.x()),
            self.height - 1 - round(place.y()),  # VTK counts from below
            bool(held & QtNamespace.ControlModifier),
            bool(held & QtNamespace.ShiftModifier),
        )
        self._interactor.InvokeEvent(name)
        event.accept()

    def _manage(self, factory_class: type, names: tuple[str, ...], application: Any, node: Any) -> None:
        factory = factory_class.GetInstance()
        factory.SetMRMLApplicationLogic(application)
        for name in names:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._managers = slicer_core.vtkMRMLDisplayableManagerGroup()
        self._managers.SetRenderer(self._renderer)
        self._managers.Initialize(factory, self._renderer)
        self._managers.SetMRMLDisplayableNode(node)

    def _listen(self, style: Any) -> None:
        """Let Slicer's interactor style hand the mouse's events to the displayable managers."""
        self.setMouseTracking(True)
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._style = style
        self._style.SetDisplayableManagers(self._managers)
        self._style.SetInteractor(self._interactor)

    def _manager(self, name: str) -> Any:
        return self._managers.GetDisplayableManagerByClassName(name)

    def _release(self) -> None:
        self._style.SetInteractor(None)
        self._style = self._managers = None
        super()._release()


class qMRMLSliceView(ctkVTKAbstractView):
    def __init__(self, parent: QtWidgets.QWidget, application: Any, logic: Any):
        super().__init__(parent)
        self._logic = logic
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._renderer.SetBackground(0, 0, 0)
        # The image is drawn below what the displayable managers add, so it must be in the renderer before them.
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._image = vtk.vtkActor2D()
        self._image.SetMapper(self._mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(self._image)
        factory = slicer_core.vtkMRMLSliceViewDisplayableManagerFactory
        self._manage(factory, SLICE_MANAGERS, application, logic.GetSliceNode())
        style = slicer_core.vtkMRMLSliceViewInteractorStyle()
        style.SetSliceLogic(logic)
        self._listen(style)

    displayableManagerByClassName = ctkVTKAbstractView._manager

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def _render(self) -> QtGui.QImage:
        self._logic.ResizeSliceNode(max(self.width, 1), max(self.height, 1))
        connection = self._logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)
        self._image.SetVisibility(connection is not None)
        return super()._render()


class qMRMLSliceControllerWidget(qMRMLWidget):
    """The coloured bar over a slice view, with the slider that moves the slice."""

    def __init__(self, parent: QtWidgets.QWidget, logic: Any):
        super().__init__(parent)
        self._logic = logic
        red, green, blue = (round(255 * part) for part in logic.GetSliceNode().GetLayoutColor())
        self._label = QtWidgets.QLabel(logic.GetSliceNode().GetLayoutLabel(), self)
        self._label.styleSheet = f"background: rgb({red},{green},{blue}); color: black; padding: 1px 6px"
        self._slider = QtWidgets.QSlider(QtNamespace.Horizontal, self)
        self._offset = QtWidgets.QLabel(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._label)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._offset)
        self.observe(logic.GetSliceNode(), vtk.vtkCommand.ModifiedEvent, self._refresh)
        self._slider.sliderMoved.connect(
            lambda step: self.setSliceOffsetValue(self._range()[0] + step * self._step())
        )

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def setSliceOffsetValue(self, offset: float) -> None:
        self._logic.SetSliceOffset(offset)

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()

    def setForegroundOpacity(self, opacity: float) -> None:
        self._logic.GetSliceCompositeNode().SetForegroundOpacity(opacity)

    def sliceOffsetSlider(self) -> QtWidgets.QWidget:
        return self._slider

    def _range(self) -> tuple[float, float]:
        bounds = [0.0] * 6
        self._logic.GetLowestVolumeSliceBounds(bounds)
        return (bounds[4], bounds[5]) if bounds[5] > bounds[4] else (0.0, 1.0)

    def _step(self) -> float:
        return self._logic.GetLowestVolumeSliceSpacing()[2] or 1.0

    def _refresh(self) -> None:
        low, high = self._range()
        self._slider.setRange(0, round((high - low) / self._step()))
        self._slider.value = round((self._logic.GetSliceOffset() - low) / self._step())
        self._offset.text = f"{self._logic.GetSliceOffset():.1f} mm"


class qMRMLSliceWidget(qMRMLWidget):
    def __init__(self, parent: QtWidgets.QWidget, application: Any, logic: Any):
        super().__init__(parent)
        self._logic = logic
        self._controller = qMRMLSliceControllerWidget(self, logic)
        self._view = qMRMLSliceView(self, application, logic)
        _stack(self, self._controller, self._view)

    def sliceController(self) -> qMRMLSliceControllerWidget:
        return self._controller

    def sliceView(self) -> qMRMLSliceView:
        return self._view

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()

    sliceViewName = Property(str, lambda self: self._logic.GetSliceNode().GetLayoutName())


class qMRMLThreeDView(ctkVTKAbstractView):
    def __init__(self, parent: QtWidgets.QWidget, application: Any, logic: Any):
        super().__init__(parent)
        self._logic = logic
        self._renderer.GradientBackgroundOn()
        factory = slicer_core.vtkMRMLThreeDViewDisplayableManagerFactory
        self._manage(factory, THREE_D_MANAGERS, application, logic.GetViewNode())
        self._listen(slicer_core.vtkMRMLThreeDViewInteractorStyle())

    displayableManagerByClassName = ctkVTKAbstractView._manager

    def mrmlViewNode(self) -> Any:
        return self._logic.GetViewNode()

    def cameraNode(self) -> Any:
        return self._logic.GetCameraNode()

    def resetFocalPoint(self) -> None:
        """Puts the middle of what is shown (not the box and its labels) in the middle of the view."""
        view, bounds = self.mrmlViewNode(), [0.0] * 6
        shown = view.GetBoxVisible(), view.GetAxisLabelsVisible()
        view.SetBoxVisible(False)
        view.SetAxisLabelsVisible(False)
        self._renderer.ComputeVisiblePropBounds(bounds)
        view.SetBoxVisible(shown[0])
        view.SetAxisLabelsVisible(shown[1])
        if bounds[0] <= bounds[1]:
            self._renderer.GetActiveCamera().SetFocalPoint(
                *[(bounds[i] + bounds[i + 1]) / 2 for i in (0, 2, 4)]
            )
            self._renderer.ResetCameraClippingRange()

    def resetCamera(self) -> None:
        self._renderer.ResetCamera()

    def rotateToViewAxis(self, axis: int) -> None:
        self.cameraNode().RotateTo(axis)


class qMRMLThreeDWidget(qMRMLWidget):
    def __init__(self, parent: QtWidgets.QWidget, application: Any, logic: Any):
        super().__init__(parent)
        self._logic = logic
        self._view = qMRMLThreeDView(self, application, logic)
        _stack(self, self._view)

    def threeDView(self) -> qMRMLThreeDView:
        return self._view

    def threeDController(self) -> QtWidgets.QWidget:
        return self

    def viewLogic(self) -> Any:
        return self._logic

    def mrmlViewNode(self) -> Any:
        return self._logic.GetViewNode()


class qMRMLPlotView(_RenderedWidget):
    """Draws the chart of a plot view node: lines and points of its series, in their colours."""

    def __init__(self, parent: QtWidgets.QWidget, node: Any):
        super().__init__(parent)
        self._node = node
        self._renderer.SetBackground(1, 1, 1)
        self._chart = vtk.vtkChartXY()
        context = vtk.vtkContextActor()
        context.GetScene().AddItem(self._chart)
        context.GetScene().SetRenderer(self._renderer)
        self._renderer.AddActor(context)

    def fitToContent(self) -> None:
        self._chart.RecalculateBounds()

    def _render(self) -> QtGui.QImage:
        self._draw()
        return super()._render()

    def _draw(self) -> None:
        self._chart.ClearPlots()
        chart = self._node.GetPlotChartNode()
        if chart is None:
            return
        self._chart.SetTitle(chart.GetTitle() or "" if chart.GetTitleVisibility() else "")
        self._chart.SetShowLegend(bool(chart.GetLegendVisibility()))
        self._chart.GetAxis(vtk.vtkAxis.BOTTOM).SetTitle(chart.GetXAxisTitle() or "")
        self._chart.GetAxis(vtk.vtkAxis.LEFT).SetTitle(chart.GetYAxisTitle() or "")
        for index in range(chart.GetNumberOfPlotSeriesNodes()):
            self._draw_series(chart.GetNthPlotSeriesNode(index))

    def _draw_series(self, series: Any) -> None:
        table = series.GetTableNode().GetTable() if series.GetTableNode() else None
        if table is None or table.GetNumberOfRows() < 2:
            return
        is_points = series.GetLineStyle() == slicer_core.vtkMRMLPlotSeriesNode.LineStyleNone
        plot = self._chart.AddPlot(vtk.vtkChart.POINTS if is_points else vtk.vtkChart.LINE)
        plot.SetInputData(table, series.GetXColumnName(), series.GetYColumnName())
        plot.SetColorF(*series.GetColor())
        plot.SetWidth(series.GetLineWidth())
        plot.SetLabel(series.GetName())


class qMRMLPlotWidget(qMRMLWidget):
    def __init__(self, parent: QtWidgets.QWidget, node: Any):
        super().__init__(parent)
        self._view = qMRMLPlotView(self, node)
        _stack(self, self._view)

    def plotView(self) -> qMRMLPlotView:
        return self._view

    def mrmlPlotViewNode(self) -> Any:
        return self._view._node


class qMRMLLayoutManager(QtCore.QObject, Observing):
    """Arranges the views as the scene's layout node describes."""

    layoutChanged = Signal(int)

    def __init__(self, application: Any, scene: Scene, viewport: QtWidgets.QWidget):
        super().__init__(viewport)
        self._application, self._scene, self._viewport = application, scene, viewport
        self._widgets: dict[str, qMRMLWidget] = {}
        self._shown: QtWidgets.QWidget | None = None
        QtWidgets.QVBoxLayout(viewport).setContentsMargins(0, 0, 0, 0)
        self._logic = slicer_core.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)
        self._node = self._logic.GetLayoutNode()
        self._described = ""
        self.observe(self._node, vtk.vtkCommand.ModifiedEvent, self._arrange)
        self.setLayout(slicer_core.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def layoutLogic(self) -> Any:
        return self._logic

    def mrmlScene(self) -> Scene:
        return self._scene

    def viewport(self) -> QtWidgets.QWidget:
        return self._viewport

    def setLayout(self, layout: int) -> None:
        self._node.SetViewArrangement(layout)

    layout = Property(int, lambda self: self._node.GetViewArrangement(), setLayout)

    def sliceViewNames(self) -> list[str]:
        return [name for name, widget in self._widgets.items() if isinstance(widget, qMRMLSliceWidget)]

    def sliceWidget(self, name: str) -> qMRMLSliceWidget | None:
        return self._widgets.get(name)

    def mrmlSliceLogics(self) -> vtk.vtkCollection:
        return self._application.GetSliceLogics()

    def mrmlViewLogics(self) -> vtk.vtkCollection:
        return self._application.GetViewLogics()

    threeDViewCount = Property(int, lambda self: len(self._of_kind(qMRMLThreeDWidget)))
    plotViewCount = Property(int, lambda self: len(self._of_kind(qMRMLPlotWidget)))
    tableViewCount = Property(int, lambda self: 0)

    def threeDWidget(self, which: int | str) -> qMRMLThreeDWidget | None:
        return self._pick(qMRMLThreeDWidget, which)

    def plotWidget(self, which: int | str) -> qMRMLPlotWidget | None:
        return self._pick(qMRMLPlotWidget, which)

    def activeMRMLThreeDViewNode(self) -> Any:
        views = self._of_kind(qMRMLThreeDWidget)
        return views[0].mrmlViewNode() if views else None

    def resetThreeDViews(self) -> None:
        for widget in self._of_kind(qMRMLThreeDWidget):
            widget.threeDView().resetFocalPoint()
            widget.threeDView().resetCamera()

    def resetSliceViews(self) -> None:
        for widget in self._of_kind(qMRMLSliceWidget):
            widget.fitSliceToBackground()

    def _of_kind(self, kind: type) -> list[Any]:
        return [widget for widget in self._widgets.values() if isinstance(widget, kind)]

    def _pick(self, kind: type, which: int | str) -> Any:
        if isinstance(which, str):
            return self._widgets.get(which)
        widgets = self._of_kind(kind)
        return widgets[which] if 0 <= which < len(widgets) else None

    def _arrange(self) -> None:
        description = self._node.GetCurrentLayoutDescription()
        if not description or description == self._described:
            return
        self._described = description
        for widget in self._widgets.values():
            widget.hide()
            widget.setParent(self._viewport)
        if self._shown:
            self._shown.setParent(None)
            self._shown.deleteLater()
        self._shown = self._build(ElementTree.fromstring(description))
        self._viewport.layout().addWidget(self._shown)
        self.layoutChanged.emit(self._node.GetViewArrangement())

    def _build(self, element: ElementTree.Element) -> QtWidgets.QWidget:
        if element.tag == "view":
            widget = self._view(element)
            widget.show()
            holder = QtWidgets.QWidget()
            _stack(holder, widget)
            return holder
        if element.get("type") == "tab":
            tabs = QtWidgets.QTabWidget()
            for item in element:
                tabs.addTab(self._build(item[0]), item.get("name", ""))
            return tabs
        splitter = QtWidgets.QSplitter()
        splitter.orientation = (
            QtNamespace.Vertical if element.get("type") == "vertical" else QtNamespace.Horizontal
        )
        for item in element.findall("item"):
            splitter.addWidget(self._build(item[0]))
        splitter.setSizes([1000] * splitter.count())
        return splitter

    def _view(self, element: ElementTree.Element) -> qMRMLWidget:
        name = element.get("singletontag")
        if name not in self._widgets:
            self._widgets[name] = self._create(element.get("class"), name, element)
        return self._widgets[name]

    def _create(self, kind: str, name: str, element: ElementTree.Element) -> qMRMLWidget:
        if kind == "vtkMRMLSliceNode":
            return self._create_slice_widget(name, element)
        if kind == "vtkMRMLViewNode":
            logic = slicer_core.vtkMRMLViewLogic()
            logic.SetMRMLApplicationLogic(self._application)
            self._application.GetViewLogics().AddItem(logic)
            logic.SetName(name)  # by which it finds its node
            logic.SetMRMLScene(self._scene)
            return qMRMLThreeDWidget(self._viewport, self._application, logic)
        if kind == "vtkMRMLPlotViewNode":
            return qMRMLPlotWidget(self._viewport, self._scene.GetSingletonNode(name, kind))
        return qMRMLWidget(self._viewport)

    def _create_slice_widget(self, name: str, element: ElementTree.Element) -> qMRMLSliceWidget:
        logic = slicer_core.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self._application)
        self._application.GetSliceLogics().AddItem(logic)
        logic.SetMRMLScene(self._scene)
        node = self._scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        logic.SetSliceNode(node)
        properties = {prop.get("name"): prop.text for prop in element.findall("property")}
        if orientation := properties.get("orientation"):
            node.SetOrientation(orientation)
        if label := properties.get("viewlabel"):
            node.SetLayoutLabel(label)
        if colour := properties.get("viewcolor"):
            node.SetLayoutColor(*QtGui.QColor(colour).getRgbF()[:3])
        return qMRMLSliceWidget(self._viewport, self._application, logic)

    def _release(self) -> None:
        self.stop_observing()
        for widget in self._of_kind(qMRMLSliceWidget):
            widget.sliceView()._release()
        for widget in self._of_kind(qMRMLThreeDWidget):
            widget.threeDView()._release()


def _stack(widget: QtWidgets.QWidget, *parts: QtWidgets.QWidget) -> None:
    layout = QtWidgets.QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    for part in parts:
        layout.addWidget(part)


WIDGETS = {name: value for name, value in globals().items() if name.startswith("qMRML")}
