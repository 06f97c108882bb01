"""Tissue maps of many synthetic patients, drawn once and kept on disk; how they look is drawn anew at each step.

A patient gives two neighbouring sagittal planes, so that an appearance can average them as a thick slice does. Maps
are read through the page cache: memory does not grow with their number.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from CPS4Core.cancellation import Cancellation
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Progress, Reporter
from CPS4Core.files import written_aside
from CPS4Core.synthesis.paint import Painter
from CPS4Core.synthesis.patient import draw_patient

VERSION = 2
"""Counts up when the same seed gives other maps."""
ROWS, COLUMNS = 224, 416
PIXEL_MM = 1.0
PLANES = 2
PATIENTS_A_FILE = 50
FLANKS = 0.35
"""Share of the patients whose planes lie at the flanks of the bodies, where bone, disc and muscle mix."""
FLANKS_MM = (14.0, 28.0)
"""How far from the middle those planes lie, in a patient of mean size."""


@dataclass(frozen=True)
class Bank:
    """Tissue maps in the files of a folder."""

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return PATIENTS_A_FILE * len(self.files)

    def maps(self, patients: Sequence[int]) -> np.ndarray:
        """Return the tissue maps of some patients, uint8 codes, (patients, planes, rows, columns)."""
        return np.stack(
            [self._file(number // PATIENTS_A_FILE)[number % PATIENTS_A_FILE] for number in patients]
        )

    def _file(self, number: int) -> np.ndarray:
        return np.load(self.files[number], mmap_mode="r", allow_pickle=False)


def draw_bank(
    folder: Path, patients: int, seed: int, processes: int, report: Reporter, cancellation: Cancellation
) -> Bank:
    """Draw the tissue maps of ``patients`` that ``folder`` lacks; the same seed gives the same maps.

    Args:
        folder: where they are kept, 190 kB a patient.
        patients: how many, rounded up to whole files.
        seed: identifies the patients.
        processes: how many draw side by side.
        report: receives the progress.
        cancellation: tells when to stop.

    Raises:
        CPS4Error: if the folder cannot be written.
        Cancelled: if the user asked to stop; whole files stay.
    """
    count = -(-patients // PATIENTS_A_FILE)
    files = tuple(folder / f"tissues-v{VERSION}-{seed}-{number:04d}.npy" for number in range(count))
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CPS4Error("The folder cannot be written.", "Choose another one.", folder) from error
    if missing:
        draw = partial(_draw_file, files, seed, PATIENTS_A_FILE)
        # Unlike multiprocessing's pool, it fails when a process dies, instead of starting another for ever.
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            drawing = [pool.submit(draw, number) for number in missing]
            try:
                for done, drawn in enumerate(as_completed(drawing), start=1):
                    drawn.result()
                    cancellation.check()
                    report(Progress(count - len(missing) + done, count, "Drawing synthetic spines"))
            finally:
                pool.shutdown(cancel_futures=True)
    return Bank(files)


def draw_patient_maps(seed: int, patient: int) -> np.ndarray:
    """Return the tissue maps of one patient, uint8 codes, (planes, rows, columns)."""
    random = np.random.default_rng([seed, patient, VERSION])
    person = draw_patient(random)
    centre_z = random.uniform(20, 190) * person.size
    near = [segment for segment in person.segments if abs(segment.z - centre_z) < 120]
    centre_y = np.mean([segment.y for segment in near]) + random.normal(4, 8)
    y, z = np.meshgrid(
        (np.arange(ROWS) - (ROWS - 1) / 2) * PIXEL_MM + centre_y,
        ((COLUMNS - 1) / 2 - np.arange(COLUMNS)) * PIXEL_MM + centre_z,
        indexing="ij",
    )
    y, z = y.astype(np.float32), z.astype(np.float32)
    if random.random() < FLANKS:
        side = random.choice([-1, 1]) * random.uniform(*FLANKS_MM) * person.size
    else:
        side = np.clip(random.normal(0, 13), -34, 34)
    lean = random.normal(0, 0.035)
    state = random.integers(2**31)  # the same textures in both planes
    x = (side + lean * (z - centre_z)).astype(np.float32)
    apart = random.uniform(1.5, 3.5)
    return np.stack(
        [
            Painter(person, x + plane * apart, y, z, np.random.default_rng(state)).paint()
            for plane in range(PLANES)
        ]
    )


def _draw_file(files: tuple[Path, ...], seed: int, patients: int, number: int) -> None:
    first = number * patients
    maps = np.stack([draw_patient_maps(seed, first + k) for k in range(patients)])
    with written_aside(files[number]) as temporary, temporary.open("wb") as file:
        np.save(file, maps, allow_pickle=False)
