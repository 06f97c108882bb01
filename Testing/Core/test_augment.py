"""One change a slice moves the image, its labels and its attention maps alike."""

import math

import pytest
import torch

from CPS4Core.config import AugmentSettings
from CPS4Core.data.augment import draw
from CPS4Core.vision_language.maps import upsample

CPU = torch.device("cpu")
STILL = AugmentSettings(rotation_degrees=0, elastic_probability=0, contrast_probability=0)


def block(H=64, W=128):
    image = torch.zeros(1, 1, H, W)
    image[..., 20:28, 80:100] = 1
    return image


def test_nothing_drawn_changes_nothing():
    change = draw((64, 128), STILL, [[0]], CPU)
    torch.testing.assert_close(change.images(block()), block(), atol=1e-5, rtol=0)
    labels = torch.randint(20, (1, 64, 128))
    assert torch.equal(change.labels(labels), labels)
    assert change.inside.all()


def test_attention_is_upsampled_plainly_where_nothing_is_drawn():
    attention = torch.rand(2, 20, 4, 8)
    ours = draw((64, 128), STILL, [[0], [1]], CPU).attention(attention)
    torch.testing.assert_close(ours, upsample(attention, (64, 128)), atol=1e-5, rtol=0)


def test_image_labels_and_attention_move_together():
    settings = AugmentSettings(shift=0.1, elastic_probability=1.0, contrast_probability=0)
    change = draw((64, 128), settings, [[3]], CPU)
    image = change.images(block())[0, 0] > 0.5
    labels = change.labels(block()[:, 0].long() * 5)[0] == 5
    attention = change.attention(block())[0, 0] > 0.5
    assert not torch.equal(image, block()[0, 0] > 0.5)
    for other in (labels, attention):
        overlap = 2 * (image & other).sum() / (image.sum() + other.sum())
        assert overlap > 0.9


def test_rotation_turns_in_pixels_not_in_the_unit_square():
    settings = AugmentSettings(rotation_degrees=15, elastic_probability=0, contrast_probability=0)
    change = draw((64, 128), settings, [[1]], CPU)
    centre = change.grid[0, 31:33, 63:65] * torch.tensor([64.0, 32.0])
    right = centre[0, 1] - centre[0, 0]
    assert right.norm().item() == pytest.approx(
        1, abs=1e-4
    )  # a turn keeps lengths, along the longer axis too
    assert 0 < abs(math.degrees(math.atan2(right[1], right[0]))) <= 15


def test_what_comes_from_outside_is_background():
    settings = AugmentSettings(rotation_degrees=0, shift=0.5, elastic_probability=0, contrast_probability=0)
    change = draw((64, 128), settings, [[2]], CPU)
    labels = change.labels(torch.full((1, 64, 128), 7))
    assert torch.equal(labels == 7, change.inside)
    assert not change.inside.all()


def test_a_slice_draws_the_same_whatever_its_batch():
    settings = AugmentSettings(elastic_probability=1.0, contrast_probability=1.0)
    together = draw((32, 64), settings, [[0, 4], [0, 5]], CPU)
    alone = draw((32, 64), settings, [[0, 5]], CPU)
    torch.testing.assert_close(together.grid[1:], alone.grid, atol=1e-6, rtol=0)
    assert together.contrast[1] == alone.contrast[0]
    assert together.contrast[0] != together.contrast[1]
