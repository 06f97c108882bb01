"""Small models, a small data set and small settings that tests share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import small_models
import torch
from small_models import TINY_PHANTOMS, write_text_model

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import Settings
from CPS4Core.events import silent
from CPS4Core.synthesis.phantom.data_set import write_phantom_data_set
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.train import train


@pytest.fixture(scope="session")
def text_model(tmp_path_factory) -> Path:
    """A random BERT of small widths, in a folder, with a tokenizer that knows the words of the class prompts."""
    return write_text_model(tmp_path_factory.mktemp("models") / "text model")


@pytest.fixture(scope="session")
def tiny_settings(text_model) -> Settings:
    """Settings whose training steps take milliseconds; the code path is that of the presets."""
    return small_models.tiny_settings(text_model)


@pytest.fixture(scope="session")
def data_set(tmp_path_factory) -> Path:
    """Six training phantoms, four of them labelled, and a test phantom."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    return write_phantom_data_set(folder, 6, test_cases=1, labelled=4, options=TINY_PHANTOMS)


@pytest.fixture(scope="session")
def trained_model(data_set, tiny_settings, tmp_path_factory) -> Path:
    """A model folder with encoders and network, trained for a few steps."""
    runs = tmp_path_factory.mktemp("runs")
    common = {
        "ratio": 1.0,
        "device": torch.device("cpu"),
        "report": silent,
        "cancellation": Cancellation(),
        "cache": runs / "cache",
    }
    encoders = pretrain(data_set, runs / "stage 1", tiny_settings, **common)
    return train(data_set, runs / "stage 2", tiny_settings, encoders=encoders, **common)
