"""Small faults of a mask: holes, specks, what lies off the spine."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import find_objects
from scipy.ndimage import label as connected

from CPS4Core.naming.column import Column

HOLE_MM2 = 60.0
"""A gap in a slice that one structure surrounds is a hole up to this size: a foramen is larger, and has two rims."""
SPECK_MM3 = 80.0
"""What is connected to nothing of its own structure is a speck up to this size."""
FRONT_MM, BACK_MM = 15.0, 70.0
"""Nothing of a spine lies further in front of its bodies and behind them."""
IN_SLICE = np.array([np.zeros((3, 3)), [[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.zeros((3, 3))], int)


def off_the_spine(column: Column) -> np.ndarray:
    """Return which voxels lie too far from the bodies, in the list of the column."""
    return (column.behind < -column.half_depth - FRONT_MM) | (column.behind > column.half_depth + BACK_MM)


def without_specks(labels: np.ndarray, voxel_mm3: float) -> np.ndarray:
    """Return the labels (slices, AP, SI) without specks: each takes the name that it touches most, or goes."""
    cleaned = labels.copy()
    for value, box in enumerate(find_objects(labels), 1):
        if box is None:
            continue
        numbers, count = connected(labels[box] == value, np.ones((3, 3, 3)))
        sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        small = np.flatnonzero((sizes * voxel_mm3 < SPECK_MM3) & (sizes < sizes.max())) + 1
        if not len(small):
            continue
        corner = np.array([side.start for side in box])
        for number in small:
            where = np.argwhere(numbers == number) + corner
            cleaned[tuple(where.T)] = _commonest_beside(labels, where, value)
    return cleaned


def without_holes(labels: np.ndarray, pixel_mm2: float) -> np.ndarray:
    """Return the labels (slices, AP, SI) with the holes in each slice filled."""
    largest = HOLE_MM2 / pixel_mm2
    box = _box(labels, margin=int(largest**0.5) + 1)  # what surrounds the structures is larger than a hole
    near = labels[box]
    numbers, count = connected(near == 0, IN_SLICE)
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)
    small = sizes <= largest
    small[0] = False
    gaps = np.argwhere(small[numbers])
    if not len(gaps):
        return labels
    padded = np.pad(near, ((0, 0), (1, 1), (1, 1)), constant_values=255)
    number = numbers[tuple(gaps.T)]
    low, high = np.full(count + 1, 255), np.zeros(count + 1, int)
    for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        beside = padded[gaps[:, 0], gaps[:, 1] + 1 + step[0], gaps[:, 2] + 1 + step[1]].astype(int)
        rim = beside > 0
        np.minimum.at(low, number[rim], beside[rim])
        np.maximum.at(high, number[rim], beside[rim])
    filled = labels.copy()
    filled[box][tuple(gaps.T)] = np.where(low == high, low, 0)[number]
    return filled


def _box(labels: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Return the part of the stack that holds all structures, with a margin within each slice."""
    (box,) = find_objects(labels.astype(bool).view(np.uint8)) or [(slice(0, 0),) * 3]
    slices, *plane = box
    return slices, *(slice(max(0, side.start - margin), side.stop + margin) for side in plane)


def _commonest_beside(labels: np.ndarray, where: np.ndarray, value: int) -> int:
    """Return the name that voxels touch most, besides their own; background if they touch none."""
    padded = np.pad(labels, 1)
    steps = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    beside = padded[tuple((where[:, None] + 1 + steps).reshape(-1, 3).T)]
    counts = np.bincount(beside, minlength=value + 1)
    counts[[0, value]] = 0
    return int(counts.argmax())
