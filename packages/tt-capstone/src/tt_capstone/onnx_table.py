# # The table of translations
#
# The second part of the appendix *ONNX*. Here is a table with one row for each primitive, as in the table of rules of
# chapter 07. A row says which nodes of an ONNX graph compute the same.

# ## A graph to write into
#
# A graph holds nodes. A node has an operation, the names of its inputs and outputs, and attributes. All sizes that are
# not constant are computed from the shapes of the inputs, by nodes as well.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

import tt_tensor as tt
from tt_capstone.onnx_trace import Band, Ramp, Size
from tt_opt import BLOCKS, FORMATS, ROW
from tt_opt.precision import block_by_block, one_by_one

OPSET, IR_VERSION = 21, 10  # the first opset with integers of 4 bits, and with blocks that have a scale each
FLOAT, INT8, BFLOAT16, UINT4, INT4 = 1, 3, 16, 21, 22
CODES = {np.dtype(name): code for name, code in {
    "float32": FLOAT, "uint8": 2, "int8": INT8, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9,
    "float16": 10, "float64": 11, "uint32": 12, "uint64": 13,
}.items()}  # fmt: skip
F, I64, TRUTH = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.bool_)
FAR = np.iinfo(np.int64).max  # a slice may end beyond the last element


# Three things pass between the rows of the table and the graph.


class Value(NamedTuple):
    """A tensor as a row of the table sees it: its name in the graph, its shape and dtype, and its content if known."""

    name: str
    shape: tuple[int | Size, ...]
    dtype: np.dtype
    content: Any = None

    @property
    def ndim(self) -> int:
        return len(self.shape)


class Node(NamedTuple):
    """An operation with the names of inputs and outputs; an input that is absent is ''."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class Packed(NamedTuple):
    """An initializer that NumPy has no dtype for: the code of its type, its shape, and its bytes."""

    code: int
    shape: tuple[int, ...]
    data: bytes


class Untranslatable(Exception):
    """Why a primitive cannot be said in ONNX."""


# We make everything only once: if a row asks for the same constant, size or node again, we find it by its content. So
# the mask that each layer of a GPT makes for itself is in the graph a single time. (The inputs and attributes of a node
# determine its output, because no node draws random numbers.)


class Graph:
    """Nodes, constants and initializers, with readable names. `scope` is the part of the model that is being written;
    `symbols` says from which dimension of which input a dynamic size can be read."""

    def __init__(self, symbols: Mapping[str, tuple[str, int]], taken: tuple[str, ...] = ()):
        self.symbols, self.scope = symbols, ""
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.initializers: dict[str, np.ndarray | Packed] = {}
        self.found: dict[Any, Any] = {}
        self.names = {*taken}

    def unused(self, name: str) -> str:
        """The name, with a number behind it if it is taken."""
        number, found = 2, name
        while found in self.names:
            found, number = f"{name}_{number}", number + 1
        self.names.add(found)
        return found

    # A node without a parameter of the model is named after its operation alone.

    def add(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attributes) -> Any:
        """The output of a new node, or of an equal one: a name, or a tuple of names if there are several."""
        key = op, inputs, outputs, repr(sorted(attributes.items()))
        if key not in self.found:
            name = name or f"{self.scope}/{op}".lstrip("/")
            made = tuple(self.unused(name) for _ in range(outputs))
            self.nodes.append(Node(op, inputs, made, attributes))
            self.found[key] = made if outputs > 1 else made[0]
        return self.found[key]

    def constant(self, value, dtype=None) -> str:
        """The name of a constant."""
        array = np.asarray(value, dtype)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self.found:
            plain = array.size == 1 and array.dtype.kind in "if"
            self.found[key] = name = self.unused(f"constant/{array.item():.6g}" if plain else "constant")
            self.constants[name] = array
        return self.found[key]

    def initializer(self, name: str, value: np.ndarray | Packed) -> str:
        """The name of an initializer: numbers that belong to the model."""
        if name not in self.initializers:
            self.names.add(name)
            self.initializers[name] = value
        return name

    # A dynamic size is a vector of one integer, and a shape is a vector of as many as it has dimensions.

    def size(self, size: int | Size) -> str:
        """The name of a vector with this one integer."""
        if not isinstance(size, Size):
            return self.constant([size], I64)
        parts = []
        for names, k in size.terms:
            factors = [self.symbol(name) for name in names] + [self.constant([k], I64)] * (k != 1 or not names)
            parts.append(self.chain("Mul", factors, str(Size(((names, k),)))))
        return self.chain("Add", parts, str(size))

    def symbol(self, name: str) -> str:
        """The name of a dynamic size, read from the shape of an input."""
        source, dim = self.symbols[name]
        return self.add("Shape", source, name=f"size/{name}", start=dim, end=dim + 1)

    def chain(self, op: str, names: list[str], called: str) -> str:
        """The sum or product of all."""
        total = names[0]
        for name in names[1:]:
            total = self.add(op, total, name, name=f"size/{called}")
        return total

    def sizes(self, shape) -> str:
        """The name of a vector with the sizes."""
        if not any(isinstance(n, Size) for n in shape):
            return self.constant(np.array(shape, I64))
        parts = [self.size(n) for n in shape]
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0, name="size/shape")

    def scalar(self, size: int | Size) -> str:
        """The size as a tensor without dimensions."""
        return self.reshaped(self.size(size), ()) if isinstance(size, Size) else self.constant(size, I64)

    # What nearly all rows need: another dtype, another shape, a part.

    def cast(self, x: Value | str, dtype, given=None) -> str:
        """x as another dtype, x itself if it has that."""
        name, given = (x.name, x.dtype) if isinstance(x, Value) else (x, given)
        return name if given == dtype else self.add("Cast", name, to=CODES[np.dtype(dtype)])

    def reshaped(self, name: str, shape) -> str:
        """The same numbers in another shape, which may have sizes of 0."""
        positive = all(not isinstance(n, Size) and n > 0 for n in shape)
        attributes: dict[str, Any] = {} if positive else {"allowzero": 1}
        return self.add("Reshape", name, self.sizes(shape), **attributes)

    def transposed(self, name: str, dims) -> str:
        """The dimensions in another order."""
        dims = [int(d) for d in dims]
        return name if dims == [*range(len(dims))] else self.add("Transpose", name, perm=dims)

    def sliced(self, name: str, starts, ends, axes, steps=None) -> str:
        """A slice along each of the axes."""
        parts = [self.sizes(starts), self.sizes(ends), self.constant(axes, I64)]
        return self.add("Slice", name, *parts, *([self.constant(steps, I64)] if steps else []))

    def filled(self, shape, value, dtype) -> str:
        """A tensor with the same number everywhere."""
        return self.add("Expand", self.constant(value, dtype), self.sizes(shape))

    def counted(self, size: int | Size) -> str:
        """The integers from 0 to size - 1."""
        return self.add("Range", self.constant(0, I64), self.scalar(size), self.constant(1, I64), name="size/indices")


# The arrays that depend on sizes, ramps and bands, become nodes by their formulas.


def ramp_nodes(g: Graph, ramp: Ramp) -> str:
    """The nodes that compute a ramp; its name."""
    ndim, wide = len(ramp.shape), np.dtype(np.int64 if ramp.dtype.kind in "iub" else np.float64)
    parts = []
    for names, array in ramp.start.items():
        k = g.constant(array, wide)
        parts.append(g.add("Mul", g.cast(g.scalar(Size(((names, 1),))), wide, I64), k) if names else k)
    for dim, slope in ramp.slopes.items():
        index = g.reshaped(g.counted(ramp.shape[dim]), [ramp.shape[dim] if d == dim else 1 for d in range(ndim)])
        parts.append(g.add("Mul", g.cast(index, wide, I64), g.constant(slope, wide)))
    total = parts[0] if parts else g.filled(ramp.shape, 0, wide)
    for part in parts[1:]:
        total = g.add("Add", total, part)
    return g.cast(total, ramp.dtype, wide)


def band_nodes(g: Graph, band: Band) -> str:
    """The nodes that compute a band; its name."""
    rows, columns = (g.counted(n) for n in band.shape[-2:])
    back = g.add("Sub", g.reshaped(rows, (band.shape[-2], 1)), columns)
    inside = [g.add(op, back, g.size(bound)) for op, bound in
              (("GreaterOrEqual", band.least), ("LessOrEqual", band.most)) if bound is not None]  # fmt: skip
    mask = inside[0] if len(inside) == 1 else g.add("And", *inside)
    if band.dtype != TRUTH:
        mask = g.add("Where", mask, *(g.constant(v, band.dtype) for v in (band.inside, band.outside)))
    return mask if len(band.shape) == 2 else g.reshaped(mask, band.shape)


# ## The rows
#
# A row is a function of the graph, the result (a value without a name, from which we take shape and dtype), the
# operands, and the parameters of the primitive. It returns the name of the result.

TABLE: dict[str, Callable[..., str]] = {}


def translation(*primitives: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Decorator: enter a function as the row of these primitives."""

    def enter(row):
        TABLE.update(dict.fromkeys(primitives, row))
        return row

    return enter


