"""MGCA's three losses, against values by hand and slow float64 readings, and where its weights come from."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from CPS4Core.baselines.objectives.mgca import (
    MGCA,
    attend,
    prototype_loss,
    sinkhorn,
    token_contrast,
)
from CPS4Core.class_table import IGNORE
from CPS4Core.vision_language.model import build_model

CAPTIONS = [
    "A magnetic resonance image of Sacrum.",
    "A magnetic resonance image of Sacrum, Lumbar Vertebra 5.",
]


def striped_slices():
    """Return three slices with a stripe of two structures, brighter than the rest; the first two share a caption."""
    labels = torch.zeros(3, 32, 64, dtype=torch.long)
    for plane, structures, place in zip(labels, [(2, 12), (2, 12), (9, 18)], (4, 6, 24), strict=True):
        plane[place : place + 4, :32], plane[place : place + 4, 32:] = structures
    return (labels > 0).float().unsqueeze(1) * 2 - 0.5, labels


def units(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def build(settings, **vision_options):
    torch.manual_seed(0)
    options = {**settings.encoders.vision_options, **vision_options}
    encoders = settings.encoders.model_copy(update={"vision_options": options})
    return MGCA(build_model(encoders, settings.input.size), settings.pretrain)


@pytest.fixture
def mgca(tiny_settings):
    return build(tiny_settings)


def slow_token_contrast(t, o, w):
    """The equation of the docstring for one slice, read word by word."""
    cosine = (t @ o.T / 0.1).exp()
    loss = 0.0
    for j in range(len(t)):
        loss -= w[j] / 2 * torch.log(cosine[j, j] / sum(cosine[j, k] for k in range(len(t))))
        loss -= w[j] / 2 * torch.log(cosine[j, j] / sum(cosine[k, j] for k in range(len(t))))
    return loss


def test_token_contrast_by_hand():
    t = torch.eye(2).unsqueeze(0)
    o = t.flip(1)  # each token sees what belongs to the other: cosines 0 where right and 1 where wrong
    weights = torch.tensor([[0.25, 0.75]])
    assert token_contrast(t, o, weights).item() == pytest.approx(math.log(1 + math.exp(10)))
    assert token_contrast(t, t, weights).item() == pytest.approx(math.log(1 + math.exp(-10)), abs=1e-6)


def test_token_contrast_is_the_slow_reading_with_its_gradient_and_padding_changes_nothing():
    t, o = units(2, 5, 8, seed=1), units(2, 5, 8, seed=2)
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    weights = torch.rand(2, 5, generator=torch.Generator().manual_seed(3)) * real
    fast_t, fast_o = t.clone().requires_grad_(), o.clone().requires_grad_()
    slow_t, slow_o = t.double().requires_grad_(), o.double().requires_grad_()
    fast = token_contrast(fast_t, fast_o, weights, real)
    slow = sum(slow_token_contrast(slow_t[i, :n], slow_o[i, :n], weights[i]) for i, n in ((0, 5), (1, 3))) / 2
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    for ours, theirs in ((fast_t, slow_t), (fast_o, slow_o)):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-6)
        assert ours.grad[1, 3:].abs().max() == 0


def test_attention_is_the_slow_reading_and_skips_padding():
    torch.manual_seed(4)
    d = 8
    attention = nn.MultiheadAttention(d, 1, bias=False, batch_first=True)
    Q, K, V = attention.in_proj_weight.double().chunk(3)
    O = attention.out_proj.weight.double()  # noqa: E741
    t, v = units(1, 3, d, seed=5), units(1, 4, d, seed=6)
    real = torch.tensor([[True, True, True, False]])
    seen = attend(attention, t, v, real)
    t, v = t[0].double() * d**0.5, v[0, :3].double() * d**0.5
    for j in range(3):
        alpha = torch.stack([(Q @ t[j]) @ (K @ v[k]) / d**0.5 for k in range(3)]).softmax(0)
        o = O @ sum(alpha[k] * (V @ v[k]) for k in range(3))
        torch.testing.assert_close(seen[0, j].double(), o / o.norm(), rtol=1e-5, atol=1e-6)


def test_sinkhorn_is_the_slow_reading():
    scores = torch.rand(5, 3, generator=torch.Generator().manual_seed(7)) * 2 - 1
    q = (scores.double() / 0.05).exp()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True) / 3
        q = q / q.sum(1, keepdim=True) / 5
    torch.testing.assert_close(sinkhorn(scores).double(), 5 * q, rtol=1e-4, atol=1e-7)


def test_sinkhorn_uses_all_prototypes_alike():
    q = sinkhorn(torch.tensor([[0.9, 0.8], [0.9, 0.7], [0.9, 0.6], [0.9, 0.5]]))
    torch.testing.assert_close(q.sum(1), torch.ones(4))
    assert q.argmax(1).tolist() == [1, 1, 0, 0]  # though all are nearest to the first
    torch.testing.assert_close(sinkhorn(torch.tensor([[0.9, -0.9]])), torch.tensor([[0.5, 0.5]]))


def test_prototypes_are_swapped():
    images, texts, prototypes = units(4, 8, seed=8), units(4, 8, seed=9), 3 * units(6, 8, seed=10)
    c = prototypes.double() / 3
    p_image, p_text = ((z.double() @ c.T / 0.2).softmax(1) for z in (images, texts))
    q_image, q_text = sinkhorn(images.double() @ c.T), sinkhorn(texts.double() @ c.T)
    expected = -sum(q_text[i] @ p_image[i].log() + q_image[i] @ p_text[i].log() for i in range(4)) / 8
    assert prototype_loss(images, texts, prototypes).item() == pytest.approx(expected.item(), rel=1e-5)


def test_slices_that_share_a_caption_share_its_prototypes():
    scores = torch.rand(4, 6, generator=torch.Generator().manual_seed(11))
    q = sinkhorn(scores[[0, 1, 1, 3]])
    assert q[1].equal(q[2])


def test_a_patch_weighs_what_the_class_token_pays_it(mgca):
    images, _ = striped_slices()
    token, patches, weights = mgca.image_and_patches(images)
    vision = mgca.model.vision.model
    block = vision.blocks[-1]  # the only one
    x = block.norm1(vision.norm_pre(vision._pos_embed(vision.patch_embed(images))))
    q, k, _ = block.attn.qkv(x).unflatten(-1, (3, block.attn.num_heads, -1)).unbind(2)
    paid = torch.einsum("bhd,bkhd->bhk", q[:, 0], k).mul(block.attn.head_dim**-0.5).softmax(-1).mean(1)[:, 1:]
    torch.testing.assert_close(weights, paid / paid.sum(1, keepdim=True))
    assert patches.shape == (3, 32, 8)
    assert not weights.requires_grad
    torch.testing.assert_close(token, mgca.model.image_tokens(images)[0])


def test_without_a_class_token_all_patches_weigh_the_same(tiny_settings):
    mgca = build(tiny_settings, class_token=False, global_pool="avg")
    weights = mgca.image_and_patches(striped_slices()[0])[2]
    torch.testing.assert_close(weights, torch.full((3, 32), 1 / 32))
    assert mgca(*striped_slices())["total"].isfinite()


def test_words_come_without_frame_and_padding_and_weigh_what_cls_pays_them(mgca):
    words, is_word, weights = mgca.words(CAPTIONS)
    tokenizer = mgca.model.text.tokenizer
    assert is_word.sum(1).tolist() == [len(tokenizer.tokenize(caption)) for caption in CAPTIONS]
    for i, text in enumerate(CAPTIONS):
        alone = tokenizer([text], return_tensors="pt")
        output = mgca.model.text.model(**alone, output_attentions=True)
        paid = output.attentions[-1][0, :, 0, 1:-1].mean(0)
        n = len(paid)
        torch.testing.assert_close(weights[i, :n], paid / paid.sum(), rtol=1e-4, atol=1e-6)
        assert weights[i, n:].abs().sum() == 0
        expected = F.normalize(mgca.model.project_prompt(output.last_hidden_state[0, 1:-1]), dim=-1)
        torch.testing.assert_close(words[i, :n], expected, rtol=1e-4, atol=1e-5)


def test_a_call_leaves_no_hook_behind(mgca):
    mgca(*striped_slices())
    for watched in (mgca.model.text.model, mgca.model.vision.model.blocks[-1].attn.attn_drop):
        assert not watched._forward_hooks
        assert not watched._forward_pre_hooks


def test_the_total_is_the_sum_of_the_three_losses_as_published(mgca):
    images, labels = striped_slices()
    terms = mgca(images, labels)
    # Both directions of the first, words and patches of the second, the mean direction of the third.
    parts = 2 * terms["global"] + 2 * terms["local"] + terms["prototype"]
    torch.testing.assert_close(terms["total"], parts)
    texts = mgca.model.prompt_tokens(
        [
            "A magnetic resonance image of Lumbar Vertebra 5, "
            "Intervertebral Disc between Lumbar Vertebra 4 and Lumbar Vertebra 5.",
            "A magnetic resonance image of Thoracic Vertebra 10, "
            "Intervertebral Disc between Thoracic Vertebra 10 and Thoracic Vertebra 11.",
        ]
    )[[0, 0, 1]]
    logits = mgca.model.image_tokens(images)[0] @ texts.T / 0.07
    even = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    expected = (F.cross_entropy(logits, even) + F.cross_entropy(logits.T, even)) / 2
    torch.testing.assert_close(terms["global"], expected)


def test_the_local_loss_of_a_slice_knows_nothing_of_the_others(mgca):
    images, labels = striped_slices()
    alone = [mgca(images[i : i + 1], labels[i : i + 1])["local"] for i in range(3)]
    torch.testing.assert_close(mgca(images, labels)["local"], sum(alone) / 3, rtol=1e-4, atol=1e-5)


def test_any_batch_is_borne(mgca):
    images, labels = striped_slices()
    unknown = labels.masked_fill(labels == 2, IGNORE)
    for n, truth in ((1, labels), (3, unknown), (2, torch.zeros_like(labels)), (2, labels * 0 + IGNORE)):
        mgca.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            terms = mgca(images[:n], truth[:n])
        terms["total"].backward()
        assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
        assert all(
            parameter.grad.isfinite().all() for parameter in mgca.parameters() if parameter.grad is not None
        )


def test_it_learns_and_its_state_is_whole(mgca, tiny_settings):
    images, labels = striped_slices()
    first = mgca(images, labels)
    optimizer = torch.optim.Adam(mgca.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        mgca(images, labels)["total"].backward()
        optimizer.step()
    untrained = {name for name, parameter in mgca.named_parameters() if parameter.grad is None}
    assert all(name.startswith(("model.text.model.pooler", "model.w", "model.b")) for name in untrained)
    mgca.eval()
    with torch.no_grad():
        last = mgca(images, labels)
    assert all(last[name] < 0.95 * first[name] for name in last)

    other = build(tiny_settings).eval()
    other.load_state_dict(mgca.state_dict())
    with torch.no_grad():
        assert other(images, labels)["total"].equal(last["total"])


def test_a_frozen_text_encoder_stays_as_it_is(mgca):
    mgca.model.text.freeze()
    mgca.train()(*striped_slices())["total"].backward()
    assert all(parameter.grad is None for parameter in mgca.model.text.parameters())
    assert mgca.model.project_prompt.weight.grad.abs().max() > 0
