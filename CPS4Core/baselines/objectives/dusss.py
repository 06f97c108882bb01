"""DuSSS, its pretraining (Pan et al., AAAI 2025): contrast across and within image and text, aware of uncertainty.

Its contrasts are those of triple contrastive learning (TCL; Yang et al., CVPR 2022). Ours differ where the data do:
slices with the same caption are positives of each other, a caption that they share counts once, a batch is its own
negatives, without a queue, and a slice has one augmented view. Open, so chosen here: lambda, the share that is masked,
and that masked slices are matched with the whole ones.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CPS4Core.baselines.captions import present_classes
from CPS4Core.baselines.contrast import distinct_captions, evenly, matching_loss
from CPS4Core.baselines.transformers import text_transformer
from CPS4Core.config import PretrainSettings
from CPS4Core.vision_language.model import ClassPromptModel
from CPS4Core.vision_language.objective import Objective

MOMENTUM = 0.995
TEMPERATURE = 0.07
"""Where TCL's starts; here it stays."""
LAMBDA = 1.0
MASKED_SHARE = 0.5
WEIGHTS = {
    "i2t": 1 / 6,
    "t2i": 1 / 6,
    "i2i": 1 / 6,
    "t2t": 1 / 6,
    "i2i_local": 0.2 / 6,
    "t2t_local": 0.2 / 6,
    "masked_feature": 0.1,
    "masked_image": 0.1,
}
EPSILON = 1e-6


class Gaussians(NamedTuple):
    """What images, texts or parts of them mean: a normal distribution each, with a diagonal covariance."""

    mean: Tensor
    """mu, unit vectors, shape (n, dimension)."""
    deviation: Tensor
    """sigma, positive, shape (n, dimension)."""
    caption: Tensor
    """The number of the caption that each belongs to, shape (n,)."""


class DuSSS(Objective):
    """1/6 (i2t + t2i + i2i + t2t + 0.2 (i2i_local + t2t_local)) + 0.1 masked_feature + 0.1 masked_image.

    Queries come from the model, keys from its momentum copy, which no gradient reaches. The means are the projections
    that stage 2 uses; the deviations come from two heads beside the model, one for images and one for texts, which
    queries and keys share. Each process contrasts its own share of the batch.
    """

    def __init__(self, model: ClassPromptModel, settings: PretrainSettings):
        super().__init__(model, settings)
        dimension = model.settings.dimension
        self.image_log_deviation = nn.Linear(dimension, dimension)
        self.text_log_deviation = nn.Linear(dimension, dimension)
        # A frozen text encoder is its own moving average.
        shared = {id(model.text): model.text} if settings.text_learning_rate == 0 else {}
        self.momentum = copy.deepcopy(model, shared).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> DuSSS:
        """Keep the momentum copy in evaluation mode: keys have no dropout."""
        super().train(mode)
        self.momentum.eval()
        return self

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        captions, places = distinct_captions(present_classes(labels))
        of_image = torch.tensor(places, device=images.device)
        of_text = torch.arange(len(captions), device=images.device)

        whole, patches = self.model.image_tokens(images)
        masked_image, masked_feature = self._masked(images, patches)
        image = self._images(whole, of_image)
        text = self._texts(self.model.prompt_tokens(captions), of_text)
        image_key, patch_keys = self._image_keys(images, of_image)
        text_key, word_keys = self._text_keys(captions, of_text)

        terms = {
            "i2t": contrast(image, text_key),
            "t2i": contrast(text, image_key),
            "i2i": contrast(image, image_key),
            "t2t": contrast(text, text_key),
            "i2i_local": contrast(image, patch_keys),
            "t2t_local": contrast(text, word_keys),
            "masked_feature": contrast(self._images(masked_feature, of_image), image_key),
            "masked_image": contrast(self._images(masked_image, of_image), image_key),
        }
        total = torch.stack([weight * terms[name] for name, weight in WEIGHTS.items()]).sum()
        return {"total": total, **terms}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the momentum copy towards the model."""
        torch._foreach_lerp_(list(self.momentum.parameters()), list(self.model.parameters()), 1 - MOMENTUM)

    def _images(self, mean: Tensor, caption: Tensor) -> Gaussians:
        return Gaussians(mean, self.image_log_deviation(mean).float().exp(), caption)

    def _texts(self, mean: Tensor, caption: Tensor) -> Gaussians:
        return Gaussians(mean, self.text_log_deviation(mean).float().exp(), caption)

    def _image_keys(self, images: Tensor, caption: Tensor) -> tuple[Gaussians, Gaussians]:
        """Return the slices and their patches, by the momentum copy."""
        with torch.no_grad():
            whole, patches = self.momentum.image_tokens(images)
        patches = patches.flatten(1, 2)
        of_patch = caption.repeat_interleave(patches.shape[1])
        return self._images(whole, caption), self._images(patches.flatten(0, 1), of_patch)

    def _text_keys(self, captions: list[str], caption: Tensor) -> tuple[Gaussians, Gaussians]:
        """Return the captions and their words, by the momentum copy."""
        with torch.no_grad():
            whole = self.momentum.prompt_tokens(captions)
            hidden, real = text_transformer(self.momentum).words(captions)
            is_word = real[:, 2:]  # a token between [CLS] and [SEP] is one that another follows
            words = F.normalize(self.momentum.project_prompt(hidden[:, 1:-1][is_word]).float(), dim=-1)
        return self._texts(whole, caption), self._texts(words, is_word.nonzero()[:, 0])

    def _masked(self, images: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Hide random patches of slices: in the image, before it is encoded, and among the patch tokens, after it.

        Args:
            images: shape (images, 1, H, W).
            patches: their patch tokens, shape (images, h, w, dimension).

        Returns:
            The token of each masked image, and the mean direction of the patch tokens left: unit vectors, both
            (images, dimension).
        """
        kept = (torch.rand(patches.shape[:3], device=images.device) >= MASKED_SHARE).float()
        visible = images * F.interpolate(kept.unsqueeze(1), images.shape[-2:])
        left = F.normalize((patches * kept.unsqueeze(-1)).sum((1, 2)), dim=-1)
        return self.model.image_tokens(visible)[0], left


def contrast(query: Gaussians, key: Gaussians) -> Tensor:
    """Return the InfoNCE of each query with the keys, those of the same caption its positives: a scalar >= 0."""
    same_caption = query.caption.unsqueeze(1) == key.caption
    return matching_loss(similarity(query, key) / TEMPERATURE, evenly(same_caption))


def similarity(p: Gaussians, q: Gaussians) -> Tensor:
    """Return the supervised similarity of each pair, s = 1 - (1 - cos) exp(-lambda D_u / D_s).

    D_s is the Euclidean distance of the means, D_u the 2-Wasserstein distance of the Gaussians: D_u^2 = D_s^2 +
    |sigma_p - sigma_q|^2. Pairs of high uncertainty are held to be more alike than their means are, since one image
    may mean several texts and one text several images.

    Returns:
        float32 in [-1, 1], shape (p, q).
    """
    with torch.autocast(p.mean.device.type, enabled=False):
        cos = p.mean @ q.mean.T
        squares = p.deviation.square().sum(1).unsqueeze(1) + q.deviation.square().sum(1)
        deviations_apart = (squares - 2 * p.deviation @ q.deviation.T).clamp_min(0)
    D_s_squared = (2 - 2 * cos).clamp_min(EPSILON)  # of unit vectors
    relative_uncertainty = (1 + deviations_apart / D_s_squared).sqrt()  # D_u / D_s
    return 1 - (1 - cos) * (-LAMBDA * relative_uncertainty).exp()
