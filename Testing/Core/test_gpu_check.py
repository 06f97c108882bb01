"""The check of a GPU, rehearsed on the CPU: the same code on small data."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

GPU = Path(__file__).parents[1] / "Gpu"


def module(name):
    specification = importlib.util.spec_from_file_location(f"gpu_{name}", GPU / f"{name}.py")
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    return loaded


@pytest.mark.slow
def test_checks_and_figures_end_in_a_table(tmp_path):
    names = ["labels_in_float32", "segments_with_less_memory", "trains_with_less_memory", "stage_1_base"]
    done = subprocess.run(
        [sys.executable, GPU / "check.py", "--device=cpu", "--tiny", "--output", tmp_path, "--only", *names],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in report["checks"]] == names
    assert [row["holds"] for row in report["checks"]] == [True, True, True, None]
    assert (tmp_path / "gpu.md").read_text(encoding="utf-8").count("\n|") == 2 + len(names)


def test_a_check_that_fails_says_so_and_stops_no_other(monkeypatch):
    monkeypatch.syspath_prepend(GPU)

    class Nothing:
        def tidy(self):
            pass

    def breaks(setting):
        raise ValueError("no such kernel")

    row = module("check").outcome(breaks, Nothing())
    assert (row["holds"], row["found"]) == (False, "ValueError: no such kernel") and "breaks" in row["trace"]
    assert module("check").outcome(lambda setting: (True, "fine"), Nothing())["holds"] is True


def test_carried_packages_are_found_and_missing_ones_are_named(monkeypatch, tmp_path):
    packages = module("packages")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    assert packages.missing(["json", "carried_thing"]) == ["carried_thing"]
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels/carried_thing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_thing.py", "here = True\n")
    packages.take_along(tmp_path / "wheels", tmp_path / "unpacked")
    importlib.invalidate_caches()
    assert packages.missing(["json", "carried_thing"]) == []
    assert str(tmp_path / "unpacked") in os.environ["PYTHONPATH"]


def test_nothing_outside_the_standard_library_is_imported_before_the_look_at_what_is_missing():
    code = f"import sys; sys.path.insert(0, {str(GPU)!r}); before = set(sys.modules); import check; " + (
        "print({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout.strip() in ("{'check', 'packages'}", "{'packages', 'check'}"), done.stderr
