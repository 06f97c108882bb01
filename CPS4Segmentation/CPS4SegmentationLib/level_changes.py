"""Corrections of a segmentation, and what was looked at in it, each of which can be taken back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

import slicer
import vtk
from slicer.i18n import tr as _

from CPS4Core.class_table import terminology_entry
from CPS4Core.errors import CPS4Error
from CPS4Core.levels import OUTSIDE_COLOUR, moved, structure_named
from CPS4SegmentationLib.segmentations import looked_at, segment_ids, segments, set_looked_at

MOST_CHANGES = 20
"""How many changes can be taken back."""


class LevelChanges:
    """Renames, removes and ticks off segments. Taking a change back touches nothing else, so painting stays.

    Args:
        node: the segmentation.
    """

    def __init__(self, node: slicer.vtkMRMLSegmentationNode):
        self.node = node
        self._take_back: deque[Callable[[], None]] = deque(maxlen=MOST_CHANGES)

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._take_back)

    def shift(self, levels: int) -> None:
        """Move the names of all levels ``levels`` vertebrae down (negative: up).

        Raises:
            CPS4Error: if a name would leave the spine; nothing is changed.
        """
        named = []
        for segment in segments(self.node):
            name = moved(segment.GetName(), levels)
            if name is None:
                raise CPS4Error(
                    _("The levels cannot move further: the last name is reached."),
                    _("Move them the other way."),
                )
            named.append((segment, name))
        self._remember_names()
        for segment, name in named:
            name_segment(segment, name)

    def rename(self, segment_id: str, name: str) -> None:
        """Give a segment a name; a segment that has the name already gets the old one."""
        self._remember_names()
        segment = self._segmentation.GetSegment(segment_id)
        for other in segments(self.node):
            if other is not segment and other.GetName() == name:
                name_segment(other, segment.GetName())
        name_segment(segment, name)

    def delete(self, segment_id: str) -> None:
        """Remove a segment."""
        place = self._segmentation.GetSegmentIndex(segment_id)
        kept = slicer.vtkSegmentation()
        kept.CopySegmentFromSegmentation(self._segmentation, segment_id)
        self._segmentation.RemoveSegment(segment_id)

        def take_back() -> None:
            self._segmentation.CopySegmentFromSegmentation(kept, segment_id)
            self._segmentation.SetSegmentIndex(segment_id, place)

        self._take_back.append(take_back)

    def look_at(self, segment_id: str, flags: Collection[str]) -> None:
        """Write down that somebody looked at a segment for what ``flags`` say of it."""
        before = looked_at(self._segmentation.GetSegment(segment_id))
        set_looked_at(self._segmentation.GetSegment(segment_id), sorted({*before, *flags}))

        def take_back() -> None:
            segment = self._segmentation.GetSegment(segment_id)
            if segment is not None:
                set_looked_at(segment, before)

        self._take_back.append(take_back)

    def undo(self) -> bool:
        """Take back the last change; False if there is none."""
        if not self._take_back:
            return False
        self._take_back.pop()()
        return True

    @property
    def _segmentation(self) -> slicer.vtkSegmentation:
        return self.node.GetSegmentation()

    def _remember_names(self) -> None:
        """Make the names, colours and codes of now what ``undo`` brings back."""
        before = {
            segment_id: _Label.of(self._segmentation.GetSegment(segment_id))
            for segment_id in segment_ids(self.node)
        }

        def take_back() -> None:
            for segment_id, label in before.items():
                segment = self._segmentation.GetSegment(segment_id)
                if segment is not None:  # it may have been removed elsewhere
                    label.put_on(segment)

        self._take_back.append(take_back)


@dataclass(frozen=True)
class _Label:
    """What a segment is called, and the colour and the code that go with it."""

    name: str
    colour: tuple[float, ...]
    """Red, green and blue, 0 to 1."""
    code: str

    @classmethod
    def of(cls, segment: slicer.vtkSegment) -> _Label:
        code = vtk.reference("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), code)
        return cls(segment.GetName(), tuple(segment.GetColor()), str(code))

    def put_on(self, segment: slicer.vtkSegment) -> None:
        segment.SetName(self.name)
        segment.SetColor(*self.colour)
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), self.code)


def name_segment(segment: slicer.vtkSegment, name: str) -> None:
    """Give a segment a name, with the colour and the code that belong to it. Other names keep the colour."""
    if name == segment.GetName():
        return
    structure = structure_named(name)
    colour = OUTSIDE_COLOUR if structure is None else structure.color
    _Label(name, tuple(channel / 255 for channel in colour), terminology_entry(structure)).put_on(segment)
