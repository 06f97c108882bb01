"""The base model: its learners, its parts, and the command that makes it."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import BACKGROUND, IGNORE, NUM_CLASSES
from CPS4Core.config import load_settings
from CPS4Core.errors import Cancelled, CPS4Error
from CPS4Core.events import Metric, silent
from CPS4Core.model_folder import ModelFolder
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.synthesis import bank as banks
from CPS4Core.synthesis.appearance import Appearance
from CPS4Core.synthesis.phantom.data_set import write_phantom_data_set
from CPS4Core.synthesis.recast import recast, two_looks
from CPS4Core.training.base_model import make_base_model
from CPS4Core.training.learners import PromptLearner, SemiSupervisedLearner, present_dice_loss
from CPS4Core.vision_language.known_prompts import KnownPrompts
from CPS4Core.vision_language.losses import token_masks
from CPS4Core.vision_language.model import build_model
from CPS4Core.vision_language.trunk import UNetVisionEncoder

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TINY = [
    "input.size=[64, 64]",
    "input.spacing_mm=4.0",
    "train.widths=[4, 4, 8]",
    'encoders.vision_options={"widths": [4, 4, 8], "level": 1}',
    "encoders.dimension=8",
    "checkpoint_minutes=0",
    "base.patients=4",
    "base.batch=4",
    "base.synthetic_steps=3",
    "base.labelled_steps=2",
    "base.prompt_steps=2",
    "base.unlabelled_steps=2",
]


@pytest.fixture
def few_patients(monkeypatch):
    monkeypatch.setattr(banks, "PATIENTS_A_FILE", 2)


def make(folder, data=(), cancellation=None, report=silent, minutes=None, start=None, changes=()):
    settings = load_settings("base", [*TINY, *changes])
    return make_base_model(
        folder, settings, data, ["case_0003"], start, minutes, CPU, report, cancellation or Cancellation()
    )


def test_from_synthetic_spines_alone(tmp_path, few_patients):
    model = make(tmp_path / "base")
    card = json.loads((model / "card.json").read_text())
    assert list(card["about"]["parts"]) == ["1-synthetic", "3-prompts"] and card["about"]["data_sets"] == []
    for file in model.glob("*.safetensors"):
        # In eight bits a number, with a scale in full for each row; half precision for what is small.
        dtypes = {tensor.dtype for tensor in load_file(file).values()}
        assert (
            {torch.int8, torch.float32} <= dtypes <= {torch.int8, torch.float32, torch.float16, torch.int64}
        )
    network = ModelFolder.open(model).load_network()
    assert next(network.parameters()).dtype == torch.float32
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, NUM_CLASSES, 64, 64)
    encoders = ModelFolder.open(model).load_encoders()
    A = encoders.attention(torch.zeros(1, 1, 64, 64), encoders.prompt_tokens(encoders.class_prompts()))
    assert A.shape == (1, NUM_CLASSES, 32, 32) and ((A > 0) & (A < 1)).all()


def test_with_real_scans_all_parts_run_and_some_cases_are_left_out(tmp_path, few_patients):
    data = write_phantom_data_set(tmp_path / "data", 5, labelled=3)
    model = make(tmp_path / "base", [data])
    card = json.loads((model / "card.json").read_text())
    assert list(card["about"]["parts"]) == ["1-synthetic", "2-labelled", "3-prompts", "4-unlabelled"]
    assert card["about"]["data_sets"][0]["labelled"] == ["case_0001", "case_0002"]
    assert card["about"]["data_sets"][0]["unlabelled"] == ["case_0004", "case_0005"]


def test_a_stopped_run_ends_in_the_same_weights(tmp_path, few_patients):
    whole = make(tmp_path / "whole")
    cancellation = Cancellation()

    def stop_at_the_first_step(event):
        if isinstance(event, Metric):
            cancellation.request()

    with pytest.raises(Cancelled):
        make(tmp_path / "stopped", cancellation=cancellation, report=stop_at_the_first_step)
    resumed = make(tmp_path / "stopped")
    for name in ("network", "encoders"):
        (first,), (second,) = (list(folder.glob(f"{name}*.safetensors")) for folder in (whole, resumed))
        first, second = load_file(first), load_file(second)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_going_on_from_a_model(tmp_path, few_patients):
    """Network and encoders are the starting point, the card says so, and the synthetic part is left out."""
    first = make(tmp_path / "first")
    data = write_phantom_data_set(tmp_path / "data", 2, labelled=2)
    model = make(tmp_path / "more", [data], start=first, changes=["base.learning_rate=1e-12"])
    before, after = ModelFolder.open(first), ModelFolder.open(model)
    assert list(after.card.about["parts"]) == ["2-labelled", "3-prompts"]
    assert after.card.about["went_on_from"]["network"] == before.sha256()
    assert after.card.step == before.card.step + 4
    for part in ("load_network", "load_encoders"):
        theirs = dict(getattr(after, part)().named_parameters())
        for name, parameter in getattr(before, part)().named_parameters():
            assert torch.allclose(parameter, theirs[name], atol=1e-6)


def test_a_run_goes_on_only_from_the_same_encoders(tmp_path, few_patients):
    """Though the network be the same: the prompts would be half of the one and half of the other."""
    first, other = make(tmp_path / "first"), tmp_path / "other"
    data = write_phantom_data_set(tmp_path / "data", 2, labelled=2)
    make(tmp_path / "more", [data], start=first)
    model = ModelFolder.open(first)
    weights = {part: load_file(first / entry.file) for part, entry in model.card.weights.items()}
    weights["encoders"] = {name: value + 1 for name, value in weights["encoders"].items()}
    ModelFolder.write(other, model.card.step, weights, model.card)
    assert ModelFolder.open(other).sha256() == model.sha256()
    with pytest.raises(CPS4Error, match="another run"):
        make(tmp_path / "more", [data], start=other)


def test_what_cannot_be_gone_on_from(tmp_path, few_patients):
    first = make(tmp_path / "first")
    with pytest.raises(CPS4Error, match="nothing to go on with"):
        make(tmp_path / "alone", start=first)
    data = write_phantom_data_set(tmp_path / "data", 1)
    with pytest.raises(CPS4Error, match="widths"):
        make(tmp_path / "other", [data], start=first, changes=["train.widths=[4, 8, 8]"])


def test_minutes_stop_it(tmp_path, few_patients):
    with pytest.raises(Cancelled):
        make(tmp_path / "base", minutes=1e-4)


def test_nothing_left_to_learn_from(tmp_path, few_patients):
    data = write_phantom_data_set(tmp_path / "data", 1)
    settings = load_settings("base", TINY)
    with pytest.raises(CPS4Error, match="Nothing is left"):
        make_base_model(tmp_path / "base", settings, [data], ["*"], None, None, CPU, silent, Cancellation())


def test_dice_of_the_classes_that_are_there():
    target = torch.tensor([[[0, 0], [3, IGNORE]]])
    sure = torch.full((1, NUM_CLASSES, 2, 2), -20.0)
    for row, column, label in ((0, 0, 0), (0, 1, 0), (1, 0, 3), (1, 1, 7)):
        sure[0, label, row, column] = 20.0
    assert float(present_dice_loss(sure, target)) == pytest.approx(0, abs=1e-4)
    # Half of the background taken for class 3: Dice 2/3 and 2/3.
    sure[0, :, 0, 1] = -20.0
    sure[0, 3, 0, 1] = 20.0
    assert float(present_dice_loss(sure, target)) == pytest.approx(1 / 3, abs=1e-4)


class NeverWaiting(TorchDispatchMode):
    """Refuses what a GPU would have to be waited for: results whose size, or whose place, depends on values."""

    def __init__(self, *numbers):
        super().__init__()
        aten = torch.ops.aten
        self.refused = {aten.nonzero.default, aten.masked_select.default, *numbers}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in self.refused, func
        if "index" in func.name() and isinstance(args[1], (list, tuple)):
            assert all(place is None or place.dtype != torch.bool for place in args[1]), func
        return func(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_device():
    settings = load_settings("base", TINY)
    draw = Appearance(settings.input.size, 4.0, torch.Generator().manual_seed(0), CPU)
    maps = torch.from_numpy(np.stack([banks.draw_patient_maps(0, patient) for patient in range(2)]))
    source, marks = torch.rand(2, 1, 80, 90) + 0.1, torch.ones(2, 80, 90, dtype=torch.uint8)
    with NeverWaiting():  # numbers of the CPU's own are drawn here
        images, labels = draw(maps)
        recast_images, recast_labels = recast(draw, source, marks, 4.0)
        weak, strong, seen = two_looks(draw, source, 4.0)
    images, labels = torch.cat([images, recast_images]), torch.cat([labels, recast_labels])
    encoders = build_model(settings.encoders, settings.input.size)
    prompts = PromptLearner(build_model(settings.encoders, settings.input.size), settings)
    network = SemiSupervisedLearner(settings, encoders)
    prompts.model.prompt_tokens(prompts.model.class_prompts())
    with NeverWaiting():  # one_hot checks its numbers, on the CPU alone
        prompts(images, labels)["total"].backward()
    with NeverWaiting(torch.ops.aten._local_scalar_dense.default):
        network(torch.cat([images, strong]), labels, weak, seen)["total"].backward()
        network.update_average(3)


def test_text_nudges_an_unsure_teacher_and_cannot_overrule_a_sure_one(monkeypatch):
    settings = load_settings("base", [*TINY, "base.confidence=0.5"])
    learner = SemiSupervisedLearner(settings, build_model(settings.encoders, settings.input.size))
    z_t = torch.full((1, NUM_CLASSES, 64, 64), -30.0)
    z_t[:, 3], z_t[:, 4] = 5.0, 4.5  # unsure: text for 4 decides
    z_t[:, 3, :, 32:] = 10.0  # sure: it does not
    monkeypatch.setattr(learner.average, "forward", lambda images: z_t)
    A = torch.full((1, NUM_CLASSES, 32, 32), 0.1)
    A[:, 4, 8:24] = 0.9
    monkeypatch.setattr(learner._encoders[0], "attention", lambda images, F_T: A)
    target = learner.pseudo_labels(torch.zeros(1, 1, 64, 64))[0]
    assert (target[24:40, :32] == 4).all() and (target[24:40, 32:] == 3).all()
    assert (target[:8] == 3).all()


def test_an_unsure_pseudo_label_is_unknown(monkeypatch):
    settings = load_settings("base", [*TINY, "base.confidence=0.9"])
    learner = SemiSupervisedLearner(settings, build_model(settings.encoders, settings.input.size))
    monkeypatch.setattr(learner.average, "forward", lambda images: torch.zeros(1, NUM_CLASSES, 64, 64))
    assert (learner.pseudo_labels(torch.zeros(1, 1, 64, 64)) == IGNORE).all()


def test_the_trunk_begins_with_a_network_and_keeps_its_features():
    torch.manual_seed(0)
    network = ResidualUNet((4, 8, 16)).eval()
    encoder = UNetVisionEncoder((4, 8, 16), 1)
    encoder.start_from(network.state_dict())
    images = torch.randn(2, 1, 32, 48)
    whole, patches = encoder.eval().tokens(images)
    expected = network.decoder.features(network.encode(images), 1)
    assert encoder.grid((32, 48)) == (16, 24) and patches.shape == (2, 16 * 24, 8)
    assert torch.allclose(patches.mT.view_as(expected), expected, atol=1e-5)
    assert torch.allclose(whole, patches.mean(1))
    assert encoder.grid((33, 47)) == (16, 24)  # stretched to what the U-Net can halve
    assert encoder.tokens(torch.randn(1, 1, 33, 47))[1].shape == (1, 16 * 24, 8)


class Letters(torch.nn.Module):
    width = 2

    def forward(self, prompts):
        return torch.tensor([[float(len(prompt)), 1.0] for prompt in prompts])


def test_known_prompts_need_no_encoder_and_others_do():
    known = KnownPrompts.of(Letters(), ["ab", "abc"])
    assert known(["abc"]).tolist() == [[3.0, 1.0]] and known(["abcd", "ab"]).tolist() == [
        [4.0, 1.0],
        [2.0, 1.0],
    ]

    def missing():
        raise CPS4Error("The text model package is not installed.", "Install it.")

    kept = KnownPrompts(["ab", "abc"], 2, missing)
    kept.load_state_dict(known.state_dict())
    assert kept(["ab"]).tolist() == [[2.0, 1.0]]
    with pytest.raises(CPS4Error, match="Only the class prompts"):
        kept(["a herniated disc"])


def test_a_share_of_a_patch_is_a_target_too():
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, 0, :2] = 3
    M, _ = token_masks(labels, (2, 2), "share")
    assert M[0, 3].tolist() == [[0.5, 0.0], [0.0, 0.0]] and M[0, BACKGROUND, 0, 0] == 0.5
    hard, _ = token_masks(labels, (2, 2))
    assert hard[0, 3].tolist() == [[True, False], [False, False]]


def test_the_segmenter_takes_it(tmp_path, few_patients):
    from CPS4Core.inference.segmenter import Segmenter

    model = make(tmp_path / "base")
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((3, 70, 60), dtype=np.float32))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    labels = Segmenter(ModelFolder.open(model), CPU).segment(image).labels
    assert labels.GetSize() == image.GetSize() and labels.GetDirection() == image.GetDirection()
