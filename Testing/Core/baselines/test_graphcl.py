"""GraphCL: the graph over the slices of a step, the clustering within each, and the form with class prompts."""

from dataclasses import replace

import pytest
import torch
from small_models import random_batch
from torch import nn

from CPS4Core.baselines.methods.bcp import BCP, largest_components
from CPS4Core.baselines.methods.graphcl import (
    KAPPA,
    TAU,
    CorrelationClustering,
    GraphCL,
    GraphCLText,
    StructureAlignment,
    correlation_loss,
    signed_affinity,
)
from CPS4Core.baselines.settings import BaselineSettings
from CPS4Core.class_table import IGNORE, NUM_CLASSES
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.methods.method import TextTargets
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.systems import find_method

SIZE = 12, 24
SETTINGS = TrainSettings(widths=(4, 8), method="graphcl")
EVERY_PIECE = SETTINGS.model_copy(update={"baselines": BaselineSettings(bcp={"largest_component": False})})


def make_batch(labelled=2, unlabelled=2, progress=0.5):
    maps = torch.rand(unlabelled, NUM_CLASSES, *SIZE, generator=torch.Generator().manual_seed(2)) > 0.9
    return with_maps(random_batch(labelled, unlabelled, progress, SIZE), maps)


def with_maps(batch, maps):
    labels = maps.long().argmax(1)
    return replace(batch, text_targets=TextTargets(maps, labels, torch.ones(labels.shape), certainty=maps))


def slow_alignment(alignment, X):
    """Z = D^-1/2 (X_sa X_sa^T + I) D^-1/2 X, read word by word."""
    scores = torch.stack([torch.softmax(alignment.scores(image.mean((1, 2))), 0) for image in X])
    n = len(X)
    A = [[(scores[i] * scores[j]).sum() + float(i == j) for j in range(n)] for i in range(n)]
    D = [sum(row) for row in A]
    return torch.stack([sum(A[i][j] / (D[i] * D[j]).sqrt() * X[j] for j in range(n)) for i in range(n)])


def slow_clustering(clustering, X):
    """-Tr(W S S^T) / N of unit features, one graph a slice, read word by word."""
    losses = []
    for image in X:
        F = [image[:, i, j] / image[:, i, j].norm() for i in range(X.shape[2]) for j in range(X.shape[3])]
        N = len(F)
        cosines = torch.stack([torch.stack([(a * b).sum() for b in F]) for a in F]).detach()
        W = cosines - cosines.max() / TAU
        D = [sum(abs(W[i, j]) for j in range(N)) for i in range(N)]
        theta = clustering.convolution.weight
        hidden = [sum(W[i, j] / (D[i] * D[j]).sqrt() * (theta @ F[j]) for j in range(N)) for i in range(N)]
        S = torch.stack([torch.softmax(clustering.clusters(h), 0) for h in hidden])
        losses.append(-torch.trace(W @ S @ S.T) / N)
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("make", "slow"), [(StructureAlignment, slow_alignment), (CorrelationClustering, slow_clustering)]
)
def test_the_graphs_match_the_slow_reading_with_its_gradient(make, slow):
    torch.manual_seed(0)
    module = make(5)
    double = make(5).double()
    double.load_state_dict(module.state_dict())
    X = torch.rand(3, 5, 2, 3)
    direction = torch.randn(()) if make is CorrelationClustering else torch.randn_like(X)
    ours, theirs = X.clone().requires_grad_(), X.double().requires_grad_()
    value, expected = (module(ours) * direction).sum(), (slow(double, theirs) * direction).sum()
    value.backward()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-6)
    for mine, other in zip(module.parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-3, atol=1e-6)


def test_a_slice_alone_is_left_as_it_is():
    X = torch.randn(1, 6, 3, 4)
    torch.testing.assert_close(StructureAlignment(6)(X), X)


def test_slices_share_features_by_their_structure():
    alignment = StructureAlignment(2)
    alignment.scores = nn.Linear(2, 2, bias=False)
    alignment.scores.weight.data = 1000 * torch.eye(2)
    X = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])[:, :, None, None]
    # The first two have one structure, the third another: A is [[2, 1, 0], [1, 2, 0], [0, 0, 2]].
    expected = torch.tensor([[(2 + 3) / 3, 0.0], [(1 + 6) / 3, 0.0], [0.0, 5.0]])
    torch.testing.assert_close(alignment(X)[:, :, 0, 0], expected)


def test_affinities_attract_above_half_the_largest_cosine_and_repel_below():
    nodes = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]])
    expected = torch.tensor([[[0.5, 0.3, -0.5], [0.3, 0.5, 0.1], [-0.5, 0.1, 0.5]]])
    torch.testing.assert_close(signed_affinity(nodes), expected)


def test_the_best_clusters_join_what_attracts_and_part_what_repels():
    W = torch.tensor([[0.5, 0.4, -0.5], [0.4, 0.5, -0.5], [-0.5, -0.5, 0.5]])
    losses = {
        clusters: correlation_loss(W[None], torch.eye(3)[list(clusters)][None]).item()
        for clusters in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2)]
    }
    assert min(losses, key=losses.get) == (0, 0, 1)
    # The trace is 1.5 + 2 * 0.4 there, over three nodes.
    assert losses[0, 0, 1] == pytest.approx(-2.3 / 3)


