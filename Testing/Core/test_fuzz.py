"""Volumes, headers, label maps, settings, lines and folders, bent at random: the right result, or one clear error.

    make fuzz

runs 5,000 cases instead of 200. The cases are the same at each run of the same number.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from dicom_files import write_classic, write_enhanced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_prepare import label_map, scan

from CPS4Core.cancellation import Cancellation
from CPS4Core.class_table import IGNORE, NUM_CLASSES, STRUCTURES
from CPS4Core.config import PRESETS, Settings, load_settings
from CPS4Core.data.add_case import add_case
from CPS4Core.data.dataset import open_data_set
from CPS4Core.data.inspect import inspect_data_set
from CPS4Core.data.label_schemes import SCHEMES, SPIDER, SPINEPS, TOTALSPINESEG
from CPS4Core.data.labels import read_labels
from CPS4Core.data.prepare import prepare_data_set
from CPS4Core.data.volumes import read_image, read_scan
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Failed, Finished, silent
from CPS4Core.inference.batch import find_tasks
from CPS4Core.inference.outputs import SEGMENTATION_SUFFIXES, write_segmentation
from CPS4Core.inference.worker import Worker

CASES = int(os.environ.get("CPS4_FUZZ_CASES", "200"))
NUMBERS = st.integers(-3, 300) | st.sampled_from([0, 1, 2**31, -(2**31), 2**63, 10**30])
FLOATS = st.floats(allow_nan=True, allow_infinity=True) | NUMBERS
WORDS = ["", "nan", "inf", "-1", "0", "1e30", "99999999999", "none", "x", "(0,0,0)", "\0", "ü", "1 0 0"]


def fuzz(share: float, *arguments):
    """Return the decorator of a test that gets its share of the cases."""

    def decorate(test):
        return settings(
            max_examples=max(1, round(share * CASES)),
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(given(*arguments)(test))

    return decorate


@contextmanager
def one_clear_error() -> Iterator[None]:
    """Let through a ``CPS4Error`` that says what is wrong and what to do; all else fails the test."""
    try:
        yield
    except CPS4Error as error:
        assert error.problem and error.remedy, error
        assert "\n" not in str(error), error
        assert "Traceback" not in str(error)
        assert "unexpected" not in error.problem


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz ü ") as name:
        yield Path(name)


# Volumes


@st.composite
def images(draw) -> sitk.Image:
    """Draw a volume of any orientation, type and size."""
    shape = draw(st.lists(st.integers(1, 9), min_size=3, max_size=3))
    kind = draw(st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    image = sitk.GetImageFromArray(random.integers(0, 120, shape).astype(kind))
    turn = np.eye(3)[list(draw(st.permutations(range(3))))] * draw(
        st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3)
    )
    angle = np.radians(draw(st.sampled_from([0, 0, 3, 17, 40])))
    oblique = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turn = turn @ oblique
    if np.linalg.det(turn) < 0:
        turn[:, 2] *= -1
    image.SetDirection(turn.ravel().tolist())
    image.SetSpacing(draw(st.lists(st.sampled_from([0.3, 0.5, 1.0, 3.3]), min_size=3, max_size=3)))
    image.SetOrigin(draw(st.lists(st.floats(-400, 400), min_size=3, max_size=3)))
    return image


def same_places(found: sitk.Image, original: sitk.Image) -> None:
    """Check that each voxel of the one is at its place in the other."""
    assert sorted(found.GetSize()) == sorted(original.GetSize())
    values = sitk.GetArrayViewFromImage(original)
    for index in {
        tuple(index) for index in np.random.default_rng(0).integers(0, original.GetSize(), (12, 3)).tolist()
    }:
        place = found.TransformPhysicalPointToContinuousIndex(original.TransformIndexToPhysicalPoint(index))
        there = np.round(place).astype(int)
        assert np.abs(place - there).max() < 0.02, (index, place)
        assert found.GetPixel(there.tolist()) == values[index[::-1]]


@fuzz(0.2, images(), st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", "classic", "enhanced"]))
def test_volumes_are_read_where_they_lie(image, form):
    with folder() as place, one_clear_error():
        if form == "classic":
            image = sitk.Cast(image, sitk.sitkUInt16)
            write_classic(place / "in", image)
        elif form == "enhanced":
            image = sitk.Cast(image, sitk.sitkUInt16)
            order = np.random.default_rng(1).permutation(image.GetDepth()).tolist()
            write_enhanced(place / "in/a.dcm", image, order)
        else:
            (place / "in").mkdir()
            sitk.WriteImage(image, str(place / f"in/a{form}"))
        found = read_image(place / "in" if form in ("classic", "enhanced") else place / f"in/a{form}")
        same_places(found, sitk.Cast(image, sitk.sitkFloat32))


@fuzz(0.1, images(), st.sampled_from(SEGMENTATION_SUFFIXES))
def test_results_lie_where_their_scan_lies(image, suffix):
    labels = sitk.Cast(sitk.Modulus(sitk.Cast(image, sitk.sitkInt16), NUM_CLASSES), sitk.sitkUInt8)
    with folder() as place:
        write_segmentation(labels, place / f"a{suffix}")
        same_places(read_labels(place / f"a{suffix}", like=labels), labels)
        assert [path.name for path in place.iterdir()] == [f"a{suffix}"]


# Headers


def bend(data: bytes, bends: list[tuple[str, int, int, str]], reach: int) -> bytes:
    """Return a file's bytes with its beginning bent."""
    raw = bytearray(data)
    for what, where, byte, word in bends:
        place = where % max(1, min(reach, len(raw)))
        if what == "byte":
            raw[place : place + 1] = bytes([byte])
        elif what == "cut":
            del raw[place:]
        elif what == "drop":
            del raw[place : place + 1 + byte % 16]
        elif what == "insert":
            raw[place:place] = word.encode()
        elif what == "line":
            lines = bytes(raw).split(b"\n")
            lines[place % len(lines) if byte % 2 else 0] = word.encode()
            raw = bytearray(b"\n".join(lines))
        elif what == "value":
            lines = bytes(raw).split(b"\n")
            number = place % min(len(lines), 14)
            for separator in (b": ", b" = "):
                name, found, _ = lines[number].partition(separator)
                if found:
                    lines[number] = name + separator + word.encode()
            raw = bytearray(b"\n".join(lines))
    return bytes(raw)


