"""What Slicer's start leaves ready, and what a module that is loaded later makes up for."""

import pytest
from module_under_test import MODULE

from CPS4Core.class_table import STRUCTURES


@pytest.mark.parametrize("at_start", [True, False])
def test_the_terminology_knows_every_structure(slicer_harness, at_start):
    slicer_harness.open_module(MODULE, at_start)
    slicer = slicer_harness.slicer
    logic = slicer.modules.terminologies.logic()
    for structure in STRUCTURES:
        entry = slicer.vtkSlicerTerminologyEntry()
        found = logic.FindTypeInTerminologyBy3dSlicerLabel(
            "Segmentation category and type - CPS4", structure.short, entry
        )
        assert found, structure.short
