"""Gives the PySide6 classes the manners of PythonQt, through which a Slicer module sees Qt.

What PythonQt does, from its source (PythonQtInstanceWrapper.cpp, PythonQtStdDecorators.cpp):

- each Q_PROPERTY is an attribute, so `edit.text` is a string and `edit.text()` fails; setters stay beside it;
- an attribute that is no property can't be set on a Qt object, nor a slot or a signal overwritten;
- dynamic properties and children are found by name, `name` stands for `objectName`;
- `widget.connect("clicked()", f)` beside `widget.clicked.connect(f)`; an unknown signal connects to nothing,
  which here is an error;
- a connection keeps its callable alive for as long as the sender lives, a bound method of Python too;
- enumerators are integers, written without the name of their enumeration (`qt.Qt.AlignLeft`);
- static dialogs return the path alone, not a pair.
"""

import enum
import functools
import inspect
import re
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets

QT_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork, QtUiTools)
HARNESS_PACKAGE = __name__.partition(".")[0]

_adopted = False
_adapters: dict[Callable, Callable] = {}  # of connections that pass no arguments
_holders: weakref.WeakValueDictionary[tuple, Callable] = weakref.WeakValueDictionary()


class QtProperty:
    """A Q_PROPERTY as a Python attribute; on the class it gives what was there before (a static method, say)."""

    def __init__(self, cls: type, meta: QtCore.QMetaProperty):
        self.name = meta.name()
        self.writable = meta.isWritable()
        self.type_name = meta.typeName()
        self.on_class = getattr(cls, self.name, None)
        self.getter = self._find_getter(cls, meta)

    def _find_getter(self, cls: type, meta: QtCore.QMetaProperty) -> Callable[[QtCore.QObject], Any]:
        """The C++ getter where Python has it: it returns enumerators, where property() returns numbers."""
        capitalised = self.name[0].upper() + self.name[1:]
        for candidate in (f"is{capitalised}", self.name):
            method = getattr(cls, candidate, None)
            is_bound_to_class = isinstance(inspect.getattr_static(cls, candidate, None), staticmethod)
            if inspect.ismethoddescriptor(method) and not is_bound_to_class:
                return method
        return lambda widget: widget.property(self.name)

    def __get__(self, widget: QtCore.QObject | None, owner: type) -> Any:
        return self.on_class if widget is None else self.getter(widget)

    def __set__(self, widget: QtCore.QObject, value: Any) -> None:
        kind = type(widget).__name__
        if not self.writable:
            raise AttributeError(f"property '{self.name}' of {kind} can't be written")
        if not widget.setProperty(self.name, value):
            raise AttributeError(f"property '{self.name}' of {kind} is a {self.type_name}, not {value!r}")


def adopt() -> None:
    """Changes the PySide6 classes of this process, once and for good."""
    global _adopted
    if _adopted:
        return
    _adopted = True
    classes = list(qt_classes())
    for cls in classes:
        _properties_as_attributes(cls)
    for cls in classes:
        _refuse_unknown_attributes(cls)
    _enumerators_as_integers()
    _add_decorators()
    _keep_callables_alive()
    _single_values_from_static_dialogs()


def forget_connections() -> None:
    _adapters.clear()


def qt_classes() -> Iterator[type]:
    """The QObject classes of the wrapped Qt modules, base classes first."""
    found = {
        value
        for module in QT_MODULES
        for name in dir(module)
        if inspect.isclass(value := getattr(module, name)) and issubclass(value, QtCore.QObject)
    }
    return iter(sorted(found, key=lambda cls: (len(cls.__mro__), cls.__name__)))


def _properties_as_attributes(cls: type) -> None:
    meta = cls.staticMetaObject
    for index in range(meta.propertyCount()):
        prop = meta.property(index)
        # A subclass that redeclares the getter (QPushButton.sizeHint) would hide the inherited property.
        if index >= meta.propertyOffset() or prop.name() in cls.__dict__:
            setattr(cls, prop.name(), QtProperty(cls, prop))


_plain_setattr = shiboken6.Object.__setattr__


