"""Loading a result from the disk together with the scan that it was made of."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from CPS4Core.errors import CPS4Error
from CPS4SegmentationLib.folder_batch import FileResult
from CPS4SegmentationLib.segmentations import load_result, source_volume

FILE = "CPS4.File"
"""Node attribute of a segmentation that was loaded from a file here: its path."""


def load_pair(result: FileResult) -> tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode]:
    """Return the scan and the result, loaded unless they are in the scene already.

    Raises:
        CPS4Error: if one of them cannot be loaded, or the scan is a DICOM series.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(FILE) == str(result.path) and source_volume(node) is not None:
            return source_volume(node), node
    if result.scan.is_dir():
        raise CPS4Error(
            _("A DICOM series is not loaded from here."),
            _("Load it through the module DICOM, and drop the result {path} into Slicer.").format(
                path=result.path
            ),
        )
    volume = _scan(result.scan)
    node = load_result(result.path, volume, result.details, result.model)
    node.SetAttribute(FILE, str(result.path))
    return volume, node


def _scan(path: Path) -> slicer.vtkMRMLScalarVolumeNode:
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        storage = volume.GetStorageNode()
        if storage is not None and storage.GetFileName() and Path(storage.GetFileName()) == path:
            return volume
    try:
        return slicer.util.loadVolume(str(path))
    except RuntimeError as error:
        raise CPS4Error(
            _("Slicer cannot load the scan."), _("Look whether it is still there."), path
        ) from error
