"""Stand-ins for Slicer's MRML widgets that module panels use; the view widgets are in views.py.

As in ctk_widgets.py, each offers no more than `names/slicer.txt` lists for it.
"""

from typing import Any

import slicer_core
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal
from PySide6.QtCore import Qt as QtNamespace

from .ctk_widgets import (
    ctkCollapsibleButton,
    ctkDoubleSpinBox,
    ctkMenuButton,
    ctkRangeWidget,
    ctkSliderWidget,
    stored,
)
from .observing import Observing
from .version import is_current

Scene, Node = slicer_core.vtkMRMLScene, slicer_core.vtkMRMLNode
SCENE_CHANGES = (
    Scene.NodeAddedEvent,
    Scene.NodeRemovedEvent,
    Scene.EndBatchProcessEvent,
    Scene.EndCloseEvent,
)


class _WithScene(Observing):
    """What all MRML widgets share: a scene, and a refresh when its nodes change."""

    _scene: Scene | None = None

    def setMRMLScene(self, scene: Scene | None) -> None:
        if scene is self._scene:
            return
        self.stop_observing()
        self._scene = scene
        for event in SCENE_CHANGES if scene else ():
            self.observe(scene, event, self._on_scene_changed)
        self._on_scene_changed()
        if hasattr(self, "mrmlSceneChanged"):
            self.mrmlSceneChanged.emit(scene)

    def _on_scene_changed(self) -> None:
        """For widgets that show something of the scene."""


def _scene_of(widget: _WithScene) -> Scene | None:
    return widget._scene


class qMRMLWidget(QtWidgets.QWidget, _WithScene):
    mrmlSceneChanged = Signal(object)
    mrmlScene = _scene_of


class qSlicerWidget(QtWidgets.QWidget, _WithScene):
    mrmlSceneChanged = Signal(object)


class qMRMLCollapsibleButton(ctkCollapsibleButton, _WithScene):
    mrmlSceneChanged = Signal(object)


class qMRMLSliderWidget(ctkSliderWidget, _WithScene):
    mrmlScene = _scene_of
    quantity = stored(str, "quantity", "")


class qMRMLSpinBox(ctkDoubleSpinBox, _WithScene):
    mrmlScene = _scene_of
    quantity = stored(str, "quantity", "")


class qMRMLRangeWidget(ctkRangeWidget, _WithScene):
    mrmlScene = _scene_of
    quantity = stored(str, "quantity", "")


