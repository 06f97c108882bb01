"""Stand-ins for the CTK widgets that modules use, built from plain Qt widgets.

Each offers no more than `names/ctk.txt` lists for it (a test compares them), and the part of it that is here
behaves as CTK's documentation says.
"""

import re
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal
from PySide6.QtCore import Qt as QtNamespace


def delegated(kind: type | str, part: str, name: str) -> Property:
    """A property that is that of an inner widget."""
    return Property(
        kind,
        lambda self: getattr(getattr(self, part), name),
        lambda self, value: setattr(getattr(self, part), name, value),
    )


def stored(kind: type | str, name: str, default: Any, then: str = "") -> Property:
    """A property kept in the widget; `then` names the method called after a change. String lists are tuples."""
    key = f"_{name}"

    def write(self: QtCore.QObject, value: Any) -> None:
        setattr(self, key, tuple(value) if kind == "QStringList" else value)
        if then:
            getattr(self, then)()

    return Property(kind, lambda self: getattr(self, key, default), write)


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header that shows and hides the widgets below it; down (checked) means open."""

    contentsCollapsed = Signal(bool)

    collapsedHeight = stored(int, "collapsedHeight", 14)
    contentsFrameShape = stored(int, "contentsFrameShape", 0, "update")
    contentsFrameShadow = stored(int, "contentsFrameShadow", 0, "update")
    contentsLineWidth = stored(int, "contentsLineWidth", 1, "update")
    contentsMidLineWidth = stored(int, "contentsMidLineWidth", 0, "update")
    flat = stored(bool, "flat", False, "update")

    def __init__(self, *arguments: Any):
        super().__init__(*[a for a in arguments if not isinstance(a, str)])
        self._hidden_children: list[QtWidgets.QWidget] = []
        self.text = next((a for a in arguments if isinstance(a, str)), "")
        self.checkable = True
        self.checked = True
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.setContentsMargins(0, self._header_height(), 0, 0)
        self.toggled.connect(self._show_contents)

    def _set_collapsed(self, collapsed: bool) -> None:
        self.checked = not collapsed

    collapsed = Property(bool, lambda self: not self.checked, _set_collapsed)

    def _header_height(self) -> int:
        return self.fontMetrics().height() + 10

    def _show_contents(self, shown: bool) -> None:
        if shown:
            for child in self._hidden_children:
                child.show()
            self._hidden_children = []
        else:
            children = [c for c in self.children() if isinstance(c, QtWidgets.QWidget) and not c.isHidden()]
            for child in children:
                self._hide_child(child)
        self.contentsCollapsed.emit(not shown)

    def _hide_child(self, child: QtWidgets.QWidget) -> None:
        self._hidden_children.append(child)
        child.hide()

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        child = event.child()
        is_late = event.type() == QtCore.QEvent.ChildPolished and self.collapsed
        if is_late and isinstance(child, QtWidgets.QWidget) and not child.isHidden():
            self._hide_child(child)
        super().childEvent(event)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() <= self._header_height()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        header = QtWidgets.QStyleOptionButton()
        header.initFrom(self)
        header.rect = QtCore.QRect(0, 0, self.width, self._header_height())
        header.state |= QtWidgets.QStyle.State_Raised
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, header)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(8, header.rect.height() // 2 - 5, 10, 10)
        down, right = QtWidgets.QStyle.PE_IndicatorArrowDown, QtWidgets.QStyle.PE_IndicatorArrowRight
        painter.drawPrimitive(right if self.collapsed else down, arrow)
        text = header.rect.adjusted(24, 0, -4, 0)
        painter.drawItemText(text, QtNamespace.AlignVCenter, self.palette, self.enabled, self.text)


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box with a check mark that shows and hides its contents."""

    collapsedHeight = stored(int, "collapsedHeight", 14)

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.checkable = True
        self.toggled.connect(self._show_contents)

    def _show_contents(self, shown: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(shown)

    collapsed = Property(bool, lambda self: not self.checked, lambda self, value: self.setChecked(not value))


class ctkDoubleSpinBox(QtWidgets.QWidget):
    valueChanged = Signal(float)
    decimalsChanged = Signal(int)
    editingFinished = Signal()

    value = delegated(float, "_spin_box", "value")
    minimum = delegated(float, "_spin_box", "minimum")
    maximum = delegated(float, "_spin_box", "maximum")
    singleStep = delegated(float, "_spin_box", "singleStep")
    decimals = delegated(int, "_spin_box", "decimals")
    prefix = delegated(str, "_spin_box", "prefix")
    suffix = delegated(str, "_spin_box", "suffix")
    readOnly = delegated(bool, "_spin_box", "readOnly")

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._spin_box = QtWidgets.QDoubleSpinBox(self)
        _fill(self, self._spin_box)
        self._spin_box.valueChanged.connect(self.valueChanged)
        self._spin_box.editingFinished.connect(self.editingFinished)

    def setValue(self, value: float) -> None:
        self.value = value

    def setDecimals(self, decimals: int) -> None:
        self.decimals = decimals


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box that hold one number."""

    STEPS = 10_000  # QSlider counts in integers

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    decimalsChanged = Signal(int)

    value = delegated(float, "_spin_box", "value")
    singleStep = delegated(float, "_spin_box", "singleStep")
    decimals = delegated(int, "_spin_box", "decimals")
    prefix = delegated(str, "_spin_box", "prefix")
    suffix = delegated(str, "_spin_box", "suffix")
    pageStep = stored(float, "pageStep", 10.0)
    tracking = stored(bool, "tracking", True)
    tickInterval = stored(float, "tickInterval", 0.0)
    spinBoxVisible = Property(
        bool, lambda self: not self._spin_box.isHidden(), lambda self, value: self._spin_box.setVisible(value)
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtNamespace.Horizontal, self)
        self._slider.maximum = self.STEPS
        self._spin_box = QtWidgets.QDoubleSpinBox(self)
        _fill(self, self._slider, self._spin_box)
        self._spin_box.valueChanged.connect(self._on_number)
        self._slider.sliderMoved.connect(self._on_slide)
        self._slider.sliderReleased.connect(lambda: self._on_slide(self._slider.value, released=True))

    def _set_limit(self, name: str, limit: float) -> None:
        setattr(self._spin_box, name, limit)
        self._place_slider()

    minimum = Property(
        float, lambda self: self._spin_box.minimum, lambda self, v: self._set_limit("minimum", v)
    )
    maximum = Property(
        float, lambda self: self._spin_box.maximum, lambda self, v: self._set_limit("maximum", v)
    )

    def _on_number(self, value: float) -> None:
        self._place_slider()
        self.valueChanged.emit(value)

    def _place_slider(self) -> None:
        width = self.maximum - self.minimum
        if 0 < width < float("inf"):
            self._slider.value = round((self.value - self.minimum) / width * self.STEPS)

    def _on_slide(self, position: int, released: bool = False) -> None:
        value = self.minimum + position / self.STEPS * (self.maximum - self.minimum)
        self.valueIsChanging.emit(value)
        if self.tracking or released:
            self.value = value

    def setValue(self, value: float) -> None:
        self.value = value

    def setDecimals(self, decimals: int) -> None:
        self.decimals = decimals

    def setSpinBoxVisible(self, visible: bool) -> None:
        self.spinBoxVisible = visible

    def reset(self) -> None:
        self.value = self.minimum


class ctkRangeWidget(QtWidgets.QWidget):
    """Two spin boxes that hold the ends of a range."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)

    minimumValue = delegated(float, "_low", "value")
    maximumValue = delegated(float, "_high", "value")

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._low, self._high = QtWidgets.QDoubleSpinBox(self), QtWidgets.QDoubleSpinBox(self)
        _fill(self, self._low, self._high)
        self.setRange(0.0, 99.0)
        self.setValues(0.0, 99.0)
        self._low.valueChanged.connect(self.minimumValueChanged)
        self._high.valueChanged.connect(self.maximumValueChanged)
        self._low.valueChanged.connect(
            lambda value: self._keep_order(self._high, max(value, self.maximumValue))
        )
        self._high.valueChanged.connect(
            lambda value: self._keep_order(self._low, min(value, self.minimumValue))
        )

    def _keep_order(self, other: QtWidgets.QDoubleSpinBox, value: float) -> None:
        other.value = value
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    def _set_both(self, name: str, value: Any) -> None:
        setattr(self._low, name, value)
        setattr(self._high, name, value)

    decimals = Property(int, lambda self: self._low.decimals, lambda self, v: self._set_both("decimals", v))
    singleStep = Property(
        float, lambda self: self._low.singleStep, lambda self, v: self._set_both("singleStep", v)
    )
    suffix = Property(str, lambda self: self._low.suffix, lambda self, v: self._set_both("suffix", v))
    prefix = Property(str, lambda self: self._low.prefix, lambda self, v: self._set_both("prefix", v))
    minimum = Property(float, lambda self: self._low.minimum, lambda self, v: self.setRange(v, self.maximum))
    maximum = Property(float, lambda self: self._low.maximum, lambda self, v: self.setRange(self.minimum, v))

    def setRange(self, minimum: float, maximum: float) -> None:
        self._set_both("minimum", minimum)
        self._set_both("maximum", maximum)
        self.rangeChanged.emit(minimum, maximum)

    def setValues(self, low: float, high: float) -> None:
        self._high.value = high
        self._low.value = low

    def setMinimumValue(self, value: float) -> None:
        self.minimumValue = value

    def setMaximumValue(self, value: float) -> None:
        self.maximumValue = value

    def setDecimals(self, decimals: int) -> None:
        self.decimals = decimals

    def reset(self) -> None:
        self.setValues(self.minimum, self.maximum)


class ctkPathLineEdit(QtWidgets.QWidget):
    """An editable path with a history and a browse button.

    Any text is acceptable, whether there is such a path or not, except none and one that `nameFilters` exclude. Of
    text that isn't acceptable `currentPathChanged` says nothing, so nothing when the field is emptied either.
    """

    Dirs, Files, Drives, NoSymLinks, AllDirs = 0x001, 0x002, 0x004, 0x008, 0x400
    Readable, Writable, Executable, Hidden = 0x010, 0x020, 0x040, 0x100
    NoDotAndDotDot, NoDot, NoDotDot = 0x6000, 0x2000, 0x4000
    AllEntries = 0x007

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)

    filters = stored(int, "filters", AllEntries | NoDotAndDotDot | Readable)
    nameFilters = stored("QStringList", "nameFilters", ())
    label = stored(str, "label", "Open a file")
    showHistoryButton = stored(bool, "showHistoryButton", True)
    minimumContentsLength = delegated(int, "_combo_box", "minimumContentsLength")
    showBrowseButton = Property(
        bool, lambda self: not self._button.isHidden(), lambda self, value: self._button.setVisible(value)
    )

    def __init__(self, *arguments: Any):
        parents = [a for a in arguments if isinstance(a, QtWidgets.QWidget)]
        super().__init__(*parents)
        self._valid = False
        self._combo_box = QtWidgets.QComboBox(self)
        self._combo_box.editable = True
        self._combo_box.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self._button = QtWidgets.QToolButton(self)
        self._button.text = "..."
        self._button.clicked.connect(self.browse)
        _fill(self, self._combo_box, self._button)
        self._combo_box.editTextChanged.connect(self._on_text)

    def _set_path(self, path: str) -> None:
        if path != self.currentPath:
            self._combo_box.setEditText(path)

    currentPath = Property(str, lambda self: self._combo_box.currentText, _set_path)

    def _on_text(self, *_: Any) -> None:
        valid = self._is_acceptable()
        changed, self._valid = valid != self._valid, valid
        if valid:
            self.currentPathChanged.emit(self.currentPath)
        if changed:
            self.validInputChanged.emit(valid)

    def _is_acceptable(self) -> bool:
        suffixes = re.findall(r"\*(\.\w+)", " ".join(self.nameFilters))
        return self.currentPath.endswith(tuple(suffixes)) if suffixes else bool(self.currentPath)

    def setCurrentPath(self, path: str) -> None:
        self.currentPath = path

    def browse(self) -> None:
        if self.filters & self.Files:
            path = QtWidgets.QFileDialog.getOpenFileName(self, self.label, self.currentPath)
        else:
            path = QtWidgets.QFileDialog.getExistingDirectory(self, self.label, self.currentPath)
        if path:
            self.currentPath = path

    def comboBox(self) -> QtWidgets.QComboBox:
        return self._combo_box

    def _set_setting_key(self, key: str) -> None:
        self._setting_key = key
        self.retrieveHistory()

    settingKey = Property(str, lambda self: getattr(self, "_setting_key", ""), _set_setting_key)

    def _history_key(self) -> str:
        return f"ctkPathLineEdit/{self.settingKey}"

    def _history(self) -> list[str]:
        known = QtCore.QSettings().value(self._history_key(), []) if self.settingKey else []
        return [known] if isinstance(known, str) else list(known)

    def addCurrentPathToHistory(self) -> None:
        if self.settingKey and self.currentPath:
            others = [path for path in self._history() if path != self.currentPath]
            QtCore.QSettings().setValue(self._history_key(), [self.currentPath, *others])
            self._fill_history(self.currentPath)

    def retrieveHistory(self) -> None:
        history = self._history()
        self._fill_history(history[0] if history else self.currentPath)

    def _fill_history(self, current: str) -> None:
        self._combo_box.blockSignals(True)
        self._combo_box.clear()
        self._combo_box.addItems(self._history())
        self._combo_box.setEditText("")
        self._combo_box.blockSignals(False)
        self._combo_box.setEditText(current)


