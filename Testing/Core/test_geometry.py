"""The worst bug would be a mirrored or shifted result: every orientation, oblique ones, both canvas modes."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from CPS4Core.config import InputSettings
from CPS4Core.data.axis import Axis
from CPS4Core.data.best_classes import best_classes, scores_in
from CPS4Core.data.geometry import SliceGrid, check_sagittal, stack_axes
from CPS4Core.errors import CPS4Error

PAPER = InputSettings(size=(64, 128))
FIXED = InputSettings(size=(64, 128), spacing_mm=1.0)

# An asymmetric object in patient coordinates (mm; +x left, +y posterior, +z superior): label, centre, half size.
BOXES = (
    (1, (0.0, 0.0, -40.0), (14.0, 9.0, 7.0)),  # below
    (5, (0.0, -12.0, 5.0), (14.0, 6.0, 9.0)),  # in front
    (12, (11.0, 10.0, 25.0), (5.0, 6.0, 6.0)),  # on the left, behind and above
)


def make_volume(direction, spacing=(4.0, 0.9, 0.8), size=(12, 96, 150), centre=(5.0, -7.0, 30.0)):
    """Return an image and its labels, sampled from the boxes at each voxel's place in the patient.

    ``direction`` has the left-right, anterior-posterior and superior-inferior axes as columns, in any order;
    ``spacing`` and ``size`` belong to them in that anatomical order.
    """
    direction = np.asarray(direction, float)
    anatomical = np.abs(direction).argmax(0)
    spacing, size = np.array(spacing)[anatomical], np.array(size)[anatomical]
    origin = np.array(centre) - direction @ (spacing * (size - 1) / 2)
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
    points = (indices * spacing) @ direction.T + origin - np.array(centre)
    array = np.zeros(size, np.uint8)
    for label, middle, half in BOXES:
        array[(np.abs(points - middle) <= half).all(-1)] = label
    labels = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    labels.SetSpacing(spacing.tolist())
    labels.SetOrigin(origin.tolist())
    labels.SetDirection(direction.ravel().tolist())
    return sitk.Cast(labels, sitk.sitkFloat32) + sitk.AdditiveGaussianNoise(
        sitk.Cast(labels, sitk.sitkFloat32) * 0, 0.1, 0, 1
    ), labels


def one_hot(slices):
    return torch.from_numpy((slices[:, None] == np.arange(20)[:, None, None]).astype(np.float32))


def back_from(grid, scores):
    """Return the labels of class scores on the volume's own grid."""
    return grid.to_image(grid.labels_from_slices(scores_in(scores), scores.argmax(1).byte()).numpy())


