"""The exporter of DICOM SEG: in Slicer 5.12 itself, and in the extension QuantitativeReporting before.

As the real one it offers to export any segmentation, and tells what it lacks only when it exports.
"""

from pathlib import Path
from typing import Any

import slicer
import vtk

BINARY = "Binary labelmap"


class Exportable:
    """What the plugin offers; the caller says in which `directory`."""

    def __init__(self, item: int):
        self.subjectHierarchyItemID, self.directory = item, ""


class DICOMSegmentationPluginClass:
    def examineForExport(self, item: int) -> list[Exportable]:
        node = _hierarchy().GetItemDataNode(item)
        return [Exportable(item)] if node is not None and node.IsA("vtkMRMLSegmentationNode") else []

    def export(self, exportables: list[Exportable]) -> str:
        """Returns what went wrong, or nothing."""
        try:
            for exportable in exportables:
                _write(_hierarchy().GetItemDataNode(exportable.subjectHierarchyItemID), exportable.directory)
        except ValueError as error:
            return str(error)
        except Exception as error:
            return f"Segmentation object export failed.\n{error}"
        return ""


def _hierarchy() -> Any:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def _write(node: Any, directory: str) -> None:
    """Writes a list of what the DICOM file would say of each segment, which a test can read."""
    volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    if volume is None:
        raise ValueError("Referenced volume is not found for the segmentation.")
    uids = volume.GetAttribute("DICOM.instanceUIDs")
    if not uids:
        raise ValueError(f"VolumeNode {volume.GetName()} has no attribute DICOM.instanceUIDs")
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    described = [_describe(segment) for segment in segments if not _is_empty(segment)]
    if not described:
        raise ValueError("No non empty segments found.")
    missing = [uid for uid in uids.split() if not slicer.dicomDatabase.fileForInstance(uid)]
    if missing:
        raise ValueError(f"Referenced volume files were not found in the DICOM database ({len(missing)}).")
    Path(directory, "subject_hierarchy_export.SEG.dcm").write_text("\n".join(described), encoding="utf-8")


def _is_empty(segment: Any) -> bool:
    """Raises AttributeError, as in Slicer, for a segment without a label map."""
    voxels = segment.GetRepresentation(BINARY).GetPointData().GetArray("ImageScalars")
    return voxels is None or voxels.GetValueRange() == (0, 0)


def _describe(segment: Any) -> str:
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.modules.terminologies.logic()
    logic.DeserializeTerminologyEntry(_tag(segment, segment.GetTerminologyEntryTagName()), entry)
    if entry.GetCategoryObject() is None or entry.GetTypeObject() is None:
        raise ValueError(f"Segment {segment.GetName()} has missing attributes. Make sure to set terminology.")
    made = _tag(segment, "DICOM.SegmentAlgorithmType") or "MANUAL"
    maker = _tag(segment, "DICOM.SegmentAlgorithmName")
    if made != "MANUAL" and not maker:
        raise ValueError(f"Segment {segment.GetName()} has missing SegmentAlgorithmName.")
    return ";".join((segment.GetName(), entry.GetTypeObject().GetCodeMeaning(), made, maker))


def _tag(segment: Any, name: str) -> str:
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""