def test_clustering_finds_two_kinds_of_location():
    torch.manual_seed(1)
    clustering = CorrelationClustering(4)
    kinds = torch.zeros(1, 4, 4, 6)
    kinds[:, 0, :, :2], kinds[:, 1, :, 2:] = 1, 1
    features = kinds + torch.rand(1, 4, 4, 6) / 10
    optimizer = torch.optim.Adam(clustering.parameters(), lr=0.02)
    losses = []
    for _ in range(200):
        loss = clustering(features)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    # 8 and 16 of 24 locations, each with an affinity of about 1/2 to its own kind.
    assert losses[-1] == pytest.approx(-(8**2 + 16**2) / 24 / 2, rel=0.1)
    assert losses[-1] < losses[0] - 1


def test_the_total_is_that_of_bcp_and_a_hundredth_of_the_clustering():
    torch.manual_seed(2)
    method = GraphCL(SETTINGS)
    terms = method(make_batch())
    assert KAPPA == 0.01
    expected = terms["sup"] + terms["pseudo"] / 2 + 0.01 * terms["clustering"]
    torch.testing.assert_close(terms["total"], expected)


def test_the_decoder_sees_aligned_features():
    torch.manual_seed(3)
    method, plain = GraphCL(SETTINGS), BCP(SETTINGS)
    plain.load_state_dict(method.state_dict(), strict=False)
    sup = {}
    for name, trained in {"aligned": method, "plain": plain}.items():
        torch.manual_seed(4)
        sup[name] = trained(make_batch())["sup"].item()
    assert sup["aligned"] != pytest.approx(sup["plain"], rel=1e-5)
    method.alignment = nn.Identity()
    torch.manual_seed(4)
    assert method(make_batch())["sup"].item() == pytest.approx(sup["plain"], rel=1e-5)


def test_what_is_clustered_are_aligned_features():
    torch.manual_seed(11)
    method = GraphCL(SETTINGS)
    method(make_batch())["clustering"].backward()
    assert method.alignment.scores.weight.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.student.encoder[-1].parameters())
    assert all(parameter.grad is None for parameter in method.student.decoder.parameters())


def test_what_segments_needs_no_graph_and_the_graph_trains_with_it():
    method = GraphCL(SETTINGS)
    assert type(method.network) is type(method.other_network) is ResidualUNet
    trained = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"student", "alignment", "clustering"}
    assert trained <= set(method.state_dict())
    method(make_batch())["total"].backward()
    for name, parameter in method.named_parameters():
        if name in trained:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("make", [GraphCL, GraphCLText])
@pytest.mark.parametrize("progress", [0.0, 0.5])
@pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 1), (3, 2), (2, 3)])
def test_any_numbers_of_slices_give_finite_gradients(make, labelled, unlabelled, progress):
    torch.manual_seed(5)
    method = make(SETTINGS)
    batch = make_batch(labelled, unlabelled, progress)
    batch.labels[0] = IGNORE
    batch.labels[1:] = 0
    terms = method(batch)
    assert all(term.isfinite() and term.ndim == 0 for term in terms.values())
    terms["total"].backward()
    assert all(
        parameter.grad.isfinite().all() for parameter in method.parameters() if parameter.requires_grad
    )


def test_features_of_nothing_give_finite_gradients():
    X = torch.zeros(2, 5, 2, 3, requires_grad=True)
    (StructureAlignment(5)(X).sum() + CorrelationClustering(5)(X)).backward()
    assert X.grad.isfinite().all()


def test_half_precision_gives_the_same_terms():
    torch.manual_seed(6)
    method = GraphCL(SETTINGS)
    terms = {}
    for half in (False, True):
        torch.manual_seed(7)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            terms[half] = method(make_batch())
    for name, value in terms[True].items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(terms[False][name].item(), rel=0.02, abs=0.03), name


def test_class_prompts_enhance_the_teacher_where_a_map_is_set():
    torch.manual_seed(8)
    method = GraphCLText(EVERY_PIECE)
    assert find_method("graphcl_text").needs_text and not find_method("graphcl").needs_text
    batch = make_batch()
    z_t = method.teacher.logits(batch.unlabelled)
    teacher = z_t.argmax(1)
    only = torch.zeros(2, NUM_CLASSES, *SIZE, dtype=torch.bool)
    only[:, 7, :6] = True
    trust = (z_t.amax(1) - z_t[:, 7]).median()  # so that it decides at half of the pixels
    labels = method.pseudo_labels(with_maps(batch, trust * only))
    raised = z_t[:, 7] + trust > z_t.amax(1)
    assert raised[:, :6].any() and not raised[:, :6].all()
    assert labels[:, :6].equal(torch.where(raised, 7, teacher)[:, :6])
    assert labels[:, 6:].equal(teacher[:, 6:])
    assert GraphCL.teacher_labels(method, batch).equal(teacher)


def test_enhanced_labels_lose_their_small_pieces_too():
    torch.manual_seed(9)
    method = GraphCLText(SETTINGS)
    batch = make_batch()
    assert method.pseudo_labels(batch).equal(largest_components(method.teacher_labels(batch)))


def test_a_restored_method_goes_on_in_the_same_bits():
    def train(method, steps):
        optimizer = torch.optim.SGD(
            [parameter for parameter in method.parameters() if parameter.requires_grad], lr=0.1
        )
        for step in steps:
            torch.manual_seed(step)
            method(make_batch(progress=step / 10))["total"].backward()
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(step)

    torch.manual_seed(10)
    method, restored = GraphCL(SETTINGS), GraphCL(SETTINGS)
    train(method, range(1, 4))
    restored.load_state_dict(method.state_dict())
    for resumed in (method, restored):
        train(resumed, range(4, 7))
    states = zip(method.state_dict().values(), restored.state_dict().values(), strict=True)
    assert all(mine.equal(theirs) for mine, theirs in states)
