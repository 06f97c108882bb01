"""DuSSS: the supervised similarity and the contrasts of its pretraining, and the pseudo-label of its stage 2."""

import copy
import math

import pytest
import torch

from CPS4Core.baselines.methods.dusss import DuSSSSegmentation, merge
from CPS4Core.baselines.objectives import dusss
from CPS4Core.baselines.objectives.dusss import DuSSS, Gaussians, contrast, similarity
from CPS4Core.class_table import IGNORE, class_name
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.losses import cross_entropy
from CPS4Core.segmentation.methods.method import Batch, TextTargets
from CPS4Core.segmentation.pseudo_labels import ramp
from CPS4Core.vision_language.model import build_model


def random_gaussians(rows, seed, captions):
    random = torch.Generator().manual_seed(seed)
    mean = torch.randn(rows, 6, generator=random, dtype=torch.float64)
    deviation = torch.rand(rows, 6, generator=random, dtype=torch.float64) + 0.2
    return Gaussians(mean / mean.norm(dim=1, keepdim=True), deviation, torch.tensor(captions))


def with_gradient(gaussians, dtype):
    mean, deviation = (tensor.to(dtype).requires_grad_() for tensor in gaussians[:2])
    return Gaussians(mean, deviation, gaussians.caption)


def slow_similarity(mu_p, sigma_p, mu_q, sigma_q):
    """1 - (1 - cos) exp(-lambda D_u / D_s), read word by word, D_u by the covariances of the two Gaussians."""
    D_s = (mu_p - mu_q).norm()
    covariance_p, covariance_q = sigma_p**2, sigma_q**2
    trace = (covariance_p + covariance_q - 2 * (covariance_p * covariance_q).sqrt()).sum()
    D_u = (D_s**2 + trace).sqrt()
    cos = mu_p @ mu_q / (mu_p.norm() * mu_q.norm())
    return 1 - (1 - cos) * torch.exp(-dusss.LAMBDA * D_u / D_s)


def slow_contrast(query, key):
    losses = []
    for mu_i, sigma_i, caption_i in zip(*query, strict=True):
        s = [
            slow_similarity(mu_i, sigma_i, mu_j, sigma_j) / dusss.TEMPERATURE
            for mu_j, sigma_j in zip(key.mean, key.deviation, strict=True)
        ]
        everything = torch.stack(s).logsumexp(0)
        right = [s_j for s_j, caption_j in zip(s, key.caption, strict=True) if caption_j == caption_i]
        losses.append(sum(everything - s_j for s_j in right) / len(right))
    return sum(losses) / len(losses)


def test_similarity_by_hand():
    caption = torch.zeros(1)
    p = Gaussians(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]), caption)
    q = Gaussians(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 2.0]]), caption)
    # cos = 0, D_s^2 = 2, D_u^2 = 2 + 1
    assert similarity(p, q).item() == pytest.approx(1 - math.exp(-math.sqrt(3 / 2)))
    assert similarity(p, p._replace(deviation=q.deviation)).item() == pytest.approx(1, abs=1e-5)


def test_an_uncertain_pair_is_held_to_be_more_alike():
    p, q = random_gaussians(1, 1, [0]), random_gaussians(1, 2, [0])
    values = [similarity(p, q._replace(deviation=p.deviation + more)).item() for more in (0, 0.5, 1, 5)]
    assert values == sorted(values)
    assert values[0] < values[-1] - 0.1


