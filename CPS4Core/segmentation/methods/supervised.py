"""Supervised only: the labelled slices, nothing else."""

from __future__ import annotations

from torch import Tensor

from CPS4Core.segmentation.methods.method import Batch, Method


class Supervised(Method):
    """L_sup alone (eq. 5): what semi-supervised learning must beat."""

    needs_unlabelled = False

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        supervised = self.supervised_loss(self.student(batch.labelled), batch.labels)
        return {"total": supervised, "sup": supervised}
