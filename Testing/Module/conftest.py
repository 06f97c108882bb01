"""The fixture that runs a scripted module without Slicer."""

import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).parents[1]))

FAILED = pytest.StashKey[bool]()
MISSING = [name for name in ("slicer_core", "PySide6", "pytestqt") if importlib.util.find_spec(name) is None]


class _Skipped(pytest.Module):
    def collect(self) -> Any:
        pytest.skip(f"needs {', '.join(MISSING)}: pip install '.[module-test]'", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _Skipped.from_parent(parent, path=module_path) if MISSING else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def slicer_harness(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Any]:
    """A Slicer with an empty scene. Fails a test that passed for what its module leaves behind, or for an error that
    it logged; `caplog.clear()` takes those away that a test expects.

    It behaves as the current version; a test marked with `in_both_versions` runs in the oldest too.
    """
    from SlicerHarness import SlicerHarness
    from SlicerHarness.version import CURRENT

    harness = SlicerHarness(tmp_path / "slicer", getattr(request, "param", CURRENT))
    yield harness
    request.node.funcargs.clear()  # the test's own references are no leaks
    harness.close()
    if not request.node.stash.get(FAILED, False):
        assert not _errors_in(caplog), f"logged: {_errors_in(caplog)}"
        assert not harness.leaks, f"left behind: {harness.leaks}"
        assert not harness.dialogs.unused_answers, f"never asked: {harness.dialogs.unused_answers}"


def _errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() + str(record.exc_info or "")
        for record in caplog.get_records("call")
        if record.levelno >= logging.ERROR and record.name.startswith("CPS4SegmentationLib")
    ]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with phantoms (`data`), their runs (`stage 1`, `stage 2`) and a model that finds structures.

    Made in a process of its own: Slicer's must never load torch.
    """
    folder = tmp_path_factory.mktemp("modèle entraîné")
    script = Path(__file__).parents[1] / "small_models.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def engine_python() -> Iterator[str]:
    """The Python that computes: on Linux one that has the engine's libraries loaded already."""
    if sys.platform != "linux":
        yield sys.executable
        return
    from warm_python import make_program

    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        address, program = Path(folder) / "socket", Path(folder) / "python"
        script = Path(__file__).with_name("warm_python.py")
        server = subprocess.Popen([sys.executable, "-X", "utf8", str(script), str(address)])
        while not address.exists():
            assert server.poll() is None
            time.sleep(0.05)
        make_program(program, str(address))
        yield str(program)
        server.kill()
        server.wait()


@pytest.fixture
def module(engine_python: str, slicer_harness: Any, trained: Path) -> Any:
    """The opened module, with the model that comes with CPS4."""
    from module_under_test import Module

    return Module(slicer_harness, trained, engine_python)


@pytest.fixture
def without_checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import the module and its engine anew, and not from the checkout; other tests get theirs back."""
    own = ("CPS4Core", "CPS4Segmentation", "CPS4SegmentationLib")

    def take_out() -> dict[str, Any]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in own}

    before = take_out()
    root = Path(__file__).parents[2]
    places = (root, root / "CPS4Segmentation")
    monkeypatch.setattr(
        sys, "path", [place for place in sys.path if Path(place or ".").resolve() not in places]
    )
    yield
    take_out()
    sys.modules.update(before)


@pytest.fixture
def capture_slot_errors(qtbot: Any) -> Any:
    """`with capture_slot_errors() as errors:` for a slot that raises, as one under tryWithErrorDisplay does."""

    @contextmanager
    def capture() -> Iterator[list[BaseException]]:
        errors: list[BaseException] = []
        with qtbot.capture_exceptions() as caught:
            yield errors
        errors += [value.with_traceback(None) for _, value, _ in caught]  # a traceback would hold the module
        caught.clear()

    return capture
