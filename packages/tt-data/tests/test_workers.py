"""Workers: the order, errors, and ends of every kind, with threads and with processes; and that nothing is left."""

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import tracemalloc

import numpy as np
import pytest

import tt_autograd as ta
import tt_data as td
import tt_optim as to
import tt_tensor as tt
from tt_data.workers import portable

THREADS = {"num_workers": 2}
PROCESSES = {"num_workers": 1, "multiprocessing_context": "spawn"}
BOTH = pytest.mark.parametrize("options", [THREADS, PROCESSES], ids=["threads", "spawn"])
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="sends a signal as a terminal does")


class Numbers(td.Dataset):
    """0, 1, 2, ...; whatever is done at sample 13 is done by `accident`."""

    accident = None

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == 13 and self.accident:
            self.accident()
        return float(index)


class Failing(Numbers):
    def accident(self):
        raise KeyError("thirteen")


class Peculiar(Exception):
    """Cannot be unpickled: its constructor wants more than a message."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Peculiarly(Numbers):
    def accident(self):
        raise Peculiar("one", "two")


class Killed(Numbers):
    def accident(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Exiting(Numbers):
    def accident(self):
        os._exit(7)


class Hanging(Numbers):
    def accident(self):
        time.sleep(1.5)


class Lucky(td.Dataset):
    """Samples that are nothing but chance."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return td.common.resolve_generator().random()


class LuckyByName(td.Dataset):
    """Samples that are drawn as the chapters before this one draw: from tt's functions, or by the generator itself."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index % 4 == 3:
            tt.manual_seed(index)  # in one data set or another a sample fixes its own numbers
        return tt.rand(1), tt.generator().random()


class LuckyProcessWorker(td.Dataset):
    """Samples from NumPy's and Python's own generators."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return np.random.rand(), random.random()  # noqa: NPY002


class Exhausted(Numbers):
    def accident(self):
        next(iter([]))


def at_the_end(samples):
    return next(iter([]))


def workers():
    """The threads and processes of loaders that are there."""
    threads = [thread for thread in threading.enumerate() if "tt_data" in thread.name]
    return threads + multiprocessing.active_children()


@pytest.fixture(autouse=True)
def found_by_workers(monkeypatch, request):
    """Processes that are spawned import this file by the name that pytest has given it, from the root."""
    monkeypatch.syspath_prepend(request.config.rootpath)


@pytest.fixture(autouse=True)
def nothing_is_left():
    tt.manual_seed(0)
    yield
    gc.collect()
    end = time.monotonic() + 20
    while workers() and time.monotonic() < end:  # what was late cannot be waited for, and ends a little later
        time.sleep(0.01)
    assert workers() == []


def images(**options):
    data = td.Images(np.arange(40 * 48, dtype=np.uint16).astype(np.uint8).reshape(40, 3, 4, 4), np.arange(40))
    data.transform = td.Compose([td.RandomCrop(4, padding=2), td.RandomHorizontalFlip(), td.Normalize([0.4], [0.2])])
    return td.DataLoader(data, batch_size=7, shuffle=True, **options)


def content(loader):
    return [(x.numpy().tobytes(), y.tolist()) for x, y in loader]


# The same batches


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 1},
        {"num_workers": 4, "prefetch_factor": 1},
        {"num_workers": 3, "prefetch_factor": 9},
        {"num_workers": 2, "multiprocessing_context": multiprocessing.get_context("spawn")},
    ],
    ids=["1 thread", "4 threads", "3 threads far ahead", "2 processes"],
)
def test_batches_are_the_same_bit_for_bit(options):
    tt.manual_seed(3)
    alone = [content(images()) for _ in range(2)]
    tt.manual_seed(3)
    assert [content(images(**options)) for _ in range(2)] == alone
    assert alone[0] != alone[1]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["fork", "forkserver"])
def test_batches_are_the_same_in_forked_processes(kind):
    tt.manual_seed(3)
    alone = content(images())
    tt.manual_seed(3)
    assert content(images(num_workers=2, multiprocessing_context=kind)) == alone


