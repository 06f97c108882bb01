"""The class prompt model: two encoders, one space, and the attention map of each class prompt."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CPS4Core.class_table import class_prompts
from CPS4Core.config import EncoderSettings
from CPS4Core.errors import CPS4Error
from CPS4Core.size_limit import SizeLimit
from CPS4Core.vision_language import trunk
from CPS4Core.vision_language.encoders import (
    TextEncoder,
    VisionEncoder,
    build_text_encoder,
    build_vision_encoder,
    rebuild_text_encoder,
)
from CPS4Core.vision_language.known_prompts import KnownPrompts
from CPS4Core.vision_language.trunk import UNetVisionEncoder


class ClassPromptModel(nn.Module):
    """Vision and text encoder with their projections to the space where patch tokens meet class prompts.

    Args:
        vision: encodes slices into patch tokens.
        text: encodes prompts into one token each.
        settings: the joint space and how similarity becomes attention.
    """

    def __init__(
        self,
        vision: VisionEncoder | UNetVisionEncoder,
        text: TextEncoder | KnownPrompts,
        settings: EncoderSettings,
    ):
        super().__init__()
        self.vision = vision
        self.text = text
        self.settings = settings
        self.project_patch = nn.Linear(vision.width, settings.dimension)
        self.project_prompt = nn.Linear(text.width, settings.dimension)
        self.w = nn.Parameter(torch.tensor(settings.scale))
        self.b = nn.Parameter(torch.tensor(settings.bias))

    def patch_tokens(self, images: Tensor) -> Tensor:
        """Return F_I, unit vectors, shape (images, h, w, dimension), of slices (images, 1, H, W)."""
        return self.image_tokens(images)[1]

    def image_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return one token for each slice and F_I, its patch tokens, through the same projection.

        Args:
            images: standardised slices, shape (images, 1, H, W).

        Returns:
            Unit vectors, shapes (images, dimension) and (images, h, w, dimension).
        """
        whole, patches = (
            F.normalize(self.project_patch(tokens).float(), dim=-1) for tokens in self.vision.tokens(images)
        )
        return whole, patches.unflatten(1, self.vision.grid(images.shape[-2:]))

    def prompt_tokens(self, prompts: list[str]) -> Tensor:
        """Return F_T, unit vectors, shape (prompts, dimension)."""
        return F.normalize(self.project_prompt(self.text(prompts)).float(), dim=-1)

    def attention(self, images: Tensor, prompt_tokens: Tensor) -> Tensor:
        """Return A, the attention map of each prompt over the patch tokens of each slice.

        Args:
            images: standardised slices, shape (images, 1, H, W).
            prompt_tokens: F_T, shape (prompts, dimension).

        Returns:
            float32 in (0, 1), shape (images, prompts, h, w).
        """
        return self.attend(self.patch_tokens(images), prompt_tokens)

    def attend(self, F_I: Tensor, F_T: Tensor) -> Tensor:
        """Return A = sigmoid(w F_I F_T^T + b), or with ``class_softmax`` the softmax of w F_I F_T^T over the prompts.

        Args:
            F_I: patch tokens, unit vectors, shape (images, h, w, dimension).
            F_T: prompt tokens, unit vectors, shape (prompts, dimension).

        Returns:
            float32 in (0, 1), shape (images, prompts, h, w).
        """
        cosine = torch.einsum("bhwd,nd->bnhw", F_I, F_T)
        if self.settings.attention == "class_softmax":
            return (self.w * cosine).softmax(1)
        return torch.sigmoid(self.w * cosine + self.b)

    def class_prompts(self) -> list[str]:
        """Return the 20 class prompts of this model, in label order."""
        return class_prompts(self.settings.prompt_names, self.settings.prompt_template)

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with the weights of a segmentation network, whose encoder the vision encoder then is.

        Raises:
            CPS4Error: if the vision encoder is no residual U-Net.
        """
        if not isinstance(self.vision, UNetVisionEncoder):
            raise CPS4Error(
                "A vision transformer cannot begin with a segmentation network.",
                f"Set encoders.vision to {trunk.NAME!r}.",
            )
        self.vision.start_from(weights)

    @torch.no_grad()
    def centre_prompts(self) -> None:
        """Shift the projection of prompts so that the mean of the class prompts falls on the origin."""
        was_training = self.text.training
        mean = self.project_prompt(self.text.eval()(self.class_prompts())).mean(0)
        self.project_prompt.bias.sub_(mean)
        self.text.train(was_training)

    @torch.no_grad()
    def prompt_similarity(self) -> Tensor:
        """Return the pairwise cosine of the 20 class prompts, shape (20, 20): only a digit tells levels apart."""
        tokens = self.prompt_tokens(self.class_prompts())
        return tokens @ tokens.T


def build_model(settings: EncoderSettings, size: tuple[int, int]) -> ClassPromptModel:
    """Build the model for slices of ``size`` with the pretrained weights that ``settings`` name.

    Raises:
        CPS4Error: if a model is not known, its weights are missing, or its tokenizer cannot tell the classes apart.
    """
    with SizeLimit():
        vision = build_vision_encoder(settings, size, pretrained=settings.vision_pretrained)
        text = build_text_encoder(settings)
        model = ClassPromptModel(vision, text, settings)
    prompts = model.class_prompts()
    if len({tuple(words) for words in text.tokenizer(prompts)["input_ids"]}) < len(prompts):
        # A tokenizer that lost its list of words reads each of them as unknown, and says nothing.
        raise CPS4Error(
            f"The text encoder {settings.text!r} reads several class prompts as the same text.",
            "Check that its folder holds vocab.txt or tokenizer.json, and that the prompt template names the class.",
        )
    if settings.text_in_package:
        model.text = KnownPrompts.of(text, prompts)
    if settings.centre_prompts:
        model.centre_prompts()
    return model


def rebuild_model(settings: EncoderSettings, size: tuple[int, int], text_folder: Path) -> ClassPromptModel:
    """Build the model without weights, for a checkpoint to fill; ``text_folder`` describes its text encoder.

    Raises:
        CPS4Error: if a model is not known or the text encoder's description is incomplete.
    """
    vision = build_vision_encoder(settings, size, pretrained=False)
    if not settings.text_in_package:
        return ClassPromptModel(vision, rebuild_text_encoder(text_folder, settings), settings)
    prompts = class_prompts(settings.prompt_names, settings.prompt_template)
    known = KnownPrompts(prompts, settings.text_width, lambda: build_text_encoder(settings))
    return ClassPromptModel(vision, known, settings)
