"""Measures of spines whose heights, angles and slips are known."""

import numpy as np
import pytest
from measured_spines import SpineShape, build, draw
from scipy.spatial.transform import Rotation

from CPS4Core.class_table import BY_LABEL
from CPS4Core.evaluation.measure import measure_image
from CPS4Core.measuring import measure_labels, measure_masks
from CPS4Core.synthesis.phantom.volume import PhantomOptions, make_phantom

MM, DEGREES = 1.0, 2.0
ISOTROPIC, SAGITTAL = (0.9, 0.9, 0.9), (1.1, 0.8, 4.4)


LABELS = {structure.short: label for label, structure in BY_LABEL.items()}


def shifted(*steps):
    matrix = np.eye(4)
    matrix[:3, 3] = steps
    return matrix


def turned(*degrees):
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def elevation(face, right):
    """How much the front of a face stands higher than its back, seen from the right, in degrees."""
    front, back = face
    up = np.array([0.0, 0, 1]) - right[2] * right
    up /= np.linalg.norm(up)
    return np.degrees(np.arctan2((front - back) @ up, (front - back) @ np.cross(up, right)))


def faces(solid):
    upper = solid.corner(-1, 1), solid.corner(1, 1)
    return upper, upper if solid.name == "S" else (solid.corner(-1, -1), solid.corner(1, -1))


def true_lordosis(upper, lower):
    right = upper.axes[0] + lower.axes[0]
    right /= np.linalg.norm(right)
    return elevation(faces(upper)[0], right) - elevation(faces(lower)[1], right)


def true_slip(upper, lower):
    front, back = faces(lower)[0]
    return (upper.corner(1, -1) - back) @ (front - back) / np.linalg.norm(front - back)


def check(spine, solids, but=()):
    """Compare all measures with those of the solids."""
    for name, solid in solids.items():
        if name in but:
            continue
        shape = spine.shapes[name]
        assert shape.problem is None, name
        if name == "S":
            continue
        found = shape.anterior_mm, shape.middle_mm, shape.posterior_mm
        assert found == pytest.approx(solid.heights(), abs=MM), name
        assert shape.wedge_deg == pytest.approx(np.degrees(solid.wedge), abs=DEGREES), name
    for disc, segment in spine.segments.items():
        if {segment.upper, segment.lower} & set(but) or not {segment.upper, segment.lower} <= set(solids):
            continue
        upper, lower = solids[segment.upper], solids[segment.lower]
        assert segment.slip_mm == pytest.approx(true_slip(upper, lower), abs=MM), disc
        assert segment.lordosis_deg == pytest.approx(true_lordosis(upper, lower), abs=DEGREES), disc
        beside = [np.mean(solid.heights()) for solid in (upper, lower) if solid.name != "S"]
        index = np.mean(solids[disc].heights()) / np.mean(beside)
        assert segment.height_index == pytest.approx(index, abs=0.06), disc
    if {"L1", "S"} <= set(solids) - set(but):
        assert spine.lordosis_deg == pytest.approx(true_lordosis(solids["L1"], solids["S"]), abs=DEGREES)


@pytest.mark.parametrize(
    ("patient", "grid", "spacing"),
    [
        ((0, 0, 0), (0, 0, 0), SAGITTAL),
        ((0, 0, 0), (6, -9, 12), SAGITTAL),
        ((12, 8, -10), (0, 0, 0), SAGITTAL),
        ((-15, 5, 8), (4, 6, -5), SAGITTAL),
        ((-15, 5, 8), (4, 6, -5), ISOTROPIC),
    ],
    ids=["straight", "oblique slices", "turned patient", "both", "isotropic"],
)
def test_heights_angles_and_slips_are_those_of_the_solids(patient, grid, spacing):
    solids = build(SpineShape(slips={"L4/L5": 6.0, "L2/L3": -3.0}, turn=turned(*patient)))
    check(measure_labels(*draw(solids, spacing, turned(*grid))), solids)


def test_the_lordosis_is_the_sum_of_the_wedges():
    shape = SpineShape()
    spine = measure_labels(*draw(build(shape), SAGITTAL))
    between = [name for name in shape.names if name not in ("S", "T12/L1", "T12")]
    assert spine.lordosis_deg == pytest.approx(
        sum(shape.wedges_deg.get(name, 0) for name in between), abs=DEGREES
    )


def test_a_scoliosis_is_measured_in_the_plane_of_each_body():
    solids = build(SpineShape(curve_mm=12.0, slips={"L3/L4": 4.0}))
    tilts = [np.degrees(np.arcsin(solid.axes[2][0])) for solid in solids.values()]
    assert np.ptp(tilts) > 20
    check(measure_labels(*draw(solids, SAGITTAL)), solids)


def test_posterior_elements_are_no_part_of_a_body():
    solids = build(SpineShape())
    with_them, without = (measure_labels(*draw(solids, SAGITTAL, posterior=drawn)) for drawn in (True, False))
    for name, shape in with_them.shapes.items():
        alone = without.shapes[name]
        assert shape.posterior_mm == pytest.approx(alone.posterior_mm, abs=0.5, nan_ok=True)
        assert shape.wedge_deg == pytest.approx(alone.wedge_deg, abs=1.0, nan_ok=True)
        if "/" not in name and name != "S":
            assert shape.volume_ml > 1.2 * alone.volume_ml


def test_a_fracture_and_hollow_end_plates_show_in_the_heights():
    heights, wedges = {"L2": 18.0}, SpineShape().wedges_deg | {"L2": -20.0}
    solids = build(SpineShape(heights=heights, wedges_deg=wedges, hollow={"L4": 2.5}))
    spine = measure_labels(*draw(solids, SAGITTAL))
    check(spine, solids)
    fracture, hollow = spine.shapes["L2"], spine.shapes["L4"]
    assert fracture.anterior_mm < 0.55 * fracture.posterior_mm
    assert hollow.middle_mm < min(hollow.anterior_mm, hollow.posterior_mm) - 3


