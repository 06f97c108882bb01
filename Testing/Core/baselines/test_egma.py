"""FILIP and EGMA: late interaction, contrast and gaze loss by hand and read word by word in float64."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from CPS4Core.baselines.objectives.egma import (
    EGMA,
    FILIP,
    gaze_loss,
    late_interaction,
    multi_label_loss,
)
from CPS4Core.class_table import IGNORE
from CPS4Core.vision_language.model import build_model


@pytest.fixture
def make_objective(tiny_settings):
    def make(kind, seed=0):
        torch.manual_seed(seed)
        return kind(build_model(tiny_settings.encoders, tiny_settings.input.size), tiny_settings.pretrain)

    return make


def make_slices(count=4, seed=1):
    """Slices whose four quarters show classes by brightness, (count, 1, 32, 64), and their labels."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (count, 2, 2), generator=random)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(32, 2)
    return labels.unsqueeze(1) + 0.1 * torch.randn(count, 1, 32, 64, generator=random), labels


def make_case(slices=3, patches=6, classes=5, seed=3):
    """Random similarities, gaze and valid patches, as float64; no gaze where a patch is not valid."""
    random = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(slices, patches, classes, generator=random, dtype=torch.float64) - 1
    valid = torch.rand(slices, patches, generator=random) > 0.3
    valid[:, 0] = True
    GL = (torch.rand(slices, patches, classes, generator=random) > 0.6) & valid.unsqueeze(-1)
    GL[:, 0, 0] = True
    GL[0, :, 3] = False  # a class that the first slice lacks
    return x, GL, valid


def slow_mlce(values, positive):
    """log(1 + sum_neg e^s) + log(1 + sum_pos e^-s) of one row, of lists."""
    negatives = [s.exp() for s, p in zip(values, positive, strict=True) if not p]
    positives = [(-s).exp() for s, p in zip(values, positive, strict=True) if p]
    return torch.log(1 + sum(negatives, torch.zeros(()))) + torch.log(1 + sum(positives, torch.zeros(())))


def slow_gaze_loss(x, GL, valid):
    """Eq. 4, slice by slice, on what is left after absent classes and unknown patches are cut out."""
    losses = []
    for s, gaze, known in zip(x, GL, valid, strict=True):
        named = gaze.any(0)
        s, gaze = s[known][:, named], gaze[known][:, named]
        S2P = [slow_mlce(s[:, j], gaze[:, j]) for j in range(s.shape[1])]
        P2S = [slow_mlce(s[i], gaze[i]) for i in range(s.shape[0])]
        losses.append(0.8 * sum(S2P) / len(S2P) + 0.2 * sum(P2S) / len(P2S))
    return sum(losses) / len(losses)


def slow_contrast(x, GL, valid, scale):
    """Eq. 5 and 2, with the reports of equal classes as positives."""
    count = len(x)
    reports = [[j for j in range(x.shape[2]) if GL[k, :, j].any()] for k in range(count)]
    patches = [[i for i in range(x.shape[1]) if valid[k, i]] for k in range(count)]
    structures = [set(report) - {0} for report in reports]
    loss = 0
    for a in range(count):
        I2T, T2I = [], []
        for b in range(count):
            bests = [max(x[a, i, j] for j in reports[b]) for i in patches[a]]
            I2T.append(scale * sum(bests) / len(bests))
            bests = [max(x[b, i, j] for i in patches[b]) for j in reports[a]]
            T2I.append(scale * sum(bests) / len(bests))
        same = [b for b in range(count) if structures[b] == structures[a]]
        for logits in (I2T, T2I):
            everything = torch.log(sum(logit.exp() for logit in logits))
            loss = loss + sum(everything - logits[b] for b in same) / len(same) / count / 2
    return loss


def test_late_interaction_by_hand():
    # Two patches and three classes. The first slice names classes 0 and 1, the second class 2 alone.
    x = torch.tensor([[[0.9, 0.1, 0.3], [0.2, 0.4, 0.5]], [[0.0, -0.2, 0.6], [0.1, 0.7, -0.9]]])
    sentences = torch.tensor([[1, 1, 0], [0, 0, 1]]).bool()
    valid = torch.tensor([[1, 1], [1, 0]]).bool()
    s_I2T, s_T2I = late_interaction(x, sentences, valid)
    torch.testing.assert_close(s_I2T, torch.tensor([[(0.9 + 0.4) / 2, (0.3 + 0.5) / 2], [0.0, 0.6]]))
    torch.testing.assert_close(s_T2I, torch.tensor([[(0.9 + 0.4) / 2, (0.0 - 0.2) / 2], [0.5, 0.6]]))


def test_the_multi_label_loss_by_hand():
    s = torch.tensor([0.5, -0.3, 0.8, 9.0])
    positives, negatives = torch.tensor([1, 0, 0, 0]).bool(), torch.tensor([0, 1, 1, 0]).bool()
    expected = math.log(1 + math.exp(-0.3) + math.exp(0.8)) + math.log(1 + math.exp(-0.5))
    assert multi_label_loss(s, positives, negatives).item() == pytest.approx(expected)
    nothing = torch.zeros(4, dtype=torch.bool)
    assert multi_label_loss(s, nothing, nothing).item() == 0


