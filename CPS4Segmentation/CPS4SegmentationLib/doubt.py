"""Structures that somebody should look at, shown as outlines alone until that was done."""

from __future__ import annotations

from collections.abc import Collection

import slicer
import vtk

OPACITY_BEFORE = "CPS4.OpacityBefore"
"""Segment tag of what is faded: how opaque its filling was in slice views, 0 to 1."""
FADED = 0.12
"""How opaque the filling of a doubtful structure is; its outline stays as it is."""


def show_doubt(node: slicer.vtkMRMLSegmentationNode, doubtful: Collection[str | None]) -> None:
    """Fade the filling of doubtful structures in slice views, and show in full again what was faded before.

    Whatever the user chose for the others stays.

    Args:
        node: the segmentation.
        doubtful: IDs of segments; None, as of a structure that is missing, is none.
    """
    display = node.GetDisplayNode()
    if display is None:
        return
    segmentation = node.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        segment, segment_id = segmentation.GetNthSegment(index), segmentation.GetNthSegmentID(index)
        now, before = display.GetSegmentOpacity2DFill(segment_id), _opacity_before(segment)
        if segment_id in doubtful:
            if before is None:
                segment.SetTag(OPACITY_BEFORE, str(now))
            display.SetSegmentOpacity2DFill(segment_id, FADED)
        elif before is not None:
            segment.RemoveTag(OPACITY_BEFORE)
            if now == FADED:  # else the user chose another since
                display.SetSegmentOpacity2DFill(segment_id, before)


def _opacity_before(segment: slicer.vtkSegment) -> float | None:
    tag = vtk.reference("")
    return float(str(tag)) if segment.GetTag(OPACITY_BEFORE, tag) else None
