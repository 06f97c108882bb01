"""Batches: cut where the slices of each group are, and whole again when put together."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from CPS4Core.training.batches import most_parts, split, to_device


@dataclass(frozen=True)
class Text:
    maps: Tensor
    certainty: Tensor


@dataclass(frozen=True)
class Batch:
    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    text: Text | None = None
    progress: float = 0.5


def test_every_part_has_its_share_of_each_group():
    batch = Batch(torch.randn(6, 1, 4, 4), torch.arange(6), torch.randn(2, 1, 4, 4))
    assert most_parts(batch) == 2
    first, second = split(batch, 2)
    assert torch.equal(first.labels, torch.arange(3)) and torch.equal(second.labels, torch.arange(3, 6))
    assert torch.equal(torch.cat([first.labelled, second.labelled]), batch.labelled)
    assert torch.equal(torch.cat([first.unlabelled, second.unlabelled]), batch.unlabelled)
    assert (second.text, second.progress) == (None, 0.5)


def test_a_group_of_its_own_is_cut_and_moved_with_the_batch():
    text = Text(torch.randn(2, 4, 4), torch.arange(2.0))
    batch = replace(Batch(torch.randn(6, 1), torch.arange(6), torch.randn(3, 1)), text=text)
    assert most_parts(batch) == 2
    first, second = split(batch, 2)
    assert torch.equal(torch.cat([first.text.maps, second.text.maps]), text.maps)
    assert (first.text.certainty.tolist(), second.text.certainty.tolist()) == ([0.0], [1.0])
    moved = to_device(batch, torch.device("meta"))
    assert {tensor.device.type for tensor in (moved.labels, moved.text.maps, moved.text.certainty)} == {
        "meta"
    }


def test_a_group_without_slices_does_not_count():
    batch = Batch(torch.randn(3, 1, 4, 4), torch.arange(3), torch.randn(0, 1, 4, 4))
    assert most_parts(batch) == 3
    assert [len(part.labelled) for part in split(batch, 2)] == [2, 1]
    assert [len(part.unlabelled) for part in split(batch, 3)] == [0, 0, 0]