def test_the_contrast_matches_the_slow_reading_with_its_gradient():
    query, key = random_gaussians(3, 3, [0, 1, 1]), random_gaussians(5, 4, [1, 0, 0, 2, 1])
    ours, theirs = (
        (with_gradient(query, dtype), with_gradient(key, dtype)) for dtype in (torch.float32, torch.float64)
    )
    loss, expected = contrast(*ours), slow_contrast(*theirs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for mine, its in zip(ours, theirs, strict=True):
        # The cosine of the slow reading holds for vectors of any length: compare where both are of length one.
        along = (its.mean.grad * its.mean.detach()).sum(1, keepdim=True) * its.mean.detach()
        mine_along = (mine.mean.grad * mine.mean.detach()).sum(1, keepdim=True) * mine.mean.detach()
        across = its.mean.grad - along
        torch.testing.assert_close((mine.mean.grad - mine_along).double(), across, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.deviation.grad.double(), its.deviation.grad, rtol=1e-4, atol=1e-5)


def test_a_contrast_without_negatives_costs_the_logarithm_of_the_positives():
    same = random_gaussians(1, 5, [3])
    keys = Gaussians(same.mean.expand(4, -1), same.deviation.expand(4, -1), torch.full((4,), 3))
    assert contrast(same, same).item() == pytest.approx(0)
    assert contrast(same, keys).item() == pytest.approx(math.log(4))


def test_equal_means_have_finite_gradients():
    p = with_gradient(random_gaussians(3, 6, [0, 1, 2]), torch.float32)
    contrast(p, p._replace(deviation=p.deviation + 1e-3)).backward()
    assert p.mean.grad.isfinite().all()
    assert p.deviation.grad.isfinite().all()


def make_objective(settings, **changes):
    torch.manual_seed(0)
    model = build_model(settings.encoders, settings.input.size)
    return DuSSS(model, settings.pretrain.model_copy(update=changes))


@pytest.fixture
def objective(tiny_settings):
    return make_objective(tiny_settings, text_learning_rate=None)


def slices(size):
    """Four slices of three captions, each structure as bright as its number."""
    labels = torch.zeros(4, *size, dtype=torch.long)
    labels[0, :16], labels[1, 16:], labels[2, :, :20] = 3, 12, 8
    labels[3, :12] = 3
    labels[0, 0] = IGNORE
    noise = torch.randn(4, 1, *size, generator=torch.Generator().manual_seed(7))
    return (labels * (labels != IGNORE)).unsqueeze(1) / 6 + 0.1 * noise, labels


def test_the_total_weighs_the_terms_as_published(objective, tiny_settings):
    terms = objective(*slices(tiny_settings.input.size))
    four = sum(terms[name] for name in ("i2t", "t2i", "i2i", "t2t"))
    local = terms["i2i_local"] + terms["t2t_local"]
    masked = terms["masked_feature"] + terms["masked_image"]
    torch.testing.assert_close(terms["total"], (four + 0.2 * local) / 6 + 0.1 * masked)
    assert len(terms) == 9


def test_queries_come_from_the_model_and_keys_from_its_momentum_copy(objective, tiny_settings):
    images, labels = slices(tiny_settings.input.size)
    captions = [f"A magnetic resonance image of {class_name(k)}." for k in (3, 12, 8)]
    with torch.no_grad():
        for weight in (objective.momentum.project_patch.weight, objective.momentum.project_prompt.weight):
            weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(9)) / 10

        def gaussians(mean, head, caption):
            return Gaussians(mean.double(), head(mean).exp().double(), torch.tensor(caption))

        both = (objective.model, objective.momentum)
        image, image_key = (
            gaussians(model.image_tokens(images)[0], objective.image_log_deviation, [0, 1, 2, 0])
            for model in both
        )
        text, text_key = (
            gaussians(model.prompt_tokens(captions), objective.text_log_deviation, [0, 1, 2])
            for model in both
        )
        terms = objective(images, labels)
    expected = {
        "i2t": slow_contrast(image, text_key),
        "t2i": slow_contrast(text, image_key),
        "i2i": slow_contrast(image, image_key),
        "t2t": slow_contrast(text, text_key),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-3), name


def test_gradients_reach_projections_and_heads_but_not_the_momentum_copy(objective, tiny_settings):
    objective(*slices(tiny_settings.input.size))["total"].backward()
    for trained in (
        objective.model.project_patch.weight,
        objective.model.project_prompt.weight,
        objective.model.vision.model.patch_embed.proj.weight,
        objective.image_log_deviation.weight,
        objective.text_log_deviation.weight,
    ):
        assert trained.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in objective.momentum.parameters())


def test_the_momentum_copy_follows_by_a_two_hundredth_and_has_no_dropout(objective):
    assert objective.train().model.training
    assert not objective.momentum.training
    weight, copied = objective.model.project_patch.weight, objective.momentum.project_patch.weight
    before = copied.clone()
    assert before.equal(weight)
    with torch.no_grad():
        weight += 1
    objective.after_step(1)
    torch.testing.assert_close(copied, before + 0.005)
    objective.after_step(2)
    torch.testing.assert_close(copied, before + 1 - 0.995**2)


def test_only_a_text_encoder_that_trains_has_a_copy(objective, tiny_settings):
    assert objective.momentum.text is not objective.model.text
    frozen = make_objective(tiny_settings, text_learning_rate=0)
    assert frozen.momentum.text is frozen.model.text
    assert frozen.momentum.vision is not frozen.model.vision
    before = copy.deepcopy(frozen.model.text.state_dict())
    frozen.after_step(1)
    assert all(tensor.equal(before[name]) for name, tensor in frozen.model.text.state_dict().items())


