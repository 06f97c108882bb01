"""The pictures of the README: each panel beside slice views that Slicer's own displayable managers draw.

    python Testing/Module/take_screenshots.py SCAN DATA [OUTPUT] [--dark] [--width PIXELS]

SCAN is a sagittal MR, which the model that comes with CPS4 segments, DATA a data set to train on for a moment. With
--dark the panels have the colours of Slicer's dark style, with --width another width; both are for looking at.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(Path(__file__).parent)]

from module_under_test import Module  # noqa: E402
from PIL import Image  # noqa: E402
from SlicerHarness import SlicerHarness  # noqa: E402

from CPS4Core.measuring.table import rows_of  # noqa: E402

PANEL_WIDTH = 430
VIEW = (620, 620)
SHORT_TRAINING = "pretrain.epochs=3; train.epochs=4; train.steps_per_epoch=5; train.validate_every=1"
SECONDS = 900


def main(scan: Path, data: Path, output: Path, dark: bool, width: int) -> None:
    """Take all pictures."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, SlicerHarness(Path(folder) / "slicer") as harness:
        camera = Camera(harness, Module(harness, Path(folder)), Path(folder), output, width)
        if dark:
            harness.use_dark_style()
        module = camera.module
        volume = module.load(scan, "T2 sagittal")
        node = module.segment()
        worker = module.widget.logic.worker
        module.wait(lambda: not worker._requests and not worker._checks, SECONDS)
        module.panel("review")
        findings = [finding for finding in module.widget.review._findings if finding.centre is not None]
        centre = max(findings, key=lambda finding: finding.volume_ml).centre
        camera.point_at(volume, centre)
        module.panel("segment")
        module.widget.segment.ui.show3DButton.checked = True
        camera.take("segment", ["Yellow"], surfaces=True)

        review = module.panel("review")
        review.ui.structureTable.setCurrentCell(0, 0)
        camera.point_at(volume, centre)
        camera.take("review", ["Yellow"])

        review.ui.exportButton.collapsed = True
        review.ui.measuresButton.collapsed = False
        review.ui.drawButton.checked = True
        review.ui.measureTable.setCurrentCell(list(rows_of(review._spine)).index("L4"), 0)
        camera.point_at(volume, centre)
        camera.take("measures", ["Yellow"])
        review.ui.drawButton.checked = False

        attention = module.panel("attention")
        node.GetDisplayNode().SetVisibility(False)
        attention.ui.computeButton.click()
        module.wait(lambda: not attention.ui.progressBar.visible, SECONDS)
        attention.ui.sideBySideButton.click()
        attention.ui.classTable.setCurrentCell(12, 0)
        module.wait(lambda: attention.ui.hideButton.enabled, SECONDS)
        camera.point_at(volume, centre)
        camera.take("attention", ["Red", "Yellow"])

        train = module.panel("train")
        train.ui.dataEdit.currentPath = str(data)
        module.wait(lambda: not train.ui.stopButton.enabled, SECONDS)
        train.ui.outputEdit.currentPath = str(Path(folder) / "runs")
        train.ui.ratioSlider.value = 50  # the others count as unlabelled
        train.ui.settingsEdit.text = SHORT_TRAINING
        train.ui.startButton.click()
        module.wait(lambda: not train.ui.stopButton.enabled, SECONDS)
        train.ui.dataEdit.blockSignals(True)
        train.ui.dataEdit.currentPath = "C:/Spine/Dataset101"  # no path of the machine that takes the picture
        train.ui.outputEdit.blockSignals(True)
        train.ui.outputEdit.currentPath = "C:/Spine/runs"
        camera.take("train", [])

        module.panel("settings")
        module.widget.settings.ui.checkButton.click()
        module.wait(lambda: "Looking" not in module.widget.settings.ui.engineLabel.text, SECONDS)
        module.widget.settings.ui.pythonEdit.blockSignals(True)
        module.widget.settings.ui.pythonEdit.currentPath = "C:/Python/cps4/python.exe"
        module.widget.settings.ui.logEdit.clear()
        camera.take("settings", [])


class Camera:
    """Puts the panel and the views that belong to it into one picture."""

    def __init__(self, harness, module, folder: Path, output: Path, width: int):
        self.harness = harness
        self.module = module
        self.folder = folder
        self.output = output
        self.width = width

    def point_at(self, volume, centre) -> None:
        """Turn both views to sagittal slices through ``centre``."""
        manager = self.module.slicer.app.layoutManager()
        for name in ("Red", "Yellow"):
            widget = manager.sliceWidget(name)
            widget.mrmlSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
            widget.mrmlSliceNode().SetOrientationToSagittal()
            widget.sliceLogic().FitSliceToBackground()
            widget.mrmlSliceNode().JumpSlice(*centre)

    def take(self, name: str, views: list[str], surfaces: bool = False) -> None:
        """Write the picture ``name``."""
        panel = self.folder / "panel.png"
        self.harness.photograph(self.module.widget.parent, panel, width=self.width)
        parts = [Image.open(panel).convert("RGB")]
        for view in views:
            path = self.folder / f"{view}.png"
            self.harness.render_slice_view(path, view, VIEW)
            parts.append(Image.open(path).convert("RGB"))
        if surfaces:
            path = self.folder / "surfaces.png"
            view = self.module.slicer.app.layoutManager().threeDWidget(0).threeDView()
            view.mrmlViewNode().SetBoxVisible(False)
            view.mrmlViewNode().SetAxisLabelsVisible(False)
            view.rotateToViewAxis(view.cameraNode().Left)
            view.resetFocalPoint()
            view.resetCamera()
            self.harness.render_3d_view(path, size=(VIEW[0] // 2, VIEW[1]))
            parts.append(Image.open(path).convert("RGB"))
        height = max(picture.height for picture in parts)
        whole = Image.new("RGB", (sum(picture.width for picture in parts), height), (40, 40, 45))
        left = 0
        for picture in parts:
            whole.paste(picture, (left, 0))
            left += picture.width
        whole.save(self.output / f"{name}.png", optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("scan", "data"):
        parser.add_argument(name, type=Path)
    parser.add_argument("output", type=Path, nargs="?", default=ROOT / "Resources" / "Screenshots")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=PANEL_WIDTH)
    main(**vars(parser.parse_args()))
