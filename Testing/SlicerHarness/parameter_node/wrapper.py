"""The class decorator, and what it gives a class."""

import itertools
import typing
import weakref
from typing import Any

import qt
import slicer
import vtk

from ..version import is_current
from .annotations import Default
from .gui import Connector, connector_for
from .storage import Declared

SlicerParameterNamePropertyName = "SlicerParameterName"

left_behind: dict[tuple[Any, int], Any] = {}
"""Wrappers whose observer `disconnectGui` of Slicer 5.10 left at the node, by node and tag. The observer calls the
wrapper, which it doesn't keep from being collected: Slicer may crash then, so here they are kept."""


def forget_left_behind() -> None:
    for node, tag in left_behind:
        node.RemoveObserver(tag)
    left_behind.clear()


class _Field(Declared):
    """One field: a property of the class."""

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        return self if wrapper is None else wrapper._values[self.name]

    def __set__(self, wrapper: Any, value: Any) -> None:
        wrapper._write(self, value)

    def read(self, wrapper: Any) -> Any:
        """The value in the node, which gets the default where it has none."""
        name = wrapper._prefix + self.name
        if not self.store.has(wrapper.parameterNode, name):
            self.store.write(wrapper.parameterNode, name, self.default.value)
        return self.store.read(wrapper.parameterNode, name)


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Makes the annotated class a view of a parameter node: `Parameters(logic.getParameterNode())`."""
    return _wrap if classtype is None else _wrap(classtype)


def isParameterNodeWrapper(candidate: Any) -> bool:
    return getattr(candidate, "_is_parameter_node_wrapper", False)


def _wrap(cls: type) -> type:
    fields = {
        name: _Field(name, annotated, cls)
        for name, annotated in typing.get_type_hints(cls, include_extras=True).items()
    }
    for name, value in vars(_Wrapper).items():
        if not name.startswith("__"):
            if name in fields or name in vars(cls):
                raise ValueError(f"'{name}' is reserved in a parameterNodeWrapper")
            setattr(cls, name, value)
    for name, field in fields.items():
        setattr(cls, name, field)
    cls.__init__, cls.__del__ = _Wrapper.__init__, _Wrapper.__del__
    cls.allParameters = fields
    cls._is_parameter_node_wrapper = True
    return cls


class _Wrapper:
    """The methods of every wrapped class.

    As in Slicer the values are cached, and read again from the node when it is modified, never else: a reference that
    the scene resolves while it is imported goes unnoticed.
    """

    allParameters: dict[str, _Field]
    _is_parameter_node_wrapper = True

    def __init__(self, parameterNode: Any, prefix: str | None = None):
        self.parameterNode, self._prefix = parameterNode, prefix or ""
        self._connectors: dict[int, dict[str, Connector]] = {}
        self._observers: dict[int, int] = {}
        self._tags = itertools.count()
        self._updating = False
        self._writing = ""
        self._values = {name: field.read(self) for name, field in self.allParameters.items()}
        self._cache_tags = [self._keep_up_to_date(field) for field in self.allParameters.values()]

    def __del__(self) -> None:
        for tag in getattr(self, "_cache_tags", []):
            self.parameterNode.RemoveObserver(tag)

    def _keep_up_to_date(self, field: _Field) -> int:
        """One observer a field, as in Slicer: VTK calls the first observer of an object after all others."""
        reference = weakref.ref(self)

        def read_again(*_: Any) -> None:
            wrapper = reference()
            if wrapper._writing != field.name:
                wrapper._values[field.name] = field.read(wrapper)

        return self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, read_again)

    def _write(self, field: _Field, value: Any) -> None:
        before, self._writing = self._writing, field.name
        try:
            with slicer.util.NodeModify(self.parameterNode):
                field.store.write(self.parameterNode, self._prefix + field.name, value)
                self._values[field.name] = field.read(self)
        finally:
            self._writing = before

    def _field(self, name: str) -> _Field:
        """The field of that name, or that a member of a pack (`field.member`) is in."""
        name = name.partition(".")[0]
        if name not in self.allParameters:
            raise ValueError(f"there is no parameter '{name}', only {', '.join(self.allParameters)}")
        return self.allParameters[name]

    def default(self, name: str) -> Default:
        return self._field(name).default

    @classmethod
    def dataType(cls, name: str) -> Any:
        first, _, rest = name.partition(".")
        field = cls.allParameters[first]
        return field.store.kind.dataType(rest) if rest else field.annotated

    def isCached(self, name: str) -> bool:
        """All types that are here are cached."""
        self._field(name)
        return True

    def getValue(self, name: str) -> Any:
        value, _, rest = self._values[self._field(name).name], *name.partition(".")[1:]
        return value.getValue(rest) if rest else value

    def setValue(self, name: str, value: Any) -> None:
        rest = name.partition(".")[2]
        if rest:
            self._values[self._field(name).name].setValue(rest, value)
        else:
            self._field(name).__set__(self, value)

    def connectGui(self, gui: Any) -> int:
        """Connects the widgets whose dynamic property SlicerParameterName names a parameter; returns a tag."""
        widgets = gui.findChildren(qt.QWidget) if hasattr(gui, "findChildren") else vars(gui).values()
        named = {w.property(SlicerParameterNamePropertyName): w for w in widgets}
        return self.connectParametersToGui({name: widget for name, widget in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        for name in mapping:
            self._field(name)
        connectors = {name: connector_for(widget, self.dataType(name)) for name, widget in mapping.items()}
        tag = next(self._tags)
        self._connectors[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.connect(lambda name=name, connector=connector: self._take_from_gui(name, connector))
        self._observers[tag] = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update_gui())
        return tag

    def disconnectGui(self, guiTag: int) -> None:
        for connector in self._connectors.pop(guiTag, {}).values():
            connector.disconnect()
        observer = self._observers.pop(guiTag, None)
        if observer is not None and is_current():
            self.RemoveObserver(observer)
        elif observer is not None:
            left_behind[self.parameterNode, observer] = self

    def _take_from_gui(self, name: str, connector: Connector) -> None:
        if not self._updating:
            with slicer.util.NodeModify(self):
                self.setValue(name, connector.read())

    def _update_gui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in self._connectors.values():
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was_modifying: int) -> int:
        return self.parameterNode.EndModify(was_modifying)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        left_behind.pop((self.parameterNode, tag), None)
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def findChildWidgetForParameter(widget: Any, parameter: str) -> Any:
    children = widget.findChildren(qt.QWidget)
    return next((w for w in children if w.property(SlicerParameterNamePropertyName) == parameter), None)
