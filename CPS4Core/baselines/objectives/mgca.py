"""MGCA (Wang et al., NeurIPS 2022): slices and captions aligned as a whole, word by patch, and by prototype.

Published, the whole and the local tokens have projections of their own, and there are 500 prototypes. Here they share
``project_patch`` and ``project_prompt``, whose maps stage 2 takes, and fewer prototypes suit the smaller batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CPS4Core.baselines.captions import present_classes, same_caption
from CPS4Core.baselines.contrast import distinct_captions, info_nce, similarity
from CPS4Core.baselines.transformers import text_transformer, vision_transformer
from CPS4Core.config import PretrainSettings
from CPS4Core.vision_language.model import ClassPromptModel
from CPS4Core.vision_language.objective import Objective

GLOBAL_TEMPERATURE = 0.07
LOCAL_TEMPERATURE = 0.1
PROTOTYPE_TEMPERATURE = 0.2
PROTOTYPES = 48
SINKHORN_EPSILON = 0.05
SINKHORN_ITERATIONS = 3
OUTSIDE = -1e4
"""Logit of padding, which no softmax notices."""


class MGCA(Objective):
    """L_global + L_local + L_prototype, each of weight 1.

    As published, L_global is the sum of both directions, L_local the sum of words and patches, L_prototype the mean of
    both directions. ``info_nce`` and ``local`` are means, and so count twice.

    Slices that share a caption are positives of each other in L_global. In the other two they are never negatives:
    L_local contrasts the tokens of one slice, L_prototype contrasts prototypes. The words are those of the caption, as
    the tokenizer cuts them, without [CLS] and [SEP]. Each process contrasts its own share of the batch.
    """

    def __init__(self, model: ClassPromptModel, settings: PretrainSettings):
        super().__init__(model, settings)
        dimension = model.settings.dimension
        self.patches_to_words = nn.MultiheadAttention(dimension, num_heads=1, bias=False, batch_first=True)
        self.words_to_patches = nn.MultiheadAttention(dimension, num_heads=1, bias=False, batch_first=True)
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, dimension))
        # Fused attention returns no weights.
        text_transformer(model).model.set_attn_implementation("eager")
        vision_transformer(model).model.blocks[-1].attn.fused_attn = False

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        present = present_classes(labels)
        captions, places = distinct_captions(present)
        image_tokens, patches, patch_weights = self.image_and_patches(images)
        text_tokens = self.model.prompt_tokens(captions)[places]
        words, is_word, word_weights = (values[places] for values in self.words(captions))

        whole = info_nce(similarity(image_tokens, text_tokens) / GLOBAL_TEMPERATURE, same_caption(present))
        attended_patches = attend(self.patches_to_words, words, patches)
        attended_words = attend(self.words_to_patches, patches, words, is_word)
        local = (
            token_contrast(words, attended_patches, word_weights, is_word)
            + token_contrast(patches, attended_words, patch_weights)
        ) / 2
        prototype = prototype_loss(image_tokens, text_tokens, self.prototypes)
        return {
            "total": 2 * (whole + local) + prototype,
            "global": whole,
            "local": local,
            "prototype": prototype,
        }

    def image_and_patches(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the token of each slice, its patch tokens and what each patch weighs.

        A patch weighs what the class token pays it in the last layer; the same everywhere without a class token.

        Returns:
            Unit vectors, shapes (images, dimension) and (images, patches, dimension); weights of sum one, shape
            (images, patches).
        """
        vision = vision_transformer(self.model).model
        with watched(vision.blocks[-1].attn.attn_drop) as seen:
            image_tokens, patches = self.model.image_tokens(images)
        attention = seen[0][:, :, 0, vision.num_prefix_tokens :].float().mean(1)
        if not vision.has_class_token:
            attention = torch.ones_like(attention)
        return image_tokens, patches.flatten(1, 2), share(attention)

    def words(self, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the words of each caption, which of them are no padding, and what each word weighs.

        A word weighs what [CLS] pays it in the last layer.

        Returns:
            Unit vectors, shape (captions, longest, dimension); bool and weights of sum one, shape (captions, longest).
        """
        text = text_transformer(self.model)
        with watched(text.model, output_attentions=True) as seen:
            hidden, real = text.words(captions)
        is_word = real[:, 2:]  # a token between [CLS] and [SEP] is one that another follows
        words = F.normalize(self.model.project_prompt(hidden[:, 1:-1]).float(), dim=-1)
        attention = seen[0].attentions[-1][:, :, 0, 1:-1].float().mean(1)
        return words, is_word, share(attention * is_word)


@contextmanager
def watched(module: nn.Module, **more: Any) -> Iterator[list[Any]]:
    """Collect what ``module`` returns, called with ``more`` arguments than its caller gives."""
    seen: list[Any] = []
    hooks = (
        module.register_forward_pre_hook(lambda _, args, kwargs: (args, kwargs | more), with_kwargs=True),
        module.register_forward_hook(lambda _, args, output: seen.append(output)),
    )
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def share(attention: Tensor) -> Tensor:
    """Return attention scaled to a sum of one over the tokens, without a gradient: weights must not evade the loss."""
    return F.normalize(attention, p=1, dim=-1).detach()


def attend(
    attention: nn.MultiheadAttention, queries: Tensor, keys: Tensor, real: Tensor | None = None
) -> Tensor:
    """Return o_j = O sum_k softmax_k((Q t_j)^T (K v_k) / sqrt(d)) V v_k, what each query t_j sees in the keys v_k.

    The tokens are unit vectors. They are stretched by sqrt(d), to entries of variance one, or else the softmax would
    be flat and all queries would see the same.

    Args:
        attention: holds Q, K, V and O.
        queries: unit vectors, shape (images, queries, d).
        keys: unit vectors, shape (images, keys, d).
        real: which keys are no padding, bool, shape (images, keys).

    Returns:
        Unit vectors, shape (images, queries, d).
    """
    t, v = (tokens * tokens.shape[-1] ** 0.5 for tokens in (queries, keys))
    padding = None if real is None else ~real
    o, _ = attention(t, v, v, key_padding_mask=padding, need_weights=False)
    return F.normalize(o.float(), dim=-1)


def token_contrast(tokens: Tensor, attended: Tensor, weights: Tensor, real: Tensor | None = None) -> Tensor:
    """Tell each token by what it sees in the other modality, among the tokens of the same slice, and the reverse.

    -1/2 sum_j w_j (log softmax_k(cos(t_j, o_k) / tau) at k = j + log softmax_k(cos(t_k, o_j) / tau) at k = j)

    Args:
        tokens: t, unit vectors, shape (images, tokens, d).
        attended: o, unit vectors, shape (images, tokens, d).
        weights: w, of sum one and zero for padding, shape (images, tokens).
        real: which tokens are no padding, bool, shape (images, tokens).

    Returns:
        The mean over images: a scalar >= 0.
    """
    logits = similarity(tokens, attended) / LOCAL_TEMPERATURE
    if real is not None:
        logits = logits.masked_fill(~(real.unsqueeze(1) & real.unsqueeze(2)), OUTSIDE)
    right = logits.diagonal(dim1=1, dim2=2)
    per_token = (logits.logsumexp(2) + logits.logsumexp(1)) / 2 - right
    return (weights * per_token).sum(1).mean()


def prototype_loss(images: Tensor, texts: Tensor, prototypes: Tensor) -> Tensor:
    """Predict the prototypes of a slice from its caption's, and the reverse.

    -1/2 sum_k (q_text,k log p_image,k + q_image,k log p_text,k),  p = softmax_k(z^T c_k / tau),  q = Sinkhorn(z^T c)

    Slices that share a caption share q_text, and their caption learns the mean of their q_image.

    Args:
        images: z of the slices, unit vectors, shape (images, d).
        texts: z of their captions, unit vectors, shape (images, d).
        prototypes: c, of any length, shape (prototypes, d).

    Returns:
        The mean over images: a scalar >= 0.
    """
    c = F.normalize(prototypes.float(), dim=-1)
    image_scores, text_scores = similarity(images, c), similarity(texts, c)
    log_p_image, log_p_text = (
        (scores / PROTOTYPE_TEMPERATURE).log_softmax(1) for scores in (image_scores, text_scores)
    )
    q_image, q_text = sinkhorn(image_scores), sinkhorn(text_scores)
    return -(q_text * log_p_image + q_image * log_p_text).sum(1).mean() / 2


@torch.no_grad()
def sinkhorn(scores: Tensor) -> Tensor:
    """Return soft assignments that use all prototypes alike, by Sinkhorn and Knopp's iteration on exp(scores / eps).

    With fewer samples than prototypes they are spread thin; a single sample is spread over all prototypes.

    Args:
        scores: shape (samples, prototypes).

    Returns:
        Each row of sum one, shape (samples, prototypes).
    """
    log_q = scores / SINKHORN_EPSILON
    for _ in range(SINKHORN_ITERATIONS):
        log_q = log_q.log_softmax(0).log_softmax(1)
    return log_q.exp()