class ctkDirectoryButton(QtWidgets.QWidget):
    directoryChanged = Signal(str)
    directorySelected = Signal(str)

    caption = stored(str, "caption", "Select a directory")
    text = stored(str, "text", "", "_show_directory")

    def __init__(self, *arguments: Any):
        super().__init__(*[a for a in arguments if isinstance(a, QtWidgets.QWidget)])
        self._directory = next((a for a in arguments if isinstance(a, str)), ".")
        self._button = QtWidgets.QPushButton(self)
        self._button.clicked.connect(self.browse)
        _fill(self, self._button)
        self._show_directory()

    def _show_directory(self) -> None:
        self._button.text = self.text or QtCore.QDir(self._directory).absolutePath()

    def _set_directory(self, directory: str) -> None:
        absolute = QtCore.QDir(directory).absolutePath()
        is_new = QtCore.QDir(absolute) != QtCore.QDir(self._directory)
        if is_new:
            self._directory = absolute
            self._show_directory()
        self.directorySelected.emit(absolute)
        if is_new:
            self.directoryChanged.emit(absolute)

    directory = Property(str, lambda self: self._directory, _set_directory)

    def browse(self) -> None:
        if path := QtWidgets.QFileDialog.getExistingDirectory(self, self.caption, self.directory):
            self.directory = path


