"""Chapter 10, judged by its public names."""

from collections import Counter, namedtuple
from itertools import chain, islice

import numpy as np
import pytest

import tt_data as td
import tt_tensor as tt
from tt_tensor.teaching import between, expect

COLLATING, MADE, ORDERS, LOADER = "Collating", "Data sets made of others", "Orders", "The loader"
AHEAD, IMAGES, TRANSFORMS, EXERCISES = "Ahead of time", "Images", "Transforms", "Exercises"
LAST = "The last batch has 2 samples, and belongs to the epoch like the others: only drop_last leaves it out."
TORN = "The pairs are torn: the same rows, one permutation, for inputs and labels."
SAME = "Both epochs have the same order: draw a new one each time it is iterated, not once when it is made."


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def pairs(count=10):
    """Inputs 0, 1, 2, ... and as labels their doubles."""
    return td.TensorDataset(tt.arange(count), tt.arange(count) * 2)


def passes(loader, times=2):
    """What comes out of a loader of pairs, in so many passes: for each batch two lists."""
    return [[(x.tolist(), y.tolist()) for x, y in loader] for _ in range(times)]


def numbered_images(count=12, channels=2, size=6):
    """Images of bytes from 1 on, no two pixels of one image alike."""
    pixels = 1 + np.arange(channels * size * size, dtype=np.uint8).reshape(channels, size, size)
    return np.stack([pixels + number for number in range(count)])


# Samples become a batch

Point = namedtuple("Point", ["x", "y"])


def test_leaves_are_joined_where_they_are():
    trees = [({"b": 1, "a": (2, 3)}, 4), ({"a": (20, 30), "b": 10}, 40)]
    wanted = ({"b": [1, 10], "a": ([2, 20], [3, 30])}, [4, 40])
    expect(
        f"at_leaves(list, {trees})",
        lambda: td.dataloader.at_leaves(list, trees),
        wanted,
        (lambda got: not isinstance(got, tuple), "A tuple of trees becomes a tuple: go down into each of its places."),
        (
            lambda got: isinstance(got[0], list) or isinstance(got[0].get("a"), list),
            "Below a key or a place there may be trees again: call at_leaves for them, too.",
        ),
        (
            lambda got: got[0]["b"] == [1, [20, 30]] or got[0]["b"] == [1, (20, 30)],
            "What belongs together has the same key, whatever the order in which a dictionary has it.",
        ),
        see=COLLATING,
    )
    expect(
        "the keys of at_leaves of dictionaries, in their order",
        lambda: list(td.dataloader.at_leaves(list, [trees[0][0], trees[1][0]])),
        ["b", "a"],
        "The keys of the first dictionary, in its order.",
        see=COLLATING,
    )
    expect(
        "at_leaves(sum, [Point(x=1, y=2), Point(x=10, y=20)]).y",
        lambda: td.dataloader.at_leaves(sum, [Point(1, 2), Point(10, 20)]).y,
        22,
        (AttributeError, "A named tuple keeps its names: `tuple_like(first, parts)`."),
        see=COLLATING,
    )
    expect(
        "what at_leaves hands to `join` for a tuple of three numbers",
        lambda: td.dataloader.at_leaves(lambda leaves: type(leaves).__name__, (1, 2, 3)),
        "list",
        "`join` gets a list of leaves, whatever sequence the trees came in.",
        see=COLLATING,
    )
    for said, trees in (
        ("tuples of 2 and 3 parts", [(1, 2), (1, 2, 3)]),
        ("a tuple and a number", [(1, 2), 3]),
        ("dictionaries with other keys", [{"x": 1}, {"y": 1}]),
    ):
        expect(
            f"at_leaves of {said}",
            lambda trees=trees: td.dataloader.at_leaves(list, trees),
            ValueError,
            "Trees of different forms are a ValueError: `refuse_other_forms(trees)`, before you go down.",
            see=COLLATING,
        )


def test_collate_stacks_what_is_alike():
    samples = [(np.zeros((2, 3), np.float32), 7, "a"), (np.ones((2, 3), np.float32), 1, "b")]
    expect(
        "collate of two samples (array of shape (2, 3), label, name)",
        lambda: td.collate(samples),
        (np.stack([np.zeros((2, 3)), np.ones((2, 3))]), np.array([7, 1]), ["a", "b"]),
        (lambda got: not isinstance(got[2], list), "A text cannot be stacked: texts stay a list."),
        "Arrays of one shape get a new dimension in front.",
        see=COLLATING,
    )
    expect(
        "types and dtypes of the collated arrays, labels and truth values",
        lambda: [
            (isinstance(x, tt.Tensor), str(x.dtype))
            for x in td.collate([(np.zeros(2, np.uint8), 3, 0.5), (np.zeros(2, np.uint8), 4, 1.5)])
        ],
        [(True, "uint8"), (True, "int64"), (True, "float32")],
        (lambda got: not all(tensor for tensor, _ in got), "These are arrays: `from_numpy` makes tensors of them."),
        (lambda got: got[1][1] != "int64", "Whole numbers become int64: a class label is no float."),
        (lambda got: got[2][1] == "float64", "Python's floats become float32, as in Tensor(...)."),
        see=COLLATING,
    )
    expect(
        "values and dtypes of collated numbers 1, 2.5 and 2.5, 1, and of an array of integers beside one of float32",
        lambda: [
            (x.tolist(), str(x.dtype))
            for x in map(td.collate, ([1, 2.5], [2.5, 1], [np.array(1), np.array(2.5, np.float32)]))
        ],
        [([1, 2.5], "float32"), ([2.5, 1], "float32"), ([1, 2.5], "float32")],
        (lambda got: got[0][0] == [1, 2], "2.5 has lost its fraction: one float makes the whole batch float."),
        (lambda got: "float64" in [dtype for _, dtype in got], "`as_arrays` gives all leaves one dtype."),
        see=COLLATING,
    )
    expect(
        'collate of the tensors [1, 2] and [3, 4], as {"x": ...}',
        lambda: td.collate([{"x": tt.Tensor([1, 2])}, {"x": tt.Tensor([3, 4])}]),
        {"x": np.array([[1.0, 2.0], [3.0, 4.0]])},
        "Tensors are stacked as arrays are.",
        see=COLLATING,
    )


