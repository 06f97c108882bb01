"""From kinds and pieces to levels: counting along the spine, with its certainty."""

from typing import Literal, get_args

Levels = Literal["counted", "as-seen"]
"""Names of structures by counting along the spine, or as the network sees each pixel by itself."""
LEVELS: tuple[Levels, ...] = get_args(Levels)
