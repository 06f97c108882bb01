"""What to look at in a segmentation: sizes, confidence, signs of errors. Plain numbers, no Slicer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from CPS4Core.levels import LADDER, is_disc, step_of

LOW_CONFIDENCE = 0.7
SMALL = 0.35
"""A structure below this share of the median volume of its kind is too small."""
LARGE = 2.5
"""A structure above this multiple of it is too large."""
ASYMMETRY = 0.4
"""Share of the volume by which the right and the left half, seen from the middle of the spine, may differ."""


@dataclass
class Finding:
    """One structure, and why to look at it."""

    name: str
    volume_ml: float = math.nan
    agreement: Mapping[str, float] = field(default_factory=dict)
    """What speaks for it, each 0 to 1: ``network`` is the mean probability, ``teacher`` the Dice with the teacher's
    structure, ``prompts`` the share that the class prompts call the same. Empty if the engine did not make it."""
    centre: tuple[float, float, float] | None = None
    """Centre of mass, RAS, mm; None for a structure that is missing."""
    segment: str | None = None
    """ID of the segment; None for a structure that is missing."""
    flags: list[str] = field(default_factory=list)
    """Why somebody should look at it."""
    looked_at: list[str] = field(default_factory=list)
    """Why somebody should have, and did."""

    @property
    def confidence(self) -> float:
        """The mean of what speaks for the structure, 0 to 1; NaN if nothing is known."""
        return sum(self.agreement.values()) / len(self.agreement) if self.agreement else math.nan


def measure(mask: np.ndarray, ijk_to_ras: np.ndarray) -> Finding:
    """Measure one structure.

    Args:
        mask: not zero inside, axes k, j, i.
        ijk_to_ras: 4 x 4.

    Returns:
        Volume and centre; the name is empty.
    """
    places = np.argwhere(mask)[:, ::-1]
    finding = Finding("")
    if not len(places):
        finding.volume_ml = 0.0
        return finding
    directions = np.asarray(ijk_to_ras)[:3, :3]
    finding.volume_ml = len(places) * abs(float(np.linalg.det(directions))) / 1000
    centre = np.asarray(ijk_to_ras) @ np.append(places.mean(0), 1.0)
    finding.centre = (float(centre[0]), float(centre[1]), float(centre[2]))
    return finding


def right_left_difference(mask: np.ndarray, ijk_to_ras: np.ndarray, middle: float) -> float:
    """Return how much more of a structure lies on one side of ``middle`` (R, mm), as a share of it, 0 to 1."""
    places = np.argwhere(mask)[:, ::-1]
    if not len(places):
        return 0.0
    right = places @ np.asarray(ijk_to_ras)[0, :3] + ijk_to_ras[0, 3] - middle
    return abs(float(np.sign(np.round(right, 3)).mean()))


def review(
    masks: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    agreement: Mapping[str, Mapping[str, float]],
    looked_at: Mapping[str, Collection[str]],
    ijk_to_ras: np.ndarray,
) -> list[Finding]:
    """Return the structures of a segmentation, those to look at first at the top.

    Args:
        masks: by segment ID, axes k, j, i, on one grid.
        names: of the segments.
        agreement: what speaks for the segments that the engine made.
        looked_at: for what flags somebody looked at a segment already.
        ijk_to_ras: of the grid, 4 x 4.
    """
    findings = []
    for segment, mask in masks.items():
        finding = measure(mask, ijk_to_ras)
        finding.name, finding.segment = names[segment], segment
        finding.agreement = agreement.get(segment, {})
        findings.append(finding)
    _flag_sizes(findings)
    _flag_confidence(findings)
    _flag_asymmetry(findings, masks.values(), ijk_to_ras)
    _flag_order(findings)
    for finding, segment in zip(findings, masks, strict=True):
        known = looked_at.get(segment, ())
        finding.looked_at = [flag for flag in finding.flags if flag in known]
        finding.flags = [flag for flag in finding.flags if flag not in known]
    findings += _missing(findings)
    return sorted(findings, key=lambda finding: (-len(finding.flags), _place(finding)))


def _place(finding: Finding) -> int:
    step = step_of(finding.name)
    return 1000 if step is None else step


def _flag_sizes(findings: list[Finding]) -> None:
    for disc in (True, False):
        same = [
            found for found in findings if step_of(found.name) is not None and is_disc(found.name) is disc
        ]
        usual = float(np.median([found.volume_ml for found in same])) if same else 0.0
        for found in same:
            if found.volume_ml == 0:
                found.flags.append("empty")
            elif found.volume_ml < SMALL * usual:
                found.flags.append("too small")
            elif found.volume_ml > LARGE * usual:
                found.flags.append("too large")


def _flag_confidence(findings: list[Finding]) -> None:
    for finding in findings:
        if round(finding.confidence, 2) < LOW_CONFIDENCE:  # as it is shown
            finding.flags.append("low confidence")


def _flag_asymmetry(findings: list[Finding], masks: Iterable[np.ndarray], ijk_to_ras: np.ndarray) -> None:
    centres = [finding.centre[0] for finding in findings if finding.centre is not None]
    if not centres:
        return
    middle = float(np.median(centres))
    for finding, mask in zip(findings, masks, strict=True):
        if right_left_difference(mask, ijk_to_ras, middle) > ASYMMETRY:
            finding.flags.append("one-sided")


def _flag_order(findings: list[Finding]) -> None:
    """Flag structures that lie above one that they should lie below, or that share their name with another."""
    levels = [found for found in findings if step_of(found.name) is not None]
    heights = [(found, found.centre[2]) for found in sorted(levels, key=_place) if found.centre is not None]
    for (upper, upper_height), (lower, lower_height) in pairwise(heights):
        if upper.name == lower.name:
            problem = "name used twice"
        elif upper_height <= lower_height:
            problem = "out of order"
        else:
            continue
        for finding in (upper, lower):
            if problem not in finding.flags:
                finding.flags.append(problem)


def _missing(findings: list[Finding]) -> list[Finding]:
    """Return the structures that are not there between those that are."""
    steps = {step for found in findings if found.volume_ml > 0 and (step := step_of(found.name)) is not None}
    if not steps:
        return []
    between = range(min(steps), max(steps) + 1)
    return [Finding(LADDER[step], flags=["missing"]) for step in between if step not in steps]