def test_collate_refuses_what_does_not_fit():
    expect(
        "collate of arrays of shapes (3,) and (4,)",
        lambda: td.collate([np.zeros(3), np.zeros(4)]),
        ValueError,
        "Shapes that differ are a ValueError that names them.",
        see=COLLATING,
    )

    def message():
        try:
            td.collate([np.zeros(3), np.zeros(4)])
        except ValueError as error:
            return str(error)

    def with_shapes(said):
        """a text with both shapes"""
        return "(3,)" in str(said) and "(4,)" in str(said)

    expect(
        "what the error says about arrays of shapes (3,) and (4,)",
        message,
        with_shapes,
        "Compare the shapes before you stack, so that the error can name them.",
        see=COLLATING,
    )
    expect(
        "collate of two sets",
        lambda: td.collate([{1}, {2}]),
        TypeError,
        "What is neither number, array nor text is a TypeError that says what it is.",
        see=COLLATING,
    )
    for samples in ([1, "a"], ["a", 1]):
        expect(
            f"collate of {samples}",
            lambda samples=samples: td.collate(samples),
            TypeError,
            "Texts are a list only if all leaves are texts; a number beside a text is a TypeError.",
            see=COLLATING,
        )


# Data sets


def test_a_batch_is_its_samples():
    expect(
        "TensorDataset(0..9, their doubles).batch([7, 2, 7])",
        lambda: pairs().batch([7, 2, 7]),
        (np.array([7, 2, 7]), np.array([14, 4, 14])),
        (lambda got: got[1].tolist() != (2 * got[0]).tolist(), TORN),
        "A batch has the rows that were asked for, in that order.",
        see=MADE,
    )
    table = td.TensorDataset(tt.Tensor(np.arange(12.0).reshape(4, 3)), tt.arange(4), tt.arange(4) * 5)
    expect(
        "shapes of a batch of two rows of tensors (4, 3), (4,) and (4,), and whether all are tensors",
        lambda: (lambda got: ([x.shape for x in got], all(isinstance(x, tt.Tensor) for x in got)))(table.batch([0, 3])),
        ([(2, 3), (2,), (2,)], True),
        (([(2, 3), (2,), (2,)], False), "These are arrays: `from_numpy` makes tensors of them."),
        see=MADE,
    )

    def changed():
        inputs = tt.Tensor([1.0, 2.0, 3.0])
        td.TensorDataset(inputs).batch([0, 1])[0].data = np.zeros(2, np.float32)
        return inputs

    expect("the data after a batch of them was changed", changed, [1, 2, 3], "A batch is a copy.", see=MADE)


def test_random_split_deals_out_every_sample_once():
    def parts(lengths, **options):
        return [[part[i] for i in range(len(part))] for part in td.random_split(range(100, 110), lengths, **options)]

    expect("lengths of random_split(10 samples, [7, 3])", lambda: [*map(len, parts([7, 3]))], [7, 3], see=MADE)
    expect(
        "lengths of random_split(10 samples, [0.5, 0.25, 0.25])",
        lambda: [*map(len, parts([0.5, 0.25, 0.25]))],
        [6, 2, 2],
        (
            ValueError,
            "Shares that add up to 1 are lengths, too: of each the whole part, and what is left over is dealt out.",
        ),
        ([5, 2, 2], "What rounding leaves over is dealt out, one sample to each part, from the first part on."),
        ([5, 2, 3], "What rounding leaves over is dealt out, one sample to each part, from the first part on."),
        see=MADE,
    )
    expect(
        "all samples of random_split(10 samples, [0.5, 0.25, 0.25]), sorted",
        lambda: sorted([*chain(*parts([0.5, 0.25, 0.25]))]),
        list(range(100, 110)),
        "Each sample belongs to exactly one part: cut one permutation into pieces.",
        see=MADE,
    )
    expect(
        "does random_split leave the samples in their order?",
        lambda: [*chain(*parts([7, 3]))] == list(range(100, 110)),
        False,
        "The parts are random: draw a permutation.",
        see=MADE,
    )

    def twice():
        return [parts([7, 3], generator=np.random.default_rng(4)) for _ in range(2)]

    expect(
        "do two splits with equal generators agree?",
        lambda: (lambda a, b: a == b)(*twice()),
        True,
        "If a generator is given, random numbers come from it: `resolve_generator(generator)`.",
        see=MADE,
    )
    expect(
        "is the first part of random_split(10 samples, [7, 3]) the same in ten splits?",
        lambda: len({tuple(parts([7, 3])[0]) for _ in range(10)}) == 1,
        False,
        "Each split is drawn anew.",
        see=MADE,
    )
    expect(
        "types of the indices of a part",
        lambda: sorted({type(index).__name__ for index in td.random_split(range(10), [7, 3])[0].indices}),
        ["int"],
        "The indices are Python's integers: `tolist` makes them.",
        see=MADE,
    )
    for lengths in ([6, 3], [0.5, 0.4], [2.5, 7.5]):
        expect(
            f"random_split(10 samples, {lengths})",
            lambda lengths=lengths: td.random_split(range(10), lengths),
            ValueError,
            "Lengths have to add up to all samples, shares to 1.",
            see=MADE,
        )


# Orders


