"""Table 1 in one command: its plan, its report by hand, and a tiny table that is stopped and goes on."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from small_models import tiny_changes
from typer.testing import CliRunner

from CPS4Core.cancellation import Cancellation
from CPS4Core.cli import app
from CPS4Core.errors import CPS4Error
from CPS4Core.events import silent
from CPS4Core.files import read_json
from CPS4Core.table1.plan import RATIOS, ROWS, Training, plan
from CPS4Core.table1.report import holm, in_percent, main_table, paired_tests, write_report
from CPS4Core.table1.run import Table
from CPS4Core.training.train import train

pytestmark = pytest.mark.slow


def test_the_plan_has_every_cell_and_the_ablation_at_the_smallest_ratio():
    trainings = plan([], RATIOS, (0, 1, 2), ablation=True)
    assert len(trainings) == len(set(trainings)) == 3 * (4 * len(ROWS) + 2)
    assert {t.ratio for t in trainings if t.row.terms} == {0.05}
    assert [t.seed for t in trainings] == sorted(t.seed for t in trainings)
    few = plan(["supervised"], [0.25, 0.1], [4], ablation=False)
    assert [(t.name, t.ratio, t.seed, t.encoders) for t in few] == [
        ("supervised", 0.1, 4, None),
        ("supervised", 0.25, 4, None),
    ]
    with pytest.raises(CPS4Error, match="no system 'magic'"):
        plan(["magic"], RATIOS, [0], ablation=False)


def test_systems_share_a_stage_1_and_the_ablation_has_its_own():
    trainings = plan([], [0.05], [2], ablation=True)
    places = {t.name: t.encoders for t in trainings}
    assert places["cps4"] == places["graphcl_text"] == "stage1/0.05/cps4/seed2"
    assert places["cps4_token"] == "stage1/0.05/cps4-token/seed2"
    assert places["clip"] == "stage1/0.05/clip/seed2"
    assert places["mean_teacher"] is None
    settings = {t.name: t.row.settings("small", [], t.seed) for t in trainings}
    assert settings["cps4_pixel"].pretrain.terms == "pixel"
    assert (settings["medclip"].pretrain.objective, settings["medclip"].train.method) == ("medclip", "cps4")


def scores_of(values):
    """Return scores of each system's cases, the same for two seeds but for a hundredth."""
    rows = []
    for system, cases in values.items():
        for seed in (0, 1):
            for k, value in enumerate(cases):
                rows.append((system, 0.05, seed, f"case {k}", value + 0.01 * seed, value / 2, 0.5))
    return pd.DataFrame(rows, columns=["system", "ratio", "seed", "case", "mdice", "miou", "level_accuracy"])


def test_paired_tests_by_hand():
    better = np.array([0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17])
    mixed = np.array([-0.1, 0.11, -0.12, 0.13, -0.14, 0.15, -0.16, 0.17])
    base = np.linspace(0.3, 0.6, 8)
    found = scores_of({"cps4": base + better, "mean_teacher": base, "bcp": base + better - mixed})
    tests = paired_tests(found).set_index("system")
    assert set(tests.index) == {"mean_teacher", "bcp"}
    assert tests.cases.tolist() == [8, 8]
    assert tests.difference["mean_teacher"] == pytest.approx(0.135)
    half = 2.364624 * better.std(ddof=1) / 8**0.5
    assert tests.high["mean_teacher"] == pytest.approx(0.135 + half, rel=1e-5)
    # All eight differences have one sign: 2 / 2^8; of two comparisons the smaller counts twice.
    assert tests.p["mean_teacher"] == pytest.approx(2 / 256)
    assert tests.p_holm["mean_teacher"] == pytest.approx(4 / 256)
    assert tests.difference["bcp"] == pytest.approx(mixed.mean()) and tests.p_holm["bcp"] > 0.5


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, np.nan, 0.03]))[[0, 1, 3]] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_the_table_is_mean_and_deviation_over_seeds():
    lines = main_table(scores_of({"cps4": [0.4, 0.6], "bcp": [0.1, 0.3]})).splitlines()
    assert lines[0] == "| system | seeds | 5 %: mDice | 5 %: mIoU | 5 %: levels |"
    assert lines[2:] == [
        "| BCP | 2 | 20.5 ± 0.7 | 10.0 ± 0.0 | 50.0 ± 0.0 |",
        "| CPS4 | 2 | 50.5 ± 0.7 | 25.0 ± 0.0 | 50.0 ± 0.0 |",
    ]
    assert in_percent(pd.Series([0.123])) == "12.3"


