"""Measuring segmentations in files, as a CSV table."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CPS4Core.cancellation import Cancellation
from CPS4Core.data.labels import read_labels
from CPS4Core.data.listing import folders_below
from CPS4Core.data.results import check_place
from CPS4Core.data.volumes import IMAGE_SUFFIXES, case_name, list_volumes
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Failed, Progress, Reporter
from CPS4Core.failures import failure_of
from CPS4Core.measuring import Spine, measure_labels
from CPS4Core.measuring.table import COLUMNS, rows_of

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def measure_files(source: Path, report: Reporter, cancellation: Cancellation) -> tuple[str, list[Failed]]:
    """Return the measures of segmentations as CSV, a row for each structure of each case, and what failed.

    Args:
        source: a label map or a Slicer segmentation, or a folder that holds some, itself or in folders below.
        report: receives progress and failures.
        cancellation: asked between files.

    Raises:
        CPS4Error: if there is no segmentation.
        Cancelled: if the user asked to stop.
    """
    paths = _segmentations(source)
    if not paths:
        raise CPS4Error(
            "There is no segmentation.", f"Segmentations end in {', '.join(IMAGE_SUFFIXES)}.", source
        )
    table, failures = io.StringIO(newline=""), []
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("case", *COLUMNS))
    for number, path in enumerate(paths):
        cancellation.check()
        report(Progress(number, len(paths), f"Measuring {path.name}"))
        try:
            spine = measure_image(read_labels(path))
        except Exception as error:  # of one case; the others have their turn
            failures.append(failure_of(error, path))
            report(failures[-1])
        else:
            case = (path.relative_to(source).parent if path != source else Path()) / case_name(path)
            writer.writerows((case.as_posix(), *row) for row in rows_of(spine).values())
    report(Progress(len(paths), len(paths), ""))
    return table.getvalue(), failures


def check_table(table: Path, source: Path, overwrite: bool) -> None:
    """Check that a table may be written.

    Raises:
        CPS4Error: if it would take the place of a segmentation, or there is a file that may not be written over.
    """
    check_place(table, _segmentations(source))
    if table.exists() and not overwrite:
        raise CPS4Error(
            "There is a file already.",
            "Choose another place for the table; on the command line, --overwrite writes over it.",
            table,
        )


def _segmentations(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    return [path for folder in folders_below(source) for path in list_volumes(folder)]


def measure_image(labels: sitk.Image) -> Spine:
    """Return the measures of a label map of the class table."""
    to_lps = np.eye(4)
    to_lps[:3, :3] = np.reshape(labels.GetDirection(), (3, 3)) * labels.GetSpacing()
    to_lps[:3, 3] = labels.GetOrigin()
    return measure_labels(sitk.GetArrayViewFromImage(labels), LPS_TO_RAS @ to_lps)
