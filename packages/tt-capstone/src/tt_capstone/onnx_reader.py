# # Reading ONNX
#
# The last part of the appendix *ONNX*. At the end of it we turn a file that we have written back into a module, which
# computes with our primitives and which you can train.

# ## What we read
#
# The table of translations, backwards: a function for each operation of ONNX that a row of the table writes. Three
# kinds of files are not for us, and are refused with a reason: those with other operations, those with an option that
# we never write, and those that contradict themselves. A file comes from a stranger, as in chapter 17, so nothing in it
# is believed.

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tt_spatial as ts
import tt_tensor as tt
from tt_autograd.autograd import softsign
from tt_capstone.onnx_table import BFLOAT16, CODES, INT4, OPSET, UINT4, Node
from tt_opt import from_bfloat16
from tt_tensor import Module, Parameter, Tensor, from_numpy

DTYPES = {code: dtype for dtype, code in CODES.items()}
LARGEST = 1 << 31  # bytes of a file, and elements of an array that a node makes
DEEPEST = 8  # dimensions, and parts of a name
FAILURES = (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, MemoryError)

# ## Operations
#
# While a graph runs, floats are tensors, so gradients pass through them. Sizes and indices are NumPy arrays, for which
# a primitive is simply its kernel (chapter 02). An operation gets its inputs in order, and its attributes by name; an
# attribute that its function does not have is one that we do not read.

READERS: dict[str, Callable[..., Any]] = {
    "Neg": tt.neg, "Exp": tt.exp, "Log": tt.log, "Sqrt": tt.sqrt, "Sin": tt.sin, "Cos": tt.cos, "Tanh": tt.tanh, "Erf":
    tt.erf, "Sigmoid": tt.sigmoid, "Softsign": softsign, "Abs": tt.abs, "Sign": tt.sign, "Floor": tt.floor, "Ceil":
    tt.ceil, "Round": tt.round, "IsNaN": tt.isnan, "IsInf": tt.isinf, "Not": tt.logical_not, "And": tt.logical_and,
    "Or": tt.logical_or, "Xor": tt.bitwise_xor, "BitwiseNot": tt.bitwise_not, "BitwiseAnd": tt.bitwise_and, "BitwiseOr":
    tt.bitwise_or, "BitwiseXor": tt.bitwise_xor, "Add": tt.add, "Sub": tt.sub, "Mul": tt.mul, "Max": tt.maximum, "Min":
    tt.minimum, "Equal": tt.eq, "Less": tt.lt, "LessOrEqual": tt.le, "Greater": tt.gt, "GreaterOrEqual": tt.ge,
    "MatMul": tt.matmul, "Where": tt.choose, "Tan": tt.tan, "Asin": tt.asin, "Acos": tt.acos, "Atan": tt.atan, "Sinh":
    tt.sinh, "Cosh": tt.cosh, "Asinh": tt.asinh, "Acosh": tt.acosh, "Atanh": tt.atanh, "Det": tt.linalg.det, "Relu":
    tt.relu, "Identity": lambda x: x, "Reciprocal": lambda x: tt.power(x, exponent=-1.0),
}  # fmt: skip


# Others have options, or need a word of translation. A decorator enters their functions.


def reads(op: str) -> Callable[[Callable], Callable]:
    """Decorator: enter a function as the reader of an operation."""

    def enter(function):
        READERS[op] = function
        return function

    return enter


# Where a size or an index is needed, it may be an array or, if it was computed from floats, a tensor. And a size from a
# file may ask for more memory than there is.


def array_of(x) -> np.ndarray:
    """The numbers of a tensor or array."""
    return np.asarray(x.detach().numpy() if isinstance(x, Tensor) else x)


def integers(x) -> list[int]:
    """The numbers of a vector of integers."""
    return [int(n) for n in array_of(x).reshape(-1)]