def named(op: str, *, floats: bool = False, of_bool: str = "") -> Callable[..., str]:
    """The row of a primitive that ONNX has under another name: its operands are cast to floats, if need be, and truth
    values may have another operation."""

    def row(g, out, *operands):
        dtype = operands[0].dtype
        if dtype == TRUTH and of_bool:
            return g.add(of_bool, *(x.name for x in operands))
        if floats and dtype.kind != "f":
            return g.add(op, *(g.cast(x, F) for x in operands))
        return g.add(op, *(x.name for x in operands))

    return row


# Many primitives have a namesake.

FLOATING = {
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos", "tanh": "Tanh", "erf": "Erf",
    "sigmoid": "Sigmoid", "div": "Div", "softsign": "Softsign", "tan": "Tan", "asin": "Asin", "acos": "Acos",
    "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh",
}  # fmt: skip
TABLE |= {primitive: named(op, floats=True) for primitive, op in FLOATING.items()}
TABLE |= {
    "neg": named("Neg"), "abs": named("Abs", of_bool="Identity"), "sign": named("Sign", of_bool="Identity"),
    "copied": named("Identity"), "add": named("Add", of_bool="Or"), "sub": named("Sub"),
    "mul": named("Mul", of_bool="And"), "maximum": named("Max", of_bool="Or"), "minimum": named("Min", of_bool="And"),
    "power_of": named("Pow"), "matmul": named("MatMul"), "choose": named("Where"), "weighted": named("MatMul"),
}  # fmt: skip


@translation("cast")
def _cast(g, out, x, dtype):
    return g.cast(x, out.dtype)


# We need not round an integer.


def rounding_row(op):
    """The row of a way to round."""
    return lambda g, out, x: g.add(op if x.dtype.kind == "f" else "Identity", x.name)


TABLE |= {"floor": rounding_row("Floor"), "ceil": rounding_row("Ceil"), "round": rounding_row("Round")}


@translation("power")
def _power(g, out, x, exponent):
    base, exact = g.cast(x, out.dtype), {2: ("Mul", 2), 0.5: ("Sqrt", 1), -1: ("Reciprocal", 1), 1: ("Identity", 1)}
    if exponent in exact and out.dtype.kind == "f":
        op, times = exact[exponent]
        return g.add(op, *[base] * times)
    return g.add("Pow", base, g.constant(exponent, out.dtype))


# Division of integers rounds towards 0 in ONNX, and ours rounds down. The remainder of integers has the sign of the
# divisor in both; that of floats has it in ours only.


@translation("remainder")
def _remainder(g, out, x, y):
    if x.dtype.kind != "f":
        return g.add("Mod", x.name, y.name)
    rest = g.add("Mod", x.name, y.name, fmod=1)
    zero = g.constant(0, x.dtype)
    signs = (g.add("Less", name, zero) for name in (rest, y.name))
    wrong = g.add("And", g.add("Xor", *signs), g.add("Not", g.add("Equal", rest, zero)))
    return g.add("Where", wrong, g.add("Add", rest, y.name), rest)


