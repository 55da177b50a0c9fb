# # ONNX
#
# An appendix of chapter 20. At the end of it you can write a network as a file that other programs run, without our
# code and without Python, for any batch size and any length of a text.

# ## Why a graph
#
# A file of weights is half of a model. The other half is a Python program. If you want to run the weights in a browser,
# on a phone or in a database, you must write that program again. ONNX (*Open Neural Network Exchange*, 2017) is a file
# format for both halves: the weights, and a *graph* of some 200 standard operations. Many programs run such files. One
# of them is onnxruntime, and we compare our results with its results:
#
# ```python
# export_onnx(model, images, "model.onnx")
# session = onnxruntime.InferenceSession("model.onnx")
# (logits,) = session.run(None, {"input": images.numpy()})
# ```
#
# The appendix has four parts. *Tracing* turns a run of a model into a list of primitive calls with formulas for all
# sizes. *The table of translations* has a row for each primitive. This part writes the file and checks it, and *Reading
# ONNX* reads it back. The package `onnx` knows how such a file is laid out in bytes. We import it only where it is
# needed.

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tt_tensor as tt
from tt_autograd import evaluating, no_grad, rule
from tt_capstone.capstone import Llama
from tt_capstone.onnx_reader import import_onnx, module_of
from tt_capstone.onnx_table import (
    CODES, IR_VERSION, NOT_IN_ONNX, OPSET, TABLE, Graph, Node, Packed, Untranslatable, Value, band_nodes, ramp_nodes,
)
from tt_capstone.onnx_trace import Band, Known, Program, Ramp, Same, Size, at_size, merged, other_numbers, traces_of
from tt_capstone.weights import find_language_model
from tt_nlp import GPT, refuse_ids, scaled_dot_product_attention
from tt_opt import FORMATS, QuantizedConv2d, QuantizedEmbedding, accelerate
from tt_tensor import Module, PRIMITIVES, Tensor, from_numpy, primitive

# ## Packed rows
#
# Two layers of chapter 17 unpack their numbers with NumPy, outside the door: the embedding and the convolution. The
# trace would have their weights as constants of `float32`, or refuse them. So we give each a primitive, and a layer
# that calls it.


@primitive(cost=lambda out, ids, data, kind: out.size)
def packed_rows(ids, data, /, kind):
    """Row ids[...] of the rows that `data` holds in a format: (...) -> (..., K)."""
    refuse_ids(ids, len(data))
    return FORMATS[kind].unpack(data[ids.reshape(-1)]).reshape(*ids.shape, -1)


@primitive(cost=lambda out, data, kind, shape: out.size)
def packed_filters(data, /, kind, shape):
    """The filters, of this shape, whose rows `data` holds in a format."""
    return FORMATS[kind].unpack(data).reshape(shape)


rule(packed_rows, None, None)
rule(packed_filters, None)


class SeenEmbedding(QuantizedEmbedding):
    """QuantizedEmbedding through the door."""

    def forward(self, ids):
        return packed_rows(ids, self.rows, kind=self.kind)


class SeenConv2d(QuantizedConv2d):
    """QuantizedConv2d through the door."""

    @property
    def weight(self) -> Any:  # type: ignore[override]
        return packed_filters(self.rows, kind=self.kind, shape=self.shape)


# The model itself must stay as it is, so we exchange the layers in a copy. `deepcopy` asks a table what it has copied
# already. We enter into it all tensors as copies of themselves, because the weights need no copy, and our layers as
# copies of those of chapter 17.

SEEN: dict[type, Any] = {QuantizedEmbedding: SeenEmbedding, QuantizedConv2d: SeenConv2d}


def through_the_door(model: Module) -> Module:
    """Return the model or, if layers of it compute outside the door, a copy of it in which none does."""
    copied: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    outside = [part for part in model.modules() if type(part) in SEEN]
    for part in outside:
        copied[id(part)] = seen = SEEN[type(part)].__new__(SEEN[type(part)])
        vars(seen).update(vars(part))
    return deepcopy(model, copied) if outside else model


# ## From the list to the graph
#
# Each call of the program looks up its row. If there is none, the export ends here.


