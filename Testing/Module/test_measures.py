"""Measures in the panel Review: the table, the lines and angles in the views, the export."""

import csv

import numpy as np
import pytest
from measured_spines import SpineShape, build, draw
from module_under_test import Module

from CPS4Core.class_table import BY_LABEL
from CPS4Core.measuring import measure_labels


@pytest.fixture
def module(slicer_harness, tmp_path):
    """The opened module; nothing here needs a model."""
    return Module(slicer_harness, tmp_path)


@pytest.fixture
def reviewed(module):
    """A panel Review of a spine whose L4 has slipped 6 mm and whose T12 is cut, and the truth."""
    slicer = module.slicer
    labels, to_ras = draw(build(SpineShape(slips={"L4/L5": 6.0})), (1.1, 0.8, 4.4), above=-10.0)
    volume = slicer.util.addVolumeFromArray(labels.astype(float), name="mr")
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(to_ras))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "spine")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for label in np.unique(labels)[1:].tolist():
        segment = node.GetSegmentation().AddEmptySegment("", BY_LABEL[label].short)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            (labels == label).astype(np.uint8), node, segment, volume
        )
    panel = module.panel("review")
    panel.ui.segmentationSelector.setCurrentNode(node)
    module.harness.process_events()
    return panel, measure_labels(labels, to_ras)


def rows(panel):
    table = panel.ui.measureTable
    return {
        table.item(row, 0).text(): [table.item(row, column).text() for column in range(1, 8)]
        for row in range(table.rowCount)
    }


def pick(panel, name):
    panel.ui.measureTable.setCurrentCell(list(rows(panel)).index(name), 0)


def drawn(module):
    nodes = module.slicer.util.getNodesByClass("vtkMRMLMarkupsNode")
    return {node.GetName(): node for node in nodes}


def test_the_table_has_the_measures(reviewed):
    panel, truth = reviewed
    table = rows(panel)
    shape, segment = truth.shapes["L4"], truth.segments["L4/L5"]
    assert [float(text) for text in table["L4"][:4]] == pytest.approx(
        [shape.anterior_mm, shape.middle_mm, shape.posterior_mm, shape.wedge_deg], abs=0.051
    )
    assert float(table["L4/L5"][4]) == pytest.approx(segment.height_index, abs=0.0051)
    assert float(table["L4/L5"][5]) == pytest.approx(segment.slip_mm, abs=0.051)
    assert segment.slip_mm == pytest.approx(6, abs=2)
    assert float(table["L1-S1"][6]) == pytest.approx(truth.lordosis_deg, abs=0.051)


def test_what_is_cut_has_no_measures_and_says_why(reviewed):
    panel, _ = reviewed
    assert rows(panel)["T12"] == [""] * 7
    assert "border" in panel.ui.measureTable.item(list(rows(panel)).index("T12"), 0).toolTip()


def test_lines_and_angles_are_drawn_on_request_alone(module, reviewed):
    panel, truth = reviewed
    pick(panel, "L3")
    assert not drawn(module)
    panel.ui.drawButton.click()
    nodes = drawn(module)
    shape = truth.shapes["L3"]
    heights = f"{shape.anterior_mm:.1f} / {shape.middle_mm:.1f} / {shape.posterior_mm:.1f} mm"
    assert set(nodes) == {heights, "mid.", "post.", "wedge"}
    ends = module.slicer.util.arrayFromMarkupsControlPoints(nodes[heights])
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(shape.anterior_mm, abs=1e-3)
    assert not nodes[heights].GetPropertiesLabelText()  # its length, once more
    shown = [
        node.GetName() for node in nodes.values() if node.GetDisplayNode().GetPropertiesLabelVisibility()
    ]
    assert sorted(shown) == sorted([heights, "wedge"])  # three labels of heights would lie over each other
    pick(panel, "L4/L5")
    nodes = drawn(module)
    assert nodes["slip"].GetMeasurement("length").GetValue() == pytest.approx(
        truth.segments["L4/L5"].slip_mm, abs=1e-3
    )
    pick(panel, "L1-S1")
    (angle,) = drawn(module).values()
    assert angle.GetMeasurement("angle").GetValue() == pytest.approx(truth.lordosis_deg, abs=0.2)
    panel.ui.drawButton.click()
    assert not drawn(module)


def test_what_is_not_measured_is_not_drawn_and_is_said(module, reviewed):
    panel, _ = reviewed
    panel.ui.drawButton.click()
    pick(panel, "T12")
    assert not drawn(module)
    assert "T12 is not measured" in panel.ui.statusLabel.text


def test_a_new_name_moves_the_measures(reviewed):
    panel, truth = reviewed
    panel.ui.levelsUpButton.click()
    assert float(rows(panel)["L3"][0]) == pytest.approx(truth.shapes["L4"].anterior_mm, abs=0.051)


def test_the_export_has_the_measures(module, reviewed, tmp_path):
    panel, truth = reviewed
    module.harness.dialogs.answer(str(tmp_path / "mesures.csv"))
    panel.ui.exportTableButton.click()
    with (tmp_path / "mesures.csv").open(newline="", encoding="utf-8") as file:
        lines = {line["structure"]: line for line in csv.DictReader(file)}
    assert float(lines["L4/L5"]["slip (mm)"]) == pytest.approx(truth.segments["L4/L5"].slip_mm, abs=0.051)
    assert float(lines["L1-S1"]["lordosis (deg)"]) == pytest.approx(truth.lordosis_deg, abs=0.051)
    assert "border" in lines["T12"]["not measured"]
