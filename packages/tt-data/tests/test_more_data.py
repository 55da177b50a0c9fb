"""What completes the data loader: the sizes of parts, and squares cut out of images."""

import numpy as np
import pytest

import tt_data as td
from tt_data.common import split_sizes


@pytest.mark.parametrize(
    ("total", "lengths", "sizes"),
    [
        (10, [7, 3], [7, 3]), (10, [0.5, 0.25, 0.25], [6, 2, 2]), (7, [0.5, 0.5], [4, 3]), (1, [1], [1]),
        (11, [0.25] * 4, [3, 3, 3, 2]), (0, [0, 0], [0, 0]), (4, [4, 0], [4, 0]), (1, [0.5, 0.5], [1, 0]),
        (10, [1.0, 0.0], [10, 0]), (10, [5.0, 5.0], [5, 5]),
    ],
)  # fmt: skip
def test_sizes_of_parts(total, lengths, sizes):
    found = split_sizes(total, lengths)
    assert found == sizes and all(type(size) is int for size in found)


@pytest.mark.parametrize(
    "lengths", [[6, 3], [7, 4], [0.5, 0.4], [2.5, 7.5], [-1, 11], [11, -1], [float("nan"), 10]], ids=str
)
def test_sizes_that_do_not_add_up(lengths):
    with pytest.raises(ValueError, match="they must be integers of 0 or more"):
        split_sizes(10, lengths)


def test_a_negative_share_is_refused():
    with pytest.raises(ValueError, match="shares that add up to 1"):
        split_sizes(1, [-0.5, 0.5, 1.0])


def test_cutout():
    images = np.full((300, 2, 6, 7), 9, np.uint8)
    cut = td.Cutout(3)(images, np.random.default_rng(0))
    holes = cut == 0
    assert cut.dtype == np.uint8 and images.min() == 9  # a copy
    assert (holes.any(axis=2).sum(axis=2) == 3).all() and (holes.any(axis=3).sum(axis=2) == 3).all()
    assert (holes.sum(axis=(2, 3)) == 9).all() and (holes[:, 0] == holes[:, 1]).all()
    top, left = (np.argmax(holes[:, 0].any(axis=axis), axis=1) for axis in (2, 1))
    assert (top.min(), top.max(), left.min(), left.max()) == (0, 3, 0, 4)  # every position, for each image its own
    assert np.array_equal(cut, td.Cutout(3)(images, np.random.default_rng(0)))


def test_cutout_of_images_that_are_too_small():
    with pytest.raises(ValueError, match="does not fit"):
        td.Cutout(8)(np.zeros((1, 1, 6, 7), np.uint8))