def test_keys_are_the_words_between_the_marks_and_all_patches(objective, tiny_settings):
    captions = ["An image of Sacrum.", "image."]
    whole, words = objective._text_keys(captions, torch.arange(2))
    assert words.caption.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert whole.caption.tolist() == [0, 1]
    torch.testing.assert_close(whole.mean, objective.model.prompt_tokens(captions))
    _, patches = objective._image_keys(torch.randn(2, 1, *tiny_settings.input.size), torch.tensor([1, 0]))
    assert patches.caption.tolist() == [1] * 32 + [0] * 32
    torch.testing.assert_close(patches.mean.norm(dim=1), torch.ones(64))


def test_masking_hides_patches_of_the_image_and_of_the_tokens(objective, tiny_settings, monkeypatch):
    images, _ = slices(tiny_settings.input.size)
    whole, patches = objective.model.image_tokens(images)
    monkeypatch.setattr(dusss, "MASKED_SHARE", 0.0)
    masked, left = objective._masked(images, patches)
    torch.testing.assert_close(masked, whole)
    torch.testing.assert_close(left, torch.nn.functional.normalize(patches.sum((1, 2)), dim=-1))
    monkeypatch.setattr(dusss, "MASKED_SHARE", 1.0)
    masked, left = objective._masked(images, patches)
    torch.testing.assert_close(masked, objective.model.image_tokens(torch.zeros_like(images))[0])
    assert left.abs().sum() == 0
    monkeypatch.setattr(dusss, "MASKED_SHARE", 0.5)
    shown = []
    monkeypatch.setattr(objective.model, "image_tokens", lambda tokens: shown.append(tokens) or [whole])
    objective._masked(torch.ones_like(images), patches)
    means = torch.nn.functional.avg_pool2d(shown[0], 8)
    assert set(means.unique().tolist()) == {0.0, 1.0}  # whole patches
    assert 0.3 < means.mean() < 0.7


