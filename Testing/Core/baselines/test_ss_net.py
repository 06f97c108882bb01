"""SS-Net: the adversarial distance, the memory of the classes and the whole loss, by hand and by slow readings."""

import pytest
import torch
import torch.nn.functional as F
from small_models import random_batch
from torch import nn

from CPS4Core.baselines import class_memory, vat
from CPS4Core.baselines.class_memory import ClassMemory
from CPS4Core.baselines.methods import ss_net
from CPS4Core.baselines.methods.ss_net import SSNet
from CPS4Core.baselines.vat import adversarial_distance
from CPS4Core.class_table import IGNORE
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.batch_norm import BatchNorm2d
from CPS4Core.segmentation.losses import dice_distance, dice_loss
from CPS4Core.segmentation.methods.method import Batch
from CPS4Core.segmentation.pseudo_labels import ramp

SETTINGS = TrainSettings(widths=(4, 8))


def new():
    torch.manual_seed(1)
    return SSNet(SETTINGS).train()


# Adversarial distance


def test_dice_distance_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).T.view(1, 2, 1, 2)
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).T.view(1, 2, 1, 2)
    # Class 0: 2 (0.9 + 0.2) / (0.81 + 0.04 + 2). Class 1: nothing in common.
    expected = (1 - 2.2 / 2.85 + 1) / 2
    assert dice_distance(p, q).item() == pytest.approx(expected, rel=1e-4)
    assert dice_distance(p, p).item() == pytest.approx(0, abs=1e-6)


class Recorder(nn.Module):
    """Two classes, whose logits differ by the weighted sum of the image; it remembers its inputs."""

    def __init__(self):
        super().__init__()
        weight = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(3))
        self.weight = nn.Parameter(0.05 * weight)  # small, so that the softmax does not saturate
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach())
        logit = (images * self.weight).sum((2, 3), keepdim=True)
        return torch.cat([logit, -logit], 1).expand(-1, -1, 4, 4)


def test_the_step_has_its_length_and_follows_the_gradient():
    network = Recorder()
    images = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    torch.manual_seed(5)
    adversarial_distance(network, images, network(images).detach().softmax(1))
    random, adversarial = (seen - images for seen in network.seen[1:])
    torch.testing.assert_close(random.flatten(1).norm(dim=1), torch.full((3,), 10.0))
    torch.testing.assert_close(adversarial.flatten(1).norm(dim=1), torch.full((3,), 6.0))
    # The output depends on one direction of the image only: the step goes along it, one way or the other.
    along = F.cosine_similarity(adversarial.flatten(1), network.weight.detach().flatten()[None])
    torch.testing.assert_close(along.abs(), torch.ones(3))


def test_the_step_moves_a_network_more_than_random_steps_do():
    module = new().student.eval()
    images = random_batch().unlabelled
    with torch.no_grad():
        p = module(images).softmax(1)
        steps = torch.randn(20, *images.shape, generator=torch.Generator().manual_seed(6))
        lengths = steps.flatten(2).norm(dim=2).view(20, 2, 1, 1, 1)
        by_chance = [
            dice_distance(module(images + step).softmax(1), p) for step in vat.EPSILON * steps / lengths
        ]
    torch.manual_seed(7)
    assert adversarial_distance(module, images, p) > max(by_chance)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BatchNorm2d])
def test_running_statistics_stay_and_weights_get_a_gradient(norm):
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), norm(3)).train()
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(8))
    p = network(images).detach().softmax(1)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    distance = adversarial_distance(network, images, p)
    assert all(buffer.equal(before[name]) for name, buffer in network.named_buffers())
    assert all(parameter.grad is None for parameter in network.parameters())  # the power step leaves none
    distance.backward()
    assert network[0].weight.grad.abs().sum() > 0
    network(images)
    assert network[1].num_batches_tracked == 2  # its own buffers are back in place


def test_a_network_that_ignores_the_image_is_not_moved():
    class Constant(nn.Module):
        def forward(self, images):
            return torch.cat([images * 0, images * 0 + 1], 1)

    images = torch.ones(2, 1, 4, 4)
    distance = adversarial_distance(Constant(), images, Constant()(images).softmax(1))
    assert distance.item() == pytest.approx(0, abs=1e-6)


# Memory of the classes


class FirstChannel(nn.Module):
    def forward(self, x):
        return x[:, :1]


def memory_that_scores_by_the_first_channel(classes=3, width=4, size=2):
    memory = ClassMemory(classes, width, size)
    memory.feature_selectors = nn.ModuleList([FirstChannel() for _ in range(classes)])
    return memory


def vectors(*first_channels):
    return torch.tensor([[first, 1.0, 2.0, 3.0] for first in first_channels])


def test_the_memory_keeps_the_vectors_of_the_highest_scores():
    memory = memory_that_scores_by_the_first_channel()
    memory.update(vectors(0.1, 0.9, 0.5, -0.3, 0.7), torch.tensor([1, 1, 1, 2, IGNORE]))
    assert memory.count.tolist() == [0, 2, 1]
    assert memory.vectors[1].equal(vectors(0.9, 0.5))
    assert memory.vectors[2, :1].equal(vectors(-0.3))


