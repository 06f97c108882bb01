"""Runs both stages under a launcher of several processes; see ``test_two_processes_train_as_one``."""

import sys
from pathlib import Path
from unittest.mock import patch

import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import load_settings
from CPS4Core.events import silent
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.train import train

data, output, cache, text, encoders = sys.argv[1:]
settings = load_settings(
    "small",
    [
        "input.size=[32, 64]",
        "input.spacing_mm=4.5",
        f"encoders.text={text}",
        'encoders.vision_options={"patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}',
        "encoders.dimension=8",
        "pretrain.epochs=10",
        "pretrain.batch=4",
        "train.widths=[4, 8]",
        "train.batch=4",
        "train.epochs=1",
        "train.steps_per_epoch=30",
    ],
)
common = {"ratio": 1.0, "device": torch.device("cpu"), "report": silent, "cancellation": Cancellation()}
# In float32: where a CPU computes in bfloat16, its rounding differs with the number of slices in a product.
with patch("CPS4Core.training.run.choose_precision", return_value="no"):
    pretrain(Path(data), Path(output) / "stage1", settings, cache=Path(cache), **common)
    # Not those just trained: their last digits differ with the number of processes, and with them the text maps.
    train(Path(data), Path(output) / "stage2", settings, encoders=Path(encoders), cache=Path(cache), **common)
