"""The extension, configured and installed by CMake as in a Slicer build, works from where it is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import module_under_test
import pytest

ROOT = Path(__file__).parents[2]
STUB = ROOT / "Testing" / "SlicerHarness" / "cmake"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the scripted modules in an installation."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler, which CMake looks for")
    cmake = Path(sys.executable).with_name("cmake")
    build, target = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("Slicer 5.12")
    configure = ["-S", ROOT, "-B", build, "-G", "Ninja", f"-DSlicer_DIR={STUB}", "-DBUILD_TESTING=ON"]
    ninja = f"-DCMAKE_MAKE_PROGRAM={Path(sys.executable).with_name('ninja')}"
    for command in ([cmake, *configure, ninja], [cmake, "--install", build, "--prefix", target]):
        done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stdout + done.stderr
    return target / "lib" / "Slicer-5.12" / "qt-scripted-modules"


def test_every_file_of_the_engine_is_installed(installed):
    for source in (ROOT / "CPS4Core").rglob("*.py"):
        copy = installed / source.relative_to(ROOT)
        assert copy.read_bytes() == source.read_bytes()
    assert (installed / "Resources" / "CPS4.term.json").is_file()


def test_the_model_that_comes_with_it_is_installed(installed):
    sources = [path for path in (ROOT / "Resources" / "Models").rglob("*") if path.is_file()]
    assert sources
    for source in sources:
        copy = installed / source.relative_to(ROOT)
        assert copy.read_bytes() == source.read_bytes()


def test_the_installed_module_segments(installed, without_checkout, monkeypatch, slicer_harness, trained):
    monkeypatch.setattr(module_under_test, "MODULE", installed / "CPS4Segmentation.py")
    module = module_under_test.Module(slicer_harness, trained)
    module.choose_model()
    module.load()
    node = module.segment()
    assert module_under_test.names_of(node)
    import CPS4SegmentationLib

    assert Path(CPS4SegmentationLib.ENGINE_FOLDER) == installed
