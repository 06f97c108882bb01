"""One click in a view, asked of the user: the tool of Markups that places a point, without a point that stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.util import VTKObservationMixin

POINTS = "vtkMRMLMarkupsFiducialNode"


class OneClick(VTKObservationMixin):
    """Waits for a click in any view. Esc, the right button or another tool of the mouse end the waiting.

    Args:
        on_click: called with the place of the click, RAS, mm.
        on_end: called when the waiting ended without a click.
    """

    def __init__(self, on_click: Callable[[tuple[float, float, float]], None], on_end: Callable[[], None]):
        VTKObservationMixin.__init__(self)
        self._on_click, self._on_end = on_click, on_end
        self._points: slicer.vtkMRMLMarkupsFiducialNode | None = None
        self._before: tuple[str | None, str | None] = (None, None)
        self._escape: Any = None

    def start(self) -> None:
        """Take the tool in hand."""
        self.stop()
        selection, interaction = _mouse()
        self._before = (selection.GetActivePlaceNodeClassName(), selection.GetActivePlaceNodeID())
        self._points = _add_points()
        selection.SetReferenceActivePlaceNodeClassName(POINTS)
        selection.SetReferenceActivePlaceNodeID(self._points.GetID())
        interaction.SwitchToSinglePlaceMode()
        self.addObserver(self._points, self._points.PointPositionDefinedEvent, self._over)
        self.addObserver(interaction, interaction.EndPlacementEvent, self._over)
        self.addObserver(selection, selection.ActivePlaceNodeIDChangedEvent, self._over)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self._end)
        self._escape = qt.QShortcut(qt.QKeySequence("Esc"), slicer.util.mainWindow())
        self._escape.connect("activated()", self._over)

    def stop(self) -> None:
        """Put the tool away and leave nothing behind; without a word to ``on_end``."""
        if self._points is None:
            return
        self.removeObservers()
        points, self._points = self._points, None
        self._escape.disconnect("activated()", self._over)
        self._escape.enabled = False  # until it goes, it would contend with the next one
        self._escape.deleteLater()
        selection, interaction = _mouse()
        if selection.GetActivePlaceNodeID() == points.GetID():  # else another tool is in hand by now
            interaction.SwitchToViewTransformMode()
            selection.SetReferenceActivePlaceNodeClassName(self._before[0])
            selection.SetReferenceActivePlaceNodeID(self._before[1])
        slicer.mrmlScene.RemoveNode(points)

    def _end(self, *_args: object) -> None:
        self.stop()
        self._on_end()

    def _over(self, *_args: object) -> None:
        """It ended. The view still works on the point, so what follows waits for it."""
        points = self._points
        qt.QTimer.singleShot(0, lambda: self._tell(points))

    def _tell(self, points: slicer.vtkMRMLMarkupsFiducialNode | None) -> None:
        if points is None or points is not self._points:  # told already, or stopped or begun anew meanwhile
            return
        place = _place_of(points)
        self.stop()
        if place is None:
            self._on_end()
        else:
            self._on_click(place)


def _mouse() -> tuple[slicer.vtkMRMLSelectionNode, slicer.vtkMRMLInteractionNode]:
    """Return what the mouse places, and what it does."""
    logic = slicer.app.applicationLogic()
    return logic.GetSelectionNode(), logic.GetInteractionNode()


def _add_points() -> slicer.vtkMRMLMarkupsFiducialNode:
    """Return a list of points that neither a list of nodes nor a saved scene shows."""
    points = slicer.vtkMRMLMarkupsFiducialNode()
    points.SetHideFromEditors(True)
    points.SaveWithSceneOff()
    slicer.mrmlScene.AddNode(points)
    points.CreateDefaultDisplayNodes()
    points.GetDisplayNode().SaveWithSceneOff()
    points.GetDisplayNode().SetPointLabelsVisibility(False)
    return points


def _place_of(points: slicer.vtkMRMLMarkupsFiducialNode) -> tuple[float, float, float] | None:
    """Return where the first point was placed, RAS, mm; None if none was. One that follows the mouse is not yet."""
    for index in range(points.GetNumberOfControlPoints()):
        if points.GetNthControlPointPositionStatus(index) == points.PositionDefined:
            place = [0.0, 0.0, 0.0]
            points.GetNthControlPointPositionWorld(index, place)
            return (place[0], place[1], place[2])
    return None
