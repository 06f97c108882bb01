"""Weights and checkpoints: safetensors only, whole or not at all."""

import pickle

import pytest
import torch

from CPS4Core.eight_bits import LEVELS, SCALE, compress
from CPS4Core.errors import CPS4Error
from CPS4Core.training.checkpoint import load_checkpoint, save_checkpoint
from CPS4Core.weights import load_weights, save_weights


class Bomb:
    """Runs code when unpickled."""

    opened = False

    def __reduce__(self):
        return (setattr, (Bomb, "opened", True))


def test_a_checkpoint_keeps_its_nested_state(tmp_path):
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    network(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    state = {"step": 7, "network": network.state_dict(), "optimizer": optimizer.state_dict(), "nothing": None}
    save_checkpoint(tmp_path / "checkpoint.safetensors", state)
    loaded = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert loaded["step"] == 7
    assert loaded["nothing"] is None
    torch.testing.assert_close(dict(loaded["network"]), dict(network.state_dict()), rtol=0, atol=0)
    other = torch.optim.Adam(network.parameters(), lr=0.5)
    other.load_state_dict(loaded["optimizer"])
    assert other.param_groups[0]["lr"] == 0.1
    torch.testing.assert_close(
        other.state_dict()["state"], optimizer.state_dict()["state"], rtol=0, atol=0, check_dtype=True
    )


def test_a_pickle_in_disguise_is_refused_without_being_opened(tmp_path):
    path = tmp_path / "network.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CPS4Error, match="safetensors"):
        load_weights(path)
    torch.save({"bomb": Bomb()}, path)
    with pytest.raises(CPS4Error, match="safetensors"):
        load_weights(path)
    assert not Bomb.opened


def test_truncated_weights_are_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    save_weights(path, {"weight": torch.randn(100)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CPS4Error, match="truncated"):
        load_weights(path)


def test_missing_weights_and_weights_that_are_no_checkpoint(tmp_path):
    with pytest.raises(CPS4Error, match="missing"):
        load_weights(tmp_path / "network.safetensors")
    save_weights(tmp_path / "network.safetensors", {"weight": torch.zeros(1)})
    with pytest.raises(CPS4Error, match="no CPS4 checkpoint"):
        load_checkpoint(tmp_path / "network.safetensors")


def test_shared_and_strided_tensors_are_written(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    save_weights(tmp_path / "w.safetensors", {"a": weight, "b": weight.T})
    tensors, _ = load_weights(tmp_path / "w.safetensors")
    assert torch.equal(tensors["b"], weight.T)


def test_eight_bits_are_as_near_as_a_step_of_each_row(tmp_path):
    kernels = torch.randn(8, 16, 3, 3) * torch.logspace(-6, 2, 8)[:, None, None, None]
    kernels[3] = 0
    weights = {"conv": kernels, "bias": torch.randn(8), "small": torch.randn(4, 4), "count": torch.tensor(7)}
    small = compress(weights)
    assert {name: tensor.dtype for name, tensor in small.items()} == {
        "conv": torch.int8,
        "conv" + SCALE: torch.float32,
        "bias": torch.float16,
        "small": torch.float16,
        "count": torch.int64,
    }
    path = tmp_path / "network.safetensors"
    save_weights(path, small)
    loaded, _ = load_weights(path, {name: tensor.shape for name, tensor in weights.items()})
    assert loaded.keys() == weights.keys() and loaded["conv"].dtype == torch.float32
    step = kernels.abs().amax((1, 2, 3)) / LEVELS
    assert ((loaded["conv"] - kernels).abs() <= 0.5001 * step[:, None, None, None]).all()
    assert (loaded["conv"][3] == 0).all()
    assert torch.equal(loaded["count"], weights["count"])


@pytest.mark.parametrize("scale", [torch.ones(7), torch.ones(8, 1), torch.ones(())])
def test_eight_bits_with_scales_of_another_shape_are_refused(tmp_path, scale):
    small = compress({"conv": torch.randn(8, 16, 3, 3)}) | {"conv" + SCALE: scale}
    save_weights(tmp_path / "network.safetensors", small)
    with pytest.raises(CPS4Error, match="do not fit"):
        load_weights(tmp_path / "network.safetensors", {"conv": (8, 16, 3, 3)})
