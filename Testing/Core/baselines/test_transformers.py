"""Objectives that look into transformers say so where the model has none."""

import pytest

from CPS4Core.baselines.transformers import text_transformer, vision_transformer
from CPS4Core.errors import CPS4Error
from CPS4Core.vision_language.known_prompts import KnownPrompts
from CPS4Core.vision_language.model import ClassPromptModel, build_model
from CPS4Core.vision_language.trunk import UNetVisionEncoder


def test_the_transformers_of_a_model_are_found(tiny_settings):
    model = build_model(tiny_settings.encoders, tiny_settings.input.size)
    assert (vision_transformer(model), text_transformer(model)) == (model.vision, model.text)


def test_a_model_like_the_base_model_has_none(tiny_settings):
    settings = tiny_settings.encoders
    text = build_model(settings, tiny_settings.input.size).text
    model = ClassPromptModel(UNetVisionEncoder((4, 8), 1), KnownPrompts.of(text, ["L4"]), settings)
    with pytest.raises(CPS4Error, match="vision transformer"):
        vision_transformer(model)
    with pytest.raises(CPS4Error, match="reads words"):
        text_transformer(model)
