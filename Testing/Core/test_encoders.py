"""Encoders from a local folder, as a user without a network brings them."""

import json
import socket

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from small_models import tiny_settings, write_text_model

from CPS4Core.errors import CPS4Error
from CPS4Core.vision_language.encoders import build_text_encoder, build_vision_encoder
from CPS4Core.vision_language.model import build_model


@pytest.fixture
def settings(tmp_path):
    return tiny_settings(write_text_model(tmp_path / "text ü"))


def test_a_text_encoder_comes_from_a_folder(settings):
    encoder = build_text_encoder(settings.encoders)
    one, other = encoder(["Lumbar Vertebra 3", "Lumbar Vertebra 4"])
    assert one.shape == (encoder.width,)
    assert not torch.allclose(one, other)


def test_a_vision_encoder_comes_from_a_folder_with_its_stem_summed_to_one_channel(settings, tmp_path):
    folder = tmp_path / "vision"
    folder.mkdir()
    options = {"patch_size": 16, "depth": 1, "embed_dim": 16, "num_heads": 2}
    trained = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, **options)
    save_file(trained.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"architecture": "vit_tiny_patch16_224", "model_args": options, "num_classes": 0})
    )
    encoders = settings.encoders.model_copy(update={"vision": str(folder), "vision_options": {}})
    built = build_vision_encoder(encoders, (32, 64), pretrained=True)
    stem, summed = trained.patch_embed.proj.weight, built.model.patch_embed.proj.weight
    torch.testing.assert_close(summed, stem.sum(1, keepdim=True))
    image, patches = built.tokens(torch.zeros(2, 1, 32, 64))
    assert image.shape == (2, 16)
    assert patches.shape == (2, 2 * 4, 16)


def test_missing_weights_are_named_with_the_remedies_and_nothing_is_asked_of_the_network(
    settings, monkeypatch
):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address) or [])
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for field, build in (
        ("text", build_text_encoder),
        ("vision", lambda encoders: build_vision_encoder(encoders, (32, 64), pretrained=True)),
    ):
        name = {"text": "emilyalsentzer/Bio_ClinicalBERT", "vision": "vit_base_patch16_224"}[field]
        encoders = settings.encoders.model_copy(update={field: name, "vision_options": {}})
        with pytest.raises(CPS4Error) as caught:
            build(encoders)
        assert name in caught.value.problem
        assert "folder" in caught.value.remedy
    assert not asked


def test_a_folder_without_weights_is_named(settings, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    encoders = settings.encoders.model_copy(update={"vision": str(folder), "vision_options": {}})
    with pytest.raises(CPS4Error, match=r"model\.safetensors"):
        build_vision_encoder(encoders, (32, 64), pretrained=True)


def test_a_tokenizer_that_lost_its_words_is_refused(settings):
    from pathlib import Path

    folder = Path(settings.encoders.text)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]")
    with pytest.raises(CPS4Error, match="same text"):
        build_model(settings.encoders, settings.input.size)
    (folder / "vocab.txt").unlink()
    with pytest.raises(CPS4Error):
        build_model(settings.encoders, settings.input.size)