@translation("floor_divide")
def _floor_divide(g, out, x, y):
    quotient = g.add("Div", g.add("Sub", x.name, _remainder(g, out, x, y)), y.name)
    return g.add("Round", quotient) if x.dtype.kind == "f" else quotient


# Comparisons and logic. Truth values are compared as integers.


def comparing(op, negated=False):
    """The row of a comparison."""

    def row(g, out, x, y):
        wide = F if "f" in (x.dtype.kind, y.dtype.kind) else I64
        same = x.dtype == y.dtype and (x.dtype != TRUTH or op == "Equal")
        found = g.add(op, *([x.name, y.name] if same else [g.cast(v, wide) for v in (x, y)]))
        return g.add("Not", found) if negated else found

    return row


TABLE |= {
    "eq": comparing("Equal"), "ne": comparing("Equal", negated=True), "lt": comparing("Less"),
    "le": comparing("LessOrEqual"), "gt": comparing("Greater"), "ge": comparing("GreaterOrEqual"),
}  # fmt: skip


def logical(op):
    """The row of an operation on truth values, and on what is true or not."""
    return lambda g, out, *operands: g.add(op, *(g.cast(x, TRUTH) for x in operands))


TABLE |= {f"logical_{name.lower()}": logical(name) for name in ("And", "Or", "Not")}
TABLE |= {f"bitwise_{name.lower()}": named(f"Bitwise{name}", of_bool=name) for name in ("And", "Or", "Xor", "Not")}


# Only a float can be infinite or nan.


def _odd(g, x):
    if x.dtype.kind != "f":
        no = g.filled(x.shape, False, TRUTH)
        return no, no
    return g.add("IsNaN", x.name), g.add("IsInf", x.name)


TABLE |= {
    "isnan": lambda g, out, x: _odd(g, x)[0], "isinf": lambda g, out, x: _odd(g, x)[1],
    "isfinite": lambda g, out, x: g.add("Not", g.add("Or", *_odd(g, x))),
}  # fmt: skip


# An absent bound is an absent input.


@translation("clip")
def _clip(g, out, x, min=None, max=None):
    bounds = ["" if bound is None else g.constant(bound, out.dtype) for bound in (min, max)]
    return g.add("Clip", g.cast(x, out.dtype), *bounds)


# ## Activations


@translation("relu")
def _relu(g, out, x):
    return g.add("Relu", x.name) if x.dtype.kind == "f" else g.add("Max", x.name, g.constant(0, x.dtype))


@translation("leaky_relu")
def _leaky_relu(g, out, x, negative_slope=0.01):
    return g.add("LeakyRelu", g.cast(x, out.dtype), alpha=float(negative_slope))


@translation("elu")
def _elu(g, out, x, alpha=1.0):
    return g.add("Elu", g.cast(x, out.dtype), alpha=float(alpha))


@translation("softplus")
def _softplus(g, out, x, beta=1.0):
    scale = g.constant(beta, out.dtype)
    return g.add("Div", g.add("Softplus", g.add("Mul", g.cast(x, out.dtype), scale)), scale)


@translation("gelu")
def _gelu(g, out, x, approximate="none"):
    return g.add("Gelu", g.cast(x, out.dtype), approximate=approximate)


# A tensor without dimensions gets one for the time.


def soft(op):
    """The row of softmax, or of its logarithm."""

    def row(g, out, x, dim):
        if not x.ndim:
            return g.reshaped(g.add(op, g.reshaped(g.cast(x, out.dtype), (1,)), axis=0), ())
        return g.add(op, g.cast(x, out.dtype), axis=int(dim))

    return row


TABLE |= {"softmax": soft("Softmax"), "log_softmax": soft("LogSoftmax")}

# ## Reductions
#
# ONNX takes the dimensions as an input. Over none, ours takes all.


def dims_of(x: Value, dim) -> list[int]:
    """The dimensions to reduce, counted from the front."""
    given = range(x.ndim) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    return sorted(int(d) % max(x.ndim, 1) for d in given)


def reduced(g, op, name, x, dim, keepdim) -> str:
    """x, under this name, reduced by an operation of ONNX."""
    dims = dims_of(x, dim)
    if not x.ndim or not dims:
        return name
    return g.add(op, name, g.constant(dims, I64), keepdims=int(keepdim))


def reducing(op):
    """The row of a reduction."""

    def row(g, out, x, dim=None, keepdim=False):
        if out.dtype == TRUTH:
            return g.cast(reduced(g, op, g.cast(x, np.int32), x, dim, keepdim), TRUTH, I64)
        return reduced(g, op, g.cast(x, out.dtype), x, dim, keepdim)

    return row


TABLE |= {"sum": reducing("ReduceSum"), "prod": reducing("ReduceProd")}
TABLE |= {"amax": reducing("ReduceMax"), "amin": reducing("ReduceMin")}


# For truth values, count.


@translation("any")
def _any(g, out, x, dim=None, keepdim=False):
    count = reduced(g, "ReduceSum", g.cast(g.cast(x, TRUTH), I64, TRUTH), x, dim, keepdim)
    return g.add("Greater", count, g.constant(0, I64))


@translation("all")
def _all(g, out, x, dim=None, keepdim=False):
    wrong = g.cast(g.add("Not", g.cast(x, TRUTH)), I64, TRUTH)
    return g.add("Equal", reduced(g, "ReduceSum", wrong, x, dim, keepdim), g.constant(0, I64))


def extreme_position(op):
    """The row of argmax or argmin."""

    def row(g, out, x, dim=None, keepdim=False):
        name = g.cast(x, F if x.dtype == TRUTH else x.dtype)
        if dim is None or not x.ndim:
            return g.reshaped(g.add(op, g.reshaped(name, (-1,)), axis=0, keepdims=0), out.shape)
        return g.add(op, name, axis=int(dim), keepdims=int(keepdim))

    return row


TABLE |= {"argmax": extreme_position("ArgMax"), "argmin": extreme_position("ArgMin")}


