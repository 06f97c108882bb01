"""GraphCL: BCP with a graph over the slices of a step and clustering within each (Wang et al., 2025).

Where the paper leaves a size or a scale open, the comment beside it says what was chosen. GraphCL uses no text:
``GraphCLText`` is the form with class prompts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CPS4Core.baselines.methods.bcp import BCP
from CPS4Core.class_table import NUM_CLASSES
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.methods.method import Batch
from CPS4Core.segmentation.pseudo_labels import enhance

KAPPA = 0.01
"""Weight of the clustering loss."""
TAU = 2.0
"""The larger, the more pairs of nodes attract each other."""
STRUCTURES = 32
"""Structure scores of a slice. The paper gives no number; more than slices in a step, so that none need be alike."""
HIDDEN = 64, 32
"""Channels of the graph convolution and of the MLP, as in DeepCut (Aflalo et al., 2023), whose loss this is."""
CLUSTERS = NUM_CLASSES
"""The most clusters of a slice; how many are used is left to the loss."""


class GraphCL(BCP):
    """L_BCP + kappa L_CC. A process makes the graph of its own share of the slices."""

    def __init__(self, settings: TrainSettings):
        super().__init__(settings)
        self.alignment = StructureAlignment(settings.widths[-1])
        self.clustering = CorrelationClustering(settings.widths[-1])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        mixed = self.mix(batch)
        *finer, X = self.student.encode(mixed.images)
        Z = self.alignment(X)
        terms = self.terms(self.student.decoder([*finer, Z]), mixed)
        clustering = self.clustering(Z)
        return {**terms, "total": terms["total"] + KAPPA * clustering, "clustering": clustering}


class GraphCLText(GraphCL):
    """GraphCL whose pseudo-labels are the teacher's, enhanced by the class prompts."""

    def teacher_labels(self, batch: Batch) -> Tensor:
        return enhance(self.teacher.logits(batch.unlabelled), batch.text.maps)


class StructureAlignment(nn.Module):
    """Z = D^-1/2 A D^-1/2 X with A = X_sa X_sa^T + I: slices of similar structure share their features.

    The weight of this graph convolution is the decoder's next layer, which is linear. A slice alone is its own graph,
    with Z = X: so the student that segments one slice at a time needs no graph.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.scores = nn.Linear(channels, STRUCTURES)

    def forward(self, X: Tensor) -> Tensor:
        """Return Z of the features X, both of shape (slices, channels, h, w)."""
        X_sa = self.scores(X.mean((2, 3))).float().softmax(1)
        # The paper shows no I. Scores differ little at first, and without I each slice would be the mean of all.
        A = (X_sa @ X_sa.T).float() + torch.eye(len(X), device=X.device)
        return torch.einsum("ij,jchw->ichw", _normalised(A).to(X.dtype), X)


class CorrelationClustering(nn.Module):
    """L_CC = -Tr(W S S^T) / N: which of a slice's N locations belong together.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int):
        super().__init__()
        convolved, hidden = HIDDEN
        self.convolution = nn.Linear(channels, convolved, bias=False)
        self.clusters = nn.Sequential(
            nn.ReLU(), nn.Linear(convolved, hidden), nn.ReLU(), nn.Linear(hidden, CLUSTERS)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the mean loss of features, shape (slices, channels, h, w)."""
        nodes = F.normalize(features.float().flatten(2).mT, dim=2, eps=1e-6)
        W = signed_affinity(nodes)
        S = self.clusters(_normalised(W) @ self.convolution(nodes)).float().softmax(2)
        return correlation_loss(W, S).mean()


def signed_affinity(nodes: Tensor) -> Tensor:
    """Return W = F F^T - max(F F^T) / tau, shape (graphs, N, N), of unit vectors F, shape (graphs, N, channels).

    It is a constant to the gradient: else features that are equal everywhere would be the best.
    """
    # As cited, tau divides the whole difference. Then no affinity is above zero, all nodes repel each other and
    # the best clusters are single nodes. Correlation clustering needs both signs, and DeepCut divides the maximum.
    nodes = nodes.detach()
    cosines = (nodes @ nodes.mT).float()
    return cosines - cosines.amax((1, 2), keepdim=True) / TAU


def correlation_loss(W: Tensor, S: Tensor) -> Tensor:
    """Return -Tr(W S S^T) / N of each graph; the division keeps it from growing with the square of N.

    Args:
        W: signed affinities, shape (graphs, N, N).
        S: probability of each cluster, shape (graphs, N, clusters).
    """
    return -((W @ S).float() * S).sum((1, 2)) / W.shape[1]


def _normalised(A: Tensor) -> Tensor:
    """Return D^-1/2 A D^-1/2; degrees are sums of absolute values, since affinities have signs."""
    scale = A.abs().sum(-1).clamp_min(1e-6).rsqrt()
    return scale.unsqueeze(-1) * A * scale.unsqueeze(-2)