def _refuse_unknown_attributes(cls: type) -> None:
    def set_attribute(self: QtCore.QObject, name: str, value: Any) -> None:
        present = inspect.getattr_static(type(self), name, None)
        if isinstance(present, QtCore.Property):
            if present.fset is None:
                raise AttributeError(f"property '{name}' of {type(self).__name__} can't be written")
            present.fset(self, value)
        elif isinstance(present, QtProperty | property) or name.startswith("_") or _is_bound_signal(value):
            _plain_setattr(self, name, value)
        elif name == "name":
            self.setObjectName(value)
        elif present is not None and _owner(type(self), name).__module__.startswith("PySide6"):
            raise AttributeError(
                f"'{name}' is a slot, signal or enumerator of {type(self).__name__}: it can't be set"
            )
        elif name.encode() in [bytes(known) for known in self.dynamicPropertyNames()]:
            self.setProperty(name, value)
        elif _is_written_in_python(type(self)):
            _plain_setattr(self, name, value)
        elif _is_own_widget(self, name, value):
            pass  # PySide6's QUiLoader offers every widget of a .ui file as an attribute of its root
        else:
            raise AttributeError(f"{type(self).__name__} has no property '{name}'")

    cls.__setattr__ = set_attribute


def _is_bound_signal(value: Any) -> bool:
    """PySide6 itself keeps a bound signal with its object."""
    return isinstance(value, QtCore.SignalInstance)


def _is_own_widget(root: QtCore.QObject, name: str, value: Any) -> bool:
    return isinstance(value, QtWidgets.QWidget) and value.objectName == name and root.isAncestorOf(value)


def _owner(cls: type, name: str) -> type:
    return next(base for base in cls.__mro__ if name in base.__dict__)


def _is_written_in_python(cls: type) -> bool:
    """Whether the class is a module's own subclass: PythonQt lets those have attributes."""
    return not cls.__module__.startswith(("PySide6", HARNESS_PACKAGE))


def _find_by_name(self: QtCore.QObject, name: str) -> Any:
    """Dynamic properties, then children, as PythonQt looks for them when a class has no such attribute."""
    if not name.startswith("_") and shiboken6.isValid(self):
        if name == "name":
            return self.objectName
        if name.encode() in [bytes(known) for known in self.dynamicPropertyNames()]:
            return self.property(name)
        for child in self.children():
            if child.objectName == name:
                return child
    raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")


def _enumerators_as_integers() -> None:
    """PySide6 has some enumerations as plain enum.Enum, which equal no integer."""
    for module in QT_MODULES:
        for name in dir(module):
            holder = getattr(module, name)
            for candidate in [holder, *vars(holder).values()] if inspect.isclass(holder) else []:
                if (
                    inspect.isclass(candidate)
                    and issubclass(candidate, enum.Enum)
                    and not issubclass(candidate, int)
                ):
                    candidate.__eq__ = lambda self, other: _number(self) == _number(other)
                    candidate.__hash__ = lambda self: hash(self.value)
                    candidate.__int__ = candidate.__index__ = lambda self: self.value


