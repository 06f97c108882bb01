"""The parts of the module: one file a panel, and what the panels share.

Importing it makes the light modules of the engine (``CPS4Core.class_table``, ``events``, ``errors``) importable. An
installed extension has ``CPS4Core`` beside this folder; a plain checkout has it one folder up.
"""

import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - Slicer 5.8 brings its own Python
    raise ImportError(
        "CPS4 needs Slicer 5.10 or later. This Slicer has Python "
        f"{sys.version_info[0]}.{sys.version_info[1]}; install the current Slicer from download.slicer.org."
    )

_MODULE_FOLDER = Path(__file__).resolve().parents[1]

ENGINE_FOLDER = next(
    (
        folder
        for folder in (_MODULE_FOLDER, _MODULE_FOLDER.parent)
        if (folder / "CPS4Core" / "class_table.py").is_file()
    ),
    _MODULE_FOLDER,
)
"""The folder that holds ``CPS4Core``."""

if str(ENGINE_FOLDER) not in sys.path:
    sys.path.append(str(ENGINE_FOLDER))
