"""BCP: what is pasted where, what each pixel is compared with, and the pieces of a pseudo-label that count."""

from dataclasses import replace

import pytest
import torch
from small_models import random_batch

from CPS4Core.baselines.methods.bcp import (
    ALPHA,
    BCP,
    PRETRAINING,
    largest_components,
    outside_box,
    segmentation_loss,
)
from CPS4Core.baselines.settings import BaselineSettings
from CPS4Core.class_table import IGNORE, NUM_CLASSES
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.methods.method import Batch
from CPS4Core.training.batches import split

SIZE = 12, 24
SETTINGS = TrainSettings(widths=(4, 8), method="bcp")
EVERY_PIECE = SETTINGS.model_copy(update={"baselines": BaselineSettings(bcp={"largest_component": False})})


@pytest.fixture
def method():
    torch.manual_seed(0)
    return BCP(SETTINGS)


def make_batch(labelled=3, unlabelled=3, progress=0.5):
    return random_batch(labelled, unlabelled, progress, SIZE)


def slow_loss(logits, labels):
    """1/2 (CE + Dice) of the known pixels, in float64, read word by word."""
    p = logits.double().softmax(1)
    entropies, overlap, size = [], [0.0] * NUM_CLASSES, [0.0] * NUM_CLASSES
    for image, truth in zip(p, labels, strict=True):
        known = [(i, j) for i, j in (truth != IGNORE).nonzero().tolist()]
        entropies.append(-sum(image[truth[u], u[0], u[1]].log() for u in known) / max(len(known), 1))
        for i, j in known:
            for c in range(NUM_CLASSES):
                t = float(truth[i, j] == c)
                overlap[c] = overlap[c] + image[c, i, j] * t
                size[c] = size[c] + image[c, i, j] ** 2 + t
    dice = sum(1 - (2 * o + 1e-5) / (s + 1e-5) for o, s in zip(overlap, size, strict=True)) / NUM_CLASSES
    return (sum(entropies) / len(entropies) + dice) / 2


def test_the_loss_of_a_part_matches_the_slow_reading_with_its_gradient():
    random = torch.Generator().manual_seed(2)
    logits = torch.randn(2, NUM_CLASSES, 3, 4, generator=random)
    labels = torch.randint(NUM_CLASSES, (2, 3, 4), generator=random)
    labels[0, 1:], labels[1, :, 0] = IGNORE, IGNORE
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    value, expected = segmentation_loss(ours, labels), slow_loss(theirs, labels)
    value.backward()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-7)


def test_the_box_is_two_thirds_of_each_side_and_reaches_every_border():
    corners = set()
    for seed in range(200):
        torch.manual_seed(seed)
        box = ~outside_box(SIZE)
        rows, columns = box.any(1).nonzero()[:, 0], box.any(0).nonzero()[:, 0]
        assert (len(rows), len(columns)) == (8, 16)
        assert box.sum() == 8 * 16
        corners.add((int(rows[0]), int(columns[0])))
    assert {row for row, _ in corners} == set(range(5))
    assert {column for _, column in corners} == set(range(9))


def test_pretraining_pastes_a_box_of_the_slice_before_with_its_labels(method):
    batch = make_batch(progress=PRETRAINING - 1e-6)
    mixed = method.mix(batch)
    assert mixed.pseudo is None
    for i in range(3):
        pasted = mixed.images[i, 0] != batch.labelled[i, 0]
        assert pasted.sum() == 8 * 16
        assert mixed.images[i, 0][pasted].equal(batch.labelled[i - 1, 0][pasted])
        assert mixed.true[i].equal(torch.where(pasted, batch.labels[i - 1], batch.labels[i]))


def test_pretraining_looks_at_no_unlabelled_slice(method):
    batch = make_batch(progress=0.0)
    other = replace(batch, unlabelled=batch.unlabelled + 1)
    torch.manual_seed(3)
    value = method(batch)
    torch.manual_seed(3)
    assert method(other)["total"].equal(value["total"])
    assert set(value) == {"total", "sup"}


def filled(network, value):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def test_student_and_teacher_go_on_from_the_best_network_of_the_pretraining(method):
    for value, score in ((0.1, 0.3), (0.2, 0.5), (0.3, 0.4)):
        filled(method.network, value)
        method.after_validation(score)
    method(make_batch(progress=0.1))
    assert all((parameter == 0.3).all() for parameter in method.network.parameters())
    restored = BCP(SETTINGS)
    restored.load_state_dict(method.state_dict())
    restored.mix(make_batch(progress=PRETRAINING))
    for network in (restored.student, restored.teacher.network):
        assert all((parameter == 0.2).all() for parameter in network.parameters())
    # Once: what comes later stays.
    filled(restored.student, 0.7)
    restored.after_validation(0.9)
    restored.mix(make_batch(progress=0.6))
    assert all((parameter == 0.7).all() for parameter in restored.student.parameters())


def test_without_a_validation_case_the_pretrained_network_goes_on(method):
    filled(method.student, 0.4)
    method.mix(make_batch(progress=PRETRAINING))
    assert all((parameter == 0.4).all() for parameter in method.student.parameters())


def test_the_teacher_normalises_with_the_statistics_of_its_batch(method):
    batch = make_batch()
    method.train()
    alone = method.teacher(batch.unlabelled[:1])
    assert not torch.allclose(method.teacher(batch.unlabelled)[:1], alone)
    assert method.settings.ema_decay == 0.99