class ctkComboBox(QtWidgets.QComboBox):
    defaultText = stored(str, "defaultText", "")
    forceDefault = stored(bool, "forceDefault", False)
    scrollWheelEffect = stored(int, "scrollWheelEffect", 0)


class ctkCheckableComboBox(QtWidgets.QComboBox):
    """A combo box whose items have check marks."""

    checkedIndexesChanged = Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.model().rowsInserted.connect(self._make_checkable)
        self.model().itemChanged.connect(lambda item: self.checkedIndexesChanged.emit())

    def _make_checkable(self, parent: QtCore.QModelIndex, first: int, last: int) -> None:
        for row in range(first, last + 1):
            self.model().item(row).setCheckable(True)

    def checkedIndexes(self) -> list[QtCore.QModelIndex]:
        rows = [self.model().index(row, 0) for row in range(self.count)]
        return [index for index in rows if self.checkState(index) == QtNamespace.Checked]

    def checkState(self, index: QtCore.QModelIndex) -> QtNamespace.CheckState:
        return self.model().itemFromIndex(index).checkState()

    def setCheckState(self, index: QtCore.QModelIndex, state: QtNamespace.CheckState) -> None:
        self.model().itemFromIndex(index).setCheckState(state)

    def checkableModel(self) -> QtCore.QAbstractItemModel:
        return self.model()

    allChecked = Property(bool, lambda self: len(self.checkedIndexes()) == self.count)
    noneChecked = Property(bool, lambda self: not self.checkedIndexes())


