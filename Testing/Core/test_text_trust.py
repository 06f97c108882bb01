"""How far text maps are trusted, and what that does to eq. 6 and 7."""

import numpy as np
import pytest
import torch

from CPS4Core.class_table import IGNORE, NUM_CLASSES
from CPS4Core.config import load_settings
from CPS4Core.segmentation.methods.cps4 import CPS4
from CPS4Core.segmentation.methods.method import Batch, TextTargets
from CPS4Core.segmentation.pseudo_labels import enhance
from CPS4Core.training.text_trust import measure_text_trust, text_targets
from CPS4Core.vision_language.maps import TextMaps


def test_trust_is_the_dice_with_the_labels_over_all_slices():
    truth = np.zeros((2, 4, 4), np.uint8)
    truth[0, :2] = 3  # 8 pixels of class 3, none in the second slice
    maps = torch.zeros(2, NUM_CLASSES, 4, 4, dtype=torch.bool)
    maps[0, 3, :1] = True  # 4 right ones
    maps[1, 3, 0, :2] = True  # 2 where it is absent
    maps[:, 5] = True  # a class that is nowhere
    trust = measure_text_trust([maps[:1], maps[1:]], [truth[:1], truth[1:]])
    assert trust[3].item() == pytest.approx(2 * 4 / (4 + 2 + 8))
    assert trust[5].item() == 0
    assert trust[0].item() == pytest.approx(trust[3].item() / (NUM_CLASSES - 1))
    assert measure_text_trust([maps], [truth], least=0.5)[3] == trust[3]
    assert not measure_text_trust([maps], [truth], least=0.6).any()


def test_a_map_of_little_trust_moves_the_target_less():
    z_t = torch.tensor([0.8, 0.0])[:, None, None]
    text = torch.tensor([0.0, 1.0])[:, None, None]
    assert enhance(z_t, text).item() == 1
    assert enhance(z_t, 0.5 * text).item() == 0
    p_t = torch.tensor([0.8, 0.2])[:, None, None]
    torch.testing.assert_close(
        enhance(p_t.log(), 0.5 * text, "normalised").flatten(), torch.tensor([0.8, 0.7]) / 1.5
    )


def row(*maps):
    """Return text maps of one slice of a row of pixels, from one list of attention values a class."""
    attention = torch.zeros(1, NUM_CLASSES, 1, len(maps[0]))
    for k, values in enumerate(maps):
        attention[0, k, 0] = torch.tensor(values)
    thresholds = torch.full((1, NUM_CLASSES), 0.5)
    thresholds[0, 2] = 0.2
    return TextMaps(attention, thresholds, attention > thresholds[..., None, None])


def trust_of(**classes):
    trust = torch.zeros(NUM_CLASSES)
    for name, value in classes.items():
        trust[int(name[1:])] = value
    return trust


def targets(maps, trust, *changes):
    return text_targets(maps, trust, load_settings("paper", [f"train.{change}" for change in changes]).train)


# Pixel 0: class 1 alone; 1: classes 1 and 2, the second far over its threshold; 2: class 3, which nobody trusts, over
# class 2; 3: none; 4: the background's.
ROW = (
    [0.0, 0.0, 0.0, 0.0, 0.7],
    [0.9, 0.6, 0.0, 0.1, 0.0],
    [0.0, 0.5, 0.3, 0.1, 0.0],
    [0.0, 0.0, 0.9, 0.0, 0.0],
)


def test_eq_6_takes_trusted_classes_alone_and_weighs_each_pixel_with_the_trust_in_its_own():
    trust = trust_of(c0=0.1, c1=0.8, c2=0.6)
    found = targets(row(*ROW), trust)
    assert found.labels.tolist() == [[[1, 1, 2, 0, 0]]]
    torch.testing.assert_close(found.trust, torch.tensor([[[0.8, 0.8, 0.6, 0.1, 0.1]]]))
    torch.testing.assert_close(found.maps[0, 2, 0], torch.tensor([0.0, 0.6, 0.6, 0.0, 0.0]))
    torch.testing.assert_close(found.certainty[0, 1, 0, :2], torch.tensor([0.72, 0.48]))
    assert not found.maps[0, 3].any() and not found.certainty[0, 3].any()
    # With full trust in all, eq. 6 as written.
    plain = targets(row(*ROW), torch.ones(NUM_CLASSES))
    assert plain.labels.equal(row(*ROW).labels) and (plain.trust == 1).all()


def test_overlapping_maps_can_be_compared_over_their_own_thresholds():
    found = targets(row(*ROW), torch.ones(NUM_CLASSES), "merged_by=over_threshold")
    # 0.6 / 0.5 < 0.5 / 0.2, and 0.9 / 0.5 > 0.3 / 0.2.
    assert found.labels.tolist() == [[[1, 2, 3, 0, 0]]]


def test_where_no_map_is_set_eq_6_is_silent_unless_the_background_is_sure():
    found = targets(row(*ROW), torch.ones(NUM_CLASSES), "unmapped=ignore")
    assert found.labels.tolist() == [[[1, 1, 3, IGNORE, 0]]]
    untrusted = targets(row(*ROW), trust_of(c1=0.8), "unmapped=ignore")
    assert untrusted.labels.tolist() == [[[1, 1, IGNORE, IGNORE, IGNORE]]]
    assert [load_settings(preset).train.unmapped for preset in ("paper", "small")] == ["background", "ignore"]


@pytest.fixture
def method():
    torch.manual_seed(0)
    return CPS4(load_settings("small", ["train.widths=[4, 8]", 'train.enhanced_target="normalised"']).train)


def batch_with(labels, trust):
    images = torch.randn(2, 1, 16, 32, generator=torch.Generator().manual_seed(1))
    text = torch.nn.functional.one_hot(torch.full((2, 16, 32), labels), NUM_CLASSES).movedim(-1, 1).float()
    return Batch(
        labelled=images,
        labels=torch.zeros(2, 16, 32, dtype=torch.long),
        unlabelled=images,
        text_targets=TextTargets(
            maps=text * trust,
            labels=text.argmax(1),
            trust=torch.full((2, 16, 32), trust),
            certainty=0.9 * text * trust,
        ),
    )


def test_without_trust_the_text_has_no_say(method):
    def loss_with(labels, trust):
        return method(batch_with(labels, trust))["total"]

    torch.testing.assert_close(loss_with(7, 0.0), loss_with(9, 0.0))
    assert not torch.isclose(loss_with(7, 1.0), loss_with(9, 1.0))


def test_where_the_text_is_sure_a_pixel_counts_though_the_teacher_is_not():
    torch.manual_seed(0)
    settings = load_settings("paper", ["train.widths=[4, 8]", "train.teacher_weight=0.01"]).train
    method = CPS4(settings)
    sure = CPS4(settings.model_copy(update={"confidence": 0.8}))
    sure.load_state_dict(method.state_dict())
    # A new teacher gives every class about one in twenty; the text is sure of class 7 by 0.9 times the trust.
    everywhere, nowhere = batch_with(7, 1.0), batch_with(7, 0.5)
    torch.testing.assert_close(sure(everywhere)["semi_enhance"], method(everywhere)["semi_enhance"])
    assert sure(nowhere)["semi_enhance"] == 0
    assert method(nowhere)["semi_enhance"] > 1