@pytest.mark.parametrize("above", [-8.0, -22.0])
def test_what_the_border_cuts_is_not_measured_and_is_said(above):
    solids = build(SpineShape())
    spine = measure_labels(*draw(solids, SAGITTAL, above=above))
    cut = {name for name, shape in spine.shapes.items() if shape.problem == "cut"}
    assert "T12" in cut and cut <= {"T12", "T12/L1"}
    assert np.isnan(spine.shapes["T12"].anterior_mm) and spine.shapes["T12"].outline is None
    assert np.isnan(spine.segments["T12/L1"].slip_mm)
    check(spine, solids, but=cut)


def test_a_body_of_which_only_posterior_elements_are_seen_does_not_mislead():
    solids = build(SpineShape())
    labels, to_ras = draw(solids, SAGITTAL)
    rows = np.flatnonzero((labels == 7).any((0, 2)))
    spine = measure_labels(labels[:, rows[0] + 33 :], to_ras @ shifted(0, rows[0] + 33, 0))
    assert spine.shapes["T12"].problem == "cut"
    check(spine, solids, but=("T12", "T12/L1"))


def test_few_slices_over_the_middle_are_enough():
    solids = build(SpineShape())
    check(measure_labels(*draw(solids, (0.8, 0.7, 4.4), slices=3)), solids)
    check(measure_labels(*draw(solids, (0.8, 0.7, 4.4), slices=1)), solids)


def test_the_order_and_direction_of_the_axes_do_not_matter():
    labels, to_ras = draw(build(SpineShape()), SAGITTAL, turned(3, 5, -4))
    spine = measure_labels(labels, to_ras)
    size = np.array(labels.T.shape)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = size[0] - 1
    flipped = measure_labels(labels[:, :, ::-1], to_ras @ flip)
    swap = np.eye(4)[[2, 0, 1, 3]]
    swapped = measure_labels(labels.T.transpose(1, 2, 0).T, to_ras @ swap)
    for other in (flipped, swapped):
        assert other.lordosis_deg == pytest.approx(spine.lordosis_deg, abs=1e-6)
        for name, shape in spine.shapes.items():
            assert other.shapes[name].anterior_mm == pytest.approx(shape.anterior_mm, abs=1e-6, nan_ok=True)


def test_structures_alone_are_measured_as_in_the_row():
    solids = build(SpineShape())
    labels, to_ras = draw(solids, SAGITTAL)
    whole = measure_labels(labels, to_ras)
    for names in (["L3"], ["L3/L4"], ["L3", "L2"], ["S", "L5"]):
        wanted = {name: whole.shapes[name] for name in names}
        alone = measure_masks(((name, labels == LABELS[name]) for name in names), to_ras)
        for name, shape in wanted.items():
            assert alone.shapes[name].problem is None
            assert alone.shapes[name].anterior_mm == pytest.approx(shape.anterior_mm, abs=MM, nan_ok=True)
            assert alone.shapes[name].wedge_deg == pytest.approx(shape.wedge_deg, abs=DEGREES, nan_ok=True)


def test_names_beyond_the_class_table_are_measured_too():
    labels, to_ras = draw(build(SpineShape()), SAGITTAL)
    moved = {"L1": "T8", "L1/L2": "T8/T9", "L2": "T9", "L3": "a cyst"}
    spine = measure_masks(((new, labels == LABELS[old]) for old, new in moved.items()), to_ras)
    assert list(spine.shapes) == ["T8", "T8/T9", "T9"]
    assert spine.segments["T8/T9"].slip_mm == pytest.approx(0, abs=MM)


def test_what_has_no_shape_of_a_body_is_not_measured():
    labels, to_ras = draw(build(SpineShape()), SAGITTAL)
    random = np.random.default_rng(0)
    speck, noise = np.zeros(labels.shape, bool), random.uniform(size=labels.shape) < 0.02
    speck[6, 100, 60] = True
    masks = {"L3": speck, "L4": noise, "L3/L4": speck, "L4/L5": noise, "S": speck, "L1": np.zeros_like(speck)}
    spine = measure_masks(masks.items(), to_ras)
    assert set(spine.shapes) == {"L3", "L4", "L3/L4", "L4/L5", "S"}
    assert all(shape.outline is None and shape.problem for shape in spine.shapes.values())
    assert spine.shapes["L3"].volume_ml == pytest.approx(np.prod(SAGITTAL) / 1000)
    assert not measure_masks([], to_ras).shapes


@pytest.mark.parametrize("seed", range(3))
def test_phantoms_measure_as_they_were_drawn(seed):
    phantom = make_phantom(
        seed,
        PhantomOptions(
            pixel_mm=(0.8, 0.8), field_of_view_mm=(230.0, 230.0), slices=(11, 11), pathology=False
        ),
    )
    spine = measure_image(phantom.labels)
    elements = {
        BY_LABEL[element.label].short: element
        for element in phantom.patient.elements
        if element.kind != "sacrum" and element.label
    }
    measured = {name for name, shape in spine.shapes.items() if shape.outline is not None and name != "S"}
    assert len(measured) > 8
    for name in measured:
        shape, element = spine.shapes[name], elements[name]
        lean = element.depth * np.tan(element.wedge / 2)
        truth = element.height + lean, element.height, element.height - lean
        assert (shape.anterior_mm, shape.middle_mm, shape.posterior_mm) == pytest.approx(truth, abs=MM), name
        assert shape.wedge_deg == pytest.approx(np.degrees(element.wedge), abs=DEGREES), name
