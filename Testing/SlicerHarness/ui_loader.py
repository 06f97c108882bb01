"""`qt.QUiLoader` with Slicer's and CTK's widgets, and the errors that Qt keeps to itself."""

import xml.etree.ElementTree as ElementTree
from typing import Any, ClassVar

from PySide6 import QtCore, QtUiTools, QtWidgets

from .pythonqt import QtProperty


class QUiLoader(QtUiTools.QUiLoader):
    """Loads a `.ui` file. What real Qt would silently turn into a plain QWidget or a stray property is refused."""

    custom_widgets: ClassVar[dict[str, type[QtWidgets.QWidget]]] = {}

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        for cls in self.custom_widgets.values():
            self.registerCustomWidget(cls)

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        self._check(root)
        enumerated = self._take_custom_enumerations(root)
        connections = self._take_connections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        widget = super().load(buffer, parent)
        if widget is None:
            raise RuntimeError(f"the .ui file can't be loaded: {self.errorString()}")
        for name, attribute, value in enumerated:
            setattr(_named(widget, name), attribute, value)
        for sender, signal, receiver, slot in connections:
            _named(widget, sender).connect(signal, _named(widget, receiver), slot)
        return widget

    def _check(self, root: ElementTree.Element) -> None:
        names = [
            element.get("name") for element in root.iter() if element.tag in ("widget", "layout", "action")
        ]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise RuntimeError(f"the .ui file uses these names twice: {', '.join(twice)}")
        for element in root.iter("widget"):
            cls = self._class(element.get("class"))
            properties = _properties(cls)
            for prop in element.findall("property"):
                if prop.get("stdset") != "0" and prop.get("name") not in properties:
                    raise RuntimeError(
                        f"{element.get('name')}: {cls.__name__} has no property '{prop.get('name')}'"
                    )

    def _class(self, name: str) -> type[QtWidgets.QWidget]:
        if name == "Line":  # Designer's name for a QFrame
            return QtWidgets.QFrame
        if name not in self.custom_widgets and not hasattr(QtWidgets, name):
            raise RuntimeError(f"the .ui file uses {name}, for which the harness has no stand-in")
        return self.custom_widgets.get(name) or getattr(QtWidgets, name)

    def _take_custom_enumerations(self, root: ElementTree.Element) -> list[tuple[str, str, Any]]:
        """Enumerators of the custom classes, which the form builder can't look up in Python classes."""
        taken = []
        for element in root.iter("widget"):
            cls = self.custom_widgets.get(element.get("class"))
            for prop in element.findall("property") if cls else []:
                value = prop[0]
                if value.tag in ("enum", "set") and value.text.startswith(("ctk", "qMRML")):
                    enumerators = [getattr(cls, text.rpartition("::")[2]) for text in value.text.split("|")]
                    taken.append((element.get("name"), prop.get("name"), sum(enumerators)))
                    element.remove(prop)
        return taken

    def _take_connections(self, root: ElementTree.Element) -> list[list[str]]:
        """Connections with VTK arguments (`mrmlSceneChanged(vtkMRMLScene*)`), unknown to Qt's type system here."""
        connections = root.find("connections")
        if connections is None:
            return []
        root.remove(connections)
        return [[c.findtext(part) for part in ("sender", "signal", "receiver", "slot")] for c in connections]


def _properties(cls: type) -> set[str]:
    kinds = (QtProperty, QtCore.Property)
    return {name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, kinds)}


def _named(widget: QtWidgets.QWidget, name: str) -> QtCore.QObject:
    found = widget if widget.objectName == name else widget.findChild(QtCore.QObject, name)
    if found is None:
        raise RuntimeError(f"the .ui file connects '{name}', which it doesn't contain")
    return found