def test_a_random_order_is_new_each_time():
    sampler = td.RandomSampler(range(50))
    expect(
        "what a RandomSampler of 50 samples yields, sorted",
        lambda: sorted(sampler),
        list(range(50)),
        "Each sample comes once in each pass.",
        see=ORDERS,
    )
    expect(
        "are two passes of one RandomSampler in the same order?",
        lambda: list(sampler) == list(sampler),
        False,
        SAME,
        see=ORDERS,
    )
    expect(
        "types of what a RandomSampler yields",
        lambda: sorted({type(number).__name__ for number in sampler}),
        ["int"],
        "Numbers of samples are Python's integers: `tolist` makes them.",
        see=ORDERS,
    )

    def seeded(**options):
        orders = []
        for _ in range(2):
            tt.manual_seed(9)
            orders.append(list(td.RandomSampler(range(50), **{name: value() for name, value in options.items()})))
        return orders[0] == orders[1]

    expect(
        "do two passes after the same manual_seed agree?",
        seeded,
        True,
        "Draw from `resolve_generator(self.generator)`.",
        see=ORDERS,
    )
    expect(
        "do two passes with equal generators of their own agree?",
        lambda: seeded(generator=lambda: np.random.default_rng(3)),
        True,
        "Draw from `resolve_generator(self.generator)`.",
        see=ORDERS,
    )


def test_random_orders_of_other_lengths():
    expect(
        "how many samples, and how many different ones, a RandomSampler of 50 with num_samples=20 yields",
        lambda: (lambda got: (len(got), len(set(got))))(list(islice(td.RandomSampler(range(50), num_samples=20), 200))),
        (20, 20),
        ((50, 50), "num_samples says how many are drawn: cut the permutation off."),
        ((200, 50), "It does not end: of a permutation only as many numbers are left to draw as num_samples says."),
        see=ORDERS,
    )
    expect(
        "how often each of 4 samples comes with num_samples=8",
        lambda: sorted(Counter(td.RandomSampler(range(4), num_samples=8)).items()),
        [(0, 2), (1, 2), (2, 2), (3, 2)],
        "More than there are: permutations one after the other, each sample once in each.",
        see=ORDERS,
    )

    def with_replacement():
        drawn = list(td.RandomSampler(range(1000), replacement=True))
        return len(drawn), len(set(drawn))

    expect(
        "how many samples a RandomSampler of 1000 with replacement yields",
        lambda: with_replacement()[0],
        1000,
        see=ORDERS,
    )
    expect(
        "and how many different ones",
        lambda: with_replacement()[1],
        between(550, 720),
        (1000, "With replacement, each draw is made from all samples: some come twice, about a third never."),
        see=ORDERS,
    )


def test_orders_are_drawn_when_they_are_needed():
    def drawn(number, **options):
        sampler = td.RandomSampler(range(1 << 14), num_samples=10**12, **options)
        return sum(1 for _ in zip(range(number), sampler))

    for options in ({}, {"replacement": True}):
        expect(
            f"how many of 10**12 numbers of a RandomSampler come, if 20,000 are taken, with {options or 'no options'}",
            lambda options=options: drawn(20_000, **options),
            20_000,
            (MemoryError, "Draw a portion when its first number is needed, and not all of them at once."),
            see=ORDERS,
        )

    expect(
        "is generator() left alone when a RandomSampler with a generator of its own is used up?",
        lambda: (
            lambda before: (list(td.RandomSampler(range(9), generator=np.random.default_rng(1))), before)[1]
            == tt.get_rng_state()
        )(tt.get_rng_state()),
        True,
        "Draw from `resolve_generator(self.generator)`.",
        see=ORDERS,
    )
    expect(
        "how many numbers RandomSampler yields for num_samples = 0, 1, 5000 and 9000, with replacement",
        lambda: [
            len(list(td.RandomSampler(range(3), replacement=True, num_samples=number))) for number in (0, 1, 5000, 9000)
        ],
        [0, 1, 5000, 9000],
        "Portions of at most DRAWS numbers, and of the last one only as many as are left.",
        see=ORDERS,
    )
    expect(
        "the numbers that a RandomSampler of 3 yields with replacement, without their order",
        lambda: sorted(set(td.RandomSampler(range(3), replacement=True, num_samples=5000))),
        [0, 1, 2],
        (lambda got: len(got) == 2, "All samples can be drawn, the first and the last included."),
        see=ORDERS,
    )
    expect(
        "types of what a RandomSampler with replacement yields",
        lambda: sorted({type(number).__name__ for number in td.RandomSampler(range(3), replacement=True)}),
        ["int"],
        "Numbers of samples are Python's integers: `tolist` makes them.",
        see=ORDERS,
    )
    expect(
        "is the second permutation of one pass the first one again?",
        lambda: (lambda order: order[:50] == order[50:])(list(td.RandomSampler(range(50), num_samples=100))),
        False,
        "Draw a new permutation each time.",
        see=ORDERS,
    )


def test_the_last_batch_is_short():
    whole = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    expect(
        "BatchSampler(0..9, batch_size=4)",
        lambda: list(td.BatchSampler(range(10), 4)),
        whole,
        (whole[:2], f"8 of 10 samples are seen. {LAST}"),
        see=ORDERS,
    )
    expect(
        "BatchSampler(0..9, batch_size=4, drop_last=True)",
        lambda: list(td.BatchSampler(range(10), 4, drop_last=True)),
        whole[:2],
        (whole, "With drop_last a group that is not full is left out."),
        see=ORDERS,
    )
    expect(
        "BatchSampler(0..7, batch_size=4, drop_last=True)",
        lambda: list(td.BatchSampler(range(8), 4, drop_last=True)),
        whole[:2],
        (whole[:1], "The last group is full: it stays."),
        see=ORDERS,
    )
    expect("BatchSampler of nothing", lambda: list(td.BatchSampler([], 4)), [], "No samples, no groups.", see=ORDERS)
    expect(
        "BatchSampler of an iterator that yields 3, 1, 2, batch_size=2",
        lambda: list(td.BatchSampler(iter([3, 1, 2]), 2)),
        [[3, 1], [2]],
        (TypeError, "A sampler can be iterated, and need not have a length or an index."),
        see=ORDERS,
    )