@translation("cumsum")
def _cumsum(g, out, x, dim):
    name = g.cast(x, out.dtype)
    return g.add("CumSum", name, g.constant(dim, I64)) if x.ndim else name


# Positions in order: `TopK`, which takes the lower index first among equals, as ours do.


@translation("argsort_ascending", "largest_first")
def _ordered(g, out, x, dim=-1, k=None):
    if not x.ndim:
        return g.constant(0, I64)
    count, largest = (x.shape[dim], 0) if k is None else (k, 1)
    return g.add("TopK", x.name, g.size(count), outputs=2, axis=int(dim), largest=largest, sorted=1)[1]


# ## Shapes
#
# A result has a shape whose formulas we know, so all that reshapes is the same row.


@translation("reshape")
def _reshape(g, out, x, shape):
    return g.reshaped(x.name, out.shape) if x.shape != out.shape else x.name


@translation("expand")
def _expand(g, out, x, shape):
    return g.add("Expand", x.name, g.sizes(out.shape))


@translation("permute")
def _permute(g, out, x, dims):
    return g.transposed(x.name, [d % max(x.ndim, 1) for d in dims])


@translation("concat")
def _concat(g, out, *tensors, dim=0):
    return g.add("Concat", *(g.cast(x, out.dtype) for x in tensors), axis=int(dim))


@translation("flip")
def _flip(g, out, x, dim):
    dims = dims_of(x, dim) if x.ndim else []
    count = len(dims)
    return g.sliced(x.name, [-1] * count, [-FAR] * count, dims, [-1] * count) if dims else x.name


def triangle(upper):
    """The row of a triangle."""
    return lambda g, out, x, diagonal=0: g.add("Trilu", x.name, g.constant(diagonal, I64), upper=upper)


TABLE |= {"triu": triangle(1), "tril": triangle(0)}

# ## Picking
#
# `getitem` takes everything that NumPy takes: numbers, slices, `...`, `None` and arrays. First we make a list of the
# parts, one for each dimension of x or new dimension. An array is a `Value` here; a mask is replaced by the positions
# where it is true, which must be known.


def index_parts(g, index, ndim: int) -> list:
    """The parts of an index, with slices for the dimensions that it does not mention."""
    parts: list = []
    for part in index if isinstance(index, tuple) and not isinstance(index, Value | Size) else (index,):
        if isinstance(part, np.ndarray) and part.dtype == TRUTH:
            parts += [Value(g.constant(array, I64), array.shape, I64, array) for array in np.nonzero(part)]
        elif isinstance(part, np.ndarray):
            array = part.astype(np.int64)
            parts.append(Value(g.constant(array), array.shape, I64, array))
        elif isinstance(part, Value) and part.dtype == TRUTH:
            raise Untranslatable("a mask that is computed selects a number of elements that no formula can tell")
        else:
            parts.append(part)
    used = sum(part is not None and part is not ... for part in parts)
    rest = [slice(None)] * (ndim - used)
    at = next((i for i, part in enumerate(parts) if part is ...), None)
    return [*parts, *rest] if at is None else [*parts[:at], *rest, *parts[at + 1 :]]


# Slices come first, all in one node. A number is a slice of one element, whose dimension the last reshape removes.


@translation("getitem")
def _getitem(g, out, x, index):
    parts = index_parts(g, index, x.ndim)
    arrays = any(isinstance(part, Value) for part in parts)
    name, bounds, dim = x.name, [], 0
    for part in parts:
        if isinstance(part, slice) and part != slice(None):
            step = 1 if part.step is None else part.step
            start, end = (0, FAR) if step > 0 else (FAR, -FAR)
            bounds.append((start if part.start is None else part.start, end if part.stop is None else part.stop,
                           dim, step))  # fmt: skip
        elif isinstance(part, int | np.integer | Size) and not arrays:
            bounds.append((part, _next(part), dim, 1))
        dim += part is not None
    if bounds:
        starts, ends, axes, steps = map(list, zip(*bounds))
        name = g.sliced(name, starts, ends, axes, steps if set(steps) != {1} else None)
    return _picked(g, out, name, x, parts) if arrays else g.reshaped(name, out.shape)


# The end of a slice of one element. After the last one, -1, there is no 0.


def _next(size):
    if isinstance(size, Size):
        terms = dict(size.terms)
        return Size(tuple((terms | {(): terms.get((), 0) + 1}).items()))
    return FAR if size == -1 else size + 1


# Then the arrays. The dimensions that they index go to the front, and one node gathers. What was picked belongs where
# the first array stood, or to the front, if a slice stood between two arrays.


def _picked(g, out, name, x, parts) -> str:
    given = [part for part in parts if part is not None]
    indexed = [d for d, part in enumerate(given) if not isinstance(part, slice)]
    kept = [d for d in range(x.ndim) if d not in indexed]
    name = g.transposed(name, indexed + kept)
    found = [g.cast(p, I64) if isinstance(p, Value) else g.scalar(p) for p in (given[d] for d in indexed)]
    shapes = [p.shape if isinstance(p, Value) else () for p in (given[d] for d in indexed)]
    width = max(map(len, shapes))
    if len(found) == 1:
        name = g.add("Gather", name, found[0], axis=0)
    else:
        shape = g.sizes(_broadcast(shapes))
        columns = [g.add("Expand", index, shape) for index in found]
        columns = [g.reshaped(column, (*_broadcast(shapes), 1)) for column in columns]
        name = g.add("GatherND", name, g.add("Concat", *columns, axis=-1))
    # Where does the result belong?
    places = [i for i, part in enumerate(parts) if part is not None and not isinstance(part, slice)]
    together = places[-1] - places[0] + 1 == len(places)
    before = sum(isinstance(part, slice) for part in parts[: places[0]]) if together else 0
    dims = [*range(width, width + before), *range(width), *range(width + before, width + len(kept))]
    return g.reshaped(g.transposed(name, dims), out.shape)


def _broadcast(shapes):
    columns = [[s[-k] for s in shapes if len(s) >= k] for k in range(max(map(len, shapes)), 0, -1)]
    return tuple(next((n for n in column if n != 1), 1) for column in columns)


