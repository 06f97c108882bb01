"""Measures drawn into the views: heights and slips as lines, wedges and lordosis as angles."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from CPS4Core.measuring import Spine
from CPS4Core.measuring.outline import Outline
from CPS4Core.measuring.spine import NOTHING, Shape
from CPS4Core.measuring.table import LUMBAR

DRAWN = "CPS4.Measure"
"""Node attribute of what was drawn here: the name of the structure."""
LINE, ANGLE = "vtkMRMLMarkupsLineNode", "vtkMRMLMarkupsAngleNode"
COLOUR = (1.0, 0.85, 0.2)
OUTER = ("L1", "S")
"""The bones between which the lumbar lordosis lies."""


def draw_measures(spine: Spine, name: str) -> bool:
    """Draw the measures of a structure, or of the whole lumbar lordosis, in place of those drawn before.

    Returns:
        Whether there is anything to draw.
    """
    clear_measures()
    if name == LUMBAR:
        _draw_angle(name, _("lordosis"), *(spine.shapes.get(bone, NOTHING).outline for bone in OUTER))
    else:
        shape, segment = spine.shapes.get(name), spine.segments.get(name)
        if shape is not None and shape.outline is not None and not np.isnan(shape.anterior_mm):
            _draw_heights(name, shape, shape.outline)
        if segment is not None:
            upper, lower = (
                spine.shapes.get(bone, NOTHING).outline for bone in (segment.upper, segment.lower)
            )
            if upper is not None and lower is not None:
                _draw_angle(name, _("lordosis"), upper, lower)
                _draw_slip(name, upper, lower)
        elif shape is not None and not np.isnan(shape.wedge_deg):
            _draw_angle(name, _("wedge"), shape.outline, shape.outline)
    return bool(_drawn())


def clear_measures() -> None:
    """Take away what was drawn."""
    for node in _drawn():
        slicer.mrmlScene.RemoveNode(node)


def _drawn() -> list[slicer.vtkMRMLMarkupsNode]:
    return [node for node in slicer.util.getNodesByClass("vtkMRMLMarkupsNode") if node.GetAttribute(DRAWN)]


def _draw_heights(name: str, shape: Shape, outline: Outline) -> None:
    """Draw the three heights. One label before the structure has them all: three would lie over each other."""
    label = f"{shape.anterior_mm:.1f} / {shape.middle_mm:.1f} / {shape.posterior_mm:.1f} mm"
    front = _draw(LINE, name, label, [outline.upper_front, outline.lower_front])
    front.GetMeasurement("length").SetEnabled(False)  # a label is the name and what is measured
    front.GetDisplayNode().GetTextProperty().SetJustificationToRight()
    for what, ends in (
        (_("mid."), [outline.upper_middle, outline.lower_middle]),
        (_("post."), [outline.upper_back, outline.lower_back]),
    ):
        _draw(LINE, name, what, ends).GetDisplayNode().SetPropertiesLabelVisibility(False)


def _draw_slip(name: str, upper: Outline, lower: Outline) -> None:
    """Draw the slip along the upper face of the lower bone, from its back corner."""
    forward = lower.upper_front - lower.upper_back
    forward = forward / np.linalg.norm(forward)
    slip = (upper.lower_back - lower.upper_back) @ forward
    _draw(LINE, name, _("slip"), [lower.upper_back, lower.upper_back + slip * forward])


def _draw_angle(name: str, what: str, upper: Outline | None, lower: Outline | None) -> None:
    """Draw the angle between two faces where the lower one ends, for the faces themselves may meet far away."""
    if upper is None or lower is None:
        return
    face = upper.upper_front - upper.upper_back
    _draw(ANGLE, name, what, [lower.lower_back + face, lower.lower_back, lower.lower_front])


def _draw(kind: str, name: str, what: str, points: list[np.ndarray]) -> slicer.vtkMRMLMarkupsNode:
    node = slicer.mrmlScene.AddNewNodeByClass(kind, what)
    node.SetAttribute(DRAWN, name)
    node.CreateDefaultDisplayNodes()
    slicer.util.updateMarkupsControlPointsFromArray(node, np.array(points))
    node.SetLocked(True)
    display = node.GetDisplayNode()
    display.SetSelectedColor(*COLOUR)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(True)
    display.SetSliceProjection(True)
    display.SetSliceProjectionUseFiducialColor(True)
    display.SetGlyphScale(1.0)
    display.SetTextScale(2.0)
    display.GetTextProperty().SetBackgroundColor(0.0, 0.0, 0.0)
    display.GetTextProperty().SetBackgroundOpacity(0.5)  # a structure may have the label's colour
    return node
