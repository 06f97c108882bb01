"""MC-Net (Wu et al., MICCAI 2021) and MC-Net+ (Wu et al., Medical Image Analysis 2022): decoders that agree.

The first decoder is that of every system here, and it segments; the published 2D network has the bilinear one first.
"""

from __future__ import annotations

from itertools import permutations
from typing import ClassVar

import torch
from torch import Tensor, nn

from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.losses import dice_loss
from CPS4Core.segmentation.methods.method import Batch, Method
from CPS4Core.segmentation.pseudo_labels import ramp
from CPS4Core.segmentation.unet import Decoder, Upsampling

CONSISTENCY_WEIGHT = 0.1
"""Of the published code for 2D images; it rises over the whole of the training."""
TEMPERATURE = 0.1
"""T of the sharpening."""


class MCNet(Method):
    """Dice of each decoder + lambda(t) times the MSE between each decoder and every other one, sharpened.

    All decoders read the features of one encoder and differ in how they double them. They agree on labelled and on
    unlabelled slices.
    """

    more_decoders: ClassVar[tuple[Upsampling, ...]] = ("bilinear",)
    """Upsampling of the decoders beside the student's own, which is transposed."""

    def __init__(self, settings: TrainSettings):
        super().__init__(settings)
        self.decoders = nn.ModuleList(
            [Decoder(settings.widths, upsampling=upsampling) for upsampling in self.more_decoders]
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.student.encode(torch.cat([batch.labelled, batch.unlabelled]))
        logits = [decoder(encoded) for decoder in (self.student.decoder, *self.decoders)]
        supervised = torch.stack([dice_loss(y[: len(batch.labelled)], batch.labels) for y in logits]).sum()
        p = [y.float().softmax(1) for y in logits]
        consistency = mutual_consistency(p, self.settings.baselines.mc_net.renormalise)
        total = supervised + CONSISTENCY_WEIGHT * ramp(batch.progress, 1.0) * consistency
        return {"total": total, "sup": supervised, "consistency": consistency}


class MCNetPlus(MCNet):
    """MC-Net with a third decoder."""

    more_decoders = ("bilinear", "nearest")


def mutual_consistency(p: list[Tensor], renormalise: bool = False) -> Tensor:
    """Return the sum over i != j of MSE(p_i, sharpen(p_j)); the gradient flows into both, as in the published code.

    Args:
        p: softmax of each decoder, float32, shape (images, classes, H, W).
        renormalise: scale what is sharpened to one over the classes.
    """
    sharp = [sharpen(p_i, renormalise) for p_i in p]
    pairs = permutations(range(len(p)), 2)
    return torch.stack([(p[i] - sharp[j]).square().mean() for i, j in pairs]).sum()


def sharpen(p: Tensor, renormalise: bool = False) -> Tensor:
    """Return the soft pseudo-labels p^(1/T) / (p^(1/T) + (1 - p)^(1/T)), each class against all the others.

    Where no class has more than half, all of them come out low.

    Args:
        p: probabilities, float32, shape (images, classes, H, W).
        renormalise: scale the result to one over the classes.

    Returns:
        Values in [0, 1], the same shape.
    """
    # Safe in float32: p or 1 - p is at least 1/2, so that the sum below is not less than 0.001.
    powers, others = p ** (1 / TEMPERATURE), (1 - p) ** (1 / TEMPERATURE)
    sharp = powers / (powers + others)
    return sharp / sharp.sum(1, keepdim=True) if renormalise else sharp