BENDS = st.lists(
    st.tuples(
        st.sampled_from(["byte", "byte", "cut", "drop", "insert", "line", "value", "value"]),
        st.integers(0, 2000),
        st.integers(0, 255),
        st.sampled_from(WORDS),
    ),
    min_size=1,
    max_size=4,
)
REACH = {
    ".nii": 352,
    ".nii.gz": 352,
    ".nrrd": 320,
    ".seg.nrrd": 900,
    ".mha": 320,
    ".dcm": 1600,
    "enhanced": 1800,
    ".png": 60,
}


def write_form(place: Path, form: str) -> tuple[Path, Path]:
    """Write a good image in a form; return a file of it, and what is opened."""
    if form == ".dcm":
        write_classic(place / "a", scan(1))
    elif form == "enhanced":
        write_enhanced(place / "a/x.dcm", scan(1), [2, 0, 3, 1])
    elif form == ".png":
        grey = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(place / "a.png"))
    elif form == ".seg.nrrd":
        write_segmentation(sitk.Cast(label_map(v2=(2, 5), v3=(7, 9)), sitk.sitkUInt8), place / "a.seg.nrrd")
    else:
        sitk.WriteImage(scan(1), str(place / f"a{form}"))
    opened = min(place.iterdir())
    return (min(opened.iterdir()) if opened.is_dir() else opened), opened


