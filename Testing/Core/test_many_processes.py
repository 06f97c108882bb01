"""A folder of scans shared out over processes."""

import os
import shutil
import subprocess
import sys

import SimpleITK as sitk


def test_two_processes_share_a_folder_and_segment_as_one(trained_model, data_set, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(3):
        shutil.copy(data_set / "imagesTs/test_0001_0000.nii.gz", scans / f"scan {number}.nii.gz")
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
            env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
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
