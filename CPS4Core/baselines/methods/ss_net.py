"""SS-Net (Wu et al., MICCAI 2022): outputs that no small step of the input moves much, classes that lie apart.

Where the published code does not do what it says, this does: the memory keeps the vectors that the selectors score
highest, not lowest, and weighs them. It takes them from the projection that the loss uses, not from a second one in
evaluation mode. Pixels are drawn at random, since a batch has a million of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from CPS4Core.baselines.class_memory import ClassMemory
from CPS4Core.baselines.vat import adversarial_distance
from CPS4Core.class_table import BACKGROUND, NUM_CLASSES
from CPS4Core.config import TrainSettings
from CPS4Core.segmentation.batch_norm import BatchNorm2d
from CPS4Core.segmentation.losses import dice_loss
from CPS4Core.segmentation.methods.method import Batch, Method
from CPS4Core.segmentation.pseudo_labels import ramp

UNSUPERVISED_WEIGHT = 0.1
"""Largest lambda of the published code for 2D images; it rises over the whole of the training."""
CONTRAST_WEIGHT = 0.1
WIDTH = 32
"""Channels of the vectors that are compared."""
MEMORY_SIZE = 32
"""Vectors that the memory keeps of each class."""
PIXELS = 16_384
"""Most pixels of the labelled, and of the unlabelled slices, that are compared in a step."""


class SSNet(Method):
    """Dice + lambda(t) (VAT + 0.1 (C_l + C_u)).

    Each of several processes has VAT and C of its own share of the batch; all have the same memory.
    """

    def __init__(self, settings: TrainSettings):
        super().__init__(settings)
        self.projection = _head(settings.widths[0])
        self.prediction = _head(WIDTH)
        self.memory = ClassMemory(NUM_CLASSES, WIDTH, MEMORY_SIZE)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        n = len(batch.labelled)
        images = torch.cat([batch.labelled, batch.unlabelled])
        features = self.student.decoder.features(self.student.encode(images))
        y = self.student.decoder.head(features)
        supervised = dice_loss(y[:n], batch.labels)
        smoothness = adversarial_distance(self.student, images, y.detach().float().softmax(1))
        C_l = self._labelled_contrast(features[:n], y[:n].argmax(1), batch.labels)
        C_u = self._unlabelled_contrast(features[n:], y[n:].argmax(1))
        unsupervised = smoothness + CONTRAST_WEIGHT * (C_l + C_u)
        total = supervised + UNSUPERVISED_WEIGHT * ramp(batch.progress, 1.0) * unsupervised
        return {"total": total, "sup": supervised, "smoothness": smoothness, "contrast": C_l + C_u}

    def _labelled_contrast(self, features: Tensor, predicted: Tensor, labels: Tensor) -> Tensor:
        """Return C_l, after the structures' pixels that are predicted right have renewed the memory."""
        x, predicted, labels = _drawn_pixels(features, predicted, labels)
        z = self.projection(x)
        right = (predicted == labels) & (labels != BACKGROUND)
        self.memory.update(z[right], labels[right])
        return self.memory.distance(self.prediction(z), labels)

    def _unlabelled_contrast(self, features: Tensor, predicted: Tensor) -> Tensor:
        """Return C_u, in which the prediction stands for the labels."""
        x, predicted = _drawn_pixels(features, predicted)
        return self.memory.distance(self.prediction(self.projection(x)), predicted)


def _head(inputs: int) -> nn.Sequential:
    """Return a head from ``inputs`` channels to WIDTH, of vectors (pixels, channels)."""
    return nn.Sequential(
        nn.Linear(inputs, WIDTH),
        nn.Unflatten(1, (WIDTH, 1, 1)),
        BatchNorm2d(WIDTH),
        nn.Flatten(),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
    )


def _drawn_pixels(features: Tensor, *labels: Tensor) -> tuple[Tensor, ...]:
    """Return features (pixels, channels) and labels (pixels,) of at most PIXELS pixels, drawn at random."""
    drawn = torch.randperm(features[:, 0].numel(), device=features.device)[:PIXELS]
    vectors = features.movedim(1, -1).flatten(0, -2)
    return vectors[drawn], *(values.flatten()[drawn] for values in labels)