@fuzz(0.3, st.sampled_from(sorted(REACH)), BENDS)
def test_bent_headers_are_read_or_refused(form, bends):
    with folder() as place:
        path, opened = write_form(place, form)
        data = path.read_bytes()
        inside = gzip.decompress(data) if form == ".nii.gz" else data
        bent = bend(inside, bends, REACH[form])
        path.write_bytes(gzip.compress(bent) if form == ".nii.gz" else bent)
        before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
        with one_clear_error():
            image = read_scan(opened, pixel_mm=0.7)
            values = sitk.GetArrayViewFromImage(image)
            assert image.GetDimension() == 3
            assert np.isfinite(values).all() and values.dtype == np.float32
            axes = np.array(image.GetDirection()).reshape(3, 3)
            assert np.abs(axes.T @ axes - np.eye(3)).max() < 0.01
            assert np.isfinite([*image.GetSpacing(), *image.GetOrigin()]).all()
        with one_clear_error():
            found = read_labels(opened)
            assert set(np.unique(sitk.GetArrayViewFromImage(found))) <= {*range(NUM_CLASSES), IGNORE}
        assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before


# Label maps

TABLES = {
    "mrspineseg": {value: value for value in (*range(NUM_CLASSES), IGNORE)},
    "totalspineseg": TOTALSPINESEG,
    "spineps": SPINEPS,
    "spider": SPIDER,
}


@fuzz(
    0.1,
    st.sampled_from(sorted(TABLES)),
    st.lists(
        st.sampled_from([*range(21), 26, 41, 45, 91, 95, 101, 117, 124, 201, 205, 255, -1]),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0.0, 0.0, 1e-6, -4e-6, 0.3]),
)
def test_label_maps_keep_their_meaning(scheme, numbers, bent):
    array = np.zeros((3, 8, 8), np.float32)
    for k, number in enumerate(numbers):
        array[k % 3, k, 2:4] = number + bent
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(sitk.GetImageFromArray(np.zeros((3, 8, 8), np.uint8)))
    with folder() as place, one_clear_error():
        sitk.WriteImage(image, str(place / "a.nrrd"))
        found = sitk.GetArrayFromImage(read_labels(place / "a.nrrd", scheme=SCHEMES[scheme]))
        assert abs(bent) < 0.1, "what is no whole number was read"
        for k, number in enumerate(numbers):
            expected = TABLES[scheme].get(number, 0)
            if scheme != "mrspineseg" or number in TABLES[scheme]:
                assert found[k % 3, k, 2] in ({expected, IGNORE} if scheme == "spider" else {expected})
            else:
                raise AssertionError("a number outside the table was read")


# Settings


def _names(group: dict, above: str = "") -> list[str]:
    found = []
    for name, value in group.items():
        found += [f"{above}{name}"] + (_names(value, f"{above}{name}.") if isinstance(value, dict) else [])
    return found


NAMES = _names(Settings().model_dump(mode="json"))
JSON = st.recursive(
    st.none() | st.booleans() | FLOATS | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@fuzz(
    0.1,
    st.sampled_from(sorted(PRESETS)),
    st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=8), JSON), max_size=3),
)
def test_settings_are_taken_or_refused(preset, changes):
    with one_clear_error():
        found = load_settings(preset, [f"{name}={json.dumps(value)}" for name, value in changes])
        assert load_settings(preset, [f"{name}={json.dumps(value)}" for name, value in changes]) == found
        assert 1 <= len(found.train.widths) <= 6
        assert all(0 < pixels <= 4096 for pixels in found.input.size)
        json.dumps(found.model_dump(mode="json"), allow_nan=False)


# Lines on the worker's input

FIELD = st.sampled_from(
    ["request", "do", "model", "device", "input", "output", "prompts", "levels", "which", "labels", "x"]
)
VERB = st.sampled_from(["segment", "attend", "figure", "check", "cancel", "dance", "shutdown"])
REQUEST = st.fixed_dictionaries({}, optional={"do": VERB | JSON}).flatmap(
    lambda start: st.dictionaries(FIELD, JSON, max_size=6).map(lambda rest: {**rest, **start})
)
LINE = REQUEST.map(json.dumps) | st.text(max_size=20).map(
    lambda text: text.replace("\n", " ").replace("\r", " ")
)


def _is_shutdown(line: str) -> bool:
    try:
        request = json.loads(line)
        return isinstance(request, dict) and request.get("do") == "shutdown"
    except ValueError:
        return False