def test_each_pair_is_mixed_both_ways_and_each_pixel_has_one_label(method):
    batch = make_batch(progress=PRETRAINING)
    mixed = method.mix(batch)
    y_u = method.pseudo_labels(batch)
    inward, outward = mixed.images[:3, 0], mixed.images[3:, 0]
    M = (inward == batch.labelled[:, 0])[0]
    assert (~M).sum() == 8 * 16
    assert inward.equal(torch.where(M, batch.labelled[:, 0], batch.unlabelled[:, 0]))
    assert outward.equal(torch.where(M, batch.unlabelled[:, 0], batch.labelled[:, 0]))
    ignore = torch.full_like(batch.labels, IGNORE)
    assert mixed.true.equal(
        torch.cat([torch.where(M, batch.labels, ignore), torch.where(M, ignore, batch.labels)])
    )
    assert mixed.pseudo.equal(torch.cat([torch.where(M, ignore, y_u), torch.where(M, y_u, ignore)]))


def test_pseudo_labels_count_half(method):
    torch.manual_seed(4)
    terms = method(make_batch())
    assert ALPHA == 0.5
    torch.testing.assert_close(terms["total"], terms["sup"] + terms["pseudo"] / 2)


def test_the_loss_of_a_mixed_batch_by_hand(method):
    mixed = method.mix(make_batch(1, 1))
    logits = torch.zeros(2, NUM_CLASSES, *SIZE)
    logits[:, 0] = 50.0
    true = torch.where(mixed.true == IGNORE, IGNORE, 0)
    pseudo = torch.where(mixed.pseudo == IGNORE, IGNORE, 1)
    terms = method.terms(logits, mixed._replace(true=true, pseudo=pseudo))
    # All is background: right where the truth is, and where the pseudo-label says class 1, a cross-entropy of 50 and
    # no overlap in the two classes that occur.
    assert terms["sup"].item() == pytest.approx(0, abs=1e-6)
    assert terms["pseudo"].item() == pytest.approx((50 + 2 / NUM_CLASSES) / 2, rel=1e-4)


def test_only_the_largest_piece_of_each_structure_is_kept():
    labels = torch.zeros(2, 5, 7, dtype=torch.long)
    labels[0, 0, :3] = 4
    labels[0, 1, 3] = 4  # touches the piece at a corner
    labels[0, 4, 5:] = 4
    labels[0, 2:4, 5] = 9  # as large as the removed piece, and the only one of its class
    labels[1, 4, :2] = 4  # another slice has its own pieces
    expected = labels.clone()
    expected[0, 4, 5:] = 0
    assert largest_components(labels).equal(expected)
    assert largest_components(torch.zeros(1, 3, 3, dtype=torch.long)).sum() == 0


def test_the_largest_piece_is_a_setting():
    batch = make_batch()
    torch.manual_seed(0)
    every = BCP(EVERY_PIECE).pseudo_labels(batch)
    torch.manual_seed(0)
    largest = BCP(SETTINGS).pseudo_labels(batch)
    assert largest.equal(largest_components(every))
    assert not largest.equal(every)


@pytest.mark.parametrize("progress", [0.0, 0.5])
@pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 1), (3, 2), (2, 3)])
def test_any_numbers_of_slices_give_finite_gradients(method, labelled, unlabelled, progress):
    batch = make_batch(labelled, unlabelled, progress)
    batch.labels[0] = IGNORE
    batch.labels[1:] = 0
    terms = method(batch)
    assert all(term.isfinite() and term.ndim == 0 for term in terms.values())
    terms["total"].backward()
    gradients = [parameter.grad for parameter in method.student.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(parameter.grad is None for parameter in method.teacher.parameters())


def test_a_part_of_a_batch_is_a_batch(method):
    parts = split(make_batch(), 3)
    assert all(method(part)["total"].isfinite() for part in parts)


def test_a_restored_method_goes_on_in_the_same_bits(method):
    def train(method, steps):
        optimizer = torch.optim.SGD(method.student.parameters(), lr=0.1)
        for step in steps:
            torch.manual_seed(step)
            method(make_batch(progress=step / 10))["total"].backward()
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(step)

    train(method, range(1, 4))
    restored = BCP(SETTINGS)
    restored.load_state_dict(method.state_dict())
    for resumed in (method, restored):
        train(resumed, range(4, 7))
    states = zip(method.state_dict().values(), restored.state_dict().values(), strict=True)
    assert all(mine.equal(theirs) for mine, theirs in states)


def test_training_lowers_the_loss_and_the_teacher_learns():
    torch.manual_seed(5)
    method = BCP(SETTINGS.model_copy(update={"ema_decay": 0.9}))
    labels = torch.zeros(4, *SIZE, dtype=torch.long)
    labels[:, 3:9, 6:18] = 5
    images = (labels.float() + torch.randn(4, *SIZE) / 10).unsqueeze(1)
    batch = Batch(images[:2], labels[:2], images[2:])
    optimizer = torch.optim.Adam(method.student.parameters(), lr=0.01)
    losses = []
    for step in range(1, 101):
        terms = method(replace(batch, progress=step / 100))
        terms["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
        losses.append(terms["sup"].item())
    assert losses[-1] < losses[0] / 3
    assert (method.pseudo_labels(batch) == labels[2:]).float().mean() > 0.95
