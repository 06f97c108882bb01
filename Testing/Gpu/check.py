"""Everything that a GPU can show of CPS4, in minutes: a short table, and gpu.json.

    make gpu
    python Testing/Gpu/check.py --output build/gpu --scans FOLDER --carried FOLDER

It needs no installation of CPS4. Packages that the machine lacks may lie as archives in a folder (see carry.py). Its
data are phantoms and noise; real scans in a folder are segmented too. `--device cpu --tiny` rehearses the same code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from packages import missing, take_along

MINUTES = 6.0
"""In which all is done; what has not begun by then is left out, and the table says so."""


def main(arguments: list[str] | None = None) -> int:
    """Run the checks that the command line asks for, and return 0 if all hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("build/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scans", type=Path, help="folder of real scans")
    parser.add_argument("--carried", type=Path, help="folder of packages that are not installed")
    parser.add_argument("--tiny", action="store_true", help="small data and models, to rehearse on a CPU")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--only", nargs="*", help="names of checks")
    chosen = parser.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cps4-gpu-") as folder:
        take_along(chosen.carried, Path(folder) / "packages")
        if lacking := missing():
            print(f"Missing: {', '.join(lacking)}. Install them, or carry their wheels: --carried FOLDER.")
            return 2
        return run(chosen, Path(folder))


def run(chosen: argparse.Namespace, folder: Path) -> int:
    """Run the checks, one after the other, whatever becomes of each."""
    from correctness import CHECKS
    from figures import FIGURES
    from setting import Setting

    setting = Setting.make(chosen.device, chosen.tiny, folder, chosen.scans)
    report: dict[str, Any] = {"machine": setting.machine(), "command": " ".join(sys.argv), "checks": []}
    started = time.monotonic()
    for check in (*CHECKS, *FIGURES):
        if chosen.only and check.__name__ not in chosen.only:
            continue
        late = time.monotonic() - started > 60 * chosen.minutes
        row = {"name": check.__name__, "what": (check.__doc__ or "").strip().splitlines()[0]}
        row |= {"holds": None, "found": "left out: no time"} if late else outcome(check, setting)
        report["checks"].append(row)
        print(line(row), flush=True)
        report["seconds"] = round(time.monotonic() - started, 1)
        (chosen.output / "gpu.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    table = "\n".join([f"# {report['machine']}", "", *HEAD, *map(line, report["checks"])]) + "\n"
    (chosen.output / "gpu.md").write_text(table, encoding="utf-8")
    failed = [row["name"] for row in report["checks"] if row["holds"] is False]
    print(f"\n{table}\n{report['seconds']} s. " + (f"Failed: {', '.join(failed)}" if failed else "All hold."))
    return 1 if failed else 0


def outcome(check: Callable[[Any], tuple[bool | None, str]], setting: Any) -> dict[str, Any]:
    """Return what a check found; an error is a failure, and its trace goes into the report."""
    start = time.monotonic()
    try:
        holds, found = check(setting)
        result: dict[str, Any] = {"holds": holds, "found": found}
    except Exception as error:
        result = {"holds": False, "found": f"{type(error).__name__}: {error}".splitlines()[0]}
        result["trace"] = traceback.format_exc()
    finally:
        setting.tidy()
    return result | {"seconds": round(time.monotonic() - start, 1)}


HEAD = ("| what | holds | found | s |", "|---|---|---|---|")


def line(row: dict[str, Any]) -> str:
    """Return a row of the table; a figure without a bound holds nothing."""
    holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]
    return f"| {row['what']} | {holds} | {row['found']} | {row.get('seconds', '')} |"


if __name__ == "__main__":
    sys.exit(main())
