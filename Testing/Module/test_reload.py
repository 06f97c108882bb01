"""What Slicer's process has loaded: after Reload what is on disk, and of the engine only its light files."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import module_under_test

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "CPS4Segmentation"


def test_reload_runs_what_is_on_disk(without_checkout, slicer_harness, tmp_path):
    shutil.copytree(MODULE, tmp_path / "CPS4Segmentation")
    shutil.copytree(ROOT / "CPS4Core", tmp_path / "CPS4Core")
    widget = slicer_harness.open_module(tmp_path / "CPS4Segmentation" / "CPS4Segmentation.py")
    before = widget.logic

    def edit(path, old, new):
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    edit(
        tmp_path / "CPS4Segmentation/CPS4SegmentationLib/segment_panel.py", '_("Automatic")', '_("By itself")'
    )
    edit(tmp_path / "CPS4Core/class_table.py", '"Lumbar Vertebra 4"', '"The fourth one"')
    widget.onReload()
    again = slicer_harness.slicer.modules.CPS4SegmentationWidget
    assert again is not widget
    assert again.segment.ui.deviceBox.itemText(0) == "By itself"
    from CPS4Core.class_table import class_name, find_label

    assert class_name(find_label("L4")) == "The fourth one"
    assert not before.folder.exists()  # what the old panels left


def test_the_import_contract_names_what_is_loaded():
    script = (
        "import json, sys, tempfile; sys.path.insert(0, sys.argv[1])\n"
        "from SlicerHarness import SlicerHarness\n"
        "with SlicerHarness(tempfile.mkdtemp()) as harness:\n"
        "    harness.open_module(sys.argv[2])\n"
        "    print(json.dumps(sorted(sys.modules)))\n"
    )
    arguments = [sys.executable, "-c", script, str(ROOT / "Testing"), str(module_under_test.MODULE)]
    answer = subprocess.run(arguments, capture_output=True, encoding="utf-8", check=True, cwd=ROOT)
    loaded = json.loads(answer.stdout.splitlines()[-1])
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = [
        contract
        for contract in linter["contracts"]
        if contract["name"].startswith(("What Slicer's process", "What measures"))
    ]
    named = {
        name for contract in contracts for name in contract["source_modules"]
    }  # files, or packages as a whole
    folders = {name.rpartition(".")[0] for name in named}
    of_engine = {name for name in loaded if name.startswith("CPS4Core.") and name not in folders}
    assert named <= of_engine
    inside = {name for name in of_engine if any(name.startswith(f"{package}.") for package in named)}
    assert of_engine - inside == named
    assert not {"torch", "timm", "transformers", "pydantic"} & set(loaded)