@BOTH
@pytest.mark.parametrize("collate_fn", [None, list])
def test_chance_in_single_samples_is_the_same_too(options, collate_fn):
    def drawn(**options):
        tt.manual_seed(1)
        return [list(map(float, batch)) for batch in td.DataLoader(Lucky(), 8, collate_fn=collate_fn, **options)]

    alone = drawn()
    assert drawn(**options) == alone
    assert len({value for batch in alone for value in batch}) == 40


FORK = pytest.param(
    {"num_workers": 3, "multiprocessing_context": "fork"},
    marks=[
        pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"),
        pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    ],
)
SPAWN = {"num_workers": 2, "multiprocessing_context": "spawn"}
IN_EVERY_WAY = pytest.mark.parametrize("options", [{"num_workers": 3}, SPAWN, FORK], ids=["threads", "spawn", "fork"])


@IN_EVERY_WAY
def test_what_the_course_draws_is_the_same_whatever_the_workers(options):
    def drawn(**options):
        tt.manual_seed(0)
        loader = td.DataLoader(LuckyByName(), 1, **options)
        return [[(a.item(), b.item()) for a, b in loader] for _ in range(2)]

    alone = drawn()
    assert drawn(**options) == alone
    free = [pair for epoch in alone for place, pair in enumerate(epoch) if place % 4 < 3]
    assert len(set(free)) == 18 and alone[0][3::4] == alone[1][3::4]


@pytest.mark.parametrize("options", [SPAWN, FORK], ids=["spawn", "fork"])
def test_processes_do_not_repeat_each_others_numbers(options):
    def drawn(**options):
        tt.manual_seed(0)
        loader = td.DataLoader(LuckyProcessWorker(), 2, **options)
        return [number for _ in range(2) for pair in loader for batch in pair for number in batch.tolist()]

    numbers = drawn(**options)
    assert len(set(numbers)) == 64 and drawn(**options | {"num_workers": 1}) == numbers


def test_the_generator_of_a_batch_is_its_own_even_if_it_is_seeded():
    tt.manual_seed(5)
    wanted = tt.generator().random(3).tolist()
    tt.manual_seed(5)
    own = np.random.default_rng(1)
    with tt.drawing_from(own):
        assert tt.generator() is own
        with tt.drawing_from(np.random.default_rng(2)):
            tt.manual_seed(3)
            assert tt.get_rng_state()["state"] == np.random.default_rng(3).bit_generator.state["state"]
        assert tt.generator() is own
        seen = []
        thread = threading.Thread(target=lambda: seen.append(tt.generator()))
        thread.start()
        thread.join()
        assert seen[0] is not own
    assert tt.generator().random(3).tolist() == wanted


LONG = {
    "drawn with replacement": lambda data: td.RandomSampler(data, replacement=True, num_samples=10**10),
    "more than there are": lambda data: td.RandomSampler(data, num_samples=10**10),
    "weighted": lambda data: td.WeightedRandomSampler([1.0] * len(data), 10**10),
    "in order": lambda data: td.SequentialSampler(range(10**10)),
}


@pytest.mark.parametrize("options", [{}, THREADS, PROCESSES], ids=["alone", "threads", "spawn"])
@pytest.mark.parametrize("kind", LONG)
def test_an_order_of_ten_thousand_million_takes_no_room(kind, options):
    if options is PROCESSES and kind != "weighted":
        pytest.skip("the sampler stays in the program; one kind shows it")
    data = Numbers()
    tracemalloc.start()
    batches = iter(td.DataLoader(data, 4, sampler=LONG[kind](data), **options))
    assert len(next(batches)) == 4
    for _ in range(5):
        next(batches)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del batches
    assert peak < 5e6


