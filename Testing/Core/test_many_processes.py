"""A folder of scans, or a training, shared out over processes and machines."""

import os
import shutil
import socket
import subprocess
import sys

import pytest
import SimpleITK as sitk

from CPS4Core.training.run_folder import read_curves

ON_THE_CPU = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.fixture
def scans(data_set, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        shutil.copy(data_set / "imagesTs/test_0001_0000.nii.gz", folder / f"scan {number}.nii.gz")
    return folder


def on_two_machines(*arguments):
    """Run a command as on two nodes of one process each: a launcher for each, which meet at a port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines=2", "--num_processes=2",
        "--main_process_ip=127.0.0.1", f"--main_process_port={port}", "--mixed_precision=no", "--dynamo_backend=no",
    ]  # fmt: skip
    nodes = [
        subprocess.Popen(
            [*launch, f"--machine_rank={rank}", "-m", "CPS4Core.cli", *map(str, arguments), "--device=cpu"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=ON_THE_CPU,
        )
        for rank in (0, 1)
    ]
    said = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)[-3000:]
    return said


def test_two_processes_share_a_folder_and_segment_as_one(trained_model, scans, tmp_path):
    (scans / "bad.nii.gz").write_bytes(b"")
    for count in (1, 2):
        output = tmp_path / f"by {count}"
        command = ["segment", str(scans), str(output), "--model", str(trained_model), "--device", "cpu"]
        launch = ["torch.distributed.run", "--standalone", f"--nproc_per_node={count}", "-m", "CPS4Core.cli"]
        done = subprocess.run(
            [sys.executable, "-m", *launch, *command],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=ON_THE_CPU,
            timeout=240,
        )
        assert "bad.nii.gz" in done.stdout + done.stderr
        assert {path.name for path in output.glob("[a-z]*")} == {
            f"scan {number}.nii.gz" for number in range(3)
        }, done.stderr
    for number in range(3):
        one, two = (
            sitk.ReadImage(str(tmp_path / f"by {count}" / f"scan {number}.nii.gz")) for count in (1, 2)
        )
        assert (sitk.GetArrayFromImage(one) == sitk.GetArrayFromImage(two)).all()


@pytest.mark.slow
def test_two_machines_train_one_model_and_share_a_folder(data_set, scans, tmp_path):
    settings = {
        "input.size": "[32,64]", "input.spacing_mm": 4.5, "train.widths": "[4,8]", "train.batch": 4,
        "train.epochs": 1, "train.steps_per_epoch": 20, "train.method": "supervised",
    }  # fmt: skip
    options = ["--preset=small", "--ratio=1", *(f"--set={name}={value}" for name, value in settings.items())]
    alone = [
        sys.executable,
        "-m",
        "CPS4Core.cli",
        "train",
        data_set,
        tmp_path / "alone",
        "--device=cpu",
        *options,
    ]
    subprocess.run(alone, check=True, capture_output=True, env=ON_THE_CPU)
    on_two_machines("train", data_set, tmp_path / "run", *options)
    (one, two) = (dict(read_curves(tmp_path / name)["total"]) for name in ("alone", "run"))
    # Where a CPU computes in bfloat16, its rounding differs with the number of slices in a product.
    assert two == pytest.approx(one, rel=0.02)

    said = on_two_machines("segment", scans, tmp_path / "labels", "--model", tmp_path / "run/model")
    made = {path.name for path in (tmp_path / "labels").glob("[a-z]*")}
    assert made == {f"scan {number}.nii.gz" for number in range(3)}
    # Each has its share and no other: two of the three, and one.
    assert sorted(text.count("segmentation:") for text in said) == [1, 2], said
