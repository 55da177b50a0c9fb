"""Measurements in their corners: simulated machines, what may happen inside of a profile, and reports.

No test here looks at the clock to see how fast something is."""

import json
import re
import threading
import time
import tracemalloc
import xml.dom.minidom
from collections import Counter
from html.parser import HTMLParser
from importlib.util import find_spec

import numpy as np
import pytest

import tt_autograd as ta
import tt_data as td
import tt_nlp as tn
import tt_opt
import tt_tensor as tt

draws = pytest.mark.skipif(
    not find_spec("matplotlib"), reason="figures need matplotlib: pip install 'tt-opt[plot]'"
)  # fmt: skip


class Clock:
    """What time.perf_counter shows."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def works(self, seconds):
        """A function whose calls take so long."""

        def function():
            self.now += seconds

        return function


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


# Verdicts, on a machine that we know


class Machine:
    """Takes turns. Now and then everything becomes three times as slow, for some seven turns; a few turns are wild; and
    the second turn of a pair takes a little longer, whoever has it."""

    def __init__(self, seed, second=1.03):
        self.rng, self.second, self.slow, self.turns = np.random.default_rng(seed), second, False, 0

    def turn(self, seconds):
        self.turns += 1
        self.slow ^= self.rng.random() < (0.15 if self.slow else 0.03)
        seconds *= np.exp(0.02 * self.rng.normal()) * (3 if self.slow else 1) * (1 if self.turns % 2 else self.second)
        return seconds * (1 + self.rng.pareto(1.5)) if self.rng.random() < 0.05 else seconds


class AlwaysTheSame:
    """A random generator that is none."""

    def permutation(self, n):
        return np.arange(n)


def in_turns(seed, rng, b=1.0):
    machine = Machine(seed)
    return tt_opt.compared(
        tt_opt.benchmarking.take_turns([lambda: machine.turn(1.0), lambda: machine.turn(b)], 50, rng)
    )


def one_after_the_other(seed):
    machine = Machine(seed, second=1.0)
    return tt_opt.compared(np.array([[machine.turn(1.0) for _ in range(50)] for _ in range(2)]).T)


def test_a_program_seldom_differs_from_itself():
    false = sum(in_turns(seed, np.random.default_rng([1, seed])).differ for seed in range(2000))
    assert 0.01 < false / 2000 <= 0.05


def test_without_a_coin_the_first_one_wins():
    assert sum(in_turns(seed, AlwaysTheSame()).differ for seed in range(100)) > 90


def test_without_turns_the_machine_decides():
    assert sum(one_after_the_other(seed).differ for seed in range(300)) > 0.15 * 300


def test_a_difference_of_5_percent_is_found():
    found = [in_turns(seed, np.random.default_rng([2, seed]), b=1.05) for seed in range(300)]
    assert sum(verdict.low > 1 for verdict in found) >= 0.9 * 300
    assert sum(verdict.low <= 1.05 <= verdict.high for verdict in found) >= 0.93 * 300


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_the_least_number_of_values_is_the_least(level):
    n = tt_opt.benchmarking.least_values(level)
    assert tt_opt.median_interval(np.arange(float(n)), level)[0] == 0
    with pytest.raises(ValueError, match=f"too few.*at least {n}"):
        tt_opt.median_interval(np.arange(float(n - 1)), level)


def test_too_few_pairs_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match="5 pairs are too few"):
        tt_opt.compare(lambda: 1 / 0, lambda: 1 / 0, pairs=5)


def test_a_comparison_by_a_clock_that_we_know(clock):
    verdict = tt_opt.compare(clock.works(1.0), clock.works(3.0), pairs=8, span=16, names=("one", "three"))
    assert str(verdict) == "one is 3.00 times as fast as three, 95 % between 3.00 and 3.00"
    verdict = tt_opt.compare(clock.works(3.0), clock.works(1.0), pairs=8, span=16)
    assert str(verdict) == "b is 3.00 times as fast as a, 95 % between 3.00 and 3.00"
    assert not tt_opt.compare(clock.works(2.0), clock.works(2.0), pairs=8, span=16).differ


def test_both_get_the_same_number_of_calls_also_if_one_was_disturbed_when_calls_were_counted(monkeypatch):
    counted, turns = iter([128, 16]), []
    monkeypatch.setattr("tt_opt.benchmarking.calls_for", lambda *_: next(counted))
    monkeypatch.setattr("tt_opt.benchmarking.time_calls", lambda _, calls: float(turns.append(calls) or 1))
    tt_opt.compare(int, int, pairs=6)
    assert set(turns) == {16}


def test_a_benchmark_by_a_clock_that_we_know(clock):
    timing = tt_opt.benchmark(clock.works(0.25), turns=10, span=10)
    assert timing.calls == 4 and timing.seconds.tolist() == [0.25] * 10 and timing.median == 0.25
    numbers = "250. ms, 95 % 250. to 250., middle half 250. to 250., 10 turns of 4"
    assert str(timing) == numbers


# A profile, and what may happen inside of it


ROUNDING = 1e-9  # seconds by which a sum of two times may be off


def summary(found):
    """Calls by name and phase, without what happened outside of primitives."""
    return Counter((event.name, event.phase) for event in found.events if event.phase != "outside")


def starts_where_the_last_one_ended(events):
    ends = [event.start + event.seconds - ROUNDING for event in events]
    return all(after.start >= end for end, after in zip(ends, events[1:]))


def test_notes_of_the_profiler_take_no_time(clock):
    class Slow(dict):
        """The names of modules, which take a second to find."""

        def get(self, *key):
            clock.now += 1
            return super().get(*key)

    model = tt.Sequential(tt.Linear(3, 3), tt.ReLU())
    with tt_opt.profile(model) as found:
        found.names = Slow(found.names)
        model(tt.ones(1, 3)).sum().backward()
        clock.now += 7
    assert sum(event.seconds for event in found.events) == 7 < clock.now - 100


def test_time_of_a_block_that_fails_is_kept(clock):
    with pytest.raises(ZeroDivisionError), tt_opt.profile() as found:
        clock.now += 3
        raise ZeroDivisionError
    assert [(event.name, event.seconds) for event in found.events] == [("Python", 3.0)]


def test_a_span_has_a_name_also_if_it_fails(clock):
    with tt_opt.profile() as found:
        clock.now += 1
        with pytest.raises(ZeroDivisionError), found.span("a pause"):
            clock.now += 2
            raise ZeroDivisionError
        clock.now += 4
    assert [(e.name, e.seconds) for e in found.events] == [("Python", 1.0), ("a pause", 2.0), ("Python", 4.0)]


def test_a_primitive_that_fails_is_no_event():
    with tt_opt.profile() as found:
        with pytest.raises(ValueError, match="matmul"):
            tt.ones(2, 3) @ tt.ones(2, 3)
        tt.ones(2).exp()
    assert summary(found) == {("exp", "forward"): 1} and starts_where_the_last_one_ended(found.events)


def test_a_rule_that_fails_leaves_the_profiler_whole():
    def breaks(next, primitive, tensors, params):
        out = next(primitive, tensors, params)
        if primitive.name == "log":
            out.wrap_rules(lambda rule: lambda *arguments: 1 / 0)
        return out

    x = tt.ones(2, requires_grad=True)
    with tt.interpreting(breaks, backward=False), tt_opt.profile() as found:
        with pytest.raises(ZeroDivisionError):
            x.log().sum().backward()
        x.exp().sum().backward()
    assert summary(found)["exp", "backward"] == 1 and summary(found)["log", "backward"] == 0
    assert starts_where_the_last_one_ended(found.events)
    assert not tt.listening() and ta.is_grad_enabled()


def test_a_backward_pass_after_the_block_is_not_seen():
    x = tt.ones(3, requires_grad=True)
    with tt_opt.profile() as found:
        y = x.exp().sum()
    before = list(found.events)
    y.backward()
    assert found.events == before and x.grad is not None


def test_a_backward_pass_on_another_thread_is_not_seen():
    x = tt.ones(3, requires_grad=True)
    with tt_opt.profile() as found:
        thread = threading.Thread(target=x.exp().sum().backward)
        thread.start()
        thread.join()
        x.log()
    assert summary(found) == {("exp", "forward"): 1, ("sum", "forward"): 1, ("log", "forward"): 1}
    assert x.grad is not None


def test_a_profile_on_each_thread():
    found, together = {}, threading.Barrier(2)

    def work(name):
        with tt_opt.profile() as found[name]:
            together.wait()
            for _ in range(50):
                getattr(tt.ones(3, requires_grad=True), name)().sum().backward()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("exp", "log")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("exp", "log"):
        phases = ("forward", "backward")
        assert summary(found[name]) == {(n, phase): 50 for n in (name, "sum") for phase in phases}


@pytest.mark.parametrize("workers, seen", [(0, 8), (2, 0)])
def test_workers_of_a_data_loader_are_not_seen(workers, seen):
    class Squares:
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return tt.ones(2).sqrt() * i

    with tt_opt.profile() as found:
        batches = list(td.DataLoader(Squares(), batch_size=4, num_workers=workers))
    assert len(batches) == 2 and summary(found)["sqrt", "forward"] == seen


def test_without_gradients_there_is_no_backward_pass():
    with tt_opt.profile() as found, ta.no_grad():
        tt.ones(3, requires_grad=True).exp()
    assert summary(found) == {("exp", "forward"): 1}


def second_derivative():
    x = tt.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (slope,) = ta.grad((x**3).sum(), x, create_graph=True)
    (slope**2).sum().backward()
    return x.grad.numpy()


def test_a_second_derivative_counts_each_second_once():
    wanted = second_derivative()
    with tt_opt.profile() as found:
        assert np.array_equal(second_derivative(), wanted)
    assert starts_where_the_last_one_ended(found.events) and min(event.seconds for event in found.events) >= 0
    assert summary(found)["power", "backward"] >= 2


def test_work_inside_of_a_rule_counts_once():
    x = tt.ones(5, 5, requires_grad=True)
    with tt.meter() as meter, tt_opt.profile() as found:
        (x @ x).sum().backward()
    assert sum(e.multiply_adds for e in found.events if e.name == "matmul") == meter.multiply_adds["matmul"] == 375


@pytest.mark.parametrize("inside", [True, False])
def test_other_interpreters_in_the_door(inside):
    model, x = tt.Sequential(tt.Linear(6, 4), tt.ReLU(), tt.Linear(4, 2)), tt.ones(3, 6)

    def gradient():
        model.zero_grad()
        model(x).sum().backward()
        return model[0].weight.grad.numpy().copy()

    with tt_opt.rounding(4):
        wanted = gradient()
    first, second = (tt_opt.profile(model), tt_opt.rounding(4))[:: 1 if inside else -1]
    with first as one, second as two:
        assert np.array_equal(gradient(), wanted)
    found = one or two
    assert starts_where_the_last_one_ended(found.events) and min(event.seconds for event in found.events) >= 0
    assert summary(found)["affine", "forward"] == 2 == summary(found)["fake_quantize", "forward"]


def test_a_search_for_anomalies():
    with tt_opt.profile() as found, ta.detect_anomaly():
        tt.ones(3, requires_grad=True).exp().sum().backward()
        with pytest.raises(RuntimeError, match="log of shape"):
            tt.tensor([-1.0], requires_grad=True).log()
    assert starts_where_the_last_one_ended(found.events) and summary(found)["exp", "backward"] == 1


def test_the_work_of_a_backward_pass():
    """Two products for a layer's forward one; the gradient of a bias is a sum."""
    layer, x = tt.Linear(50, 40), tt.ones(30, 50, requires_grad=True)
    with tt_opt.profile() as found:
        layer(x).sum().backward()
    affine = [event for event in found.events if event.name == "affine"]
    work = {phase: sum(e.multiply_adds for e in affine if e.phase == phase) for phase in ("forward", "backward")}
    assert work["forward"] == 30 * 50 * 40 and work["backward"] == 2 * 30 * 50 * 40 + 40


