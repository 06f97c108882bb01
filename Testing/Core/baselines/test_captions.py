"""The texts of slices, for the objectives of stage 1 that contrast images with texts."""

import torch

from CPS4Core.baselines.captions import caption, present_classes, same_caption
from CPS4Core.class_table import IGNORE


def test_a_caption_names_what_a_slice_shows():
    labels = torch.tensor([[[0, 2], [12, IGNORE]], [[0, 0], [0, 0]], [[2, 12], [2, 12]]])
    present = present_classes(labels)
    assert [row.nonzero().flatten().tolist() for row in present] == [[0, 2, 12], [0], [2, 12]]
    disc = "Intervertebral Disc between Lumbar Vertebra 4 and Lumbar Vertebra 5"
    assert caption(present[0]) == f"A magnetic resonance image of Lumbar Vertebra 5, {disc}."
    assert caption(present[1]) == "A magnetic resonance image of Background."
    assert caption(present[2]) == caption(present[0])
    assert same_caption(present).tolist() == [[True, False, True], [False, True, False], [True, False, True]]
