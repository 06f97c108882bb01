"""What a model folder says of itself, in plain words. The engine checks it again when it loads the model."""

from __future__ import annotations

import json
from pathlib import Path

from slicer.i18n import tr as _

from CPS4Core.errors import CPS4Error

CARD = "card.json"


def read_card(folder: Path) -> dict:
    """Return the card of a model folder.

    Raises:
        CPS4Error: if the folder holds no model.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        weights, classes = card["weights"], card["classes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CPS4Error(
            _("This is no model folder."), _("Choose the folder `model` of a training run."), folder
        ) from error
    if not isinstance(weights, dict) or not isinstance(classes, dict):
        raise CPS4Error(_("The model's card is damaged."), _("Copy the model folder again."), path)
    return card


def can_segment(card: dict) -> bool:
    """Whether the model has a segmentation network (stage 2)."""
    return "network" in card["weights"]


def can_attend(card: dict) -> bool:
    """Whether the model has trained encoders (stage 1), which attention maps need."""
    return "encoders" in card["weights"]


def describe(card: dict) -> str:
    """Return the card in plain words: what for, trained on what, how good, which classes."""
    if can_segment(card) and can_attend(card):
        purpose = _("Segments and shows attention maps")
    elif can_segment(card):
        purpose = _("Segments; it was trained without prompts and shows no attention maps")
    else:
        purpose = _("Shows attention maps only: stage 2 is not trained")
    data = card.get("data") or {}
    sentences = [
        purpose,
        _("trained on {labelled} labelled and {unlabelled} unlabelled cases").format(
            labelled=data.get("labelled_cases", "?"), unlabelled=data.get("unlabelled_cases", 0)
        ),
    ]
    dice = (card.get("validation") or {}).get("validation_mdice")
    if dice is not None:
        sentences.append(_("validation Dice {dice:.2f}").format(dice=float(dice)))
    sentences.append(_("{count} structures").format(count=len(card["classes"]) - 1))
    return "; ".join(sentences) + "."
