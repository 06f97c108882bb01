"""The prototypes that draw together the features of each class in SS-Net (after Alonso et al., ICCV 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn


class ClassMemory(nn.Module):
    """The best feature vectors of each class, and the selectors that say how much each vector counts.

    A class that comes up again gets all its vectors anew. The memory is the same in all processes.

    Args:
        classes: number of classes.
        width: channels of a feature vector.
        size: vectors kept of each class.
    """

    vectors: Tensor
    count: Tensor

    def __init__(self, classes: int, width: int, size: int):
        super().__init__()
        self.register_buffer("vectors", torch.zeros(classes, size, width))
        self.register_buffer("count", torch.zeros(classes, dtype=torch.int64))
        self.feature_selectors = nn.ModuleList([_selector(width) for _ in range(classes)])
        self.memory_selectors = nn.ModuleList([_selector(width) for _ in range(classes)])

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Replace the vectors of the classes among ``labels`` by those that their selectors score highest.

        Args:
            features: shape (pixels, width).
            labels: int64, shape (pixels,).
        """
        candidates = [
            self._best(selector, features[labels == c]) for c, selector in enumerate(self.feature_selectors)
        ]
        vectors, scores = (_of_all_processes(torch.stack(parts)) for parts in zip(*candidates, strict=True))
        scores, best = scores.topk(self.vectors.shape[1], 1)
        vectors = vectors.take_along_dim(best.unsqueeze(-1), 1)
        count = scores.isfinite().sum(1)
        found = count > 0
        self.vectors.copy_(torch.where(found[:, None, None], vectors, self.vectors))
        self.count.copy_(torch.where(found, count, self.count))

    def _best(self, selector: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of the highest scores and these; places to spare hold zeros and score -inf."""
        features, size = features.detach().float(), self.vectors.shape[1]
        # Not under no_grad: before PyTorch 2.10, autocast would keep the cast weights, without gradient, for the loss.
        scores = selector(features).detach().float().squeeze(1)
        scores, best = F.pad(scores, (0, size), value=-torch.inf).topk(size)
        return F.pad(features, (0, 0, 0, size))[best], scores

    def distance(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted mean of 1 - cosine between the features and the memory of a class, mean over classes.

        A class without features or without a memory counts as zero. All steps are taken for it nevertheless, since
        processes must not differ in what they wait for.

        Args:
            features: q, shape (pixels, width).
            labels: int64, shape (pixels,); a label that is no class leaves its pixel out.

        Returns:
            A scalar in [0, 2].
        """
        total = features.new_zeros((), dtype=torch.float32)
        for c, selectors in enumerate(zip(self.feature_selectors, self.memory_selectors, strict=True)):
            q, z = features[labels == c], self.vectors[c, : self.count[c]]
            # The selectors learn which vectors to trust; they don't change the vectors.
            v, w = (
                _shares(selector(vectors.detach()))
                for selector, vectors in zip(selectors, (q, z), strict=True)
            )
            # The sum over i and j of v_i w_j (1 - cos(q_i, z_j)): v and w add up to one, or to zero where empty.
            total = total + v.sum() * w.sum() - (_mean_direction(q, v) * _mean_direction(z, w)).sum()
        return total / len(self.count)


def _selector(width: int) -> nn.Sequential:
    # Layer, not batch normalisation: a class may have a single pixel in a process's share of the batch.
    return nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.LeakyReLU(0.2), nn.Linear(width, 1))


def _shares(scores: Tensor) -> Tensor:
    """Return the sigmoid of scores (vectors, 1), scaled to a sum of one."""
    weights = scores.float().sigmoid()
    return weights / weights.sum().clamp_min(1e-12)


def _mean_direction(vectors: Tensor, shares: Tensor) -> Tensor:
    return (shares * F.normalize(vectors.float(), dim=1)).sum(0)


def _of_all_processes(candidates: Tensor) -> Tensor:
    """Put the candidates (classes, size, ...) of all processes side by side, in the order of their ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return candidates
    gathered = [torch.empty_like(candidates) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, candidates.contiguous())
    return torch.cat(gathered, 1)