def centroid(labels, label):
    """Return the centre of a label in patient coordinates, in mm."""
    z, y, x = (axis.mean() for axis in np.nonzero(sitk.GetArrayViewFromImage(labels) == label))
    return np.array(labels.TransformContinuousIndexToPhysicalPoint((x, y, z)))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def check_round_trip(image, labels, input_settings, whole=False, least=0.93):
    grid = SliceGrid.of(image, input_settings, whole)
    slices = grid.labels_to_slices(labels)
    back = back_from(grid, one_hot(slices))
    assert back.GetSize() == image.GetSize()
    np.testing.assert_allclose(back.GetSpacing(), image.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(back.GetDirection(), image.GetDirection(), atol=1e-6)
    truth, found = (sitk.GetArrayViewFromImage(image) for image in (labels, back))
    for label, *_ in BOXES:
        assert dice(truth == label, found == label) > least
        # Half a pixel of the finest spacing: a systematic shift of a pixel would show.
        np.testing.assert_allclose(centroid(back, label), centroid(labels, label), atol=0.4)
    return slices


def check_anatomy(slices):
    """Below is at the end of the columns, in front at the start of the rows, left at the end of the slices."""
    place = {label: np.array([axis.mean() for axis in np.nonzero(slices == label)]) for label, *_ in BOXES}
    assert place[1][2] > place[5][2] > place[12][2]
    assert place[5][1] < place[1][1] < place[12][1]
    assert place[12][0] > place[1][0] + 1


ORIENTATIONS = [
    np.eye(3)[:, list(order)] * np.array(signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def test_there_are_48_orientations():
    assert len({tuple(direction.ravel()) for direction in ORIENTATIONS}) == 48


@pytest.mark.parametrize("input_settings", [PAPER, FIXED], ids=["paper", "fixed spacing"])
@pytest.mark.parametrize("direction", ORIENTATIONS, ids=lambda direction: str(direction.astype(int).tolist()))
def test_every_orientation(direction, input_settings):
    image, labels = make_volume(direction)
    check_anatomy(check_round_trip(image, labels, input_settings, least=0.9))


def test_all_orientations_give_the_same_slices():
    expected = SliceGrid.of(make_volume(np.eye(3))[1], FIXED).labels_to_slices(make_volume(np.eye(3))[1])
    for direction in ORIENTATIONS:
        labels = make_volume(direction)[1]
        assert np.array_equal(SliceGrid.of(labels, FIXED).labels_to_slices(labels), expected)


@settings(max_examples=25, deadline=None)
@given(
    turn=st.tuples(*(st.floats(-30, 30),) * 3),
    orientation=st.integers(0, 47),
    spacing=st.tuples(st.floats(2.0, 4.5), st.floats(0.5, 1.1), st.floats(0.6, 1.1)),
    size=st.tuples(st.integers(12, 17), st.integers(90, 131), st.integers(140, 181)),
    input_settings=st.sampled_from([PAPER, FIXED]),
)
def test_obliques_odd_sizes_and_spacings(turn, orientation, spacing, size, input_settings):
    direction = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ ORIENTATIONS[orientation]
    _, labels = make_volume(direction, spacing, size)
    grid = SliceGrid.of(labels, input_settings, whole=True)
    slices = grid.labels_to_slices(labels)
    back = back_from(grid, one_hot(slices))
    np.testing.assert_allclose(back.GetDirection(), labels.GetDirection(), atol=1e-6)
    truth, found = (sitk.GetArrayViewFromImage(image) for image in (labels, back))
    inside = found != 0
    # The paper's canvas leaves out the front and the back of the volume: only what it covers can come back.
    covered = labels * sitk.Cast(grid.map_from_slices(np.ones(slices.shape)) > 0, labels.GetPixelID())
    for label, *_ in BOXES:
        if (sitk.GetArrayViewFromImage(covered) == label).sum() > 200:
            # An edge along the pixels may move by half a pixel of the canvas and half a voxel.
            steps_mm = (grid.rows.step * spacing[1], grid.columns.step * spacing[2])
            edge = (max(steps_mm) + max(spacing[1:])) / 2
            np.testing.assert_allclose(centroid(back, label), centroid(covered, label), atol=edge)
    # Nothing lands where there was nothing, but for a rim of interpolation.
    assert (truth[inside] == found[inside]).mean() > 0.85


def test_a_canvas_that_covers_the_volume_keeps_all_of_it():
    image, labels = make_volume(np.eye(3), size=(12, 150, 400), spacing=(4.0, 0.9, 0.9))
    cropped = SliceGrid.of(image, FIXED)
    whole = SliceGrid.of(image, FIXED, whole=True)
    assert (cropped.rows.canvas, cropped.columns.canvas) == (64, 128)
    assert (whole.rows.canvas, whole.columns.canvas) == (160, 384)
    assert whole.rows.canvas * 1.0 >= 150 * 0.9
    check_round_trip(image, labels, FIXED, whole=True)


def test_a_small_volume_is_padded_with_zeros_and_background():
    image, labels = make_volume(np.eye(3), size=(8, 40, 60))
    grid = SliceGrid.of(image, FIXED)
    slices = grid.to_slices(image)
    assert slices.shape == (8, 64, 128)
    assert not slices[:, :10].any()
    assert not slices[:, :, :30].any()
    values = slices[:, 15:49, 42:86]
    assert abs(values.mean()) < 0.2
    assert not grid.labels_to_slices(labels)[:, :10].any()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("orientation", [0, 17, 29, 46])
def test_an_empty_border_is_as_good_as_outside(orientation, whole):
    """A scan padded with black gives the same slices, and its labels on the same places of the patient."""
    image, labels = make_volume(ORIENTATIONS[orientation])
    order, _ = stack_axes(image.GetDirection())
    in_plane = [2 - axis for axis in order[1:]]  # of the axes x, y, z
    before, after = ([amount if axis in in_plane else 0 for axis in range(3)] for amount in (30, 11))
    lowest = float(sitk.GetArrayViewFromImage(image).min())
    padded = sitk.ConstantPad(image, before, after, lowest)
    grid, wide = (SliceGrid.of(scan, FIXED, whole=whole) for scan in (image, padded))
    slices = grid.to_slices(image)
    np.testing.assert_allclose(wide.to_slices(padded), slices, atol=1e-5)
    truth = one_hot(grid.labels_to_slices(labels))
    back = back_from(wide, truth)
    assert back.GetSize() == padded.GetSize() and back.GetOrigin() == padded.GetOrigin()
    expected = sitk.ConstantPad(back_from(grid, truth), before, after, 0)
    assert np.array_equal(sitk.GetArrayViewFromImage(back), sitk.GetArrayViewFromImage(expected))
    everywhere = back_from(wide, one_hot(np.full(slices.shape, 3)))
    picture = sitk.ConstantPad(sitk.Cast(image * 0 + 1, sitk.sitkUInt8), before, after, 0)
    found = sitk.GetArrayViewFromImage(everywhere) > 0
    assert found.any() and not (found & (sitk.GetArrayViewFromImage(picture) == 0)).any()


def test_a_picture_of_a_few_pixels_keeps_its_border():
    dot = np.zeros((5, 60, 80), np.int16)
    dot[2, 30:33, 40:44] = 100
    grid = SliceGrid.of(sitk.GetImageFromArray(dot), FIXED)
    assert grid.rows.border == grid.columns.border == (0, 0)


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_a_structure_seen_only_beside_a_small_volume_is_left_out(corner):
    image = sitk.GetImageFromArray(np.ones((5, 100, 60), np.int16))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, -1, 0))
    grid = SliceGrid.of(image, InputSettings(size=(80, 160), spacing_mm=1.0), whole=True)
    logits = torch.zeros(5, 20, 80, 160)
    logits[:, 3, corner[0], corner[1]] = 1
    assert not grid.labels_from_slices(scores_in(logits), logits.argmax(1).byte()).any()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.tuples(st.integers(3, 60), st.integers(3, 60)),
    canvas=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    steps=st.tuples(st.floats(0.4, 4.0), st.floats(0.4, 4.0)),
    starts=st.tuples(st.floats(-5, 2), st.floats(-5, 2)),
    seed=st.integers(0, 1000),
)
def test_the_best_class_is_that_of_the_interpolated_scores(lengths, canvas, steps, starts, seed):
    rows, columns = (Axis(*axis) for axis in zip(lengths, canvas, starts, steps, strict=True))
    # A canvas lies in the middle of its volume, never beside it.
    assume(all(len(axis.back()[1]) for axis in (rows, columns)))
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 5, *canvas)).astype(np.float32))
    expected, sure = slow_best_classes(scores.double().numpy(), rows, columns)
    found = best_classes(scores_in(scores), scores.argmax(1).byte(), rows, columns).numpy()
    assert np.array_equal(found[sure], expected[sure])
    assert sure.mean() > 0.9


