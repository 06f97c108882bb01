"""Results: planned before anything is computed, never in the place of what another made, and gone on with."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_files import write_classic
from small_models import MODELS
from test_prepare import SAGITTAL, scan, values, write

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.labels import read_labels
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Failed, Warned, silent
from CPS4Core.inference.attend import attend_volume
from CPS4Core.inference.batch import find_tasks, segment_all
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return ModelFolder.open(MODELS / "format-2")


@pytest.fixture(scope="module")
def segmenter(model):
    return Segmenter(model, CPU)


def mr(seed=1):
    """Return noise, large enough for a network."""
    image = sitk.GetImageFromArray(
        np.random.default_rng(seed).normal(100, 20, (2, 60, 90)).astype(np.float32)
    )
    image.SetDirection(SAGITTAL)
    image.SetSpacing((3, 3, 4))
    return image


def segment(segmenter, source, target, suffix=".nii.gz", **options):
    events = []
    tasks = find_tasks(source, target, suffix)
    segment_all(
        segmenter, tasks, levels="as-seen", report=events.append, cancellation=Cancellation(), **options
    )
    return events


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def places(source, target, suffix=".nii.gz"):
    return [task.target.relative_to(target).as_posix() for task in find_tasks(source, target, suffix)]


def test_results_keep_the_folders_of_their_scans(tmp_path):
    for number, patient in enumerate(("PAT1", "PAT2")):
        write_classic(tmp_path / "export" / patient / "T2_SAG", scan(number), f"1.2.{number}")
    assert places(tmp_path / "export", tmp_path / "out") == ["PAT1/T2_SAG.nii.gz", "PAT2/T2_SAG.nii.gz"]
    assert places(tmp_path / "export/PAT1/T2_SAG", tmp_path / "out") == ["T2_SAG.nii.gz"]


def test_scans_that_differ_by_suffix_or_case_alone_get_results_of_their_own(tmp_path):
    for name in ("a.nii.gz", "a.mha", "A.nrrd", "b.mha"):
        write(scan(), tmp_path / "in" / name)
    assert sorted(places(tmp_path / "in", tmp_path / "out", ".mha")) == [
        "A_nrrd.mha",
        "a_mha.mha",
        "a_nii-gz.mha",
        "b.mha",
    ]
    write(scan(), tmp_path / "in/a_mha.nii.gz")
    with pytest.raises(CPS4Error, match="of one name"):
        places(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("target", ["in", "in/a.nii.gz", "in/../in"])
def test_a_scan_is_never_its_own_result(tmp_path, target):
    write(scan(), tmp_path / "in/a.nii.gz")
    with pytest.raises(CPS4Error, match="place of its source"):
        find_tasks(tmp_path / "in/a.nii.gz", tmp_path / target, ".nii.gz")


def test_no_scan_of_a_folder_is_the_result_of_another(tmp_path):
    write(scan(), tmp_path / "in/a.nii.gz")
    write(scan(), tmp_path / "in/b.nii.gz")
    with pytest.raises(CPS4Error, match="place of its source"):
        find_tasks(tmp_path / "in", tmp_path / "in", ".nii.gz")
    assert len(find_tasks(tmp_path / "in", tmp_path / "in", ".seg.nrrd")) == 2


def test_results_within_the_source_are_no_scans(tmp_path):
    write_classic(tmp_path / "in/one", scan(1))
    write(scan(2), tmp_path / "in/two/scan.nii.gz")
    write(scan(3), tmp_path / "in/out/one.nii.gz")
    assert places(tmp_path / "in", tmp_path / "in/out") == ["one.nii.gz", "two/scan.nii.gz"]


def test_volumes_and_series_below_are_found_together(tmp_path):
    write(scan(1), tmp_path / "in/a.nii.gz")
    write_classic(tmp_path / "in/study", scan(2))
    assert places(tmp_path / "in", tmp_path / "out") == ["a.nii.gz", "study.nii.gz"]


def test_messages_name_a_scan_as_it_lies_in_the_folder(tmp_path):
    for patient in ("one", "two"):
        write(scan(1), tmp_path / f"in/{patient}/T2.nii.gz")
    write_classic(tmp_path / "in/three/study", scan(2))
    tasks = find_tasks(tmp_path / "in", tmp_path / "out", ".nii.gz")
    assert {task.title for task in tasks} == {"one/T2.nii.gz", "two/T2.nii.gz", "three/study"}
    (alone,) = find_tasks(tmp_path / "in/one/T2.nii.gz", tmp_path / "out", ".nii.gz")
    (series,) = find_tasks(tmp_path / "in/three/study", tmp_path / "out", ".nii.gz")
    assert (alone.title, series.title) == ("T2.nii.gz", "study")


def test_a_wrong_format_and_one_file_for_many_are_said_before_computing(tmp_path):
    write(scan(1), tmp_path / "in/a.nii.gz")
    with pytest.raises(CPS4Error, match=r"format of '\.png'"):
        find_tasks(tmp_path / "in", tmp_path / "out", ".png")
    (task,) = find_tasks(tmp_path / "in", tmp_path / "OUT.NII.GZ", ".nii.gz")
    assert task.target == tmp_path / "OUT.NII.GZ"
    write(scan(2), tmp_path / "in/b.nii.gz")
    with pytest.raises(CPS4Error, match="2 scans"):
        find_tasks(tmp_path / "in", tmp_path / "out.nii.gz", ".nii.gz")


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path, segmenter):
    for name in ("a", "b"):
        write(mr(ord(name)), tmp_path / f"in/{name}.nii.gz")
    segment(segmenter, tmp_path / "in", tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.nii.gz")}
    first = (tmp_path / "out/b.nii.gz").read_bytes()
    (tmp_path / "out/b.nii.gz").unlink()
    events = segment(segmenter, tmp_path / "in", tmp_path / "out")
    assert not of(Failed, events)
    assert (tmp_path / "out/a.nii.gz").stat().st_mtime_ns == times[tmp_path / "out/a.nii.gz"]
    assert (tmp_path / "out/b.nii.gz").read_bytes() == first


@pytest.mark.parametrize("suffix", [".nii.gz", ".seg.nrrd"])
def test_results_among_their_scans_are_no_scans(tmp_path, segmenter, suffix):
    write(mr(1), tmp_path / "case.mha")
    write(mr(2), tmp_path / "case.nrrd")
    first = segment(segmenter, tmp_path, tmp_path, suffix)
    made = {event.path for event in first if isinstance(event, Artifact)}
    there = sorted(path.name for path in tmp_path.iterdir())
    again = segment(segmenter, tmp_path, tmp_path, suffix)
    assert {event.path for event in again if isinstance(event, Artifact)} == made
    assert sorted(path.name for path in tmp_path.iterdir()) == there
    assert len(made) == 2


def test_a_corrected_result_stays_and_is_said(tmp_path, segmenter):
    write(mr(), tmp_path / "in/a.nii.gz")
    segment(segmenter, tmp_path / "in", tmp_path / "out")
    result = tmp_path / "out/a.nii.gz"
    corrected = sitk.ReadImage(str(result))
    corrected[5, 5, 0] = (corrected[5, 5, 0] + 1) % 20
    sitk.WriteImage(corrected, str(result))
    before = result.read_bytes()
    events = segment(segmenter, tmp_path / "in", tmp_path / "out")
    assert result.read_bytes() == before
    assert "corrected" in of(Warned, events)[0].message
    segment(segmenter, tmp_path / "in", tmp_path / "out", overwrite=True)
    assert result.read_bytes() != before


def test_what_another_made_stays_and_the_rest_is_segmented(tmp_path, segmenter):
    for name in ("a", "b"):
        write(mr(ord(name)), tmp_path / f"in/{name}.nii.gz")
    write(mr(), tmp_path / "out/a.nii.gz")
    before = (tmp_path / "out/a.nii.gz").read_bytes()
    (failed,) = of(Failed, segment(segmenter, tmp_path / "in", tmp_path / "out"))
    assert "--overwrite" in failed.remedy
    assert (tmp_path / "out/a.nii.gz").read_bytes() == before
    assert (tmp_path / "out/b.nii.gz").exists()
    write(mr(99), tmp_path / "in/b.nii.gz")  # another scan of the same name
    assert len(of(Failed, segment(segmenter, tmp_path / "in", tmp_path / "out"))) == 2
    assert not of(Failed, segment(segmenter, tmp_path / "in", tmp_path / "out", overwrite=True))


def test_an_unexpected_error_of_one_scan_is_a_line_with_a_log_and_the_others_go_on(
    tmp_path, segmenter, monkeypatch
):
    for name in ("a", "b", "c"):
        write(mr(ord(name)), tmp_path / f"in/{name}.nii.gz")
    segment_volume = segmenter.segment

    def fail_once(image, **options):
        if values(image).max() == values(mr(ord("b"))).max():
            raise ValueError(f"cannot use '{tmp_path}/Geheim Gerda/scan.dcm'")
        return segment_volume(image, **options)

    monkeypatch.setattr(segmenter, "segment", fail_once)
    events = segment(segmenter, tmp_path / "in", tmp_path / "out")
    (failed,) = of(Failed, events)
    assert (failed.path, failed.problem) == ("b.nii.gz", "Something unexpected went wrong.")
    log = failed.remedy.removeprefix("The details are in ").removesuffix(".")
    with open(log, encoding="utf-8") as file:  # noqa: PTH123
        told = file.read()
    assert "ValueError: cannot use 'PATH'" in told
    assert "fail_once" in told
    assert len(of(Artifact, events)) == 2


def attend(model, source, target, prompts, **options):
    attend_volume(source, target, model, prompts, None, CPU, silent, Cancellation(), **options)


def test_maps_of_another_scan_of_the_same_name_are_not_written_over(tmp_path, model):
    for number, patient in enumerate(("PAT1", "PAT2")):
        write(mr(number), tmp_path / patient / "T2.nii.gz")
    attend(model, tmp_path / "PAT1/T2.nii.gz", tmp_path / "maps", ["L4"])
    before = {path: path.read_bytes() for path in (tmp_path / "maps").iterdir() if path.is_file()}
    assert len(before) == 3
    with pytest.raises(CPS4Error, match="did not make"):
        attend(model, tmp_path / "PAT2/T2.nii.gz", tmp_path / "maps", ["L4"])
    assert {path: path.read_bytes() for path in before} == before
    attend(model, tmp_path / "PAT1/T2.nii.gz", tmp_path / "maps", ["L4", "L5"])  # the same goes on
    attend(model, tmp_path / "PAT2/T2.nii.gz", tmp_path / "maps", ["L4"], overwrite=True)
    assert all(path.read_bytes() != old for path, old in before.items() if path.name.endswith(".gz"))


def test_prompts_alike_get_maps_of_their_own(tmp_path, model):
    write(mr(), tmp_path / "T2.nii.gz")
    alike = "a herniated disc that presses on the nerve root"
    prompts = [f"{alike} left", f"{alike} right", "l4", "L4", "?", "!"]
    attend(model, tmp_path / "T2.nii.gz", tmp_path / "maps", prompts)
    names = [path.name.casefold() for path in (tmp_path / "maps").glob("*_attention.nii.gz")]
    assert len(set(names)) == len(prompts)


def test_a_map_never_takes_the_place_of_its_source(tmp_path, model):
    source = write(mr(), tmp_path / "T2.nii.gz").rename(tmp_path / "T2_L4_attention.nii.gz")
    attend(model, source, tmp_path, ["L4"])
    own = write(mr(), tmp_path / "x.nii.gz")
    link = tmp_path / "x_L4_attention.nii.gz"
    link.symlink_to(own)
    with pytest.raises(CPS4Error, match="place of its source"):
        attend(model, own, tmp_path, ["L4"], overwrite=True)


@pytest.mark.parametrize("suffix", [".NII.GZ", ".NII", ".NRRD", ".MHA", ".SEG.NRRD"])
def test_suffixes_in_capitals_are_read_and_written(tmp_path, segmenter, suffix):
    source = write(mr(), tmp_path / "scan.mha").rename(tmp_path / "SCAN.MHA")
    events = segment(segmenter, source, tmp_path / f"OUT{suffix}")
    assert not of(Failed, events)
    assert (tmp_path / f"OUT{suffix}").is_file()
    assert read_labels(tmp_path / f"OUT{suffix}", like=mr()).GetSize() == mr().GetSize()
