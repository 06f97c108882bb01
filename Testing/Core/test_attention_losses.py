"""Eq. 1 and 2 against values worked out by hand and against a slow float64 reading, gradients included."""

import math

import pytest
import torch

from CPS4Core.class_table import IGNORE
from CPS4Core.vision_language.losses import pixel_attention_loss, token_attention_loss, token_masks
from CPS4Core.vision_language.model import build_model
from CPS4Core.vision_language.objective import CPS4Objective


def slow_token_loss(A, M):
    """Eq. 1, read word by word."""
    losses = []
    for A_i, M_i in zip(A, M, strict=True):
        if M_i.any():
            inside = sum(A_i[u] for u in zip(*torch.where(M_i), strict=True))
            losses.append((1 - inside / A_i.sum()) ** 2)
    return sum(losses) / len(losses)


def slow_pixel_loss(A, M):
    """Eq. 2, read word by word, the sum over u taken as a mean."""
    losses = []
    for A_i, M_i in zip(A, M, strict=True):
        if M_i.any():
            terms = [
                -(m * torch.log(a) + (1 - m) * torch.log(1 - a))
                for a, m in zip(A_i.flatten(), M_i.double().flatten(), strict=True)
            ]
            losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


def test_token_loss_by_hand():
    attention = torch.tensor([[[0.6, 0.2], [0.1, 0.1]], [[0.5, 0.5], [0.5, 0.5]]])
    mask = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [1, 0]]], dtype=torch.bool)
    # Class 0 holds 0.6 of 1.0 inside, class 1 holds 1.5 of 2.0.
    expected = ((1 - 0.6) ** 2 + (1 - 0.75) ** 2) / 2
    assert token_attention_loss(attention, mask).item() == pytest.approx(expected)


def test_pixel_loss_by_hand():
    attention = torch.tensor([[[0.9, 0.2]]])
    mask = torch.tensor([[[1, 0]]], dtype=torch.bool)
    expected = -(math.log(0.9) + math.log(0.8)) / 2
    assert pixel_attention_loss(attention, mask).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fast", "slow"), [(token_attention_loss, slow_token_loss), (pixel_attention_loss, slow_pixel_loss)]
)
def test_losses_match_the_slow_reading_with_their_gradient(fast, slow):
    random = torch.Generator().manual_seed(1)
    attention = torch.rand(5, 4, 6, generator=random, dtype=torch.float64) * 0.98 + 0.01
    mask = torch.rand(5, 4, 6, generator=random) > 0.6
    mask[3] = False  # an absent class
    ours, theirs = (attention.clone().requires_grad_() for _ in range(2))
    fast(ours, mask).backward()
    slow(theirs, mask).backward()
    assert fast(ours, mask).item() == pytest.approx(slow(theirs, mask).item(), rel=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss", [token_attention_loss, pixel_attention_loss])
def test_a_batch_is_the_mean_over_its_images(loss):
    random = torch.Generator().manual_seed(2)
    attention = torch.rand(3, 4, 5, 6, generator=random)
    mask = torch.rand(3, 4, 5, 6, generator=random) > 0.5
    mask[1, :3] = False  # one image with a single class present
    alone = [loss(attention[i], mask[i]) for i in range(3)]
    torch.testing.assert_close(loss(attention, mask), sum(alone) / 3)


def test_absent_classes_count_only_when_asked():
    attention = torch.tensor([[[0.9, 0.2]], [[0.3, 0.3]]])
    mask = torch.tensor([[[1, 0]], [[0, 0]]], dtype=torch.bool)
    present = -(math.log(0.9) + math.log(0.8)) / 2
    absent = -math.log(0.7)
    assert pixel_attention_loss(attention, mask).item() == pytest.approx(present)
    both = pixel_attention_loss(attention, mask, absent_classes=True)
    assert both.item() == pytest.approx((present + absent) / 2)


def test_ignored_locations_change_nothing():
    attention = torch.tensor([[[0.6, 0.2, 0.9]]], requires_grad=True)
    mask = torch.tensor([[[1, 0, 0]]], dtype=torch.bool)
    valid = torch.tensor([[1, 1, 0]], dtype=torch.bool)
    for loss in (token_attention_loss, pixel_attention_loss):
        expected = loss(attention[..., :2], mask[..., :2])
        value = loss(attention, mask, valid)
        assert value.item() == pytest.approx(expected.item())
        (gradient,) = torch.autograd.grad(value, attention)
        assert gradient[0, 0, 2] == 0


def test_losses_stay_finite_at_the_ends_and_in_half_precision():
    attention = torch.tensor([[[0.0, 1.0]]], dtype=torch.bfloat16)
    mask = torch.tensor([[[1, 0]]], dtype=torch.bool)
    for loss in (token_attention_loss, pixel_attention_loss):
        value = loss(attention, mask)
        assert value.dtype == torch.float32
        assert value.isfinite()


def test_nothing_present_is_no_loss():
    attention = torch.full((2, 3, 3), 0.5, requires_grad=True)
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    for loss in (token_attention_loss, pixel_attention_loss):
        value = loss(attention, mask)
        assert value == 0
        value.backward()


def test_any_coverage_of_a_patch_sets_its_mask():
    labels = torch.zeros(1, 16, 32, dtype=torch.uint8)
    labels[0, 3, 17] = 12  # one pixel of a thin disc
    mask, valid = token_masks(labels, (2, 4))
    assert mask.shape == (1, 20, 2, 4)
    assert mask[0, 12].nonzero().tolist() == [[0, 2]]
    assert mask[0, 0].all()
    assert valid.all()
    assert not token_masks(labels, (2, 4), coverage=0.5)[0][0, 12].any()


def test_a_patch_with_an_unknown_pixel_is_not_valid():
    labels = torch.zeros(1, 16, 32, dtype=torch.uint8)
    labels[0, 0, 0] = IGNORE
    mask, valid = token_masks(labels, (2, 4))
    assert valid.logical_not().nonzero().tolist() == [[0, 0, 0]]
    assert mask.sum() == 8  # background everywhere, and no class from the unknown pixel


@pytest.mark.parametrize("terms", ["both", "token", "pixel"])
def test_the_ablation_minimises_one_of_the_two_losses(terms, tiny_settings):
    settings = tiny_settings.pretrain.model_copy(update={"terms": terms})
    objective = CPS4Objective(build_model(tiny_settings.encoders, tiny_settings.input.size), settings)
    random = torch.Generator().manual_seed(3)
    found = objective(
        torch.randn(2, 1, 32, 64, generator=random), torch.randint(20, (2, 32, 64), generator=random)
    )
    expected = {"both": (found["token"] + found["pixel"]) / 2}.get(terms, found.get(terms))
    torch.testing.assert_close(found["total"], expected)
