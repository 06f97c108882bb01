"""The CPS4 module as a user drives it: opened, a phantom loaded, buttons pressed."""

import sys
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
from SlicerHarness.version import VERSIONS

in_both_versions = pytest.mark.parametrize("slicer_harness", VERSIONS, indirect=True)
"""For a test of what differs between the oldest Slicer that is supported and the current one."""

MODULE = Path(__file__).parents[2] / "CPS4Segmentation" / "CPS4Segmentation.py"
SECONDS = 120
"""How long a job of the small model may take on a busy machine."""


class Module:
    """The opened module.

    Args:
        harness: the fixture `slicer_harness`.
        trained: the fixture `trained`.
        python: runs the engine.
    """

    def __init__(self, harness: Any, trained: Path, python: str = sys.executable):
        self.harness = harness
        self.slicer = harness.slicer
        self.trained = trained
        self.model = trained / "stage 2" / "model"
        self.scan = trained / "data" / "imagesTs" / "test_0001_0000.nii.gz"
        self.truth = trained / "data" / "labelsTs" / "test_0001.nii.gz"
        import qt

        self.python = python
        qt.QSettings().setValue("CPS4/EnginePython", python)
        self.widget = harness.open_module(MODULE)

    def panel(self, name: str) -> Any:
        """A panel, such as `segment`, shown."""
        panel = getattr(self.widget, name)
        self.widget.tabs.setCurrentWidget(panel.widget)
        self.harness.process_events()
        return panel

    def choose_model(self, folder: Path | None = None) -> None:
        self.widget.segment.ui.modelEdit.currentPath = str(folder or self.model)

    def load(self, path: Path | None = None, name: str = "mr") -> Any:
        volume = self.slicer.util.loadVolume(str(path or self.scan), {"name": name})
        self.widget.segment.ui.inputSelector.setCurrentNode(volume)
        self.harness.process_events()
        return volume

    def segment(self, volume: Any = None) -> Any:
        """Press Segment, wait, and return the segmentation."""
        panel = self.panel("segment")
        if volume is not None:
            panel.ui.inputSelector.setCurrentNode(volume)
        panel.ui.segmentButton.click()
        self.wait(lambda: not panel.ui.cancelButton.enabled)
        return panel.ui.segmentationSelector.currentNode()

    def wait(self, condition: Any, seconds: float = SECONDS) -> None:
        self.harness.wait_until(condition, seconds)


def write_series(image: sitk.Image, folder: Path, description: str, number: int = 1) -> Path:
    """Write a volume as a DICOM series of the study in ``folder``, which is returned."""
    folder.mkdir(exist_ok=True)
    image = sitk.Cast(image, sitk.sitkInt16)
    direction = image.GetDirection()
    tags = {
        "0008|0060": "MR",
        "0008|103e": description,
        "0008|0020": "20240305",
        "0010|0010": "Müller^Hans",
        "0008|0005": "ISO_IR 192",
        "0010|0020": "patient 1",
        "0020|000d": "1.2.3.4",
        "0020|000e": f"1.2.3.4.{number}",
        "0020|0037": "\\".join(f"{direction[k]:.6f}" for k in (0, 3, 6, 1, 4, 7)),
        "0018|0050": f"{image.GetSpacing()[2]:.6f}",
    }
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(image.GetSize()[2]):
        piece = image[:, :, k]
        position = image.TransformIndexToPhysicalPoint((0, 0, k))
        place = {
            "0008|0018": f"1.2.3.4.{number}.{k}",
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{part:.6f}" for part in position),
        }
        for tag, value in (tags | place).items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{number}-{k:03d}.dcm"))
        writer.Execute(piece)
    return folder


def names_of(node: Any) -> list[str]:
    """The names of a segmentation's segments, in its order."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(k).GetName() for k in range(segmentation.GetNumberOfSegments())]
