"""The colours of Slicer's dark style, as Slicer 5.10 sets them (qSlicerStyle)."""

from PySide6.QtGui import QColor, QPalette

COLOURS = {
    "Window": "#323232",
    "WindowText": "#ffffff",
    "Base": "#1e1e1e",
    "AlternateBase": "#323232",
    "ToolTipBase": "#ffffff",
    "ToolTipText": "#323232",
    "Text": "#ffffff",
    "Button": "#323232",
    "ButtonText": "#ffffff",
    "BrightText": "#ff0000",
}
DISABLED = {"WindowText": "#6d6d6d", "Base": "#1e1e1e", "Text": "#6d6d6d", "ButtonText": "#b4b4b4"}


def dark_palette() -> QPalette:
    """Return the palette of the dark style."""
    palette = QPalette(QColor(COLOURS["Button"]), QColor(COLOURS["Window"]))  # bevels and shadows from these
    for role, colour in COLOURS.items():
        palette.setColor(getattr(QPalette, role), QColor(colour))
    for role, colour in DISABLED.items():
        palette.setColor(QPalette.Disabled, getattr(QPalette, role), QColor(colour))
    return palette
