"""Levels of unlabelled volumes, counted inside stage 2: right names, silence where unsure, the same after a stop."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from made_up_spines import SPACING, draw, image_of, spine, wrong_by_one
from small_models import StopAt, random_batch, tiny_changes

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import IGNORE, NUM_CLASSES, find_label
from CPS4Core.config import AugmentSettings, InputSettings, load_settings
from CPS4Core.data.array_files import ArrayFiles
from CPS4Core.data.augment import draw as draw_changes
from CPS4Core.data.geometry import SliceGrid
from CPS4Core.errors import Cancelled
from CPS4Core.events import silent
from CPS4Core.model_folder import ModelFolder
from CPS4Core.naming.name import NamedPiece, Naming
from CPS4Core.segmentation.counting import Seen
from CPS4Core.segmentation.methods.cps4 import CPS4
from CPS4Core.systems import METHODS, find_method
from CPS4Core.training.counted_text import LABELS, LevelCounter, counted_targets, sure_labels
from CPS4Core.training.map_store import MapStore
from CPS4Core.training.run import make_accelerator
from CPS4Core.training.train import train
from CPS4Core.weights import load_weights

INPUT = InputSettings(size=(128, 256), spacing_mm=SPACING[1])
L3, L4 = find_label("L3"), find_label("L4")


def scores_of(labels):
    """Return sure logits of labels (slices, AP, SI)."""
    return 6 * torch.from_numpy(np.moveaxis(np.eye(NUM_CLASSES, dtype=np.float32)[labels], -1, 1))


@pytest.fixture
def counter(tmp_path, monkeypatch):
    """A counter of one case whose true spine is ``truth``, without text maps; ``teacher`` sees what it is given."""
    volume = image_of(draw(spine()))
    grid = SliceGrid.of(volume, INPUT)
    slices = grid.labels_to_slices(volume)
    empty = SimpleNamespace(binary=torch.zeros(NUM_CLASSES, *INPUT.size, dtype=torch.bool))
    store = SimpleNamespace(
        counts={"case": len(slices)},
        # The slice's number, for the teacher to know.
        images=lambda case: np.broadcast_to(
            np.arange(len(slices), dtype=np.float32)[:, None, None], slices.shape
        ).copy(),
    )
    inputs = SimpleNamespace(
        split=SimpleNamespace(unlabelled=("case", "unreadable")),
        store=store,
        grid=lambda case, settings: grid,
    )
    maps = MapStore(ArrayFiles(tmp_path))
    monkeypatch.setattr(MapStore, "maps", lambda self, case, k, size, least_peak: empty)
    settings = load_settings("base").model_copy(update={"input": INPUT})
    run = SimpleNamespace(
        settings=settings,
        accelerator=make_accelerator(torch.device("cpu")),
        device=torch.device("cpu"),
        folder=SimpleNamespace(report=silent),
        cancellation=Cancellation(),
    )
    found = LevelCounter(run, inputs, maps, torch.ones(NUM_CLASSES))
    found.truth = slices
    return found


def teacher_of(volume: sitk.Image):
    seen = scores_of(SliceGrid.of(volume, INPUT).labels_to_slices(volume))
    return lambda images: seen[images[:, 0, 0, 0].long()]


def test_names_that_are_off_by_one_are_counted_right(counter):
    counter.count(0, teacher_of(image_of(draw(wrong_by_one(spine())))))
    found = counter.labels([("case", k) for k in range(len(counter.truth))]).numpy()
    known = (found != IGNORE) & (counter.truth > 0)
    assert known.sum() > 0.9 * (counter.truth > 0).sum()
    assert (found == counter.truth)[known].mean() > 0.98


def test_without_the_sacrum_nothing_is_said_of_what_may_be_off_by_one(counter):
    counter.count(0, teacher_of(image_of(draw(spine("T11", "L5")))))
    found = counter.labels([("case", k) for k in range(len(counter.truth))]).numpy()
    assert set(np.unique(found)) == {0, IGNORE}


def test_a_counting_is_kept_and_the_next_one_is_another(counter):
    right, wrong = (teacher_of(image_of(draw(spine("T12")))), teacher_of(image_of(draw(spine("T10")))))
    counter.count(0, right)
    first = counter.labels([("case", 5)])
    counter.count(0, wrong)  # after a stop: what is counted is not counted again
    assert torch.equal(counter.labels([("case", 5)]), first)
    counter.count(1, wrong)
    assert not torch.equal(counter.labels([("case", 5)]), first)
    assert counter.number == 1
    counter.run.cancellation.request()
    with pytest.raises(Cancelled):
        counter.count(2, wrong)


def test_before_the_first_counting_nothing_is_said(counter):
    labels = counter.labels([("case", 5), ("case", 6)])
    assert labels.shape == (2, *INPUT.size) and (labels == IGNORE).all()


@pytest.mark.parametrize("trust", [0.0, 1.0])
def test_text_decides_where_the_teacher_is_unsure_as_far_as_it_is_trusted(counter, trust, monkeypatch):
    """The teacher sees the background and takes any structure for as likely as any other; the maps show them all."""
    maps = scores_of(counter.truth) > 0
    monkeypatch.setattr(
        MapStore, "maps", lambda self, case, k, size, least_peak: SimpleNamespace(binary=maps[k])
    )
    counter.trust = torch.full((NUM_CLASSES,), trust)
    background = torch.zeros(NUM_CLASSES)
    background[0], background[1:] = 3.0, 2.5
    least = {"confidence": 0.0}
    counter.run.settings = counter.run.settings.model_copy(
        update={"train": counter.run.settings.train.model_copy(update=least)}
    )

    def teacher(images):
        return (
            background[:, None, None].expand(len(images), -1, *INPUT.size)
            + 3 * maps[images[:, 0, 0, 0].long()] * (torch.arange(NUM_CLASSES) == 0)[:, None, None]
        )

    counter.count(0, teacher)
    found = counter.labels([("case", 5)]).numpy()[0]
    right = (found == counter.truth[5])[counter.truth[5] > 0].mean()
    assert right > 0.9 if trust else right < 0.2


def test_unsure_kinds_and_unsure_names_are_left_out():
    named = torch.tensor([[[0, L3, L3, L4]]], dtype=torch.uint8)
    kinds = torch.tensor([[9.0, 0, 0, 0], [0.0, 0, 9, 0], [1.0, 0, 1, 0], [0.0, 0, 9, 0]])
    seen = Seen(torch.ones(1, 1, 4, dtype=torch.bool), kinds, named.flatten(), torch.zeros(3, 19))
    pieces = (NamedPiece(L3, 0.0, 0.9), NamedPiece(L4, 30.0, 0.4))
    found = sure_labels(seen, named, Naming(named.numpy(), pieces, 0.6, ()), least_kind=0.7)
    assert found.tolist() == [[[0, L3, IGNORE, IGNORE]]]


def test_counted_labels_stand_for_the_maps_and_nothing_is_learnt_where_they_are_unsure():
    labels = torch.randint(NUM_CLASSES, (2, 8, 16), generator=torch.Generator().manual_seed(3))
    labels[:, :4] = IGNORE
    text = counted_targets(labels)
    assert torch.equal(text.maps.argmax(1)[:, 4:], labels[:, 4:]) and not text.maps[:, :, :4].any()

    settings = load_settings("base", ["train.widths=[4, 8]", "train.confidence=0"]).train
    torch.manual_seed(0)
    method = CPS4(settings)
    batch = random_batch()
    batch = type(batch)(batch.labelled, batch.labels, batch.unlabelled, text, 0.5)
    logits = []
    method.student.register_forward_hook(
        lambda module, inputs, output: logits.append(output) or output.retain_grad()
    )
    terms = method(batch)
    (terms["semi_text"] + terms["semi_enhance"]).backward()
    of_unlabelled = logits[0].grad[2:]
    assert not of_unlabelled[:, :, :4].any() and of_unlabelled[:, :, 4:].any()


def test_a_view_of_place_moves_alike_and_leaves_the_intensities():
    settings = AugmentSettings(gamma=0.5, bias=0.3, contrast_probability=1.0, shift=0.2)
    change = draw_changes((16, 32), settings, [[1], [2]]).augmentation(settings)
    images = torch.rand(2, 1, 16, 32)
    alone = change.of_place.images(images)
    assert torch.equal(change.of_place.grid, change.grid)
    assert not torch.allclose(change.images(images), alone)
    assert alone.max() <= images.max() + 1e-6 and alone.min() >= 0


def test_the_student_sees_the_strong_view_and_the_teacher_the_weak_one():
    torch.manual_seed(0)
    method = CPS4(load_settings("paper", ["train.widths=[4, 8]"]).train)
    batch = random_batch()
    seen = {}
    for name, network in (("student", method.student), ("teacher", method.teacher.network)):
        network.register_forward_pre_hook(lambda module, inputs, name=name: seen.update({name: inputs[0]}))
    text = counted_targets(batch.labels)
    method(
        type(batch)(batch.labelled, batch.labels, batch.unlabelled, text, 0.5, strong=batch.unlabelled + 1)
    )
    assert torch.equal(seen["student"][2:], batch.unlabelled + 1)
    assert torch.equal(seen["teacher"], batch.unlabelled)


@pytest.mark.parametrize("name", METHODS)
def test_a_system_looks_at_the_strong_view_only_if_it_says_so(name):
    """Else its slices would be changed less than those of the others, and the strong view made for nothing."""
    train = load_settings("paper", ["train.widths=[4, 8, 16, 32, 64]"]).train
    batch = random_batch(size=(32, 32))
    text = counted_targets(torch.randint(NUM_CLASSES, batch.labels.shape))

    def loss(strong):
        torch.manual_seed(0)
        return method_class(train)(replace(batch, text_targets=text, strong=strong))["total"].item()

    method_class = find_method(name).load()
    assert (loss(None) != loss(batch.unlabelled.exp())) == method_class.takes_two_views


@pytest.mark.slow
@pytest.mark.parametrize("looks", [17, 22])
def test_a_training_that_counts_resumes_to_the_same_bits(
    looks, data_set, text_model, trained_model, tmp_path
):
    changes = ["train.count_every=1", "train.two_views=true", "train.epochs=3", "train.steps_per_epoch=2"]
    settings = load_settings("small", [*tiny_changes(text_model), *changes])
    common = {"ratio": 0.5, "device": torch.device("cpu"), "report": silent, "encoders": trained_model}
    common |= {"cache": tmp_path / "cache", "start": trained_model}
    whole = train(data_set, tmp_path / "whole", settings, cancellation=Cancellation(), **common)
    counted = list((tmp_path / "whole/text_maps").glob("*/counted/*"))
    assert len(counted) == 3
    with pytest.raises(Cancelled):
        train(data_set, tmp_path / "run", settings, cancellation=StopAt(looks), **common)
    assert (tmp_path / "run/checkpoint.safetensors").exists()
    again = train(data_set, tmp_path / "run", settings, cancellation=Cancellation(), **common)
    for part, entry in ModelFolder.open(whole).card.weights.items():
        ours = load_weights(whole / entry.file)[0]
        theirs = load_weights(again / ModelFolder.open(again).card.weights[part].file)[0]
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    kept = ArrayFiles(counted[0])
    assert all(kept.read(path.name.split(".")[0], LABELS).dtype == np.uint8 for path in counted[0].iterdir())
