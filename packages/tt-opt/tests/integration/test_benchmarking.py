"""Chapter 19 at work: verdicts by the real clock, and a training step of chapter 14's GPT under the profiler."""

import time

import numpy as np
import pytest

import tt_nlp as tn
import tt_opt
import tt_tensor as tt
from tt_tensor.teaching import between, expect

IDEA, WHERE = "The idea", "Where does the time go?"


@pytest.fixture
def model():
    tt.manual_seed(0)
    return tn.transformers.small_gpt(30, layers=2, width=32, length=16)


@pytest.fixture
def ids():
    return tt.tensor(np.random.default_rng(0).integers(0, 30, (2, 17)))


def loss_of(model, ids):
    return tn.next_token_loss(model(ids[:, :-1]), ids[:, 1:])


def step(model, ids):
    model.zero_grad()
    loss = loss_of(model, ids)
    loss.backward()
    return loss.item(), {name: p.grad.numpy().copy() for name, p in model.named_parameters()}


def test_imports_find_what_the_chapter_promises():
    names = ["benchmark", "bootstrap_interval", "calls_for", "compare", "compared", "median_interval", "pairs_needed"]
    names += ["profile", "roof_points", "rows", "table", "take_turns", "time_calls", "whereabouts", "work_of"]
    names += ["flame_graph", "report", "save_report", "save_trace", "slices", "trace"]
    expect(
        "the names that chapter 19 lacks",
        [n for n in names if not (hasattr(tt_opt, n) or hasattr(tt_opt.benchmarking, n))],
        [],
        see="Exercises",
    )


# Verdicts


def test_performance_a_difference_is_found():
    def found():
        verdict = tt_opt.compare(lambda: time.sleep(0.001), lambda: time.sleep(0.003), pairs=20, span=0.1)
        return verdict.differ and verdict.ratio > 1

    expect("is a sleep of 1 ms found to be faster than one of 3 ms?", found, True, see=IDEA)


def test_performance_a_function_does_not_differ_from_itself():
    def work():
        return sum(range(200))

    def found():
        return sum(tt_opt.compare(work, work, span=0.04, seed=seed).differ for seed in range(20))

    expect("how many of 20 comparisons of a function with itself find a difference", found, between(0, 5),
           "Of 20 verdicts, one may be wrong; more than 5 are in one case of 30,000.", see=IDEA)  # fmt: skip


def test_integration_a_benchmark_reads_like_one():
    def found():
        timing = tt_opt.benchmark(lambda: time.sleep(0.001), turns=9, span=0.02)
        said = [word for word in ("ms", "95 %", "turns") if word in str(timing)]
        return timing.median >= 0.001, len(timing.seconds), said

    expect("a benchmark of a sleep of 1 ms: is it that long, how many turns, and what is in its text", found,
           (True, 9, ["ms", "95 %", "turns"]), see="The smallest thing that could work")  # fmt: skip


# Profiles


def test_integration_all_modules_of_a_gpt(model, ids):
    silent = ("wte", "wpe", "drop", "dropout", "h")  # nothing is dropped, and tables may be read from outside
    names = [name or "GPT" for name, _ in model.named_modules() if name.rpartition(".")[2] not in silent]

    def without(phase):
        with tt_opt.profile(model) as found:
            step(model, ids)
        timed = {name for event in found.events if event.phase == phase and event.seconds > 0 for name in event.stack}
        return [name for name in names if name not in timed]

    for phase in ("forward", "backward"):
        expect(f"the modules of a GPT without time in the {phase} pass", lambda p=phase: without(p), [], see=WHERE)


def test_compatibility_the_work_is_what_the_meter_counts(model, ids):
    with tt.meter() as meter:
        loss_of(model, ids)

    def others():
        with tt_opt.profile(model) as found:
            loss_of(model, ids)
        rows = tt_opt.benchmarking.rows(found.events, "primitive")
        seen = {name: (row.calls, row.multiply_adds, row.bytes) for name, row in rows.items() if row.calls}
        metered = {n: (calls, meter.multiply_adds[n], meter.bytes[n]) for n, calls in meter.calls.items()}
        return len(seen) > 3, [name for name in seen | metered if seen.get(name) != metered.get(name)]

    expect("primitives of a forward pass whose calls, multiply-adds or bytes are not what the meter counts", others,
           (True, []), see=WHERE)  # fmt: skip


def test_compatibility_a_profiled_step_computes_the_same(model, ids):
    def profiled():
        with tt_opt.profile(model):
            return step(model, ids)

    loss, gradients = step(model, ids)

    def differences():
        found, theirs = profiled()
        return found - loss, [name for name in gradients if not np.array_equal(gradients[name], theirs[name])]

    expect("the change of the loss by a profiler, and the parameters whose gradients changed by a bit", differences,
           (0.0, []), see=WHERE)  # fmt: skip


def test_integration_tables(model, ids):
    def sums():
        with tt_opt.profile(model) as found:
            step(model, ids)
        whole = f"{1e3 * sum(event.seconds for event in found.events):.2f}"
        calls = str(sum(event.phase != "outside" for event in found.events))
        last = [tt_opt.table(found, by, most=3).splitlines()[-1].split() for by in ("primitive", "module", "line")]
        return [words[:5] == ["in", "all", calls, whole, "100.0%"] for words in last]

    expect("does the last line of the tables by primitive, module and line have all calls and seconds?", sums,
           [True, True, True], see=WHERE)  # fmt: skip


def test_integration_memory():
    x = tt.ones(300, 300)

    def peak():
        with tt_opt.profile(memory=True) as found:
            x @ x
        return tt_opt.benchmarking.rows(found.events, "primitive")["matmul"].peak / (4 * 300 * 300)

    expect("the peak of a product of (300, 300) and (300, 300), by the bytes of its result", peak, between(1, 1.5),
           see=WHERE)  # fmt: skip


class Slow(tt.Module):
    """Two primitives, with something else between them."""

    def forward(self, x):
        x = x * 2
        time.sleep(0.02)
        return x + 1


def test_integration_python_between_primitives_has_a_module():
    model = tt.Sequential(tt.ReLU(), Slow())

    def found():
        with tt_opt.profile(model) as profile:
            model(tt.ones(3))
        row = tt_opt.benchmarking.rows(profile.events, "module")["1"]
        return row.calls, row.seconds - row.forward >= 0.02

    expect("calls in a module, and whether the 20 ms that it sleeps between them are its own", found, (2, True),
           see=WHERE)  # fmt: skip


def test_integration_an_error_takes_the_profiler_out():
    def found():
        profiles = []
        for fails in (True, False):
            try:
                with tt_opt.profile() as profile:
                    profiles.append(profile)
                    tt.ones(2).exp()
                    if fails:
                        tt.ones(2, 3) @ tt.ones(2, 3)
            except ValueError:
                pass
            tt.ones(2).exp()
        return [[e.name for e in p.events if e.phase == "forward"] for p in profiles], tt.listening()

    expect("what two profiles have seen of a block that fails and one that does not, and whether one still listens",
           found, ([["exp"], ["exp"]], False), see=WHERE)  # fmt: skip


def test_integration_a_profile_in_a_profile():
    x = tt.ones(3, requires_grad=True)

    def found():
        with tt_opt.profile() as outer:
            y = x * 2
            with tt_opt.profile() as inner:
                y = y.exp().sum()
            y.backward()
        return [sorted(e.name for e in p.events if e.phase == "forward") for p in (outer, inner)]

    expect("the primitives that two profiles see, one inside of the other", found,
           [["exp", "mul", "sum"], ["exp", "sum"]], see=WHERE)  # fmt: skip
