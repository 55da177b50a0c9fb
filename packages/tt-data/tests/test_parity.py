"""The same loaders, samplers and splits as PyTorch's, where both have the thing."""

import inspect
import math
from collections import namedtuple

import numpy as np
import pytest

import tt_data as td
import tt_tensor as tt

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")
td_torch = torch.utils.data
Point = namedtuple("Point", "x y")


@pytest.mark.parametrize("count", [0, 1, 9, 10, 12])
@pytest.mark.parametrize("batch_size", [1, 4, 12, 20])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_in_order(count, batch_size, drop_last):
    values = np.arange(count) * 3
    ours = td.DataLoader(td.TensorDataset(tt.from_numpy(values)), batch_size, drop_last=drop_last)
    theirs = td_torch.DataLoader(td_torch.TensorDataset(torch.tensor(values)), batch_size, drop_last=drop_last)
    assert [x.tolist() for (x,) in ours] == [x.tolist() for (x,) in theirs] and len(ours) == len(theirs)
    assert list(ours.batch_sampler) == list(theirs.batch_sampler)


@pytest.mark.parametrize("num_samples", [None, 1, 7, 10, 25])
@pytest.mark.parametrize("replacement", [False, True])
def test_random_samplers_draw_as_often(num_samples, replacement):
    def counts(sampler):
        drawn = np.bincount(list(sampler), minlength=10)
        return len(sampler), drawn.sum(), None if replacement else (drawn.min(), drawn.max())

    arguments = range(10), replacement, num_samples
    assert counts(td.RandomSampler(*arguments)) == counts(td_torch.RandomSampler(*arguments))


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": [4, 2, 2]},
        {"sampler": [4, 2, 2], "batch_size": 2},
        {"sampler": [4, 2, 2], "batch_size": 2, "drop_last": True},
        {"batch_sampler": [[1, 2], [], [3]], "collate_fn": list},
        {"collate_fn": sum, "batch_size": 4},
    ],
)
def test_samplers_and_collate_functions(options):
    ours, theirs = (kind.DataLoader(range(10), **options) for kind in (td, td_torch))
    assert [np.asarray(x).tolist() for x in ours] == [np.asarray(x).tolist() for x in theirs]
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("lengths", [[7, 3], [0.5, 0.25, 0.25], [0.33, 0.33, 0.34], [1.0], [10], [0.05, 0.95], [10, 0]])
def test_splits_have_the_same_sizes(lengths):
    ours, theirs = td.random_split(range(10), lengths), td_torch.random_split(range(10), lengths)
    assert [len(part) for part in ours] == [len(part) for part in theirs]
    assert sorted(i for part in ours for i in part.indices) == list(range(10))


@pytest.mark.parametrize("lengths", [[7, 4], [0.5, 0.6], [0.5, 2.0]])
def test_splits_that_cannot_be(lengths):
    with pytest.raises(ValueError):
        td.random_split(range(10), lengths)
    with pytest.raises(ValueError):
        td_torch.random_split(range(10), lengths)


def test_subsets_and_concatenations():
    def values(kind):
        whole = kind.ConcatDataset([range(5), kind.Subset(range(10), [9, 7])])
        return [whole[i] for i in range(-7, 7)], len(whole)

    assert values(td) == values(td_torch)


def plain(batch):
    """A batch as plain data, PyTorch's lists of fields as tuples."""
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return tuple(map(plain, batch))
    return (batch.tolist(), str(batch.dtype).removeprefix("torch.")) if hasattr(batch, "dtype") else batch


@pytest.mark.parametrize(
    "samples",
    [
        [1, 2],
        [True, False],
        ["a", "b"],
        [(1, "a"), (2, "b")],
        [{"x": 1, "y": (2, 3)}, {"x": 4, "y": (5, 6)}],
        [Point(1, 2), Point(3, 4)],
        [np.float32([1, 2]), np.float32([3, 4])],
        [np.uint8(3), np.uint8(4)],
        [(np.zeros((2, 2), np.int32), {"n": 1})] * 3,
    ],
    ids=str,
)
def test_collating(samples):
    ours, theirs = plain(td.collate(samples)), plain(td_torch.default_collate(samples))
    assert ours == theirs
    assert plain(td.default_collate(samples)) == theirs
    kinds = [type(kind.default_collate(samples)).__name__ for kind in (td, td_torch)]
    assert kinds[0] == kinds[1]
    assert type(td.collate(samples)) is Point or not isinstance(samples[0], Point)