# Ahead of time


class Workers:
    """Workers that are done with a task as soon as somebody asks, the `first` or the last of those under way."""

    def __init__(self, first=True):
        self.under_way, self.first, self.most, self.submitted = [], first, 0, 0

    def submit(self, task):
        self.under_way.append(task)
        self.submitted += 1
        self.most = max(self.most, len(self.under_way))

    def arrived(self):
        number, value = self.under_way.pop(0 if self.first else -1)
        return number, 10 * value

    def run(self, count, ahead):
        tasks = [(number, number) for number in range(count)]
        return td.dataloader.in_order(self.submit, self.arrived, tasks, ahead)


def test_results_come_in_the_order_of_their_tasks():
    tens = [0, 10, 20, 30, 40, 50, 60]
    expect(
        "in_order of 7 tasks, three under way, that are done one after the other",
        lambda: list(Workers().run(7, 3)),
        tens,
        (tens[:3], "For each result that is handed out, one more task is submitted."),
        "Every task is submitted once, and its result is handed out.",
        see=AHEAD,
    )
    expect(
        "in_order of 7 tasks, three under way, of which the last one is always done first",
        lambda: list(Workers(first=False).run(7, 3)),
        tens,
        (lambda got: sorted(got) == tens, "The results come in the order of the tasks: keep what arrives too early."),
        (IndexError, "`arrived` was called when nothing was under way any more: has this result arrived already?"),
        see=AHEAD,
    )
    expect("in_order of no task", lambda: list(Workers().run(0, 3)), [], see=AHEAD)
    expect(
        "in_order of two tasks, five under way",
        lambda: list(Workers(first=False).run(2, 5)),
        [0, 10],
        (IndexError, "`arrived` was called when nothing was under way any more."),
        see=AHEAD,
    )
    expect(
        "in_order of tasks with the numbers 7, 3 and 5",
        lambda: list(
            td.dataloader.in_order((workers := Workers(False)).submit, workers.arrived, [(n, n) for n in (7, 3, 5)], 2)
        ),
        [70, 30, 50],
        (KeyError, "The number of a task is the first thing in it."),
        (IndexError, "The number of a task is the first thing in it."),
        see=AHEAD,
    )


def test_so_many_tasks_are_under_way_and_no_more():
    def most(first):
        workers = Workers(first)
        list(workers.run(20, 4))
        return workers.most

    for first in (True, False):
        expect(
            f"most tasks under way of 20, with ahead=4, where the {'first' if first else 'last'} is done first",
            lambda first=first: most(first),
            4,
            (20, "All tasks were submitted at the beginning: there are to be at most `ahead` under way."),
            (1, "Only one task is under way: submit `ahead` of them before you wait for the first."),
            see=AHEAD,
        )

    def counts(first):
        workers = Workers(first)
        return [workers.submitted - received for received, _ in enumerate(workers.run(20, 4), start=1)]

    expect(
        "tasks that were submitted beyond the result just received, at most, where the last is done first",
        lambda: max(counts(False)),
        between(3, 4),
        "A result that is kept until it is its turn counts as well: batches take memory.",
        see=AHEAD,
    )
    expect(
        "and at least, in the first twelve",
        lambda: min(counts(False)[:12]),
        between(3, 4),
        "For each result that is handed out, one more task is submitted.",
        see=AHEAD,
    )


