"""The panel Segment, clicked as a user would, against the real background process."""

import pytest
from module_under_test import Module


@pytest.fixture
def module(slicer_harness, trained):
    return Module(slicer_harness, trained)


def test_three_clicks_give_named_coloured_structures(module):
    module.choose_model()
    module.load()
    node = module.segment()
    assert not module.harness.dialogs.messages
    names = [
        node.GetSegmentation().GetNthSegment(k).GetName()
        for k in range(node.GetSegmentation().GetNumberOfSegments())
    ]
    assert names
    print(names, module.widget.segment.ui.statusLabel.text, module.widget.segment.ui.cardLabel.text)