def _number(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _add_decorators() -> None:
    """The methods that PythonQt adds to every QObject."""
    QtCore.QObject.__getattr__ = _find_by_name
    QtCore.QObject.__getattribute__ = _get_attribute
    QtCore.QObject.className = lambda self: type(self).__name__
    QtCore.QObject.delete = lambda self: shiboken6.delete(self)
    QtCore.QObject.findChild = lambda self, kind, name="": next(iter(_find_children(self, kind, name)), None)
    QtCore.QObject.findChildren = _find_children
    QtCore.QSettings.value = _settings_value
    for cls in (QtCore.QCoreApplication, QtCore.QEventLoop, QtWidgets.QDialog, QtWidgets.QMenu):
        cls.exec_ = cls.exec


_qt_get_attribute = QtCore.QObject.__getattribute__


def _get_attribute(self: QtCore.QObject, name: str) -> Any:
    """PySide6 answers `connect` and `disconnect` itself, whatever the class holds under these names."""
    if name in ("connect", "disconnect"):
        return functools.partial(_connect if name == "connect" else _disconnect, self)
    return _qt_get_attribute(self, name)


def _signal(sender: QtCore.QObject, signature: str) -> QtCore.SignalInstance:
    normal = re.sub(r"\bconst |[&\s]", "", signature.lstrip("2"))
    normal = re.sub(r"vtk\w+\*", "PyObject", normal)  # the stand-ins' signals carry Python objects
    name, parenthesis, _ = normal.partition("(")
    if not parenthesis:
        raise ValueError(f"connect needs the signal's signature: '{name}()', not '{name}'")
    if sender.metaObject().indexOfSignal(normal) < 0:
        raise ValueError(f"signal '{signature}' does not exist on {type(sender).__name__}")
    signal = getattr(sender, name)
    try:
        return signal[normal]
    except (KeyError, IndexError):
        return signal


def _connect(self: QtCore.QObject, signature: str, receiver: Any, slot: str | None = None) -> bool:
    target = receiver if slot is None else getattr(receiver, slot.lstrip("1").partition("(")[0])
    if not callable(target):
        raise TypeError(f"'{signature}' can't be connected to {target!r}: it can't be called")
    _signal(self, signature).connect(_without_arguments(target) if signature.endswith("()") else target)
    return True


def _without_arguments(target: Callable) -> Callable:
    """`clicked()` passes nothing, though the signal that answers may be `clicked(bool)`."""
    return _adapters.setdefault(target, lambda *_: target())


def _disconnect(self: QtCore.QObject, signature: str, receiver: Any = None, slot: str | None = None) -> bool:
    signal = _signal(self, signature)
    if receiver is None:
        return bool(signal.disconnect())
    target = receiver if slot is None else getattr(receiver, slot.lstrip("1").partition("(")[0])
    return bool(signal.disconnect(_without_arguments(target) if signature.endswith("()") else target))


def _keep_callables_alive() -> None:
    """PySide6 lets go of the objects whose bound methods are connected."""
    connect, disconnect = QtCore.SignalInstance.connect, QtCore.SignalInstance.disconnect
    QtCore.SignalInstance.connect = lambda self, slot, *how: connect(self, _holding(slot), *how)
    QtCore.SignalInstance.disconnect = lambda self, *slot: disconnect(self, *map(_holding, slot))


def _holding(slot: Any) -> Any:
    """A function that holds the object of a bound method, the same one for as long as it is connected."""
    if not isinstance(slot, types.MethodType) or isinstance(slot.__self__, QtCore.QObject):
        return slot
    key = (id(slot.__self__), slot.__func__)
    if key not in _holders:
        most = _most_arguments(slot)

        def call(*arguments: Any) -> None:
            slot(*arguments[:most])

        _holders[key] = call
        return call
    return _holders[key]


def _most_arguments(slot: types.MethodType) -> int | None:
    """How many arguments a slot takes at most, None if any number."""
    parameters = inspect.signature(slot).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return sum(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    )


def _find_children(self: QtCore.QObject, kind: type | str, name: str = "") -> list[QtCore.QObject]:
    """All descendants of the class, or of the class of that name, in depth-first order."""
    found = []
    for child in self.children():
        is_kind = (
            child.inherits(kind) or type(child).__name__ == kind
            if isinstance(kind, str)
            else isinstance(child, kind)
        )
        if is_kind and name in ("", child.objectName):
            found.append(child)
        found += _find_children(child, kind, name)
    return found


_qt_settings_value = QtCore.QSettings.value


def _settings_value(self: QtCore.QSettings, key: str, default: Any = None) -> Any:
    """Without PySide6's `type` argument, which PythonQt lacks."""
    return _qt_settings_value(self, key, default)


def _single_values_from_static_dialogs() -> None:
    for cls, names in (
        (QtWidgets.QFileDialog, ("getOpenFileName", "getOpenFileNames", "getSaveFileName")),
        (QtWidgets.QInputDialog, ("getText", "getItem", "getInt", "getDouble", "getMultiLineText")),
    ):
        for name in names:
            both = getattr(cls, name)
            setattr(cls, name, staticmethod(lambda *arguments, _both=both: _both(*arguments)[0]))
