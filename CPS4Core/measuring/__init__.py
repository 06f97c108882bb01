"""What clinicians measure on a segmented spine: heights, angles, slips. Needs numpy alone, also inside 3D Slicer."""

from CPS4Core.measuring.spine import Segment, Shape, Spine, measure_labels, measure_masks

__all__ = ["Segment", "Shape", "Spine", "measure_labels", "measure_masks"]
