"""No patient's name, number or date, and no path of a study, in anything that is written or said."""

import gzip
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import PATIENT, write_classic, write_enhanced
from small_models import MODELS, tiny_changes
from test_prepare import SAGITTAL
from typer.testing import CliRunner

from CPS4Core.cli import app
from CPS4Core.data.dataset import open_data_set

MODEL = MODELS / "format-2"
FOLDER = "GEHEIM_GERDA_7734251"
"""A study's folder, named after its patient as exports are."""
SECRETS = [*re.split(r"[\^ ]", " ".join(PATIENT.values())), FOLDER]
SECRETS = [secret for secret in SECRETS if len(secret) > 4]


def mr(seed=1):
    image = sitk.GetImageFromArray(
        np.random.default_rng(seed).integers(0, 900, (4, 60, 90)).astype(np.uint16)
    )
    image.SetDirection(SAGITTAL)
    image.SetSpacing((3, 3, 4))
    return image


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a command, with a temporary folder of its own, and returns all that it said."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("CPS4Core.cancellation.Cancellation.listen_to_signals", lambda self: None)

    def run_command(*arguments, ok=True):
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert (done.exit_code == 0) == ok, done.output
        return done.stdout_bytes + done.stderr_bytes

    return run_command


def secrets_in(data):
    return [secret for secret in SECRETS if secret.lower().encode() in data.lower()]


def check_files(folder):
    looked_at = 0
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            data += gzip.decompress(data) if path.suffix == ".gz" else b""
            assert not secrets_in(data), path
            assert not secrets_in(path.relative_to(folder).as_posix().encode()), path
            looked_at += 1
    assert looked_at


@pytest.fixture
def study(tmp_path):
    """A folder of studies, each with a good and a broken series; named after their patients."""
    for number, write in enumerate(
        (write_classic, lambda folder, image: write_enhanced(folder / "a.dcm", image, [2, 0, 3, 1]))
    ):
        write(tmp_path / FOLDER / f"study{number}" / "T2", mr(number))
    write_classic(tmp_path / FOLDER / "study0/localizer", mr(5), "1.2.8", ImageOrientationPatient=None)
    damaged = tmp_path / FOLDER / "study1/damaged"
    write_classic(damaged, mr(6), "1.2.7")
    for path in damaged.iterdir():
        path.write_bytes(path.read_bytes()[:700])
    return tmp_path / FOLDER


@pytest.mark.slow
def test_nothing_of_a_patient_comes_along_into_a_data_set_its_cache_and_its_runs(
    tmp_path, study, text_model, run
):
    said = run("prepare", study, tmp_path / "data", "--from", "dicom")
    said += run("prepare", study, tmp_path / "data", "--from", "dicom", "--events")
    for case in open_data_set(tmp_path / "data").cases:
        labels = tmp_path / f"{case.name}.nrrd"
        sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(case.image)) > 500, sitk.sitkUInt8), str(labels))
        said += run("add-case", tmp_path / "data", case.image, labels)
    changes = [part for change in tiny_changes(text_model) for part in ("--set", change)]
    said += run(
        "train",
        tmp_path / "data",
        tmp_path / "run",
        "--preset",
        "small",
        "--method",
        "supervised",
        *changes,
        "--set",
        "train.epochs=1",
        "--cache",
        tmp_path / "cache",
        "--device",
        "cpu",
    )
    for folder in ("data", "cache", "run"):
        check_files(tmp_path / folder)
    assert not list((tmp_path / "tmp").iterdir())
    assert not secrets_in(said), said


def test_nothing_of_a_patient_comes_along_into_results_and_errors(tmp_path, study, run):
    said = run("segment", study, tmp_path / "out", "--model", MODEL, "--suffix", ".seg.nrrd", ok=False)
    for series in ("study0/T2", "study1/T2"):
        said += run("attend", study / series, tmp_path / "maps" / series, "--model", MODEL, "--prompt", "L4")
    for series in ("study0/localizer", "study1/damaged", "study0"):
        said += run("attend", study / series, tmp_path / "none", "--model", MODEL, ok=False)
    said += run("segment", study / "study0/T2", tmp_path / "one.nrrd", "--model", MODEL, "--events")
    for folder in ("out", "maps", ".cps4"):
        check_files(tmp_path / folder)
    assert not secrets_in((tmp_path / "one.nrrd").read_bytes())
    assert Path(tmp_path / "out/study1/T2.seg.nrrd").is_file()
    assert not secrets_in(said), said
