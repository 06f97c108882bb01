"""What the scene remembers: the nodes in use and the choices of the panels."""

from typing import Annotated

from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Default, WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class Parameters:
    """The parameter node of the module. A widget names its field in the property ``SlicerParameterName``."""

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