def test_bytes_of_gradients_are_those_of_the_shares():
    x, y = tt.ones(10, 20, requires_grad=True), tt.ones(20, 30)
    with tt_opt.profile() as found:
        (x @ y).sum().backward()
    assert [e.bytes for e in found.events if (e.name, e.phase) == ("matmul", "backward")] == [4 * 10 * 20]


def test_peaks_of_profiles_inside_of_each_other():
    x = tt.ones(100, 100)
    with tt_opt.profile(memory=True) as outer:
        with tt_opt.profile(memory=True) as inner:
            x @ x
            np.ones(1_000_000)  # is gone before the next one
            kept = x + x
        x * x
    for found, calls in ((outer, 3), (inner, 2)):
        peaks = [event.peak for event in found.events if event.phase == "forward"]
        assert len(peaks) == calls and all(kept.nbytes <= peak < 1.5 * kept.nbytes for peak in peaks)
    assert not tracemalloc.is_tracing()


# Where


class Watched(tt.Module):
    """Calls a part in ways of its own."""

    def __init__(self, way):
        super().__init__()
        self.part, self.way = tt.Linear(2, 2), way

    def forward(self, x):
        return self.way(self.part, x)


def by_a_generator(part, x):
    (result,) = tuple(part(x) for _ in range(1))
    return result


