"""How far text maps are trusted, and what that does to eq. 6 and 7."""

import numpy as np
import pytest
import torch

from CPS4Core.class_table import NUM_CLASSES
from CPS4Core.config import load_settings
from CPS4Core.segmentation.methods.cps4 import CPS4
from CPS4Core.segmentation.methods.method import Batch
from CPS4Core.segmentation.pseudo_labels import enhance
from CPS4Core.training.text_trust import measure_text_trust


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


def test_a_map_of_little_trust_does_not_overrule_a_sure_teacher():
    teacher = torch.tensor([0.8, 0.2])[:, None, None]
    text = torch.tensor([0.0, 1.0])[:, None, None]
    assert enhance(teacher, text).item() == 1
    assert enhance(teacher, 0.5 * text).item() == 0
    torch.testing.assert_close(
        enhance(teacher, 0.5 * text, "normalised").flatten(), torch.tensor([0.8, 0.7]) / 1.5
    )


def test_without_trust_the_text_has_no_say():
    settings = load_settings("small", ["train.widths=[4, 8]", 'train.enhanced_target="normalised"']).train
    torch.manual_seed(0)
    method = CPS4(settings)
    images = torch.randn(2, 1, 16, 32)

    def loss_with(text_maps, trust):
        batch = Batch(
            labelled=images,
            labels=torch.zeros(2, 16, 32, dtype=torch.long),
            unlabelled=images,
            text_maps=text_maps * trust,
            text_labels=text_maps.argmax(1),
            text_trust=trust,
        )
        return method(batch)["total"]

    wrong = torch.nn.functional.one_hot(torch.full((2, 16, 32), 7), NUM_CLASSES).movedim(-1, 1).float()
    other = torch.nn.functional.one_hot(torch.full((2, 16, 32), 9), NUM_CLASSES).movedim(-1, 1).float()
    torch.testing.assert_close(loss_with(wrong, 0.0), loss_with(other, 0.0))
    assert not torch.isclose(loss_with(wrong, 1.0), loss_with(other, 1.0))


def test_the_target_weighs_teacher_and_text_as_the_settings_say():
    """With `literal`, eq. 7 is the sum of both cross-entropies, each times its weight."""
    from CPS4Core.segmentation.losses import cross_entropy

    random = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 1, 4, 3, 3, generator=random, dtype=torch.float64)
    teacher = teacher.softmax(1)
    text = (
        torch.nn.functional.one_hot(torch.randint(4, (1, 3, 3), generator=random), 4).movedim(-1, 1).double()
    )
    target = enhance(0.1 * teacher, 0.3 * text, "literal")
    expected = 0.1 * cross_entropy(logits, teacher) + 0.3 * cross_entropy(logits, text)
    torch.testing.assert_close(cross_entropy(logits, target), expected)
