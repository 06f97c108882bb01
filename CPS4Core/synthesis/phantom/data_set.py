"""Data sets of phantoms, in the layout that training reads."""

from __future__ import annotations

from pathlib import Path

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.dataset import CHANNEL, write_description
from CPS4Core.data.writing import write_volume
from CPS4Core.events import Progress, Reporter, silent
from CPS4Core.synthesis.phantom.volume import PhantomOptions, make_phantom

DESCRIPTION = "Synthetic spine MR made by CPS4: phantoms, not patients."
TEST_SEEDS = 100_000
"""Added to the seed of a test case, so that more training cases never become test cases."""


def write_phantom_data_set(
    folder: Path,
    cases: int,
    *,
    test_cases: int = 0,
    labelled: int | None = None,
    seed: int = 0,
    options: PhantomOptions | None = None,
    report: Reporter = silent,
    cancellation: Cancellation | None = None,
) -> Path:
    """Write a data set of phantoms and return its folder.

    Args:
        folder: the data set; cases that are there already are kept.
        cases: training cases, one a patient.
        test_cases: labelled test cases.
        labelled: how many of the training cases get their labels; all if None.
        seed: the same seed gives the same data set.
        options: what may vary between phantoms.
        report: receives the progress.
        cancellation: tells when to stop.

    Raises:
        CPS4Error: if the folder cannot be written.
        Cancelled: if the user asked to stop.
    """
    folder = Path(folder)
    labelled = cases if labelled is None else labelled
    jobs = [("Tr", k, seed * 1_000_000 + k, k < labelled) for k in range(cases)]
    jobs += [("Ts", k, seed * 1_000_000 + TEST_SEEDS + k, True) for k in range(test_cases)]
    for done, (part, number, case_seed, with_labels) in enumerate(jobs):
        if cancellation is not None:
            cancellation.check()
        name = f"{'case' if part == 'Tr' else 'test'}_{number + 1:04d}"
        label_path = folder / f"labels{part}" / f"{name}.nii.gz" if with_labels else None
        write_phantom(folder / f"images{part}" / f"{name}{CHANNEL}.nii.gz", label_path, case_seed, options)
        report(Progress(done + 1, len(jobs), "Making phantoms"))
    write_description(folder, "CPS4 phantom", cases, description=DESCRIPTION)
    return folder


def write_phantom(
    image_path: Path, label_path: Path | None, seed: int, options: PhantomOptions | None = None
) -> None:
    """Write one phantom, its labels first; one whose image is there already is kept.

    Args:
        image_path: of the scan.
        label_path: of its labels; they are not written if None.
        seed: identifies the patient and the scan.
        options: what may vary; the defaults if None.

    Raises:
        CPS4Error: if a folder cannot be written.
    """
    if image_path.is_file():
        return
    phantom = make_phantom(seed, options)
    if label_path is not None:
        write_volume(phantom.labels, label_path)
    write_volume(phantom.image, image_path)
