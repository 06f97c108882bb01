"""What reading line by line does to an image, each flaw by itself and by value."""

import pytest
import torch

from CPS4Core.synthesis import acquisition
from CPS4Core.synthesis.acquisition import read_out, shift_fat
from CPS4Core.synthesis.appearance import Appearance

SIZE = (64, 96)
NEVER = {"RINGING": 0.0, "GHOSTS": 0.0, "MOTION": 0.0, "WRAP": 0.0}


@pytest.fixture
def only(monkeypatch):
    """`only("GHOSTS")`: every image has this flaw and no other."""

    def switch(name=None):
        for other, share in (NEVER | ({} if name is None else {name: 1.0})).items():
            monkeypatch.setattr(acquisition, other, share)
        return Appearance(SIZE, 1.5, torch.Generator().manual_seed(3), torch.device("cpu"))

    return switch


@pytest.fixture
def square():
    """A bright square on darker ground, a few times."""
    images = torch.full((6, *SIZE), 0.2)
    images[:, 24:40, 40:60] = 1.0
    return images


def test_without_a_flaw_an_image_comes_out_as_it_was(only, square):
    torch.testing.assert_close(read_out(only(), square), square, atol=1e-5, rtol=0)


def test_ringing_overshoots_at_edges_along_one_direction(only, square):
    seen = read_out(only("RINGING"), square)
    assert (seen.amax((1, 2)) > 1.03).sum() >= 4  # a cut near the end of the spectrum rings less
    for image in seen:
        across = (image - square[0]).abs()
        far_rows, far_columns = across[:, :30].max() > 1e-4, across[:16].max() > 1e-4
        assert bool(far_rows) != bool(far_columns)


def test_ghosts_lie_at_a_distance_on_both_sides(only):
    point = torch.zeros(6, *SIZE)
    point[:, 32, 48] = 1.0
    seen = read_out(only("GHOSTS"), point)
    for image in seen:
        assert float(image[32, 48]) == pytest.approx(1.0, abs=0.05)
        image[32, 48] = 0
        assert 1e-3 < float(image.max()) < 0.11
        places = torch.nonzero(image > image.max() / 2) - torch.tensor([32, 48])
        assert (places == 0).all(0).any()  # in line with the point, along one direction
        assert places.abs().max() >= 8


def test_motion_leaves_the_mean_and_doubles_edges(only, square):
    seen = read_out(only("MOTION"), square)
    assert (seen - square).abs().amax((1, 2)).min() > 0.05
    torch.testing.assert_close(seen.mean((1, 2)), square.mean((1, 2)), atol=5e-3, rtol=0)


def test_wrap_adds_the_front_to_the_back(only):
    ramp = torch.arange(SIZE[1], dtype=torch.float32).expand(4, *SIZE) + 1
    more = read_out(only("WRAP"), ramp) - ramp
    assert (more > -1e-3).all()
    folded = (more > 0.05).flatten(1).float().mean(1)
    assert ((folded > 0.02) & (folded < 0.2)).all()


def test_fat_alone_is_shifted(only, monkeypatch):
    monkeypatch.setattr(acquisition, "SHIFTED_FAT", 1.0)
    signal = torch.zeros(8, 40, 40)
    signal[:, 20, 20] = 1.0
    share = torch.zeros_like(signal)
    share[:, 20, 20] = 0.4
    seen = shift_fat(only(), signal, share, 1.0)
    torch.testing.assert_close(seen.sum((1, 2)), torch.ones(8))
    moved = [image for image in seen if image[20, 20] < 0.99]
    assert len(moved) >= 4
    for image in moved:
        assert float(image[20, 20]) == pytest.approx(0.6)
        (place,) = torch.nonzero(image.isclose(torch.tensor(0.4)))
        assert (place == 20).any() and 0 < (place - 20).abs().sum() <= 3
    assert torch.equal(shift_fat(only(), signal, torch.zeros_like(signal), 1.0), signal)
