"""Live curves of a training in a Slicer plot: one series a quantity."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

CHART = "CPS4 training"
COLOURS = (
    (0.90, 0.62, 0.00),
    (0.34, 0.71, 0.91),
    (0.00, 0.62, 0.45),
    (0.94, 0.89, 0.26),
    (0.00, 0.45, 0.70),
    (0.84, 0.37, 0.00),
    (0.80, 0.47, 0.65),
)
"""Colours that people with colour blindness can tell apart (Okabe and Ito)."""
LEFT_OUT = ("learning_rate", "largest_prompt_similarity")


class TrainingCurves:
    """Collects values by step, and shows them as a chart of the scene once asked for.

    The nodes belong to the scene: when it closes, they go, and ``show`` makes new ones.
    """

    def __init__(self) -> None:
        self._points: dict[str, dict[int, float]] = {}
        self._tables: dict[str, slicer.vtkMRMLTableNode] = {}
        self._chart: slicer.vtkMRMLPlotChartNode | None = None

    def __bool__(self) -> bool:
        return bool(self._points)

    def clear(self) -> None:
        """Forget all values; the chart stays in the scene as it is."""
        self._points.clear()
        self.forget_nodes()

    def forget_nodes(self) -> None:
        """Let go of the nodes, which a closing scene removes."""
        self._tables.clear()
        self._chart = None

    def add(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Add the values of one step; a step that a resumed run repeats counts once."""
        for name, value in values.items():
            if name in LEFT_OUT:
                continue
            title = f"{stage} {name.replace('_', ' ')}"
            self._points.setdefault(title, {})[step] = value
            if self._chart is not None:
                self._update(title, self._chart)

    def show(self) -> None:
        """Show the chart in a layout with a plot."""
        if self._chart is None:
            self._chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", CHART)
            self._chart.SetTitle(_("Training"))
            self._chart.SetXAxisTitle(_("step"))
        for title in self._points:
            self._update(title, self._chart)
        slicer.modules.plots.logic().ShowChartInLayout(self._chart)

    def _update(self, title: str, chart: slicer.vtkMRMLPlotChartNode) -> None:
        if len(self._points[title]) < 2:  # one value is no curve, such as what a stage says at its end
            return
        if title not in self._tables:
            self._add_series(title, chart)
        steps, values = vtk.vtkDoubleArray(), vtk.vtkDoubleArray()
        steps.SetName("step")
        values.SetName(title)
        for step, value in sorted(self._points[title].items()):
            steps.InsertNextValue(step)
            values.InsertNextValue(value)
        table = self._tables[title]
        table.RemoveAllColumns()
        table.AddColumn(steps)
        table.AddColumn(values)

    def _add_series(self, title: str, chart: slicer.vtkMRMLPlotChartNode) -> None:
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title)
        table.SetHideFromEditors(True)
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", title)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("step")
        series.SetYColumnName(title)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetColor(*COLOURS[len(self._tables) % len(COLOURS)])
        self._tables[title] = table
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