class qMRMLNodeComboBox(QtWidgets.QWidget, _WithScene):
    """Offers the scene's nodes of some types. Disabled until it has a scene."""

    mrmlScene = _scene_of
    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeAboutToBeEdited = Signal(object)
    currentNodeRenamed = Signal(object)

    nodeTypes = stored("QStringList", "nodeTypes", (), "_on_scene_changed")
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", (), "_on_scene_changed")
    showHidden = stored(bool, "showHidden", False, "_on_scene_changed")
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True, "_on_scene_changed")
    noneEnabled = stored(bool, "noneEnabled", False, "_on_scene_changed")
    noneDisplay = stored(str, "noneDisplay", "None", "_on_scene_changed")
    addEnabled = stored(bool, "addEnabled", True, "_on_scene_changed")
    removeEnabled = stored(bool, "removeEnabled", True, "_on_scene_changed")
    editEnabled = stored(bool, "editEnabled", False, "_on_scene_changed")
    renameEnabled = stored(bool, "renameEnabled", False, "_on_scene_changed")
    baseName = stored(str, "baseName", "")
    interactionNodeSingletonTag = stored(str, "interactionNodeSingletonTag", "")
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._attributes: list[tuple[str, str, str | None]] = []
        self._labels: dict[str, str] = {}
        self._actions: list[QtGui.QAction] = []
        self._current: Node | None = None
        self._combo_box = QtWidgets.QComboBox(self)
        self._combo_box.enabled = False
        self._combo_box.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self._combo_box.activated.connect(self._on_activated)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo_box)

    def setMRMLScene(self, scene: Scene | None) -> None:
        super().setMRMLScene(scene)
        if scene is not None:
            self.observe(scene, Scene.EndImportEvent, self._on_imported)

    def addAttribute(self, node_type: str, name: str, value: Any = None) -> None:
        self._attributes.append((node_type, name, None if value is None else str(value)))
        self._on_scene_changed()

    def removeAttribute(self, node_type: str, name: str) -> None:
        self._attributes = [a for a in self._attributes if a[:2] != (node_type, name)]
        self._on_scene_changed()

    def setNodeTypeLabel(self, label: str, node_type: str) -> None:
        self._labels[node_type] = label

    def nodeTypeLabel(self, node_type: str) -> str:
        return self._labels.get(node_type, "")

    def addMenuAction(self, action: QtGui.QAction) -> None:
        self._actions.append(action)
        self._on_scene_changed()

    def nodeCount(self) -> int:
        return len(self._nodes())

    def nodeFromIndex(self, index: int) -> Node | None:
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def currentNode(self) -> Node | None:
        return self._current

    def setCurrentNode(self, node: Node | str | None) -> None:
        if isinstance(node, str):
            node = self._scene.GetNodeByID(node) if self._scene else None
        self._select(node if node in self._nodes() else None)

    def setCurrentNodeID(self, node_id: str) -> None:
        self.setCurrentNode(node_id or "")

    def setCurrentNodeIndex(self, index: int) -> None:
        self._select(self.nodeFromIndex(index))

    currentNodeID = Property(
        str, lambda self: self._current.GetID() if self._current else "", setCurrentNodeID
    )

    def addNode(self, node_type: str = "") -> Node | None:
        node_type = node_type or next(iter(self.nodeTypes), "")
        if node_type not in self.nodeTypes:
            return None
        node = self._scene.CreateNodeByClass(node_type)
        node.UnRegister(None)
        name = self.baseName or node.GetNodeTagName()
        node.SetName(self._scene.GenerateUniqueName(name))
        for _, attribute, value in [a for a in self._attributes if a[0] == node_type]:
            node.SetAttribute(attribute, value or "")
        self._scene.AddNode(node)
        if self.selectNodeUponCreation:
            self._select(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        if self._current:
            self.nodeAboutToBeRemoved.emit(self._current)
            self._scene.RemoveNode(self._current)

    def editCurrentNode(self) -> None:
        self.nodeAboutToBeEdited.emit(self._current)

    def renameCurrentNode(self) -> None:
        name = QtWidgets.QInputDialog.getText(
            self, "Rename", "New name:", QtWidgets.QLineEdit.Normal, self._current.GetName()
        )
        if name:
            self._current.SetName(name)
            self.currentNodeRenamed.emit(self._current)

    def _nodes(self) -> list[Node]:
        scene = self._scene
        return [n for n in (_nodes_in(scene) if scene else []) if self._is_offered(n)]

    def _is_offered(self, node: Node) -> bool:
        kind = node.GetClassName()
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if kind not in self.nodeTypes:
            inherits = any(node.IsA(node_type) for node_type in self.nodeTypes)
            if not (inherits and self.showChildNodeTypes) or any(
                node.IsA(t) for t in self.hideChildNodeTypes
            ):
                return False
        asked = [(name, value) for node_type, name, value in self._attributes if node.IsA(node_type)]
        present = ((node.GetAttribute(name), value) for name, value in asked)
        return all(has is not None and value in (None, has) for has, value in present)

    def _on_scene_changed(self) -> None:
        if self._scene is not None and self._scene.IsImporting():
            return  # the references between nodes aren't valid yet
        nodes = self._nodes()
        for node in nodes:
            self.stop_observing(node)
            self.observe(node, vtk.vtkCommand.ModifiedEvent, self._on_node_modified)
        if self._current not in nodes:
            self._select(None)  # as in Slicer, nothing is selected by itself
        self._show_items()

    def _on_imported(self) -> None:
        """The rows of all nodes are removed and made anew, so the current node is lost (Slicer's issue 7492)."""
        self._select(None)
        self._on_scene_changed()

    def _on_node_modified(self) -> None:
        shown = self._combo_box.currentText
        self._show_items()
        if is_current() and self._current and self._combo_box.currentText != shown:
            self._tell()  # 5.12 listens to the text of the combo box

    def _show_items(self) -> None:
        box = self._combo_box
        box.enabled = self._scene is not None
        box.blockSignals(True)
        box.clear()
        if self.noneEnabled:
            box.addItem(self.noneDisplay, None)
        for node in self._nodes():
            box.addItem(node.GetName(), node)
        box.setCurrentIndex(self._row_of(self._current))
        self._show_actions()
        box.blockSignals(False)

    def _row_of(self, node: Node | None) -> int:
        rows = [row for row in range(self._combo_box.count) if self._combo_box.itemData(row) is node]
        return rows[0] if rows else -1

    def _show_actions(self) -> None:
        kind = next(iter(self.nodeTypes), "vtkMRMLNode").removeprefix("vtkMRML").removesuffix("Node")
        current = self._labels.get(next(iter(self.nodeTypes), ""), kind)
        offered = (
            (self.addEnabled, f"Create new {current}", self.addNode),
            (self.removeEnabled, f"Delete current {current}", self.removeCurrentNode),
            (self.editEnabled, f"Edit current {current}...", self.editCurrentNode),
            (self.renameEnabled, f"Rename current {current}...", self.renameCurrentNode),
            *((True, action.text, action.trigger) for action in self._actions),
        )
        shown = [(text, call) for is_shown, text, call in offered if is_shown]
        if shown:
            self._combo_box.insertSeparator(self._combo_box.count)
        for text, call in shown:
            self._combo_box.addItem(text, call)

    def _on_activated(self, row: int) -> None:
        chosen = self._combo_box.itemData(row)
        if callable(chosen) and not isinstance(chosen, Node):
            self._combo_box.setCurrentIndex(self._row_of(self._current))
            chosen()
            return
        self._select(chosen)
        self.nodeActivated.emit(chosen)

    def _select(self, node: Node | None) -> None:
        if node is self._current:
            return
        self._current = node
        self._combo_box.setCurrentIndex(self._row_of(node))
        self._tell()

    def _tell(self) -> None:
        self.currentNodeChanged.emit(self._current)
        self.currentNodeIDChanged.emit(self._current.GetID() if self._current else "")


class qMRMLColorTableComboBox(qMRMLNodeComboBox):
    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.nodeTypes = ["vtkMRMLColorNode"]
        self.addEnabled = self.removeEnabled = False
        self.showHidden = True


class qMRMLSegmentsTableView(qMRMLWidget):
    """The segments of a segmentation, one a row: shown or not, colour, opacity, name."""

    selectionChanged = Signal(QtCore.QItemSelection, QtCore.QItemSelection)

    COLUMNS = ("", "Color", "Opacity", "Name")

    selectionMode = Property(
        int, lambda self: int(self._table.selectionMode()), lambda self, value: self.setSelectionMode(value)
    )
    headerVisible = Property(
        bool,
        lambda self: not self._table.horizontalHeader().isHidden(),
        lambda self, shown: self.setHeaderVisible(shown),
    )
    readOnly = stored(bool, "readOnly", False)
    filterBarVisible = stored(bool, "filterBarVisible", False)
    layerColumnVisible = stored(bool, "layerColumnVisible", False)
    statusColumnVisible = stored(bool, "statusColumnVisible", False)
    visibilityColumnVisible = Property(
        bool,
        lambda self: not self._table.isColumnHidden(0),
        lambda self, shown: self.setVisibilityColumnVisible(shown),
    )
    colorColumnVisible = Property(
        bool,
        lambda self: not self._table.isColumnHidden(1),
        lambda self, shown: self.setColorColumnVisible(shown),
    )
    opacityColumnVisible = Property(
        bool,
        lambda self: not self._table.isColumnHidden(2),
        lambda self, shown: self.setOpacityColumnVisible(shown),
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._node: slicer_core.vtkMRMLSegmentationNode | None = None
        self._hidden_segments: list[str] = []
        self._table = QtWidgets.QTableWidget(0, len(self.COLUMNS), self)
        self._table.setHorizontalHeaderLabels(self.COLUMNS)
        self._table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        self._table.verticalHeader().hide()
        self._table.horizontalHeader().stretchLastSection = True
        for column, width in enumerate((28, 48, 60)):
            self._table.setColumnWidth(column, width)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._table.selectionModel().selectionChanged.connect(self.selectionChanged)
        self._table.itemChanged.connect(self._on_edited)

    def setSegmentationNode(self, node: slicer_core.vtkMRMLSegmentationNode | None) -> None:
        if node is self._node:
            return
        if self._node:
            self.stop_observing(self._node)
        self._node = node
        if node:
            self.observe(node, vtk.vtkCommand.ModifiedEvent, self._refresh)
            for event in (
                slicer_core.vtkSegmentation.SegmentAdded,
                slicer_core.vtkSegmentation.SegmentRemoved,
            ):
                self.observe(node, event, self._refresh)
            self.observe(node, slicer_core.vtkSegmentation.SegmentModified, self._refresh)
            self.observe(node, slicer_core.vtkMRMLDisplayableNode.DisplayModifiedEvent, self._refresh)
        self._refresh()

    def segmentationNode(self) -> slicer_core.vtkMRMLSegmentationNode | None:
        return self._node

    def segmentCount(self) -> int:
        return self._table.rowCount

    def segmentIDForRow(self, row: int) -> str:
        item = self._table.item(row, 3)
        return item.data(QtNamespace.UserRole) if item else ""

    def rowForSegmentID(self, segment_id: str) -> int:
        return next((r for r in range(self._table.rowCount) if self.segmentIDForRow(r) == segment_id), -1)

    def displayedSegmentIDs(self) -> list[str]:
        return [self.segmentIDForRow(row) for row in range(self._table.rowCount)]

    def selectedSegmentIDs(self) -> list[str]:
        rows = sorted({index.row() for index in self._table.selectionModel().selectedIndexes})
        return [self.segmentIDForRow(row) for row in rows]

    def setSelectedSegmentIDs(self, segment_ids: list[str]) -> None:
        model, selection = self._table.model(), QtCore.QItemSelection()
        for row in (self.rowForSegmentID(segment_id) for segment_id in segment_ids):
            if row >= 0:
                selection.select(model.index(row, 0), model.index(row, len(self.COLUMNS) - 1))
        self._table.selectionModel().select(selection, QtCore.QItemSelectionModel.ClearAndSelect)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def setHideSegments(self, segment_ids: list[str]) -> None:
        self._hidden_segments = list(segment_ids)
        self._refresh()

    def hideSegments(self) -> list[str]:
        return self._hidden_segments

    def tableWidget(self) -> QtWidgets.QTableView:
        return self._table

    def setSelectionMode(self, mode: int) -> None:
        self._table.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode(mode))

    def setHeaderVisible(self, visible: bool) -> None:
        self._table.horizontalHeader().setVisible(visible)

    def setVisibilityColumnVisible(self, visible: bool) -> None:
        self._table.setColumnHidden(0, not visible)

    def setColorColumnVisible(self, visible: bool) -> None:
        self._table.setColumnHidden(1, not visible)

    def setOpacityColumnVisible(self, visible: bool) -> None:
        self._table.setColumnHidden(2, not visible)

    def setReadOnly(self, read_only: bool) -> None:
        self.readOnly = read_only

    def _refresh(self) -> None:
        selected = self.selectedSegmentIDs()
        segmentation = self._node.GetSegmentation() if self._node else None
        ids = (
            [segmentation.GetNthSegmentID(i) for i in range(segmentation.GetNumberOfSegments())]
            if segmentation
            else []
        )
        ids = [segment_id for segment_id in ids if segment_id not in self._hidden_segments]
        self._table.blockSignals(True)
        self._table.rowCount = len(ids)
        for row, segment_id in enumerate(ids):
            self._fill_row(row, segment_id)
        self._table.blockSignals(False)
        if self.selectedSegmentIDs() != selected:
            self.setSelectedSegmentIDs(selected)

    def _fill_row(self, row: int, segment_id: str) -> None:
        segment, display = self._node.GetSegmentation().GetSegment(segment_id), self._node.GetDisplayNode()
        shown = QtWidgets.QTableWidgetItem()
        visible = display is None or display.GetSegmentVisibility(segment_id)
        shown.setCheckState(QtNamespace.Checked if visible else QtNamespace.Unchecked)
        colour = QtWidgets.QTableWidgetItem()
        colour.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
        opacity = f"{display.GetSegmentOpacity3D(segment_id):.2f}" if display else ""
        name = QtWidgets.QTableWidgetItem(segment.GetName())
        name.setData(QtNamespace.UserRole, segment_id)
        for column, item in enumerate((shown, colour, QtWidgets.QTableWidgetItem(opacity), name)):
            self._table.setItem(row, column, item)

    def _on_edited(self, item: QtWidgets.QTableWidgetItem) -> None:
        segment_id = self.segmentIDForRow(item.row())
        if item.column() == 0 and self._node.GetDisplayNode():
            shown = item.checkState() == QtNamespace.Checked
            self._node.GetDisplayNode().SetSegmentVisibility(segment_id, shown)
        elif item.column() == 3 and not self.readOnly:
            self._node.GetSegmentation().GetSegment(segment_id).SetName(item.text())


class qMRMLSegmentationShow3DButton(ctkMenuButton, Observing):
    """Shows the surfaces of a segmentation while it is down."""

    locked = stored(bool, "locked", False)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._node: slicer_core.vtkMRMLSegmentationNode | None = None
        self.text, self.checkable, self.enabled = "Show 3D", True, False
        self.toggled.connect(self._on_toggled)

    def setSegmentationNode(self, node: slicer_core.vtkMRMLSegmentationNode | None) -> None:
        self.stop_observing()
        self._node = node
        if node is not None:
            self.observe(node, slicer_core.vtkMRMLDisplayableNode.DisplayModifiedEvent, self._refresh)
        self._refresh()

    def segmentationNode(self) -> slicer_core.vtkMRMLSegmentationNode | None:
        return self._node

    def setLocked(self, locked: bool) -> None:
        self.locked = locked
        self._refresh()

    def _refresh(self) -> None:
        display = self._node.GetDisplayNode() if self._node else None
        self.enabled = display is not None and not self.locked
        self.blockSignals(True)
        self.checked = display is not None and bool(display.GetVisibility3D()) and self._has_surface()
        self.blockSignals(False)

    def _has_surface(self) -> bool:
        name = slicer_core.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        return self._node.GetSegmentation().ContainsRepresentation(name)

    def _on_toggled(self, shown: bool) -> None:
        if self._node is None:
            return
        if shown:
            self._node.CreateClosedSurfaceRepresentation()
        self._node.GetDisplayNode().SetVisibility3D(shown)


class qMRMLSegmentSelectorWidget(qMRMLWidget):
    """A segmentation and one of its segments."""

    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)

    noneEnabled = stored(bool, "noneEnabled", False)
    editEnabled = stored(bool, "editEnabled", False)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._node_box = qMRMLNodeComboBox(self)
        self._node_box.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._segment_box = QtWidgets.QComboBox(self)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._node_box)
        layout.addWidget(self._segment_box)
        self.mrmlSceneChanged.connect(self._node_box.setMRMLScene)
        self._node_box.currentNodeChanged.connect(self._on_node)
        self._segment_box.currentIndexChanged.connect(
            lambda: self.currentSegmentChanged.emit(self.currentSegmentID())
        )

    def currentNode(self) -> Node | None:
        return self._node_box.currentNode()

    def setCurrentNode(self, node: Node | None) -> None:
        self._node_box.setCurrentNode(node)

    def currentNodeID(self) -> str:
        return self._node_box.currentNodeID

    def currentSegmentID(self) -> str:
        return self._segment_box.currentData or ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        self._segment_box.setCurrentIndex(self._segment_box.findData(segment_id))

    def _on_node(self, node: Node | None) -> None:
        self._segment_box.clear()
        segmentation = node.GetSegmentation() if node else None
        for index in range(segmentation.GetNumberOfSegments() if segmentation else 0):
            segment_id = segmentation.GetNthSegmentID(index)
            self._segment_box.addItem(segmentation.GetSegment(segment_id).GetName(), segment_id)
        self.currentNodeChanged.emit(node)


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """Which segmentation and volume were sent to the Segment Editor; its effects are not here."""

    currentSegmentIDChanged = Signal(str)
    segmentationNodeChanged = Signal(object)
    sourceVolumeNodeChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._editor_node = self._segmentation = self._source = None
        self._segment_id = ""

    def setMRMLSegmentEditorNode(self, node: Node | None) -> None:
        self._editor_node = node

    def mrmlSegmentEditorNode(self) -> Node | None:
        return self._editor_node

    def setSegmentationNode(self, node: Node | None) -> None:
        self._segmentation = node
        self.segmentationNodeChanged.emit(node)

    def segmentationNode(self) -> Node | None:
        return self._segmentation

    def setSourceVolumeNode(self, node: Node | None) -> None:
        self._source = node
        self.sourceVolumeNodeChanged.emit(node)

    def sourceVolumeNode(self) -> Node | None:
        return self._source

    def setCurrentSegmentID(self, segment_id: str) -> None:
        self._segment_id = segment_id
        self.currentSegmentIDChanged.emit(segment_id)

    def currentSegmentID(self) -> str:
        return self._segment_id


def _nodes_in(scene: Scene) -> list[Node]:
    return [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]


WIDGETS = {name: value for name, value in globals().items() if name.startswith(("qMRML", "qSlicer"))}
