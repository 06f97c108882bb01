"""CPS4: class prompts improve the mean teacher's pseudo-labels (paper, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from CPS4Core.class_table import IGNORE
from CPS4Core.segmentation.losses import cross_entropy
from CPS4Core.segmentation.methods.method import Batch, TaughtMethod
from CPS4Core.segmentation.pseudo_labels import enhance, keep_confident, leave_out, ramp


class CPS4(TaughtMethod):
    """1/2 (L_semi_text + L_semi_enhance) + L_sup."""

    takes_two_views = True

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        y_l, y_s = self.student_logits(batch)  # eq. 4
        z_t, text = self.teacher.logits(batch.unlabelled), batch.text
        target = enhance(z_t, text.maps, self.settings.enhanced_target, self.settings.teacher_weight)
        if self.settings.confidence:
            certainty = torch.maximum(z_t.softmax(1), text.certainty)
            target = keep_confident(target, certainty, self.settings.confidence)

        supervised = self.supervised_loss(y_l, batch.labels)  # eq. 5
        if self.settings.count_every:  # counted labels are labels; where they are unsure, so was the teacher
            target = leave_out(target, text.labels == IGNORE)
            semi_text = self.supervised_loss(y_s, text.labels)
        else:
            semi_text = cross_entropy(y_s, text.labels, text.trust)  # eq. 6
        semi_enhance = cross_entropy(y_s, target)  # eq. 7
        semi = (self.settings.text_weight * semi_text + semi_enhance) / 2
        total = ramp(batch.progress, self.settings.ramp) * semi + supervised
        return {"total": total, "sup": supervised, "semi_text": semi_text, "semi_enhance": semi_enhance}
