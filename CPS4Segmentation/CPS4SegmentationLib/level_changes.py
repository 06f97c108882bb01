"""Corrections of a segmentation's names, each of which can be taken back."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from CPS4Core.anatomy import terminology_entry
from CPS4Core.errors import CPS4Error
from CPS4SegmentationLib.levels import OUTSIDE_COLOUR, moved, structure_named
from CPS4SegmentationLib.segmentations import segments

MOST_STATES = 10


class LevelChanges:
    """Renames and removes segments, with an undo history.

    Args:
        node: the segmentation.
    """

    def __init__(self, node: slicer.vtkMRMLSegmentationNode):
        self._node = node
        self._history = slicer.vtkSegmentationHistory()
        self._history.SetMaximumNumberOfStates(MOST_STATES)
        self._history.SetSegmentation(node.GetSegmentation())

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._history.IsRestorePreviousStateAvailable())

    def shift(self, levels: int) -> None:
        """Move the names of all levels ``levels`` vertebrae down (negative: up).

        Raises:
            CPS4Error: if a name would leave the spine; nothing is changed.
        """
        named = [(segment, moved(segment.GetName(), levels)) for segment in segments(self._node)]
        if any(name is None for _segment, name in named):
            raise CPS4Error(
                _("The levels cannot move further: the last name is reached."), _("Move them the other way.")
            )
        self._save()
        for segment, name in named:
            name_segment(segment, name)

    def rename(self, segment_id: str, name: str) -> None:
        """Give a segment a name; a segment that has the name already gets the old one."""
        self._save()
        segment = self._node.GetSegmentation().GetSegment(segment_id)
        for other in segments(self._node):
            if other is not segment and other.GetName() == name:
                name_segment(other, segment.GetName())
        name_segment(segment, name)

    def delete(self, segment_id: str) -> None:
        """Remove a segment."""
        self._save()
        self._node.GetSegmentation().RemoveSegment(segment_id)

    def undo(self) -> bool:
        """Take back the last change; False if there is none."""
        return bool(self._history.RestorePreviousState())

    def _save(self) -> None:
        self._history.SaveState()


def name_segment(segment: slicer.vtkSegment, name: str) -> None:
    """Give a segment a name, with the colour and the code that belong to it. Other names keep the colour."""
    if name == segment.GetName():
        return
    structure = structure_named(name)
    colour = OUTSIDE_COLOUR if structure is None else structure.color
    segment.SetName(name)
    segment.SetColor(*(each / 255 for each in colour))
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology_entry(structure))
