"""The losses that contrast images with texts, and CLIP, against values by hand and a slow float64 reading."""

import math

import pytest
import torch
import torch.nn.functional as F

from CPS4Core.baselines.captions import present_classes
from CPS4Core.baselines.contrast import (
    LearnableScale,
    distinct_captions,
    info_nce,
    matching_loss,
    similarity,
)
from CPS4Core.baselines.objectives.clip import CLIP
from CPS4Core.class_table import IGNORE
from CPS4Core.vision_language.model import build_model


def slow_matching_loss(logits, targets):
    """The equation of the docstring, read word by word."""
    n, m = logits.shape
    total = 0.0
    for i in range(n):
        for j in range(m):
            total -= targets[i, j] * torch.log(logits[i, j].exp() / logits[i].exp().sum()) / n
    return total


def slow_info_nce(logits, over_columns, over_rows):
    return (slow_matching_loss(logits, over_columns) + slow_matching_loss(logits.T, over_rows.T)) / 2


def striped_slices():
    """Return four slices, each with a brighter stripe of two structures; the first two share a caption."""
    labels = torch.zeros(4, 32, 64, dtype=torch.long)
    for plane, structures, place in zip(
        labels, [(2, 12), (2, 12), (5, 14), (9, 18)], (4, 6, 14, 24), strict=True
    ):
        plane[place : place + 4, :32], plane[place : place + 4, 32:] = structures
    return (labels > 0).float().unsqueeze(1) * 2 - 0.5, labels


@pytest.fixture
def clip(tiny_settings):
    torch.manual_seed(0)
    return CLIP(build_model(tiny_settings.encoders, tiny_settings.input.size), tiny_settings.pretrain)


def test_matching_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(2.0)]])
    # 3/4 and 2/3 on the right column.
    expected = -(math.log(3 / 4) + math.log(2 / 3)) / 2
    assert matching_loss(logits, torch.eye(2)).item() == pytest.approx(expected)
    # The second row wants both columns alike.
    soft = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    expected = -(math.log(3 / 4) + math.log(1 / 3) / 2 + math.log(2 / 3) / 2) / 2
    assert matching_loss(logits, soft).item() == pytest.approx(expected)
    assert matching_loss(logits[:0], soft[:0]).item() == 0


def test_matching_is_the_slow_reading_with_its_gradient():
    random = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(4, 6, generator=random, dtype=torch.float64)
    targets = torch.rand(4, 6, generator=random, dtype=torch.float64).softmax(1)
    ours, theirs = logits.float().requires_grad_(), logits.clone().requires_grad_()
    fast, slow = matching_loss(ours, targets), slow_matching_loss(theirs, targets)
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-6)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-7)


def test_with_one_positive_each_it_is_the_cross_entropy_in_both_directions():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(2))
    right = torch.arange(5)
    expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    torch.testing.assert_close(info_nce(logits, torch.eye(5, dtype=torch.bool)), expected)


def test_targets_are_spread_evenly_over_the_positives():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    positives = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)
    over_columns = torch.tensor([[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0, 0, 0.5, 0.5]])
    over_rows = torch.tensor([[0.5, 1, 0, 0], [0.5, 0, 0, 0], [0, 0, 1, 1]])
    torch.testing.assert_close(info_nce(logits, positives), slow_info_nce(logits, over_columns, over_rows))


def test_pairs_that_share_a_caption_do_not_push_each_other_apart():
    positives = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    logits = (100.0 * positives).requires_grad_()
    loss = info_nce(logits, positives)
    assert loss.item() == pytest.approx(2 / 3 * math.log(2))
    loss.backward()
    assert logits.grad.abs().max() < 1e-6


def test_a_row_without_a_positive_adds_nothing():
    logits = torch.randn(2, 2, generator=torch.Generator().manual_seed(4))
    positives = torch.tensor([[True, False], [False, False]])
    expected = -(logits.log_softmax(1)[0, 0] + logits.log_softmax(0)[0, 0]) / 4
    torch.testing.assert_close(info_nce(logits, positives), expected)


