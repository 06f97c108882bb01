"""The class table and the events."""

import pytest

from CPS4Core.class_table import (
    BONES,
    BY_LABEL,
    DISCS,
    HEAD_TO_TAIL,
    NUM_CLASSES,
    STRUCTURES,
    class_prompts,
    find_label,
)
from CPS4Core.events import EVENTS, Failed, Finished, Progress, parse


def test_labels_are_those_of_mrspineseg():
    named = {structure.short: structure.label for structure in STRUCTURES}
    assert named["S"] == 1
    assert [named[f"L{n}"] for n in range(5, 0, -1)] == [2, 3, 4, 5, 6]
    assert [named[f"T{n}"] for n in range(12, 8, -1)] == [7, 8, 9, 10]
    assert [named[disc] for disc in ("L5/S", "L4/L5", "T12/L1", "T9/T10")] == [11, 12, 16, 19]


def test_every_label_code_and_colour_is_its_own():
    assert sorted(BY_LABEL) == list(range(1, NUM_CLASSES))
    for field in ("name", "short", "color", "snomed"):
        assert len({getattr(structure, field) for structure in STRUCTURES}) == len(STRUCTURES)


def test_vertebrae_and_discs_alternate_from_head_to_tail():
    shorts = [BY_LABEL[label].short for label in HEAD_TO_TAIL]
    assert shorts[0] == "T9"
    assert shorts[-1] == "S"
    for above, disc, below in zip(shorts[::2], shorts[1::2], shorts[2::2], strict=False):
        assert disc == f"{above}/{below}"


def test_structures_know_their_level():
    assert [(bone.short, bone.level) for bone in BONES[:3]] == [("S", 0), ("L5", 1), ("L4", 2)]
    assert [(disc.short, disc.level) for disc in DISCS[:2]] == [("L5/S", 0), ("L4/L5", 1)]
    assert [structure.level for structure in BONES] == list(range(10))
    assert [structure.level for structure in DISCS] == list(range(9))
    # A disc has the level of the bone that it lies on.
    levels = [BY_LABEL[label].level for label in HEAD_TO_TAIL]
    assert levels == [9, *(level for level in range(8, -1, -1) for _disc_and_bone in range(2))]


def test_prompts_follow_the_template():
    prompts = class_prompts()
    assert len(prompts) == len(set(prompts)) == NUM_CLASSES
    assert prompts[6] == "A magnetic resonance image of a Lumbar Vertebra 1."
    assert class_prompts("short")[6] == "A magnetic resonance image of a L1."


@pytest.mark.parametrize(
    ("text", "label"),
    [("l4", 3), ("L4 / L5", 12), ("lumbar vertebra 4", 3), ("Background", 0), ("knee", None)],
)
def test_find_label(text, label):
    assert find_label(text) == label


@pytest.mark.parametrize(
    "event", [Progress(1, 2, "Zähler", 3.5), Failed("p", "r", "ü.nii"), Finished(request="7")]
)
def test_events_survive_their_line(event):
    line = event.to_json()
    assert "\n" not in line
    assert parse(line) == event


@pytest.mark.parametrize("line", ["[]", "3", '{"event": "party"}', '{"event": "progress"}', "{"])
def test_a_line_that_is_no_event_is_refused(line):
    with pytest.raises(ValueError):
        parse(line)


def test_every_event_has_its_own_name():
    assert len(EVENTS) == 7