def by_an_iterator(part, x):
    def twice():
        yield part(x)
        yield part(x)

    return list(twice())[-1]


WAYS = {"plain": lambda part, x: part(x), "generator": by_a_generator, "iterator": by_an_iterator,
        "map": lambda part, x: next(map(part, [x]))}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_parts_are_found_however_they_are_called(way):
    model = Watched(WAYS[way])
    with tt_opt.profile(model) as found:
        model(tt.ones(1, 2))
    line = Watched.forward.__code__.co_firstlineno + 1
    places = {(event.stack, event.line) for event in found.events if event.phase == "forward"}
    assert places == {(("Watched", "part"), f"test_benchmarking_details.py:{line}")}


class WithoutSelf(tt.Module):
    """Its forward has no name for the module."""

    def __init__(self):
        super().__init__()
        self.forward = lambda x: x.exp()


def forward(self, x):
    return x.exp()


def test_what_is_no_module_is_left_out():
    with tt_opt.profile() as found:
        WithoutSelf()(tt.ones(2))
        forward("no module", tt.ones(2))
        forward(None, tt.ones(2))
    assert [event.stack for event in found.events if event.phase == "forward"] == [()] * 3


def test_modules_outside_of_the_model_have_the_names_of_their_classes():
    inside, outside = tt.Sequential(tt.ReLU()), tt.Sequential(tt.Tanh())
    with tt_opt.profile(inside) as found:
        outside(inside(tt.ones(2)))
    stacks = [event.stack for event in found.events if event.phase == "forward"]
    assert stacks == [("Sequential", "0"), ("Sequential", "Tanh")]


