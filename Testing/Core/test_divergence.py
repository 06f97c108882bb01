"""A training that diverges says so, and keeps no model of it."""

import pytest
import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import parse_settings
from CPS4Core.errors import CPS4Error
from CPS4Core.events import silent
from CPS4Core.training.train import train


@pytest.mark.slow
def test_a_training_that_diverges_says_so_and_keeps_no_model(data_set, tiny_settings, tmp_path):
    changed = tiny_settings.model_dump(mode="json")
    changed["train"] |= {"method": "supervised", "learning_rate": 1e30}
    with pytest.raises(CPS4Error, match="diverged") as caught:
        train(
            data_set,
            tmp_path / "run",
            parse_settings(changed),
            ratio=1.0,
            encoders=None,
            device=torch.device("cpu"),
            report=silent,
            cancellation=Cancellation(),
            cache=tmp_path / "cache",
        )
    assert "train.learning_rate" in caught.value.remedy
    assert not (tmp_path / "run/model").exists()
