"""What is flagged in a segmentation, in the words that a user reads."""

from __future__ import annotations

from slicer.i18n import tr as _


def flag_words() -> dict[str, str]:
    """Return the words for why to look at a structure, by the flag of a finding."""
    return {
        "missing": _("missing"),
        "out of order": _("out of order"),
        "name used twice": _("name used twice"),
        "one-sided": _("one side"),
        "too small": _("too small"),
        "too large": _("too large"),
        "empty": _("empty"),
        "low confidence": _("unsure"),
    }