@pytest.mark.parametrize("case", ["one slice", "nothing known", "no structure", "half precision"])
def test_the_objective_bears_poor_batches(objective, tiny_settings, case):
    images, labels = slices(tiny_settings.input.size)
    if case == "one slice":
        images, labels = images[:1], labels[:1]
    elif case == "nothing known":
        labels = torch.full_like(labels, IGNORE)
    elif case == "no structure":
        labels = torch.zeros_like(labels)
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "half precision"):
        total = objective(images, labels)["total"]
    total.backward()
    assert total.dtype == torch.float32
    assert total.isfinite()
    gradients = [parameter.grad for parameter in objective.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_half_precision_changes_the_loss_by_little(objective, tiny_settings):
    batch = slices(tiny_settings.input.size)
    values = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values.append(objective(*batch)["total"].item())
    assert values[0] == pytest.approx(values[1], abs=0.05)


def optimise(objective, batch, steps, first=0):
    optimizer = torch.optim.Adam(
        [parameter for parameter in objective.parameters() if parameter.requires_grad], lr=3e-3
    )
    losses = []
    for step in range(first, first + steps):
        torch.manual_seed(step)
        terms = objective.train()(*batch)
        terms["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step + 1)
        losses.append(terms["total"].item())
    return losses


def test_validation_changes_no_state_and_the_state_dict_is_all_of_it(objective, tiny_settings):
    batch = slices(tiny_settings.input.size)
    optimise(objective, batch, 3)
    state = copy.deepcopy(objective.state_dict())
    with torch.no_grad():
        objective.eval()(*batch)
    assert all(tensor.equal(state[name]) for name, tensor in objective.state_dict().items())
    other = make_objective(tiny_settings, text_learning_rate=None)
    other.load_state_dict(state)
    assert optimise(objective, batch, 3, first=3) == optimise(other, batch, 3, first=3)


def test_training_lowers_the_loss_and_finds_each_slice_its_caption(tiny_settings, monkeypatch):
    encoders = tiny_settings.encoders.model_copy(update={"text_token": "mean"})
    objective = make_objective(
        tiny_settings.model_copy(update={"encoders": encoders}), text_learning_rate=None
    )
    with torch.no_grad():  # random words are nearly one word
        objective.model.text.model.embeddings.word_embeddings.weight *= 20
    objective.model.centre_prompts()
    objective.momentum.load_state_dict(objective.model.state_dict())
    monkeypatch.setattr(dusss, "MOMENTUM", 0.9)
    batch = slices(tiny_settings.input.size)
    losses = optimise(objective, batch, 60)
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        terms = objective.eval()(*batch)
    assert terms["i2t"] < 0.3
    assert terms["t2i"] < 0.7 * math.log(4)


# Stage 2


def test_the_merged_pseudo_label_by_hand():
    teacher = torch.tensor([0.3, 0.5, 0.2]).reshape(1, 3, 1, 1)
    text = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    raised = 0.3 * math.e / (0.3 * math.e + 0.7)  # odds of 3 : 7, times e
    expected = torch.tensor([raised, 0.5, 0.2]) / (raised + 0.7)
    torch.testing.assert_close(merge(teacher, text).flatten(), expected)
    torch.testing.assert_close(merge(teacher, torch.zeros_like(text)), teacher)


def test_with_two_classes_a_class_gets_the_sigmoid_of_logit_and_text():
    z = torch.linspace(-4, 4, 9).reshape(1, 1, 3, 3)
    text = (torch.arange(9).reshape(1, 1, 3, 3) % 2).float()
    probabilities = torch.cat([-z, z], 1).div(2).softmax(1)
    merged = merge(probabilities, torch.cat([torch.zeros_like(text), text], 1))
    foreground, background = torch.sigmoid(z + text), torch.sigmoid(-z)
    torch.testing.assert_close(merged[:, 1:], foreground / (foreground + background))


def test_text_decides_where_the_teacher_is_unsure_and_yields_where_it_is_sure():
    teacher = torch.tensor([[0.4, 0.35, 0.25], [1.0000001, 0.0, 0.0]]).T.reshape(1, 3, 1, 2)
    text = torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2).bool()
    merged = merge(teacher, text)
    assert merged.argmax(1).flatten().tolist() == [1, 0]
    assert merged.isfinite().all()
    torch.testing.assert_close(merged.sum(1), torch.ones(1, 1, 2))


def make_batch(labelled=2, unlabelled=2, trust=1.0, **changes):
    random = torch.Generator().manual_seed(8)
    labels = torch.randint(20, (labelled, 8, 16), generator=random)
    labels[0, 0] = IGNORE
    text_labels = torch.randint(20, (unlabelled, 8, 16), generator=random)
    maps = torch.nn.functional.one_hot(text_labels, 20).movedim(-1, 1) * 0.5
    return Batch(
        labelled=torch.randn(labelled, 1, 8, 16, generator=random),
        labels=labels,
        unlabelled=torch.randn(unlabelled, 1, 8, 16, generator=random),
        text_targets=TextTargets(maps, text_labels, torch.full(text_labels.shape, trust), certainty=maps),
        **changes,
    )


def make_method(**changes):
    torch.manual_seed(0)
    return DuSSSSegmentation(TrainSettings(widths=(4, 8), **changes))


def test_the_segmentation_loss_is_the_sum_of_its_terms():
    method = make_method(text_weight=0.8, ramp=1.0).eval()
    batch = make_batch(trust=0.5, progress=0.3)
    terms = method(batch)
    logits = method.student(batch.unlabelled)
    target = merge(
        method.student(batch.unlabelled).softmax(1), batch.text.maps
    )  # a new teacher is the student
    supervised = cross_entropy(method.student(batch.labelled), batch.labels)
    text, merged = 0.5 * cross_entropy(logits, batch.text.labels), cross_entropy(logits, target.detach())
    torch.testing.assert_close(terms["merged_semi"], merged)
    torch.testing.assert_close(terms["total"], supervised + ramp(0.3, 1.0) * (0.8 * text + merged) / 2)


@pytest.mark.parametrize(
    "case", ["one each", "more unlabelled", "nothing known", "no text", "half precision"]
)
def test_the_segmentation_bears_poor_batches(case):
    method = make_method()
    batch = make_batch(*{"one each": (1, 1), "more unlabelled": (1, 3)}.get(case, (2, 2)))
    if case == "nothing known":
        batch.labels.fill_(IGNORE)
    elif case == "no text":
        batch.text.maps.zero_()
        batch.text.labels.zero_()
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "half precision"):
        total = method(batch)["total"]
    total.backward()
    assert total.dtype == torch.float32
    assert total.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in method.student.parameters())
    assert all(parameter.grad is None for parameter in method.teacher.parameters())


def test_segmentation_training_lowers_the_loss_and_resumes_to_the_same_bits():
    batch, method = make_batch(), make_method()
    losses = segment(method, batch, range(1, 31))
    resumed = make_method()
    resumed.load_state_dict(copy.deepcopy(method.state_dict()))
    last = segment(method, batch, range(31, 34))
    assert segment(resumed, batch, range(31, 34)) == last
    assert last[-1] < 0.9 * losses[0]


def segment(method, batch, steps):
    losses = []
    for step in steps:
        total = method(batch)["total"]
        total.backward()
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter -= 0.2 * parameter.grad
                parameter.grad = None
        method.after_step(step)
        losses.append(total.item())
    return losses
