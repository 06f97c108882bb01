"""What the check needs, found at once, with the standard library alone: it runs where nothing can be installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "timm": "timm",
    "transformers": "transformers",
    "safetensors": "safetensors",
    "accelerate": "accelerate",
    "filelock": "filelock",
    "matplotlib": "matplotlib",
    "PIL": "pillow",
    "typer": "typer",
    "rich": "rich",
    "pydantic": "pydantic",
    "SimpleITK": "SimpleITK",
}
"""Module -> package."""
ARCHIVES = (".whl", ".tar.xz", ".tar.gz")


def take_along(carried: Path | None, into: Path) -> None:
    """Make the packages in ``carried``, wheels or tar archives of them unpacked, and this checkout importable.

    Args:
        carried: folder of archives; None if all is installed.
        into: where they are unpacked.
    """
    found = [] if carried is None else sorted(carried.iterdir())
    for archive in (path for path in found if path.name.endswith(ARCHIVES)):
        shutil.unpack_archive(archive, into, "zip" if archive.suffix == ".whl" else None)
    # What is installed comes first: carried is only what is missing.
    sys.path[:0] = [str(ROOT), str(ROOT / "Testing")]
    sys.path.append(str(into))
    more = [str(ROOT), str(into), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(more)  # for the processes that the check starts


def missing(modules: Iterable[str] = NEEDED) -> list[str]:
    """Return the packages that cannot be imported."""
    return [NEEDED.get(name, name) for name in modules if importlib.util.find_spec(name) is None]
