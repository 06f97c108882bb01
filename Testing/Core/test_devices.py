"""What a device is asked and told: nothing in the middle of a step, and the right one of several."""

import os
import subprocess
import sys

import pytest
import torch
from small_models import MEMORY_ERRORS
from torch.utils._python_dispatch import TorchDispatchMode

from CPS4Core.cancellation import Cancellation
from CPS4Core.config import AugmentSettings
from CPS4Core.devices import choose_device, is_out_of_memory, moved
from CPS4Core.errors import CPS4Error
from CPS4Core.events import silent
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.pretraining_stage import PretrainingStage
from CPS4Core.training.segmentation_stage import SegmentationStage
from CPS4Core.training.train import train

CUDA_IS_FULL = [
    # What is allocated outside of torch, as where another process has filled the card.
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


class ReadsOfTheDevice(TorchDispatchMode):
    """Notes each call whose result depends on what a tensor holds: on a GPU, it waits until all before it is done."""

    WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, call, types, arguments=(), options=None):
        by_mask = str(call).startswith("aten.index") and any(
            isinstance(index, torch.Tensor) and index.dtype is torch.bool
            for index in (arguments[1] if isinstance(arguments[1], (list, tuple)) else [])
        )
        if by_mask or str(call).startswith(self.WAITING):
            self.found.append(str(call))
        return call(*arguments, **(options or {}))


@pytest.fixture
def reads(monkeypatch):
    """What a step of either stage reads of the device, but for its optimiser, which on CUDA keeps its count aside."""
    mode = ReadsOfTheDevice()
    for stage in (PretrainingStage, SegmentationStage):
        for name in ("prepare", "loss", "after_step"):
            plain = getattr(stage, name)

            def watched(self, *arguments, plain=plain):
                with mode:
                    return plain(self, *arguments)

            monkeypatch.setattr(stage, name, watched)
    # On the CPU alone it looks whether the labels are in range.
    monkeypatch.setattr(
        torch.nn.functional, "one_hot", lambda labels, n: (labels[..., None] == torch.arange(n)).long()
    )
    return mode.found


@pytest.mark.slow
def test_no_step_waits_for_the_device(reads, data_set, tiny_settings, tmp_path):
    everything = AugmentSettings(blur=1.0, gamma=0.3, bias=0.2)
    settings = tiny_settings.model_copy(update={"augment": everything})
    common = {
        "ratio": 1.0,
        "device": torch.device("cpu"),
        "report": silent,
        "cancellation": Cancellation(),
        "cache": tmp_path / "cache",
    }
    encoders = pretrain(data_set, tmp_path / "stage 1", settings, **common)
    train(data_set, tmp_path / "stage 2", settings, encoders=encoders, **common)
    assert reads == []


def test_a_step_that_waits_would_be_seen():
    mode = ReadsOfTheDevice()
    with mode:
        float(torch.ones(2).max())
        torch.ones(2)[torch.ones(2) > 0]
    assert len(mode.found) == 2


@pytest.mark.parametrize("error", [*MEMORY_ERRORS, *CUDA_IS_FULL])
def test_too_little_memory_is_known_by_its_many_names(error):
    assert is_out_of_memory(error)


def test_another_error_is_no_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_out_of_memory(ValueError("CUDA error: out of memory"))


def test_a_full_device_is_not_called_a_missing_one(monkeypatch):
    def full(*arguments, **options):
        raise MEMORY_ERRORS[0]

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(torch.OutOfMemoryError):
        choose_device("cpu")
    monkeypatch.undo()
    with pytest.raises(CPS4Error, match="no device"):
        choose_device("nothing")


def test_only_pinned_memory_is_copied_without_waiting(monkeypatch):
    told = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: told.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *where, **how: told.append(how) or self)
    moved(torch.ones(1), torch.device("cuda:0"))
    assert told == ["pinned", {"non_blocking": True}]
    told.clear()
    moved(torch.ones(1), torch.device("mps"))  # where such a copy may be read before it is there
    assert told == [{}]


def test_training_takes_the_device_that_was_named():
    code = (
        "import torch, CPS4Core.training.run as run\n"
        "run.choose_precision = lambda device: 'no'\n"
        "print(run.make_accelerator(torch.device('cuda:1')).device, torch.are_deterministic_algorithms_enabled())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment
    )
    assert done.stdout.split() == ["cuda:1", "True"], done.stderr