class ctkMessageBox(QtWidgets.QMessageBox):
    dontShowAgain = stored(bool, "dontShowAgain", False)
    dontShowAgainVisible = stored(bool, "dontShowAgainVisible", False)
    dontShowAgainSettingsKey = stored(str, "dontShowAgainSettingsKey", "")

    def setDontShowAgain(self, dont_show: bool) -> None:
        self.dontShowAgain = dont_show


class ctkColorPickerButton(QtWidgets.QPushButton):
    colorChanged = Signal(QtGui.QColor)
    colorNameChanged = Signal(str)

    displayColorName = stored(bool, "displayColorName", True)
    colorName = stored(str, "colorName", "")

    def setColor(self, color: QtGui.QColor) -> None:
        if color != self.color:
            self._color = QtGui.QColor(color)
            square = QtGui.QPixmap(14, 14)
            square.fill(self._color)
            self.icon = QtGui.QIcon(square)
            if self.displayColorName:
                self.text = self._color.name()
            self.colorChanged.emit(self._color)

    color = Property(QtGui.QColor, lambda self: getattr(self, "_color", QtGui.QColor(0, 0, 0)), setColor)


class ctkCheckBox(QtWidgets.QCheckBox):
    """A check box that may show an icon as its mark."""


class ctkPushButton(QtWidgets.QPushButton):
    """A push button whose text and icon may be aligned."""


