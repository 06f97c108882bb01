"""One change a slice moves the image, its labels and its attention maps alike."""

import math

import pytest
import torch

from CPS4Core.config import AugmentSettings
from CPS4Core.data import augment
from CPS4Core.data.augment import Augmentation, blur
from CPS4Core.vision_language.maps import upsample

STILL = AugmentSettings(rotation_degrees=0, elastic_probability=0, contrast_probability=0)


def draw(size, settings, seeds):
    return augment.draw(size, settings, seeds).augmentation(settings)


def block(H=64, W=128):
    image = torch.zeros(1, 1, H, W)
    image[..., 20:28, 80:100] = 1
    return image


def test_nothing_drawn_changes_nothing():
    change = draw((64, 128), STILL, [[0]])
    torch.testing.assert_close(change.images(block()), block(), atol=1e-5, rtol=0)
    labels = torch.randint(20, (1, 64, 128))
    assert torch.equal(change.labels(labels), labels)
    assert change.inside.all()


def test_attention_is_upsampled_plainly_where_nothing_is_drawn():
    attention = torch.rand(2, 20, 4, 8)
    ours = draw((64, 128), STILL, [[0], [1]]).attention(attention)
    torch.testing.assert_close(ours, upsample(attention, (64, 128)), atol=1e-5, rtol=0)


def test_image_labels_and_attention_move_together():
    settings = AugmentSettings(shift=0.1, elastic_probability=1.0, contrast_probability=0)
    change = draw((64, 128), settings, [[3]])
    image = change.images(block())[0, 0] > 0.5
    labels = change.labels(block()[:, 0].long() * 5)[0] == 5
    attention = change.attention(block())[0, 0] > 0.5
    assert not torch.equal(image, block()[0, 0] > 0.5)
    for other in (labels, attention):
        overlap = 2 * (image & other).sum() / (image.sum() + other.sum())
        assert overlap > 0.9


def test_rotation_turns_in_pixels_not_in_the_unit_square():
    settings = AugmentSettings(rotation_degrees=15, elastic_probability=0, contrast_probability=0)
    change = draw((64, 128), settings, [[1]])
    centre = change.grid[0, 31:33, 63:65] * torch.tensor([64.0, 32.0])
    right = centre[0, 1] - centre[0, 0]
    assert right.norm().item() == pytest.approx(
        1, abs=1e-4
    )  # a turn keeps lengths, along the longer axis too
    assert 0 < abs(math.degrees(math.atan2(right[1], right[0]))) <= 15


def test_what_comes_from_outside_is_background():
    settings = AugmentSettings(rotation_degrees=0, shift=0.5, elastic_probability=0, contrast_probability=0)
    change = draw((64, 128), settings, [[2]])
    labels = change.labels(torch.full((1, 64, 128), 7))
    assert torch.equal(labels == 7, change.inside)
    assert not change.inside.all()


def test_a_slice_draws_the_same_whatever_its_batch():
    settings = AugmentSettings(elastic_probability=1.0, contrast_probability=1.0)
    together = draw((32, 64), settings, [[0, 4], [0, 5]])
    alone = draw((32, 64), settings, [[0, 5]])
    torch.testing.assert_close(together.grid[1:], alone.grid, atol=1e-6, rtol=0)
    assert together.contrast[1] == alone.contrast[0]
    assert together.contrast[0] != together.contrast[1]


def test_elastic_noise_is_normal_of_unit_variance():
    settings = STILL.model_copy(update={"elastic_probability": 1.0, "elastic_alpha": 15.0})
    still = draw((96, 128), STILL, [[0]])
    moved = draw((96, 128), settings, [[k] for k in range(8)])
    pixels = (moved.grid - still.grid) * torch.tensor([64.0, 48.0])
    # White noise of variance 1 behind a Gaussian of sigma 3 has variance 1 / (4 pi 3^2).
    inner = pixels[:, 12:-12, 12:-12]
    assert inner.std().item() == pytest.approx(15 / (2 * 3 * math.pi**0.5), rel=0.05)


def test_a_blur_is_each_slices_own_gaussian():
    point = torch.zeros(3, 1, 41, 41)
    point[:, 0, 20, 20] = 1
    sigma = torch.tensor([0.0, 1.5, 3.0])
    found = blur(point, sigma)[:, 0]
    assert found[0].equal(point[0, 0])
    offsets = (torch.arange(41) - 20.0) ** 2
    for k in (1, 2):
        assert found[k].sum().item() == pytest.approx(1, abs=1e-3)
        assert (found[k].sum(0) * offsets).sum().item() == pytest.approx(sigma[k].item() ** 2, rel=0.05)
    flat = torch.full((1, 1, 12, 12), 5.0)
    torch.testing.assert_close(blur(flat, torch.tensor([2.0])), flat)


def test_a_zoom_enlarges_about_the_centre():
    settings = STILL.model_copy(update={"scale": 0.5})
    factors = []
    for k in range(40):
        grid = draw((64, 128), settings, [[k]]).grid[0] * torch.tensor([64.0, 32.0])
        factors.append(1 / (grid[31, 65, 0] - grid[31, 64, 0]).item())
        torch.testing.assert_close(grid[31:33, 63:65].mean((0, 1)), torch.zeros(2), atol=1e-4, rtol=0)
    assert 1 / 1.5 <= min(factors) < 0.75 and 1.35 < max(factors) <= 1.5


def test_gamma_and_gain_by_hand():
    image = torch.tensor([[[[-1.0, 0.0, 1.0, 3.0]]]])
    change = draw((1, 4), STILL, [[0]])
    toned = Augmentation(change.grid, change.contrast, gamma=torch.tensor([2.0])).images(image)
    torch.testing.assert_close(toned.flatten(), torch.tensor([-1, -0.75, 0, 3.0]), atol=1e-5, rtol=0)
    gain = torch.full((1, 1, 3, 5), math.log(0.5))
    halved = Augmentation(change.grid, change.contrast, bias=gain).images(image)
    torch.testing.assert_close(halved.flatten(), torch.tensor([-1, -0.5, 0, 1.0]), atol=1e-5, rtol=0)


def test_new_changes_leave_the_others_as_they_were_drawn():
    plain, more = (
        draw((32, 64), AugmentSettings(**extra), [[7]])
        for extra in ({}, {"gamma": 0.5, "bias": 0.3, "blur": 2.0})
    )
    assert plain.grid.equal(more.grid) and plain.contrast.equal(more.contrast)
    assert (plain.gamma, plain.bias, plain.blur) == (None, None, None)
    assert 1 / 1.5 <= more.gamma.item() <= 1.5 and 0 <= more.blur.item() <= 2
