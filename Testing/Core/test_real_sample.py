"""What comes with CPS4 on a real scan that it has not seen: the crop of three lumbar vertebrae inside a package."""

from pathlib import Path

import pytest
import torch

from CPS4Core.demo.real_sample import extract_sample, try_real_sample
from CPS4Core.shipped_model import base_model

WHEEL = Path(__file__).parents[2] / "build/sample/tptbox-1.1.0-py3-none-any.whl"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WHEEL.is_file(), reason="the real scan is not here: `make sample` fetches it"),
    pytest.mark.skipif(base_model() is None, reason="the base model is not made yet"),
]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    sample = extract_sample(WHEEL, folder)
    return try_real_sample(sample, {"CPS4 base": base_model()}, torch.device("cpu"), folder).scores[
        "CPS4 base"
    ]


def test_vertebrae_and_discs_are_where_the_masks_are(scores):
    """The masks hold posterior elements that reach further than those the model has learnt from."""
    assert scores["vertebrae, Dice"] > 0.76
    assert scores["discs, Dice"] > 0.88


def test_the_names_follow_one_another(scores):
    assert scores["names in order"] == "yes"
