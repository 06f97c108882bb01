"""Virtual adversarial training (Miyato et al., 2018) of a segmentation network, as SS-Net has it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from CPS4Core.segmentation.losses import dice_distance

XI = 10.0
"""Length of the random step at which the gradient is taken."""
EPSILON = 6.0
"""Length of the adversarial step. Both are norms over a whole image, whatever its size."""


def adversarial_distance(network: nn.Module, images: Tensor, p: Tensor) -> Tensor:
    """Return how far the output moves when each image takes the step, of fixed length, that moves it most.

    One power step finds the direction. Batch normalisation uses the statistics of the changed images and keeps its
    running ones as they are.

    Args:
        network: gives logits (images, classes, H, W).
        images: shape (images, 1, H, W).
        p: softmax of the network's logits of ``images``, float32, without gradient.

    Returns:
        Soft Dice distance, in [0, 1]; it has a gradient for the network's weights only.
    """
    d = _unit(torch.rand_like(images) - 0.5).requires_grad_()
    distance = dice_distance(_probabilities(network, images + XI * d), p)
    (gradient,) = torch.autograd.grad(distance, d)
    r = EPSILON * _unit(gradient)
    return dice_distance(_probabilities(network, images + r), p)


def _probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """Return the softmax of the network's logits, its running statistics untouched."""
    spare = {name: buffer.clone() for name, buffer in network.named_buffers()}
    return functional_call(network, spare, images).float().softmax(1)


def _unit(d: Tensor) -> Tensor:
    """Scale each image to length one; one that is zero stays so."""
    return F.normalize(d.flatten(1), dim=1).view_as(d)
