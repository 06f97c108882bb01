"""Writing a reviewed segmentation and its measurements. Files are written aside, checked and renamed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from CPS4Core.data.nifti import check_nifti_is_whole
from CPS4Core.errors import CPS4Error
from CPS4Core.files import written_aside
from CPS4Core.levels import structure_named
from CPS4Core.measuring import Spine
from CPS4Core.measuring.table import COLUMNS as MEASURES
from CPS4Core.measuring.table import LUMBAR, rows_of
from CPS4SegmentationLib.printing import print_page
from CPS4SegmentationLib.review import Finding
from CPS4SegmentationLib.segmentations import (
    AGREEMENT,
    DIGEST,
    is_edited,
    make_label_maps,
    masks_of,
    segments,
    source_volume,
)

COLUMNS = (
    "structure",
    "volume (ml)",
    "confidence",
    "network",
    "teacher",
    "class prompts",
    "look at",
    *MEASURES[2:],
)
HTML = (".html", ".htm")


def write_nifti(node: slicer.vtkMRMLSegmentationNode, path: Path) -> str:
    """Write the class labels of a segmentation on the grid of its volume, and return a warning or nothing.

    Raises:
        CPS4Error: if the source volume is gone, or the file cannot be written.
    """
    labels, left_out = label_array(node)
    volume = source_volume(node)
    holder = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    try:
        slicer.util.updateVolumeFromArray(holder, labels)
        holder.CopyOrientation(volume)
        _write_node(holder, path)
    finally:
        slicer.mrmlScene.RemoveNode(holder)
    if not left_out:
        return ""
    return _("Left out, for they are not in the class table: {names}.").format(names=", ".join(left_out))


def write_segmentation(node: slicer.vtkMRMLSegmentationNode, path: Path) -> str:
    """Write a segmentation with names, colours and codes.

    Raises:
        CPS4Error: if the file cannot be written.
    """
    _write_node(node, path)
    return ""


def write_measurements(findings: list[Finding], spine: Spine, path: Path) -> str:
    """Write the measurements as CSV.

    Raises:
        CPS4Error: if the file cannot be written.
    """
    with _whole(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_rows(findings, spine))
    return ""


def write_report(html: str, path: Path) -> str:
    """Write a report as PDF or, where the name ends so, as HTML.

    Raises:
        CPS4Error: if the file cannot be written.
    """
    with _whole(path) as aside:
        if path.suffix.lower() in HTML:
            aside.write_text(html, encoding="utf-8", newline="\n")
        else:
            print_page(html, aside)
    return ""


def measurements_table(
    findings: list[Finding], spine: Spine, node: slicer.vtkMRMLSegmentationNode
) -> slicer.vtkMRMLTableNode:
    """Return a table node of the scene with the measurements; one a segmentation, filled again."""
    name = _("{segmentation} measurements").format(segmentation=node.GetName())
    table = slicer.mrmlScene.GetFirstNode(name, "vtkMRMLTableNode")
    if table is None:
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table.RemoveAllColumns()
    rows = _rows(findings, spine)
    for place, title in enumerate(COLUMNS):
        column = vtk.vtkStringArray()
        column.SetName(title)
        for row in rows:
            column.InsertNextValue(str(row[place]))
        table.AddColumn(column)
    return table


def write_dicom(node: slicer.vtkMRMLSegmentationNode, folder: Path) -> str:
    """Export a segmentation as DICOM SEG with the exporter of Slicer, or of the extension QuantitativeReporting.

    Raises:
        CPS4Error: if the volume did not come from DICOM, or there is no exporter, or it fails.
    """
    volume = source_volume(node)
    if volume is None:
        raise CPS4Error(
            _("The MR volume of the segmentation is not in the scene."), _("Load it, then try again.")
        )
    # The exporter itself would offer to export anything.
    if not volume.GetAttribute("DICOM.instanceUIDs"):
        raise CPS4Error(
            _("The segmentation cannot be exported: its MR volume did not come from DICOM."),
            _("Load the MR from DICOM, or save as NIfTI or .seg.nrrd."),
        )
    try:
        import DICOMSegmentationPlugin
    except ImportError as error:
        raise CPS4Error(
            _("Slicer has no DICOM SEG exporter."),
            _("Install the extension QuantitativeReporting, or Slicer 5.12 or later."),
        ) from error
    make_label_maps(node)
    _say_who_made(node)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    # The segmentation belongs to the study of its image.
    volume_item = hierarchy.GetItemByDataNode(volume)
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), hierarchy.GetItemParent(volume_item))
    exporter = DICOMSegmentationPlugin.DICOMSegmentationPluginClass()
    exportables = exporter.examineForExport(hierarchy.GetItemByDataNode(node))
    for exportable in exportables:
        exportable.directory = str(folder)
    problem = exporter.export(exportables) if exportables else _("nothing to export")
    if problem:
        raise CPS4Error(
            _("The DICOM export failed: {problem}.").format(problem=problem.rstrip(".")),
            _("Import the study into Slicer's DICOM database, then try again. Slicer's error log says more."),
        )
    return ""


def _say_who_made(node: slicer.vtkMRMLSegmentationNode) -> None:
    """Tell of segments that the engine made that nobody drew them: else the DICOM file calls them manual."""
    if node.GetAttribute(DIGEST) is None:
        return
    made = "SEMIAUTOMATIC" if is_edited(node) else "AUTOMATIC"
    for segment in segments(node):
        segment.SetTag("DICOM.SegmentAlgorithmType", made)
        segment.SetTag("DICOM.SegmentAlgorithmName", "CPS4")


def label_array(node: slicer.vtkMRMLSegmentationNode) -> tuple[np.ndarray, list[str]]:
    """Return the class labels of a segmentation, uint8, axes k, j, i of its volume, and the names left out.

    Raises:
        CPS4Error: if the source volume is gone.
    """
    masks = masks_of(node)
    labels, left_out = None, []
    for segment, mask in zip(segments(node), masks.values(), strict=True):
        labels = np.zeros(mask.shape, np.uint8) if labels is None else labels
        structure = structure_named(segment.GetName())
        if structure is None:
            left_out.append(segment.GetName())
        else:
            labels[mask] = structure.label
    if labels is None:
        raise CPS4Error(_("The segmentation is empty."), _("Segment the volume first."))
    return labels, left_out


def _rows(findings: list[Finding], spine: Spine) -> list[tuple[str, ...]]:
    """Return the rows of all structures, and that of the whole lumbar lordosis."""
    measures = rows_of(spine)
    nothing = ("",) * len(MEASURES)
    rows = [(*_row(finding), *measures.get(finding.name, nothing)[2:]) for finding in findings]
    whole = (LUMBAR, *[""] * (len(COLUMNS) - len(MEASURES) + 1), *measures[LUMBAR][2:])
    return [*rows, whole]


def _row(finding: Finding) -> tuple[str, ...]:
    agreement = (finding.agreement.get(name, math.nan) for name in AGREEMENT)
    numbers = (finding.volume_ml, finding.confidence, *agreement)
    return (finding.name, *("" if math.isnan(x) else f"{x:.3f}" for x in numbers), ", ".join(finding.flags))


def _write_node(node: slicer.vtkMRMLStorableNode, path: Path) -> None:
    with _whole(path) as aside:
        # Slicer reports success of a NIfTI file that the disk could take only a part of.
        if not slicer.util.exportNode(node, str(aside), {}):
            raise EOFError(aside)
        _check_volume_is_whole(aside)


def _check_volume_is_whole(path: Path) -> None:
    """Read a volume to its end.

    Raises:
        EOFError: if voxels are missing.
        RuntimeError: if it cannot be read.
    """
    # Slicer brings SimpleITK; it is loaded when first needed.
    import SimpleITK as sitk

    check_nifti_is_whole(path)
    sitk.ReadImage(str(path))


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a file name beside ``path``, and rename the file once it is complete.

    Raises:
        CPS4Error: if the file cannot be written; an older one stays.
    """
    try:
        with written_aside(path) as aside:
            yield aside
    except (CPS4Error, EOFError, RuntimeError, ValueError) as error:
        raise CPS4Error(
            _("{name} could not be written.").format(name=path.name),
            _("Choose another folder, or free some disk space."),
            path,
        ) from error