# The opposite, `place`. Where slices point, zeros go around the numbers. Elsewhere the numbers are added at positions
# that must be known.


@translation("place")
def _place(g, out, values, index, shape):
    parts = index_parts(g, index, len(shape))
    plain = all(isinstance(p, slice) and p.step in (None, 1) and isinstance(p.start or 0, int) for p in parts)
    sides = [(n, p.start or 0, own) for n, p, own in zip(shape, parts, values.shape)] if plain else []
    if plain and all(start >= 0 and (isinstance(n, Size) or start <= n - own) for n, start, own in sides):
        pads = [g.constant([start for _, start, _ in sides], I64), *(_behind(g, *side) for side in sides)]
        return g.add("Pad", values.name, g.add("Concat", *pads, axis=0), g.constant(0, values.dtype))
    if any(isinstance(n, Size) for n in (*shape, *values.shape)) or any(isinstance(p, Value) and p.content is None
                                                                         for p in parts):  # fmt: skip
        raise Untranslatable("it places numbers where positions or sizes are not known in advance")
    positions = np.arange(math.prod(shape)).reshape(shape)[index]
    zeros, flat = g.filled((math.prod(shape),), 0, values.dtype), g.reshaped(values.name, (positions.size,))
    put = g.add("ScatterElements", zeros, g.constant(positions.reshape(-1), I64), flat, axis=0, reduction="add")
    return g.reshaped(put, shape)


def _behind(g, n, start, own):
    """How many zeros come behind `own` numbers that begin at `start`, if there are n in all."""
    if n == own and not start:
        return g.constant([0], I64)
    return g.add("Sub", g.size(n), g.add("Add", g.size(own), g.constant([start], I64)))


# Picking along one dimension, and adding along it.


@translation("take_along")
def _take_along(g, out, x, index, dim):
    index, dim = as_value(g, index), int(dim) % x.ndim
    shape = [n if d == dim else size for d, (n, size) in enumerate(zip(index.shape, x.shape))]
    name = index.name if tuple(shape) == index.shape else g.add("Expand", index.name, g.sizes(shape))
    return g.add("GatherElements", x.name, g.cast(name, I64, index.dtype), axis=dim)


@translation("place_along")
def _place_along(g, out, values, index, dim, shape):
    zeros, index = g.filled(shape, 0, values.dtype), as_value(g, index)
    where = g.cast(index.name, I64, index.dtype)
    return g.add("ScatterElements", zeros, where, values.name, axis=int(dim), reduction="add")


def as_value(g, index) -> Value:
    """An array that is a parameter, as a value."""
    if isinstance(index, Value):
        return index
    return Value(g.constant(index), index.shape, index.dtype, index)


# ## Layers
#
# A linear layer on a matrix is one node, `Gemm`, which can transpose the weight. The initializer keeps the shape that
# it has in our state.


@translation("affine")
def _affine(g, out, x, weight, bias):
    if x.ndim == 2:
        return g.add("Gemm", x.name, weight.name, bias.name, transB=1)
    return g.add("Add", g.add("MatMul", x.name, g.transposed(weight.name, (1, 0))), bias.name)


@translation("embedding")
def _embedding(g, out, ids, weight, padding_idx=None):
    return g.add("Gather", weight.name, g.cast(ids, I64), axis=0)


@translation("normalize_scaled")
def _normalize_scaled(g, out, x, weight, bias, eps):
    return g.add("LayerNormalization", x.name, weight.name, bias.name, axis=-1, epsilon=float(eps))


@translation("normalize_rows")
def _normalize_rows(g, out, x, eps):
    ones = g.filled(x.shape[-1:], 1, x.dtype)
    return g.add("LayerNormalization", x.name, ones, axis=-1, epsilon=float(eps))


# Images. ONNX has paddings for the beginning and the end of each dimension.


def around(padding) -> list[int]:
    """A padding at both ends."""
    return [*map(int, padding), *map(int, padding)]


def numbers(*pairs) -> list[list[int]]:
    """Pairs as lists of Python's integers."""
    return [[*map(int, pair)] for pair in pairs]


@translation("convolution")
def _convolution(g, out, x, weight, *bias, stride, padding, dilation, groups):
    strides, dilations = numbers(stride, dilation)
    return g.add("Conv", x.name, weight.name, *(b.name for b in bias), strides=strides, pads=around(padding),
                 dilations=dilations, group=int(groups))  # fmt: skip


# Our transposed convolution gets the size of its result as an argument. ONNX needs to know by how much that is larger
# than the smallest possible one.


@translation("transposed_convolution")
def _transposed_convolution(g, out, x, weight, size, stride, padding, dilation, groups):
    if any(isinstance(n, Size) for n in (*size, *x.shape[2:])):
        raise Untranslatable("the size of its images is dynamic")
    kernel, (strides, dilations) = weight.shape[2:], numbers(stride, dilation)
    least = [s * (n - 1) + d * (k - 1) + 1 - 2 * p
             for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation)]  # fmt: skip
    more = [int(n - m) for n, m in zip(size, least)]
    return g.add("ConvTranspose", x.name, weight.name, strides=strides, pads=around(padding), dilations=dilations,
                 output_padding=more, group=int(groups))  # fmt: skip


# Pooling is the same in both.


@translation("max_pool")
def _max_pool(g, out, x, size, stride, padding, dilation):
    kernel, strides, dilations = numbers(size, stride, dilation)
    return g.add("MaxPool", g.cast(x, out.dtype), kernel_shape=kernel, strides=strides, pads=around(padding),
                 dilations=dilations)  # fmt: skip


@translation("avg_pool")
def _avg_pool(g, out, x, size, stride, padding, count_include_pad):
    kernel, strides = numbers(size, stride)
    return g.add("AveragePool", x.name, kernel_shape=kernel, strides=strides, pads=around(padding),
                 count_include_pad=int(count_include_pad))  # fmt: skip


# Means over windows of unequal sizes are a product with a matrix from the left and one from the right. To resize images
# is a mixture of two rows, and then of two columns.