def test_a_long_order_goes_on_alike_while_the_program_draws():
    class Each(td.Sampler):
        def __iter__(self):
            return (int(td.common.resolve_generator().integers(10)) for _ in range(60))

    def order(sampler, **options):
        tt.manual_seed(2)
        seen = []
        for batch in td.DataLoader(range(10), 4, sampler=sampler, **options):
            tt.rand(7)
            seen += batch.tolist()
        return seen

    for sampler in (Each(), td.RandomSampler(range(10), num_samples=60)):
        assert order(sampler) == order(sampler, **THREADS) and len(order(sampler)) == 60


def test_the_common_generator_stays_where_it_is_while_workers_work():
    batches = iter(images(**THREADS))
    before = tt.get_rng_state()
    list(batches)
    assert tt.get_rng_state() == before and td.common.resolve_generator() is tt.generator()


def test_results_keep_their_order_whichever_is_ready_first():
    class Uneven(Numbers):
        def __getitem__(self, index):
            time.sleep(0.02 if index % 3 == 0 else 0)
            return index

    loader = td.DataLoader(Uneven(), 1, num_workers=4, prefetch_factor=3)
    assert [batch.item() for batch in loader] == list(range(40))


class Cut(ta.Callback):
    """Ctrl-C after so many steps."""

    def __init__(self, steps):
        self.steps = steps

    def on_step(self, run):
        if run.steps == self.steps:
            raise KeyboardInterrupt


@pytest.mark.parametrize("steps", [3, 9, 11])
def test_a_training_with_a_generator_of_its_own_goes_on_in_the_middle_of_an_epoch(tmp_path, steps):
    def weights(name, cut, seed):
        tt.manual_seed(seed)
        layer = tt.Sequential(tt.Flatten(), tt.Dropout(0.3), tt.Linear(48, 40))
        loader = images(generator=np.random.default_rng(seed), **THREADS)  # 6 batches
        options = {"checkpoint": tmp_path / name, "checkpoint_every": 2, "resume": True, "progress": False}
        optimizer = to.SGD(layer.parameters(), lr=0.1)
        ta.fit(layer, tt.cross_entropy, optimizer, loader, epochs=3, callbacks=[Cut(cut)], **options)
        return layer[2].weight.numpy().copy()

    whole = weights("whole", None, seed=1)
    with pytest.raises(KeyboardInterrupt):
        weights("cut", steps, seed=1)
    assert np.array_equal(weights("cut", None, seed=2), whole)


# Errors


@pytest.mark.parametrize("options", [{}, THREADS, PROCESSES], ids=["alone", "threads", "spawn"])
def test_an_error_names_sample_and_batch(options):
    with pytest.raises(KeyError, match="thirteen") as caught:
        list(td.DataLoader(Failing(), 4, **options))
    text = "".join(traceback.format_exception(caught.value))
    assert "This was sample 13 of Failing." in text
    assert "batch 3 of the data loader, with the samples [12, 13, 14, 15]" in text
    assert "in accident" in text  # the traceback of the worker


@pytest.mark.parametrize("options", [{}, THREADS, PROCESSES], ids=["alone", "threads", "spawn"])
def test_a_loop_that_is_over_does_not_end_the_epoch(options):
    seen = []
    with pytest.raises(RuntimeError, match="raised StopIteration, which would end the epoch early") as caught:
        for batch in td.DataLoader(Exhausted(), 4, **options):
            seen.append(batch)
    text = "".join(traceback.format_exception(caught.value))
    assert len(seen) == 3 and "This was sample 13 of Exhausted." in text and "batch 3 of the data loader" in text
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(td.DataLoader(Numbers(), 4, collate_fn=at_the_end, **options))


@BOTH
def test_batches_before_an_error_arrive(options):
    seen = []
    with pytest.raises(KeyError):
        for batch in td.DataLoader(Failing(), 4, **options):
            seen.append(batch.tolist())
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_an_error_that_cannot_travel_arrives_as_text():
    with pytest.raises(RuntimeError, match="Peculiar: one and two"):
        list(td.DataLoader(Peculiarly(), 4, **PROCESSES))
    error = ValueError("simple")
    assert portable(error) is error


