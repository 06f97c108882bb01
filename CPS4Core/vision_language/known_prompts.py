"""A frozen text encoder that stays in its package.

A model that never trained its text encoder need not carry it: the tokens of the class prompts are kept with the model,
and any other prompt is encoded by the package, once someone types it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from CPS4Core.errors import CPS4Error
from CPS4Core.vision_language.encoders import TextEncoder


class KnownPrompts(nn.Module):
    """Tokens of known prompts, and an encoder that is loaded for others.

    Args:
        prompts: those whose tokens are kept.
        width: of a token.
        load: returns the encoder, a module that encodes a list of prompts; called once, when it is needed.
    """

    tokens: Tensor

    def __init__(self, prompts: Sequence[str], width: int, load: Callable[[], TextEncoder]):
        super().__init__()
        self.width = width
        self.register_buffer("tokens", torch.zeros(len(prompts), width))
        self._place = {prompt: place for place, prompt in enumerate(prompts)}
        self._load = load
        self._encoder: list[TextEncoder] = []  # not a child: its weights are not the model's

    @classmethod
    def of(cls, encoder: TextEncoder, prompts: Sequence[str]) -> KnownPrompts:
        """Keep the tokens that ``encoder`` gives ``prompts``."""
        known = cls(prompts, encoder.width, lambda: encoder)
        with torch.no_grad():
            known.tokens.copy_(encoder.eval()(list(prompts)))
        return known

    def forward(self, prompts: list[str]) -> Tensor:
        """Return the token of each prompt, (prompts, width).

        Raises:
            CPS4Error: if a prompt is not known and its encoder is not installed.
        """
        if all(prompt in self._place for prompt in prompts):
            return self.tokens[[self._place[prompt] for prompt in prompts]]
        if not self._encoder:
            try:
                self._encoder.append(self._load().eval().requires_grad_(False))
            except CPS4Error as error:
                raise CPS4Error(
                    f"Only the class prompts can be looked at: {error.problem[0].lower()}{error.problem[1:]}",
                    error.remedy,
                ) from error
        encoder = self._encoder[0].to(self.tokens.device)
        with torch.no_grad():
            return encoder(prompts)

    def freeze(self) -> None:
        """Nothing here is ever trained."""
