"""Where the model is that comes with CPS4: beside the engine in a checkout or in Slicer, else in the package's data.

Python alone finds it, so that Slicer's process can.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from CPS4Core.card import CARD, holds_model
from CPS4Core.errors import CPS4Error

BASE = "base"
"""What users call the model that comes with CPS4."""
FOLDER = Path("Models") / BASE
_ENGINE = Path(__file__).resolve().parents[1]
BESIDE = _ENGINE / "Resources" / FOLDER
"""Where it is in a checkout, and where the extension is installed."""
_TARGET = _ENGINE / "share" / "cps4" / FOLDER
"""Where ``pip install --target`` puts it, of which the list of installed files says nothing."""


def base_model() -> Path | None:
    """Return the folder of the model that comes with CPS4, None if it is not here."""
    folders = (folder for folder in (BESIDE, _TARGET, _in_package()) if folder is not None)
    return next((folder for folder in folders if holds_model(folder)), None)


def model_path(name: str) -> Path:
    """Return the model folder that a user names: ``base``, or a path (``./base`` for a folder of that name).

    Raises:
        CPS4Error: if the model that comes with CPS4 is asked for and not here.
    """
    if name != BASE:
        return Path(name)
    folder = base_model()
    if folder is None:
        raise CPS4Error(
            "The base model is not here.",
            "Install CPS4 again, or make the model by `make base` in a checkout; or name another with --model.",
            BESIDE,
        )
    return folder


def _in_package() -> Path | None:
    """Return the folder in which the installed package has its data, None if there is none."""
    try:
        listed = files("cps4") or []
    except PackageNotFoundError:
        return None
    wanted = (*FOLDER.parts, CARD)
    card = next((file for file in listed if file.parts[-len(wanted) :] == wanted), None)
    return None if card is None else Path(card.locate()).resolve().parent
