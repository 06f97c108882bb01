"""Synthetic spines: anatomy, tissue maps, and random appearance."""

import itertools

import numpy as np
import pytest
import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import BACKGROUND, BY_LABEL, HEAD_TO_TAIL, IGNORE
from CPS4Core.events import silent
from CPS4Core.synthesis import bank as banks
from CPS4Core.synthesis.appearance import Appearance, standardise
from CPS4Core.synthesis.bank import COLUMNS, PLANES, ROWS, draw_bank, draw_patient_maps
from CPS4Core.synthesis.patient import draw_patient
from CPS4Core.synthesis.recast import recast, two_looks
from CPS4Core.synthesis.tissues import (
    CODES,
    LABEL_OF,
    STRUCTURE_OF,
    TISSUE_OF,
    TISSUES,
    bone,
    disc,
    surrounding,
)

SIZE = (96, 160)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    """Tissue maps of six patients."""
    return torch.from_numpy(np.stack([draw_patient_maps(7, patient) for patient in range(6)]))


def appearance(seed: int = 0) -> Appearance:
    return Appearance(SIZE, 2.0, torch.Generator().manual_seed(seed), CPU)


def test_codes_fit_a_byte_and_know_their_label():
    assert CODES <= 256 and len(TISSUE_OF) == len(STRUCTURE_OF) == CODES
    assert BY_LABEL[LABEL_OF[bone(1, "marrow")]].short == "L4"
    assert BY_LABEL[LABEL_OF[bone(8, "posterior_cortex")]].short == "T9"
    assert BY_LABEL[LABEL_OF[disc(0, "nucleus")]].short == "L5/S"
    assert BY_LABEL[LABEL_OF[bone(10, "cortex")]].short == "S"
    assert (
        LABEL_OF[bone(9, "marrow")]
        == LABEL_OF[disc(9, "annulus")]
        == LABEL_OF[surrounding("csf")]
        == BACKGROUND
    )
    assert TISSUES[TISSUE_OF[disc(3, "cleft")]] == "cleft"


def test_a_patient_is_the_same_for_the_same_seed_alone(maps):
    assert np.array_equal(draw_patient_maps(7, 2), maps[2].numpy())
    assert not np.array_equal(draw_patient_maps(8, 2), maps[2].numpy())
    assert maps.shape[1:] == (PLANES, ROWS, COLUMNS)


def test_structures_follow_one_another_from_head_to_tail(maps):
    seen = 0
    for plane in maps[:, 0].numpy():
        labels = LABEL_OF[plane]
        columns = [
            np.nonzero(labels == label)[1].mean() for label in HEAD_TO_TAIL if (labels == label).sum() > 100
        ]
        assert columns == sorted(columns)
        seen += len(columns)
    assert seen > 60  # of six patients


def test_the_faces_of_the_spine_meet():
    # Each disc lies between its vertebrae: the distance of their middles is half of both heights.
    patient = draw_patient(np.random.default_rng(3))
    spine = [segment for segment in patient.segments if segment.kind in ("vertebra", "disc")]
    for below, above in itertools.pairwise(spine):
        apart = np.hypot(above.y - below.y, above.z - below.z)
        assert apart == pytest.approx((below.height + above.height) / 2, abs=4)


def test_an_appearance_repeats_for_the_same_seed_alone(maps):
    images, labels = appearance(1)(maps)
    again, labels_again = appearance(1)(maps)
    other, _ = appearance(2)(maps)
    assert torch.equal(images, again) and torch.equal(labels, labels_again)
    assert not torch.equal(images, other)


def test_an_appearance_is_standardised_and_labelled(maps):
    images, labels = appearance()(maps)
    assert images.shape == (6, 1, *SIZE) and labels.shape == (6, *SIZE) and labels.dtype == torch.int64
    assert torch.isfinite(images).all()
    assert set(labels.unique().tolist()) <= set(LABEL_OF.tolist())
    assert (labels > 0).any((1, 2)).sum() >= 4
    assert (images[:, 0][labels > 0] != 0).float().mean() > 0.99  # no structure outside the field of view
    assert 0.5 < float(images[images != 0].std()) < 1.5


