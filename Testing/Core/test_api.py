"""The Python API: its documentation runs as it stands, and takes images from memory or from files."""

import doctest
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from small_models import MODELS

import CPS4Core
from CPS4Core import load_model
from CPS4Core.card import FORMAT
from CPS4Core.errors import CPS4Error
from CPS4Core.inference.model import Model


def scan():
    """Return a sagittal volume of noise, axes left-right, front-back, up-down."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((90, 60, 5), np.float32))
    image.SetSpacing((4.0, 3.0, 3.0))
    return image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which the documentation runs."""
    shutil.copytree(MODELS / f"format-{FORMAT}", tmp_path / "runs/stage2/model")
    sitk.WriteImage(scan(), str(tmp_path / "scan.nii.gz"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documentation_runs_as_it_stands(folder):
    result = doctest.testmod(CPS4Core)
    assert result.attempted >= 5
    assert result.failed == 0


def test_an_image_in_memory_and_its_file_give_the_same(folder):
    model = load_model(folder / "runs/stage2/model", "cpu")
    same = [sitk.GetArrayFromImage(model.segment(image).labels) for image in (scan(), folder / "scan.nii.gz")]
    np.testing.assert_array_equal(*same)
    (one,), (other,) = model.attend(scan(), "L4"), model.attend("scan.nii.gz", ["L4"])
    np.testing.assert_allclose(
        *(sitk.GetArrayFromImage(found.attention) for found in (one, other)), atol=1e-6
    )
    assert one.attention.GetSpacing() == pytest.approx(scan().GetSpacing())


def test_what_cannot_be_used_is_one_clear_error(folder):
    model = load_model("runs/stage2/model", "cpu")
    with pytest.raises(CPS4Error, match="constant"):
        model.segment(sitk.Image(5, 60, 90, sitk.sitkFloat32))
    with pytest.raises(CPS4Error, match="does not exist"):
        model.attend("none.nii.gz", "L4")
    with pytest.raises(CPS4Error, match="colour"):
        model.segment(sitk.Compose([scan()] * 3))
    with pytest.raises(CPS4Error, match="no model folder"):
        load_model(folder)


def test_warnings_reach_a_program(folder):
    single = scan()[2:3]
    with pytest.warns(UserWarning, match="slice"):
        load_model("runs/stage2/model", "cpu").segment(single)


def test_it_is_imported_only_when_it_is_used():
    code = "import sys, CPS4Core; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert not {"torch", "numpy", "SimpleITK", "pydantic"} & set(done.stdout.split())
    assert load_model.__doc__
    assert Model.segment.__doc__
