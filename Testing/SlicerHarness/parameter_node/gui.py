"""Which widgets may show a field of which type, and how they do."""

import enum
import pathlib
import typing
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer

from .annotations import (
    Choice,
    Decimals,
    Default,
    FloatRange,
    Maximum,
    Minimum,
    RangeBounds,
    SingleStep,
    WithinRange,
    find,
    split,
)


class Connector:
    """A widget that shows a field: `read` and `write` its value, `signal` tells of changes by the user."""

    def __init__(self, widget: Any, signal: Any, read: Callable[[], Any], write: Callable[[Any], None]):
        self.widget, self.signal, self.read, self.write = widget, signal, read, write
        self._callback: Callable[[], None] | None = None

    def changed(self, *_: Any) -> None:
        if self._callback:
            self._callback()

    def connect(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        if self.signal is not None:
            self.signal.connect(self.changed)

    def disconnect(self) -> None:
        self._callback = None
        if self.signal is not None:
            self.signal.disconnect(self.changed)


def connector_for(widget: Any, annotated: Any) -> Connector:
    """Raises RuntimeError, as Slicer does, where the widget's very class (no subclass) can't show the type."""
    kind, annotations = split(annotated)
    makers = (_check_mark, _integer, _number, _combo_box, _text, _range, _path, _node)
    for make in makers:
        if connector := make(widget, kind, annotations):
            return connector
    raise RuntimeError(f"a {type(widget).__name__} can't show a field of type {kind}")


def _of_property(
    widget: Any, signal: Any, name: str, convert: Callable[[Any], Any] = lambda value: value
) -> Connector:
    return Connector(
        widget, signal, lambda: convert(getattr(widget, name)), lambda value: setattr(widget, name, value)
    )


def _check_mark(widget: Any, kind: Any, annotations: list[Any]) -> Connector | None:
    if kind is bool and type(widget) in (qt.QCheckBox, ctk.ctkCheckBox):
        return _of_property(widget, widget.stateChanged, "checked")
    if kind is bool and type(widget) is qt.QPushButton:
        widget.checkable = True
        return _of_property(widget, widget.toggled, "checked")
    return None


def _limits(
    widget: Any, annotations: list[Any], lowest: float, highest: float, must_be_bounded: bool
) -> None:
    within, low, high = (find(annotations, limit) for limit in (WithinRange, Minimum, Maximum))
    if must_be_bounded and not (within or (low and high)):
        raise RuntimeError(f"a {type(widget).__name__} can only show a number with limits (WithinRange)")
    if step := find(annotations, SingleStep):
        widget.singleStep = step.value
    widget.minimum = within.minimum if within else low.minimum if low else lowest
    widget.maximum = within.maximum if within else high.maximum if high else highest


def _integer(widget: Any, kind: Any, annotations: list[Any]) -> Connector | None:
    if kind is not int or type(widget) not in (qt.QSlider, qt.QSpinBox):
        return None
    _limits(widget, annotations, -(2**31), 2**31 - 1, must_be_bounded=type(widget) is qt.QSlider)
    return _of_property(widget, widget.valueChanged, "value")


def _number(widget: Any, kind: Any, annotations: list[Any]) -> Connector | None:
    sliders = (ctk.ctkSliderWidget, slicer.qMRMLSliderWidget)
    if kind not in (int, float):
        return None
    if type(widget) not in (*sliders, qt.QDoubleSpinBox, ctk.ctkDoubleSpinBox, slicer.qMRMLSpinBox):
        return None
    if kind is int:
        widget.decimals = 0
    elif decimals := find(annotations, Decimals):
        widget.decimals = decimals.value
    _limits(widget, annotations, float("-inf"), float("inf"), must_be_bounded=type(widget) in sliders)
    return _of_property(widget, widget.valueChanged, "value", kind)


def _combo_box(widget: Any, kind: Any, annotations: list[Any]) -> Connector | None:
    if type(widget) not in (qt.QComboBox, ctk.ctkComboBox):
        return None
    if kind in (int, float, str, bool):
        choice = find(annotations, Choice)
        if choice is None:
            raise RuntimeError("a combo box can only show a field with a Choice annotation")
        return _choices(widget, list(choice.choices), str)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _choices(widget, list(kind), getattr(kind, "label", lambda value: value.name))
    return None


def _choices(widget: Any, choices: list[Any], label: Callable[[Any], str]) -> Connector:
    widget.clear()
    for choice in choices:
        widget.addItem(label(choice))

    def write(value: Any) -> None:
        widget.currentIndex = choices.index(value)

    return Connector(widget, widget.currentIndexChanged, lambda: choices[widget.currentIndex], write)


def _text(widget: Any, kind: Any, annotations: list[Any]) -> Connector | None:
    if kind is str and type(widget) is qt.QLineEdit:

        def write(value: str) -> None:
            if value != widget.text:  # setting the same text would move the cursor
                widget.text = value

        return Connector(widget, widget.textChanged, lambda: widget.text, write)
    if kind is str and type(widget) is qt.QTextEdit:
        return Connector(widget, widget.textChanged, widget.toPlainText, widget.setPlainText)
    if kind is str and type(widget) is qt.QLabel:
        return _of_property(widget, None, "text")
    return None


def _range(widget: Any, kind: Any, annotations: list[Any]) -> Connector | None:
    if kind is not FloatRange or type(widget) not in (ctk.ctkRangeWidget, slicer.qMRMLRangeWidget):
        return None
    bounds = find(annotations, RangeBounds)
    if bounds is None:
        raise RuntimeError("a range widget can only show a range with RangeBounds")
    if find(annotations, Default) is None and not bounds.minimum <= 0 <= bounds.maximum:
        raise RuntimeError("RangeBounds without the value 0 need a Default too")
    if decimals := find(annotations, Decimals):
        widget.decimals = decimals.value
    if step := find(annotations, SingleStep):
        widget.singleStep = step.value
    widget.setRange(bounds.minimum, bounds.maximum)
    read = lambda: FloatRange(widget.minimumValue, widget.maximumValue)  # noqa: E731
    return Connector(
        widget, widget.valuesChanged, read, lambda value: widget.setValues(value.minimum, value.maximum)
    )


def _path(widget: Any, kind: Any, annotations: list[Any]) -> Connector | None:
    if not (isinstance(kind, type) and issubclass(kind, pathlib.PurePath)):
        return None
    if type(widget) is ctk.ctkPathLineEdit:
        return _of_path(widget, widget.currentPathChanged, "currentPath", kind)
    if type(widget) is ctk.ctkDirectoryButton:
        return _of_path(widget, widget.directoryChanged, "directory", kind)
    return None


def _of_path(widget: Any, signal: Any, name: str, kind: type) -> Connector:
    read = lambda: kind(getattr(widget, name))  # noqa: E731
    return Connector(widget, signal, read, lambda value: setattr(widget, name, str(value)))


def _node(widget: Any, kind: Any, annotations: list[Any]) -> Connector | None:
    kinds = (
        [split(k)[0] for k in typing.get_args(kind)] if typing.get_origin(kind) is typing.Union else [kind]
    )
    nodes = [k for k in kinds if isinstance(k, type) and issubclass(k, slicer.vtkMRMLNode)]
    if type(widget) is not slicer.qMRMLNodeComboBox or not nodes or set(kinds) - {*nodes, type(None)}:
        return None
    widget.nodeTypes = [node.__name__ for node in nodes]
    return Connector(widget, widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
