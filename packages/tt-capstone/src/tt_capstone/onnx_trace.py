# # Tracing
#
# The first part of the appendix *ONNX*. At the end of it a run of a model has become a list of primitive calls whose
# sizes are formulas, so that it holds for any batch and any length of text.

# ## A list of calls
#
# A model is a Python program, and another program cannot run it without Python. Other programs can, however, run a
# *computational graph*: which operation, on which arrays, in which order. We need not read the model's source to get
# it. Every operation passes through the door of chapter 02, so we run the model once and record everything that passes.
# This is *tracing*.

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import tt_tensor as tt
from tt_autograd import no_grad
from tt_tensor import Tensor, from_numpy, interpreting


class Call(NamedTuple):
    """A primitive that was called: on which values, by number, with which parameters, and the value that it gave."""

    primitive: str
    inputs: tuple[int, ...]
    params: dict[str, Any]
    output: int


# Each array that we see gets a number and an origin: it is an input, a parameter or buffer of the model, or the result
# of an earlier call. If it is none of these, it is a constant. How do we recognize an array? By its place in memory:
# two arrays that exist at the same time, with the same address, shape and strides, are the same numbers. The recorder
# keeps all of them, so no address is used twice.


def place_in_memory(array: np.ndarray) -> tuple:
    """Return the address, shape, strides and dtype of an array, which two arrays share if they are the same numbers."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


class Trace:
    """An interpreter that records: `origins` and `arrays` of all values, the `calls`, and the `outputs`."""

    def __init__(self, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        self.origins: list[tuple[str, str]] = []
        self.arrays: list[np.ndarray] = []
        self.calls: list[Call] = []
        self.outputs: list[int] = []
        self.kept: list[Tensor] = []
        self.numbers: dict[tuple, int] = {}
        for origin, tensors in (("state", state), ("input", inputs)):
            for name, tensor in tensors.items():
                if origin == "input" or place_in_memory(tensor.numpy()) not in self.numbers:
                    self.enter(tensor, origin, name)

    # State comes first. If two layers share a weight, it has the first of its names.

    def enter(self, tensor: Tensor, origin: str, name: str = "") -> int:
        """Give a value the next number."""
        self.kept.append(tensor)
        self.origins.append((origin, name))
        self.arrays.append(tensor.numpy())
        self.numbers[place_in_memory(self.arrays[-1])] = number = len(self.arrays) - 1
        return number

    def number(self, tensor: Tensor) -> int:
        """The number of a value; what we have not seen before is a constant."""
        found = self.numbers.get(place_in_memory(tensor.numpy()))
        return self.enter(tensor, "constant") if found is None else found

    def __call__(self, then, primitive, tensors, params):
        inputs = tuple(map(self.number, tensors))
        out = then(primitive, tensors, params)
        self.calls.append(Call(primitive.name, inputs, params, self.enter(out, "call", primitive.name)))
        return out


# Now the trace of a run. If a model wrote in place, it would change numbers that are already in our list, so we refuse
# it.


def traced(function: Callable, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Trace:
    """Run a function of tensors, which returns one or several, and record it. Raises TypeError for another result and
    ValueError for a function that writes in place."""
    trace, written = Trace(inputs, state), tt.last_write()
    with interpreting(trace), no_grad():
        out = function(*inputs.values())
    if tt.last_write() != written:
        raise ValueError("the model changes a tensor in place, which a graph cannot say: write x = x + 1, not x += 1")
    results = [out] if isinstance(out, Tensor) else out
    if not isinstance(results, list | tuple) or not all(isinstance(result, Tensor) for result in results):
        raise TypeError(f"a graph has tensors as results, one or several; the model returned {type(out).__name__}")
    trace.outputs = [trace.number(result) for result in results]
    return trace


def check_traced():
    weight = tt.randn(3, 4)
    trace = traced(lambda x: tt.relu(x @ weight.T + 1.0), {"x": tt.ones(2, 4)}, {"weight": weight})
    assert [call.primitive for call in trace.calls] == ["permute", "matmul", "add", "relu"]
    assert [origin for origin, _ in trace.origins] == ["state", "input", "call", "call", "constant", "call", "call"]


# ## What tracing cannot see
#
# A trace shows one run. It does not show how the model would treat another input, and so there are three traps.
#
# 1. *Branches.* After `if x.sum() > 0` only one of the two ways is in the list.
# 2. *Numbers that leave the door.* If the model computes something with NumPy and makes a tensor of the result, this
#    tensor looks like a constant.
# 3. *Sizes.* `x.reshape(2, 8, 64)` does not say whether the 2 is a constant of the model or the size of the batch.
#
# A graph with such a number in it answers correctly for the example, and wrongly for everything else. Our remedy is to
# run the model several times: with other numbers, and once for each change of a size that may vary. We call such a size
# a *dynamic* one, and give it a name. If the lists of calls differ, there was a branch. If a constant differs where
# only the numbers of the input were changed, it has left the door. (Three times with other numbers, because the largest
# of three may be the same one by chance.) And the sizes that differ tell us, by how much they differ, which formula
# they obey.


class Size(NamedTuple):
    """A size as a sum of products of dynamic sizes: ((("batch", "length"), 2), ((), 1)) is 2 * batch * length + 1."""

    terms: tuple[tuple[tuple[str, ...], int], ...]

    def __str__(self):
        text = "".join("+-"[k < 0] + "*".join([str(abs(k))] * (abs(k) != 1 or not names) + [*names])
                       for names, k in self.terms)  # fmt: skip
        return text.removeprefix("+")

    def at(self, sizes: Mapping[str, int]) -> int:
        """The number, where the dynamic sizes are these."""
        return sum(k * int(np.prod([sizes[name] for name in names])) for names, k in self.terms)


# `heads_of_all = batch * heads` or `keys = past + length`: all sizes that we meet are sums of single sizes and of
# products of two. The coefficients are the solution of a linear system with an equation for each run. The last run is
# one that the others have not determined, and so it is the witness.

REPEATS = 4  # runs of the first sizes, with other numbers each


def products_of(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All products of up to two different names; the empty one is 1."""
    return [(), *((name,) for name in names), *itertools.combinations(names, 2)]


