"""Packs what a machine without network lacks into a folder for `make gpu CARRIED=FOLDER`, in 32 MB.

    python Testing/Gpu/carry.py build/carried --python 3.12

Linux on x86-64. SimpleITK is packed anew: xz halves it, which takes a minute.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ("SimpleITK", "pydantic", "pydantic-core", "annotated-types", "typing-inspection")
LARGE = 2**24
"""Bytes from which a wheel is packed anew."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"--platform=manylinux{name}_x86_64" for name in ("_2_28", "_2_17", "2014")]
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
            "--python-version", arguments.python, *platforms, "--dest", arguments.folder, *PACKAGES,
        ],
        check=True,
    )  # fmt: skip
    for wheel in arguments.folder.glob("*.whl"):
        if wheel.stat().st_size > LARGE:
            with tempfile.TemporaryDirectory() as folder:
                shutil.unpack_archive(wheel, folder, "zip")
                shutil.make_archive(str(wheel.with_suffix("")), "xztar", folder)
            wheel.unlink()


if __name__ == "__main__":
    main()
