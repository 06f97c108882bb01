"""`PythonSlicer`: a launcher of the Python beneath it, as CTK's application launcher is."""

import sys
from pathlib import Path

PROGRAM = """#!{python}
import os, subprocess, sys
before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
os.environ["PYTHONPATH"] = os.pathsep.join([{own!r}, *before])
sys.exit(subprocess.call([{python!r}, *sys.argv[1:]]))
"""


def make_launcher(folder: Path, own_python_path: Path) -> Path:
    """Writes the program, which puts a path of its own first in PYTHONPATH, passes standard input and output on, and
    leaves the Python beneath it running when it is killed. Not for Windows."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "PythonSlicer"
    program.write_text(PROGRAM.format(python=sys.executable, own=str(own_python_path)), encoding="utf-8")
    program.chmod(0o755)
    return program
