"""Mean Teacher (Tarvainen and Valpola, 2017), in its published form and in the form that CPS4 builds on."""

from __future__ import annotations

import torch
from torch import Tensor

from CPS4Core.segmentation.losses import cross_entropy, dice_loss
from CPS4Core.segmentation.methods.method import Batch, TaughtMethod
from CPS4Core.segmentation.pseudo_labels import keep_confident, ramp

CONSISTENCY_WEIGHT = 0.1
CONSISTENCY_START = 1 / 30
"""Share of the training before the consistency term sets in: 1,000 of the usual 30,000 iterations."""
NOISE = 0.1
NOISE_LIMIT = 0.2


class SoftMeanTeacher(TaughtMethod):
    """1/2 (CE + Dice) + lambda(t) MSE(softmax student, softmax teacher), noise on the teacher's input."""

    average_buffers = False
    takes_two_views = True

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        y_l, y_s = self.student_logits(batch)
        supervised = (cross_entropy(y_l, batch.labels) + dice_loss(y_l, batch.labels)) / 2
        noise = (NOISE * torch.randn_like(batch.unlabelled)).clamp(-NOISE_LIMIT, NOISE_LIMIT)
        y_t = self.teacher(batch.unlabelled + noise)
        consistency = (y_s.float().softmax(1) - y_t).square().mean()
        weight = 0.0 if batch.progress < CONSISTENCY_START else CONSISTENCY_WEIGHT * ramp(batch.progress, 1.0)
        total = supervised + weight * consistency
        return {"total": total, "sup": supervised, "consistency": consistency}


class HardMeanTeacher(TaughtMethod):
    """L_sup (eq. 5) + CE to the teacher's hard labels, without noise. CPS4 without its text maps."""

    takes_two_views = True

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        y_l, y_s = self.student_logits(batch)
        y_t = self.teacher(batch.unlabelled)
        target = keep_confident(y_t.argmax(1), y_t, self.settings.confidence)
        supervised = self.supervised_loss(y_l, batch.labels)
        consistency = cross_entropy(y_s, target)
        total = supervised + ramp(batch.progress, self.settings.ramp) * consistency
        return {"total": total, "sup": supervised, "consistency": consistency}