class ctkMenuButton(QtWidgets.QPushButton):
    """A push button with a menu of its own."""


class ctkSearchBox(QtWidgets.QLineEdit):
    showSearchIcon = stored(bool, "showSearchIcon", False)


class ctkFittedTextBrowser(QtWidgets.QTextBrowser):
    """A text browser as high as its text, of which a part may be collapsed."""

    collapsed = stored(bool, "collapsed", True)
    showDetailsText = stored(str, "showDetailsText", "Show details...")
    hideDetailsText = stored(str, "hideDetailsText", "Hide details.")
    disableMouseScroll = stored(bool, "disableMouseScroll", False)

    def collapsibleText(self) -> str:
        return getattr(self, "_collapsible_text", "")

    def setCollapsibleText(self, text: str) -> None:
        self._collapsible_text = text
        self.setText(text)


class ctkExpandableWidget(QtWidgets.QFrame):
    """A frame whose height the user may drag."""


class ctkWidgetsUtils:
    """Functions on widgets, which PythonQt shows as a class."""

    @staticmethod
    def grabWidget(widget: QtWidgets.QWidget, rectangle: QtCore.QRect | None = None) -> QtGui.QImage:
        """A widget as it is seen, with what the views in it render; `QWidget.grab` leaves those black in Slicer."""
        image = widget.grab().toImage()
        return image.copy(rectangle) if rectangle is not None else image


def _fill(widget: QtWidgets.QWidget, *parts: QtWidgets.QWidget) -> None:
    """Lays the parts out side by side without margins; the first takes the room there is."""
    layout = QtWidgets.QHBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    for stretch, part in zip((1, *[0] * len(parts)), parts, strict=False):
        layout.addWidget(part, stretch)


WIDGETS = {name: value for name, value in globals().items() if name.startswith("ctk")}
