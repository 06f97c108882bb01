"""How sure a model is of a segmentation: network, teacher, class prompts."""

import json
import math
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.card import CARD, TEACHER
from CPS4Core.class_table import STRUCTURES, short_name
from CPS4Core.config import InputSettings
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.errors import Cancelled, CPS4Error
from CPS4Core.events import Warned, silent
from CPS4Core.inference import agreement
from CPS4Core.inference.agreement import Agreement, Checker, check_files
from CPS4Core.inference.attention import AttentionMapper
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.training.train import train
from CPS4Core.vision_language.maps import text_labels

CPU = torch.device("cpu")
L2, L3 = 5, 4


class FixedNetwork:
    """Gives the same logits whatever it sees."""

    input = InputSettings(size=(32, 64), spacing_mm=1.0)

    def __init__(self, logits, report=silent):
        self.logits = logits
        self.report = report

    def forward(self, slices, then, cancellation):
        for k in range(0, len(slices), 2):
            yield then(self.logits[k : k + 2], slice(k, k + 2))


def volume(array):
    image = sitk.GetImageFromArray(array)
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, -1, 0))  # x to the back, y to the feet, z to the left
    return image


def logits_of(labels, sure=10.0):
    """Logits that name ``labels`` (slices, AP, SI)."""
    logits = torch.full((len(labels), 20, *labels.shape[1:]), -1e4)
    logits[:, 0] = 0.0
    return logits.scatter(1, torch.from_numpy(labels).long().unsqueeze(1), sure)


def test_values_by_hand():
    stored = np.zeros((4, 64, 32), np.uint8)  # z, y (SI), x (AP)
    stored[1:3, 10:20, 4:12] = L2
    labels = volume(stored)
    seen = stored.transpose(0, 2, 1)
    half = seen.copy()
    half[2] = 0  # the teacher sees one of the two slices
    image = volume(np.random.default_rng(0).normal(size=stored.shape).astype(np.float32))
    # Where the structure is, its logit is ln 3 and that of the background 0: a probability of 3/4.
    checker = Checker(FixedNetwork(logits_of(seen, math.log(3))), FixedNetwork(logits_of(half)), None, {})
    (found,) = checker.check(image, labels).items()
    assert found[0] == L2
    assert found[1].network == pytest.approx(0.75, abs=1e-5)
    assert found[1].teacher == pytest.approx(2 * 80 / (160 + 80))
    assert found[1].prompts is None
    assert found[1].confidence == pytest.approx((0.75 + 2 / 3) / 2, abs=1e-3)


def two_structures():
    """An image, its labels with L2 and L3 in two slices of 80 voxels each, and the labels as the network sees them."""
    stored = np.zeros((2, 64, 32), np.uint8)
    stored[:, 10:20, 4:12] = L2
    stored[:, 30:40, 4:12] = L3
    return volume(np.ones(stored.shape, np.float32)), volume(stored), stored.transpose(0, 2, 1)


def test_the_prompts_share_by_hand(monkeypatch):
    image, labels, seen = two_structures()
    named = seen.copy()
    named[1][named[1] == L2] = L3  # the prompts call L2 the same in one of two slices, L3 in both

    def text_labels_by_hand(model, slices, least_peak):
        assert least_peak == 0
        assert len(slices) == len(named)
        return named

    monkeypatch.setattr(agreement, "text_labels", text_labels_by_hand)
    mapper = SimpleNamespace(least_peak=0.0, model=None)
    network = FixedNetwork(logits_of(seen))
    found = Checker(network, None, mapper, {}).check(image, labels)
    assert found[L2].prompts == pytest.approx(0.5)
    assert found[L3].prompts == pytest.approx(1.0)
    found = Checker(network, None, mapper, {short_name(L3): 0.0}).check(image, labels)
    assert found[L2].prompts == pytest.approx(0.5)
    assert found[L3].prompts is None


def test_prompts_that_nothing_trusts_are_not_computed(monkeypatch):
    image, labels, seen = two_structures()
    asked = []
    monkeypatch.setattr(agreement, "text_labels", lambda *_: asked.append(1) or seen)
    mapper = SimpleNamespace(least_peak=0.0, model=None)
    network = FixedNetwork(logits_of(seen))
    found = Checker(network, None, mapper, {short_name(L2): 0.0, short_name(L3): 0.0}).check(image, labels)
    assert not asked
    assert found[L2].prompts is found[L3].prompts is None
    Checker(network, None, mapper, {short_name(L2): 0.0}).check(image, labels)
    assert asked