@fuzz(0.1, st.lists(LINE, max_size=4))
def test_each_line_gets_one_answer(lines):
    events = []
    Worker(events.append).serve(iter(lines))
    answers = [event for event in events if isinstance(event, Failed | Finished)]
    ends = [k for k, line in enumerate(lines) if _is_shutdown(line)]
    asked = [bool(line.strip()) for line in lines]
    until_shutdown = asked[: ends[0] + 1] if ends else asked
    assert sum(until_shutdown) <= len(answers) <= sum(asked)
    for answer in answers:
        if isinstance(answer, Failed):
            assert answer.problem and answer.remedy
            assert "unexpected" not in answer.problem, answer


# Folders

FILES = {
    "scan": lambda path, seed: sitk.WriteImage(scan(seed), str(path)),
    "label": lambda path, seed: sitk.WriteImage(label_map(**{f"v{1 + seed % 19}": (2, 6)}), str(path)),
    "float label": lambda path, seed: sitk.WriteImage(
        sitk.Cast(label_map(v4=(2, 6)), sitk.sitkFloat32), str(path)
    ),
    "bad label": lambda path, seed: sitk.WriteImage(label_map(v77=(2, 6)), str(path)),
    "complex": lambda path, seed: sitk.WriteImage(sitk.Cast(scan(seed), sitk.sitkComplexFloat32), str(path)),
    "empty": lambda path, seed: path.write_bytes(b""),
    "text": lambda path, seed: path.write_text("hello"),
    "folder": lambda path, seed: path.mkdir(),
}
ENTRY = st.tuples(
    st.sampled_from(["", "images", "labels", "images/deep"]),
    st.sampled_from(
        ["a", "b", "c", "A", "a_seg", "b-label", ".hidden", "._a", ".writing-1-a", "ü [x]", "a_0000"]
    ),
    st.sampled_from([".nii.gz", ".nrrd", ".mha", ".seg.nrrd", ".txt"]),
    st.sampled_from(sorted(FILES)) | st.sampled_from(["scan", "label"]),
    st.integers(1, 9),
)


def contents(place: Path) -> dict[Path, bytes]:
    return {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@fuzz(0.1, st.lists(ENTRY, min_size=1, max_size=8))
def test_folders_become_data_sets_of_what_they_hold(entries):
    with folder() as place:
        source, data = place / "in", place / "data"
        source.mkdir()
        for below, name, suffix, kind, seed in entries:
            path = source / below / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                try:
                    FILES[kind](path, seed)
                except RuntimeError:  # what the format cannot hold
                    shutil.rmtree(path, ignore_errors=True)
        before = contents(source)
        with one_clear_error():
            tasks = find_tasks(source, place / "out", ".nii.gz")
            assert len({str(task.target).casefold() for task in tasks}) == len(tasks)
        events = []
        with one_clear_error():
            prepare(source, data, events)
            check_cases(source, data)
            once = contents(data)
            prepare(source, data, [])
            assert contents(data) == once
            inspect_data_set(data, silent, Cancellation())
            case = open_data_set(data).cases[0]
            if case.label is None:
                labels = sitk.ReadImage(str(case.image)) > 100
                sitk.WriteImage(labels, str(place / "labels.nrrd"))
                assert add_case(data, case.image, place / "labels.nrrd", silent) == case.name
        for event in events:
            assert not isinstance(event, Failed) or "unexpected" not in event.problem, event
        assert contents(source) == before
        assert not list(data.rglob(".writing-*"))


def prepare(source: Path, data: Path, events: list) -> None:
    prepare_data_set(source, data, "folder", seed=0, report=events.append, cancellation=Cancellation())


def check_cases(source: Path, data: Path) -> None:
    """Check that each case holds the voxels of its source, and labels of the class table."""
    origins = json.loads((data / "sources.json").read_text(encoding="utf-8"))["cases"]
    for case in open_data_set(data).cases:
        original = read_image(source / origins[case.name]["source"])
        same_places(read_image(case.image), original)
        if case.label is not None:
            found = set(np.unique(sitk.GetArrayFromImage(read_labels(case.label, like=original))).tolist())
            assert found <= {0, IGNORE, *(structure.label for structure in STRUCTURES)}
