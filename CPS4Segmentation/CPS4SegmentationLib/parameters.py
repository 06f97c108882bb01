"""What the scene remembers: the nodes in use and the choices of the panels."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLScriptedModuleNode,
    vtkMRMLSegmentationNode,
)
from slicer.parameterNodeWrapper import Default, WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class _Fields:
    """What is kept in the parameter node. A widget names its field in the property ``SlicerParameterName``."""

    inputVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    reference: vtkMRMLSegmentationNode
    attentionVolume: vtkMRMLScalarVolumeNode
    binaryVolume: vtkMRMLLabelMapVolumeNode
    countLevels: Annotated[bool, Default(True)]
    prompt: str
    """What the shown attention map belongs to: a class name or a free prompt; empty: none is shown."""
    opacity: Annotated[float, WithinRange(0, 1), Default(0.5)]
    threshold: Annotated[float, WithinRange(0, 1), Default(0.1)]
    labelledPercent: Annotated[float, WithinRange(1, 100), Default(100.0)]

    if TYPE_CHECKING:  # what the decorator adds
        parameterNode: vtkMRMLScriptedModuleNode

        def __init__(self, parameterNode: vtkMRMLScriptedModuleNode): ...

        def connectGui(self, gui: Any) -> int: ...

        def disconnectGui(self, guiTag: int) -> None: ...

        def AddObserver(self, event: Any, callback: Callable, priority: float = 0.0) -> int: ...

        def RemoveObserver(self, tag: int) -> None: ...


class Parameters(_Fields):
    """The parameter node of the module.

    ``disconnectGui`` of Slicer 5.10 leaves an observer behind that calls this object for ever. So the observers of
    each connection are written down here and removed with it, in any version.
    """

    def __init__(self, node: Any):
        self._observers_of: dict[int, list[int]] = {}
        self._added: list[int] = []
        super().__init__(node)

    def connectGui(self, gui: Any) -> int:
        """Keep the widgets of ``gui`` and their fields equal; return a tag for ``disconnectGui``."""
        self._added = []
        tag = super().connectGui(gui)
        self._observers_of[tag] = self._added
        return tag

    def disconnectGui(self, guiTag: int) -> None:
        """Let widgets and fields go apart."""
        super().disconnectGui(guiTag)
        for observer in self._observers_of.pop(guiTag, []):
            self.RemoveObserver(observer)

    def AddObserver(self, event: Any, callback: Callable, priority: float = 0.0) -> int:
        """Observe the parameter node; return the observer's tag."""
        observer = super().AddObserver(event, callback, priority)
        self._added.append(observer)
        return observer