@translation("spans_mean")
def _spans_mean(g, out, x, size):
    if any(isinstance(n, Size) for n in (*size, *x.shape[-2:])):
        raise Untranslatable("the size of its images is dynamic")
    left, right = (_means(n, m, x.dtype) for n, m in zip(x.shape[-2:], size))
    return g.add("MatMul", g.add("MatMul", g.constant(left), x.name), g.constant(right.T.copy()))


def _means(n: int, m: int, dtype) -> np.ndarray:
    """The matrix (m, n) whose i-th row is the mean over the i-th window."""
    starts, stops = np.arange(m) * n // m, -(-(np.arange(m) + 1) * n // m)
    inside = (np.arange(n) >= starts[:, None]) & (np.arange(n) < stops[:, None])
    return (inside / (stops - starts)[:, None]).astype(dtype)


@translation("mix")
def _mix(g, out, x, dim, low, weight):
    if not isinstance(low, np.ndarray) or isinstance(x.shape[dim], Size):
        raise Untranslatable("the size of its images is dynamic")
    share = weight.reshape([-1 if d == dim else 1 for d in range(x.ndim)]).astype(x.dtype)
    high = np.minimum(low + 1, x.shape[dim] - 1)
    rows = [g.add("Gather", x.name, g.constant(index, I64), axis=int(dim)) for index in (low, high)]
    parts = [g.add("Mul", row, g.constant(k)) for row, k in zip(rows, ((1 - share).astype(x.dtype), share))]
    return g.add("Add", *parts)


# ## Attention
#
# Chapter 13 computes it in blocks, in order to save memory; a graph says what is computed, and leaves the how to the
# program that runs it.


def attention(g, q: str, k: str, v: str, scale, hidden: str, ndim: int, dtype) -> str:
    """softmax(scale * q @ k.mT) @ v, without the keys where `hidden`, if it is given, is true."""
    last = [*range(ndim - 2), ndim - 1, ndim - 2]
    scores = g.add("MatMul", g.add("Mul", q, g.constant(scale, dtype)), g.transposed(k, last))
    if hidden:
        scores = g.add("Where", hidden, g.constant(-np.inf, dtype), scores)
    return g.add("MatMul", g.add("Softmax", scores, axis=-1), v)


def ahead(g, queries, keys, before=None) -> str:
    """Where a key comes after its query, (queries, keys): `before` is the number of keys before the first query."""
    rows = g.reshaped(g.counted(queries), (queries, 1))
    rows = rows if before is None else g.add("Add", rows, before)
    return g.add("Less", rows, g.counted(keys))


@translation("attention_in_blocks")
def _attention_in_blocks(g, out, qkv, is_causal, scale):
    shape = qkv.shape[1:]
    parts = g.add("Split", qkv.name, outputs=3, axis=0, num_outputs=3)
    q, k, v = (g.reshaped(part, shape) for part in parts)
    hidden = ahead(g, shape[-2], shape[-2]) if is_causal else ""
    return attention(g, q, k, v, scale, hidden, len(shape), qkv.dtype)


# For queries that look back at a cache of chapter 16, we put the heads of queries that share a head of keys below each
# other.


