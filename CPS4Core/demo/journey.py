"""What one run of the demo made, for the report to tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from CPS4Core.config import Settings
from CPS4Core.demo.real_sample import RealResult
from CPS4Core.demo.real_scans import RealScan
from CPS4Core.evaluation.evaluate import Results


@dataclass
class Journey:
    """What the demo made, and how long each part took."""

    folder: Path
    device: torch.device
    settings: Settings
    base: Path | None = None
    """The model that comes with CPS4, where it is here."""
    at_once: list[RealScan] = field(default_factory=list)
    """What it says of real scans."""
    models: dict[str, Path] = field(default_factory=dict)
    results: dict[str, Results] = field(default_factory=dict)
    real: RealResult | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The data set."""
        return self.folder / "data"

    @property
    def stage_1(self) -> Path:
        """The run of stage 1."""
        return self.folder / "stage1"

    @property
    def encoders(self) -> Path:
        """The model of stage 1."""
        return self.stage_1 / "model"

    def segmented(self, system: str) -> Path:
        """Return the folder of the test segmentations of ``system``."""
        return self.folder / "segmented" / system.replace(" ", "-")
