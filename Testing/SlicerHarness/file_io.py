"""Slicer's input and output manager, on the storage nodes and logics that slicer-core brings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer_core
import vtk
from PySide6 import QtCore
from PySide6.QtCore import Signal

SCENE_SUFFIXES = (".mrml", ".mrb")
FILE_TYPES = {
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".mrk.json": "MarkupsFile",
    ".nii.gz": "VolumeFile",
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
    ".tfm": "TransformFile",
    ".h5": "TransformFile",
    ".ctbl": "ColorTableFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".obj": "ModelFile",
    ".txt": "TextFile",
    ".json": "TextFile",
}


class qSlicerCoreIOManager(QtCore.QObject):
    newFileLoaded = Signal(object)
    fileSaved = Signal(object)

    def __init__(self, scene: slicer_core.vtkMRMLScene, logic_of: Callable[[str], Any]):
        super().__init__()
        self._scene, self._logic_of = scene, logic_of

    def fileType(self, path: str) -> str:
        name = str(path).lower()
        return next((kind for suffix, kind in FILE_TYPES.items() if name.endswith(suffix)), "VolumeFile")

    def loadNodes(
        self, file_type: str, properties: dict, loaded: vtk.vtkCollection | None = None, messages: Any = None
    ) -> bool:
        path = str(properties["fileName"])
        if file_type == "SceneFile":
            return self.loadScene(path, bool(properties.get("clear", False)))
        readers = {
            "VolumeFile": self._read_volume,
            "SegmentationFile": self._read_segmentation,
            "TransformFile": lambda p, *_: self._logic_of("Transforms").AddTransform(p, self._scene),
            "TableFile": lambda p, *_: self._logic_of("Tables").AddTable(p),
            "ModelFile": lambda p, *_: self._logic_of("Models").AddModel(p),
            "ColorTableFile": lambda p, *_: self._logic_of("Colors").LoadColorFile(p),
            "MarkupsFile": lambda p, *_: self._read_markups(p),
            "TextFile": lambda p, *_: self._read_with_storage(p, "vtkMRMLTextNode"),
        }
        if file_type not in readers:
            raise NotImplementedError(f"the harness reads no {file_type}")
        messages = messages or slicer_core.vtkMRMLMessageCollection()
        node = readers[file_type](path, properties, messages) if Path(path).is_file() else None
        if node is None:
            messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"{file_type} can't be read: {path}")
            return False
        if loaded is not None:
            loaded.AddItem(node)
        self.newFileLoaded.emit(dict(properties, fileType=file_type, nodeIDs=[node.GetID()]))
        return True

    def loadScene(self, path: str, clear: bool = True) -> bool:
        if path.lower().endswith(".mrb"):
            return bool(self._scene.ReadFromMRB(path, clear))
        self._scene.SetURL(path)
        return bool(self._scene.Connect() if clear else self._scene.Import())

    def _read_volume(self, path: str, properties: dict, messages: Any) -> Any:
        names = ("labelmap", "center", "singleFile", "autoWindowLevel", "discardOrientation")
        options = sum(
            1 << bit for bit, name in enumerate(names) if properties.get(name, name == "autoWindowLevel")
        )
        name = properties.get("name") or _name_from(path)
        node = self._logic_of("Volumes").AddArchetypeVolume(path, name, options, None, messages)
        if node is not None and properties.get("show", True):
            self._show(node, bool(properties.get("labelmap")))
        return node

    def _show(self, node: Any, is_label_map: bool) -> None:
        """As the volume reader does: the new volume goes into the selection, and so into all slice views."""
        application = self._logic_of("")
        selection = application.GetSelectionNode()
        if is_label_map:
            selection.SetActiveLabelVolumeID(node.GetID())
        else:
            selection.SetActiveVolumeID(node.GetID())
        application.PropagateVolumeSelection()

    def _read_segmentation(self, path: str, properties: dict, messages: Any) -> Any:
        colours = self._scene.GetNodeByID(properties["colorNodeID"]) if "colorNodeID" in properties else None
        opacities, name = bool(properties.get("autoOpacities", True)), properties.get("name", "")
        return self._logic_of("Segmentations").LoadSegmentationFromFile(
            path, opacities, name, colours, messages
        )

    def _read_markups(self, path: str) -> Any:
        node_id = self._logic_of("Markups").LoadMarkups(path, _name_from(path))
        return self._scene.GetNodeByID(node_id.split(",")[0]) if node_id else None

    def _read_with_storage(self, path: str, node_class: str) -> Any:
        node = self._scene.AddNewNodeByClass(node_class, _name_from(path))
        node.AddDefaultStorageNode(path)
        if node.GetStorageNode().ReadData(node):
            return node
        self._scene.RemoveNode(node)
        return None

    def fileWriterFileType(self, node: Any) -> str:
        kinds = (
            ("vtkMRMLSegmentationNode", "SegmentationFile"),
            ("vtkMRMLVolumeNode", "VolumeFile"),
            ("vtkMRMLTransformNode", "TransformFile"),
            ("vtkMRMLTableNode", "TableFile"),
            ("vtkMRMLModelNode", "ModelFile"),
            ("vtkMRMLMarkupsNode", "MarkupsFile"),
            ("vtkMRMLTextNode", "TextFile"),
            ("vtkMRMLColorTableNode", "ColorTableFile"),
        )
        return next((file_type for name, file_type in kinds if node.IsA(name)), "NoFile")

    def saveNodes(self, file_type: str, properties: dict, messages: Any = None) -> bool:
        path = str(properties["fileName"])
        messages = messages or slicer_core.vtkMRMLMessageCollection()
        if file_type == "SceneFile":
            return self.saveScene(path, None, messages)
        node = self._scene.GetNodeByID(properties["nodeID"])
        saved = self._write(node, path, messages, bool(properties.get("useCompression", True)))
        if saved:
            self.fileSaved.emit(dict(properties, fileType=file_type))
        return saved

    def saveScene(self, path: str, screenshot: Any = None, messages: Any = None) -> bool:
        if path.lower().endswith(".mrb"):
            return bool(self._scene.WriteToMRB(path, None, messages))
        if path.lower().endswith(".mrml"):
            self._scene.SetURL(path)
            return bool(self._scene.Commit(path))
        return bool(self._logic_of("").SaveSceneToSlicerDataBundleDirectory(path, None))

    def _write(self, node: Any, path: str, messages: Any, compress: bool) -> bool:
        storage = node.GetStorageNode()
        if storage is None or not storage.SupportedFileType(path):
            node.AddDefaultStorageNode(path)
            storage = node.GetStorageNode()
        if storage is None or not Path(path).parent.is_dir():
            messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"can't be written: {path}")
            return False
        storage.SetFileName(path)
        storage.SetUseCompression(compress)
        return bool(storage.WriteData(node))

    def extractKnownExtension(self, path: str, node: Any) -> str:
        known = [suffix for suffix in self._suffixes(node) if str(path).lower().endswith(suffix)]
        return max(known, key=len, default="." + str(path).rpartition(".")[2])

    def fileWriterExtensions(self, node: Any) -> list[str]:
        storage = self._storage_like(node)
        formats = storage.GetSupportedWriteFileTypes()
        return [formats.GetValue(index) for index in range(formats.GetNumberOfValues())]

    def _suffixes(self, node: Any) -> list[str]:
        helper = slicer_core.vtkDataFileFormatHelper
        return [helper.GetFileExtensionFromFormatString(f).lower() for f in self.fileWriterExtensions(node)]

    def _storage_like(self, node: Any) -> Any:
        if storage := node.GetStorageNode():
            return storage
        storage = node.CreateDefaultStorageNode()
        storage.UnRegister(None)
        storage.SetScene(self._scene)  # it knows its formats from there
        return storage

    def exportNodes(
        self, node_ids: list[str], paths: list[str], properties: dict, harden: bool, messages: Any = None
    ) -> bool:
        """Writes copies of the nodes, whose own storage stays as it is."""
        messages = messages or slicer_core.vtkMRMLMessageCollection()
        written = []
        for node_id, path in zip(node_ids, paths, strict=True):
            node = self._scene.GetNodeByID(node_id)
            storage = self._scene.CreateNodeByClass(self._storage_like(node).GetClassName())
            storage.UnRegister(None)
            transform = node.GetParentTransformNode() if harden and hasattr(node, "HardenTransform") else None
            copy = self._hardened(node) if transform else node
            storage.SetFileName(str(path))
            storage.SetScene(self._scene)
            written.append(bool(storage.WriteData(copy)))
            if copy is not node:
                self._scene.RemoveNode(copy)
        return all(written)

    def _hardened(self, node: Any) -> Any:
        copy = self._scene.AddNewNodeByClass(node.GetClassName())
        copy.CopyContent(node)
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        copy.HardenTransform()
        return copy


def _name_from(path: str) -> str:
    name = Path(path).name
    known = next((suffix for suffix in FILE_TYPES if name.lower().endswith(suffix)), Path(name).suffix)
    return name[: len(name) - len(known)]
