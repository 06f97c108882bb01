"""How the engine is started and ended, and what is told of a job that ends without a word."""

import gc
import sys
import weakref
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the launcher is a script")


@pytest.fixture
def launcher(module):
    """Slicer's own Python computes, started through Slicer's launcher; gives the packages that the launcher offers."""
    import qt

    packages = module.harness.install_launcher()
    qt.QSettings().setValue("CPS4/EnginePython", "")
    return packages


@pytest.fixture
def another_engine(module, monkeypatch, tmp_path):
    """`another_engine(source)`: a stand-in for the engine, by the source of its command line."""
    import qt
    from CPS4SegmentationLib import engine

    if qt.QSettings().value("CPS4/EnginePython") == module.python:  # which has loaded the real one
        qt.QSettings().setValue("CPS4/EnginePython", sys.executable)

    def write(source: str, folder: Path = tmp_path) -> Path:
        (folder / "CPS4Core").mkdir()
        (folder / "CPS4Core" / "__init__.py").write_text('__version__ = "9.9.9"\n')
        (folder / "CPS4Core" / "cli.py").write_text(source)
        return folder

    monkeypatch.setattr(engine, "ENGINE_FOLDER", tmp_path)
    return write


def test_a_hung_engine_ends_with_its_launcher(module, launcher, another_engine):
    from CPS4SegmentationLib.engine import EngineProcess

    def started():
        return [child for child in psutil.Process().children(recursive=True) if child not in before]

    another_engine("import time\nwhile True:\n    time.sleep(1)\n")
    ends, before = [], psutil.Process().children(recursive=True)
    process = EngineProcess(["worker"], print, module.widget.logic.log, ends.append)
    module.wait(lambda: len(started()) == 2)
    launched = started()
    module.wait(lambda: any("9.9.9" in line for line in module.widget.logic.lines), 30)
    process.stop(0.2)
    _gone, alive = psutil.wait_procs(launched, timeout=5)
    assert not alive
    assert not process.running
    assert not ends  # nobody is told


def test_this_version_of_the_engine_runs(module, launcher, another_engine, tmp_path):
    """The launcher's own packages stand before those of PYTHONPATH; an older engine may be among them."""
    from CPS4SegmentationLib.engine import EngineProcess

    (tmp_path / "new").mkdir()
    another_engine("raise SystemExit('the old one')\n", launcher)
    another_engine("import sys\nprint('the new one', sys.argv[1:])\n")
    lines, ends = [], []
    process = EngineProcess(["inspect", "a b"], print, lines.append, ends.append)
    module.wait(lambda: bool(ends))
    assert "the new one ['inspect', 'a b']" in lines
    assert any("9.9.9" in line for line in lines)
    assert ends == [0]
    assert not process.running


@pytest.mark.parametrize("ending", ["by itself", "stopped", "never started"])
def test_nothing_holds_a_process_that_has_ended(module, another_engine, monkeypatch, ending):
    from CPS4SegmentationLib import engine

    another_engine("import time\ntime.sleep(60)\n" if ending == "stopped" else "")
    if ending == "never started":
        monkeypatch.setattr(engine, "engine_python", lambda: "/no/such/python")
    process = engine.EngineProcess(["worker"], print, module.widget.logic.log, print)
    if ending == "stopped":
        process.stop(0)
    module.wait(lambda: not process.running)
    module.harness.process_events()
    ended = weakref.ref(process)
    process = None
    gc.collect()
    assert ended() is None


def test_the_module_segments_through_the_launcher(module, launcher):
    module.choose_model()
    module.load()
    assert module.segment().GetSegmentation().GetNumberOfSegments()


def test_a_job_that_ends_without_a_word_is_reported(module, another_engine, monkeypatch, tmp_path):
    another_engine("")
    panel = module.panel("train")
    (tmp_path / "data").mkdir()
    panel.ui.dataEdit.currentPath = str(tmp_path / "data")
    module.wait(lambda: not panel.ui.stopButton.enabled)
    assert "stopped unexpectedly" in panel.ui.dataLabel.text


def test_what_slicer_put_into_the_environment_stays_out_of_an_own_python(module, monkeypatch):
    from CPS4SegmentationLib.engine import engine_environment

    monkeypatch.setenv("PYTHONHOME", "/Slicer/lib/Python")
    assert not engine_environment().contains("PYTHONHOME")


def test_the_script_for_a_real_slicer_starts_in_a_clean_environment(module, monkeypatch, tmp_path):
    """`os.environ` of Slicer's process holds its PYTHONHOME, with which no other Python starts."""
    import runpy

    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "Slicer"))
    script = Path(__file__).parents[1] / "Slicer" / "run_in_slicer.py"
    steps = runpy.run_path(str(script), run_name="steps")
    steps["train_model"].__globals__["OUTPUT"] = tmp_path
    (tmp_path / "made.py").write_text(
        "import sys; from pathlib import Path\n"
        "(Path(sys.argv[1]) / 'stage 2' / 'model').mkdir(parents=True)\n"
        "(Path(sys.argv[1]) / 'stage 2' / 'model' / 'card.json').write_text('{}')\n"
    )
    steps["train_model"].__globals__["SCRIPT"] = tmp_path / "made.py"
    steps["train_model"]()
    assert (tmp_path / "stage 2" / "model" / "card.json").is_file()
    steps["picture"]("window")
    assert (tmp_path / "window.png").stat().st_size > 1000
