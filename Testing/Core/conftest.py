"""Small models, a small data set and small settings that tests share."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from CPS4Core.anatomy import class_prompts
from CPS4Core.config import Settings, load_settings
from CPS4Core.phantom.data_set import write_phantom_data_set
from CPS4Core.phantom.phantom import PhantomOptions

TINY_PHANTOMS = PhantomOptions(slices=(3, 4), pixel_mm=(2.6, 3.2), field_of_view_mm=(270, 300))


@pytest.fixture(scope="session")
def text_model(tmp_path_factory) -> Path:
    """A random BERT of small widths, in a folder, with a tokenizer that knows the words of the class prompts."""
    folder = tmp_path_factory.mktemp("text model")
    words = sorted({word for prompt in class_prompts() for word in prompt.rstrip(".").lower().split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def tiny_settings(text_model) -> Settings:
    """Settings whose training steps take milliseconds; the code path is that of the presets."""
    return load_settings(
        "small",
        [
            "input.size=[32, 64]",
            "input.spacing_mm=4.5",
            f"encoders.text={text_model}",
            'encoders.vision_options={"patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}',
            "encoders.dimension=8",
            "pretrain.epochs=3",
            "pretrain.batch=4",
            "train.widths=[4, 8]",
            "train.batch=2",
            "train.epochs=3",
            "train.steps_per_epoch=4",
            "train.validate_every=1",
            "checkpoint_minutes=0",
        ],
    )


@pytest.fixture(scope="session")
def data_set(tmp_path_factory) -> Path:
    """Six training phantoms, four of them labelled, and a test phantom."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    return write_phantom_data_set(folder, 6, test_cases=1, labelled=4, options=TINY_PHANTOMS)