def test_prompts_that_do_not_fit_into_the_memory_are_left_out(monkeypatch):
    image, labels, seen = two_structures()
    said = []

    def too_large(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(agreement, "text_labels", too_large)
    network = FixedNetwork(logits_of(seen), said.append)
    mapper = SimpleNamespace(least_peak=0.0, model=None)
    found = Checker(network, network, mapper, {}).check(image, labels)
    assert set(found[L2].known()) == {"network", "teacher"}
    assert [type(event) for event in said] == [Warned]


def test_a_structure_with_another_name_is_doubtful():
    stored = np.zeros((2, 64, 32), np.uint8)
    stored[:, 10:20, 4:12] = L2
    seen = np.where(stored == L2, L3, 0).astype(np.uint8).transpose(0, 2, 1)
    network = FixedNetwork(logits_of(seen))
    found = Checker(network, network, None, {}).check(
        volume(np.ones(stored.shape, np.float32)), volume(stored)
    )
    assert found[L2].network < 1e-3
    assert found[L2].teacher == 0


def test_the_mean_is_over_what_is_at_hand():
    assert Agreement(0.9, None, None).confidence == pytest.approx(0.9)
    assert Agreement(0.9, 0.6, None).confidence == pytest.approx(0.75)
    assert Agreement(0.9, 0.6, 0.3).confidence == pytest.approx(0.6)
    assert Agreement(0.9, None, 0.3).known() == {"network": 0.9, "prompts": 0.3}


@pytest.fixture(scope="module")
def segmented(data_set):
    """A scan, and labels that hold many structures: those of the phantom."""
    return data_set / "imagesTs/test_0001_0000.nii.gz", data_set / "labelsTs/test_0001.nii.gz"


def checker_of(folder):
    model = ModelFolder.open(folder)
    return Checker.of(model, Segmenter(model, CPU))


def test_a_trained_model_answers_with_all_its_parts(trained_model, segmented):
    image, labels = (sitk.ReadImage(str(path)) for path in segmented)
    model = ModelFolder.open(trained_model)
    network, mapper = Segmenter(model, CPU), AttentionMapper(model, CPU)
    found = Checker.of(model, network, mapper).check(image, labels)
    grid = SliceGrid.of(image, network.input, whole=True)
    truth, slices = grid.labels_to_slices(labels), grid.to_slices(image)
    assert set(found) == set(np.unique(truth).tolist()) - {0}
    with torch.inference_mode():
        logits = model.load_network()(torch.from_numpy(slices).unsqueeze(1))
        taught = model.load_network(TEACHER)(torch.from_numpy(slices).unsqueeze(1)).argmax(1).numpy()
    probability = logits.softmax(1).numpy()
    prompted = text_labels(mapper.model, slices)
    trust = model.card.text_trust
    for label, spoken in found.items():
        mask = truth == label
        assert spoken.network == pytest.approx(probability[:, label][mask].mean(), abs=1e-4)
        overlap = 2 * (mask & (taught == label)).sum() / (mask.sum() + (taught == label).sum())
        assert spoken.teacher == pytest.approx(overlap, abs=0.02)
        if trust.get(short_name(label), 1.0) > 0:
            assert spoken.prompts == pytest.approx((prompted[mask] == label).mean(), abs=0.02)
        else:
            assert spoken.prompts is None


def test_prompts_that_the_card_does_not_trust_are_not_asked(trained_model, segmented):
    image, labels = (sitk.ReadImage(str(path)) for path in segmented)
    model = ModelFolder.open(trained_model)
    network, mapper = Segmenter(model, CPU), AttentionMapper(model, CPU)
    doubted = Checker(network, None, mapper, {short_name(L3): 0.0, short_name(L2): 0.8})
    found = doubted.check(image, labels)
    assert found[L3].prompts is None
    assert found[L2].prompts is not None
    assert found[L3].teacher is None


def test_encoders_that_the_card_does_not_trust_are_not_loaded(trained_model, tmp_path):
    for trust, loaded in ((0.0, False), (0.1, True)):
        copy = tmp_path / f"model {trust}"
        shutil.copytree(trained_model, copy)
        card = json.loads((copy / CARD).read_text(encoding="utf-8"))
        card["text_trust"] = {structure.short: 0.0 for structure in STRUCTURES} | {
            "background": 1.0,
            "L3": trust,
        }
        (copy / CARD).write_text(json.dumps(card), encoding="utf-8")
        assert (checker_of(copy).mapper is not None) == loaded


def test_a_model_without_teacher_and_encoders_answers_with_its_network(
    data_set, tiny_settings, tmp_path, segmented
):
    settings = tiny_settings.model_copy(
        update={"train": tiny_settings.train.model_copy(update={"method": "supervised"})}
    )
    options = {"ratio": 1.0, "encoders": None, "device": CPU, "report": silent}
    cache = tmp_path / "cache"
    model = train(data_set, tmp_path / "run", settings, cancellation=Cancellation(), cache=cache, **options)
    assert not ModelFolder.open(model).has(TEACHER)
    found = check_files(checker_of(model), *segmented, silent, Cancellation())
    assert found
    assert all(set(spoken.known()) == {"network"} for spoken in found.values())
    with pytest.raises(CPS4Error, match="no teacher"):
        ModelFolder.open(model).load_network(TEACHER)


def test_it_stops_when_asked(trained_model, segmented):
    cancellation = Cancellation()
    cancellation.request()
    with pytest.raises(Cancelled):
        check_files(checker_of(trained_model), *segmented, silent, cancellation)


def test_labels_of_another_scan_are_refused(trained_model, segmented, tmp_path):
    other = sitk.Image(10, 10, 10, sitk.sitkUInt8)
    sitk.WriteImage(other, str(tmp_path / "other.nii.gz"))
    checker = checker_of(trained_model)
    with pytest.raises(CPS4Error, match="other"):
        check_files(checker, segmented[0], tmp_path / "other.nii.gz", silent, Cancellation())


def test_a_damaged_teacher_is_refused(trained_model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(trained_model, copy)
    card = json.loads((copy / CARD).read_text(encoding="utf-8"))
    weights = copy / card["weights"][TEACHER]["file"]
    weights.write_bytes(weights.read_bytes()[:-100])
    network = Segmenter(ModelFolder.open(copy), CPU)  # segmenting needs no teacher
    with pytest.raises(CPS4Error) as refused:
        Checker.of(ModelFolder.open(copy), network)
    assert refused.value.path == weights


def test_the_command_prints_a_table(trained_model, segmented):
    source, labels = map(str, segmented)
    command = [sys.executable, "-m", "CPS4Core.cli", "check", source, labels, "--model", str(trained_model)]
    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "Teacher" in done.stdout
    assert "L3" in done.stdout
