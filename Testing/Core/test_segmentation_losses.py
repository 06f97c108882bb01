"""Eq. 4-7: pseudo-labels, the mean teacher and the losses."""

import math

import pytest
import torch
from torch import nn

from CPS4Core.class_table import IGNORE
from CPS4Core.segmentation.losses import cross_entropy, dice_loss
from CPS4Core.segmentation.pseudo_labels import MeanTeacher, enhance, keep_confident, ramp


def pixels(*columns):
    """Return (classes, 1, pixels) from one list of class values a pixel."""
    return torch.tensor(columns, dtype=torch.float32).T.unsqueeze(1)


def test_enhance_by_hand():
    p_t = pixels([0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.98, 0.01, 0.01], [0.4, 0.25, 0.35])
    text = pixels([0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 0], [0, 1, 0]).bool()
    # No map set: the teacher. Two set: log 0.3 + 1 > log 0.6. All set: the teacher. One set: it is overruled by a
    # teacher of 99 %, and decides where the teacher is unsure.
    assert enhance(p_t.log(), text).tolist() == [[0, 1, 1, 0, 1]]
    assert enhance(p_t.log() + 7, text).equal(enhance(p_t.log(), text))
    # Of probabilities and maps, one that is set alone wins even there.
    assert enhance(p_t.log(), text, "probabilities").tolist() == [[0, 1, 1, 1, 1]]
    # The text's softmax of one set map: 1, e, 1 over e + 2, so 0.364 more for it.
    assert enhance(p_t.log(), text, "softmax").tolist() == [[0, 2, 1, 0, 1]]
    # A tenth of the teacher: log(0.98) / 10 < log(0.01) / 10 + 1.
    assert enhance(p_t.log(), text, teacher_weight=0.1).tolist() == [[0, 1, 1, 1, 1]]
    literal, normalised = (enhance(p_t.log(), text, kind)[:, 0, 1] for kind in ("literal", "normalised"))
    torch.testing.assert_close(literal, torch.tensor([1.1, 1.3, 0.6]))
    torch.testing.assert_close(normalised, torch.tensor([1.1, 1.3, 0.6]) / 3)


def test_pixels_of_which_nobody_is_sure_do_not_count():
    certainty = pixels([0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.1, 0.8, 0.3])
    assert keep_confident(torch.tensor([[0, 1, 1]]), certainty, 0.6).tolist() == [[0, IGNORE, 1]]
    assert keep_confident(torch.tensor([[1, 1, 0]]), certainty, 0.6).tolist() == [[IGNORE] * 3]
    weights = torch.ones(3, 1, 3)
    assert keep_confident(weights, certainty, 0.6).sum(0).tolist() == [[3, 0, 3]]
    assert keep_confident(weights, certainty, 0.0).equal(weights)


def test_a_pixel_counts_as_much_as_it_weighs():
    logits = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(8))
    labels = torch.tensor([[[0, 1], [2, IGNORE]]]).repeat(2, 1, 1)
    weight = torch.tensor([[[1.0, 0.5], [0.0, 9.0]]]).repeat(2, 1, 1)
    p = logits.log_softmax(1)
    # Three pixels are known; the last weighs nothing, whatever is written there.
    expected = -(p[:, 0, 0, 0] + 0.5 * p[:, 1, 0, 1]) / 3
    torch.testing.assert_close(cross_entropy(logits, labels, weight), expected.mean())
    torch.testing.assert_close(
        cross_entropy(logits, labels, torch.ones(2, 2, 2)), cross_entropy(logits, labels)
    )


def test_the_literal_sum_is_the_sum_of_both_cross_entropies():
    random = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 4, 3, 3, generator=random, dtype=torch.float64)
    z_t = torch.randn(2, 4, 3, 3, generator=random, dtype=torch.float64)
    text = torch.nn.functional.one_hot(torch.randint(4, (2, 3, 3), generator=random), 4).movedim(-1, 1)
    both = 0.1 * cross_entropy(logits, z_t.softmax(1)) + cross_entropy(logits, text.double())
    torch.testing.assert_close(cross_entropy(logits, enhance(z_t, text, "literal", 0.1)), both)


def slow_cross_entropy(logits, labels):
    """Eq. 5-7, read word by word, without the minus that a cross-entropy has already."""
    images = []
    for image, truth in zip(logits, labels, strict=True):
        terms = [
            -torch.log_softmax(image[:, i, j], 0)[truth[i, j]]
            for i in range(truth.shape[0])
            for j in range(truth.shape[1])
            if truth[i, j] != IGNORE
        ]
        images.append(sum(terms) / len(terms))
    return sum(images) / len(images)


def test_cross_entropy_matches_the_slow_reading_with_its_gradient():
    random = torch.Generator().manual_seed(6)
    logits = torch.randn(2, 5, 3, 4, generator=random)
    labels = torch.randint(5, (2, 3, 4), generator=random)
    labels[0, 0] = IGNORE
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    cross_entropy(ours, labels).backward()
    slow_cross_entropy(theirs, labels).backward()
    assert cross_entropy(ours, labels).item() == pytest.approx(
        slow_cross_entropy(theirs, labels).item(), rel=1e-6
    )
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-8)


def test_a_uniform_prediction_costs_the_logarithm_of_the_classes():
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    assert cross_entropy(torch.zeros(1, 20, 2, 2), labels).item() == pytest.approx(math.log(20))


def test_dice_loss_is_zero_for_a_perfect_and_near_one_for_a_wrong_prediction():
    labels = torch.randint(3, (2, 8, 8), generator=torch.Generator().manual_seed(7))
    right = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) * 50.0
    assert dice_loss(right, labels).item() == pytest.approx(0, abs=1e-4)
    assert dice_loss(right.roll(1, 1), labels).item() > 0.99


def test_the_teacher_is_the_moving_average_of_the_student():
    student = nn.Linear(1, 1, bias=False)
    student.weight.data.fill_(0.0)
    teacher = MeanTeacher(student, decay=0.99)
    weight = 0.0
    for step in range(1, 300):
        student.weight.data.fill_(float(step))
        teacher.follow(student, step)
        keep = min(1 - 1 / (step + 1), 0.99)
        weight = keep * weight + (1 - keep) * step
        assert teacher.network.weight.item() == pytest.approx(weight, rel=1e-5)


def test_the_teacher_averages_statistics_and_stays_in_evaluation_mode():
    student = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
    teacher = MeanTeacher(student, decay=0.5).train()
    assert not teacher.network.training
    student(torch.randn(4, 1, 5, 5) + 3)
    teacher.follow(student, 10)
    expected = student[1].running_mean / 2
    torch.testing.assert_close(teacher.network[1].running_mean, expected)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_consistency_ramp():
    assert ramp(0.0, 1.0) == pytest.approx(math.exp(-5))
    assert ramp(0.5, 1.0) == pytest.approx(math.exp(-1.25))
    assert ramp(0.25, 0.5) == pytest.approx(math.exp(-1.25))
    assert ramp(0.5, 0.5) == ramp(1.0, 0.5) == ramp(0.0, 0.0) == 1
