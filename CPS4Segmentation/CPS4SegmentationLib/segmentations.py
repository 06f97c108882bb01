"""Segmentation nodes made from the engine's results: names, colours, codes, and whether somebody edited them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from CPS4Core.class_table import segment_id
from CPS4Core.errors import CPS4Error
from CPS4Core.measuring import Spine, measure_masks
from CPS4SegmentationLib.doubt import show_doubt
from CPS4SegmentationLib.review import Finding, review

DIGEST = "CPS4.Digest"
"""Node attribute of what the engine made: a hash of its segments at that time."""
MADE_BY = "CPS4.Model"
"""Node attribute of what the engine made: the SHA-256 of the network's weights."""
MODEL, DOUBTS = "CPS4.ModelName", "CPS4.Doubts"
"""Node attributes of what the engine made: the model's name, and what the engine doubts, a sentence a line."""
AGREEMENT = {"network": "CPS4.Network", "teacher": "CPS4.Teacher", "prompts": "CPS4.Prompts"}
"""Segment tags: what speaks for the structure, each 0 to 1. See ``CPS4Core.inference.agreement``."""
LOOKED_AT = "CPS4.LookedAt"
"""Segment tag: for what flags somebody looked at the structure, with a semicolon between two."""
BINARY = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def load_result(
    path: Path, volume: slicer.vtkMRMLScalarVolumeNode, details: Mapping[str, Any], model: str
) -> slicer.vtkMRMLSegmentationNode:
    """Return a new segmentation node with the result in ``path``, on the geometry of ``volume``.

    Args:
        path: a ``.seg.nrrd`` file of the engine.
        volume: the source volume.
        details: what the engine reports of it: ``confidence`` by label number, ``network``, the SHA-256 of the
            weights, and ``doubts``. Without a network the result counts as somebody's own.
        model: name of the model.

    Raises:
        CPS4Error: if the file cannot be read.
    """
    # slicer.util.loadSegmentation would list the temporary file under File > Recent.
    node = slicer.modules.segmentations.logic().LoadSegmentationFromFile(str(path))
    if node is None:
        raise CPS4Error(_("The result could not be read."), _("Segment the volume again."), path)
    # The file is temporary: the scene must save the segmentation as its own.
    slicer.mrmlScene.RemoveNode(node.GetStorageNode())
    node.SetName(slicer.mrmlScene.GenerateUniqueName(_("{volume} spine").format(volume=volume.GetName())))
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volume.GetID())
    set_agreement(node, {label: {"network": value} for label, value in details.get("confidence", {}).items()})
    if details.get("network"):
        node.SetAttribute(DIGEST, digest(node))
        node.SetAttribute(MADE_BY, details["network"])
        node.SetAttribute(MODEL, model)
        node.SetAttribute(DOUBTS, "\n".join(details.get("doubts", ())))
    return node


def model_of(node: slicer.vtkMRMLSegmentationNode) -> str:
    """Return the name of the model that made a segmentation, empty if it is not known."""
    return node.GetAttribute(MODEL) or ""


def doubts_of(node: slicer.vtkMRMLSegmentationNode) -> list[str]:
    """Return what the engine doubted when it made a segmentation."""
    return (node.GetAttribute(DOUBTS) or "").splitlines()


def set_agreement(node: slicer.vtkMRMLSegmentationNode, agreement: Mapping[str, Mapping[str, float]]) -> None:
    """Write down what speaks for each structure of an engine's result.

    Args:
        node: the segmentation; its segments keep the IDs of the engine, whatever they are called now.
        agreement: by label number, then by the name of the part of the model, as the engine reports it.
    """
    for label, numbers in agreement.items():
        segment = node.GetSegmentation().GetSegment(segment_id(int(label)))
        if segment is not None:  # it may have been deleted meanwhile
            for name, value in numbers.items():
                segment.SetTag(AGREEMENT[name], f"{value:.4f}")


def agreement_of(segment: slicer.vtkSegment) -> dict[str, float]:
    """Return what speaks for a structure, by the name of the part of the model; empty if no engine made it."""
    found, tag = {}, vtk.reference("")
    for name, key in AGREEMENT.items():
        if segment.GetTag(key, tag):
            found[name] = float(str(tag))
    return found


def looked_at(segment: slicer.vtkSegment) -> list[str]:
    """Return for what flags somebody looked at a structure."""
    tag = vtk.reference("")
    return str(tag).split(";") if segment.GetTag(LOOKED_AT, tag) else []


def set_looked_at(segment: slicer.vtkSegment, flags: Iterable[str]) -> None:
    """Write down for what flags somebody looked at a structure; without any, nobody did."""
    if text := ";".join(flags):
        segment.SetTag(LOOKED_AT, text)
    else:
        segment.RemoveTag(LOOKED_AT)


