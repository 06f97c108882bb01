"""What a model's card says, in plain words."""

from __future__ import annotations

from slicer.i18n import tr as _

from CPS4Core.card import ENCODERS, NETWORK, Card


def describe(card: Card) -> str:
    """Return the card in plain words: what for, trained on what, how good, which classes."""
    if NETWORK in card.weights and ENCODERS in card.weights:
        purpose = _("Segments and shows attention maps")
    elif NETWORK in card.weights:
        purpose = _("Segments; it was trained without prompts and shows no attention maps")
    else:
        purpose = _("Shows attention maps only: stage 2 is not trained")
    sentences = [
        purpose,
        _("trained on {labelled} labelled and {unlabelled} unlabelled cases").format(
            labelled=card.data.get("labelled_cases", "?"), unlabelled=card.data.get("unlabelled_cases", 0)
        ),
    ]
    dice = card.validation.get("validation_mdice")
    if dice is not None:
        sentences.append(_("validation Dice {dice:.2f}").format(dice=float(dice)))
    sentences.append(_("{count} structures").format(count=len(card.classes) - 1))
    return "; ".join(sentences) + "."