def test_the_gaze_loss_matches_the_slow_reading_with_its_gradient():
    x, GL, valid = make_case()
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    fast, slow = gaze_loss(ours, GL, valid), slow_gaze_loss(theirs, GL, valid)
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def test_the_contrast_matches_the_slow_reading_with_its_gradient(make_objective):
    x, GL, valid = make_case(slices=4)
    GL[2] = GL[0]  # the same report twice
    valid[2] = valid[0]
    objective = make_objective(FILIP).double()
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    fast = objective._contrast(ours, GL, valid)
    slow = slow_contrast(theirs, GL, valid, objective.scale.t.exp().item())
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-10)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)
    assert objective.scale.t.grad != 0


def test_the_scale_starts_at_the_paper_s_and_stays_below_its_limit(make_objective):
    objective = make_objective(FILIP)
    assert objective.scale.t.exp().item() == pytest.approx(1 / 0.07, rel=1e-6)
    objective.scale.t.data.fill_(9.0)
    objective.after_step(1)
    assert objective.scale.t.exp().item() == pytest.approx(100, rel=1e-5)


def test_egma_is_filip_and_the_gaze_loss(make_objective):
    images, labels = make_slices()
    egma, filip = make_objective(EGMA), make_objective(FILIP)
    terms = egma(images, labels)
    assert terms["contrast"].item() == filip(images, labels)["total"].item()
    assert terms["total"].item() == pytest.approx((terms["contrast"] + terms["gaze"]).item())
    x, GL, valid = egma._read(images, labels)
    assert terms["gaze"].item() == pytest.approx(slow_gaze_loss(x.double(), GL, valid).item(), rel=1e-5)


def test_similarities_and_gaze_are_those_of_the_model(make_objective):
    images, labels = make_slices(2)
    objective = make_objective(EGMA)
    x, GL, _ = objective._read(images, labels)
    F_I = objective.model.patch_tokens(images)
    F_T = objective.model.prompt_tokens(objective.model.class_prompts())
    h, w = F_I.shape[1:3]
    assert x[1, 2 * w + 5, 3].item() == pytest.approx((F_I[1, 2, 5] @ F_T[3]).item(), abs=1e-6)
    assert GL[1, 2 * w + 5].nonzero().flatten().tolist() == [labels[1, 2 * 8, 5 * 8].item()]
    assert x.shape == GL.shape == (2, h * w, 20)


@pytest.mark.parametrize("kind", [FILIP, EGMA])
def test_unknown_locations_count_for_nothing(kind, make_objective):
    images, labels = make_slices(2)
    labels[:, :, :4] = IGNORE  # half of the first patch of each row
    objective = make_objective(kind)
    tokens = objective.model.patch_tokens(images)
    objective.model.patch_tokens = lambda _: tokens
    before = objective(images, labels)["total"]
    (gradient,) = torch.autograd.grad(before, tokens)
    assert not gradient[:, :, 0].any()
    assert gradient[:, :, 1:].any()
    # A slice of which nothing is known is as if it were not there.
    tokens = torch.cat([tokens, tokens[:1]])
    unknown = torch.cat([labels, torch.full_like(labels[:1], IGNORE)])
    assert objective(images, unknown)["total"].item() == pytest.approx(before.item(), rel=1e-6)


@pytest.mark.parametrize("kind", [FILIP, EGMA])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("fill", [None, 0, IGNORE])
def test_small_and_empty_batches_give_finite_gradients(kind, count, fill, make_objective):
    images, labels = make_slices(count)
    if fill is not None:
        labels.fill_(fill)
    objective = make_objective(kind)
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective(images, labels)
    terms["total"].backward()
    assert all(value.isfinite() and value.dtype == torch.float32 for value in terms.values())
    gradients = [parameter.grad for parameter in objective.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    if fill == IGNORE:
        assert terms["total"] == 0


class ToyModel(nn.Module):
    """Stands in for the encoders: a patch is its mean brightness, a prompt a vector of its own."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 8))
        self.prompts = nn.Parameter(torch.randn(20, 8))

    def class_prompts(self):
        return [""] * 20

    def patch_tokens(self, images):
        brightness = F.avg_pool2d(images, 8).movedim(1, -1)
        return F.normalize(self.patches(brightness), dim=-1)

    def prompt_tokens(self, prompts):
        return F.normalize(self.prompts, dim=-1)


def train(objective, steps):
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    losses = []
    for step in range(1, steps + 1):
        terms = objective(*make_slices(6))
        terms["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step)
        losses.append(terms["total"].item())
    return losses


def test_it_learns_and_gaze_shows_prompts_where_their_classes_are(tiny_settings):
    margins = {}
    for kind in (FILIP, EGMA):
        torch.manual_seed(0)
        objective = kind(ToyModel(), tiny_settings.pretrain)
        losses = train(objective, 120)
        assert losses[-1] < 0.8 * losses[0]
        x, GL, _ = objective._read(*make_slices(6))
        elsewhere = GL.any(1, keepdim=True) & ~GL
        margins[kind] = (x[GL].mean() - x[elsewhere].mean()).item()
    assert margins[EGMA] > margins[FILIP] + 0.2
    assert margins[EGMA] > 0.5


def test_validation_changes_no_state(make_objective):
    objective = make_objective(EGMA).eval()
    before = copy.deepcopy(objective.state_dict())
    with torch.no_grad():
        objective(*make_slices(1))
    assert all(value.equal(before[name]) for name, value in objective.state_dict().items())


def test_its_state_dict_is_the_whole_of_its_state(make_objective):
    objective, resumed = make_objective(EGMA), make_objective(EGMA, seed=5)
    train(objective, 2)
    resumed.load_state_dict(objective.state_dict())
    images, labels = make_slices()
    assert objective(images, labels)["total"].equal(resumed(images, labels)["total"])