def limited(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape. ValueError for one that would take too much memory."""
    if math.prod(shape) > LARGEST:
        raise ValueError(f"an array of shape {tuple(shape)} is larger than {LARGEST:,d} elements")
    return tuple(shape)


# Integers are divided towards 0, and the remainder of floats has the sign of the dividend: that is how C does it, and
# our operations round down. With sizes and signs apart, there is no difference.


@reads("Div")
def _div(x, y):
    if x.dtype.kind == "f":
        return tt.div(x, y)
    return tt.sign(x) * tt.sign(y) * tt.floor_divide(tt.abs(x), tt.abs(y))


@reads("Mod")
def _mod(x, y, fmod=0):
    return tt.sign(x) * tt.remainder(tt.abs(x), tt.abs(y)) if fmod else tt.remainder(x, y)


@reads("Pow")
def _pow(x, y):
    return tt.power(x, exponent=array_of(y).item()) if y.ndim == 0 else tt.power_of(x, y)


@reads("Clip")
def _clip(x, low=None, high=None):
    bounds = [None if bound is None else array_of(bound).item() for bound in (low, high)]
    return x if bounds == [None, None] else tt.clip(x, min=bounds[0], max=bounds[1])


# Activations call their options otherwise than we do.


@reads("LeakyRelu")
def _leaky_relu(x, alpha=0.01):
    return tt.leaky_relu(x, negative_slope=alpha)


@reads("Elu")
def _elu(x, alpha=1.0):
    return tt.elu(x, alpha=alpha)


@reads("Softplus")
def _softplus(x):
    return tt.softplus(x)


@reads("Gelu")
def _gelu(x, approximate="none"):
    return tt.gelu(x, approximate=approximate)


@reads("Softmax")
def _softmax(x, axis=-1):
    return tt.softmax(x, dim=axis)


@reads("LogSoftmax")
def _log_softmax(x, axis=-1):
    return tt.log_softmax(x, dim=axis)


# Reductions have the dimensions as an input. We reduce over one after the other, the last one first, so that the
# numbers of the others stay right.


def reader_of_reduction(function: Callable) -> Callable:
    """The reader of a reduction that our function does along one dimension."""

    def read(x, axes=None, keepdims=1):
        dims = sorted({d % x.ndim for d in (range(x.ndim) if axes is None else integers(axes))}, reverse=True)
        for dim in dims:
            x = function(x, dim=dim, keepdim=bool(keepdims))
        return x

    return read


for op, function in (("Sum", tt.sum), ("Prod", tt.prod), ("Max", tt.amax), ("Min", tt.amin)):
    READERS[f"Reduce{op}"] = reader_of_reduction(function)


@reads("ArgMax")
def _arg_max(x, axis=0, keepdims=1):
    return tt.argmax(x, dim=axis, keepdim=bool(keepdims))


@reads("ArgMin")
def _arg_min(x, axis=0, keepdims=1):
    return tt.argmin(x, dim=axis, keepdim=bool(keepdims))


@reads("CumSum")
def _cum_sum(x, axis):
    return tt.cumsum(x, dim=array_of(axis).item())


# The first of two results of `TopK` are the elements, the second their positions.


@reads("TopK")
def _top_k(x, k, axis=-1, largest=1, sorted=1):
    (count,) = integers(k)
    if largest:
        places = array_of(tt.largest_first(x, k=count, dim=axis % x.ndim))
    else:
        places = np.take(array_of(tt.argsort_ascending(x, dim=axis)), np.arange(count), axis)
    return picked_along(x, places, axis), places


# A shape becomes an array of integers, and what is computed from it does, too. So a reshape finds plain numbers.


@reads("Shape")
def _shape(x, start=0, end=None):
    return np.array(x.shape[start:end], np.int64)


@reads("Range")
def _range(start, limit, step):
    ends = [array_of(n).item() for n in (start, limit, step)]
    limited([max(int((ends[1] - ends[0]) / ends[2]), 0)])
    return np.arange(*ends, dtype=array_of(start).dtype)


@reads("Reshape")
def _reshape(x, shape, allowzero=0):
    sizes = integers(shape)
    return tt.reshape(x, shape=tuple(x.shape[d] if n == 0 and not allowzero else n for d, n in enumerate(sizes)))


@reads("Expand")
def _expand(x, shape):
    return tt.expand(x, shape=limited(tt.broadcast_shape(x.shape, tuple(integers(shape)))))


@reads("Transpose")
def _transpose(x, perm):
    return tt.permute(x, dims=tuple(perm))


@reads("Concat")
def _concat(*parts, axis):
    return tt.concat(*parts, dim=axis)


@reads("Cast")
def _cast(x, to):
    return tt.cast(x, dtype=DTYPES[to])


@reads("Trilu")
def _trilu(x, k=None, upper=1):
    return (tt.triu if upper else tt.tril)(x, diagonal=0 if k is None else array_of(k).item())


# Slices mean what they mean in Python: negative places count from the end, and what is beyond the end is cut off.


@reads("Slice")
def _slice(x, starts, ends, axes, steps=None):
    index = [slice(None)] * x.ndim
    steps = [1] * len(integers(axes)) if steps is None else integers(steps)
    for start, end, axis, step in zip(integers(starts), integers(ends), integers(axes), steps, strict=True):
        index[axis] = slice(start, end, step)
    return tt.getitem(x, index=tuple(index))


@reads("Split")
def _split(x, num_outputs, axis=0):
    if x.shape[axis] % num_outputs:
        raise ValueError(f"{x.shape[axis]} cannot be split into {num_outputs} equal parts")
    width, before = x.shape[axis] // num_outputs, (slice(None),) * (axis % x.ndim)
    return tuple(tt.getitem(x, index=(*before, slice(i * width, (i + 1) * width))) for i in range(num_outputs))


# To gather is to index with an array.


@reads("Gather")
def _gather(x, index, axis=0):
    return tt.getitem(x, index=((slice(None),) * (axis % max(x.ndim, 1)) + (array_of(index),)))


@reads("GatherND")
def _gather_nd(x, index):
    return tt.getitem(x, index=tuple(np.moveaxis(array_of(index), -1, 0)))


@reads("GatherElements")
def _gather_elements(x, index, axis=0):
    return picked_along(x, array_of(index), axis)


def picked_along(x, index: np.ndarray, axis: int) -> Any:
    """The elements at these positions along a dimension."""
    axis %= max(x.ndim, 1)
    index = np.where(index < 0, index + x.shape[axis], index)
    found = tt.gather(x if isinstance(x, Tensor) else from_numpy(np.asarray(x)), axis, index)
    return found if isinstance(x, Tensor) else array_of(found)


# Its opposites put numbers into an array: added to what is there, or instead of it, or with zeros around them.


@reads("ScatterElements")
def _scatter_elements(x, index, values, axis=0, reduction="none"):
    where = np.where(array_of(index) < 0, array_of(index) + x.shape[axis], array_of(index))
    put = tt.place_along(values, index=where, dim=axis % x.ndim, shape=x.shape)
    if reduction == "add":
        return tt.add(x, put)
    hit = array_of(tt.place_along(np.ones(where.shape), index=where, dim=axis % x.ndim, shape=x.shape)) > 0
    return tt.choose(hit, put, x)


@reads("Pad")
def _pad(x, pads, value=None):
    sizes, given = integers(pads), 0 if value is None else array_of(value).item()
    if min(sizes, default=0) < 0 or given:
        raise ValueError("only zeros can be put around an array, and nothing cut off")
    before, after = sizes[: x.ndim], sizes[x.ndim :]
    shape = limited([n + b + a for n, b, a in zip(x.shape, before, after)])
    return tt.place(x, index=tuple(slice(b, b + n) for n, b in zip(x.shape, before)), shape=shape)


# Layers. A padding must be the same at both ends, since ours are.


def both_ends(pads: Sequence[int]) -> tuple[int, ...]:
    """The padding of each dimension."""
    half = len(pads) // 2
    if tuple(pads[:half]) != tuple(pads[half:]):
        raise ValueError(f"the padding {[*pads]} is not the same at both ends")
    return tuple(pads[:half])


@reads("Gemm")
def _gemm(x, weight, bias, transB=0):
    return tt.affine(x, weight if transB else weight.T, bias)


@reads("LayerNormalization")
def _layer_normalization(x, weight, bias=None, axis=-1, epsilon=1e-5):
    if axis not in (-1, x.ndim - 1):
        raise ValueError(f"only the last dimension can be normalized, not {axis}")
    return ts.layer_norm(x, x.shape[-1], weight, bias, eps=epsilon)


@reads("Conv")
def _conv(x, weight, bias=None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1):
    return ts.conv2d(x, weight, bias, stride=strides, padding=both_ends(pads), dilation=dilations, groups=group)


@reads("ConvTranspose")
def _conv_transpose(
    x, weight, bias=None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), output_padding=(0, 0), group=1
):
    around, more = both_ends(pads), output_padding
    return ts.conv_transpose2d(
        x, weight, bias, stride=strides, padding=around, dilation=dilations, output_padding=more, groups=group
    )


@reads("MaxPool")
def _max_pool(x, kernel_shape, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)):
    return ts.max_pool2d(x, kernel_shape, strides, both_ends(pads), dilations)


@reads("AveragePool")
def _average_pool(x, kernel_shape, strides=(1, 1), pads=(0, 0, 0, 0), count_include_pad=0):
    return ts.avg_pool2d(x, kernel_shape, strides, both_ends(pads), count_include_pad=bool(count_include_pad))


# The integers of a quantized layer, times the scales of their blocks.


@reads("DequantizeLinear")
def _dequantize_linear(q, scale, axis=1, block_size=0):
    if block_size < 1 or q.ndim != scale.ndim or q.shape[axis] != block_size * scale.shape[axis]:
        raise ValueError(f"scales {scale.shape} are not those of blocks of {block_size} in {q.shape}, along {axis}")
    wide = array_of(scale) if scale.shape[axis] == 1 else np.repeat(array_of(scale), block_size, axis)
    return from_numpy(array_of(q).astype(wide.dtype) * wide)


# ## The module
#
# The initializers become parameters and buffers under their names, in modules within modules, so that the state is that
# of the model that was exported. Floats are parameters, except for scales of blocks. What NumPy has no dtype for stays
# packed, and is unpacked while it is used.


class Bits(NamedTuple):
    """Packed numbers: the code of their type, and their shape."""

    code: int
    shape: tuple[int, ...]

    def unpacked(self, data: np.ndarray) -> np.ndarray:
        """As int8, or as float32."""
        if self.code == BFLOAT16:
            return from_bfloat16(data.view("<u2")).reshape(self.shape)
        pairs = np.stack([data & 15, data >> 4], -1).reshape(self.shape).astype(np.int8)
        return (pairs ^ 8) - 8 if self.code == INT4 else pairs


class Port(NamedTuple):
    """An input or output: its name, dtype, and shape of numbers and names."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str, ...]


# To keep a tensor under a dotted name, we make the modules on the way. A name from a file may be that of a method,
# such as `half`: such a tensor becomes `half_`. And a value is forgotten after the node that used it last: `last_use`
# knows which that is.


def free_name(module: Module, name: str, but: Any = Module) -> str:
    """Return the name, with `_` behind it as long as the module has an attribute of that name that is not a `but`."""
    while hasattr(module, name) and not isinstance(getattr(module, name), but):
        name += "_"
    return name


class ImportedGraph(Module):
    """A graph as a module: tensors in the order of `inputs` -> the tensor, or tuple of tensors, of `outputs`."""

    inputs: list[Port]
    outputs: list[Port]

    def __init__(self, inputs, outputs, nodes: Sequence[Node], constants: dict[str, Any]):
        super().__init__()
        self.inputs, self.outputs, self.nodes, self.constants = inputs, outputs, nodes, constants
        self.places: dict[str, tuple[Module, str]] = {}
        self.bits: dict[str, Bits] = {}
        self.last_use = {name: number for number, node in enumerate(nodes) for name in node.inputs}
        self.last_use |= dict.fromkeys((port.name for port in outputs), len(nodes))

    def keep(self, name: str, tensor: Tensor, learned: bool) -> None:
        """Keep a tensor as a parameter or buffer under a dotted name. ValueError for a name that cannot be one."""
        *path, last = name.split(".")
        if len(path) > DEEPEST:
            raise ValueError(f"the initializer {name[:60]!r}... is in too many modules, more than {DEEPEST}")
        if not all((*path, last)):
            raise ValueError(f"the initializer {name!r} cannot be a part of a module: a part of its name is empty")
        module: Any = self
        for part in path:
            part = free_name(module, part)
            if not hasattr(module, part):
                setattr(module, part, Module())
            module = getattr(module, part)
        last = free_name(module, last, but=())
        if learned:
            setattr(module, last, Parameter(tensor))
        else:
            module.register_buffer(last, tensor)
        self.places[name] = module, last

    # The numbers of 4 bits are unpacked anew in each run, and so the memory stays small between them.

    def value(self, name: str) -> Any:
        """A parameter, buffer or constant."""
        if name in self.constants:
            return self.constants[name]
        module, last = self.places[name]
        tensor = getattr(module, last)
        return from_or_array(self.bits[name].unpacked(tensor.numpy())) if name in self.bits else tensor

    # To run the graph, we loop over its nodes.

    def forward(self, *inputs: Tensor) -> Any:
        """Raises ValueError for inputs that do not fit, and with the name of a node that fails."""
        self.refuse_misfits(inputs)
        values: dict[str, Any] = {port.name: tensor for port, tensor in zip(self.inputs, inputs)}
        for number, node in enumerate(self.nodes):
            operands = [self.operand(values, name) for name in node.inputs]
            try:
                out = READERS[node.op](*operands, **node.attributes)
                results = out if isinstance(out, tuple) else (out,)
                found = zip(node.outputs, results, strict=True)
                values |= {name: x if isinstance(x, Tensor) else np.asarray(x) for name, x in found}
            except FAILURES as error:
                raise ValueError(f"node {node.outputs[0]!r} ({node.op}) fails: {error}") from error
            for name in node.inputs:
                if self.last_use[name] == number:
                    values.pop(name, None)
        outputs = [self.operand(values, port.name) for port in self.outputs]
        tensors = [x if isinstance(x, Tensor) else from_numpy(x) for x in outputs]
        return tensors[0] if len(tensors) == 1 else tuple(tensors)

    def operand(self, values: dict[str, Any], name: str) -> Any:
        """A value, or None for the name of an absent one."""
        if not name:
            return None
        return values[name] if name in values else self.value(name)

    # We compare the inputs with their description in the file.

    def refuse_misfits(self, inputs) -> None:
        """ValueError for inputs of another number, dtype or shape; dimensions of one name have one size."""
        if len(inputs) != len(self.inputs):
            raise ValueError(f"the graph has {len(self.inputs)} inputs, not {len(inputs)}: "
                             f"{', '.join(port.name for port in self.inputs)}")  # fmt: skip
        sizes: dict[str, int] = {}
        for port, tensor in zip(self.inputs, inputs):
            fits = tensor.dtype == port.dtype and tensor.ndim == len(port.shape) and all(
                n == (wanted if isinstance(wanted, int) else sizes.setdefault(wanted, n))
                for n, wanted in zip(tensor.shape, port.shape)
            )  # fmt: skip
            if not fits:
                shape = ", ".join(map(str, port.shape))
                raise ValueError(f"{port.name} is {port.dtype} of shape ({shape}), not {tensor.dtype} of {tensor.shape}"
                                 f", where {sizes}")  # fmt: skip


def from_or_array(array: np.ndarray) -> Any:
    """Floats as a tensor, other numbers as they are."""
    return from_numpy(array) if array.dtype.kind == "f" else array


# ## The file
#
# First the whole: is it a model at all, of our opset, and does it have everything in it? Large models of others keep
# their weights in a second file, *external data*, whose path the first one names. We do not follow paths from a file.


def import_onnx(path: str | os.PathLike) -> ImportedGraph:
    """The module of an ONNX file of the kind that `export_onnx` writes; its parameters are the float initializers, by
    their names.

    Raises ValueError, with the node's name, for operations and attributes that we do not write, inputs that come from
    nowhere or from a later node, other dtypes, external data, and whatever contradicts itself."""
    file = Path(path)
    if (size := file.stat().st_size) > LARGEST:
        raise ValueError(f"{file} has {size:,d} bytes, and an ONNX file ends at {LARGEST:,d}")
    try:
        return module_of(parsed(file.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def parsed(data: bytes) -> Any:
    """The bytes of a file as an object of the package `onnx`."""
    from onnx import ModelProto

    try:
        return ModelProto.FromString(data)
    except Exception as error:  # of the library below, which has errors of its own
        raise ValueError("it is not an ONNX file, or only a part of one") from error


# Constants are a dictionary, and nodes a list. We check the wires before we build anything. Scales are floats that no
# optimizer should train; we recognize them by the node that uses them.


def module_of(proto: Any) -> ImportedGraph:
    """The module of a model. Raises ValueError as `import_onnx` does."""
    versions = {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import}
    if versions != {"ai.onnx": OPSET} or proto.functions or proto.graph.sparse_initializer:
        raise ValueError(f"it uses the operations of {versions or 'nowhere'}, or functions, or sparse initializers; "
                         f"we read plain graphs of opset {OPSET}")  # fmt: skip
    graph, constants, nodes = proto.graph, {}, []
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0] if node.output else ""] = constant_of(node)
        else:
            nodes.append(node_of(node))
    inputs, outputs = ([port_of(info) for info in infos] for infos in (graph.input, graph.output))
    refuse_tangles(graph, nodes, constants, inputs, outputs)
    module = ImportedGraph(inputs, outputs, nodes, constants)
    scales = {node.inputs[1] for node in nodes if node.op == "DequantizeLinear"}
    for tensor in graph.initializer:
        array, bits = contents(tensor)
        learned = array.dtype in (np.float32, np.float64) and tensor.name not in scales
        if bits:
            module.bits[tensor.name] = bits
        module.keep(tensor.name, from_numpy(array), learned)
    return module.eval()


# A node: its operation must be one of ours, and its inputs and attributes must fit the function that reads it.


def node_of(node: Any) -> Node:
    """A node, checked. ValueError for one that we do not read."""
    label = f"node {node.name or ', '.join(node.output)!r} ({node.op_type})"
    if node.domain not in ("", "ai.onnx") or node.op_type not in READERS:
        raise ValueError(f"{label} has an operation that we do not read")
    if not node.output or not all(node.output):
        raise ValueError(f"{label} has an output without a name")
    attributes = {a.name: attribute_of(a, label) for a in node.attribute}
    try:
        reader = READERS[node.op_type]
        signature = reader.signature if isinstance(reader, tt.Slot) else inspect.signature(reader)
        signature.bind(*node.input, **attributes)
    except TypeError as error:
        raise ValueError(f"{label} has inputs or attributes that we do not read: {error}") from None
    if "to" in attributes and attributes["to"] not in DTYPES:
        raise ValueError(f"{label} makes numbers of the type {attributes['to']}, which we do not know")
    return Node(node.op_type, tuple(node.input), tuple(node.output), attributes)


def attribute_of(attribute: Any, label: str) -> Any:
    """The value of an attribute: a number, a text, or a tuple of integers."""
    from onnx import AttributeProto as Kind

    kinds = {Kind.INT: "i", Kind.FLOAT: "f", Kind.STRING: "s", Kind.INTS: "ints"}
    if attribute.type not in kinds:
        raise ValueError(f"{label}: the attribute {attribute.name} must be a number, a list of integers or a text")
    value = getattr(attribute, kinds[attribute.type])
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return tuple(value) if attribute.type == Kind.INTS else value


# An array: as many bytes as its shape and dtype say, in the file itself.


def contents(tensor: Any) -> tuple[np.ndarray, Bits | None]:
    """The numbers of a tensor; or its bytes, and how they are packed."""
    from onnx import TensorProto

    shape, code, label = tuple(tensor.dims), tensor.data_type, f"the array {tensor.name!r}"
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ValueError(f"{label} is in another file, and we read no external data")
    if len(shape) > DEEPEST or any(n < 0 for n in shape):
        raise ValueError(f"{label} has the shape {shape}; sizes are at least 0, in at most {DEEPEST} dimensions")
    count = math.prod(shape)
    wanted = {BFLOAT16: 2 * count, UINT4: (count + 1) // 2, INT4: (count + 1) // 2}
    if code not in wanted and code not in DTYPES:
        raise ValueError(f"{label} has the type {code}, which we do not know")
    size = wanted[code] if code in wanted else count * DTYPES[code].itemsize
    if len(tensor.raw_data) != size:
        raise ValueError(f"{label} of shape {shape} takes {size:,d} bytes, and has {len(tensor.raw_data):,d}")
    if code in wanted and (count % 2 and code != BFLOAT16):
        raise ValueError(f"{label} has an odd number of integers of 4 bits")
    if code in wanted:
        return np.frombuffer(tensor.raw_data, np.uint8).copy(), Bits(code, shape)
    dtype = DTYPES[code].newbyteorder("<")
    return np.frombuffer(tensor.raw_data, dtype).astype(DTYPES[code]).reshape(shape), None


# Constants are arrays as well. Inputs and outputs have a type and a shape.


def constant_of(node: Any) -> Any:
    """The tensor (of floats) or array (of integers or truth values) of a Constant."""
    if [a.name for a in node.attribute] != ["value"] or len(node.output) != 1:
        raise ValueError(f"node {node.name!r} (Constant) has no value, or more than that")
    array, bits = contents(node.attribute[0].t)
    if bits:
        raise ValueError(f"node {node.name!r} (Constant) has a type that we read in initializers only")
    return from_or_array(array)


def port_of(info: Any) -> Port:
    """An input or output, checked."""
    kind = info.type.tensor_type
    if info.type.WhichOneof("value") != "tensor_type" or kind.elem_type not in DTYPES or not kind.HasField("shape"):
        raise ValueError(f"{info.name!r} is not a tensor of a type that we know, or has no shape")
    shape = tuple(d.dim_param if d.dim_param else d.dim_value for d in kind.shape.dim)
    return Port(info.name, DTYPES[kind.elem_type], shape)


# Then the wiring. A value has one source, and each node comes after the nodes that it needs; so there is no cycle.


def refuse_tangles(graph: Any, nodes: Sequence[Node], constants: Any, inputs: Sequence[Port], outputs: Sequence[Port]):
    """ValueError for a name with two sources, and for an input that is not there when it is needed."""
    sources = [*constants, *(tensor.name for tensor in graph.initializer), *(port.name for port in inputs)]
    sources += [name for node in nodes for name in node.outputs]
    doubled = {name for name in sources if sources.count(name) > 1} if len({*sources}) < len(sources) else set()
    if doubled or "" in sources:
        raise ValueError(f"values must have names, each its own; these have two sources: {sorted(doubled)}")
    later = {name for node in nodes for name in node.outputs}
    there = {*sources} - later
    for node in nodes:
        for name in node.inputs:
            if name and name not in there:
                why = "comes from a later node, or from itself: a cycle" if name in later else "comes from nowhere"
                raise ValueError(f"node {node.outputs[0]!r} ({node.op}) needs {name!r}, which {why}")
        there |= {*node.outputs}
    for port in outputs:
        if port.name not in there:
            raise ValueError(f"the output {port.name!r} comes from nowhere")


# A graph written by hand: half of an input, plus its own length.


def half_and_length() -> ImportedGraph:
    """A graph of x (n,): x times a parameter, 0.5, plus n."""
    nodes = [
        Node("Mul", ("x", "half"), ("halved",), {}), Node("Shape", ("x",), ("length",), {}),
        Node("Cast", ("length",), ("wide",), {"to": CODES[np.dtype(np.float32)]}),
        Node("Add", ("halved", "wide"), ("y",), {}),
    ]  # fmt: skip
    x, y = (Port(name, np.dtype(np.float32), ("n",)) for name in "xy")
    graph = ImportedGraph([x], [y], nodes, {})
    graph.keep("half", tt.tensor(0.5), learned=True)
    return graph


def check_imported_graph():
    graph = half_and_length()
    assert graph(tt.tensor([2.0, 4.0, 6.0])).tolist() == [4.0, 5.0, 6.0]
    graph(tt.ones(3)).sum().backward()
    assert [parameter.grad.tolist() for parameter in graph.parameters()] == [3.0]


__all__ = ["ImportedGraph", "READERS", "import_onnx", "module_of"]