def test_a_report_of_nothing_yet_is_a_report(tmp_path):
    assert write_report({}, tmp_path).read_text(encoding="utf-8").startswith("# Table 1")


@pytest.fixture
def command_line(monkeypatch):
    monkeypatch.setattr(Cancellation, "listen_to_signals", lambda self: None)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_tiny_table_says_what_it_takes_goes_on_and_repeats_nothing(
    data_set, text_model, tmp_path, command_line, monkeypatch
):
    changes = [*tiny_changes(text_model), "pretrain.epochs=1", "train.epochs=1", "train.steps_per_epoch=2"]
    command = ["table1", data_set, tmp_path / "table", "--preset=small", "--device=cpu", "--ratio=1"]
    command += [f"--set={change}" for change in changes] + [f"--cache={tmp_path / 'cache'}", "--seed=0"]
    command += ["--system=mean_teacher_hard", "--system=cps4", "--no-ablation"]

    planned = command_line(*command, "--plan")
    assert planned.exit_code == 0, planned.output
    assert "2 trainings: 0 finished, 2 left, 4 steps." in planned.output
    assert "GiB of disk" in planned.output
    assert not (tmp_path / "table/runs").exists()

    # The second training fails as if the machine had been switched off: the first is kept.
    trained = []

    def fails_once(*arguments, **options):
        trained.append(arguments[1].parent.name)
        if trained == ["mean_teacher_hard", "cps4"]:
            raise CPS4Error("The power failed.", "Go on.")
        return train(*arguments, **options)

    monkeypatch.setattr("CPS4Core.table1.run.train", fails_once)
    assert command_line(*command).exit_code == 1
    finished = command_line(*command)
    assert finished.exit_code == 0, finished.output
    assert trained == ["mean_teacher_hard", "cps4", "cps4"]
    again = command_line(*command)
    assert again.exit_code == 0 and "2 finished, 0 left" in again.output
    assert trained == ["mean_teacher_hard", "cps4", "cps4"]

    cases = read_json(tmp_path / "table/runs/1/cps4/seed0/scores.json")["cases"]
    assert len(cases) == 1 and 0 <= cases[0]["mdice"] <= 1
    report = tmp_path / "table/report"
    assert "| CPS4 | 1 |" in (report / "table1.md").read_text(encoding="utf-8")
    assert len(pd.read_csv(report / "scores.csv")) == 2
    assert (report / "ratios.png").read_bytes().startswith(b"\x89PNG")
    assert (report / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(report / "paired.csv")) == 1
    other = command_line(*command, "--set=train.ramp=0.5")
    assert other.exit_code == 1 and "another table: its changes differ" in other.output


def test_a_training_that_another_process_is_at_is_left_to_it(data_set, text_model, tmp_path):
    training = Training("supervised", ROWS["supervised"], 1.0, 0)
    common = ("small", tiny_changes(text_model), torch.device("cpu"), silent, Cancellation())
    table = Table(data_set, tmp_path, [training], *common)
    place = tmp_path / training.place
    place.mkdir(parents=True)
    with FileLock(place / "table.lock"):
        assert table.run().is_file()
    assert table.left() == [training]


def test_a_data_set_without_test_cases_is_refused(data_set, tmp_path, command_line):
    data = tmp_path / "data"
    shutil.copytree(data_set, data, ignore=shutil.ignore_patterns("preprocessed", "labelsTs"))
    result = command_line("table1", data, tmp_path / "table", "--preset=small", "--device=cpu", "--plan")
    assert result.exit_code == 1
    assert "no labelled test case" in result.output
