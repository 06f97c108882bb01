"""What is remembered for the user, not for the scene: model folder, device, Python, data set."""

import qt

GROUP = "CPS4"


def setting(name: str) -> str:
    """Return a remembered value, empty if there is none."""
    return str(qt.QSettings().value(f"{GROUP}/{name}", "") or "")


def remember(name: str, value: str) -> None:
    """Remember a value over sessions of Slicer."""
    qt.QSettings().setValue(f"{GROUP}/{name}", value)
