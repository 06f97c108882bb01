"""Run by the engine's Python, in a process of its own: ``engine_start.py FOLDER ARGUMENTS`` is ``cps4 ARGUMENTS``.

Slicer's Python is a launcher that starts another. It puts its own packages before PYTHONPATH, maybe with an older
engine, and its end does not end what it started. So this puts the engine in FOLDER first, and says in its first line
which process it is.
"""

import json
import os
import runpy
import sys

if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # this folder
    sys.path.insert(0, sys.argv.pop(1))
    from CPS4Core import __version__

    started = {"process": os.getpid(), "version": __version__, "folder": sys.path[0]}
    sys.stdout.write(json.dumps(started) + "\n")
    sys.stdout.flush()
    runpy.run_module("CPS4Core.cli", run_name="__main__", alter_sys=True)
