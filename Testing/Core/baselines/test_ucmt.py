"""UCMT: the mixing of images where students are unsure, and the loss of a step read word by word in float64."""

import copy
import math

import pytest
import torch

from CPS4Core.baselines.methods.ucmt import UCMT, by_uncertainty, replace_patches
from CPS4Core.baselines.settings import BaselineSettings
from CPS4Core.class_table import IGNORE, NUM_CLASSES
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.methods.method import Batch


def make_method(seed=0, **options):
    torch.manual_seed(seed)
    return UCMT(TrainSettings(widths=(4, 8), baselines=BaselineSettings(ucmt=options)))


def make_batch(n=2, m=3, size=(16, 24), seed=1, progress=0.5):
    """Blobs of a few classes whose brightness tells them apart."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(4, (n + m, 4, 4), generator=random).float().unsqueeze(1)
    truth = torch.nn.functional.interpolate(coarse, size=size).squeeze(1).long()
    images = truth.unsqueeze(1) + 0.1 * torch.randn(n + m, 1, *size, generator=random)
    return Batch(images[:n], truth[:n], images[n:], progress=progress)


def gradient_of(total, parameters):
    return torch.autograd.grad(total, parameters, retain_graph=True)


def slow_dice(logits, target):
    """One minus the Dice of each class over all known pixels, averaged over the classes."""
    known = target != IGNORE
    probabilities = logits.double().softmax(1).movedim(1, -1)[known]
    target = target[known]
    losses = []
    for k in range(NUM_CLASSES):
        overlap = probabilities[:, k][target == k].sum()
        size = probabilities[:, k].square().sum() + (target == k).sum()
        losses.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
    return sum(losses) / NUM_CLASSES


def slow_order(logits, teacher):
    """The 16 patches of each image by mean entropy, the surest first."""
    orders = []
    for student_p, teacher_p in zip(logits.detach().double().softmax(1), teacher.double(), strict=True):
        p = (student_p + teacher_p) / 2
        entropy = -(p * p.log()).sum(0)
        h, w = entropy.shape[0] // 4, entropy.shape[1] // 4
        means = [
            entropy[i * h : (i + 1) * h, j * w : (j + 1) * w].mean().item()
            for i in range(4)
            for j in range(4)
        ]
        orders.append(sorted(range(16), key=means.__getitem__))
    return orders


def slow_mix(values, order, other_order, n, same_place=False):
    """Replace, in each image, the two patches of largest entropy."""
    mixed = values.clone()
    h, w = values.shape[-2] // 4, values.shape[-1] // 4
    for b in range(len(values)):
        start, count = (0, n) if b < n else (n, len(values) - n)
        after = start + (b - start + 1) % count
        for rank in range(2):
            old = order[b][-1 - rank]
            new = old if same_place else other_order[after][rank]
            (i, j), (p, q) = divmod(old, 4), divmod(new, 4)
            piece = values[after, ..., p * h : (p + 1) * h, q * w : (q + 1) * w]
            mixed[b, ..., i * h : (i + 1) * h, j * w : (j + 1) * w] = piece
    return mixed


def slow_total(method, batch, same_place=False):
    """Both steps, student by student."""
    n = len(batch.labelled)
    x = torch.cat([batch.labelled, batch.unlabelled])
    y, y_t = [method.student(x), method.second(x)], method.teacher(x)
    weight = 0.1 * math.exp(-5 * (1 - batch.progress) ** 2)
    total = 0
    for me, network in enumerate([method.student, method.second]):
        mine, other = y[me], y[1 - me]
        cross = torch.cat([batch.labels, other.argmax(1)[n:]])
        taught = torch.cat([batch.labels, y_t.argmax(1)[n:]])
        orders = slow_order(mine, y_t), slow_order(other, y_t)
        mixed = [slow_mix(each, *orders, n, same_place) for each in (x, cross, taught)]
        for logits, labels_cross, labels_taught in (
            (mine, cross, taught),
            (network(mixed[0]), mixed[1], mixed[2]),
        ):
            cps, mts = (slow_dice(logits[n:], labels[n:]) for labels in (labels_cross, labels_taught))
            total = total + slow_dice(logits[:n], labels_cross[:n]) + weight * (cps + mts) / 2
    return total


def test_patches_are_replaced_by_hand():
    values = torch.zeros(1, 9, 18, dtype=torch.long)  # patches of 2 x 4, and pixels that are in none
    others = torch.arange(9 * 18).reshape(1, 9, 18)
    mixed = replace_patches(values, torch.tensor([[5, 15]]), others, torch.tensor([[2, 5]]))
    expected = torch.zeros(9, 18, dtype=torch.long)
    expected[2:4, 4:8] = others[0, 0:2, 8:12]
    expected[6:8, 12:16] = others[0, 2:4, 4:8]
    assert mixed[0].equal(expected)
    assert not values.any()


def test_patches_are_sorted_by_the_entropy_of_student_and_teacher_together():
    # Two classes. Each patch's student probability of the first; the teacher is sure of the first.
    student = torch.linspace(0.01, 0.99, 16)
    logits = torch.stack([student.log(), (1 - student).log()]).reshape(1, 2, 4, 4)
    logits = logits.repeat_interleave(2, 2).repeat_interleave(3, 3)
    teacher = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 8, 12)
    # Their mean is between one half, where the student says the second, and one.
    assert by_uncertainty(logits, teacher).tolist() == [list(range(15, -1, -1))]


@pytest.mark.parametrize("same_place", [False, True])
def test_the_loss_matches_the_slow_reading_with_its_gradient(same_place):
    method, batch = make_method(same_place=same_place), make_batch(3, 4)
    batch.labels[0, :5] = IGNORE
    method.teacher.network.load_state_dict(make_method(seed=5).student.state_dict())
    fast, slow = method(batch)["total"], slow_total(method, batch, same_place)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-6)
    students = [*method.student.parameters(), *method.second.parameters()]
    for ours, theirs in zip(gradient_of(fast, students), gradient_of(slow, students), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_terms_add_up_and_pseudo_labels_gain_weight():
    method = make_method()
    early, late = (method(make_batch(progress=progress)) for progress in (0.0, 1.0))
    for terms, weight in ((early, 0.1 * math.exp(-5)), (late, 0.1)):
        step_1 = terms["sup"] + weight * (terms["cps"] + terms["mts"]) / 2
        assert terms["total"].item() == pytest.approx((step_1 + terms["mixed"]).item(), rel=1e-6)
    assert all(value.shape == () for value in late.values())


def test_in_the_same_place_no_anatomy_moves():
    batch = make_batch(n=2, m=2)
    x = torch.cat([batch.labelled, batch.unlabelled]).squeeze(1)
    order, other = (torch.stack([torch.randperm(16) for _ in x]) for _ in range(2))
    (mixed,) = make_method(same_place=True)._mix(2, [x], order, other)
    after = x[[1, 0, 3, 2]]
    assert ((mixed == x) | (mixed == after)).all()
    assert [(mixed[b] != x[b]).sum().item() for b in range(4)] == [2 * 4 * 6] * 4
    (moved,) = make_method()._mix(2, [x], order, other)
    assert not ((moved == x) | (moved == after)).all()


def test_the_teacher_follows_the_first_student_and_gets_no_gradient():
    method = make_method()
    method(make_batch())["total"].backward()
    assert all(each.grad is None for each in method.teacher.parameters())
    assert all(each.grad is not None for each in [*method.student.parameters(), *method.second.parameters()])
    with torch.no_grad():
        for each in method.student.parameters():
            each.fill_(2.0)
        for each in method.second.parameters():
            each.fill_(70.0)
    before = [each.clone() for each in method.teacher.network.parameters()]
    method.after_step(1000)
    for old, new in zip(before, method.teacher.network.parameters(), strict=True):
        torch.testing.assert_close(new, 0.99 * old + 0.01 * 2.0)
    assert method.network is method.student


def test_the_students_start_apart_but_take_the_same_trained_weights():
    method = make_method()
    pairs = list(zip(method.student.parameters(), method.second.parameters(), strict=True))
    assert any(not first.equal(second) for first, second in pairs)
    method.start_from(make_method(seed=9).student.state_dict())
    assert all(first.equal(second) for first, second in pairs)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("labels", ["some ignored", "all ignored", "background"])
def test_small_and_empty_batches_give_finite_gradients(sizes, labels):
    method, batch = make_method(), make_batch(*sizes, size=(14, 22))
    if labels == "background":
        batch.labels.zero_()
    else:
        batch.labels[:, : 5 if labels == "some ignored" else None] = IGNORE
    method(batch)["total"].backward()
    gradients = [each.grad for each in method.parameters() if each.requires_grad]
    assert all(each.isfinite().all() for each in gradients)


def test_half_precision_gives_nearly_the_same_loss():
    method, batch = make_method(), make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        terms = method(batch)
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert terms["total"].item() == pytest.approx(method(batch)["total"].item(), rel=0.05)


def train(method, steps, first=1):
    optimizer = torch.optim.Adam([each for each in method.parameters() if each.requires_grad], lr=0.02)
    losses = []
    for step in range(first, first + steps):
        terms = method(make_batch(1, 1, size=(16, 16)))
        terms["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
        losses.append(terms["sup"].item())
    return losses


def test_its_state_dict_is_the_whole_of_its_state():
    whole = make_method()
    train(whole, 3)
    resumed = make_method(seed=7)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for method in (whole, resumed):
        train(method, 2, first=4)
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name


def test_it_learns():
    losses = train(make_method(), 40)
    assert losses[-1] < 0.6 * losses[0]
