"""MC-Net and MC-Net+: the sharpening and the mutual consistency by hand and by a slow reading, and their training."""

import pytest
import torch
from small_models import random_batch

from CPS4Core.baselines.methods.mc_net import MCNet, MCNetPlus, mutual_consistency, sharpen
from CPS4Core.baselines.settings import BaselineSettings
from CPS4Core.class_table import IGNORE
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.losses import dice_loss
from CPS4Core.segmentation.methods.method import Batch
from CPS4Core.segmentation.pseudo_labels import ramp

SETTINGS = TrainSettings(widths=(4, 8))


def new(method, settings=SETTINGS):
    torch.manual_seed(1)
    return method(settings).train()


def slow_consistency(p):
    """The sum over ordered pairs of decoders, element by element."""
    total = 0
    for i in range(len(p)):
        for j in range(len(p)):
            if i != j:
                terms = [
                    (a - b**10 / (b**10 + (1 - b) ** 10)) ** 2
                    for a, b in zip(p[i].flatten(), p[j].flatten(), strict=True)
                ]
                total = total + sum(terms) / len(terms)
    return total


def test_sharpening_by_hand():
    p = torch.tensor([0.6, 0.3, 0.1, 0.0]).view(1, 4, 1, 1)
    # 0.6^10 = 0.0060466, 0.4^10 = 0.0001049; 0.3^10 = 0.0000059, 0.7^10 = 0.0282475.
    expected = torch.tensor([0.98295, 0.000209, 0.0, 0.0])
    torch.testing.assert_close(sharpen(p).flatten(), expected, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(
        sharpen(p, renormalise=True).flatten(), expected / expected.sum(), rtol=1e-3, atol=1e-7
    )
    assert sharpen(torch.full((1, 2, 1, 1), 0.5)).flatten().tolist() == [0.5, 0.5]


@pytest.mark.parametrize("renormalise", [False, True])
def test_sharpening_is_finite_for_any_probabilities(renormalise):
    certain = torch.eye(20)[0]
    nearly = torch.tensor([1 - 1e-7, *[1e-30] * 19])
    p = torch.stack([certain, nearly, torch.full((20,), 1 / 20)], 1)[None, :, :, None].requires_grad_()
    sharp = sharpen(p, renormalise)
    sharp.square().sum().backward()
    assert sharp.isfinite().all() and p.grad.isfinite().all()
    assert ((sharp >= 0) & (sharp <= 1)).all()
    if renormalise:
        torch.testing.assert_close(sharp.sum(1), torch.ones(1, 3, 1))
        torch.testing.assert_close(sharp[0, :, 2, 0], torch.full((20,), 1 / 20))


@pytest.mark.parametrize("decoders", [2, 3])
def test_the_consistency_matches_the_slow_reading_with_its_gradient(decoders):
    random = torch.Generator().manual_seed(2)
    logits = torch.randn(decoders, 2, 3, 2, 2, generator=random)
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    fast = mutual_consistency(list(ours.softmax(2)))
    slow = slow_consistency(list(theirs.softmax(2)))
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-7)


def test_decoders_that_agree_and_are_certain_cost_nothing():
    p = torch.eye(3)[None, :, :, None]
    assert mutual_consistency([p, p, p]).item() == 0
    assert mutual_consistency([p, p.roll(1, 1)]).item() == pytest.approx(2 * 2 / 3)


@pytest.mark.parametrize(("method", "decoders"), [(MCNet, 2), (MCNetPlus, 3)])
@pytest.mark.parametrize("renormalise", [False, True])
def test_the_loss_is_the_dice_of_every_decoder_and_their_consistency_on_all_slices(
    method, decoders, renormalise
):
    options = BaselineSettings(mc_net={"renormalise": renormalise})
    module = new(method, TrainSettings(widths=(4, 8), baselines=options))
    batch = random_batch(2, 3, progress=0.4)
    terms = module(batch)
    encoded = module.student.encode(torch.cat([batch.labelled, batch.unlabelled]))
    logits = [decoder(encoded) for decoder in [module.student.decoder, *module.decoders]]
    supervised = sum(dice_loss(y[:2], batch.labels) for y in logits)
    consistency = mutual_consistency([y.softmax(1) for y in logits], renormalise)
    assert len(logits) == decoders
    torch.testing.assert_close(terms["sup"], supervised)
    torch.testing.assert_close(terms["consistency"], consistency)
    torch.testing.assert_close(terms["total"], supervised + 0.1 * ramp(0.4, 1.0) * consistency)


def test_the_decoders_double_in_different_ways_and_the_first_one_segments():
    module = new(MCNetPlus).eval()
    assert isinstance(module.student.decoder.up[0], torch.nn.ConvTranspose2d)
    assert [decoder.up[0][-1].mode for decoder in module.decoders] == ["bilinear", "nearest"]
    images = torch.randn(1, 1, 8, 16)
    expected = module.student.decoder(module.student.encode(images))
    assert module.network(images).equal(expected)


def edge_cases():
    plain = random_batch(1, 1)
    unknown = torch.full_like(plain.labels, IGNORE)
    partly = plain.labels.clone()
    partly[:, :4] = IGNORE
    return {
        "one of each": plain,
        "more labelled": random_batch(3, 1),
        "partly unknown": Batch(plain.labelled, partly, plain.unlabelled, progress=1.0),
        "all unknown": Batch(plain.labelled, unknown, plain.unlabelled, progress=1.0),
        "background only": Batch(
            plain.labelled, torch.zeros_like(plain.labels), plain.unlabelled, progress=1.0
        ),
    }


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("case", edge_cases())
def test_losses_and_gradients_are_finite(case, bf16):
    module = new(MCNetPlus)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        terms = module(edge_cases()[case])
    terms["total"].backward()
    assert all(term.isfinite() and term.dim() == 0 for term in terms.values())
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters()
    )


def train(module, steps, batch):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(steps):
        terms = module(batch)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
    return {name: term.item() for name, term in terms.items()}


def test_the_state_dict_is_the_whole_state():
    first, second = new(MCNetPlus), MCNetPlus(SETTINGS).train()
    train(first, 2, random_batch())
    second.load_state_dict(first.state_dict())
    assert first(random_batch(seed=3))["total"].equal(second(random_batch(seed=3))["total"])


def test_training_teaches_every_decoder():
    random = torch.Generator().manual_seed(4)
    edges = torch.tensor([3, 11, 5, 8]).view(4, 1, 1)
    labels = (torch.arange(16).expand(4, 8, 16) > edges).long()
    images = (2 * labels - 1 + 0.3 * torch.randn(4, 8, 16, generator=random)).unsqueeze(1)
    module = new(MCNetPlus)
    batch = Batch(images[:2], labels[:2], images[2:], progress=1.0)
    before = train(module, 1, batch)
    after = train(module, 30, batch)
    assert after["sup"] < 0.2 * before["sup"]
    encoded = module.student.encode(images)
    for decoder in [module.student.decoder, *module.decoders]:
        assert (decoder(encoded).argmax(1)[:2] == labels[:2]).float().mean() > 0.95
