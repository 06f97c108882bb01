"""Put a base model where CPS4 looks for it, with what it scored and what nobody has tested in its card.

    python Testing/Benchmarks/ship.py build/base/model build/real/HASH/real.json

`real.py` must have scored this very model. The old model in Resources/Models/base is replaced; git keeps it.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from CPS4Core.card import Card
from CPS4Core.errors import CPS4Error
from CPS4Core.files import read_json

DESTINATION = Path(__file__).parents[2] / "Resources/Models/base"
KEPT = (
    "scans",
    "bones",
    "bones_by_name",
    "discs",
    "discs_by_name",
    "bone_levels",
    "disc_levels",
    "all_levels_right",
    "bones_hd95_mm",
)
LIMITS = [
    "No medical device: every result must be looked at by somebody who can judge it.",
    "Levels count from the lowest lumbar disc; a transitional vertebra or a cut sacrum can shift all of them by one.",
    "Not tested on cervical or whole-spine scans, on axial or coronal series, on children, after surgery with metal, "
    "or on fractures and tumours as groups of their own.",
]


def scores_for_card(report: dict[str, Any], sha256: str) -> dict[str, dict[str, float]]:
    """Return the means of each set that a card keeps.

    Args:
        report: what ``real.py`` wrote.
        sha256: of the network that is shipped.

    Raises:
        CPS4Error: if another model was scored.
    """
    if report["network"] != sha256:
        raise CPS4Error("The scores are those of another network.", "Run real.py on this model.")
    return {
        name: {key: round(scores["mean"][key], 4) for key in KEPT if scores["mean"][key] is not None}
        for name, scores in report["sets"].items()
    }


def ship(model: Path, report: Path, destination: Path) -> None:
    """Copy ``model`` to ``destination``, with the scores of ``report`` in its card; the card is written last."""
    card = Card.read(model)
    scores = scores_for_card(read_json(report), card.weights["network"].sha256)
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True)
    for weights in card.weights.values():
        shutil.copyfile(model / weights.file, destination / weights.file)
    replace(card, about={**card.about, "scores": scores, "limits": LIMITS}).write(destination)


def main() -> None:
    """Ship the model that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder that `make base` made")
    parser.add_argument("report", type=Path, help="real.json of that model")
    arguments = parser.parse_args()
    ship(arguments.model, arguments.report, DESTINATION)


if __name__ == "__main__":
    main()
