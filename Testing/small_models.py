"""Small models and settings that tests train in seconds; the code path is that of the presets.

As a script, it trains a model that finds structures in small phantoms, for the tests of the Slicer module:

    python Testing/small_models.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import BertConfig, BertModel

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import ENCODERS, NETWORK, TEACHER
from CPS4Core.class_table import NUM_CLASSES, class_prompts
from CPS4Core.config import Settings, load_settings
from CPS4Core.events import silent
from CPS4Core.model_folder import ModelFolder, new_card
from CPS4Core.segmentation.methods.method import Batch
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.synthesis.phantom.data_set import write_phantom_data_set
from CPS4Core.synthesis.phantom.volume import PhantomOptions
from CPS4Core.training.pretrain import pretrain
from CPS4Core.training.train import train
from CPS4Core.vision_language.model import build_model

MEMORY_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 16.55 MB)."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
]
"""What CUDA, MPS and the CPU raise where their memory does not suffice."""
MODELS = Path(__file__).parent / "Core" / "models"
"""Tiny models with every part: ``format-1`` and so on, as a version with that format of the card wrote it."""
TINY_PHANTOMS = PhantomOptions(slices=(3, 4), pixel_mm=(2.6, 3.2), field_of_view_mm=(270, 300))


class StopAt(Cancellation):
    """Asks to stop once the loop has looked ``looks`` times."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks < 0


def random_batch(
    labelled: int = 2,
    unlabelled: int = 2,
    progress: float = 0.5,
    size: tuple[int, int] = (8, 16),
    seed: int = 1,
) -> Batch:
    """Return a batch of stage 2 of noise and random labels."""
    random = torch.Generator().manual_seed(seed)
    return Batch(
        labelled=torch.randn(labelled, 1, *size, generator=random),
        labels=torch.randint(NUM_CLASSES, (labelled, *size), generator=random),
        unlabelled=torch.randn(unlabelled, 1, *size, generator=random),
        progress=progress,
    )


def write_text_model(folder: Path, width: int = 16, layers: int = 1, heads: int = 2, inner: int = 32) -> Path:
    """Write a random BERT, by default of small widths, with a tokenizer that knows the words of the class prompts."""
    words = sorted({word for prompt in class_prompts() for word in prompt.rstrip(".").lower().split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words]
    folder.mkdir(parents=True, exist_ok=True)
    # As Bio_ClinicalBERT comes: a list of words, read by the tokenizer that the configuration names.
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}'
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_changes(text_model: Path) -> list[str]:
    """Return the changes to the preset ``small`` whose training steps take milliseconds."""
    return [
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
    ]


def tiny_settings(text_model: Path) -> Settings:
    """Return the settings whose training steps take milliseconds."""
    return load_settings("small", tiny_changes(text_model))


def write_random_model(folder: Path, text_model: Path) -> Path:
    """Write a model of random weights that has every part, and return its folder."""
    gate = ["train.presence_gate=true", "train.presence_threshold=0.25"]
    settings = load_settings("small", [*tiny_changes(text_model), *gate])
    torch.manual_seed(1)
    prompts = build_model(settings.encoders, settings.input.size)
    with torch.no_grad():  # a text encoder that tells prompts apart, as a trained one does
        for weight in prompts.text.model.parameters():
            if weight.ndim > 1:
                weight.mul_(15)
    prompts.centre_prompts()
    network, teacher = (ResidualUNet(settings.train.widths) for _ in range(2))
    parts = {NETWORK: network, TEACHER: teacher, ENCODERS: prompts}
    encoders = settings.encoders.model_copy(update={"text": text_model.name})  # the folder may go
    settings = settings.model_copy(update={"encoders": encoders})
    card = new_card(settings, stage=2, step=12, text_trust={"L4": 0.5}, data={"labelled_cases": 4})
    weights = {part: module.state_dict() for part, module in parts.items()}
    ModelFolder.write(folder, 12, weights, card, text=prompts.text)
    return folder


def train_finding_model(folder: Path) -> Path:
    """Train a model, small but good enough to find vertebrae in small phantoms, and return its folder.

    ``settings.txt`` beside it holds the changes that make training a matter of seconds, as the panel Train takes them.
    """
    text = write_text_model(folder / "text model")
    (folder / "settings.txt").write_text(";".join(tiny_changes(text)), encoding="utf-8")
    data = write_phantom_data_set(folder / "data", 8, test_cases=1, labelled=6, options=TINY_PHANTOMS)
    changes = [
        *tiny_changes(text),
        "train.widths=[8, 16, 32]",
        "train.learning_rate=0.01",
        "train.epochs=4",
        "train.steps_per_epoch=50",
        "train.text_weight=0",
    ]
    settings = load_settings("small", changes)
    common = {"ratio": 1.0, "device": torch.device("cpu"), "report": silent, "cancellation": Cancellation()}
    encoders = pretrain(data, folder / "stage 1", settings, **common)
    return train(data, folder / "stage 2", settings, encoders=encoders, **common)


if __name__ == "__main__":
    print(train_finding_model(Path(sys.argv[1])))
