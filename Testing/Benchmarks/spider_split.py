"""Makes the data set of the experiment on real scans: 22 patients to learn from, 8 to test on, once and for all.

    python Testing/Benchmarks/spider_split.py OUTPUT

The scans are those of ``spider_t2`` (SPIDER, CC BY 4.0), copied. Six of the test patients are those that the base
model has not seen.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "shared/data/spider_t2"
TEST = ("005", "018", "041", "057", "098", "146", "200", "220")


def main(output: Path) -> None:
    """Write the data set to ``output``, which must not exist."""
    output.mkdir(parents=True)
    for image in sorted((SOURCE / "imagesTr").glob("*_0000.nii.gz")):
        name = image.name.removesuffix("_0000.nii.gz")
        part = "Ts" if name.removeprefix("spider_") in TEST else "Tr"
        for kind, path in (("images", image), ("labels", SOURCE / "labelsTr" / f"{name}.nii.gz")):
            target = output / (kind + part) / path.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
    shutil.copyfile(SOURCE / "dataset.json", output / "dataset.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
