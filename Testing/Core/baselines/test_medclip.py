"""MedCLIP's semantic matching loss, against values by hand and a slow float64 reading."""

import math

import pytest
import torch

from CPS4Core.baselines.objectives.medclip import MedCLIP
from CPS4Core.class_table import IGNORE, class_prompts
from CPS4Core.vision_language.model import build_model


def striped_slices():
    """Return three slices with a stripe of two structures each, and where they are brighter."""
    labels = torch.zeros(3, 32, 64, dtype=torch.long)
    for plane, structures, place in zip(labels, [(2, 12), (2, 13), (9, 18)], (4, 14, 24), strict=True):
        plane[place : place + 4, :32], plane[place : place + 4, 32:] = structures
    return (labels > 0).float().unsqueeze(1) * 2 - 0.5, labels


@pytest.fixture
def medclip(tiny_settings):
    torch.manual_seed(0)
    return MedCLIP(build_model(tiny_settings.encoders, tiny_settings.input.size), tiny_settings.pretrain)


def slow_loss(cosine, presence, scale):
    """The semantic matching loss, read word by word: both directions, targets softmax(label_img . label_txt^T)."""
    n, m = cosine.shape
    loss = 0.0
    for i in range(n):
        for j in range(m):
            y = math.exp(presence[i][j]) / sum(math.exp(s) for s in presence[i])
            loss -= y * torch.log((scale * cosine[i, j]).exp() / (scale * cosine[i]).exp().sum()) / n / 2
            z = math.exp(presence[i][j]) / sum(math.exp(row[j]) for row in presence)
            loss -= z * torch.log((scale * cosine[i, j]).exp() / (scale * cosine[:, j]).exp().sum()) / m / 2
    return loss


def give_tokens(medclip, monkeypatch, image_tokens, text_tokens):
    """Replace the encoders by the tokens that they would return."""
    monkeypatch.setattr(medclip.model, "image_tokens", lambda images: (image_tokens, None))
    monkeypatch.setattr(medclip.model, "prompt_tokens", lambda prompts: text_tokens)


def test_a_slice_that_matches_all_prompts_alike_pays_the_logarithms(medclip, monkeypatch):
    images, labels = striped_slices()
    give_tokens(medclip, monkeypatch, torch.eye(8)[[0, 0, 0]], torch.eye(8)[[1] * 20])
    # All cosines are zero: log 20 for each slice, log 3 for each prompt, whatever the targets.
    assert medclip(images, labels)["total"].item() == pytest.approx((math.log(20) + math.log(3)) / 2)


def test_the_loss_is_the_slow_reading_with_its_gradient(medclip, monkeypatch):
    images, labels = striped_slices()
    presence = [[float(k in shown) for k in range(20)] for shown in ((0, 2, 12), (0, 2, 13), (0, 9, 18))]
    random = torch.Generator().manual_seed(1)
    units = torch.nn.functional.normalize(torch.randn(23, 8, generator=random), dim=-1)
    ours, theirs = units.clone().requires_grad_(), units.double().requires_grad_()
    give_tokens(medclip, monkeypatch, ours[:3], ours[3:])
    fast = medclip(images, labels)["total"]
    slow = slow_loss(theirs[:3] @ theirs[3:].T, presence, 1 / 0.07)
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-6)


def test_the_best_match_is_as_soft_as_the_targets(medclip, monkeypatch):
    images, labels = striped_slices()
    # Cosines of which the scale makes 1 for the classes present and 0 for the others, as the labels have it.
    presence = torch.stack([torch.isin(torch.arange(20), plane) for plane in labels]).float()
    give_tokens(medclip, monkeypatch, 0.07 * presence, torch.eye(20))
    best = medclip(images, labels)["total"].item()
    give_tokens(medclip, monkeypatch, 0.14 * presence, torch.eye(20))
    assert medclip(images, labels)["total"].item() > best
    give_tokens(medclip, monkeypatch, 0.035 * presence, torch.eye(20))
    assert medclip(images, labels)["total"].item() > best


def test_any_batch_is_borne(medclip):
    images, labels = striped_slices()
    unknown = labels.masked_fill(labels == 2, IGNORE)
    for n, truth in ((1, labels), (3, unknown), (2, torch.zeros_like(labels)), (2, labels * 0 + IGNORE)):
        medclip.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            total = medclip(images[:n], truth[:n])["total"]
        total.backward()
        assert total.isfinite()
        assert total.dtype == torch.float32
        assert all(
            parameter.grad.isfinite().all()
            for parameter in medclip.parameters()
            if parameter.grad is not None
        )


def test_it_trains_both_projections_and_the_scale(medclip):
    medclip(*striped_slices())["total"].backward()
    trained = (medclip.model.project_patch.weight, medclip.model.project_prompt.weight, medclip.scale.t)
    assert all(parameter.grad.abs().max() > 0 for parameter in trained)


def test_it_learns_what_each_slice_shows_and_its_state_is_whole(medclip, tiny_settings):
    images, labels = striped_slices()
    medclip.model.text.freeze()  # the random text model finds few prompts different
    medclip.model.project_prompt.requires_grad_(False)
    optimizer = torch.optim.Adam(
        (parameter for parameter in medclip.parameters() if parameter.requires_grad), 1e-2
    )
    for step in range(1, 76):
        optimizer.zero_grad()
        medclip(images, labels)["total"].backward()
        optimizer.step()
        medclip.after_step(step)
    last = medclip(images, labels)["total"].item()
    assert last < (math.log(20) + math.log(3)) / 2  # better than to match all alike
    cosine = medclip.model.image_tokens(images)[0] @ medclip.model.prompt_tokens(class_prompts()).T
    for row, shown in zip(cosine, ([0, 2, 12], [0, 2, 13], [0, 9, 18]), strict=True):
        assert row[shown].mean() > row.mean() + row.std() / 2

    other = MedCLIP(build_model(tiny_settings.encoders, tiny_settings.input.size), tiny_settings.pretrain)
    other.load_state_dict(medclip.state_dict())
    assert other(images, labels)["total"].item() == last


def test_the_scale_stays_within_its_limit(medclip):
    medclip.scale.t.data.fill_(9.0)
    medclip.after_step(1)
    assert medclip.scale.t.exp().item() == pytest.approx(100)