def refuse_untranslatable(primitives: Iterable[str]) -> None:
    """ValueError for a primitive without a row in the table, with its name."""
    for name in primitives:
        if name not in TABLE:
            why = NOT_IN_ONNX.get(name, "it has no row in the table of translations")
            raise ValueError(f"the primitive {name} cannot be exported: {why}")


# A value knows the name that it has in the graph: an input and a parameter have one already, a result has what its row
# returned, and an array that depends on sizes is written as nodes.


class Writer:
    """Writes a program into a graph, call by call."""

    def __init__(self, program: Program, graph: Graph):
        self.program, self.graph = program, graph
        self.values: dict[int, Value] = {}

    def value(self, number: int) -> Value:
        """The value with this number, which has a name in the graph from now on."""
        if number not in self.values:
            known = self.program.values[number]
            self.values[number] = Value(self.name(known), known.shape, known.dtype, known.content)
        return self.values[number]

    def name(self, known: Known) -> str:
        """The name of an input, a parameter or a constant."""
        if known.origin[0] != "constant":
            return known.origin[1]
        return self.array(known.content).name

    def array(self, content) -> Value:
        """A constant, a formula or a copy as a value."""
        if isinstance(content, Same):
            return self.value(content.number)
        if isinstance(content, np.ndarray):
            return Value(self.graph.constant(content), content.shape, content.dtype, content)
        name = ramp_nodes(self.graph, content) if isinstance(content, Ramp) else band_nodes(self.graph, content)
        return Value(name, content.shape, content.dtype)

    # Parameters may hold such arrays, too.

    def param(self, value: Any) -> Any:
        """A parameter, its formulas written into the graph."""
        if isinstance(value, Size) or not isinstance(value, tuple | slice):
            return value
        if isinstance(value, Same | Ramp | Band):
            return self.array(value)
        if isinstance(value, slice):
            return slice(*map(self.param, (value.start, value.stop, value.step)))
        return tuple(map(self.param, value))

    # The scope of a node is the part of the model whose parameter it uses, so most names say where in the model we are.

    def write(self) -> None:
        """Write all calls. Raises ValueError for a primitive whose row cannot express it."""
        for call in self.program.calls:
            operands, out = [self.program.values[n] for n in call.inputs], self.program.values[call.output]
            state = next((known.origin[1] for known in operands if known.origin[0] == "state"), "")
            self.graph.scope = state.rpartition(".")[0].replace(".", "/")
            params = {name: self.param(value) for name, value in call.params.items()}
            if self.folded(call, operands, params):
                continue
            given = Value("", out.shape, out.dtype), *map(self.value, call.inputs)
            try:
                name = TABLE[call.primitive](self.graph, *given, **params)
            except Untranslatable as why:
                raise ValueError(f"the primitive {call.primitive} cannot be exported here: {why}") from None
            self.values[call.output] = given[0]._replace(name=name)

    # We compute a call on constants alone right away. This is *constant folding*. Parameters do not count as constants:
    # they stay in the graph under their names.

    def folded(self, call, operands, params) -> bool:
        """Compute a call on constants alone; False if it is not one."""
        arrays = [known.content for known in operands if known.origin[0] == "constant"]
        sizes = self.program.values[call.output].shape
        if len(arrays) < len(operands) or not all(isinstance(array, np.ndarray) for array in arrays):
            return False
        if any(isinstance(x, Size | Value) for x in (*sizes, *params.values())):
            return False
        array = PRIMITIVES[call.primitive](*map(from_numpy, arrays), **params).numpy()
        self.program.values[call.output] = Known(("constant", ""), array.shape, array.dtype, array)
        return True


# We do not need every node. For example, if a model uses only the positions of a `topk`, there is a node for its
# values. We keep the nodes on which the results depend. A name that is not the output of a node is a parameter or
# buffer.


def needed(nodes: Sequence[Node], outputs: Iterable[str]) -> list[Node]:
    """The nodes that the outputs depend on, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & {*node.outputs}:
            wanted |= {*node.inputs}
            kept.append(node)
    return kept[::-1]


# ## The file
#
# The rest is a matter of form. A dynamic size appears in the shapes of inputs and outputs by its name or formula, as in
# `(batch, past+length)`. Constants are nodes, and initializers belong to the model, so a reader can tell them apart.


class Interface(NamedTuple):
    """The names of inputs and outputs, and of the dynamic dimensions of each input."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]