def runs_of(base: Mapping[str, int]) -> list[dict[str, int]]:
    """Sizes to run a model with: the base, each size and each pair of sizes larger by 1, and all of them larger."""
    bumped = [{**base, **{name: base[name] + 1 for name in names}} for names in products_of([*base])]
    return [*bumped, {name: 2 * size + 1 for name, size in base.items()}] if base else [{}]


def coefficients(runs: Sequence[Mapping[str, int]], values: Sequence) -> dict[tuple[str, ...], np.ndarray]:
    """The coefficient of each product of names, such that the sums are the values (numbers or arrays) in these runs, as
    nearly as possible."""
    products = products_of([*runs[0]])
    table = np.array([[np.prod([run[name] for name in names]) for names in products] for run in runs], float)
    wanted = np.array(values, float)
    found, *_ = np.linalg.lstsq(table, wanted.reshape(len(runs), -1), rcond=None)
    found = np.where(np.abs(found - np.rint(found)) < 1e-9, np.rint(found), found)
    return {names: c.reshape(wanted.shape[1:]) for names, c in zip(products, found) if c.any()}


def fitted(runs: Sequence[Mapping[str, int]], values: Sequence[int]) -> int | Size | None:
    """The integer, or the formula, that has these values in these runs; None if there is none."""
    if len(set(values)) == 1:
        return int(values[0])
    found = coefficients(runs, values)
    size = Size(tuple((names, int(c)) for names, c in found.items()))
    return size if [size.at(run) for run in runs] == [*values] else None


