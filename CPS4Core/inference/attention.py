"""From a volume and a prompt to the prompt's attention map and its binary (Otsu) map (eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import find_label
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.model_folder import ModelFolder
from CPS4Core.vision_language.maps import TextMaps, text_maps


@dataclass(frozen=True)
class PromptMap:
    """What one prompt attends to in one volume."""

    prompt: str
    label: int | None
    """The class that the prompt names, None for a free prompt."""
    attention: sitk.Image
    """Up(A), float32 in (0, 1), on the grid of the volume."""
    binary: sitk.Image
    """Where Up(A) exceeds Otsu's threshold of its slice, uint8, on the grid of the volume."""
    peak: float
    """Largest attention in the volume, 0 to 1."""


class EncodedVolume:
    """A volume whose patch tokens are computed: each further prompt costs a product and no forward pass."""

    def __init__(self, grid: SliceGrid, tokens: Tensor, slices: np.ndarray):
        self.grid = grid
        self.tokens = tokens
        self.slices = slices


class AttentionMapper:
    """The class prompt model, loaded once for many volumes and prompts.

    Args:
        model: one that ``cps4 pretrain`` or ``cps4 train`` made.
        device: where to compute.

    Raises:
        CPS4Error: if the model has no encoders, or damaged ones.
    """

    def __init__(self, model: ModelFolder, device: torch.device):
        self.input = model.input
        self.least_peak = model.card.least_peak
        self.device = device
        self.model = model.load_encoders().to(device)
        self._prompt_tokens: dict[str, Tensor] = {}

    @torch.inference_mode()
    def encode(self, image: sitk.Image, cancellation: Cancellation | None = None) -> EncodedVolume:
        """Compute the patch tokens F_I of every slice of a volume.

        Raises:
            Cancelled: if the user asked to stop.
        """
        grid = SliceGrid.of(image, self.input, whole=True)
        slices = grid.to_slices(image)
        tokens = []
        for few in torch.from_numpy(slices).unsqueeze(1).split(4):
            if cancellation is not None:
                cancellation.check()
            tokens.append(self.model.patch_tokens(few.to(self.device)))
        return EncodedVolume(grid, torch.cat(tokens), slices)

    def prompt_for(self, text: str) -> tuple[str, int | None]:
        """Return the prompt for a class name (``L4``, ``Lumbar Vertebra 4``), or the text itself if it is none."""
        label = find_label(text)
        return (text, None) if label is None else (self.model.class_prompts()[label], label)

    @torch.inference_mode()
    def attend(self, volume: EncodedVolume, text: str) -> PromptMap:
        """Return what ``text``, a class name or any prompt, attends to in ``volume``."""
        prompt, label = self.prompt_for(text)
        maps = self._maps(self.attention(volume, prompt, label), volume)
        attention_image = volume.grid.map_from_slices(maps.attention.cpu().numpy())
        binary_image = volume.grid.map_from_slices(maps.binary.float().cpu().numpy()) >= 0.5
        # Not the peak of A: its largest token may lie in the padding beside the volume.
        peak = float(sitk.GetArrayViewFromImage(attention_image).max())
        return PromptMap(prompt, label, attention_image, binary_image, peak)

    @torch.inference_mode()
    def slice_maps(self, volume: EncodedVolume, text: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return Up(A), float32, and the binary map, bool, both (AP, SI), of slice ``k``."""
        maps = self._maps(self.attention(volume, *self.prompt_for(text))[k : k + 1], volume)
        return maps.attention[0].cpu().numpy(), maps.binary[0].cpu().numpy()

    def _maps(self, A: Tensor, volume: EncodedVolume) -> TextMaps:
        """Return the maps of A (slices, h, w); each map is looked at alone, so slices may stand for classes."""
        return text_maps(A, volume.slices.shape[-2:])

    @torch.inference_mode()
    def attention(self, volume: EncodedVolume, prompt: str, label: int | None) -> Tensor:
        """Return A of one prompt, float32 in (0, 1), shape (slices, h, w)."""
        prompts = self.model.class_prompts()
        if self.model.settings.attention == "class_softmax":
            # The softmax needs all classes; a free prompt competes with them as one more.
            competing = prompts if label is not None else [*prompts, prompt]
            A = self.model.attend(volume.tokens, self._tokens(competing))
            return A[:, label if label is not None else -1]
        return self.model.attend(volume.tokens, self._tokens([prompt]))[:, 0]

    def _tokens(self, prompts: list[str]) -> Tensor:
        missing = [prompt for prompt in prompts if prompt not in self._prompt_tokens]
        if missing:
            self._prompt_tokens.update(zip(missing, self.model.prompt_tokens(missing), strict=True))
        return torch.stack([self._prompt_tokens[prompt] for prompt in prompts])