def test_what_cannot_be_pickled_is_refused_with_a_remedy():
    with pytest.raises(TypeError, match="define them at the top level.*threads"):
        list(td.DataLoader(Numbers(), 4, collate_fn=lambda samples: samples, **PROCESSES))


@BOTH
def test_a_batch_that_is_late_is_an_error(options):
    with pytest.raises(td.workers.BatchTimeout, match="no batch has come for 0.2 seconds"):
        for batch in td.DataLoader(Hanging(), 40, timeout=0.2, **options):
            raise AssertionError(batch)


# Ends


@BOTH
def test_a_break_ends_the_workers(options):
    for batch in td.DataLoader(Numbers(), 4, **options):
        assert batch.tolist() == [0, 1, 2, 3]
        break
    gc.collect()
    assert workers() == []


@BOTH
def test_closing_and_forgetting_an_iterator_end_the_workers(options):
    batches = iter(td.DataLoader(Numbers(), 4, **options))
    next(batches)
    assert workers()
    batches.close()
    assert workers() == []
    batches = iter(td.DataLoader(Numbers(), 4, **options))
    next(batches)
    del batches
    gc.collect()
    assert workers() == []


@BOTH
def test_an_iterator_that_was_never_used_begins_nothing(options):
    batches = iter(td.DataLoader(Numbers(), 4, **options))
    assert workers() == []
    del batches


@BOTH
def test_two_passes_at_once_do_not_mix(options):
    loader = td.DataLoader(Numbers(), 4, **options)
    for a, b in zip(loader, loader):
        assert a.tolist() == b.tolist()


@pytest.mark.parametrize("dataset", [Exiting, pytest.param(Killed, marks=POSIX)])
def test_a_worker_that_dies_is_named(dataset):
    with pytest.raises(RuntimeError, match=r"a worker process died: SpawnProcess-\d+ \(pid \d+, exit code (7|-9)\)\."):
        list(td.DataLoader(dataset(), 4, **PROCESSES))


# Ends of the whole program, in programs of their own

PROGRAM = """
    import os, signal, sys, time
    import tt_data as td

    class Slow(td.Dataset):
        def __len__(self): return 100_000
        def __getitem__(self, index):
            time.sleep(0.001)
            return index
        def batch(self, indices):
            return os.getpid(), super().batch(indices)

    if __name__ != "__main__" and "late" in sys.argv:
        time.sleep(1)  # a worker that is slow to begin
    if __name__ == "__main__":
        kind = "spawn" if "spawn" in sys.argv else None
        batches = iter(td.DataLoader(Slow(), 10, num_workers=2, multiprocessing_context=kind))
        print(next(batches)[0], flush=True)
"""


