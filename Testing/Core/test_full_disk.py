"""A file that is reported is whole: on a full disk every writer fails in words, and what was there stays."""

import multiprocessing
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.add_case import add_case
from CPS4Core.data.array_files import ArrayFiles
from CPS4Core.data.dataset import open_data_set
from CPS4Core.data.prepare import prepare_data_set
from CPS4Core.data.volumes import read_image
from CPS4Core.data.writing import write_volume
from CPS4Core.errors import CPS4Error
from CPS4Core.events import silent
from CPS4Core.files import copy_file, write_json
from CPS4Core.inference.outputs import write_map, write_segmentation
from CPS4Core.weights import save_weights

LIMIT = 50_000
"""Bytes that a file may have, far fewer than each writer below writes."""
NOISE = np.random.default_rng(0).integers(0, 20, (9, 128, 128), np.uint8)


def image():
    found = sitk.GetImageFromArray(NOISE)
    found.SetSpacing((0.9, 0.8, 4.0))
    found.SetDirection((0, 0, 1, 1, 0, 0, 0, -1, 0))
    found.SetMetaData("patient", "a name")
    return found


WRITERS = {
    "labels.nii.gz": write_segmentation,
    "labels.nii": write_segmentation,
    "labels.nrrd": write_segmentation,
    "labels.seg.nrrd": write_segmentation,
    "labels.mha": write_segmentation,
    "map.nii.gz": write_map,
    "volume.nii.gz": write_volume,
    "array": lambda found, path: ArrayFiles(path.parent).write("case", "array", NOISE),
    "list.json": lambda found, path: write_json(path, NOISE.tolist()),
    "copy": lambda found, path: copy_file(Path(np.__file__).parent / "__init__.pyi", path),
    "weights.safetensors": lambda found, path: save_weights(path, {"w": torch.from_numpy(NOISE)}),
}


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 256 KB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def leave_free(folder: Path, size: int) -> Path:
    """Fill a disk up to ``size`` bytes, and return the file that fills it."""
    space = os.statvfs(folder)
    filling = folder / "filling"
    filling.write_bytes(bytes(space.f_bavail * space.f_frsize - size))
    return filling


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_by_a_full_disk_is_an_error_and_the_old_one_stays(small_disk, name):
    leave_free(small_disk, LIMIT)
    path = small_disk / name
    path.write_text("old")
    with pytest.raises(CPS4Error, match="disk is full"):
        WRITERS[name](image(), path)
    assert path.read_text() == "old"
    assert sorted(found.name for found in small_disk.iterdir()) == sorted(["filling", name])


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_file_cut_by_a_limit_is_an_error(tmp_path):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        said = child.submit(write_under_limit, tmp_path).result()
    assert set(said) == set(WRITERS)
    for name, words in said.items():
        assert "written whole" in words or "of this size" in words, (name, words)
    assert not list(tmp_path.iterdir())


def write_under_limit(folder: Path) -> dict[str, str]:
    """Return what each writer says where files may not grow."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    said = {}
    for name, write in WRITERS.items():
        try:
            write(image(), folder / name)
        except CPS4Error as error:
            said[name] = error.problem
    return said


@pytest.mark.parametrize("name", [name for name in WRITERS if name.startswith(("labels", "volume"))])
def test_what_is_written_is_the_same_voxels_and_geometry_and_nothing_else(tmp_path, name):
    WRITERS[name](image(), tmp_path / name)
    found = sitk.ReadImage(str(tmp_path / name))
    assert np.array_equal(sitk.GetArrayFromImage(found), NOISE)
    np.testing.assert_allclose(found.GetSpacing(), image().GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(found.GetDirection(), image().GetDirection(), atol=1e-6)
    assert "patient" not in found.GetMetaDataKeys()


def scan(number: int) -> sitk.Image:
    """Return a stack of noise, another one for each number."""
    found = image()
    noise = sitk.GetImageFromArray(
        np.random.default_rng(number).normal(100, 20, NOISE.shape).astype(np.float32)
    )
    noise.CopyInformation(found)
    return noise


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_adding_a_case_on_a_full_disk_adds_none(small_disk, tmp_path):
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    data = small_disk / "data"
    write_volume(scan(1), data / "imagesTr/case_0001_0000.nii.gz")
    write_volume(image(), data / "labelsTr/case_0001.nii.gz")
    before = files_in(data)
    write_volume(scan(2), tmp_path / "scan.nii.gz")
    write_volume(image(), tmp_path / "labels.nii.gz")
    leave_free(small_disk, (tmp_path / "labels.nii.gz").stat().st_size + 20_000)
    with pytest.raises(CPS4Error, match="disk is full"):
        add_case(data, tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz", silent)
    assert [case.name for case in open_data_set(data).cases] == ["case_0001"]
    assert before.items() <= files_in(data).items()


def test_preparing_goes_on_once_the_full_disk_has_space(small_disk, tmp_path):
    scans = [scan(number) for number in range(1, 4)]
    for number, found in enumerate(scans):
        write_volume(found, tmp_path / "scans" / f"scan_{number}.nii.gz")
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    filling = leave_free(small_disk, int(1.5 * (tmp_path / "scans/scan_0.nii.gz").stat().st_size))

    def prepare():
        return prepare_data_set(
            tmp_path / "scans",
            small_disk / "data",
            "folder",
            seed=0,
            report=silent,
            cancellation=Cancellation(),
        )

    with pytest.raises(CPS4Error, match="disk is full"):
        prepare()
    filling.unlink()
    for case, original in zip(prepare().cases, scans, strict=True):
        found = read_image(case.image)
        assert np.array_equal(*(sitk.GetArrayFromImage(volume) for volume in (found, original)))
