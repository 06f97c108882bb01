"""Words on the screen: names as they are, and only what is true of the command."""

import subprocess
import sys

import pytest
from small_models import MODELS
from test_prepare import label_map, write

from CPS4Core.errors import CPS4Error
from CPS4Core.evaluation.evaluate import evaluate
from CPS4Core.events import Artifact, Failed, Finished, Progress, Warned
from CPS4Core.terminal import Terminal
from CPS4Core.training.run_folder import RunFolder

NAME = "a [x] [/red] [bold].nii.gz"


def shown(capsys, *events, **options):
    with Terminal(**options) as report:
        for event in events:
            report(event)
    return capsys.readouterr().err


def test_brackets_in_names_are_shown_as_they_are(capsys):
    said = shown(
        capsys,
        Warned(f"{NAME} warned"),
        Failed(f"{NAME} failed", "do it", NAME),
        Artifact("segmentation", NAME),
        Progress(1, 2, NAME),
    )
    assert f"Warning: {NAME} warned" in said
    assert f"Error: {NAME}: {NAME} failed do it" in said
    assert f"segmentation: {NAME}" in said


def test_a_job_that_starts_anew_does_not_promise_to_go_on(capsys):
    assert "to go on" in shown(capsys, Finished(cancelled=True))
    assert "starts anew" in shown(capsys, Finished(cancelled=True), goes_on=False)


def test_brackets_in_names_are_shown_in_the_table_at_the_end(tmp_path):
    bad = tmp_path / "in [x] [bold].mha"
    bad.write_bytes(b"no image")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "CPS4Core.cli",
            "segment",
            bad,
            tmp_path / "out",
            "--model",
            MODELS / "format-2",
        ],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert done.stderr.count("in [x] [bold].mha") >= 2
    assert "Traceback" not in done.stderr


def test_tables_that_no_evaluation_made_are_not_written_over(tmp_path):
    write(label_map(v2=(2, 5)), tmp_path / "truth/a.nii.gz")
    (tmp_path / "tables").mkdir()
    mine = tmp_path / "tables/summary.md"
    mine.write_text("mine")
    with pytest.raises(CPS4Error, match="did not make"):
        evaluate(tmp_path / "truth", tmp_path / "truth", mine.parent)
    assert [path.name for path in mine.parent.iterdir()] == ["summary.md"]
    evaluate(tmp_path / "truth", tmp_path / "truth", mine.parent, overwrite=True)
    evaluate(tmp_path / "truth", tmp_path / "truth", mine.parent)  # its own it may replace
    assert mine.read_text(encoding="utf-8").startswith("# Evaluation")


def test_a_folder_with_files_that_no_training_made_is_no_run_folder(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(CPS4Error, match="no training made"), RunFolder(tmp_path, {}, lambda event: None):
        pass
    assert not (tmp_path / "config.json").exists()
