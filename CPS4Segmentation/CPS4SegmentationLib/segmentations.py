"""Segmentation nodes made from the engine's results: names, colours, codes, and whether somebody edited them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from CPS4Core.anatomy import find_label
from CPS4Core.errors import CPS4Error
from CPS4SegmentationLib.review import Finding, review

DIGEST = "CPS4.Digest"
"""Node attribute of what the engine made: a hash of its segments at that time."""
CONFIDENCE = "CPS4.Confidence"
"""Segment tag: mean softmax probability over the structure, 0 to 1."""
BINARY = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def load_result(
    path: Path, volume: slicer.vtkMRMLScalarVolumeNode, confidence: dict[str, float]
) -> slicer.vtkMRMLSegmentationNode:
    """Return a new segmentation node with the result in ``path``, on the geometry of ``volume``.

    Args:
        path: a ``.seg.nrrd`` file of the engine.
        volume: the source volume.
        confidence: by label number, as the engine reports it.

    Raises:
        CPS4Error: if the file cannot be read.
    """
    try:
        node = slicer.util.loadSegmentation(str(path))
    except RuntimeError as error:
        raise CPS4Error(_("The result could not be read."), _("Segment the volume again."), path) from error
    # The file is temporary: the scene must save the segmentation as its own.
    slicer.mrmlScene.RemoveNode(node.GetStorageNode())
    node.SetName(slicer.mrmlScene.GenerateUniqueName(_("{volume} spine").format(volume=volume.GetName())))
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volume.GetID())
    for segment in segments(node):
        if (label := find_label(segment.GetName())) is not None and str(label) in confidence:
            segment.SetTag(CONFIDENCE, f"{confidence[str(label)]:.4f}")
    node.SetAttribute(DIGEST, digest(node))
    return node


def replace_content(
    target: slicer.vtkMRMLSegmentationNode, source: slicer.vtkMRMLSegmentationNode
) -> slicer.vtkMRMLSegmentationNode:
    """Move the segments of ``source`` into ``target``, which keeps its name and display; ``source`` goes."""
    had_surface = target.GetSegmentation().ContainsRepresentation(
        slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    )
    target.GetSegmentation().DeepCopy(source.GetSegmentation())
    target.SetAttribute(DIGEST, source.GetAttribute(DIGEST))
    slicer.mrmlScene.RemoveNode(source)
    if had_surface:
        target.CreateClosedSurfaceRepresentation()
    return target


def result_of(
    volume: slicer.vtkMRMLScalarVolumeNode, besides: slicer.vtkMRMLSegmentationNode
) -> slicer.vtkMRMLSegmentationNode | None:
    """Return the latest segmentation, apart from ``besides``, that the engine made of ``volume``, or None."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    mine = [
        node
        for node in nodes
        if node is not besides and source_volume(node) is volume and node.GetAttribute(DIGEST)
    ]
    return mine[-1] if mine else None


def source_volume(node: slicer.vtkMRMLSegmentationNode | None) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the volume whose geometry a segmentation has, None if it is not in the scene."""
    return None if node is None else node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())


def is_edited(node: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether the segments differ from what the engine made, in name, number or voxels."""
    return node.GetAttribute(DIGEST) != digest(node)


def digest(node: slicer.vtkMRMLSegmentationNode) -> str:
    """Return a hash of the names and voxels of all segments, whatever the extent of their label maps."""
    sha = hashlib.sha256()
    hashed = set()
    for segment in segments(node):
        sha.update(f"{segment.GetName()}={segment.GetLabelValue()};".encode())
        image = segment.GetRepresentation(BINARY)
        # Segments share a label map, which is hashed once.
        if image is None or image.GetNumberOfPoints() == 0 or image.GetAddressAsString("") in hashed:
            continue
        hashed.add(image.GetAddressAsString(""))
        columns, rows, slices = image.GetDimensions()
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(slices, rows, columns)
        where = np.nonzero(voxels)
        for places, first in zip(where, image.GetExtent()[4::-2], strict=True):
            sha.update((places + first).tobytes())
        sha.update(voxels[where].tobytes())
    return sha.hexdigest()


def segments(node: slicer.vtkMRMLSegmentationNode) -> list[slicer.vtkSegment]:
    """Return the segments of a node, in its order."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]


def segment_ids(node: slicer.vtkMRMLSegmentationNode) -> list[str]:
    """Return the IDs of the segments of a node, in its order."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]


def show_surfaces(node: slicer.vtkMRMLSegmentationNode, shown: bool) -> None:
    """Show the segments as surfaces in the 3D views, or take them out."""
    if shown:
        node.CreateClosedSurfaceRepresentation()
    node.GetDisplayNode().SetVisibility3D(shown)


def masks_of(node: slicer.vtkMRMLSegmentationNode) -> dict[str, np.ndarray]:
    """Return the mask of each segment, axes k, j, i of its volume.

    Raises:
        CPS4Error: if the volume that the segmentation belongs to is gone.
    """
    volume = source_volume(node)
    if volume is None:
        raise CPS4Error(
            _("The MR volume of {name} is not in the scene.").format(name=node.GetName()),
            _("Load it, and choose it as source volume of the segmentation."),
        )
    return {
        each: slicer.util.arrayFromSegmentBinaryLabelmap(node, each, volume) for each in segment_ids(node)
    }


def findings_of(node: slicer.vtkMRMLSegmentationNode) -> list[Finding]:
    """Return what to look at in a segmentation; nothing if its volume is gone."""
    volume = source_volume(node)
    if volume is None:
        return []
    masks = masks_of(node)
    names, confidence = {}, {}
    for segment_id in masks:
        segment = node.GetSegmentation().GetSegment(segment_id)
        names[segment_id] = segment.GetName()
        tag = vtk.reference("")
        if segment.GetTag(CONFIDENCE, tag):
            confidence[segment_id] = float(str(tag))
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return review(masks, names, confidence, slicer.util.arrayFromVTKMatrix(matrix))