@translation("look_back")
def _look_back(g, out, q, keys, values, window=None):
    (T, H, D), (n, G, _) = q.shape, keys.shape
    grouped = g.reshaped(g.transposed(q.name, (1, 0, 2)), (G, H // G, T, D))
    k, v = (g.reshaped(g.transposed(x.name, (1, 0, 2)), (G, 1, n, D)) for x in (keys, values))
    before = g.add("Sub", g.size(n), g.size(T))
    hidden = ahead(g, T, n, before)
    if window is not None:
        rows = g.add("Add", g.reshaped(g.counted(T), (T, 1)), before)
        back = g.add("Sub", rows, g.counted(n))
        hidden = g.add("Or", hidden, g.add("GreaterOrEqual", back, g.constant(window, I64)))
    found = attention(g, grouped, k, v, D**-0.5, hidden, 4, q.dtype)
    return g.transposed(g.reshaped(found, (H, T, D)), (1, 0, 2))


# Rotary positions turn pairs. Their angles are computed in `float64`, as ours are: at position 10,000 a `float32` has
# lost three digits of the angle.


@translation("rotate_pairs")
def _turned_pairs(g, out, x, angles, interleaved):
    half = x.shape[-1] // 2
    if isinstance(angles, Value):  # they depend on a size
        cos, sin = (g.cast(g.add(op, angles.name), x.dtype, angles.dtype) for op in ("Cos", "Sin"))
    else:
        cos, sin = (g.constant(f(angles), x.dtype) for f in (np.cos, np.sin))
    first, second = (0, 1) if interleaved else (0, half)
    stop, step = (FAR, 2) if interleaved else (None, 1)
    a, b = (g.sliced(x.name, [start], [stop or start + half], [x.ndim - 1], [step]) for start in (first, second))
    turned = [g.add("Sub", g.add("Mul", a, cos), g.add("Mul", b, sin)),
              g.add("Add", g.add("Mul", a, sin), g.add("Mul", b, cos))]  # fmt: skip
    if not interleaved:
        return g.add("Concat", *turned, axis=-1)
    columns = [g.reshaped(part, (*x.shape[:-1], half, 1)) for part in turned]
    return g.reshaped(g.add("Concat", *columns, axis=-1), out.shape)


# ## Numbers that stay small
#
# How do other programs express *quantization*? The initializer holds small integers, and a node `DequantizeLinear`
# behind it turns them into floats: each minus a zero point, times a scale. A pair of `QuantizeLinear` and
# `DequantizeLinear` says that numbers were rounded, which is why this form is called *QDQ*. The weights are rounded
# already, so ours has the second half only. It is a promise about the meaning; a program that has products of small
# integers may use them.
#
# The formats of chapter 17 fit. A scale belongs to a block, and the node has an attribute for its size: 32, or for
# `int8` a whole row. ONNX packs two numbers of 4 bits into a byte as well, but neighbours, not numbers 16 apart. `q4_0`
# counts from 0 to 15 and subtracts 8, so we do it at once and store integers from -8 to 7. `q4_1` has a minimum, which
# is added behind the node.
#
# Behind that, a reshape joins the blocks. It has a second purpose. Where onnxruntime finds the node directly before a
# product, it takes the promise for a permission, and rounds the other factor to 8 bits, too. That is several times as
# fast, but it is no longer the model that we have measured. (Its option `session.disable_quant_qdq` unpacks all weights
# once, when the file is read: fast and exact, in the memory of `float32`.)


def two_neighbours(q: np.ndarray) -> bytes:
    """Integers as 4 bits each, two in a byte, the first in the lower half."""
    flat = q.reshape(-1).astype(np.uint8) & 15
    return (flat[0::2] | flat[1::2] << 4).tobytes()


# Two formats need no such node: numbers of 16 bits are cast. For the others, the bytes of chapter 17 are taken apart
# into integers, scales and minima.


def dequantized(g: Graph, data: Value, kind: str) -> str:
    """The rows (R, K), float32, that packed bytes hold: nodes behind initializers that are as small as the bytes."""
    if not isinstance(data.content, np.ndarray):
        raise Untranslatable("its packed rows are not part of the model's state")
    if kind not in FORMATS:
        raise Untranslatable(f"its format {kind!r} has no counterpart")
    name, stored = data.name, np.ascontiguousarray(data.content)
    if kind == "float16":
        return g.add("Cast", g.initializer(name, stored.view("<f2")), to=FLOAT)
    if kind == "bfloat16":
        packed = Packed(BFLOAT16, (len(stored), stored.shape[1] // 2), stored.tobytes())
        return g.add("Cast", g.initializer(name, packed), to=FLOAT)
    if kind == "int8":
        scale = np.ascontiguousarray(stored[:, :4]).view("<f4")[:, None]
        return in_blocks(g, name, stored[:, 4:].view(np.int8)[:, None], {"scale": scale})
    blocks = block_by_block(stored, kind)
    fields = {field: np.ascontiguousarray(blocks[part])[..., None]
              for field, part in (("scale", "d"), ("minimum", "m")) if part in (BLOCKS[kind].names or ())}  # fmt: skip
    q: Any = blocks["q"]
    if kind != "q8_0":
        code, zero = (INT4, 8) if kind == "q4_0" else (UINT4, 0)
        q = Packed(code, (*blocks.shape, ROW), two_neighbours(one_by_one(q) - zero))
    return in_blocks(g, name, q, fields)


# The nodes. Scales of 16 bits are cast first, since the node's result has the type of its scale.


def in_blocks(g: Graph, name: str, q: np.ndarray | Packed, fields: Mapping[str, np.ndarray]) -> str:
    """Rows of integers q (R, B, n) times the scales (R, B, 1) plus, if there are any, the minima: (R, B * n)."""
    if isinstance(q, np.ndarray):
        q = np.ascontiguousarray(q)
    rows, count, width = q.shape
    names = {field: g.initializer(f"{name}_{field}", array) for field, array in fields.items()}
    wide = {field: g.cast(names[field], F, array.dtype) for field, array in fields.items()}
    found = g.add("DequantizeLinear", g.initializer(name, q), wide["scale"], axis=2, block_size=width)
    found = g.add("Add", found, wide["minimum"]) if "minimum" in wide else found
    return g.reshaped(found, (rows, count * width))


@translation("packed_product")
def _packed_product(g, out, x, data, kind):
    return g.add("MatMul", x.name, g.transposed(dequantized(g, data, kind), (1, 0)))


# A table of which a few rows are wanted, and filters. (Their primitives belong to the appendix: see *Packed rows* in
# its third part.)


@translation("packed_rows")
def _packed_rows(g, out, ids, data, kind):
    return g.add("Gather", dequantized(g, data, kind), g.cast(ids, I64), axis=0)


@translation("packed_filters")
def _packed_filters(g, out, data, kind, shape):
    return g.reshaped(dequantized(g, data, kind), shape)


# A sparse matrix stays sparse in the file, as the numbers and their positions.


@translation("sparse_product")
def _sparse_product(g, out, x, values, col_indices, crow_indices):
    columns, starts = col_indices.content, crow_indices.content
    if columns is None or starts is None:
        raise Untranslatable("the positions of its numbers are not part of the model's state")
    rows, width = len(starts) - 1, x.shape[-1]
    positions = np.repeat(np.arange(rows), np.diff(starts.astype(np.int64))) * width + columns
    zeros = g.filled((rows * width,), 0, values.dtype)
    full = g.add("ScatterElements", zeros, g.constant(positions, I64), values.name, axis=0)
    return g.add("MatMul", x.name, g.transposed(g.reshaped(full, (rows, width)), (1, 0)))


@translation("fake_quantize")
def _fake_quantize(g, out, x, scale, zero_point=0, low=-127, high=127):
    step, zero = g.constant(scale, x.dtype), g.constant(zero_point, x.dtype)
    points = g.add("Add", g.add("Round", g.add("Div", x.name, step)), zero)
    points = g.add("Clip", points, g.constant(low, x.dtype), g.constant(high, x.dtype))
    return g.add("Mul", g.add("Sub", points, zero), step)


# ## Functions without a namesake
#
# The rarer functions of tt-tensor's appendices are written with those above. A logarithm with another base is a
# quotient. log(1 + x) loses the digits of a small x in the sum; what the sum has lost is put right by a factor (W.
# Kahan, in Hewlett-Packard's *HP-15C Advanced Functions Handbook*, 1982). For exp(x) - 1, tanh knows small numbers.


def scaled_log(base):
    """The row of a logarithm with this base."""
    return lambda g, out, x: g.add("Div", g.add("Log", g.cast(x, out.dtype)), g.constant(math.log(base), out.dtype))


TABLE |= {"log2": scaled_log(2), "log10": scaled_log(10)}


def _log1p_of(g, name, dtype):
    one = g.constant(1, dtype)
    total = g.add("Add", name, one)
    kept = g.add("Sub", total, one)
    plain = g.add("Or", g.add("Equal", kept, g.constant(0, dtype)), g.add("IsInf", total))
    factor = g.add("Where", plain, one, g.add("Div", name, kept))
    return g.add("Mul", g.add("Where", g.add("Equal", total, one), name, g.add("Log", total)), factor)


@translation("log1p")
def _log1p(g, out, x):
    return _log1p_of(g, g.cast(x, out.dtype), out.dtype)


@translation("expm1")
def _expm1(g, out, x):
    name, half = g.cast(x, out.dtype), g.constant(0.5, out.dtype)
    more = g.add("Add", g.add("Exp", name), g.constant(1, out.dtype))
    return g.add("Mul", g.add("Tanh", g.add("Mul", name, half)), more)


@translation("logaddexp")
def _logaddexp(g, out, x, y):
    a, b = (g.cast(v, out.dtype) for v in (x, y))
    apart = g.add("Where", g.add("Equal", a, b), g.constant(0, out.dtype), g.add("Abs", g.add("Sub", a, b)))
    less = _log1p_of(g, g.add("Exp", g.add("Neg", apart)), out.dtype)
    return g.add("Add", g.add("Max", a, b), less)


@translation("erfc")
def _erfc(g, out, x):
    return g.add("Sub", g.constant(1, out.dtype), g.add("Erf", g.cast(x, out.dtype)))


# The larger side is taken out of the root, so that no square overflows.


@translation("hypot")
def _hypot(g, out, x, y):
    a, b = (g.add("Abs", g.cast(v, out.dtype)) for v in (x, y))
    large, small = g.add("Max", a, b), g.add("Min", a, b)
    ratio = g.add("Where", g.add("Equal", small, large), g.constant(1, out.dtype), g.add("Div", small, large))
    length = g.add("Mul", large, g.add("Sqrt", g.add("Add", g.add("Mul", ratio, ratio), g.constant(1, out.dtype))))
    return g.add("Where", g.add("Or", g.add("IsInf", a), g.add("IsInf", b)), g.constant(np.inf, out.dtype), length)


# The sign of -0.0 shows where 1 is divided by it. The angle of a point needs it: behind the origin, half a turn is
# added, or taken away.


def _negative(g, name, dtype):
    zero = g.constant(0, dtype)
    if dtype.kind != "f":
        return g.add("Less", name, zero) if dtype.kind == "i" else g.add("Not", g.add("Equal", name, name))
    return g.add("Or", g.add("Less", name, zero), g.add("Less", g.add("Reciprocal", name), zero))


@translation("signbit")
def _signbit(g, out, x):
    return _negative(g, g.cast(x, I64) if x.dtype == TRUTH else x.name, I64 if x.dtype == TRUTH else x.dtype)


@translation("atan2")
def _atan2(g, out, x, y):
    dtype, zero = out.dtype, g.constant(0, out.dtype)
    up, right = (g.cast(v, dtype) for v in (x, y))
    far = g.add("And", g.add("IsInf", up), g.add("IsInf", right))
    up, right = (g.add("Where", far, g.add("Sign", v), v) for v in (up, right))
    origin = g.add("And", g.add("Equal", up, zero), g.add("Equal", right, zero))
    slope = g.add("Where", origin, zero, g.add("Div", up, right))
    half = g.constant(np.pi, dtype)
    half = g.add("Where", _negative(g, up, dtype), g.add("Neg", half), half)
    return g.add("Add", g.add("Atan", slope), g.add("Where", _negative(g, right, dtype), half, zero))


# Towards zero means down for the absolute value. Bits of integers with a sign are moved by a product or a quotient.


@translation("trunc")
def _trunc(g, out, x):
    return g.add("Mul", g.add("Sign", x.name), g.add("Floor", g.add("Abs", x.name))) if x.dtype.kind == "f" else x.name


@translation("fmod")
def _fmod(g, out, x, y):
    return g.add("Mod", g.cast(x, out.dtype), g.cast(y, out.dtype), fmod=1)


def moved_bits(row):
    """The row of a shift: `row` of x and the power of two."""

    def shift(g, out, x, y):
        power = g.add("Pow", g.constant(2, out.dtype), g.cast(y, out.dtype))
        return row(g, out, Value(g.cast(x, out.dtype), x.shape, out.dtype), Value(power, y.shape, out.dtype))

    return shift


TABLE |= {"bitwise_left_shift": moved_bits(named("Mul")), "bitwise_right_shift": moved_bits(_floor_divide)}
TABLE["det"] = named("Det", floats=True)


# ## What is not in the table
#
# The remaining primitives serve the backward pass or the loss, or have no operation in ONNX.

BACKWARD = "only a backward pass calls it, and a graph has none"
MISSING = "ONNX has no operation for it"
LOSS = "it is part of a loss, and a graph that is shipped computes no loss"
NOT_IN_ONNX: dict[str, str] = {
    **dict.fromkeys(
        ("gelu_slope", "kept", "weight_convolution", "max_unpool", "max_pick", "avg_unpool", "spans_spread", "unmix",
         "add_rows"), BACKWARD,
    ),
    **dict.fromkeys(
        ("erfinv", "lgamma", "digamma", "zeta_sum", "cumprod", "logcumsumexp", "running_argmax", "cholesky", "solved",
         "logabsdet"), MISSING,
    ),
    "surprise": LOSS, "binary_surprise": LOSS,
    "normalize_channels": "it normalizes by the statistics of the batch, which only training does: call model.eval()",
}  # fmt: skip


def check_the_table_is_complete():
    ours = {name for name, p in tt.PRIMITIVES.items() if p.__module__.startswith("tt_")}
    assert ours <= TABLE.keys() | NOT_IN_ONNX.keys() and not TABLE.keys() & NOT_IN_ONNX.keys()


__all__ = [
    "CODES", "FAR", "IR_VERSION", "NOT_IN_ONNX", "OPSET", "TABLE", "Graph", "Node", "Packed", "Untranslatable", "Value",
    "band_nodes", "ramp_nodes", "translation",
]
