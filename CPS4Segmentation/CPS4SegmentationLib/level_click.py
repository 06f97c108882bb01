"""Naming a structure by a click in a view: a menu of levels opens there, and all other structures follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CPS4Core.class_table import HEAD_TO_TAIL, short_name
from CPS4Core.levels import BONE_TO_BONE, LADDER, is_disc, step_of
from CPS4SegmentationLib.one_click import OneClick
from CPS4SegmentationLib.structure_at import structure_at


class LevelClick:
    """Joins a checkable button, a click in a view and a menu.

    Args:
        button: the tool is in hand while it is checked.
        segmentation: returns the segmentation that is clicked on.
        shift: called with the old name, the new one, and how many vertebrae down (negative: up) the levels must move.
        say: shows one line on what happens.
    """

    def __init__(
        self,
        button: Any,
        segmentation: Callable[[], slicer.vtkMRMLSegmentationNode | None],
        shift: Callable[[str, str, int], None],
        say: Callable[[str], None],
    ):
        self._button, self._segmentation, self._shift, self._say = button, segmentation, shift, say
        self._click = OneClick(self._on_click, self.stop)
        self._menu: qt.QMenu | None = None
        button.connect("toggled(bool)", self._on_button)

    def stop(self) -> None:
        """Put the tool away."""
        self._button.checked = False  # which calls _on_button, if it was checked
        self._close_menu()

    def _on_button(self, wanted: bool) -> None:
        self._close_menu()
        if wanted:
            self._click.start()
            self._say(_("Click on a vertebra or disc in a view. Esc or the right button ends it."))
        else:
            self._click.stop()
            self._say("")

    def _on_click(self, place: tuple[float, float, float]) -> None:
        node = self._segmentation()
        found = None if node is None else structure_at(node, place)
        if node is None or found is None:
            self._click.start()
            self._say(_("There is no vertebra or disc there. Click on one; Esc ends it."))
            return
        self._button.checked = False
        self._ask(node.GetSegmentation().GetSegment(found).GetName())

    def _ask(self, called: str) -> None:
        """Open the menu of what the structure may be, at the mouse."""
        name = LADDER[_step(called)]
        self._menu = qt.QMenu(self._button)
        self._menu.addAction(_("Called {name}. It is:").format(name=called)).enabled = False
        self._menu.addSeparator()
        for choice in choices(name):
            action = self._menu.addAction(choice)
            action.checkable = True
            action.checked = choice == name
            action.connect("triggered()", lambda choice=choice: self._choose(name, choice))
        self._menu.popup(qt.QCursor.pos())

    def _choose(self, name: str, choice: str) -> None:
        if choice != name:
            self._shift(name, choice, vertebrae_between(name, choice))

    def _close_menu(self) -> None:
        if self._menu is not None:
            self._menu.close()
            self._menu.deleteLater()
            self._menu = None


def choices(name: str) -> list[str]:
    """Return what a structure may be, head to tail: a bone one of the bones, a disc one of the discs."""
    known = {short_name(label) for label in HEAD_TO_TAIL if is_disc(short_name(label)) is is_disc(name)}
    return sorted(known | {name}, key=_step)


def vertebrae_between(name: str, other: str) -> int:
    """Return how many vertebrae ``other`` lies below ``name``; both are bones or both discs."""
    return (_step(other) - _step(name)) // BONE_TO_BONE


def _step(name: str) -> int:
    step = step_of(name)
    assert step is not None  # what is clicked on has a level's name
    return step
