"""UCMT: the mixing of images where students are unsure, and the loss of a step read word by word in float64."""

import copy
import math

import pytest
import torch

from CPS4Core.baselines.methods import ucmt
from CPS4Core.baselines.methods.ucmt import GRID, UCMT, by_uncertainty, swap_patches, view
from CPS4Core.class_table import IGNORE, NUM_CLASSES
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.methods.method import Batch


def make_method(seed=0):
    torch.manual_seed(seed)
    return UCMT(TrainSettings(widths=(4, 8)))


def make_batch(n=2, m=3, size=(32, 48), seed=1, progress=0.5):
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
    """The 256 patches of each image by mean entropy, the surest first."""
    orders = []
    for student_p, teacher_p in zip(logits.detach().double().softmax(1), teacher.double(), strict=True):
        p = (student_p + teacher_p) / 2
        entropy = -(p * p.log()).sum(0)
        h, w = entropy.shape[0] // 16, entropy.shape[1] // 16
        means = [
            entropy[i * h : (i + 1) * h, j * w : (j + 1) * w].mean().item()
            for i in range(16)
            for j in range(16)
        ]
        orders.append(sorted(range(256), key=means.__getitem__))
    return orders


def slow_swap(values, order_1, order_2):
    """Of each image, two patches are replaced for the first student, and then two for the second."""
    mixed = values.clone()
    h, w = values.shape[-2] // 16, values.shape[-1] // 16
    for b in range(len(values)):
        for mine, others in ((order_1[b], order_2[b]), (order_2[b], order_1[b])):
            before = mixed[b].clone()
            for rank in range(2):
                (i, j), (p, q) = divmod(mine[-1 - rank], 16), divmod(others[rank], 16)
                piece = before[p * h : (p + 1) * h, q * w : (q + 1) * w]
                mixed[b, i * h : (i + 1) * h, j * w : (j + 1) * w] = piece
    return mixed


def slow_total(method, batch, x_1, x_2):
    """Both steps, student by student; x_1 are the first student's views of all slices, x_2 those of the second."""
    n = len(batch.labelled)
    x = torch.cat([batch.labelled, batch.unlabelled])
    y_1 = method.student(torch.cat([batch.labelled, x_1[n:]]))
    y_2 = method.second(torch.cat([batch.labelled, x_2[n:]]))
    y_t = method.teacher(x)
    taught = torch.cat([batch.labels, y_t.argmax(1)[n:]])
    orders = slow_order(y_1, y_t), slow_order(y_2, y_t)
    mixed, mixed_taught = slow_swap(x_1[:, 0], *orders).unsqueeze(1), slow_swap(taught, *orders)
    ramped = min(1.0, batch.progress / 0.2)
    weight = 0.1 * math.exp(-5 * (1 - ramped) ** 2)
    total = 0
    for one, two, labels in (
        (y_1, y_2, taught),
        (method.student(mixed), method.second(mixed), mixed_taught),
    ):
        for mine, other in ((one, two), (two, one)):
            cps, mts = slow_dice(mine[n:], other.argmax(1)[n:]), slow_dice(mine[n:], labels[n:])
            total = total + slow_dice(mine[:n], labels[:n]) + weight * (cps + mts) / 2
    return total


def test_patches_are_swapped_within_the_image_by_hand():
    image = torch.arange(33 * 50).reshape(1, 33, 50)  # patches of 2 x 3, and pixels that are in none
    rest = [k for k in range(GRID**2) if k not in (0, 1, 18, 255)]
    order_1 = torch.tensor([[0, 1, *rest, 18, 255]])  # surest of the first two, least sure of 255, then 18
    order_2 = torch.tensor([[18, 255, *rest, 0, 1]])
    mixed = swap_patches(image, order_1, order_2)
    expected = image.clone()
    # Patch 255 gets patch 18 and 18 gets 255; then 1 gets 0 and 0 gets 1.
    expected[0, 30:32, 45:48], expected[0, 2:4, 6:9] = image[0, 2:4, 6:9], image[0, 30:32, 45:48]
    expected[0, 0:2, 3:6], expected[0, 0:2, 0:3] = image[0, 0:2, 0:3], image[0, 0:2, 3:6]
    assert mixed.equal(expected)
    assert (mixed != image).float()[0, :32, :48].mean().item() == pytest.approx(4 / 256)