def test_a_shared_module_has_its_first_name():
    layer = tt.Linear(2, 2)
    model = tt.Sequential(layer, layer)
    with tt_opt.profile(model) as found:
        model(tt.ones(1, 2))
    assert [event.stack[-1] for event in found.events if event.phase == "forward"] == ["0", "0"]


# Kernel sets


@pytest.mark.parametrize("name", ["default", "fast", "compiled"])
def test_a_profiled_step_on_a_kernel_set(name):
    if name == "compiled":
        pytest.importorskip("numba", reason="the compiled set needs Numba")
    tt.manual_seed(0)
    model, ids = tn.transformers.small_gpt(30, 2, 32, 16), tt.randint(0, 30, (2, 17))

    def step():
        model.zero_grad()
        loss = tn.next_token_loss(model(ids[:, :-1]), ids[:, 1:])
        loss.backward()
        return [loss.item(), *(p.grad.numpy().copy() for p in model.parameters())]

    with tt_opt.accelerate(name):
        wanted = step()
        with tt_opt.profile(model) as found:
            assert all(map(np.array_equal, step(), wanted))
    phases = Counter(event.phase for event in found.events)
    assert phases["forward"] > 20 and phases["backward"] > 20


# Tables


def test_the_table_of_nothing():
    for by in tt_opt.KEYS:
        assert tt_opt.table(tt_opt.Profile(), by).splitlines()[1].split()[:4] == ["in", "all", "0", "0.00"]


def test_a_long_table_has_its_rest_in_one_line():
    found = tt_opt.Profile(memory=True)
    found.events = [tt_opt.Event(f"p{i}", "forward", (), "", float(i), 2.0**-i, 10, 100, i) for i in range(8)]
    lines = [line.split() for line in tt_opt.table(found, most=3).splitlines()]
    assert [line[0] for line in lines] == ["primitive", "p0", "p1", "p2", "5", "in"]
    assert lines[4][1:3] == ["others", "5"] and lines[5][2] == "8" and lines[0][-2:] == ["peak", "MB"]
    assert float(lines[4][3]) + sum(float(line[2]) for line in lines[1:4]) == pytest.approx(float(lines[5][3]), abs=0.1)


# Reports


@pytest.fixture(scope="module")
def profiled():
    """A training step of a small GPT."""
    tt.manual_seed(0)
    model, ids = tn.transformers.small_gpt(30, 2, 32, 16), tt.randint(0, 30, (2, 17))
    with tt_opt.profile(model) as found:
        tn.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
        with found.span("optimizer"):
            pass
    return found


