"""Which structure of a segmentation lies at a place of the patient."""

from __future__ import annotations

import math

import numpy as np
import slicer
import vtk

from CPS4Core.levels import step_of
from CPS4SegmentationLib.segmentations import BINARY, make_label_maps, segment_ids, voxels_of

NEAR_MM = 5.0
"""How far beside a structure a click still means it."""


def structure_at(node: slicer.vtkMRMLSegmentationNode, place: tuple[float, float, float]) -> str | None:
    """Return the ID of the segment with a level's name that lies at ``place``, or nearest within ``NEAR_MM``.

    Args:
        node: the segmentation; a transform that it is under counts.
        place: in the world, RAS, mm.

    Returns:
        None if there is none.
    """
    make_label_maps(node)
    inside = _without_transform(node, place)
    nearest, found = NEAR_MM, None
    for segment_id in segment_ids(node):
        segment = node.GetSegmentation().GetSegment(segment_id)
        if step_of(segment.GetName()) is None:
            continue
        distance = _distance(segment.GetRepresentation(BINARY), segment.GetLabelValue(), inside)
        if distance < nearest or (distance == nearest and found is None):
            nearest, found = distance, segment_id
    return found


def _without_transform(node: slicer.vtkMRMLSegmentationNode, place: tuple[float, float, float]) -> np.ndarray:
    """Return a place of the world where a segmentation has it before its transform, RAS, mm."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node.GetParentTransformNode(), transform)
    return np.array(transform.TransformPoint(place))


def _distance(image: slicer.vtkOrientedImageData | None, label: int, place: np.ndarray) -> float:
    """Return the distance in mm from a place, RAS, to the nearest voxel of a label; infinity beyond ``NEAR_MM``.

    A voxel is a box: within it the distance is 0, however thick the slices are.
    """
    if image is None or image.IsEmpty():
        return math.inf
    to_ijk = vtk.vtkMatrix4x4()
    image.GetWorldToImageMatrix(to_ijk)
    at = np.array(to_ijk.MultiplyPoint((*place, 1.0))[:3])
    spacing, extent = np.array(image.GetSpacing()), np.array(image.GetExtent()).reshape(3, 2)
    reach = NEAR_MM / spacing + 0.5
    first = np.maximum(np.ceil(at - reach), extent[:, 0]).astype(int)
    last = np.minimum(np.floor(at + reach), extent[:, 1]).astype(int)
    if (first > last).any():
        return math.inf
    box = tuple(slice(low, high + 1) for low, high in (np.stack([first, last]) - extent[:, 0]).T[::-1])
    voxels = np.argwhere(voxels_of(image)[box] == label)[:, ::-1] + first
    beside = np.maximum(np.abs(voxels - at) - 0.5, 0.0) * spacing
    return min(np.linalg.norm(beside, axis=1), default=math.inf)
