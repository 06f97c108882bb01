"""VTK observers that hold no widget alive and end with it."""

import weakref
from collections.abc import Callable
from typing import Any

import shiboken6
import vtk


class Observing:
    """For widgets that follow MRML objects: `observe` until `stop_observing`, or until the widget is gone."""

    def observe(self, target: vtk.vtkObject, event: int | str, method: Callable[[], None]) -> None:
        reference, tags = weakref.WeakMethod(method), self._tags()
        held: list[tuple[vtk.vtkObject, int]] = []

        def call(*_: Any) -> None:
            bound = reference()
            if bound is not None and shiboken6.isValid(bound.__self__):
                bound()
            else:
                for observed, tag in held:
                    observed.RemoveObserver(tag)

        held.append((target, target.AddObserver(event, call)))
        tags.extend(held)

    def stop_observing(self, target: vtk.vtkObject | None = None) -> None:
        tags = self._tags()
        for observed, tag in list(tags):
            if target is None or observed is target:
                observed.RemoveObserver(tag)
                tags.remove((observed, tag))

    def _tags(self) -> list[tuple[vtk.vtkObject, int]]:
        if not hasattr(self, "_observer_tags"):
            self._observer_tags: list[tuple[vtk.vtkObject, int]] = []
        return self._observer_tags