def made_up(seed):
    """Events in a row, with stacks, phases and gaps at random."""
    rng, now, events = np.random.default_rng(seed), 5.0, []
    for i in range(30):
        stack = tuple(f"m{rng.integers(2)}" for _ in range(rng.integers(4)))
        phase = ("forward", "backward", "outside")[rng.integers(3)]
        now += float(rng.integers(2))
        events.append(tt_opt.Event(f"e{i}", phase, stack, "", now, float(rng.integers(3))))
        now += events[-1].seconds
    return events


def assert_nested(slices):
    """Children lie inside of parents, and on one depth nothing overlaps."""
    rows = {}
    for s in slices:
        assert s.start <= s.end
        rows.setdefault(s.depth, []).append(s)
    assert sorted(rows) == list(range(len(rows)))
    for depth, row in rows.items():
        assert all(before.end <= after.start + ROUNDING for before, after in zip(row, row[1:]))
        parents = rows.get(depth - 1, [])
        assert depth == 0 or all(any(p.start <= s.start and s.end <= p.end for p in parents) for s in row)


def test_slices_of_a_step_nest(profiled):
    found = tt_opt.slices(profiled.events)
    assert_nested(found)
    assert found == sorted(found, key=lambda s: (s.start, s.depth))
    modules = Counter((s.name, s.phase) for s in found)
    assert modules["GPT", "forward"] == 1 == modules["GPT", "backward"]
    assert modules["transformer.h.0.mlp", "forward"] == 1 == modules["transformer.h.1.mlp", "backward"]
    order = [s.name for s in found if s.phase == "backward" and s.name.startswith("transformer.h.") and s.depth == 2]
    assert order == ["transformer.h.1", "transformer.h.0"]


def test_a_backward_pass_has_slices_of_its_own():
    phases = ("forward", "backward")
    events = [tt_opt.Event("exp", phase, ("m",), "", float(start), 1.0) for start, phase in enumerate(phases)]
    modules = [(s.phase, s.start, s.end) for s in tt_opt.slices(events) if s.name == "m"]
    assert modules == [("forward", 0, 1), ("backward", 1, 2)]


@pytest.mark.parametrize("seed", range(50))
def test_slices_of_anything_nest(seed):
    events = made_up(seed)
    found = tt_opt.slices(events)
    assert_nested([s for s in found if s.end > s.start])
    shown = [e for e in events if e.phase != "outside" or not e.stack]
    own = {s.name: (s.depth, s.start, s.end) for s in found if s.name.startswith("e")}
    assert own == {e.name: (len(e.stack), e.start, e.start + e.seconds) for e in shown}


def test_a_trace_has_the_fields_of_its_format(profiled):
    data = json.loads(json.dumps(tt_opt.trace(profiled)))
    assert data["displayTimeUnit"] in ("ms", "ns")
    complete = [e for e in data["traceEvents"] if e["ph"] == "X"]
    metadata = [e for e in data["traceEvents"] if e["ph"] == "M"]
    assert len(complete) + len(metadata) == len(data["traceEvents"]) and len(complete) > 50
    for event in complete:
        assert set(event) == {"name", "cat", "ph", "pid", "tid", "ts", "dur"}
        assert event["ts"] >= 0 and event["dur"] >= 0 and {event["pid"], event["tid"]} == {1}
    assert [e["ts"] for e in complete] == sorted(e["ts"] for e in complete)
    assert {e["name"]: e["args"] for e in metadata} == {
        "process_name": {"name": "TinyTorch"}, "thread_name": {"name": "main"},
    }  # fmt: skip
    seconds = sum(e.seconds for e in profiled.events if e.phase == "forward")
    names = {e.name for e in profiled.events}
    mine = [e["dur"] for e in complete if e["cat"] == "forward" and e["name"] in names]
    assert sum(mine) == pytest.approx(1e6 * seconds, rel=1e-6)


