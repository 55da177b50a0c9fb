"""PyTorch's data loader: its arguments, streams, workers that know who they are, and the parts beside it."""

import random
from collections import OrderedDict, namedtuple
from itertools import count, islice

import numpy as np
import pytest

import tt_data as td
import tt_tensor as tt

Point = namedtuple("Point", "x y")


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


class Squares(td.Dataset):
    """Numbers and their squares."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index, index * index


class Lines(td.IterableDataset):
    """The numbers below `end`, shared out among the workers, if there are any."""

    def __init__(self, end=10, shares=True):
        self.end, self.shares, self.first = end, shares, 0

    def __iter__(self):
        info = td.get_worker_info()
        if info is None or not self.shares:
            return iter(range(self.first, self.end))
        return iter(range(info.id, self.end, info.num_workers))


def lists(loader):
    return [batch.tolist() for batch in loader]


# The arguments


def test_all_arguments_of_pytorch_are_taken_by_position():
    loader = td.DataLoader(
        Squares(), 4, False, None, None, 1, None, True, True, 5.0, None, None, None, prefetch_factor=3,
        persistent_workers=True, pin_memory_device="cpu", in_order=False,
    )  # fmt: skip
    assert [x.tolist() for x, _ in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]  # pin_memory, drop_last, timeout
    assert loader.timeout == 5 and loader.prefetch_factor == 3 and loader.drop_last


def test_a_batch_is_a_list_as_in_pytorch():
    x = tt.arange(4)
    for data in (Squares(), td.TensorDataset(x, x), td.Subset(td.TensorDataset(x, x), [2, 1])):
        assert type(next(iter(td.DataLoader(data, 2)))) is list


@pytest.mark.parametrize("make", [tt.Generator, lambda: np.random.default_rng(3)])
def test_generators_of_both_kinds(make):
    def order(seeded):
        loader = td.DataLoader(range(20), 20, shuffle=True, generator=seeded)
        return [lists(loader) for _ in range(2)]

    first, second = order(make())
    tt.manual_seed(99)  # it must not matter
    assert [first, second] == order(make()) and first != second
    parts = [td.random_split(range(20), [15, 5], generator=make())[1].indices for _ in range(2)]
    assert parts[0] == parts[1]


def test_a_loader_with_a_generator_of_ours_is_set_back():
    loader = td.DataLoader(range(20), 20, shuffle=True, generator=tt.Generator().manual_seed(5))
    state = loader.state_dict()
    first = lists(loader)
    loader.load_state_dict(state)
    assert lists(loader) == first


def test_without_batches_samples_come_one_by_one():
    loader = td.DataLoader([np.zeros(2), np.ones(2), "a"], batch_size=None)
    first, second, third = loader
    assert first.tolist() == [0, 0] and isinstance(second, tt.Tensor) and third == "a"
    assert len(loader) == 3 and loader.batch_sampler is None
    assert [x.tolist() for x in td.DataLoader([np.zeros(1)] * 2, None, num_workers=1)] == [[0], [0]]


def test_without_batches_a_sampler_of_lists_reads_many_at_once():
    data = np.arange(10.0)
    groups = td.BatchSampler(td.SequentialSampler(data), 4, False)
    assert lists(td.DataLoader(data, sampler=groups, batch_size=None)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_streams_have_no_order_to_choose():
    for options in ({"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}):
        with pytest.raises(ValueError, match=f"decides its order itself: leave out {next(iter(options))}"):
            td.DataLoader(Lines(), **options)
    assert lists(td.DataLoader(Lines(3), 2, shuffle=False)) == [[0, 1], [2]]


# Ways to a batch


def test_samples_are_asked_for_together_where_the_data_set_can():
    class Together(Squares):
        asked = ()

        def __getitems__(self, indices):
            self.asked = *self.asked, indices
            return [-index for index in indices]

    data = Together()
    assert lists(td.DataLoader(data, 4)) == [[0, -1, -2, -3], [-4, -5, -6, -7], [-8, -9]]
    assert data.asked == ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])
    assert list(td.DataLoader(data, 5, collate_fn=sum)) == [-10, -35]


@pytest.mark.parametrize("base", [td.TensorDataset, td.Subset, td.ConcatDataset])
def test_the_samples_of_a_derived_data_set_are_in_its_batches(base):
    class Doubled(base):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return 2 * (sample[0] if isinstance(sample, tuple) else sample)

    x = tt.arange(4)
    data = {td.TensorDataset: lambda: Doubled(x), td.Subset: lambda: Doubled(range(4), range(4)),
            td.ConcatDataset: lambda: Doubled([range(4)])}[base]()  # fmt: skip
    assert lists(td.DataLoader(data, 4)) == [[0, 2, 4, 6]]
    assert lists(td.DataLoader(td.Subset(data, [3]))) == [[6]]


# Before the first batch


def counting(data_source):
    """A sampler without end that counts what it has been asked for."""

    class Endless(td.Sampler):
        drawn = 0

        def __iter__(self):
            for self.drawn in count(1):
                yield self.drawn % len(data_source)

    return Endless()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_asks_for_its_numbers_and_no_more(workers):
    sampler = counting(range(10))
    next(iter(td.DataLoader(Squares(), 4, sampler=sampler, num_workers=workers)))
    assert sampler.drawn <= 4 * (1 + 2 * workers + 1)


def test_the_first_batch_of_ten_thousand_million_takes_no_memory():
    import tracemalloc

    sampler = td.RandomSampler(Squares(), replacement=True, num_samples=int(1e10))
    loader = td.DataLoader(Squares(), sampler=sampler, shuffle=False, pin_memory=True, batch_size=32, num_workers=0)
    tracemalloc.start()
    next(iter(loader))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 and len(loader) == 312_500_000


# Collating


def test_default_collate_has_pytorchs_forms():
    both = td.default_collate([(1, [2, 3]), (4, [5, 6])])
    assert type(both) is list and type(both[1]) is list and both[1][0].tolist() == [2, 5]
    assert type(td.default_collate([Point(1, 2), Point(3, 4)])) is Point
    ordered = td.default_collate([OrderedDict(a=1), OrderedDict(a=2)])
    assert type(ordered) is OrderedDict and ordered["a"].tolist() == [1, 2]
    assert td.default_collate(["a", "b"]) == ["a", "b"] and td.default_collate([0.5, 1]).dtype == tt.float32


def test_default_collate_refuses_what_does_not_fit():
    with pytest.raises(RuntimeError, match=r"one length; they have \[2, 1\]"):
        td.default_collate([[1, 2], [3]])
    with pytest.raises(TypeError, match="cannot stack a NoneType"):
        td.default_collate([None, None])
    with pytest.raises(ValueError, match="different shapes do not stack"):
        td.default_collate([np.zeros(2), np.zeros(3)])
    with pytest.raises(ValueError, match="nothing to collate"):
        td.default_collate([])


def test_default_convert():
    converted = td.default_convert({"x": [np.zeros(2), "a"], "p": Point(np.float64(1), None)})
    assert isinstance(converted["x"][0], tt.Tensor) and converted["x"][1] == "a"
    assert type(converted["p"]) is Point and converted["p"].x.dtype == tt.float64 and converted["p"].y is None


# Streams


def test_a_stream_comes_in_batches():
    assert lists(td.DataLoader(Lines(5), 2)) == [[0, 1], [2, 3], [4]]
    assert lists(td.DataLoader(Lines(5), 2, drop_last=True)) == [[0, 1], [2, 3]]
    assert list(td.DataLoader(Lines(2), None)) == [0, 1]


@pytest.mark.parametrize("context", [None, "spawn"])
def test_workers_take_turns_at_a_stream(context, monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath)
    options = {"num_workers": 2, "multiprocessing_context": context}
    assert lists(td.DataLoader(Lines(7), 2, **options)) == [[0, 2], [1, 3], [4, 6], [5]]
    assert lists(td.DataLoader(Lines(3, shares=False), 2, **options)) == [[0, 1], [0, 1], [2], [2]]


def test_a_stream_without_end_is_read_as_far_as_it_is_needed():
    class Endless(td.IterableDataset):
        read = 0

        def __iter__(self):
            for self.read in count(1):
                yield self.read

    for workers in (0, 2):
        data = Endless()
        assert len(list(islice(td.DataLoader(data, 4, num_workers=workers), 3))) == 3
        assert data.read <= 4 * (3 + 2 * 2 * workers + 2)


def test_the_length_of_a_stream_is_what_it_says():
    class Known(Lines):
        def __len__(self):
            return self.end

    assert len(td.DataLoader(Known(5), 2)) == 3 and len(td.DataLoader(Known(5), 2, drop_last=True)) == 2
    with pytest.raises(TypeError, match="has no len"):
        len(td.DataLoader(Lines(), 2))


def test_streams_in_a_chain():
    class Known(Lines):
        def __len__(self):
            return self.end

    chain = td.ChainDataset([Known(2), Known(3)])
    assert list(chain) == [0, 1, 0, 1, 2] and len(chain) == 5
    with pytest.raises(TypeError, match="use ConcatDataset"):
        list(td.ChainDataset([Squares()]))
    with pytest.raises(NotImplementedError, match="needs a method __iter__"):
        iter(td.IterableDataset())


def test_an_error_in_a_stream_arrives():
    class Broken(td.IterableDataset):
        def __iter__(self):
            yield 1
            raise OSError("the line is dead")

    for workers in (0, 1):
        with pytest.raises(OSError, match="the line is dead"):
            list(td.DataLoader(Broken(), 1, num_workers=workers))


# Workers


class WhoAmI(td.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        info = td.get_worker_info()
        return (-1, 0) if info is None else (info.id, info.num_workers)


@pytest.mark.parametrize("context", [None, "spawn"])
def test_a_worker_knows_its_number(context, monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath)
    assert td.get_worker_info() is None and {who for who, _ in td.DataLoader(WhoAmI(), None)} == {-1}
    pairs = list(td.DataLoader(WhoAmI(), 1, num_workers=2, multiprocessing_context=context))
    assert {who.item() for who, _ in pairs} <= {0, 1} and {many.item() for _, many in pairs} == {2}


def begin(number):
    td.get_worker_info().dataset.first = 10 * number
    np.random.seed(number)  # noqa: NPY002
    random.seed(number)


class Begun(td.Dataset):
    first = -1

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.first


def test_a_worker_begins_with_its_function(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath)
    for context in (None, "spawn"):
        loader = td.DataLoader(Begun(), num_workers=1, worker_init_fn=begin, multiprocessing_context=context)
        assert lists(loader) == [[0], [0], [0]]
    data = Lines(12, shares=False)
    assert lists(td.DataLoader(data, 4, num_workers=2, worker_init_fn=begin)) == [
        [0, 1, 2, 3], [10, 11], [4, 5, 6, 7], [8, 9, 10, 11],
    ]  # fmt: skip
    assert data.first == 0  # each worker has a copy of the stream


def test_what_a_thread_seeds_does_not_change_the_program():
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    list(td.DataLoader(Begun(), num_workers=1, worker_init_fn=begin))
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002


def test_each_pass_and_each_worker_has_a_seed_of_its_own():
    seeds = []

    def note(number):
        seeds.append(td.get_worker_info().seed)

    loader = td.DataLoader(Squares(), num_workers=2, worker_init_fn=note)
    for _ in range(2):
        list(loader)
    assert len(set(seeds)) == 4


# The parts beside it


def test_stacks_of_data_sets():
    data = td.StackDataset(Squares(), "abcdefghij")
    assert len(data) == 10 and data[3] == ((3, 9), "d")
    (numbers, squares), letters = next(iter(td.DataLoader(td.StackDataset(Squares(), "abcdefghij"), 2)))
    assert numbers.tolist() == [0, 1] and squares.tolist() == [0, 1] and letters == ["a", "b"]
    for wrong, message in ((lambda: td.StackDataset(), "at least one"), (lambda: td.StackDataset([1], x=[1]), "one of"),
                           (lambda: td.StackDataset([1], [1, 2]), r"one length; they have \[1, 2\]")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()


def test_processes_have_their_own_parts():
    def parts(epoch, **options):
        samplers = [td.DistributedSampler(range(10), 3, rank, **options) for rank in range(3)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        return [list(sampler) for sampler in samplers]

    assert parts(0, shuffle=False) == [[0, 3, 6, 9], [1, 4, 7, 0], [2, 5, 8, 1]]
    assert parts(0, shuffle=False, drop_last=True) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert parts(0) == parts(0) != parts(1) and parts(0) != parts(0, seed=1)
    assert sorted({i for part in parts(2) for i in part}) == list(range(10))
    for wrong in ({}, {"num_replicas": 2}, {"num_replicas": 2, "rank": 2}):
        with pytest.raises(ValueError, match="give num_replicas and a rank"):
            td.DistributedSampler(range(10), **wrong)


def test_classes_take_a_type_in_brackets():
    class Typed(td.Dataset[int]):
        pass

    class Order(td.Sampler[int]):
        pass

    assert issubclass(Typed, td.Dataset) and issubclass(Order, td.Sampler)
    assert td.ConcatDataset([range(2), range(3)]).cumulative_sizes == [2, 5]
