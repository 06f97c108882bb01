"""`cps4 measure`: segmentations in files, a CSV table out."""

import csv
import io
import json

import numpy as np
import pytest
import SimpleITK as sitk
from measured_spines import SpineShape, build, draw
from typer.testing import CliRunner

from CPS4Core.cli import app
from CPS4Core.evaluation import measure
from CPS4Core.inference.outputs import write_segmentation
from CPS4Core.measuring import measure_labels


@pytest.fixture(scope="module")
def spine():
    return draw(build(SpineShape(slips={"L4/L5": 5.0})), (1.1, 0.8, 4.4))


def save(spine, path):
    labels, to_ras = spine
    image = sitk.GetImageFromArray(labels)
    to_lps = np.diag([-1.0, -1, 1, 1]) @ to_ras
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(image, path)


def run(*arguments):
    return CliRunner().invoke(app, ["measure", *map(str, arguments)])


def rows(text):
    return {(row["case"], row["structure"]): row for row in csv.DictReader(io.StringIO(text))}


def test_a_file_gives_its_measures_on_the_terminal(spine, tmp_path):
    save(spine, tmp_path / "résultat.seg.nrrd")
    done = run(tmp_path / "résultat.seg.nrrd")
    assert done.exit_code == 0
    table, truth = rows(done.stdout), measure_labels(*spine)
    l4, disc = table["résultat", "L4"], table["résultat", "L4/L5"]
    assert float(l4["anterior height (mm)"]) == pytest.approx(truth.shapes["L4"].anterior_mm, abs=0.051)
    assert float(l4["volume (ml)"]) == pytest.approx(truth.shapes["L4"].volume_ml, abs=0.001)
    assert float(disc["slip (mm)"]) == pytest.approx(truth.segments["L4/L5"].slip_mm, abs=0.051)
    assert float(disc["disc height index"]) == pytest.approx(truth.segments["L4/L5"].height_index, abs=0.0051)
    assert l4["slip (mm)"] == ""
    assert float(table["résultat", "L1-S1"]["lordosis (deg)"]) == pytest.approx(truth.lordosis_deg, abs=0.051)
    assert not any(row["not measured"] for row in table.values())


def test_what_is_cut_is_said_in_the_table(tmp_path):
    save(draw(build(SpineShape()), (1.1, 0.8, 4.4), above=-12.0), tmp_path / "cut.nii.gz")
    row = rows(run(tmp_path / "cut.nii.gz").stdout)["cut", "T12"]
    assert "border" in row["not measured"]
    assert row["anterior height (mm)"] == "" and float(row["volume (ml)"]) > 0


def test_a_folder_gives_one_table_and_lists_what_failed(spine, tmp_path):
    for name in ("one.nii.gz", "two.seg.nrrd"):
        save(spine, tmp_path / "results" / name)
    (tmp_path / "results" / "bad.nii.gz").write_bytes(b"nothing")
    target = tmp_path / "tables" / "measures.csv"
    done = run(tmp_path / "results", target)
    assert done.exit_code == 1
    assert "bad.nii.gz" in done.output and "Not measured" in done.output
    assert {case for case, _ in rows(target.read_text(encoding="utf-8"))} == {"one", "two"}
    assert [path.name for path in target.parent.iterdir()] == ["measures.csv"]


def test_folders_below_are_measured_too_and_cases_say_where(spine, tmp_path):
    for folder in ("patient 1", "patient 2"):
        save(spine, tmp_path / "in" / folder / "T2.nii.gz")
    (tmp_path / "in" / ".cps4").mkdir()
    done = run(tmp_path / "in")
    assert done.exit_code == 0
    assert {case for case, _ in rows(done.stdout)} == {"patient 1/T2", "patient 2/T2"}


def test_what_is_there_is_not_written_over(spine, tmp_path):
    segmentation, table = tmp_path / "one.nii.gz", tmp_path / "notes.csv"
    save(spine, segmentation)
    table.write_text("mine")
    before = segmentation.read_bytes()
    for target in (table, segmentation):
        assert run(segmentation, target).exit_code == 1
    assert run(segmentation, segmentation, "--overwrite").exit_code == 1
    assert (table.read_text(), segmentation.read_bytes()) == ("mine", before)
    assert run(segmentation, table, "--overwrite").exit_code == 0
    assert ("one", "L3") in rows(table.read_text(encoding="utf-8"))


def test_an_unexpected_error_of_one_file_is_a_line_and_the_others_go_on(spine, tmp_path, monkeypatch):
    for name in ("one.nii.gz", "two.nii.gz"):
        save(spine, tmp_path / name)
    real = measure.measure_image
    turns = iter([ZeroDivisionError(), None])

    def once(labels):
        if error := next(turns):
            raise error
        return real(labels)

    monkeypatch.setattr(measure, "measure_image", once)
    done = run(tmp_path)
    assert done.exit_code == 1
    assert {case for case, _ in rows(done.stdout)} == {"two"}
    assert "details are in" in " ".join(done.stderr.split())


def test_a_program_hears_of_the_table_and_of_failures(spine, tmp_path):
    save(spine, tmp_path / "results" / "one.nii.gz")
    (tmp_path / "results" / "bad.nii.gz").write_bytes(b"")
    done = run(tmp_path / "results", tmp_path / "out.csv", "--events")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "failed",
        "artifact",
        "finished",
    ]
    assert events[-1]["details"] == {"failed": 1}


def test_an_empty_folder_is_refused(tmp_path):
    done = run(tmp_path)
    assert done.exit_code == 1
    assert "no segmentation" in done.output
