"""`slicer.parameterNodeWrapper`: a class of typed fields kept in a vtkMRMLScriptedModuleNode, and its widgets.

Written after Slicer's developer guide ("Parameter node wrapper"). Fields may be bool, int, float, str, an
enumeration, a pathlib path, a MRML node, FloatRange, and lists, tuples, dicts, unions and Optional of these. Values
lie in the node under the same names and in the same form as Slicer writes them. Packs (`parameterPack`) of these
too. Not here: typing.Any, QColor, serializers and connectors of one's own; all are refused when the class is made.
"""

from .annotations import (
    Choice,
    Decimals,
    Default,
    Exclude,
    FloatRange,
    IsInstance,
    Maximum,
    Minimum,
    NotNone,
    RangeBounds,
    SingleStep,
    Validator,
    WithinRange,
)
from .pack import isParameterPack, nestedParameterNames, parameterPack
from .wrapper import (
    SlicerParameterNamePropertyName,
    findChildWidgetForParameter,
    forget_left_behind,  # noqa: F401
    isParameterNodeWrapper,
    left_behind,  # noqa: F401
    parameterNodeWrapper,
)

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "FloatRange",
    "IsInstance",
    "Maximum",
    "Minimum",
    "NotNone",
    "RangeBounds",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "findChildWidgetForParameter",
    "isParameterNodeWrapper",
    "isParameterPack",
    "nestedParameterNames",
    "parameterNodeWrapper",
    "parameterPack",
]