def program(tmp_path, then, *arguments):
    """Start a program that prints the pid of a worker and goes on with `then`."""
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(PROGRAM) + textwrap.indent(then, " " * 4), encoding="utf-8")
    command = [sys.executable, str(file), *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    if sys.platform != "win32":
        options["start_new_session"] = True  # a group of processes of its own, as in a terminal
    return subprocess.Popen(command, **options)


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"  # ended, and nobody has asked about it yet
    except FileNotFoundError:
        return not os.path.exists("/proc/self/stat")  # a system without such files, or gone by now


def gone(pid):
    """Wait until a process has ended."""
    end = time.monotonic() + 20
    while is_there(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_there(pid)


KINDS = pytest.mark.parametrize("kind", [(), ("spawn",)], ids=["threads", "spawn"])


BORN = """\
def late(*signal_and_frame):
    time.sleep(0.5)  # so that a worker has time to complain
    signal.default_int_handler(*signal_and_frame)

signal.signal(signal.SIGINT, late)
print("ready", flush=True)
for batch in td.DataLoader(Slow(), 10, num_workers=2, multiprocessing_context=kind):
    pass
"""
BUSY = "print('ready', flush=True)\nfor batch in batches: pass"
# Everything ahead is prepared by then. One long sleep would not end if Ctrl-C came just before it began.
IDLE = "time.sleep(0.5)\nprint('ready', flush=True)\nfor _ in range(600): time.sleep(0.1)"


@POSIX
@KINDS
@pytest.mark.parametrize("then", [BORN, BUSY, IDLE], ids=["being born", "busy", "idle"])
def test_ctrl_c_ends_program_and_workers(tmp_path, kind, then):
    process = program(tmp_path, then, *kind, *(["late"] if then == BORN else []))
    worker = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5 if then == BORN else 0)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
    assert gone(worker)


@POSIX
def test_the_first_worker_of_a_program_is_born_sigint_blocked():
    program = """
        import signal
        from multiprocessing import resource_tracker
        from tt_data.workers import _sigint_blocked

        with _sigint_blocked():
            resource_tracker.ensure_running()  # as a process does that is spawned
            print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    assert subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60).stdout == "True\n"


@POSIX
def test_workers_go_with_a_program_that_is_killed(tmp_path):
    process = program(tmp_path, "for batch in batches: pass", "spawn")
    worker = int(process.stdout.readline())
    process.kill()
    process.communicate(timeout=30)
    assert worker != process.pid and gone(worker)


@KINDS
def test_a_program_that_ends_in_the_middle_of_a_pass_ends(tmp_path, kind):
    process = program(tmp_path, 'print("end")', *kind)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and output.endswith("end\n") and errors == ""


def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path):
    file = tmp_path / "script.py"
    lines = [
        "import tt_data as td",
        'for x in td.DataLoader(range(9), 3, num_workers=1, multiprocessing_context="spawn"):',
        "    pass",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    process = subprocess.run([sys.executable, file], capture_output=True, encoding="utf-8", timeout=60)
    assert process.returncode == 1 and 'if __name__ == "__main__":' in process.stderr.rstrip().splitlines()[-1]


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": -1}, "num_workers and timeout are 0 or more"),
        ({"prefetch_factor": 0, "num_workers": 1}, "prefetch_factor at least 1"),
        ({"prefetch_factor": 2}, "prefetch_factor needs num_workers"),
        ({"persistent_workers": True}, "persistent_workers needs num_workers"),
        ({"batch_size": None, "drop_last": True}, "batch_size=None makes no batches"),
        ({"timeout": -1}, "0 or more"),
        ({"multiprocessing_context": "spawn"}, "needs num_workers of at least 1"),
        ({"batch_size": 0}, "at least 1, not 0"),
        ({"batch_size": 2.5}, "integer of at least 1, not 2.5"),
        ({"sampler": [0], "shuffle": True}, "give one of them"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "leave out batch_size"),
        ({"batch_sampler": [[0]], "shuffle": True}, "leave out batch_size"),
        ({"batch_sampler": [[0]], "sampler": [0]}, "leave out batch_size"),
        ({"batch_sampler": [[0]], "drop_last": True}, "leave out batch_size"),
    ],
)
def test_arguments_that_cannot_be_meant(options, message):
    with pytest.raises(ValueError, match=message):
        td.DataLoader(Numbers(), **options)


def test_a_loader_without_a_length_or_with_odd_workers_is_refused():
    with pytest.raises(TypeError, match="generator has no __len__, which says what samples there are"):
        td.DataLoader(number for number in range(3))
    for options in ({"num_workers": "2"}, {"num_workers": 1.0}, {"num_workers": 1, "prefetch_factor": 2.5}):
        with pytest.raises(TypeError, match="num_workers and prefetch_factor are integers"):
            td.DataLoader(Numbers(), **options)


def test_a_generator_is_a_generator():
    for make in (td.DataLoader, td.RandomSampler, td.SubsetRandomSampler):
        with pytest.raises(TypeError, match=r"np.random.default_rng\(0\), not 5"):
            make([0, 1], generator=5)


def test_an_unknown_kind_of_process_is_refused():
    with pytest.raises(ValueError, match="cannot find context for 'threads'"):
        list(td.DataLoader(Numbers(), num_workers=1, multiprocessing_context="threads"))
