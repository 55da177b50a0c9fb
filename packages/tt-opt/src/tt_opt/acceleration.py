# # Acceleration
#
# At the end of this chapter your programs from all earlier chapters run several times as fast, although we have not
# changed a single line of them, and on two cores they keep up with PyTorch.

# ## The hurt
#
# In chapter 01 we measured what your machine can do: so many billions of floating-point operations a second (GFLOP/s)
# in a large matrix product. Chapter 14 ended with a GPT that takes its time. How much of the machine does it use?

from __future__ import annotations

import importlib
import math
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd import RULES, is_grad_enabled
from tt_nlp import next_token_loss
from tt_nlp.transformers import small_gpt
from tt_opt.kernel_sets import SETS, Switch, best_set, known_set, put_loops
from tt_opt.threads import empty_like, in_memory_order, in_order_of, in_pieces, one_blas_thread, scratch
from tt_optim import AdamW
from tt_tensor import PRIMITIVES, SLOTS, install_kernels, interpreting


# We need something to measure, so here is one training step of a small GPT: the forward pass, *backpropagation*, and
# the update of the optimizer.


def gpt_step() -> Callable[[], None]:
    """A function that takes one training step of a small GPT: forward, backward, update."""
    tt.manual_seed(0)
    model = small_gpt(65, layers=4, width=128, length=64)
    ids, optimizer = tt.from_numpy(tt.generator().integers(0, 65, (12, 65))), AdamW(model.parameters())

    def step():
        loss = next_token_loss(model(ids[:, :-1]), ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


# The meter of chapter 02 counts the multiply-adds of the step, each of which is two operations. We divide them by the
# time and compare the rate with that of a large product.


def show_hurt():
    step = gpt_step()
    with tt.meter() as meter:
        step()
    seconds, operations = tt.measure(step).seconds, 2 * meter.multiply_adds["matmul"]
    peak = tt.setup.matmul_gflops(1024)
    print(f"a step takes {seconds * 1e3:.0f} ms and has {operations / 1e9:.2f} G operations in matrix products")
    rate = operations / seconds / 1e9
    print(f"that is {rate:.0f} GFLOP/s, {rate / peak:.0%} of the {peak:.0f} of a large product")


# So most of the machine waits. What does it wait for?

# ## The smallest thing that could work
#
# Before we make anything faster, we need to know what is slow. A program that answers this is called a *profiler*. Ours
# is short, because everything passes through the door of chapter 02: if we put a stopwatch into the door, it sees every
# primitive.


def time_by_primitive(function: Callable[[], Any]) -> Counter:  # exercise
    """Return the seconds that function() spends in each primitive, by name. Gradients are recorded as always."""
    seconds: Any = Counter()

    def stopwatch(next, primitive, tensors, params):
        start = time.perf_counter()
        out = next(primitive, tensors, params)
        seconds[primitive.name] += time.perf_counter() - start
        return out

    with interpreting(stopwatch):
        function()
    return seconds


def check_time_by_primitive():
    seconds = time_by_primitive(lambda: tt.exp(tt.ones(1000, 1000) * 2))
    assert set(seconds) == {"exp", "mul"} and seconds["exp"] > 0


# While an interpreter sits in the door, the *backward pass* goes through it as well. So the profile of our step shows
# its primitives beside those of the *forward pass*.


def show_profile():
    step = gpt_step()
    step()
    seconds = time_by_primitive(step)
    print("share of the time in primitives")
    for name, spent in seconds.most_common(8):
        print(f"{name:20s} {spent / seconds.total():6.1%}")


# The matrix products do practically all of the arithmetic, yet they are only a part of the time. Functions that hardly
# compute anything take as long: activations, normalizations, sums, copies. So a processor with faster arithmetic would
# not help us much. We must find out what those functions do with their time.

# ## The idea: bytes
#
# A processor does two things: it computes, and it moves numbers between memory and itself. Each of them has a limit,
# and a function takes at least as long as the slower of the two. If it performs $f$ operations and moves $b$ bytes,
# then
#
# $$ t \ge \max\left(\frac{f}{\text{peak}}, \frac{b}{\text{bandwidth}}\right). $$
#
# If we divide $f$ by both sides, we see that the rate $f / t$ is at most the smaller of the peak and of the *arithmetic
# intensity* $f / b$ times the bandwidth. This is the *roofline model* (S. Williams et al., 2009).


def roofline(intensity: float, peak: float, bandwidth: float) -> float:  # exercise
    """Return the highest possible rate, in operations a second, of a function with this many operations a byte. `peak`
    is in operations and `bandwidth` in bytes a second."""
    return min(peak, intensity * bandwidth)


# Under a roof with a peak of 200 and a bandwidth of 10, an intensity of 1/4 reaches 2.5, and an intensity of 1,000 the
# peak.


def check_roofline():
    assert roofline(0.25, 200e9, 10e9) == 2.5e9 and roofline(1000.0, 200e9, 10e9) == 200e9


# Two examples in numbers. An addition of two arrays reads 8 bytes, writes 4 and performs one operation, so its
# intensity is $1/12$. A product of two $n \times n$ matrices of `float32` performs $2 n^3$ operations on three matrices
# of $4 n^2$ bytes, so its intensity grows with the size:
#
# $$ \frac{2 n^3}{12 n^2} = \frac{n}{6} . $$
#
# The figure draws the roof of this machine, and under it the rates that functions reach.


def under_the_roof(work: dict[str, tuple[float, float, Callable]], span: tuple[float, float]) -> Any:
    """Return a figure of the roof of this machine over a span of intensities, and under it each function, given as
    (operations, bytes moved, function), at the rate that it reaches."""
    import matplotlib.pyplot as plt

    peak, bandwidth = tt.setup.matmul_gflops(1024) * 1e9, tt.setup.bandwidth(1 << 26) * 1e9
    figure, axis = plt.subplots(figsize=(7, 4))
    intensities = np.geomspace(*span)
    axis.loglog(intensities, [roofline(i, peak, bandwidth) / 1e9 for i in intensities], color="C0")
    for name, (operations, moved, function) in work.items():
        rate = operations / tt.measure(function).seconds / 1e9
        axis.plot(operations / moved, rate, "o", color="C1")
        axis.annotate(name, (operations / moved, rate), textcoords="offset points", xytext=(6, -12), fontsize=9)
    axis.set(xlabel="operations a byte", ylabel="GFLOP/s")
    figure.tight_layout()
    return figure


# Which functions do we look at? Two are bound by memory, one is small, and one is the product of the hurt.


def show_roofline():
    """Rate of four functions against their operations a byte, under the roof of this machine."""
    x, a, b = (tt.randn(*shape) for shape in ((1024, 1024), (1024, 1024), (64, 64)))
    work: dict[str, tuple[float, float, Callable]] = {
        "x + x": (x.numel(), 12 * x.numel(), lambda: x + x),
        "exp(x)": (10 * x.numel(), 8 * x.numel(), lambda: tt.exp(x)),  # a polynomial of about that length
        "64 x 64 product": (2 * 64**3, 12 * 64**2, lambda: b @ b),
        "1024 x 1024 product": (2 * 1024**3, 12 * 1024**2, lambda: x @ a),
    }
    return under_the_roof(work, (0.03, 1000))


# A large matrix product uses each number hundreds of times, so it sits under the flat part of the roof: it is
# *compute-bound*. An addition uses each number once. It sits under the slope, far below the peak, and is
# *memory-bound*: faster arithmetic would not help it, but moving fewer bytes would. That gives us a plan with three
# parts. We make fewer trips through memory, we compute nothing twice, and we use more than one core.

# ## Fewer trips
#
# We begin with the activation of our GPT, GELU. If you write it as a formula, it is a dozen operations, and each of
# them reads a whole array from memory and writes a new one.


def gelu_by_formula(x: np.ndarray) -> np.ndarray:
    """Return gelu(x) in its tanh form, with a new array for each operation."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


# Two changes save trips. First, we can work *in place*. NumPy's functions take an argument `out`, an array into which
# they write, so an operation can overwrite an array that we no longer need, instead of asking the system for a new one.
# Second, we can take a *block* of the array that fits into the processor's cache and finish it before we start on the
# next one. Then only the first and the last trip go to memory; all others go to the cache, which is many times as fast.
# (This is also called *tiling*.)

BLOCK = 1 << 15  # elements in a block: 128 KB of float32, and a few such blocks fit into the cache of a core
C0, C1 = math.sqrt(2 / math.pi), math.sqrt(2 / math.pi) * 0.044715


def in_blocks(work: Callable[..., None], *arrays: np.ndarray, size: int = BLOCK) -> None:  # exercise
    """Call work(*parts) for one part of the arrays after the other, `size` elements at a time. The arrays have one
    dimension and equal lengths."""
    for start in range(0, len(arrays[0]), size):
        work(*(array[start : start + size] for array in arrays))


# Ten elements in blocks of four leave a last block of two.


def check_in_blocks():
    x, seen = np.arange(10.0), []
    in_blocks(lambda part: seen.append(part.tolist()), x, size=4)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


# Now the work on one block, operation by operation. The function `scratch` returns memory that belongs to this thread,
# and we use it again for every block. The clipping at 40 is a precaution: `tanh` saturates long before that, so it
# changes no result, but it keeps cubes from overflowing.


def gelu_block(x: np.ndarray, out: np.ndarray) -> None:  # exercise
    """Write gelu(x) in its tanh form into `out`, for one block, without a new array."""
    u, t = scratch("u", x.shape, x.dtype), scratch("t", x.shape, x.dtype)
    np.clip(x, -40, 40, out=u)
    np.multiply(u, u, out=t)
    t *= C1
    t += C0
    t *= u
    np.tanh(t, out=t)
    t += 1
    t *= 0.5
    np.multiply(x, t, out=out)


def check_gelu_block():
    x = np.linspace(-6, 6, 100_001)
    out = np.empty_like(x)
    in_blocks(gelu_block, x, out)
    assert np.allclose(out, gelu_by_formula(x), atol=1e-12)


# We have changed the order of the work, and not its results. How much time does that save?


def show_blocks():
    x = tt.generator().standard_normal(1 << 21, np.float32)
    out = np.empty_like(x)
    forms: dict[str, Callable] = {
        "formula": lambda: gelu_by_formula(x), "in place": lambda: gelu_block(x, out),
        "in place, in blocks": lambda: in_blocks(gelu_block, x, out), "a copy": lambda: np.copyto(out, x),
    }
    for name, form in forms.items():
        print(f"{name:20s} {tt.measure(form).seconds * 1e3:7.2f} ms for {x.size:,d} numbers")


# The answer depends on your machine, on the size of its caches, and on what else it is doing. On a quiet machine with
# two cores we measured 8.9, 3.5 and 3.8 ms for the first three lines. There, most of the gain came from not making new
# arrays, and blocks added nothing, because arrays of 8 MB fit into the last cache of that machine. A copy reads and
# writes every number once. No GELU can be faster than that, so the last line shows you how far we still are from the
# limit.

# ## Nothing twice
#
# In the backward pass the rule of chapter 07 computes the slope of GELU from its input, so it needs `tanh` again,
# although the forward pass had just computed it. If our kernel computes the slope right away, while everything is in
# the cache, the *vector-Jacobian product* of the backward pass shrinks to a single multiplication.


# First the slope on paper. Let $v = C_0 x + C_1 x^3$ and $h = \frac12(1 + \tanh v)$, so that GELU is $x h$. Since
# $\tanh' = 1 - \tanh^2$ and $\tanh v = 2 h - 1$, we have $h' = 2 h (1 - h) v'$ with $v' = C_0 + 3 C_1 x^2$. The product
# rule then gives
#
# $$ (x h)' = h + x \, h (1 - h) (2 C_0 + 6 C_1 x^2) . $$
#
# All of it uses $x$, $x^2$ and $h$, which the kernel has at hand.


def gelu_and_slope_block(x: np.ndarray, out: np.ndarray, slope: np.ndarray) -> None:  # exercise
    """Write gelu(x) in its tanh form into `out` and its derivative into `slope`, for one block, without a new array."""
    u, s, t = (scratch(name, x.shape, x.dtype) for name in ("u", "s", "t"))
    np.clip(x, -40, 40, out=u)
    np.multiply(u, u, out=s)
    np.multiply(s, C1, out=t)
    t += C0
    t *= u
    np.tanh(t, out=t)
    t += 1
    t *= 0.5
    np.multiply(x, t, out=out)
    s *= 6 * C1
    s += 2 * C0
    s *= u
    s *= t
    np.subtract(1, t, out=slope)
    slope *= s
    slope += t


# The check compares the slope with finite differences.


def check_gelu_and_slope():
    x = np.linspace(-6, 6, 1001)
    out, slope = np.empty_like(x), np.empty_like(x)
    gelu_and_slope_block(x, out, slope)
    assert np.allclose(slope, (gelu_by_formula(x + 1e-6) - gelu_by_formula(x - 1e-6)) / 2e-6, atol=1e-8)


# Now we face a question of design: where do we keep the slope? A kernel takes arrays and returns an array. The rule is
# called much later, by chapter 07, which knows nothing about our slope, and we do not want to edit chapter 07. However,
# for every new node of the *computational graph* that chapter looks into its table of rules immediately after the
# kernel has run, and a row of the table may be a function. So our kernel leaves the way back in a place that belongs to
# its thread, and the row picks it up from there.
#
# A row must never pick up the way back of another result. Therefore we mark it with the result that it belongs to, by a
# weak reference, which does not keep the result alive. If no row picks it up, the way back is freed together with the
# result.


class _Left(threading.local):
    out: Any = None
    back: Any = None


_left = _Left()


def leave(out: np.ndarray, back: Callable) -> None:
    """Leave the way back of a result for the recorder: back(needed, g) returns the gradients of the inputs."""
    _left.out, _left.back = weakref.ref(out, _forget), back


def _forget(reference):
    if _left.out is reference:
        _left.out = _left.back = None


def picked_up(out: np.ndarray) -> Callable | None:  # exercise
    """Return the way back that was left for this very result, or None if there is none. It can be picked up once."""
    if _left.out is None or _left.out() is not out:
        return None
    back, _left.out, _left.back = _left.back, None, None
    return back


# A row can pick up the way back only for the right result, only once, and never after that result is gone.


def check_picked_up():
    ours, other = np.ones(3), np.ones(3)
    leave(ours, len)
    assert picked_up(other) is None and picked_up(ours) is len and picked_up(ours) is None
    leave(ours, len)
    del ours
    assert _left.back is None


# We call a kernel that can leave a way back like this a *twin* of the chapter's kernel. A twin may decline by returning
# None: for a dtype that it does not know, for rare options, or for arrays so small that the chapter's kernel is as
# fast. Then the chapter's kernel and its rule do the work. So a twin can handle one case well instead of all cases.

TWINS: dict[str, Callable] = {}


def twin(slot: Any) -> Callable:
    """Decorate a function as the twin of a slot. fn(blocks, keep, *arrays, **params) returns (result, back), or None to
    leave the call to the slot's own kernel.

    `blocks` is the module of the kernel set in use, and `keep` says whether the result may be recorded.
    back(needed, g) returns the gradients of the inputs; it is None where the usual rule will do."""

    def enter(fn):
        TWINS[slot.name] = fn
        return fn

    return enter


# Around each twin we put a kernel that falls back to the usual one, and that leaves the way back where it is needed.


def _kernel(slot, usual, fn, blocks):
    def kernel(*arrays, **params):
        keep = is_grad_enabled()
        found = fn(blocks, keep, *arrays, **params)
        if found is None:
            return usual(*arrays, **params)
        out, back = found
        if keep and back:
            leave(out, back)
        return out

    vars(kernel)["__signature__"] = slot.signature
    return kernel


# In the backward pass there are three cases. If the twin left nothing, the usual rules apply. If it left something and
# the gradient is an array, `back` computes the gradients of all inputs that need one. If the gradient is a tensor, then
# you asked for a second derivative, or a meter listens at the door; because the array that we kept has no history, the
# usual rules apply again. Here is how we apply them:


def by_table(rules, needed, g, out, *inputs, **params) -> list:  # exercise
    """Return the gradients of the inputs that need one, and None for the others, by the rules of chapter 07: a tuple
    with a function (or None) for each input, or one function for all, which gets `needed` as its first argument."""
    if not isinstance(rules, tuple):
        return rules(needed, g, out, *inputs, **params)
    return [rule(g, out, *inputs, **params) if n and rule else None for n, rule in zip(needed, rules)]


# A row of the table chooses among the three cases.


def _row(usual):
    def row(array):
        rules, back = usual if isinstance(usual, tuple) else usual(array), picked_up(array)
        if back is None:
            return rules

        def gradients(needed, g, out, *inputs, **params):
            found = back(needed, g) if isinstance(g, np.ndarray) else None
            return found or by_table(rules, needed, g, out, *inputs, **params)

        return gradients

    return row


# With that we can write the twin of `gelu` in full. It serves arrays of `float32` whose memory has no gaps.
# `blocks.gelu` does the work on a range of elements; which function that is depends on the kernel set that you have
# chosen.


@twin(tt.gelu)
def gelu(blocks, keep, x, approximate="none"):
    row: Any = in_memory_order(x) if approximate == "tanh" and x.dtype == np.float32 else None
    if row is None:
        return None
    (out, o), s = empty_like(x), np.empty(x.size if keep else 0, np.float32)

    def work(start, stop):
        blocks.gelu(row[start:stop], o[start:stop], s[start:stop] if keep else None)

    in_pieces(work, x.size, 8 * x.size)

    def back(needed, g):
        (dx, d), g = empty_like(x), in_order_of(g, x)
        in_pieces(lambda start, stop: np.multiply(g[start:stop], s[start:stop], out=d[start:stop]), x.size, x.size)
        return (dx,)

    return out, back


# Elementwise work does not depend on the order of the elements. Therefore we can treat a transposed array like any
# other as long as its memory has no gaps. Three helpers in the appendix *Threads* take care of that: `in_memory_order`
# gives us the elements in the order of memory, `empty_like` makes room for a result in that order, and `in_order_of`
# brings a gradient into it.

# ## More than one core
#
# NumPy releases Python's lock while it computes, so two threads can work on two halves of an array. The function
# `in_pieces(work, rows, effort)`, which the twin above calls, does that: it cuts the rows into as many ranges as there
# are threads and calls `work(start, stop)` for each of them. You find it in full in the appendix *Threads*. Here we
# only ask when it pays.


def show_threads():
    print(f"{'numbers':>10s} {'one thread':>12s} {'threads':>12s}   us for gelu")
    for size in (1_000, 30_000, 300_000, 3_000_000):
        x = tt.generator().standard_normal(size, np.float32)
        out = np.empty_like(x)

        def work(start, stop):
            in_blocks(gelu_block, x[start:stop], out[start:stop])

        alone, together = (tt.measure(in_pieces, work, size, 1, least).seconds for least in (2, 0))
        print(f"{size:10,d} {alone * 1e6:12.1f} {together * 1e6:12.1f}")


# It costs some 10 to 100 microseconds to hand a piece to another thread and to wait for it, and more if that thread
# must be woken first. If the work takes less than that, a second thread does harm. So each kernel states its effort,
# and `in_pieces` stays on one thread where the effort is too small.
#
# How much can threads bring to a whole step? Suppose that a fraction $s$ of the time $t$ becomes $k$ times as fast and
# the rest stays as it is. The new time is $(1 - s) t + s t / k$, so the whole becomes faster by the factor
#
# $$ \frac{t}{(1 - s) t + s t / k} = \frac{1}{1 - s + s / k} . $$
#
# This is *Amdahl's law* (G. Amdahl, 1967), and it limits every trick in this chapter: if you make half of a program
# infinitely fast, you have only doubled its speed.


def amdahl(share: float, factor: float) -> float:  # exercise
    """Return how many times as fast a program becomes if a share of its time, from 0 to 1, becomes `factor` times as
    fast."""
    return 1 / (1 - share + share / factor)


# Suppose that we make half of a program twice as fast, or infinitely fast:


def check_amdahl():
    assert amdahl(0.5, 2.0) == 4 / 3 and amdahl(0.5, 1e12) < 2 and amdahl(1.0, 2.0) == 2


# Matrix products had threads all along, because BLAS, the library that NumPy calls for them, brings its own. Idle
# threads of BLAS do not sleep, they *spin*: they ask again and again whether there is work, because asking is faster
# than waking up. On a machine with two cores they spin on the core that our other thread needs. So while you use one of
# our kernel sets, BLAS gets one thread, and products go to our threads by rows, like everything else.
#
# It also matters which BLAS you have. NumPy brings OpenBLAS. Intel's own library, MKL, is up to half again as fast on
# Intel's processors if a matrix is narrow, so our set `compiled` uses it where it is installed.

# ## Kernel sets
#
# The appendix *Twins* has the other twins in the same form: products, ReLU, layer normalization, cross-entropy,
# attention, convolution, pooling, batch normalization, and the updates of SGD and Adam. The modules `fast` and
# `compiled` do the work on a range of rows. Each of them, with the twins, is a *kernel set*. A third set has the name
# "loops": the loops with which chapters 02, 09 and 13 define their operations, the slowest of all.
#
# Only the switch is missing. To install a set, we put kernels into slots and rows into the table of rules, and record
# in `undo` how to remove each of them again. We load the new set before we take out the old one, so that a set that
# cannot be loaded changes nothing.


def _putting_twins(name):
    blocks = importlib.import_module(SETS[name])
    importlib.import_module("tt_opt.twins")

    def put(undo):
        undo.callback(one_blas_thread().restore_original_limits)
        kernels = {n: _kernel(SLOTS[n], SLOTS[n].default, fn, blocks) for n, fn in TWINS.items()}
        undo.callback(install_kernels, install_kernels(kernels, name), "default")
        for primitive in (PRIMITIVES[n] for n in TWINS if n in PRIMITIVES):
            undo.callback(RULES.__setitem__, primitive, RULES[primitive])
            RULES[primitive] = _row(RULES[primitive])

    return put


# You can call `accelerate` once for a whole program, or use it in a `with` block. The support module `kernel_sets`
# keeps the set in use (`Switch`), and knows the names and which set is best (`known_set`, `best_set`). A wrong name is
# an error, and a missing Numba only a warning, because the program then runs correctly all the same.

_use = Switch()


def kernel_set() -> str:
    """Return the name of the kernel set in use."""
    return _use.name


class accelerate:
    """Use a kernel set from here on: "fast", "compiled", "default" or "loops"; without a name, the best one that is
    installed. `with accelerate(...)` restores the previous set at the end of the block.

    Slots are the same for all threads. Raises ValueError for an unknown name, and RuntimeError while another thread is
    inside such a block. Where Numba is missing, "compiled" means "fast", and a warning says so."""

    def __init__(self, name: str | None = None):
        self.name, self.before = known_set(name or best_set()), _use.name
        _switch(self.name)

    def __enter__(self):
        _use.blocks.append(threading.get_ident())
        return self

    def __exit__(self, *exception):
        _use.blocks.pop()
        _switch(self.before)


def _switch(name):
    _use.to(name, {"default": lambda undo: None, "loops": put_loops}.get(name) or _putting_twins(name))


# With an environment variable you can run a program on a kernel set even if the program knows nothing about them.


def use_environment() -> None:
    """Use the kernel set that the environment variable TT_KERNELS names, if it is set. ValueError for an unknown
    name."""
    if name := os.environ.get("TT_KERNELS"):
        try:
            accelerate(name)
        except ValueError as error:
            raise ValueError(f"TT_KERNELS={name}: {error}") from None


# The witness: a model must compute the same values and gradients with our kernels as with those of the chapters, up to
# the rounding of `float32`.


def check_a_set_computes_the_same():
    def gradients():
        tt.manual_seed(0)
        model = small_gpt(65, layers=1)
        ids = tt.from_numpy(tt.generator().integers(0, 65, (2, 33)))
        next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
        return [p.grad.numpy() for p in model.parameters()]

    expected = gradients()
    with accelerate("fast"):
        assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(gradients(), expected))


# ## Compile the definition
#
# This is as far as NumPy alone takes us. Each of its functions is one trip over a block, even if the block is in the
# cache. To make the trip only once, we would have to write the loop ourselves, number by number. We did that in chapter
# 02: the kernel set `loops` has every operation as the loop that defines it, and it is a thousand times too slow. But
# what is slow about it? The loop is exactly the code that we want the processor to run. The time goes to Python's
# interpreter, which looks up every name and turns every number into an object.
#
# *Numba* is a library that translates such a function into machine code when you first call it; it is a *just-in-time
# compiler*. Here is layer normalization as its definition, three loops over a row.


def norm_by_definition(x, weight, bias, out):  # exercise
    """Write (x - mean) / sqrt(variance + 1e-5) * weight + bias into `out` for each row of x, number by number."""
    rows, width = x.shape
    for i in range(rows):
        total, squares = 0.0, 0.0
        for j in range(width):
            total += x[i, j]
        mean = total / width
        for j in range(width):
            squares += (x[i, j] - mean) ** 2
        slope = 1 / math.sqrt(squares / width + 1e-5)
        for j in range(width):
            out[i, j] = (x[i, j] - mean) * slope * weight[j] + bias[j]


def check_norm_by_definition():
    x, weight, bias = np.random.default_rng(0).normal(size=(5, 7)), np.full(7, 2.0), np.ones(7)
    out = np.empty_like(x)
    norm_by_definition(x, weight, bias, out)
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    assert np.allclose(out, 2 * normal + 1)


# We run the same text interpreted and compiled, beside the kernel of chapter 09:


def show_compiled():
    import numba
    from tt_spatial import normalize_scaled

    x, weight = tt.generator().standard_normal((768, 128), np.float32), np.ones(128, np.float32)
    out, compiled = np.empty_like(x), numba.njit(norm_by_definition, fastmath={"reassoc", "contract", "arcp", "nsz"})
    forms: dict[str, Callable] = {
        "interpreted": lambda: norm_by_definition(x, weight, weight, out),
        "NumPy": lambda: normalize_scaled.kernel(x, weight, weight, eps=1e-5),
        "compiled": lambda: compiled(x, weight, weight, out),
    }  # fmt: skip
    for name, form in forms.items():
        print(f"{name:12s} {tt.measure(form).seconds * 1e6:10.0f} us")


# So the loops of chapter 02 were not slow, only their interpreter was. Compiled, the definition overtakes NumPy,
# because it makes one trip where NumPy makes ten, and it needs neither blocks nor scratch memory.
#
# The option `fastmath` permits the compiler to add up a sum in another order, without which it could not use the
# processor's wide registers (*SIMD*, single instruction, multiple data). We permit that and nothing else, because the
# answers for infinity and nan must stay those of NumPy.
#
# The module `compiled` contains the work of all twins in this form. Only the exponential could not be taken from its
# definition. Numba calls the C library for it, number by number, so we write it as a power of 2 times a polynomial.

# ## What it brings
#
# How far have we come? GELU and layer normalization must read and write each number once. We count about 20 operations
# a number for the first and 8 for the second, so their intensities are fixed. Every trip that we save moves a point
# straight up, towards the roof.


def show_climb():
    """GELU and layer normalization under the roof of this machine: each trip saved moves a point up."""
    import numba
    from tt_spatial import normalize_scaled

    x, weight = tt.generator().standard_normal((16_384, 128), np.float32), np.ones(128, np.float32)
    flat, out, gelu, norm = x.ravel(), np.empty_like(x), (20 * x.size, 8 * x.size), (8 * x.size, 8 * x.size)
    compiled = numba.njit(norm_by_definition, fastmath={"reassoc", "contract", "arcp", "nsz"})
    work: dict[str, tuple[float, float, Callable]] = {
        "gelu by formula": (*gelu, lambda: gelu_by_formula(flat)),
        "gelu in blocks": (*gelu, lambda: in_blocks(gelu_block, flat, out.ravel())),
        "layer norm in NumPy": (*norm, lambda: normalize_scaled.kernel(x, weight, weight, eps=1e-5)),
        "layer norm compiled": (*norm, lambda: compiled(x, weight, weight, out)),
    }
    return under_the_roof(work, (0.3, 100))


# The vertical distance from a point to the slope of the roof is what we could still gain. Next we measure the whole
# step from the beginning of the chapter, once on each kernel set.


def show_sets():
    sets = ["default", "fast", *(["compiled"] if best_set() == "compiled" else [])]
    seconds = {}
    for name in sets:
        with accelerate(name):
            step = gpt_step()
            step()  # compiles what is not in the cache yet
            seconds[name] = tt.measure(step, span=1.0).seconds
    for name in sets:
        factor = seconds["default"] / seconds[name]
        print(f"{name:10s} {seconds[name] * 1e3:7.1f} ms a step, {factor:.2f} times as fast as the default")


# You find all workloads beside PyTorch on the page *Benchmarks*.
#
# ## What is not worth it
#
# A profile also shows us where to stop. With the twins, the matrix products take most of the time of a GPT, and BLAS
# computes those near the peak. We could easily write a twin for `sigmoid`, but no program of ours would notice. The
# same holds for RMSprop, for strided convolutions and for `float64`, because we use them where speed is not the point.
# Each twin is code that must agree with its chapter in every corner, infinities included. So write a twin only where a
# profile calls for it.

# ## Errors you will meet
#
# You may misspell the name of a set, or hand `install_kernels` a kernel whose arguments are not those of its slot.


def show_errors():
    for attempt in (lambda: accelerate("turbo"), lambda: install_kernels({"gelu": lambda x: x})):
        try:
            attempt()
        except ValueError as error:
            print(f"ValueError: {error}")


# ## Exercises
#
# Besides the exercises that are marked in the text:
#
# 1. Run `time_by_primitive` on your own LeNet. Which primitive would you accelerate first, and what does `amdahl`
#    promise for it?
# 2. Write `utilization`, the share of the peak that a function reaches. Measure it for matrix products of 16 to 2048
#    rows. Where does the flat part of the roof begin?
# 3. Write a twin for `tt.sigmoid` that keeps its slope, and enter it with `twin`. How much does it bring to a network
#    of yours that uses it?


def utilization(function: Callable[[], Any], operations: float, peak: float) -> float:  # exercise
    """Return the share of `peak`, in operations a second, that function() reaches if it performs so many operations."""
    return operations / tt.measure(function).seconds / peak


def check_utilization():
    assert 0 < utilization(lambda: time.sleep(0.001), 1e6, 1e12) < 0.001 + 1e-12


# ## A road not taken
#
# We chose by hand which operations to accelerate. PyTorch's `torch.compile` and JAX's `jit` look at a whole program
# instead: they join neighbouring operations and generate one kernel for them (*operator fusion*), so that a product,
# its bias and the activation make a single trip. tinygrad is built on this idea: its operations are lazy, and nothing
# runs until it has been joined. The price is a compiler that you must trust, seconds of waiting before the first step,
# and errors that point into generated code. Our twins are the middle way: a few kernels, each of which you know by
# name.

# ## What hurts next
#
# We train a GPT several times as fast as before. Now let it write.


def show_generation():
    from tt_nlp import stream

    with accelerate("fast"):
        model = small_gpt(65, layers=4, width=128, length=512)
        for length in (16, 64, 256):
            prompt = tt.generator().integers(0, 65, length).tolist()
            seconds = tt.measure(lambda: [token for token, _ in zip(stream(model, prompt, 4), range(4))]).seconds / 4
            print(f"after {length:3d} tokens the next one takes {seconds * 1e3:6.1f} ms")


# The longer the text, the longer you wait for each new token, because our model is *autoregressive* and reads the whole
# text again for every single one. Faster kernels cannot change that, because the work itself is wasted. Chapter 16,
# *Caching*, keeps it.

__all__ = [
    "TWINS", "accelerate", "amdahl", "best_set", "by_table", "gelu_and_slope_block", "gelu_block", "gelu_by_formula",
    "in_blocks", "kernel_set", "leave", "norm_by_definition", "picked_up", "roofline", "time_by_primitive", "twin",
    "use_environment", "utilization",
]