def slow_best_classes(scores, rows, columns):
    """Interpolate every score at every pixel; also say where the best leads the second by more than rounding."""
    expected = np.zeros((len(scores), rows.length, columns.length), np.uint8)
    sure = np.ones(expected.shape, bool)
    for y, x in itertools.product(range(rows.length), range(columns.length)):
        i, j = (y - rows.start) / rows.step, (x - columns.start) / columns.step
        if not (-0.5 <= i <= rows.canvas - 0.5 and -0.5 <= j <= columns.canvas - 0.5):
            continue
        i, j = np.clip(i, 0, rows.canvas - 1), np.clip(j, 0, columns.canvas - 1)
        a, b = min(int(i), rows.canvas - 2), min(int(j), columns.canvas - 2)
        p, q = i - a, j - b
        four = scores[:, :, a : a + 2, b : b + 2]
        value = (four * (np.array([[1 - p], [p]]) * np.array([1 - q, q]))).sum((2, 3))
        expected[:, y, x] = value.argmax(1)
        ranked = np.sort(value, 1)
        sure[:, y, x] = ranked[:, -1] - ranked[:, -2] > 1e-5
    return expected, sure


def test_the_paper_takes_the_centre_half_of_the_rows():
    image = sitk.Image(
        200, 128, 5, sitk.sitkFloat32
    )  # x is the superior-inferior, y the anterior-posterior axis
    image.SetDirection((0, 0, 1, 0, 1, 0, -1, 0, 0))
    array = np.broadcast_to(np.arange(128, dtype=np.float32)[:, None], (5, 128, 200)).copy()
    ramp = sitk.GetImageFromArray(array)
    ramp.CopyInformation(image)
    rows = SliceGrid.of(ramp, PAPER).rows
    np.testing.assert_allclose(rows.positions[[0, -1]], [32.0, 95.0])
    grid = SliceGrid.of(ramp, InputSettings(size=(128, 128)))
    np.testing.assert_allclose(grid.rows.positions[[0, -1]], [31.75, 95.25])
    means = grid.to_slices(ramp).mean((0, 2))
    assert (np.diff(means) > -1e-3).all()  # anterior to posterior, not the other way