def replace_content(
    target: slicer.vtkMRMLSegmentationNode, source: slicer.vtkMRMLSegmentationNode
) -> slicer.vtkMRMLSegmentationNode:
    """Move the segments of ``source`` into ``target``, which keeps its name and display; ``source`` goes."""
    had_surface = target.GetSegmentation().ContainsRepresentation(
        slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    )
    show_doubt(target, ())  # the new segments have the IDs, and so the display, of the old ones
    target.GetSegmentation().DeepCopy(source.GetSegmentation())
    for name in (DIGEST, MADE_BY, MODEL, DOUBTS):
        target.SetAttribute(name, source.GetAttribute(name))
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
        voxels = voxels_of(image)
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
    if node.GetDisplayNode() is None:  # as of a node that a script made
        node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility3D(shown)


def make_label_maps(node: slicer.vtkMRMLSegmentationNode) -> None:
    """Give segments that are surfaces alone, as from an STL file, the label maps that measuring and exporting need."""
    if any(segment.GetRepresentation(BINARY) is None for segment in segments(node)):
        node.CreateBinaryLabelmapRepresentation()


def masks_of(node: slicer.vtkMRMLSegmentationNode) -> dict[str, np.ndarray]:
    """Return the mask of each segment, bool, axes k, j, i of its volume.

    Raises:
        CPS4Error: if the volume that the segmentation belongs to is gone.
    """
    volume = source_volume(node)
    if volume is None or volume.GetImageData() is None:
        raise CPS4Error(
            _("The MR volume of {name} is not in the scene.").format(name=node.GetName()),
            _("Load it, and choose it as source volume of the segmentation."),
        )
    make_label_maps(node)
    grid = _grid_of(volume)
    return {segment_id: _mask_on(grid, node, segment_id) for segment_id in segment_ids(node)}


def mask_of(
    node: slicer.vtkMRMLSegmentationNode, segment: str, volume: slicer.vtkMRMLScalarVolumeNode
) -> np.ndarray:
    """Return the mask of one segment on the grid of ``volume``, bool, axes k, j, i."""
    make_label_maps(node)
    return _mask_on(_grid_of(volume), node, segment)


def set_mask(
    node: slicer.vtkMRMLSegmentationNode,
    segment: str,
    mask: np.ndarray,
    volume: slicer.vtkMRMLScalarVolumeNode,
) -> None:
    """Make ``mask``, axes k, j, i of ``volume``, not zero inside, the content of a segment."""
    image = _grid_of(volume)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    voxels_of(image)[:] = mask != 0
    slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(image, node, segment)


# slicer.util has functions for this that go through nodes of the scene and leave their display nodes in it.
def _grid_of(volume: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkOrientedImageData:
    """Return an image without voxels of its own that has the grid of ``volume``, in the patient."""
    grid = slicer.vtkSlicerSegmentationsModuleLogic.CreateOrientedImageDataFromVolumeNode(volume)
    grid.UnRegister(None)  # the caller owns what the function made, and Python holds it already
    return grid


def _mask_on(
    grid: slicer.vtkOrientedImageData, node: slicer.vtkMRMLSegmentationNode, segment: str
) -> np.ndarray:
    image = slicer.vtkOrientedImageData()
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    found = logic.GetSegmentBinaryLabelmapRepresentation(node, segment, image)
    if not found or image.IsEmpty():
        return np.zeros(grid.GetDimensions()[::-1], bool)
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, grid, image)
    # Segments that do not overlap share a label map.
    return voxels_of(image) == node.GetSegmentation().GetSegment(segment).GetLabelValue()


def voxels_of(image: vtk.vtkImageData) -> np.ndarray:
    """Return the voxels of an image, axes k, j, i; what is written there is written to the image."""
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def examine(node: slicer.vtkMRMLSegmentationNode) -> tuple[list[Finding], Spine]:
    """Return what to look at in a segmentation, and its measures; nothing if its volume is gone."""
    volume = source_volume(node)
    if volume is None or volume.GetImageData() is None:
        return [], Spine({}, {}, math.nan)
    masks = masks_of(node)
    named = {segment_id: node.GetSegmentation().GetSegment(segment_id) for segment_id in masks}
    names = {segment_id: segment.GetName() for segment_id, segment in named.items()}
    agreement = {segment_id: agreement_of(segment) for segment_id, segment in named.items()}
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    spine = measure_masks(((names[segment_id], mask) for segment_id, mask in masks.items()), to_ras)
    seen = {segment_id: looked_at(segment) for segment_id, segment in named.items()}
    return review(masks, names, agreement, seen, to_ras), spine