def model_proto(program: Program, interface: Interface, state: Mapping[str, Tensor]) -> Any:
    """The ONNX model of a program."""
    from onnx import helper

    items = [*interface.dynamic.items()][::-1]  # if several inputs have the same size, the first one gives the name
    symbols = {size: (name, dim) for name, dims in items for dim, size in dims.items()}
    graph = Graph(symbols, (*interface.inputs, *interface.outputs, *state))
    writer = Writer(program, graph)
    writer.write()
    results = [writer.value(number) for number in program.outputs]
    nodes = needed(graph.nodes, [value.name for value in results])
    nodes += [Node("Identity", (value.name,), (name,), {}) for value, name in zip(results, interface.outputs)]
    constants, initializers = sources(graph, nodes, interface.inputs, state)
    example = [known for known in program.values if known.origin[0] == "input"]
    inputs, outputs = [*map(described, interface.inputs, example)], [*map(described, interface.outputs, results)]
    written = [helper.make_node(n.op, n.inputs, n.outputs, n.outputs[0], **n.attributes) for n in nodes]
    proto = helper.make_graph([*constants, *written], "TinyTorch", inputs, outputs, initializers)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(proto, producer_name="TinyTorch", opset_imports=[opset], ir_version=IR_VERSION)


# What the nodes use and no node makes: constants, what a row of the table has packed, and the rest of the state.


def sources(graph: Graph, nodes: Sequence[Node], inputs: Sequence[str], state: Mapping[str, Tensor]) -> tuple:
    """The nodes of the constants, and the initializers, that these nodes use."""
    from onnx import helper

    made = {name for node in nodes for name in node.outputs} | {*inputs, ""}
    used = dict.fromkeys(name for node in nodes for name in node.inputs if name not in made)
    constants = [name for name in used if name in graph.constants]
    values = {name: helper.make_node("Constant", [], [name], name, value=tensor_proto(name, graph.constants[name]))
              for name in constants}  # fmt: skip
    packed = graph.initializers
    return [*values.values()], [tensor_proto(name, packed[name] if name in packed else state[name].numpy())
                                for name in used if name not in values]  # fmt: skip


def described(name: str, value: Known | Value) -> Any:
    """An input or output as the package `onnx` has it."""
    from onnx import helper

    shape = [str(n) if isinstance(n, Size) else int(n) for n in value.shape]
    return helper.make_tensor_value_info(name, CODES[value.dtype], shape)


def tensor_proto(name: str, value: np.ndarray | Packed) -> Any:
    """An array as the package `onnx` has it."""
    from onnx import helper

    if isinstance(value, Packed):
        return helper.make_tensor(name, value.code, value.shape, value.data, raw=True)
    data = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
    return helper.make_tensor(name, CODES[value.dtype], value.shape, data, raw=True)


# ## The check
#
# What if a formula is wrong, or a size begins to matter only later? Then we must not write the file. So we make two
# checks first. The package's own check infers all types and shapes from the standard, and compares them with ours. Then
# we read the graph back and run it: at a larger size than any that was traced, and with all dynamic sizes 1. The
# results must be those of the model.

LIMIT = (1 << 31) - 1  # bytes of a file: its lengths are integers of 32 bits


def refuse_other_results(
    proto: Any, function: Callable, example: Mapping[str, np.ndarray], interface: Interface
) -> None:
    """ValueError where a graph read back gives other results than the function, at sizes that were not traced."""
    from onnx.checker import check_model

    check_model(proto, full_check=True)
    graph = module_of(proto)
    base = {size: max(example[name].shape[dim], 2) for name, dims in interface.dynamic.items()
            for dim, size in dims.items()}  # fmt: skip
    for sizes in [{name: 2 * n + 3 for name, n in base.items()}, dict.fromkeys(base, 1)][: 2 if base else 1]:
        arrays = [other_numbers(at_size(array, interface.dynamic.get(name, {}), sizes), 100)
                  for name, array in example.items()]  # fmt: skip
        try:
            with no_grad():
                wanted = function(*map(from_numpy, arrays))
        except (ValueError, IndexError) as error:
            raise ValueError(f"the model fails in a run with {sizes}: {error}; give a smaller example") from error
        with no_grad():
            found = graph(*map(from_numpy, arrays))
        results = (x if isinstance(x, tuple | list) else [x] for x in (wanted, found))
        for name, ours, theirs in zip(interface.outputs, *results):
            if not alike(ours.numpy(), theirs.numpy()):
                raise ValueError(
                    f"the graph does not compute the output {name} as the model does, where {sizes or 'numbers differ'}"
                    ": the model does something else for other sizes or numbers than those of the example"
                )


