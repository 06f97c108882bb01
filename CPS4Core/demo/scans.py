"""A folder of scans as a researcher has it: volumes, labels of some of them, and test scans apart."""

from __future__ import annotations

from pathlib import Path

from CPS4Core.cancellation import Cancellation
from CPS4Core.events import Progress, Reporter
from CPS4Core.synthesis.phantom.data_set import TEST_SEEDS, write_phantom

TESTS = 4


def write_scans(folder: Path, patients: int, report: Reporter, cancellation: Cancellation) -> Path:
    """Write synthetic scans, each with its true labels, and return ``folder``.

    ``images/`` and ``labels/`` are for training, ``test/images/`` and ``test/labels/`` for the test. Scans that are
    there already are kept.

    Args:
        patients: one scan each, for training.

    Raises:
        CPS4Error: if the folder cannot be written.
        Cancelled: if the user asked to stop.
    """
    jobs = [(folder, f"scan_{k + 1:02d}", k) for k in range(patients)]
    jobs += [(folder / "test", f"test_{k + 1:02d}", TEST_SEEDS + k) for k in range(TESTS)]
    for done, (where, name, seed) in enumerate(jobs):
        cancellation.check()
        write_phantom(where / "images" / f"{name}.nii.gz", where / "labels" / f"{name}.nii.gz", seed)
        report(Progress(done + 1, len(jobs), "Making scans"))
    return folder