def check_fitted():
    runs = runs_of({"batch": 2, "length": 3})
    values = [5 * run["batch"] * run["length"] - run["length"] + 4 for run in runs]
    assert str(fitted(runs, values)) == "4-length+5*batch*length"
    assert fitted(runs, [run["length"] // 2 for run in runs]) is None and fitted(runs, [7] * len(runs)) == 7


# ## Arrays that depend on sizes
#
# A model also *makes* arrays whose shape depends on a size: positions 0 to $T - 1$, angles for them, a causal mask, or
# the count by which a mean divides. They come from NumPy, so the trace has them as constants. Two formulas are enough
# for all of them. In the first, an element is a constant plus a slope times its index, along each dynamic dimension:
# positions, angles (a position times a frequency), and counts, which have no dimension at all.


class Ramp(NamedTuple):
    """An array whose element is the sum over `start` (a size times an array), plus along each dynamic dimension the
    index times an array."""

    shape: tuple[int | Size, ...]
    dtype: np.dtype
    start: dict[tuple[str, ...], np.ndarray]
    slopes: dict[int, np.ndarray]

    def at(self, sizes: Mapping[str, int]) -> np.ndarray:
        """The array, where the dynamic sizes are these."""
        shape = tuple(n.at(sizes) if isinstance(n, Size) else n for n in self.shape)
        out = np.zeros(shape)
        for names, array in self.start.items():
            out = out + array * float(np.prod([sizes[name] for name in names]))
        for dim, slope in self.slopes.items():
            out = out + slope * np.arange(shape[dim]).reshape([-1 if d == dim else 1 for d in range(len(shape))])
        return out


# The first element along all dynamic dimensions shows the start, in all runs together. The second one shows the slopes,
# and the last run is large enough to have a second one. Then the formula must give all arrays.


def at_start(array: np.ndarray, dims: Sequence[int], second: int | None = None) -> np.ndarray:
    """The first element along `dims`, but the second along the dimension `second`; they keep size 1."""
    places = [slice(d == second, (d == second) + 1) if d in dims else slice(None) for d in range(array.ndim)]
    return array[tuple(places)]


def ramp(runs: Sequence[Mapping[str, int]], arrays: Sequence[np.ndarray], shape: tuple) -> Ramp | None:
    """The ramp that these arrays are in these runs, or None."""
    dims, last = [d for d, n in enumerate(shape) if isinstance(n, Size)], arrays[-1].astype(float)
    if not np.isfinite(last).all() or any(last.shape[d] < 2 for d in dims):
        return None
    slopes = {dim: at_start(last, dims, dim) - at_start(last, dims) for dim in dims}
    start = coefficients(runs, [at_start(array, dims) for array in arrays])
    found = Ramp(shape, arrays[0].dtype, start, slopes)
    alike = (np.allclose(found.at(run), array, rtol=1e-9, atol=1e-9) for run, array in zip(runs, arrays))
    return found if all(alike) else None


# The second formula is for masks: two values, and which of them depends on how far a column lies behind a row. A causal
# mask has one value where `row - column` is at least 0, or at least $-n$ if $n$ tokens came before; a window has an end
# on the other side as well.


class Band(NamedTuple):
    """A matrix that has the value `inside` where least <= row - column <= most, and `outside` elsewhere. None is no
    bound."""

    shape: tuple[int | Size, ...]
    dtype: np.dtype
    outside: float
    inside: float
    least: int | Size | None
    most: int | Size | None


# In each run we look for the smallest and the largest distance that is inside, and nothing between the two may be
# outside.


def distances(array: np.ndarray, value) -> tuple[int, int, int, int] | None:
    """The least and the most of row - column where a matrix has this value, and the least and the most of all; None if
    a distance between the two has another value."""
    back = np.arange(array.shape[-2])[:, None] - np.arange(array.shape[-1])
    there = back[array.reshape(back.shape) == value]
    if not there.size or there.size != np.count_nonzero((back >= there.min()) & (back <= there.max())):
        return None
    return int(there.min()), int(there.max()), int(back.min()), int(back.max())


# A bound that is the end of the matrix in all runs is none. The others must obey a formula.


def band(runs: Sequence[Mapping[str, int]], arrays: Sequence[np.ndarray], shape: tuple) -> Band | None:
    """The band that these arrays are in these runs, or None."""
    values = np.unique(np.concatenate([np.unique(array) for array in arrays]))
    if len(shape) < 2 or len(values) != 2 or any(n != 1 for n in shape[:-2]):
        return None
    found = [distances(array, values[1]) for array in arrays]
    if None in found:
        return None
    bounds: list[int | Size | None] = []
    least, most, lowest, highest = zip(*found)
    for bound, end in ((least, lowest), (most, highest)):
        bounds.append(None if bound == end else fitted(runs, bound))
        if bounds[-1] is None and bound != end:
            return None
    outside, inside = (value.item() for value in values)
    return Band(shape, arrays[0].dtype, outside, inside, *bounds)


def check_ramp_and_band():
    runs = runs_of({"past": 2, "length": 3})
    places = [run["past"] + np.arange(run["length"]) for run in runs]
    masks = [np.arange(p[-1] + 1) <= p[:, None] for p in places]
    length, keys = (fitted(runs, [mask.shape[d] for mask in masks]) for d in (0, 1))
    positions, causal = ramp(runs, places, (length,)), band(runs, masks, (length, keys))
    assert positions.at({"past": 7, "length": 2}).tolist() == [7, 8]
    assert str(causal.least) == "-past" and causal.most is None and causal.inside is True


# ## One list for all sizes
#
# Now we hold the traces of all runs beside each other. Values have a shape with formulas in it. A constant is an array,
# a formula, or `Same` as an earlier value: `topk` picks its results by positions that it has found itself, and the
# trace has a copy of these positions as a parameter of the picking.


class Same(NamedTuple):
    """An array that is a copy of the value with this number."""

    number: int


class Known(NamedTuple):
    """A value of a program: its origin, shape and dtype; its content, if it is a constant or part of the state."""

    origin: tuple[str, str]
    shape: tuple[int | Size, ...]
    dtype: np.dtype
    content: Any = None


class Program(NamedTuple):
    """What a model does at any size: values by number, calls, the numbers of the results."""

    values: list[Known]
    calls: list[Call]
    outputs: list[int]


# Whatever differs between runs must follow a formula. If it does not, we say which primitive needed it. First the
# shapes:


class Merging:
    """Traces of the same function beside each other; the first REPEATS of them have the same sizes."""

    def __init__(self, runs: Sequence[Mapping[str, int]], traces: Sequence[Trace]):
        self.runs, self.traces, self.where = runs, traces, ""

    def refuse(self, what: str) -> ValueError:
        return ValueError(f"the model cannot be exported: {self.where} {what}")

    def size(self, values: Sequence[int]) -> int | Size:
        """The integer or formula that has these values."""
        found = fitted(self.runs, values)
        if len(set(values[:REPEATS])) > 1:
            raise self.refuse("gets an integer that depends on the numbers of the input")
        if found is None:
            seen = {n: ", ".join(f"{name} = {k}" for name, k in run.items()) for n, run in zip(values, self.runs)}
            listed = " and ".join(f"{n} where {sizes}" for n, sizes in seen.items())
            raise self.refuse(f"has a size that is not a sum of products of the dynamic sizes: {listed}")
        return found

    def shape(self, arrays: Sequence[np.ndarray]) -> tuple[int | Size, ...]:
        """The shape that these arrays have in common."""
        if len({array.ndim for array in arrays}) > 1:
            raise self.refuse("has a number of dimensions that depends on the sizes")
        return tuple(map(self.size, zip(*(array.shape for array in arrays))))

    # An array without a formula may be a copy of a result; if it depends on the numbers of the input, it must be one.

    def array(self, arrays: Sequence[np.ndarray], before: int) -> Any:
        """The array, a copy of a value with a number less than `before`, or the formula that these arrays are."""
        if all(_equal(array, arrays[0]) for array in arrays[1:]):
            return arrays[0]
        if not all(_equal(array, arrays[0]) for array in arrays[:REPEATS]):
            for number in reversed(range(before)):
                if all(_equal(array, trace.arrays[number]) for array, trace in zip(arrays, self.traces)):
                    return Same(number)
            raise self.refuse(
                "gets an array that depends on the numbers of the input and did not come from a primitive: it was "
                "computed outside of the door, where tracing cannot see it"
            )
        shape = self.shape(arrays)
        found = ramp(self.runs, arrays, shape) or band(self.runs, arrays, shape)
        if found is None:
            raise self.refuse(
                f"gets an array of shape ({', '.join(map(str, shape))}) whose numbers depend on the sizes in a way "
                "that is neither a ramp nor a band"
            )
        return found

    # Parameters may be nested: an index is a tuple of slices, numbers and arrays.

    def param(self, values: Sequence, before: int) -> Any:
        """The parameter that has these values."""
        first = values[0]
        if isinstance(first, np.ndarray):
            return self.array(values, before)
        if isinstance(first, slice):
            return slice(*(self.param(part, before) for part in zip(*((v.start, v.stop, v.step) for v in values))))
        if isinstance(first, tuple | list) and len({len(value) for value in values}) == 1:
            return tuple(self.param(part, before) for part in zip(*values))
        if all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values):
            return self.size(values)
        if any(type(value) is not type(first) or value != first for value in values[1:]):
            raise self.refuse(f"gets a parameter that depends on the sizes: {first!r} and {values[-1]!r}")
        return first


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


# To merge traces, we go through their calls side by side.


def merged(runs: Sequence[Mapping[str, int]], traces: Sequence[Trace]) -> Program:
    """The program that these traces are runs of. Raises ValueError, with the name of the primitive, for what a graph
    cannot express."""
    merging, first = Merging(runs, traces), traces[0]
    for number, calls in enumerate(itertools.zip_longest(*(trace.calls for trace in traces))):
        seen = {f"{call.primitive} on values {call.inputs}" if call else "the end" for call in calls}
        if len(seen) > 1:
            merging.where = f"call {number} is {' or '.join(sorted(seen))}:"
            raise merging.refuse("the model has a branch, and a trace sees only one side")
    if len({tuple(trace.outputs) for trace in traces}) > 1:
        merging.where = "its result is one of several values:"
        raise merging.refuse("the model has a branch, and a trace sees only one side")
    users = {number: call for call in reversed(first.calls) for number in (*call.inputs, call.output)}
    values = []
    for number, origin in enumerate(first.origins):
        merging.where = users[number].primitive if number in users else "a result"
        arrays = [trace.arrays[number] for trace in traces]
        content = merging.array(arrays, number) if origin[0] == "constant" else None
        content = arrays[0] if origin[0] == "state" else content
        values.append(Known(origin, merging.shape(arrays), arrays[0].dtype, content))
    merged_calls: list[Call] = []
    for side_by_side in zip(*(trace.calls for trace in traces)):
        call = side_by_side[0]
        merging.where = call.primitive
        params = {name: merging.param([c.params[name] for c in side_by_side], call.output) for name in call.params}
        merged_calls.append(call._replace(params=params))
    return Program(values, merged_calls, first.outputs)


# The example has one size. For other sizes we repeat it, or cut it; tokens stay tokens then. The smallest size that we
# run is 2, because a size of 1 is a special case in too many places. And for other numbers we shuffle integers, and
# draw floats anew, around the same mean or its opposite, so that both sides of a branch have a chance.


def at_size(array: np.ndarray, dynamic: Mapping[int, str], sizes: Mapping[str, int]) -> np.ndarray:
    """The array with its dynamic dimensions in these sizes, its numbers repeated or cut off."""
    for dim, name in dynamic.items():
        array = np.take(array, np.arange(sizes[name]) % max(array.shape[dim], 1), dim)
    return array


def other_numbers(array: np.ndarray, seed: int) -> np.ndarray:
    """Numbers of the same shape and kind."""
    random = np.random.default_rng(seed)
    if array.dtype.kind == "f" and array.size and np.isfinite(array).all():
        centre = array.mean() * (-1) ** seed
        return np.asarray(random.normal(size=array.shape) * (array.std() or 1) + centre, array.dtype)
    return random.permuted(array.reshape(-1)).reshape(array.shape)


# Together, the runs and their traces are the whole tracing.


def traces_of(
    function: Callable, example: Mapping[str, np.ndarray], dynamic: Mapping[str, Mapping[int, str]],
    state: Mapping[str, Tensor],
) -> tuple[list[dict[str, int]], list[Trace]]:
    """Run a function on an example several times: the sizes of the runs, and their traces. `dynamic` gives names to
    dimensions of inputs. Raises ValueError for dimensions of one name with different sizes, and where a run fails."""
    runs = runs_of(_sizes_of(example, dynamic))
    runs = [runs[0]] * (REPEATS - 1) + runs
    traces = []
    for number, sizes in enumerate(runs):
        inputs = {name: at_size(array, dynamic.get(name, {}), sizes) for name, array in example.items()}
        inputs = {name: other_numbers(array, number) for name, array in inputs.items()} if number else inputs
        try:
            traces.append(traced(function, {name: from_numpy(array.copy()) for name, array in inputs.items()}, state))
        except (ValueError, IndexError) as error:
            raise ValueError(f"the model fails in a run with {sizes or 'other numbers'}: {error}") from error
    return runs, traces


def _sizes_of(example, dynamic) -> dict[str, int]:
    """The dynamic sizes of an example, each at least 2."""
    sizes: dict[str, int] = {}
    for name, dims in dynamic.items():
        if name not in example:
            raise ValueError(f"dynamic names the input {name!r}, and the inputs are {', '.join(example)}")
        for dim, size in dims.items():
            if not 0 <= dim < example[name].ndim:
                raise ValueError(f"{name} has no dimension {dim}: its shape is {example[name].shape}")
            found = example[name].shape[dim]
            if sizes.setdefault(size, found) != found:
                raise ValueError(f"{size} is {sizes[size]} and {found}: dimensions of one name must have one size")
    return {name: max(size, 2) for name, size in sizes.items()}


# A mean over a dynamic length divides by that length, which is a constant in the trace. And what leaves the door is
# refused.


def check_merged():
    def model(x):
        return (x * from_numpy(np.arange(float(x.shape[1])))).mean(1).reshape(1, -1)

    program = merged(*traces_of(model, {"x": np.ones((2, 3))}, {"x": {0: "batch", 1: "length"}}, {}))
    assert [str(n) for n in program.values[program.outputs[0]].shape] == ["1", "batch"]
    try:
        merged(*traces_of(lambda x: x * float(x.sum().item()), {"x": np.ones((2, 3))}, {}, {}))
    except ValueError as error:
        assert "mul" in str(error) and "numbers of the input" in str(error)


__all__ = [
    "Band", "Call", "Known", "Program", "Ramp", "Same", "Size", "Trace", "at_size", "band", "fitted", "merged",
    "other_numbers", "ramp", "runs_of", "traced", "traces_of",
]
