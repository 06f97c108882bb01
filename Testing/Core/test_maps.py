"""Eq. 3: upsampling, Otsu's threshold and the merging of maps."""

import numpy as np
import torch

from CPS4Core.data.augment import Augmentation
from CPS4Core.vision_language.maps import gate_absent, merge_maps, otsu_thresholds, text_maps, upsample


def slow_otsu(values):
    """Try every threshold between the 256 bins; keep the one with the largest variance between the two sides."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    best, best_variance = centres[0], -1.0
    for k in range(255):
        left, right = counts[: k + 1], counts[k + 1 :]
        if left.sum() and right.sum():
            means = (left @ centres[: k + 1] / left.sum(), right @ centres[k + 1 :] / right.sum())
            variance = left.sum() * right.sum() * (means[0] - means[1]) ** 2
            if variance > best_variance * (1 + 1e-12):
                best, best_variance = centres[k], variance
    return best


def test_upsampling_is_bilinear_between_patch_centres():
    row = upsample(torch.tensor([[[0.0, 1.0]]]), (1, 8))[0, 0]
    torch.testing.assert_close(row, torch.tensor([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]))


def test_thresholds_match_an_exhaustive_search():
    random = np.random.default_rng(3)
    low, high = random.normal(0.2, 0.05, (5, 30, 40)), random.normal(0.7, 0.1, (5, 30, 40))
    maps = np.where(random.random((5, 30, 40)) < 0.2, high, low).clip(0.001, 0.999).astype(np.float32)
    thresholds = otsu_thresholds(torch.from_numpy(maps))
    for plane, threshold in zip(maps, thresholds, strict=True):
        bin_width = (plane.max() - plane.min()) / 256
        assert abs(threshold.item() - slow_otsu(plane)) <= bin_width


def test_binary_maps_find_the_bright_block_of_each_class():
    attention = torch.full((3, 8, 16), 0.1)
    attention[0, 2:4, 4:8] = 0.9
    attention[1, 6:8, 12:16] = 0.5  # a low peak is still a foreground: Otsu looks at each map alone
    maps = text_maps(attention, (64, 128)).binary
    assert maps.dtype == torch.bool
    assert maps.shape == (3, 64, 128)
    assert maps[0, 16:32, 32:64].float().mean() > 0.9
    assert maps[0].float().mean() < 0.1
    assert maps[1, 50:, 98:].all()
    assert not maps[2].any()  # a constant map has no foreground


def test_a_map_that_is_all_but_constant_has_a_threshold():
    step = torch.finfo(torch.float32).eps / 2  # between neighbouring float32 numbers below one
    attention = torch.full((1, 8, 8), 0.6)
    attention[:, :3] += 40 * step
    assert text_maps(attention, (8, 8)).binary.equal(attention > 0.6 + 20 * step)
    attention[:, :3] = 0.6 + step
    assert not text_maps(attention, (8, 8)).binary[:, 3:].any()


def test_merging_takes_the_largest_attention_among_the_maps_that_are_set():
    attention = torch.tensor([0.9, 0.4, 0.6, 0.8]).reshape(4, 1, 1).repeat(1, 1, 4)
    binary = torch.tensor(
        [[False, False, False, True], [True, True, False, False], [True, False, False, False], [False] * 4]
    ).unsqueeze(1)
    # Pixel 0: classes 1 and 2 are set, 2 is stronger. Pixel 2: none is set. Class 3 is strong but never set.
    assert merge_maps(binary, attention).tolist() == [[2, 1, 0, 0]]


def test_merging_takes_a_batch():
    random = torch.Generator().manual_seed(4)
    attention = torch.rand(2, 20, 6, 7, generator=random)
    binary = torch.rand(2, 20, 6, 7, generator=random) > 0.9
    merged = merge_maps(binary, attention)
    assert merged.shape == (2, 6, 7)
    assert torch.equal(merged[1], merge_maps(binary[1], attention[1]))


def test_the_gate_empties_the_map_of_a_class_that_is_never_strong():
    attention = torch.full((1, 2, 4, 4), 0.05)
    attention[0, 0, 1, 1] = 0.9
    attention[0, 1, 1, 1] = 0.3
    thresholds = torch.tensor([[0.4, 0.2]])
    gated = gate_absent(thresholds, attention, least_peak=0.5)
    assert gated[0, 0] == thresholds[0, 0]
    assert not (attention[0, 1] > gated[0, 1]).any()


def test_maps_of_a_batch_are_those_of_each_slice():
    attention = torch.rand(3, 20, 4, 8, generator=torch.Generator().manual_seed(5))
    batch = text_maps(attention, (16, 32))
    for k, A in enumerate(attention):
        alone = text_maps(A, (16, 32))
        assert torch.equal(batch.binary[k], alone.binary)
        assert torch.equal(batch.labels[k], alone.labels)
        again = text_maps(A, (16, 32), thresholds=batch.thresholds[k])
        assert torch.equal(again.binary, alone.binary)


def test_maps_move_with_the_augmented_slice_and_end_at_its_edge():
    A = torch.rand(2, 20, 4, 8, generator=torch.Generator().manual_seed(6))
    thresholds = text_maps(A, (16, 32)).thresholds
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, 17)[:16] + 1 / 16, torch.linspace(-1, 1, 33)[:32] + 1 / 32, indexing="ij"
    )
    grid = torch.stack([x, y], -1).expand(2, -1, -1, -1)
    still = text_maps(A, (16, 32), thresholds=thresholds, change=Augmentation(grid, torch.ones(2)))
    assert torch.equal(still.binary, text_maps(A, (16, 32)).binary)
    shifted = Augmentation(grid + torch.tensor([0.5, 0.0]), torch.ones(2))
    moved = text_maps(A, (16, 32), thresholds=thresholds, change=shifted)
    assert torch.equal(moved.binary[..., :24], still.binary[..., 8:])
    assert not moved.binary[..., 24:].any()
    assert not moved.labels[..., 24:].any()


def test_an_absent_class_has_an_empty_map():
    A = torch.full((2, 4, 4), 0.05)
    A[:, 1, 1] = torch.tensor([0.9, 0.3])
    assert text_maps(A, (8, 8)).binary.any((-2, -1)).tolist() == [True, True]
    assert text_maps(A, (8, 8), least_peak=0.5).binary.any((-2, -1)).tolist() == [True, False]