def test_two_patients_of_one_map_look_different(maps):
    images, _ = appearance()(maps[:1].repeat(2, 1, 1, 1))
    assert not torch.allclose(images[0], images[1])


def test_recast_keeps_what_is_unknown_and_what_lies_outside():
    images = torch.randn(4, 1, 120, 200).abs() + 0.1
    images[:, :, :30] = 0  # beside the scan
    labels = torch.full((4, 120, 200), 3, dtype=torch.uint8)
    labels[:, :, 100:] = IGNORE
    looks, known = recast(appearance(), images, labels, 2.0)
    assert looks.shape == (4, 1, *SIZE)
    assert set(known.unique().tolist()) == {BACKGROUND, 3, IGNORE}
    assert (looks[:, 0][known == BACKGROUND] == 0).all()


def test_two_looks_show_the_same_place():
    images = torch.zeros(1, 1, 120, 200) + 0.5
    images[..., 60:, :] = 2.0
    weak, strong, seen = two_looks(appearance(5), images, 2.0)
    assert seen.any() and (strong[:, 0][~seen] == 0).all()
    assert (weak[:, 0][seen] != 0).float().mean() > 0.99
    bright = weak[:, 0] > 0
    assert abs(float(strong[:, 0][seen & bright].mean() - strong[:, 0][seen & ~bright].mean())) > 0.1


def test_standardise_leaves_the_outside_at_zero():
    image = torch.arange(100.0).view(1, 1, 10, 10)
    inside = torch.ones(1, 10, 10, dtype=torch.bool)
    inside[:, :2] = False
    result = standardise(image, inside)
    assert (result[:, :, :2] == 0).all()
    assert float(result[:, :, 2:].mean()) == pytest.approx(0, abs=1e-5)
    assert float(result[:, :, 2:].std()) == pytest.approx(1, abs=1e-3)
    inside[:, 3:] = False  # a row is too little to tell what is bright
    assert (standardise(image, inside) == 0).all()


def test_standardise_clips_what_sticks_out_of_each_image_alone():
    images = torch.rand(2, 1, 64, 65, generator=torch.Generator().manual_seed(0))
    images[0, 0, 10, 10] = 1e6
    images[1] *= 50
    result = standardise(images, torch.ones(2, 64, 65, dtype=torch.bool))
    assert result.abs().max() < 2  # an even spread ends at the square root of 3
    torch.testing.assert_close(result.std((1, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)


def test_planes_at_the_flanks_show_bodies_against_muscle_and_no_cord(monkeypatch):
    monkeypatch.setattr(banks, "FLANKS", 1.0)
    maps = np.stack([draw_patient_maps(7, patient)[0] for patient in range(8)])
    assert not (maps == surrounding("cord")).any()
    bodies, muscle = (TISSUE_OF[maps] == TISSUES.index("marrow")), maps == surrounding("muscle")
    assert bodies.any((1, 2)).sum() >= 6
    near = np.zeros_like(bodies)  # within 3 mm in front of a body
    for rows in (1, 2, 3):
        near[:, :-rows] |= bodies[:, rows:]
    assert (near & muscle).any((1, 2)).sum() >= 4


def test_a_bank_draws_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(banks, "PATIENTS_A_FILE", 2)
    bank = draw_bank(tmp_path, 3, 0, 1, silent, Cancellation())
    assert len(bank) == 4 and bank.maps([3, 0]).shape == (2, PLANES, ROWS, COLUMNS)
    assert np.array_equal(bank.maps([1])[0], draw_patient_maps(0, 1))
    before = [file.stat().st_mtime_ns for file in bank.files]
    assert draw_bank(tmp_path, 3, 0, 1, silent, Cancellation()).files == bank.files
    assert [file.stat().st_mtime_ns for file in bank.files] == before