def test_a_class_that_comes_up_again_gets_all_its_vectors_anew_and_others_keep_theirs():
    memory = memory_that_scores_by_the_first_channel()
    memory.update(vectors(0.9, 0.8, 0.3, 0.2), torch.tensor([1, 1, 2, 2]))
    memory.update(vectors(0.1), torch.tensor([1]))
    assert memory.count.tolist() == [0, 1, 2]
    assert memory.vectors[1, :1].equal(vectors(0.1))
    assert memory.vectors[2].equal(vectors(0.3, 0.2))


def test_no_pixels_leave_the_memory_as_it_is():
    memory = memory_that_scores_by_the_first_channel()
    memory.update(vectors(0.9), torch.tensor([1]))
    memory.update(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert memory.count.tolist() == [0, 1, 0]
    assert memory.vectors[1, :1].equal(vectors(0.9))


def test_the_memory_of_two_processes_is_that_of_one_with_all_their_pixels(monkeypatch):
    random = torch.Generator().manual_seed(9)
    features, labels = torch.randn(40, 4, generator=random), torch.randint(3, (40,), generator=random)
    one = memory_that_scores_by_the_first_channel()
    one.update(features, labels)

    sent = []
    monkeypatch.setattr(
        class_memory, "_of_all_processes", lambda candidates: sent.append(candidates) or candidates
    )
    memory_that_scores_by_the_first_channel().update(features[20:], labels[20:])
    monkeypatch.undo()

    def all_gather(gathered, mine):
        gathered[0].copy_(mine)
        gathered[1].copy_(sent.pop(0))

    monkeypatch.setattr(class_memory.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(class_memory.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(class_memory.distributed, "all_gather", all_gather)
    two = memory_that_scores_by_the_first_channel()
    two.update(features[:20], labels[:20])
    assert two.vectors.equal(one.vectors) and two.count.equal(one.count)


def slow_distance(memory, features, labels):
    """Pair by pair: both weights have a mean of one over the vectors of the class."""
    total = 0
    for c in range(len(memory.count)):
        q = [vector for vector, label in zip(features, labels, strict=True) if label == c]
        z = list(memory.vectors[c][: int(memory.count[c])])
        if not q or not z:
            continue
        a = [torch.sigmoid(memory.feature_selectors[c](vector.detach()[None])) for vector in q]
        b = [torch.sigmoid(memory.memory_selectors[c](vector[None])) for vector in z]
        pairs = [
            (a[i] * len(q) / sum(a))
            * (b[j] * len(z) / sum(b))
            * (1 - q[i] @ z[j] / (q[i].norm() * z[j].norm()))
            for i in range(len(q))
            for j in range(len(z))
        ]
        total = total + sum(pairs) / len(pairs)
    return total.squeeze() / len(memory.count)


def test_the_distance_matches_the_slow_reading_with_its_gradient():
    random = torch.Generator().manual_seed(10)
    features, labels = torch.randn(12, 4, generator=random), torch.randint(4, (12,), generator=random)
    labels[:2] = IGNORE
    labels[labels == 3] = 0
    torch.manual_seed(11)
    ours = ClassMemory(4, 4, 3)
    ours.vectors.normal_(generator=random)
    ours.count.copy_(torch.tensor([0, 3, 2, 1]))  # class 0 has no memory, class 3 no features
    theirs = ClassMemory(4, 4, 3)
    theirs.load_state_dict(ours.state_dict())
    theirs.double()
    x, y = features.clone().requires_grad_(), features.double().requires_grad_()
    fast, slow = ours.distance(x, labels), slow_distance(theirs, y, labels)
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-4, atol=1e-7)
    for mine, reading in zip(ours.parameters(), theirs.parameters(), strict=True):
        expected = torch.zeros_like(reading) if reading.grad is None else reading.grad
        torch.testing.assert_close(mine.grad.double(), expected, rtol=1e-4, atol=1e-7)
    assert ours.memory_selectors[1][0].weight.grad.abs().sum() > 0


def test_features_like_the_memory_cost_nothing_and_opposite_ones_two():
    memory = ClassMemory(1, 4, 2)
    memory.update(vectors(1.0, 1.0), torch.tensor([0, 0]))
    labels = torch.tensor([0, 0, 0])
    assert memory.distance(3 * vectors(1.0, 1.0, 1.0), labels).item() == pytest.approx(0, abs=1e-6)
    assert memory.distance(-vectors(1.0, 1.0, 1.0), labels).item() == pytest.approx(2, rel=1e-6)


def test_an_empty_memory_costs_nothing_and_still_has_a_gradient():
    features = torch.randn(5, 4, requires_grad=True)
    distance = ClassMemory(3, 4, 2).distance(features, torch.tensor([0, 1, 2, 2, IGNORE]))
    distance.backward()
    assert distance.item() == 0
    assert features.grad.eq(0).all()


# The whole


def test_the_loss_is_the_dice_and_the_weighted_unsupervised_terms(monkeypatch):
    seen = []

    def distance(memory, features, labels):
        seen.append(labels)
        return features.mean() * 0 + len(seen)

    monkeypatch.setattr(ss_net, "adversarial_distance", lambda network, images, p: p.sum() * 0 + 7)
    monkeypatch.setattr(ClassMemory, "distance", distance)
    module, batch = new(), random_batch(2, 3, progress=0.4)
    terms = module(batch)
    y = module.student(torch.cat([batch.labelled, batch.unlabelled]))
    torch.testing.assert_close(terms["sup"], dice_loss(y[:2], batch.labels))
    assert terms["contrast"].item() == 1 + 2
    assert terms["smoothness"].item() == 7
    expected = terms["sup"] + 0.1 * ramp(0.4, 1.0) * (7 + 0.1 * (1 + 2))
    torch.testing.assert_close(terms["total"], expected)
    # The labels are those of the pixels, the pseudo-labels those that the student predicts.
    assert seen[0].bincount().equal(batch.labels.flatten().bincount())
    assert seen[1].bincount().equal(y[2:].argmax(1).flatten().bincount())


def test_only_structures_predicted_right_enter_the_memory():
    module, batch = new(), random_batch(1, 1)
    predicted = module.student(torch.cat([batch.labelled, batch.unlabelled]))[:1].argmax(1)
    most = int(predicted[predicted > 0].mode().values)
    for labels, expected in (
        (predicted, int((predicted == most).sum().clamp_max(32))),
        ((predicted + 1) % 20, 0),
        (torch.zeros_like(predicted), 0),
        (torch.full_like(predicted, IGNORE), 0),
    ):
        module = new()
        module(Batch(batch.labelled, labels, batch.unlabelled, progress=1.0))
        assert module.memory.count[most] == expected
        assert module.memory.count[0] == 0
    assert predicted.eq(most).sum() > 0


def test_pixels_are_drawn_with_their_labels_and_again_with_the_same_seed(monkeypatch):
    monkeypatch.setattr(ss_net, "PIXELS", 30)
    labels = torch.arange(2 * 5 * 7).view(2, 5, 7)
    features = torch.stack([labels, 100 + labels], 1).float()

    def draw():
        torch.manual_seed(12)
        return ss_net._drawn_pixels(features, labels)

    x, drawn = draw()
    assert len(drawn.unique()) == 30
    assert x.equal(torch.stack([drawn, 100 + drawn], 1).float())
    assert draw()[1].equal(drawn)


def test_a_step_updates_the_statistics_of_the_student_once():
    module = new()
    module(random_batch())
    counts = {int(buffer) for name, buffer in module.student.named_buffers() if name.endswith("tracked")}
    assert counts == {1}


def edge_cases():
    plain = random_batch(1, 1)
    partly = plain.labels.clone()
    partly[:, :4] = IGNORE
    return {
        "one of each": plain,
        "more labelled": random_batch(3, 1),
        "partly unknown": Batch(plain.labelled, partly, plain.unlabelled, progress=1.0),
        "all unknown": Batch(plain.labelled, torch.full_like(partly, IGNORE), plain.unlabelled, progress=1.0),
        "background only": Batch(plain.labelled, torch.zeros_like(partly), plain.unlabelled, progress=1.0),
        "constant image": Batch(
            torch.zeros(1, 1, 8, 16), plain.labels, torch.zeros(1, 1, 8, 16), progress=1.0
        ),
    }


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("case", edge_cases())
def test_losses_and_gradients_are_finite(case, bf16):
    module = new()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        terms = module(edge_cases()[case])
    terms["total"].backward()
    assert all(term.isfinite() and term.dim() == 0 for term in terms.values())
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters()
    )
    assert all(buffer.isfinite().all() for buffer in module.buffers())


def train(module, steps, batch):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for step in range(steps):
        torch.manual_seed(step)
        terms = module(batch)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
    return {name: term.item() for name, term in terms.items()}


def test_the_state_dict_is_the_whole_state():
    first, second = new(), SSNet(SETTINGS).train()
    train(first, 3, random_batch())
    second.load_state_dict(first.state_dict())
    assert first.memory.count.sum() > 0
    totals = []
    for module in (first, second):
        torch.manual_seed(13)
        totals.append(module(random_batch(seed=3))["total"])
    assert totals[0].equal(totals[1])


def test_training_teaches_the_student_and_fills_the_memory():
    random = torch.Generator().manual_seed(4)
    edges = torch.tensor([3, 11, 5, 8]).view(4, 1, 1)
    labels = (torch.arange(16).expand(4, 8, 16) > edges).long()
    images = (2 * labels - 1 + 0.3 * torch.randn(4, 8, 16, generator=random)).unsqueeze(1)
    module = new()
    batch = Batch(images[:2], labels[:2], images[2:], progress=1.0)
    before = train(module, 1, batch)
    after = train(module, 15, batch)
    assert after["total"] < before["total"]
    assert after["contrast"] < 0.2 * before["contrast"]
    assert (module.student(images)[:2].argmax(1) == labels[:2]).float().mean() > 0.8
    assert module.memory.count.tolist() == [0, 32, *[0] * 18]
