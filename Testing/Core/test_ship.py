"""What is put beside the weights that ship."""

import json
import sys
from pathlib import Path

import pytest

from CPS4Core.errors import CPS4Error

sys.path.insert(0, str(Path(__file__).parents[1] / "Benchmarks"))

from ship import ship

MODEL = Path(__file__).parent / "models/format-2"


def report(folder: Path, network: str) -> Path:
    means = {"scans": 3, "bones": 0.91234567, "discs": None, "seconds": 0.1}
    path = folder / "real.json"
    path.write_text(json.dumps({"network": network, "sets": {"t1_bodies": {"mean": dict.fromkeys(
        ("bones_by_name", "discs_by_name", "bone_levels", "disc_levels", "all_levels_right", "bones_hd95_mm")
    ) | means}}}))  # fmt: skip
    return path


def test_the_card_says_the_scores_and_the_limits(tmp_path):
    network = json.loads((MODEL / "card.json").read_text())["weights"]["network"]
    destination = tmp_path / "shipped"
    ship(MODEL, report(tmp_path, network["sha256"]), destination)
    about = json.loads((destination / "card.json").read_text())["about"]
    assert about["scores"] == {"t1_bodies": {"scans": 3, "bones": 0.9123}}
    assert "No medical device" in about["limits"][0]
    assert (destination / network["file"]).read_bytes() == (MODEL / network["file"]).read_bytes()


def test_scores_of_another_model_are_refused(tmp_path):
    with pytest.raises(CPS4Error, match="another network"):
        ship(MODEL, report(tmp_path, "0" * 64), tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()