def test_floats_in_a_batch():
    numbers = [0.1, 0.2]
    (ours,), (theirs,) = td.DataLoader(numbers, 2), td_torch.DataLoader(numbers, 2)
    assert (ours.dtype, theirs.dtype) == (tt.float32, torch.float64)  # on purpose, see "Where we differ"
    assert td.default_collate([np.float64(0.1), np.float64(0.2)]).dtype == tt.float64


def test_the_loader_has_pytorchs_parameters():
    for name in ("DataLoader", "RandomSampler", "SequentialSampler", "SubsetRandomSampler", "WeightedRandomSampler",
                 "Subset", "ConcatDataset", "ChainDataset", "DistributedSampler", "random_split"):  # fmt: skip
        ours, theirs = (inspect.signature(getattr(kind, name)).parameters.values() for kind in (td, td_torch))
        assert [(p.name, p.kind) for p in ours] == [(p.name, p.kind) for p in theirs], name
        if name == "DataLoader":
            assert [p.default for p in ours] == [p.default for p in theirs]


def lines_for(kind):
    class Lines(kind.IterableDataset):
        def __init__(self, end, shares):
            self.end, self.shares = end, shares

        def __iter__(self):
            info = kind.get_worker_info()
            return iter(range(info.id, self.end, info.num_workers) if info and self.shares else range(self.end))

    return Lines


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("options", [{"batch_size": 3}, {"batch_size": 3, "drop_last": True}, {"batch_size": None}])
def test_streams(workers, shares, options):
    def batches(kind):
        loader = kind.DataLoader(lines_for(kind)(7, shares), num_workers=workers, **options)
        return [np.asarray(batch).tolist() for batch in loader]

    assert batches(td) == batches(td_torch)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": None}, {"batch_size": None, "sampler": [[1, 2], [0]]}, {"batch_size": 2, "shuffle": None}],
    ids=str,
)
def test_with_and_without_batches(options):
    values = np.arange(6.0).reshape(3, 2)
    ours, theirs = (list(kind.DataLoader(values, **options)) for kind in (td, td_torch))
    assert [(x.tolist(), str(x.dtype)) for x in ours] == [(x.tolist(), str(x.dtype)[6:]) for x in theirs]


def test_parts_of_processes():
    for count, replicas, drop_last in [(1, 1, False), (9, 4, False), (10, 4, True), (3, 5, False), (12, 3, True)]:
        arguments = [(range(count), replicas, rank, False, 0, drop_last) for rank in range(replicas)]
        ours, theirs = ([list(kind.DistributedSampler(*a)) for a in arguments] for kind in (td, td_torch))
        assert ours == theirs


def test_stacks():
    def samples(kind):
        return [kind.StackDataset(range(2), "ab")[1], kind.StackDataset(x=range(2), y="ab")[0]]

    assert samples(td) == samples(td_torch)


def test_weights_mean_the_same():
    weights = [0.0, 1.0, 2.0, 5.0]
    ours = np.bincount(list(td.WeightedRandomSampler(weights, 8000)), minlength=4) / 8000
    assert np.abs(ours - np.array(weights) / 8).max() < 4 * math.sqrt(0.25 / 8000)


def test_the_same_crop_and_normalization_on_torch():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    wanted = (torch.tensor(images).float() / 255 - mean[:, None, None]) / std[:, None, None]
    ours = td.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])(images)
    assert np.abs(ours - wanted.numpy()).max() < 1e-5
    frames = torch.nn.functional.pad(torch.tensor(images), (2, 2, 2, 2))
    assert np.array_equal(td.Pad(2)(images), frames.numpy())
