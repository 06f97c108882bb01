"""The main workflow in a real Slicer, with pictures, by one command:

    Slicer --additional-module-paths CPS4Segmentation --python-script Testing/Slicer/run_in_slicer.py [PYTHON]

It trains a small model (a minute), segments a phantom, shows an attention map, shifts levels, names one by a click,
saves and opens the scene again, and writes pictures and a report to `build/slicer`. PYTHON is an environment with
CPS4 and its packages; without it, Slicer's own is used. Slicer ends with code 0 if all is well.
"""

import subprocess
import sys
import time
import traceback
from pathlib import Path

import ctk
import qt
import slicer

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "Testing" / "small_models.py"
OUTPUT = ROOT / "build" / "slicer"
SECONDS = 600


def main() -> None:
    """Run every step, and note what happened."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    report = [f"Slicer {slicer.app.applicationVersion}, Python {sys.version.split()[0]}"]
    code = 0
    try:
        for step in (
            open_module,
            train_model,
            load_and_segment,
            look_at_attention,
            review,
            name_by_click,
            reopen,
            self_test,
        ):
            started = time.monotonic()
            step()
            report.append(f"ok      {step.__name__}  {time.monotonic() - started:.1f} s")
            print(report[-1])
    except Exception:
        report.append(f"FAILED  {step.__name__}\n{traceback.format_exc()}")
        print(report[-1])
        code = 1
    (OUTPUT / "report.txt").write_text("\n".join(report) + "\n", encoding="utf-8")
    slicer.util.exit(code)


def open_module() -> None:
    """Open the module; the engine runs in the environment named on the command line."""
    if len(sys.argv) > 1 and Path(sys.argv[-1]).is_file() and sys.argv[-1] != __file__:
        qt.QSettings().setValue("CPS4/EnginePython", sys.argv[-1])
    slicer.util.selectModule("CPS4Segmentation")
    slicer.app.processEvents()


def train_model() -> None:
    """Train a small model on phantoms, in the engine's own environment."""
    from CPS4SegmentationLib.engine import engine_python

    # Not that of this process: it holds Slicer's PYTHONHOME, with which an own Python does not start.
    environment = {**slicer.util.startupEnvironment(), "PYTHONPATH": str(ROOT)}
    if not (OUTPUT / "stage 2" / "model" / "card.json").is_file():
        subprocess.run([engine_python(), str(SCRIPT), str(OUTPUT)], check=True, env=environment)
    widget().segment.ui.modelEdit.currentPath = str(OUTPUT / "stage 2" / "model")


def load_and_segment() -> None:
    """Load a phantom, press Segment, and show it in 3D."""
    volume = slicer.util.loadVolume(str(OUTPUT / "data" / "imagesTs" / "test_0001_0000.nii.gz"))
    panel = widget().segment
    panel.ui.inputSelector.setCurrentNode(volume)
    panel.ui.segmentButton.click()
    wait(lambda: not panel.ui.cancelButton.enabled)
    node = panel.ui.segmentationSelector.currentNode()
    assert node is not None and node.GetSegmentation().GetNumberOfSegments() > 0, panel.ui.statusLabel.text
    panel.ui.show3DButton.checked = True
    picture("segment")


def look_at_attention() -> None:
    """Show the attention map of L4 beside its binary map."""
    panel = widget().attention
    widget().tabs.setCurrentWidget(panel.widget)
    panel.ui.sideBySideButton.click()
    panel.show_prompt("L4")
    wait(lambda: panel.ui.hideButton.enabled)
    picture("attention")


def review() -> None:
    """Shift the levels up and take it back."""
    panel = widget().review
    widget().tabs.setCurrentWidget(panel.widget)
    before = names()
    panel.ui.levelsUpButton.click()
    assert names() != before
    panel.ui.undoButton.click()
    assert names() == before
    picture("review")


def name_by_click() -> None:
    """Click on a disc in the yellow view and choose another level; take it back."""
    panel = widget().review
    table, before = panel.ui.structureTable, names()
    found = [table.item(row, 0).text() for row in range(table.rowCount)]
    disc = next(name for name in found if "/" in name and name in before)
    table.setCurrentCell(found.index(disc), 0)  # which takes the middle of the views there
    panel.ui.nameClickButton.click()
    picture("click")
    view = slicer.app.layoutManager().sliceWidget("Yellow").sliceView()
    mouse, (width, height) = view.interactor(), view.renderWindow().GetSize()
    mouse.SetEventInformation(width // 2, height // 2)
    for event in ("EnterEvent", "MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
        mouse.InvokeEvent(event)
    wait(lambda: qt.QApplication.activePopupWidget() is not None)
    picture("menu")
    menu = qt.QApplication.activePopupWidget()
    levels = [action for action in menu.actions() if action.checkable]
    assert [action.text for action in levels if action.checked] == [disc]
    assert not slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    menu.close()
    next(action for action in levels if not action.checked).trigger()
    slicer.app.processEvents()
    assert names() != before
    panel.ui.undoButton.click()
    assert names() == before


def reopen() -> None:
    """Save the scene, close it and open it again."""
    before = names()
    assert slicer.util.saveScene(str(OUTPUT / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(OUTPUT / "scene.mrb"))
    assert names() == before


def self_test() -> None:
    """Run what Reload and Test runs."""
    from CPS4Segmentation import CPS4SegmentationTest

    CPS4SegmentationTest().runTest()


def widget():
    """Return the module's widget."""
    return slicer.util.getModuleWidget("CPS4Segmentation")


def names() -> list:
    """Return the names of the current segmentation's segments."""
    segmentation = widget().segment.ui.segmentationSelector.currentNode().GetSegmentation()
    return [segmentation.GetNthSegment(k).GetName() for k in range(segmentation.GetNumberOfSegments())]


def wait(condition) -> None:
    """Run Slicer until the condition holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "took too long"
        slicer.app.processEvents()


def picture(name: str) -> None:
    """Save the whole window as a picture."""
    slicer.util.forceRenderAllViews()
    slicer.app.processEvents()
    ctk.ctkWidgetsUtils.grabWidget(slicer.util.mainWindow()).save(str(OUTPUT / f"{name}.png"))


if __name__ == "__main__":
    main()