def test_predicted_step_times():
    def measured(workers, steps=48):
        """Milliseconds from step to step, by a clock that is only counted: no machine is too busy for it."""
        now, free, arrivals, ends = 0.0, [0.0] * workers, [], []

        def submit():
            first = free.index(min(free))
            free[first] = max(now, free[first]) + 25
            arrivals.append(free[first])

        for _ in range(2 * workers):
            submit()
        for step in range(steps):
            if workers:
                now = max(now, arrivals[step])
                submit()
            else:
                now += 25
            now += 10
            ends.append(now)
        return (ends[-1] - ends[steps // 2 - 1]) / (steps - steps // 2)

    times = [measured(workers) for workers in range(4)]
    for workers, causes in (
        (0, [(10, "Without a worker, the step waits for its batch first: both take their time.")]),
        (1, [(35, "The worker prepares the next batch while the network computes: the two times do not add up.")]),
        (2, [(25, "Two workers prepare two batches in the same 25 ms."), (10, "Two batches in 25 ms are not enough.")]),
        (3, [(25 / 3, "The batches come faster than that, and the network still takes 10 ms for each.")]),
    ):
        expect(
            f"milliseconds from step to step that you predict with {workers} workers",
            lambda workers=workers: td.dataloader.predict_step_times()[workers],
            times[workers],
            *causes,
            "Every step takes 10 ms, and so many workers make a batch each in 25 ms. Which of the two is waited for?",
            see=AHEAD,
        )
    expect(
        "how many numbers predict_step_times() has",
        lambda: len(td.dataloader.predict_step_times()),
        4,
        "One for each of 0, 1, 2 and 3 workers.",
        see=AHEAD,
    )


# The loader


def test_a_pass_sees_everything_once():
    in_order = [([0, 1, 2, 3], [0, 2, 4, 6]), ([4, 5, 6, 7], [8, 10, 12, 14]), ([8, 9], [16, 18])]
    expect(
        "two passes of DataLoader(0..9 with their doubles, batch_size=4)",
        lambda: passes(td.DataLoader(pairs(), batch_size=4)),
        [in_order, in_order],
        ([in_order[:2]] * 2, LAST),
        see=LOADER,
    )
    shuffled = td.DataLoader(pairs(), batch_size=4, shuffle=True)
    expect(
        "the sizes of the batches in a shuffled pass",
        lambda: [len(x) for x, _ in shuffled],
        [4, 4, 2],
        ([4, 4], LAST),
        see=LOADER,
    )
    expect(
        "all inputs of a shuffled pass, sorted",
        lambda: sorted(value for x, _ in passes(shuffled, 1)[0] for value in x),
        list(range(10)),
        "Each sample comes once in each pass.",
        see=LOADER,
    )
    expect(
        "is each label the double of its input, in a shuffled pass?",
        lambda: all(y == [2 * value for value in x] for x, y in passes(shuffled, 1)[0]),
        True,
        TORN,
        see=LOADER,
    )
    expect(
        "are two shuffled passes in the same order?",
        lambda: (lambda two: two[0] == two[1])(passes(td.DataLoader(pairs(50), batch_size=5, shuffle=True))),
        False,
        SAME,
        see=LOADER,
    )


def test_a_loader_asks_its_samplers_and_its_collate_fn():
    expect(
        "batches with sampler=[3, 1, 2] and batch_size=2",
        lambda: passes(td.DataLoader(pairs(), batch_size=2, sampler=[3, 1, 2]), 1)[0],
        [([3, 1], [6, 2]), ([2], [4])],
        see=LOADER,
    )
    expect(
        "batches with batch_sampler=[[3, 1], [2]]",
        lambda: passes(td.DataLoader(pairs(), batch_sampler=[[3, 1], [2]]), 1)[0],
        [([3, 1], [6, 2]), ([2], [4])],
        see=LOADER,
    )
    for workers in (0, 2):
        expect(
            f'batches of ["a", "b", "c"] with batch_size=2, collate_fn="".join and {workers} workers',
            lambda workers=workers: list(td.DataLoader(["a", "b", "c"], 2, collate_fn="".join, num_workers=workers)),
            ["ab", "c"],
            (lambda got: got == [["a", "b"], ["c"]], "collate_fn gets the list of samples, and makes the batch."),
            see=LOADER,
        )


def test_a_loader_does_not_read_its_sampler_to_the_end():
    class Counted(td.Sampler):
        read = 0

        def __iter__(self):
            for self.read in range(1, 5001):
                yield self.read % 10

    def read(workers):
        sampler = Counted()
        batches = iter(td.DataLoader(pairs(), batch_size=4, sampler=sampler, num_workers=workers))
        next(batches)
        return sampler.read

    for workers in (0, 2):
        expect(
            f"how many of the 5000 numbers of a sampler are read before the first batch of 4, with {workers} workers",
            lambda workers=workers: read(workers),
            between(4, 100),
            (5000, "All: an order may have 10,000,000,000 numbers. Ask for a group when its task is needed."),
            (between(101, 5000), "Ask for a group when its task is needed."),
            see=LOADER,
        )


def test_a_task_has_chance_of_its_own():
    def draw(samples):
        return tt.generator().integers(10**6, size=4).tolist()

    def batch(number=0, seed=5, collate_fn=draw):
        return td.dataloader.batch_of_task(range(10, 20), collate_fn, (number, [3, 1], seed))

    expect(
        "batch_of_task of the numbers 10, 11, ..., with `list` as collate_fn, for the task (0, [3, 1], 5)",
        lambda: batch(collate_fn=list),
        [13, 11],
        ([3, 1], "The samples are `sample_of(dataset, index)`, not their numbers."),
        "collate_fn gets the list of the samples, in the order of the task.",
        see=LOADER,
    )
    expect(
        "type of what collate_fn gets",
        lambda: batch(collate_fn=lambda samples: type(samples).__name__),
        "list",
        "collate_fn gets a list.",
        see=LOADER,
    )
    expect(
        "batch_of_task of a TensorDataset without a collate_fn, for the task (0, [3, 1], 5)",
        lambda: td.dataloader.batch_of_task(pairs(), None, (0, [3, 1], 5)),
        (np.array([3, 1]), np.array([6, 2])),
        "Without a collate_fn, the data set makes the batch: `batch_of`.",
        see=LOADER,
    )

    def again():
        first = batch()
        tt.generator().random(7)  # as dropout does
        return first == batch()

    expect(
        "does one task draw the same numbers twice, if generator() was used in between?",
        again,
        True,
        "A batch draws from a generator of its own, made of seed and number: `with drawing_from(...)`.",
        see=LOADER,
    )
    expect(
        "do the batches 0 and 1 of one pass draw the same numbers?",
        lambda: batch(number=0) == batch(number=1),
        False,
        "Each batch has a number of its own, from which its generator is made.",
        see=LOADER,
    )
    expect(
        "do the batches 0 of two passes draw the same numbers?",
        lambda: batch(seed=5) == batch(seed=6),
        False,
        "Each pass has a seed of its own, from which the generators of its batches are made.",
        see=LOADER,
    )
    expect(
        "do batch 1 of seed 2 and batch 2 of seed 1 draw the same numbers?",
        lambda: batch(number=1, seed=2) == batch(number=2, seed=1),
        False,
        "Give `default_rng` both, [seed, number]: a sum or a product confuses batches of different passes.",
        see=LOADER,
    )

    class Chancy(td.Dataset):
        def __len__(self):
            return 9

        def __getitem__(self, index):
            return int(tt.generator().integers(10**6))

    for said, collate_fn in (("without a collate_fn", None), ("with a collate_fn", td.collate)):

        def untouched(collate_fn=collate_fn):
            before = tt.get_rng_state()
            td.dataloader.batch_of_task(Chancy(), collate_fn, (0, [3, 1], 5))
            return tt.get_rng_state() == before

        expect(
            f"is generator() untouched by a batch whose samples draw from it, {said}?",
            untouched,
            True,
            "Fetch the samples, and collate them, inside of `with drawing_from(...)`.",
            see=LOADER,
        )

    def noted():
        try:
            td.dataloader.batch_of_task([1, 2], list, (0, [0, 5], 1))
        except IndexError as error:
            return [note for note in error.__notes__ if "sample" in note]

    expect(
        "notes of the error for sample 5 of a list of two",
        noted,
        ["This was sample 5 of list."],
        "`sample_of` fetches a sample, and notes its number if that fails.",
        see=LOADER,
    )


def test_a_pass_begins_with_its_first_group():
    class Groups(td.Sampler):
        asked = 0

        def __iter__(self):
            for self.asked in range(1, 6):
                yield [self.asked]

    def asked_for():
        groups = Groups()
        iter(td.DataLoader(pairs(), batch_sampler=groups))
        return groups.asked

    expect(
        "how many groups a batch_sampler is asked for by iter(loader)",
        asked_for,
        1,
        (0, "All random numbers of a pass are drawn when it begins: in __iter__, first the group, then the seed."),
        "The first group now, each of the others when its task is needed: `later(groups, seed)`.",
        see=LOADER,
    )

    class Chance(td.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return int(tt.generator().integers(2**40))

    loader = td.DataLoader(Chance())
    expect(
        "how many different numbers are drawn in 60 passes",
        lambda: len({batch.item() for _ in range(60) for batch in loader}),
        60,
        (1, "Each pass has another seed: draw it from resolve_generator(self.generator)."),
        "Draw the seed from many numbers, such as 2**63: of a few, two passes soon have the same.",
        see=LOADER,
    )


def moved(loader):
    """The images of two passes, as bytes."""
    return [b"".join(images.numpy().tobytes() for images, _ in loader) for _ in range(2)]


def test_the_batches_are_the_same_whatever_the_workers():
    data = td.Images(numbered_images(20), np.arange(20), transform=td.RandomCrop(6, padding=2))

    def with_workers(*counts):
        for count in counts:
            tt.manual_seed(3)
            yield moved(td.DataLoader(data, batch_size=4, shuffle=True, num_workers=count))

    expect(
        "do 0, 1 and 3 workers give the same two passes of shuffled and cropped images?",
        lambda: len({tuple(two) for two in with_workers(0, 1, 3)}),
        1,
        "Order and seed are drawn when the pass begins; a task has the seed of its pass and its own number.",
        see=LOADER,
    )
    expect(
        "are the crops of two passes the same, without shuffling?",
        lambda: (lambda two: two[0] == two[1])(moved(td.DataLoader(data, batch_size=4))),
        False,
        "Each pass has another seed: draw it from resolve_generator(self.generator).",
        see=LOADER,
    )
    alike = td.Images(np.repeat(numbered_images(1), 8, axis=0), np.arange(8), transform=td.RandomCrop(6, padding=2))
    expect(
        "are four images cropped in the first batch as the same four in the second?",
        lambda: (lambda a, b: np.array_equal(a, b))(*(x.numpy() for x, _ in td.DataLoader(alike, batch_size=4))),
        False,
        "Each batch has a number of its own, from which its generator is made.",
        see=LOADER,
    )

    def moves_on(workers):
        batches = iter(td.DataLoader(data, batch_size=4, shuffle=True, num_workers=workers))
        before = tt.get_rng_state()
        list(batches)
        return tt.get_rng_state() != before

    for workers in (0, 2):
        expect(
            f"is anything drawn from generator() after iter(loader), with {workers} workers?",
            lambda workers=workers: moves_on(workers),
            False,
            "All random numbers of a pass are drawn when it begins, in __iter__ itself: dropout may draw in between.",
            see=LOADER,
        )

    def drawn_by_a_long_order(workers):
        tt.manual_seed(4)
        sampler = td.RandomSampler(range(10), num_samples=25)  # three permutations, the last ones in the middle of it
        seen = []
        for (x, _) in td.DataLoader(pairs(), batch_size=4, sampler=sampler, num_workers=workers):
            tt.generator().random(100)  # as dropout does
            seen += x.tolist()
        return seen

    expect(
        "do 0 and 2 workers give the same order, if a sampler draws again in the middle of a pass?",
        lambda: drawn_by_a_long_order(0) == drawn_by_a_long_order(2),
        True,
        "What a sampler draws later follows from the seed of the pass: `later(groups, seed)` takes care of it.",
        see=LOADER,
    )


def test_a_loader_can_have_a_generator_of_its_own():
    def loader():
        return td.DataLoader(pairs(), batch_size=4, shuffle=True, generator=np.random.default_rng(8))

    def touches_the_common_one():
        before = tt.get_rng_state()
        list(loader())
        return tt.get_rng_state() != before

    expect(
        "does a pass of a loader with a generator of its own draw from generator()?",
        touches_the_common_one,
        False,
        "Draw the seed from resolve_generator(self.generator).",
        see=LOADER,
    )

    def again():
        first = loader()
        list(first)
        state, second = first.state_dict(), loader()
        second.load_state_dict(state)
        return passes(first, 1) == passes(second, 1)

    expect("does a loader go on alike after load_state_dict?", again, True, see=LOADER)

    def with_two():
        sampler = td.RandomSampler(range(50), generator=np.random.default_rng(1))
        return td.DataLoader(pairs(50), batch_size=4, sampler=sampler, generator=np.random.default_rng(2))

    def each_in_its_place():
        first, second = with_two(), with_two()
        list(first)
        state = first.state_dict()
        list(first)
        passes(second, 3)
        for loader in (first, second):
            loader.load_state_dict(state)
        return [g.bit_generator.state for g in (first.generator, first.sampler.generator)] == [
            g.bit_generator.state for g in (second.generator, second.sampler.generator)
        ] == state["generators"]

    expect(
        "are both generators, the loader's and its sampler's, where they were after load_state_dict?",
        each_in_its_place,
        True,
        "Each generator gets its own state back, in the order in which `state_dict` has them.",
        see=LOADER,
    )
    expect(
        "load_state_dict of a loader with one generator, for the state of one with two",
        lambda: (loader().load_state_dict(with_two().state_dict()), "no error")[1],
        ValueError,
        "States and generators belong together in pairs: `zip(..., strict=True)` raises ValueError if one is left.",
        see=LOADER,
    )


# Images and transforms


def test_normalize():
    images = np.array([[0, 51], [255, 102]], np.uint8).reshape(1, 2, 1, 2)
    wanted = np.array([[-2, -1.2], [1, -0.2]]).reshape(1, 2, 1, 2)
    expect(
        "Normalize([0.5, 0.5], [0.25, 0.5]) of the bytes 0, 51 in channel 0 and 255, 102 in channel 1",
        lambda: td.Normalize([0.5, 0.5], [0.25, 0.5])(images),
        wanted,
        (lambda got: got.dtype == np.uint8, "Bytes cannot hold this: the result is float32."),
        (lambda got: abs(got).max() > 100, "Mean and std are those of numbers from 0 to 1: divide bytes by 255 first."),
        (wanted * [[[[0.25]], [[0.5]]]], "The mean is subtracted; the rest has to be divided by std."),
        see=TRANSFORMS,
    )
    expect(
        "dtype of normalized bytes, float32 and float64",
        lambda: [str(td.Normalize([0.5], [0.5])(images.astype(kind)).dtype) for kind in ("u1", "f4", "f8")],
        ["float32"] * 3,
        "The result is float32, whatever came in.",
        see=TRANSFORMS,
    )
    numbers = np.array([0.0, 0.75], np.float32).reshape(1, 1, 1, 2)
    expect(
        "Normalize([0.5], [0.25]) of the numbers 0 and 0.75",
        lambda: td.Normalize([0.5], [0.25])(numbers),
        np.array([-2, 1]).reshape(1, 1, 1, 2),
        "What is no byte is taken as it is: only bytes are divided by 255.",
        see=TRANSFORMS,
    )
    expect(
        "the images after they were normalized",
        lambda: (lambda before: (td.Normalize([0.5], [0.25])(before), before)[1])(numbers.copy()),
        numbers,
        "The images belong to the caller: do not change them in place.",
        see=TRANSFORMS,
    )
    expect(
        "Normalize with three means of images with two channels",
        lambda: td.Normalize([0.5] * 3, [0.25] * 3)(images),
        ValueError,
        "There is one mean and std for each channel, or one for all: a ValueError names the numbers.",
        see=TRANSFORMS,
    )

    def message():
        try:
            td.Normalize([0.5] * 3, [0.25] * 3)(np.zeros((1, 7, 2, 2), np.uint8))
        except ValueError as error:
            return str(error)

    def with_numbers(said):
        """a text with both numbers"""
        return "3" in str(said) and "7" in str(said)

    expect(
        "what the error says about three means and images with seven channels",
        message,
        with_numbers,
        "Say how many means there are, and how many channels.",
        see=TRANSFORMS,
    )


def offsets(images, crops, padding, size):
    """For each crop the places in its padded image where it was cut out."""
    frames = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rooms = [frames.shape[axis] - size[axis - 2] + 1 for axis in (2, 3)]
    return [
        [
            (top, left)
            for top in range(rooms[0])
            for left in range(rooms[1])
            if np.array_equal(frame[:, top : top + size[0], left : left + size[1]], crop)
        ]
        for frame, crop in zip(frames, crops)
    ]


def test_random_crop():
    images, transform = numbered_images(60), td.RandomCrop(6, padding=2)

    def found():
        return offsets(images, np.asarray(transform(images)), 2, (6, 6))

    expect(
        "shape and dtype of RandomCrop(6, padding=2) of bytes (60, 2, 6, 6)",
        lambda: (lambda crops: (crops.shape, str(crops.dtype)))(transform(images)),
        ((60, 2, 6, 6), "uint8"),
        (((60, 2, 10, 10), "uint8"), "These are the frames: from each a window has to be cut."),
        see=TRANSFORMS,
    )
    expect(
        "how many of 60 crops are a window of their own image in its frame of zeros",
        lambda: sum(len(places) > 0 for places in found()),
        60,
        (0, "Each crop is a window of its own image: all channels, so many rows and columns, at one place."),
        "Add the padding, and cut each window from the image with the same number.",
        see=TRANSFORMS,
    )
    expect(
        "at how many places 60 images were cropped",
        lambda: len({places[0] for places in found()}),
        between(15, 25),
        (1, "All images were cropped at the same place: each has its own luck."),
        see=TRANSFORMS,
    )

    def extremes():
        rows, columns = zip(*(places[0] for _ in range(5) for places in found()))
        return [min(rows), max(rows), min(columns), max(columns)]

    expect(
        "first and last row and column at which 300 crops begin",
        extremes,
        [0, 4, 0, 4],
        ([0, 3, 0, 3], "The last place counts: there is one more than there are pixels of room."),
        see=TRANSFORMS,
    )

    def extremes_of_a_wide_image():
        wide = np.random.default_rng(1).integers(1, 255, (200, 1, 4, 7), dtype=np.uint8)
        found = offsets(wide, np.asarray(td.RandomCrop((3, 2))(wide)), 0, (3, 2))
        rows, columns = zip(*(places[0] for places in found))
        return [min(rows), max(rows), min(columns), max(columns)]

    expect(
        "first and last row and column at which crops of (3, 2) begin in images of 4 by 7",
        extremes_of_a_wide_image,
        [0, 1, 0, 5],
        (IndexError, "There are height - 3 + 1 rows and width - 2 + 1 columns in which a window can begin."),
        "There are height - 3 + 1 rows and width - 2 + 1 columns in which a window can begin.",
        see=TRANSFORMS,
    )

    def rows_follow_columns():
        return all(place[0] == place[1] for places in found() for place in places[:1])

    expect(
        "is every crop moved by as many rows as columns?",
        rows_follow_columns,
        False,
        "Rows and columns are drawn independently.",
        see=TRANSFORMS,
    )
    expect(
        "how many of 12 crops by RandomCrop((4, 3)) are windows of their images",
        lambda: sum(map(bool, offsets(images[:12], td.RandomCrop((4, 3))(images[:12]), 0, (4, 3)))),
        12,
        "size may be (height, width); without padding nothing is added.",
        see=TRANSFORMS,
    )
    expect(
        "RandomCrop(8) of images of 6 by 6",
        lambda: td.RandomCrop(8)(images),
        ValueError,
        "A window that does not fit is refused: `refuse_too_small`.",
        see=TRANSFORMS,
    )


def test_random_horizontal_flip():
    images = numbered_images(200, size=3)

    def kinds(p):
        flipped = np.asarray(td.RandomHorizontalFlip(p)(images))
        as_is = [np.array_equal(a, b) for a, b in zip(images, flipped)]
        mirrored = [np.array_equal(a[:, :, ::-1], b) for a, b in zip(images, flipped)]
        upside_down = [np.array_equal(a[:, ::-1], b) for a, b in zip(images, flipped)]
        return sum(as_is), sum(mirrored), sum(upside_down)

    expect(
        "how many of 200 images RandomHorizontalFlip(1) leaves, mirrors and turns upside down",
        lambda: kinds(1.0),
        (0, 200, 0),
        ((0, 0, 200), "Upside down is the vertical flip: left becomes right."),
        ((0, 0, 0), "Only the last dimension is turned around: rows and channels stay where they are."),
        see=TRANSFORMS,
    )
    expect("and RandomHorizontalFlip(0)", lambda: kinds(0.0), (200, 0, 0), see=TRANSFORMS)
    expect(
        "how many of 200 images RandomHorizontalFlip(0.5) mirrors",
        lambda: kinds(0.5)[1],
        between(70, 130),
        (200, "All were mirrored: each image has its own luck."),
        (0, "None was mirrored: each image has its own luck."),
        see=TRANSFORMS,
    )
    expect(
        "how many of 200 images RandomHorizontalFlip(0.25) mirrors",
        lambda: kinds(0.25)[1],
        between(25, 80),
        (between(120, 175), "p is the probability to mirror, not to leave."),
        see=TRANSFORMS,
    )
    expect(
        "how many images RandomHorizontalFlip(0.5) changes in what it was given",
        lambda: (lambda given: (td.RandomHorizontalFlip()(given), int((given != images).any(axis=(1, 2, 3)).sum()))[1])(
            images.copy()
        ),
        0,
        "The images belong to the caller: change a copy.",
        see=TRANSFORMS,
    )


def test_transforms_draw_from_what_they_are_given():
    images = numbered_images(40)
    for name, transform in (
        ("RandomCrop(6, padding=2)", td.RandomCrop(6, padding=2)),
        ("RandomHorizontalFlip()", td.RandomHorizontalFlip()),
    ):

        def twice(transform=transform):
            return [np.asarray(transform(images, np.random.default_rng(7))).tobytes() for _ in range(2)]

        expect(
            f"do two calls of {name} with equal generators agree?",
            lambda: len(set(twice())),
            1,
            "Draw from `random`, and from nothing else.",
            see=TRANSFORMS,
        )


# Exercises


def test_channel_statistics():
    images = np.random.default_rng(3).integers(0, 256, (10, 3, 4, 4), dtype=np.uint8)
    images[:, 1] //= 2
    loader = td.DataLoader(td.Images(images, np.zeros(10)), batch_size=4)
    numbers = images / 255
    mean, std = numbers.mean(axis=(0, 2, 3)), numbers.std(axis=(0, 2, 3))
    of_batches = np.mean([numbers[i : i + 4].mean(axis=(0, 2, 3)) for i in (0, 4, 8)], axis=0)
    expect(
        "channel_statistics of 10 images with 3 channels in batches of 4, 4 and 2: the means",
        lambda: td.channel_statistics(loader)[0],
        mean,
        (of_batches, "The last batch has two images and counts as much as the others: add up pixels, not means."),
        (np.full(3, mean.mean()), "There is a mean for each channel: dimension 1 stays."),
        see=EXERCISES,
    )
    expect(
        "and the standard deviations",
        lambda: td.channel_statistics(loader)[1],
        std,
        (std**2, "This is the variance: take the root."),
        (std * np.sqrt(160 / 159), "Divide by the number of pixels, not by one less."),
        (
            np.mean([numbers[i : i + 4].std(axis=(0, 2, 3)) for i in (0, 4, 8)], axis=0),
            "The deviation of all pixels is not the mean of the batches' deviations: keep the sum of the squares.",
        ),
        see=EXERCISES,
    )
    expect(
        "dtypes of channel_statistics of images in float32",
        lambda: [str(np.asarray(part).dtype) for part in td.channel_statistics(loader)],
        ["float64", "float64"],
        "Sums of many pixels are kept in float64.",
        see=EXERCISES,
    )
    expect(
        "channel_statistics of a loader without a batch",
        lambda: td.channel_statistics([]),
        ValueError,
        "There is no mean of nothing: raise ValueError.",
        see=EXERCISES,
    )
    given = tt.from_numpy(numbers.copy())
    expect(
        "the largest difference between images before and after channel_statistics",
        lambda: (td.channel_statistics([(given, None)]), float(np.abs(given.numpy() - numbers).max()))[1],
        0,
        "The images belong to the caller: change a copy.",
        see=EXERCISES,
    )
    alike = [(tt.from_numpy(np.full((7, 1, 9, 9), value / 255, np.float32)), None) for value in (1, 5, 77, 255)]
    expect(
        "the standard deviations of images whose pixels are all 1, 5, 77 or 255",
        lambda: [td.channel_statistics([batch] * 3)[1].item() for batch in alike],
        [0, 0, 0, 0],
        (
            lambda got: np.isnan(got).any(),
            "The difference of two rounded numbers may be below 0, and has no root: count from the first pixel.",
        ),
        see=EXERCISES,
    )