def test_the_scale_is_learnt_and_returns_from_beyond_its_limit():
    scale = LearnableScale()
    assert scale(torch.tensor(1.0)).item() == pytest.approx(1 / 0.07)
    scale.t.data.fill_(7.0)
    scale.limit()
    assert scale(torch.tensor(1.0)).item() == pytest.approx(100)
    scale(torch.tensor(1.0)).backward()
    assert scale.t.grad.item() == pytest.approx(100)
    scale.t.data.fill_(1.0)
    scale.limit()
    assert scale.t.item() == 1


def test_similarities_keep_full_precision_under_autocast():
    random = torch.Generator().manual_seed(5)
    one, other = (F.normalize(torch.randn(6, 8, generator=random), dim=-1) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarity(one, other)
    assert inside.dtype == torch.float32
    assert inside.equal(one @ other.T)


def test_each_caption_is_listed_once():
    labels = torch.tensor([[[0, 2]], [[0, IGNORE]], [[2, 2]], [[3, IGNORE]]])
    captions, places = distinct_captions(present_classes(labels))
    named = "A magnetic resonance image of "
    assert captions == [f"{named}Lumbar Vertebra 5.", f"{named}Background.", f"{named}Lumbar Vertebra 4."]
    assert places == [0, 1, 0, 2]


def test_clip_is_info_nce_of_slices_and_captions(clip, monkeypatch):
    images, labels = striped_slices()
    encoded = []
    prompt_tokens = clip.model.prompt_tokens
    monkeypatch.setattr(
        clip.model, "prompt_tokens", lambda texts: encoded.extend(texts) or prompt_tokens(texts)
    )
    total = clip(images, labels)["total"]
    assert len(encoded) == 3  # each distinct caption once
    texts = prompt_tokens(encoded)[[0, 0, 1, 2]].double()
    whole = clip.model.image_tokens(images)[0].double()
    even = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    expected = slow_info_nce(whole @ texts.T / 0.07, even, even)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_clip_bears_any_batch(clip):
    images, labels = striped_slices()
    unknown = labels.masked_fill(labels == 2, IGNORE)
    for n, truth in ((1, labels), (3, unknown), (2, torch.zeros_like(labels)), (2, labels * 0 + IGNORE)):
        clip.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            total = clip(images[:n], truth[:n])["total"]
        total.backward()
        assert total.isfinite()
        assert total.dtype == torch.float32
        assert all(
            parameter.grad.isfinite().all() for parameter in clip.parameters() if parameter.grad is not None
        )


def test_clip_trains_both_projections_and_the_scale(clip):
    clip(*striped_slices())["total"].backward()
    trained = (clip.model.project_patch.weight, clip.model.project_prompt.weight, clip.scale.t)
    assert all(parameter.grad.abs().max() > 0 for parameter in trained)


def test_clip_learns_to_tell_captions_apart_and_its_state_is_whole(clip, tiny_settings):
    images, labels = striped_slices()
    clip.model.text.freeze()  # the random text model finds few captions different
    clip.model.project_prompt.requires_grad_(False)
    optimizer = torch.optim.Adam(
        (parameter for parameter in clip.parameters() if parameter.requires_grad), 3e-3
    )
    for step in range(1, 101):
        optimizer.zero_grad()
        clip(images, labels)["total"].backward()
        optimizer.step()
        clip.after_step(step)
    last = clip(images, labels)["total"].item()
    assert math.log(2) / 2 < last < math.log(2) / 2 + 0.1  # two of four slices share their caption

    other = CLIP(build_model(tiny_settings.encoders, tiny_settings.input.size), tiny_settings.pretrain)
    other.load_state_dict(clip.state_dict())
    assert other(images, labels)["total"].item() == last


def test_clip_keeps_its_scale_within_the_limit(clip):
    clip.scale.t.data.fill_(9.0)
    clip.after_step(1)
    assert clip.scale.t.exp().item() == pytest.approx(100)
