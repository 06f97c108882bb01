"""The transformers inside a class prompt model, for the objectives that look at single words and at attention."""

from __future__ import annotations

from CPS4Core.errors import CPS4Error
from CPS4Core.vision_language.encoders import TextEncoder, VisionEncoder
from CPS4Core.vision_language.model import ClassPromptModel


def vision_transformer(model: ClassPromptModel) -> VisionEncoder:
    """Return the vision encoder.

    Raises:
        CPS4Error: if it is no transformer.
    """
    if not isinstance(model.vision, VisionEncoder):
        raise CPS4Error("The objective needs a vision transformer.", "Use the preset paper or small.")
    return model.vision


def text_transformer(model: ClassPromptModel) -> TextEncoder:
    """Return the text encoder.

    Raises:
        CPS4Error: if the model knows no text but the class prompts.
    """
    if not isinstance(model.text, TextEncoder):
        raise CPS4Error(
            "The objective needs a text encoder that reads words.", "Use the preset paper or small."
        )
    return model.text