def test_maps_come_back_on_the_grid_of_the_volume():
    image, _ = make_volume(ORIENTATIONS[29])
    grid = SliceGrid.of(image, FIXED, whole=True)
    smooth = sitk.DiscreteGaussian(image, 9.0)
    stack = grid._canonical(sitk.GetArrayViewFromImage(smooth))
    slices = grid.rows.cubic @ stack @ grid.columns.cubic.T
    resampled = grid.columns.resample(grid.rows.resample(torch.from_numpy(stack.copy())).mT).mT
    np.testing.assert_allclose(resampled, slices, atol=1e-5)
    back = grid.map_from_slices(slices)
    np.testing.assert_allclose(
        sitk.GetArrayViewFromImage(back), sitk.GetArrayViewFromImage(smooth), atol=0.25
    )


@pytest.mark.parametrize(("spacing", "name"), [((0.7, 0.7, 4.0), "axial"), ((0.7, 4.0, 0.7), "coronal")])
def test_a_stack_of_other_slices_is_told_so(spacing, name, tmp_path):
    image, _ = make_volume(np.eye(3), spacing=spacing, size=(40, 40, 40))
    with pytest.raises(CPS4Error, match=name):
        check_sagittal(image, tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("spacing", [(4.4, 0.34, 0.34), (1.0, 1.0, 1.0), (0.9, 0.9, 1.6), (3.0, 2.5, 2.5)])
def test_sagittal_and_isotropic_volumes_pass(spacing):
    image, _ = make_volume(np.eye(3), spacing=spacing, size=(20, 30, 30))
    check_sagittal(image)


def test_one_sagittal_slice_is_enough_and_what_it_lacks_is_said():
    said = []
    check_sagittal(make_volume(np.eye(3), size=(1, 40, 40))[0], report=said.append)
    assert "single sagittal slice" in said.pop().message
    check_sagittal(make_volume(np.eye(3), size=(2, 40, 40))[0], report=said.append)
    assert not said


@pytest.mark.parametrize(("size", "name"), [((40, 40, 1), "axial"), ((40, 1, 40), "coronal")])
def test_one_slice_of_another_direction_is_told_so(size, name):
    image, _ = make_volume(np.eye(3), size=size)
    with pytest.raises(CPS4Error, match=f"single {name} slice"):
        check_sagittal(image)