def test_patches_are_sorted_by_the_entropy_of_student_and_teacher_together():
    # Two classes. Each patch's student probability of the first; the teacher is sure of the first.
    student = torch.linspace(0.01, 0.99, 256)
    logits = torch.stack([student.log(), (1 - student).log()]).reshape(1, 2, 16, 16)
    logits = logits.repeat_interleave(2, 2).repeat_interleave(3, 3)
    teacher = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 32, 48)
    # Their mean is between one half, where the student says the second, and one.
    assert by_uncertainty(logits, teacher).tolist() == [list(range(255, -1, -1))]


def test_the_loss_matches_the_slow_reading_with_its_gradient(monkeypatch):
    method, batch = make_method(), make_batch(3, 4, progress=0.1)
    batch.labels[0, :5] = IGNORE
    method.teacher.network.load_state_dict(make_method(seed=5).student.state_dict())
    x = torch.cat([batch.labelled, batch.unlabelled])
    views = [1.2 * x, 0.8 * x + 0.1]
    handed_out = iter([views[0], views[1][3:]])
    monkeypatch.setattr(ucmt, "view", lambda images: next(handed_out))
    fast, slow = method(batch)["total"], slow_total(method, batch, *views)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-6)
    students = [*method.student.parameters(), *method.second.parameters()]
    for ours, theirs in zip(gradient_of(fast, students), gradient_of(slow, students), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_view_changes_contrast_and_brightness_and_blurs_half_of_the_slices():
    torch.manual_seed(0)
    images = torch.randn(200, 1, 16, 16)
    seen = view(images)
    contrast = (seen - seen.mean((1, 2, 3), keepdim=True)).std((1, 2, 3)) / images.std((1, 2, 3))
    added = (seen - images).mean((1, 2, 3)) / images.std((1, 2, 3))
    assert -0.55 < added.min() < -0.4 and 0.4 < added.max() < 0.55
    # Where there is no blur, pixels are a straight line of what they were.
    pairs = torch.stack([images, seen], 1).flatten(2)
    straight = torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs])
    sharp = straight > 0.999
    assert 0.4 < sharp.float().mean() < 0.7
    assert 0.5 <= contrast[sharp].min() < 0.6 and 1.4 < contrast[sharp].max() <= 1.5
    assert (contrast[~sharp] < 1.3).all()


def test_the_terms_add_up_and_pseudo_labels_gain_weight():
    method = make_method()
    early, late = (method(make_batch(progress=progress)) for progress in (0.0, 0.2))
    for terms, weight in ((early, 0.1 * math.exp(-5)), (late, 0.1)):
        step_1 = terms["sup"] + weight * (terms["cps"] + terms["mts"]) / 2
        assert terms["total"].item() == pytest.approx((step_1 + terms["mixed"]).item(), rel=1e-6)
    assert all(value.shape == () for value in late.values())


def test_the_teacher_follows_the_first_student_and_gets_no_gradient():
    method = make_method()
    method(make_batch())["total"].backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(
        parameter.grad is not None
        for parameter in [*method.student.parameters(), *method.second.parameters()]
    )
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.fill_(2.0)
        for parameter in method.second.parameters():
            parameter.fill_(70.0)
    before = [parameter.clone() for parameter in method.teacher.network.parameters()]
    method.after_step(1000)
    for old, new in zip(before, method.teacher.network.parameters(), strict=True):
        torch.testing.assert_close(new, 0.99 * old + 0.01 * 2.0)


def test_the_students_start_apart_but_take_the_same_trained_weights():
    method = make_method()
    pairs = list(zip(method.student.parameters(), method.second.parameters(), strict=True))
    assert any(not first.equal(second) for first, second in pairs)
    method.start_from(make_method(seed=9).student.state_dict())
    assert all(first.equal(second) for first, second in pairs)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("labels", ["some ignored", "all ignored", "background"])
def test_small_and_empty_batches_give_finite_gradients(sizes, labels):
    method, batch = make_method(), make_batch(*sizes, size=(18, 34))
    if labels == "background":
        batch.labels.zero_()
    else:
        batch.labels[:, : 5 if labels == "some ignored" else None] = IGNORE
    method(batch)["total"].backward()
    gradients = [parameter.grad for parameter in method.parameters() if parameter.requires_grad]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_half_precision_gives_nearly_the_same_loss():
    method, batch = make_method(), make_batch()
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        terms = method(batch)
    torch.manual_seed(3)
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert terms["total"].item() == pytest.approx(method(batch)["total"].item(), rel=0.05)


def train(method, steps, first=1):
    optimizer = torch.optim.Adam(
        [parameter for parameter in method.parameters() if parameter.requires_grad], lr=0.02
    )
    losses = []
    for step in range(first, first + steps):
        torch.manual_seed(step)
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