def alike(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Are the arrays equal, apart from rounding?"""
    largest = np.abs(ours[np.isfinite(ours)]).max(initial=0) if ours.dtype.kind == "f" else 0
    return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * largest, equal_nan=True)


# Now we can export a model.


def export_onnx(
    model: Callable, example: Any, path: str | os.PathLike, *,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    names: tuple[Sequence[str], Sequence[str]] | None = None,
) -> None:
    """Write a model, or a function of tensors, as an ONNX file (opset 21), atomically.

    example: a tensor or array, or a tuple of them, to run it with. dynamic: for each input the names of the dimensions
    whose sizes may vary, {"ids": {0: "batch", 1: "length"}}; by default the first dimension of each input, and the
    second of integers, are dynamic. names: those of the inputs and those of the outputs.

    The model runs in evaluation mode, several times, with sizes from 1 to 2 n + 3, where n is that of the example (at
    least 2). So choose a small example, but longer than a window of the model. Raises ValueError for a primitive
    without a translation, a branch, or a size that a graph cannot express; TypeError for an example or a result that is
    no tensor."""
    arrays = [_array(x) for x in (example if isinstance(example, tuple | list) else [example])]
    module = through_the_door(model) if isinstance(model, Module) else model
    state = module.state_dict() if isinstance(module, Module) else {}
    with evaluating(module) if isinstance(module, Module) else nullcontext(), accelerate("default"):
        inputs = names[0] if names else _names("input", len(arrays))
        if len({*inputs}) != len(arrays):
            raise ValueError(f"{len(arrays)} inputs need as many names of their own, not {', '.join(inputs)}")
        given = dict(zip(inputs, arrays))
        dynamic = _usual(given) if dynamic is None else dynamic
        runs, traces = traces_of(module, given, dynamic, state)
        refuse_untranslatable(call.primitive for call in traces[0].calls)
        program = merged(runs, traces)
        outputs = names[1] if names else _names("output", len(program.outputs))
        if len(outputs) != len(program.outputs) or len({*inputs, *outputs}) < len(inputs) + len(outputs):
            count = len(program.outputs)
            raise ValueError(f"{count} outputs need as many names of their own, not {', '.join(outputs)}")
        interface = Interface(tuple(inputs), tuple(outputs), dynamic)
        proto = model_proto(program, interface, state)
        if proto.ByteSize() > LIMIT:
            raise ValueError(f"the file would have {proto.ByteSize():,d} bytes, and an ONNX file ends at {LIMIT:,d}")
        refuse_other_results(proto, module, given, interface)
    _write(Path(path), proto.SerializeToString())


# What it says to models that a graph cannot express:


def show_errors():
    x = tt.ones(2, 3)
    attempts: list[Callable] = [
        lambda x: x * 2 if x.sum().item() > 0 else x,
        lambda x: x * from_numpy(np.exp(x.numpy())),
        lambda x: x[: x.shape[0] // 2],
        lambda x: tt.gelu_slope(x),
    ]
    for attempt in attempts:
        try:
            export_onnx(attempt, x, "model.onnx")
        except ValueError as error:
            print(f"ValueError: {error}")


# Its helpers: the example as arrays, names and dimensions where none are given, and the writing itself, under another
# name first, as everywhere in this course.


def _array(x: Any) -> np.ndarray:
    if not isinstance(x, Tensor | np.ndarray):
        raise TypeError(f"the example is a tensor or array, or a tuple of them, not {type(x).__name__}")
    return np.asarray(x.numpy() if isinstance(x, Tensor) else x)


def _names(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind}_{number}" for number in range(count)]


def _usual(given: Mapping[str, np.ndarray]) -> dict[str, dict[int, str]]:
    usual = {}
    for name, array in given.items():
        dims = {0: "batch", 1: "length"} if array.dtype.kind in "iu" else {0: "batch"}
        usual[name] = {dim: size for dim, size in dims.items() if dim < array.ndim}
    return usual


def _write(file: Path, data: bytes) -> None:
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(unfinished, file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


# ## A model with a cache
#
# Chapter 16 keeps keys and values in an object, and an ONNX graph has no objects. So they go in and come out: the
# inputs are the new tokens, and the keys and values of those before; the outputs are the logits, and the keys and
# values of all. The program that runs the graph hands them back in the next time. A prefill is the case of no token
# before, and decoding that of one new token, so a single graph does both. Its names are those that other programs
# expect.
#
# The parts of a block are those of chapters 14 and 16; only the attention sees the past. Two small classes know how the
# two architectures are built.


class GPTParts:
    """How a GPT embeds, projects and finishes."""

    def __init__(self, model: GPT):
        self.model, self.trunk, self.blocks = model, model.transformer, model.transformer.h
        self.heads = model.config.n_head

    def embedded(self, ids, before):
        places = self.trunk.wpe(from_numpy(np.arange(before, before + ids.shape[1])))
        return self.trunk.wte(ids) + places

    def projected(self, block, x, before):
        B, T, C = x.shape
        parts = block.attn.c_attn(block.ln_1(x)).reshape(B, T, 3, self.heads, C // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        return q, k, v

    def finished(self, block, x, found):
        x = x + block.attn.c_proj(found)
        return x + block.mlp(block.ln_2(x))

    def logits(self, x):
        return self.model.lm_head(self.trunk.ln_f(x))


class LlamaParts:
    """How a Llama embeds, projects and finishes."""

    def __init__(self, model: Llama):
        self.model, self.trunk, self.blocks = model, model.model, model.model.layers
        self.heads = model.config.n_kv_head

    def embedded(self, ids, before):
        return self.trunk.embed_tokens(ids)

    def projected(self, block, x, before):
        places = np.arange(before, before + x.shape[1])
        return [part.transpose(1, 2) for part in block.self_attn.projected(block.input_layernorm(x), places)]

    def finished(self, block, x, found):
        x = x + block.self_attn.o_proj(found)
        return x + block.mlp(block.post_attention_layernorm(x))

    def logits(self, x):
        return self.model.lm_head(self.trunk.norm(x))


# The new queries see the keys before them, and among the new ones those that do not come later. Heads that share keys
# are a dimension of their own, as in chapter 16.


class WithCache(Module):
    """A GPT or Llama that takes ids (B, T), and for each layer the keys and values (B, heads, P, D) of the P tokens
    before; gives logits (B, T, V), and for each layer the keys and values (B, heads, P + T, D) of all."""

    def __init__(self, model: Module):
        super().__init__()
        if getattr(model, "window", None) is not None or not isinstance(model, GPT | Llama) or (
            isinstance(model, GPT) and not hasattr(model.transformer, "wpe")
        ):  # fmt: skip
            raise ValueError(f"only a GPT or a Llama can be exported with a cache, not {type(model).__name__}")
        self.model = model

    def state_dict(self, *args, **options):
        """That of the model, without a prefix."""
        return self.model.state_dict(*args, **options)

    def forward(self, ids, *past):
        parts = LlamaParts(self.model) if isinstance(self.model, Llama) else GPTParts(self.model)
        (B, T), before = ids.shape, past[0].shape[2]
        seen = from_numpy(np.arange(before + T) <= np.arange(before, before + T)[:, None])
        x, present = parts.embedded(ids, before), []
        for block, key, value in zip(parts.blocks, past[::2], past[1::2]):
            q, k, v = parts.projected(block, x, before)  # (B, heads, T, D)
            k, v = tt.cat([key, k], 2), tt.cat([value, v], 2)
            present += [k, v]
            q = q.reshape(B, parts.heads, -1, T, q.shape[-1])  # (B, G, H / G, T, D)
            found = scaled_dot_product_attention(q, k.unsqueeze(2), v.unsqueeze(2), seen)
            x = parts.finished(block, x, found.permute(0, 3, 1, 2, 4).reshape(B, T, -1))
        return parts.logits(x), *present


# A language model, with a cache or without, needs no example: it can be run with any tokens.


def export_language_model(model: Module, path: str | os.PathLike, *, cache: bool = False) -> None:
    """Write a GPT or Llama as an ONNX file. Inputs: input_ids (batch, sequence), int64; with a cache, for each layer i
    past_key_values.i.key and .value (batch, heads, past, D). Outputs: logits (batch, sequence, V), and present.i.key
    and .value. Raises ValueError for a context of less than 16 tokens."""
    config: Any = model.config
    ids, inputs, outputs = np.arange(6).reshape(2, 3) % config.vocab_size, ["input_ids"], ["logits"]
    if config.block_size < 16:
        raise ValueError(f"texts of up to 16 tokens are tried, and the context has {config.block_size}")
    dynamic = {"input_ids": {0: "batch", 1: "sequence"}}
    if not cache:
        export_onnx(model, ids, path, dynamic=dynamic, names=(inputs, outputs))
        return
    heads, size = getattr(model, "kv_heads", config.n_head), config.n_embd // config.n_head
    for layer in range(config.n_layer):
        for part in ("key", "value"):
            inputs.append(f"past_key_values.{layer}.{part}")
            outputs.append(f"present.{layer}.{part}")
            dynamic[inputs[-1]] = {0: "batch", 2: "past"}
    past = [np.zeros((2, heads, 2, size), np.float32)] * (2 * config.n_layer)
    export_onnx(WithCache(model), (ids, *past), path, dynamic=dynamic, names=(inputs, outputs))


def check_graph():
    layer, example = tt.Linear(4, 3), {"x": np.ones((2, 4), np.float32)}
    program = merged(*traces_of(lambda x: tt.relu(layer(x)) * 2, example, {"x": {0: "batch"}}, layer.state_dict()))
    graph = Graph({"batch": ("x", 0)})
    writer = Writer(program, graph)
    writer.write()
    assert [(node.op, node.inputs[0]) for node in graph.nodes] == [("Gemm", "x"), ("Relu", "Gemm"), ("Mul", "Relu")]
    assert str(writer.value(program.outputs[0]).shape[0]) == "batch"


# How large are the files? A small GPT in the formats of chapter 17, beside its state in memory:


def show_files():
    from tt_nlp.transformers import small_gpt
    from tt_opt import model_bytes, quantize_

    print("format     state, KB  file, KB  largest difference when read back")
    ids = tt.randint(0, 65, (3, 40))
    for kind in ("float32", *FORMATS):
        tt.manual_seed(0)
        model = small_gpt(65, 2, 128, 64).eval()
        model = model if kind == "float32" else quantize_(model, kind)
        with tempfile.TemporaryDirectory() as folder, no_grad():
            export_language_model(model, file := Path(folder, "gpt.onnx"))
            apart = np.abs((import_onnx(file)(ids) - model(ids)).numpy()).max()
            print(f"{kind:9s} {model_bytes(model) / 1e3:10.0f} {file.stat().st_size / 1e3:9.0f}  {apart:.0e}")


# The rest of each file is the graph itself: names, shapes and wires.

# ## The command


def main(arguments: list[str]) -> int:
    """`python -m tt_capstone onnx MODEL OUT.onnx [--cache]`: a language model as an ONNX file; the exit status."""
    parser = argparse.ArgumentParser("onnx", description=f"Write a language model as an ONNX file, opset {OPSET}.")
    parser.add_argument("model", help="a name, a GGUF file, or a folder, as for the command chat")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--cache", action="store_true", help="with keys and values as inputs and outputs, for decoding")
    given = parser.parse_args(arguments)
    try:
        export_language_model(find_language_model(given.model).model, given.out, cache=given.cache)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {given.out}, {given.out.stat().st_size / 1e6:.1f} MB, opset {OPSET}")
    return 0


__all__ = ["WithCache", "export_language_model", "export_onnx", "main", "packed_filters", "packed_rows"]
