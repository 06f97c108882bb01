"""Batch normalisation whose statistics cover the global batch, on any device.

PyTorch's SyncBatchNorm runs on GPUs only. With this one, two CPU processes compute what one does.
"""

from __future__ import annotations

import itertools

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.utils.fusion import fuse_conv_bn_weights


class BatchNorm2d(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` that averages its statistics over all processes while training."""

    # Always there, in the form that is used here.
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        values = x.float()
        mean = all_reduce(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Let each convolution do what the batch normalisation behind it does, and return the network.

    It computes the same in fewer steps, and can no longer be trained.

    Args:
        network: in evaluation mode; changed in place.
    """
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for k, (module, behind) in enumerate(itertools.pairwise(sequence)):
            if isinstance(module, nn.Conv2d) and isinstance(behind, nn.BatchNorm2d):
                mean, variance = behind.running_mean, behind.running_var
                assert mean is not None and variance is not None
                module.weight, module.bias = fuse_conv_bn_weights(
                    module.weight, module.bias, mean, variance, behind.eps, behind.weight, behind.bias
                )
                sequence[k + 1] = nn.Identity()
    return network