def test_a_trace_of_nothing(tmp_path):
    assert {e["ph"] for e in tt_opt.trace(tt_opt.Profile())["traceEvents"]} == {"M"}
    tt_opt.save_trace(tt_opt.Profile(), tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["traceEvents"]


@draws
def test_files_are_written_whole(profiled, tmp_path):
    tt_opt.save_trace(profiled, tmp_path / "trace.json")
    tt_opt.save_report(profiled, str(tmp_path / "report.html"), title="A step")
    assert json.loads((tmp_path / "trace.json").read_text(encoding="utf-8")) == tt_opt.trace(profiled)
    assert "<h1>A step</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "trace.json"]


@draws
def test_a_file_that_cannot_be_written_is_left_as_it_was(profiled, tmp_path):
    old = tmp_path / "report.html"
    old.write_text("old", encoding="utf-8")
    with pytest.raises(UnicodeEncodeError):
        tt_opt.save_report(profiled, old, title="half of a pair: \ud800")
    assert old.read_text(encoding="utf-8") == "old"
    (folder := tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        tt_opt.save_trace(profiled, folder)
    with pytest.raises(FileNotFoundError):
        tt_opt.save_trace(profiled, tmp_path / "nowhere" / "trace.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "report.html"]


class Page(HTMLParser):
    """A page of HTML whose elements are closed in order; remembers them with their attributes."""

    EMPTY = {"meta"}

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)


LOADING = {"src", "href", "xlink:href", "srcset", "data", "poster", "action", "background"}


@draws
def test_a_page_needs_nothing_else(profiled):
    text = tt_opt.report(profiled)
    assert text.startswith("<!doctype html>\n<html lang=")
    page = Page(text)
    names = {tag for tag, _ in page.elements}
    assert {"html", "head", "title", "h1", "svg", "pre"} <= names
    assert not names & {"script", "link", "iframe", "img", "object", "embed", "base"}
    loaded = [value for _, attributes in page.elements for name, value in attributes.items() if name in LOADING]
    assert all(value.startswith("#") for value in loaded)
    styles = page.texts["style"] + [attributes.get("style", "") for _, attributes in page.elements]
    assert not any("@import" in style or "url(http" in style for style in styles)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    drawing = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    assert xml.dom.minidom.parseString(drawing).documentElement.tagName == "svg"


@draws
def test_what_a_page_quotes_is_escaped(profiled):
    title = "<script>alert(1)</script> & \"more\" {body}"
    page = Page(tt_opt.report(profiled, title))
    assert page.texts["title"] == page.texts["h1"] == [title]
    assert not [tag for tag, _ in page.elements if tag == "script"]
    found = tt_opt.Profile()
    found.events = [tt_opt.Event("<b>", "forward", ("<i>",), "<u>:1", 0.0, 1.0)]
    page = Page(tt_opt.report(found))
    assert not {"b", "i", "u"} & {tag for tag, _ in page.elements}
    assert any("<b>" in text for text in page.texts["pre"])


@draws
def test_a_page_about_nothing():
    assert Page(tt_opt.report(tt_opt.Profile())).texts["h1"] == ["Profile"]


def bars(figure):
    return [(p.get_x(), p.get_width(), p.get_y() + p.get_height() / 2) for p in figure.axes[0].patches]


@draws
def test_a_flame_graph_has_a_bar_for_each_slice(profiled):
    import matplotlib.pyplot as plt

    figure = tt_opt.flame_graph(profiled)
    drawn, began = tt_opt.slices(profiled.events), profiled.events[0].start
    assert len(bars(figure)) == len(drawn) and min(x for x, _, _ in bars(figure)) >= 0
    for (x, width, y), s in zip(bars(figure), drawn):
        assert (x, width, y) == pytest.approx((1e3 * (s.start - drawn[0].start), 1e3 * (s.end - s.start), s.depth))
    assert drawn[0].start >= began
    plt.close(figure)


@draws
def test_a_flame_graph_of_nothing():
    import matplotlib.pyplot as plt

    figure = tt_opt.flame_graph(tt_opt.Profile())
    assert bars(figure) == []
    plt.close(figure)


@draws
def test_a_report_leaves_no_figure_open(profiled):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    tt_opt.report(profiled)
    assert plt.get_fignums() == before


def test_a_table_by_line_shows_the_line():
    model = tn.transformers.small_gpt(20, 1, 16, 8)
    with tt_opt.profile(model) as found:
        model(tt.zeros(1, 4, dtype=np.int64))
    said = tt_opt.table(found, "line", most=20)
    assert re.search(r"^transformers\.py:\d+ +\S+.*c_attn", said, re.MULTILINE), said
    assert "\n(no module)  " in said or "(no module)" not in said


@pytest.mark.parametrize("difference", [0.0, -0.1, float("nan")])
def test_what_is_no_difference_is_never_found(difference):
    with pytest.raises(ValueError, match="must be above 0"):
        tt_opt.benchmarking.pairs_needed(difference, 0.1)
