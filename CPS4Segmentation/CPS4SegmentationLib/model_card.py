"""What a model's card says, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from CPS4Core.card import ENCODERS, NETWORK, Card


def describe(card: Card) -> str:
    """Return the card in plain words: what for, trained on what, how good, and what nobody has tested."""
    if card.about:
        return _describe_shipped(card)
    parts = [
        _purpose(card),
        _("trained on {labelled} labelled and {unlabelled} unlabelled cases").format(
            labelled=card.data.get("labelled_cases", "?"), unlabelled=card.data.get("unlabelled_cases", 0)
        ),
    ]
    dice = card.validation.get("validation_mdice")
    if dice is not None:
        parts.append(_("validation Dice {dice:.2f}").format(dice=float(dice)))
    parts.append(_("{count} structures").format(count=len(card.classes) - 1))
    return "; ".join(parts) + "."


def model_name(folder: Path) -> str:
    """Return how a model is called: the name on its card, else its folder and the one above.

    Raises:
        CPS4Error: if the folder holds no usable model.
    """
    return Card.read(folder).about.get("name") or f"{folder.parent.name}/{folder.name}"


def _purpose(card: Card) -> str:
    if NETWORK in card.weights and ENCODERS in card.weights:
        return _("Segments and shows attention maps")
    if NETWORK in card.weights:
        return _("Segments; it was trained without prompts and shows no attention maps")
    return _("Shows attention maps only: stage 2 is not trained")


def _describe_shipped(card: Card) -> str:
    """Return what a person should know of a model that ships: it was made for scans that its makers never saw."""
    sentences = [
        _("{name}, which comes with CPS4.").format(name=card.about.get("name", _("The model"))),
        _("{purpose}; {count} structures.").format(purpose=_purpose(card), count=len(card.classes) - 1),
        _origin(card.about),
        _scores(card.about.get("scores", {})),
        *(_(limit) for limit in card.about.get("limits", [])),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _origin(about: dict[str, Any]) -> str:
    """Return what the model learnt from, over all trainings that it went through."""
    trainings = list(_trainings(about))
    patients = {
        (data_set["name"], case)
        for training in trainings
        for data_set in training.get("data_sets", [])
        for case in data_set.get("labelled", [])
    }
    drawn = any("synthetic" in part for training in trainings for part in training.get("parts", {}))
    if drawn and patients:
        text = _("It learnt from synthetic spines and {count} labelled scans.")
    elif patients:
        text = _("It learnt from {count} labelled scans.")
    else:
        return _("It learnt from synthetic spines alone.") if drawn else ""
    return text.format(count=len(patients))


def _trainings(about: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Go through a model's own training and those of the models that it went on from."""
    while about:
        yield about
        about = about.get("went_on_from", {})


def _scores(scores: dict[str, dict[str, float]]) -> str:
    """Return the means over all scans, of whatever hospital, that the model never saw."""
    scored = [of_set for of_set in scores.values() if {"scans", "bones", "bone_levels"} <= of_set.keys()]
    scans = sum(of_set["scans"] for of_set in scored)
    if not scans:
        return ""
    dice, levels = (
        sum(of_set["scans"] * of_set[name] for of_set in scored) / scans for name in ("bones", "bone_levels")
    )
    return _(
        "On {scans} scans that it never saw, the Dice of the bones is {dice:.2f}; {levels:.0%} have the right name."
    ).format(scans=round(scans), dice=dice, levels=levels)
