"""Random programs, run here and in torch: after each line values, dtypes and shapes are equal, or both refuse.

A program is a list of lines, written once for both libraries: `T.` stands for either of them. The catalogue below says
which lines there are; the operations of the tables in `tt_tensor.testing` and `tt_spatial.testing` are added to them.
Each program follows from a seed and a number:

    python tests/test_differential.py --seed 7 --programs 100000
    python tests/test_differential.py --seed 7 --number 1234
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import re
import secrets
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tt_autograd as ta
import tt_spatial as ts
import tt_tensor as tt
from tt_spatial.testing import OPS as SPATIAL
from tt_spatial.testing import AtRandom
from tt_tensor.testing import LONG_TAIL, OPS, SHAPES

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")

# ## The catalogue
#
# A word in braces is drawn: a tensor of the program (`x` any, `f` floats, `i` integers, `b` truth values, `y` one that
# broadcasts with the first, `same` one of its shape) or an argument. Where one spelling does not fit both libraries,
# ours comes before the ~ and torch's after it. A line with a name that we do not have is left out.

CATALOGUE = """
{x} + {y}; {x} - {y}; {x} * {y}; {x} / {y}; {x} // {y}; {x} % {y}; {x} ** {y}; {x} @ {y}; -{x}; abs({x}); ~{x}
{x} & {y}; {x} | {y}; {x} ^ {y}; {x} < {y}; {x} <= {y}; {x} > {y}; {x} >= {y}; {x} == {y}; {x} != {y}; {x} + {n}
{x} - {n}; {x} * {n}; {x} / {n}; {x} // {n}; {x} % {n}; {x} ** {n}; {x} < {n}; {x} == {n}; {x} & {n}; {n} + {x}
{n} - {x}; {n} * {x}; {n} / {x}; {n} // {x}; {n} % {x}; {n} ** {x}; {n} > {x}; {n} != {x}; {n} | {x}; T.add({x}, {y})
T.sub({x}, {y}); T.mul({x}, {y}); T.div({x}, {y}); T.pow({x}, {y}); T.pow({x}, {n}); T.matmul({x}, {y})
T.eq({x}, {y}); T.ne({x}, {y}); T.lt({x}, {y}); T.le({x}, {y}); T.gt({x}, {y}); T.ge({x}, {y}); T.maximum({x}, {y})
T.minimum({x}, {y}); T.floor_divide({x}, {y}); T.remainder({x}, {y}); T.logical_and({x}, {y}); T.logical_or({x}, {y})
{x}.maximum({y}); {x}.minimum({y}); {x}.matmul({y}); {x}.pow({n}); {x}.pow({y}); {x}.add({y}); {x}.sub({y})
{x}.mul({y}); {x}.div({y}); {x}.eq({y}); {x}.ne({n}); {x}.lt({y}); {x}.le({n}); {x}.gt({y}); {x}.ge({n})
T.max({x}, {y}); T.min({x}, {y}); T.neg({x}); T.exp({x}); T.log({x}); T.sqrt({x}); T.abs({x}); T.sign({x}); T.sin({x})
T.cos({x}); T.tanh({x}); T.erf({x}); T.floor({x}); T.ceil({x}); T.round({x}); T.isnan({x}); T.isinf({x})
T.isfinite({x}); T.logical_not({x}); T.log1p({x}); T.expm1({x}); T.square({x}); T.rsqrt({x}); T.reciprocal({x})
T.log2({x}); T.log10({x}); T.nan_to_num({x}); T.trunc({x}); {x}.exp(); {x}.log(); {x}.sqrt(); {x}.abs(); {x}.sign()
{x}.sin(); {x}.cos(); {x}.tanh(); {x}.erf(); {x}.floor(); {x}.ceil(); {x}.round(); {x}.isnan(); {x}.isinf()
{x}.isfinite(); {x}.log1p(); {x}.square(); {x}.sigmoid(); {x}.relu(); T.clip({x}, {n}, {n}); T.clamp({x}, min={n})
{x}.clip(max={n}); {x}.clamp({n}, {n}); {x}.clamp(min={n}, max={n}); {x}.masked_fill({mask}, {n})
T.masked_fill({x}, {mask}, {n}); T.where({mask}, {x}, {y}); T.where({mask}, {x}, {n}); T.where({mask}, {n}, {x})
T.where({x} > 0, {x}, {y}); T.where({x} > 0, {x} / {y}, 0.0); {x}.where({mask}, {y}); {x}.to({dt}); {x}.float()
{x}.double(); {x}.half(); {x}.long(); {x}.int(); {x}.bool(); {x}.clone(); {x}.contiguous(); {x}.detach(); {f}.data
{x}.to({x}.dtype); {x}.item(); {x}.tolist(); {x}.numel(); {x}.dim(); {x}.size(); {x}.size({d}); len({x}); bool({x})
float({x}); int({x}); {x}.requires_grad; {x}.is_leaf; {x}.shape; {x}.ndim; T.sum({x}); T.sum({x}, {ds})
{x}.sum({ds}, keepdim={k}); {x}.sum(dim={ds}); {x}.sum(axis={ds}, keepdims={k}); T.mean({x}); T.mean({x}, {ds})
{x}.mean({ds}, keepdim={k}); {x}.mean(); T.var({x}); T.var({x}, {ds}, correction={c})
{x}.var({ds}, correction={c}, keepdim={k}); T.std({x}); {x}.std({ds}, correction={c}, keepdim={k}); {x}.std(dim={ds})
T.prod({x}); T.prod({x}, {d}); {x}.prod({d}, keepdim={k}); T.max({x}); {x}.max(); T.min({x}); {x}.min()
T.max({x}, {d}); {x}.max({d}, keepdim={k}); {x}.min({d}, keepdim={k}); {x}.max({d}).values; {x}.min({d})[1]
T.amax({x}, {ds}); {x}.amax({ds}, keepdim={k}); {x}.amin({ds}, keepdim={k}); T.argmax({x}); T.argmax({x}, {d})
{x}.argmax({d}, keepdim={k}); {x}.argmin({d}, keepdim={k}); {x}.argmin(); T.any({x}); {x}.any({d}, keepdim={k})
T.all({x}); {x}.all({d}); {x}.any(); T.logsumexp({x}, {ds}); {x}.logsumexp({d}, keepdim={k}); T.cumsum({x}, {d})
{x}.cumsum({d}); {x}.all(); {x}.norm(); {x}.median(); {x}.median({d}); {x}.var({d}, unbiased={k})
{x}.std(unbiased={k}); T.cumprod({x}, {d}); {x}.reshape({re}); {x}.view({re}); T.reshape({x}, {re}); {x}.flatten()
{x}.flatten({d}, {d}); T.flatten({x}, {d}); {x}.squeeze(); {x}.squeeze({d}); T.squeeze({x}); {x}.unsqueeze({d})
T.unsqueeze({x}, {d}); {x}.permute({perm}); {x}.permute(*{perm}); T.permute({x}, {perm}); {x}.transpose({d}, {d})
T.transpose({x}, {d}, {d}); {x}.expand({wide}); {x}.expand(*{wide}); {x}.T; {x}.mT; {x}.t()
T.flip({x}, [{d}]) ~ T.flip({x}, [{d}]); {x}.flip({d}); {x}.repeat({wide}); T.broadcast_to({x}, {wide})
{x}.expand_as({y}); {x}.view_as({same}); T.movedim({x}, {d}, {d}); {x}.swapaxes({d}, {d}); T.roll({x}, {e}, {d})
{x}.unbind({d}); T.tile({x}, {wide}); T.repeat_interleave({x}, {e}, {d}); {x}.narrow({d}, {e}, {e}); {x}[{idx}]
{x}[{idx}]; {x}[{idx}]; {x}[{idx}]; {x}[{idx}]; {x}[{mask}]; {x}[{x} > 0]; list({x}); {x}[{i}]
T.cat([{x}, {same}], {d}); T.cat([{x}, {same}]); T.cat([{x}, {y}], dim={d}); T.stack([{x}, {same}], {d})
T.stack([{x}, {y}]); T.cat([{x}]); T.cat([{x}, {x}], {d}); T.split({x}, {e}, {d}); {x}.split({e}, {d})
T.chunk({x}, {e}, {d}); {x}.chunk({e}); T.tril({x}, {e}); {x}.triu({e}); T.triu({x}); {x}.tril()
T.gather({x}, {d}, {pos}); {x}.gather({d}, {pos})
T.sort({x}, {d}, descending={k}) ~ T.sort({x}, dim={d}, descending={k}, stable=True); {x}.sort()[0]
T.argsort({x}, {d}) ~ T.argsort({x}, dim={d}, stable=True); {x}.sort({d}).values; T.topk({x}, {e}, {d})[0]
{x}.topk({e}).values; T.one_hot({small}, {e}); T.one_hot({small}); {x}.index_select({d}, {pos}); T.nonzero({x})
T.bincount({small}); T.scatter({x}, {d}, {pos}, {n}); T.zeros({shape}, dtype={dt}); T.ones({shape}, dtype={dt})
T.full({shape}, {n}, dtype={dt}); T.full({shape}, {n}); T.zeros({shape}); T.ones(*{shape}); T.arange({n})
T.arange({n}, {n}); T.arange({fn}, {fn}, {fn}); T.arange({e}, dtype={dt}); T.arange({fn}, {fn}, {fn}, dtype={dt})
T.linspace({fn}, {fn}, {e}); T.linspace({fn}, {fn}, {e}, dtype={dt}); T.eye({e}); T.eye({e}, {e}, dtype={dt})
T.zeros_like({x}); T.ones_like({x}); T.full_like({x}, {n}); T.zeros_like({x}, dtype={dt})
T.full_like({x}, {n}, dtype={dt}); T.ones_like({x}, dtype={dt}); T.zeros_like(T.rand_like({f})); T.tensor({n})
T.zeros_like(T.randn_like({f})); T.tensor([{n}, {n}]); T.tensor([{n}, {n}], dtype={dt})
T.zeros_like(T.empty({shape})); T.Tensor([{n}, {n}]); T.Tensor([{x}.tolist()]); T.tensor({n}, dtype={dt})
T.zeros_like(T.rand({shape}, dtype={fdt})); T.zeros_like(T.randint({e}, {e}, {shape}))
T.zeros_like(T.randn(*{shape}, dtype={fdt})); T.zeros_like(T.randperm({e})); T.tensor({x}.tolist())
{x}.new_zeros({shape}); T.zeros_like(T.empty({shape}, dtype={dt})); T.stack([{x}.sum(), {x}.sum()]); T.relu({x})
T.leaky_relu({x}); T.leaky_relu({x}, {n}); T.elu({x}); T.elu({x}, {n}); T.sigmoid({x}); T.softplus({x})
T.softplus({x}, {n}); T.silu({x}); T.gelu({x}); T.gelu({x}, approximate='tanh'); T.softmax({x}, {d})
T.softmax({x}, dim={d}); T.log_softmax({x}, dim={d}); {x}.softmax({d}); T.dropout({x}, 0.0)
T.dropout({x}, 0.5, False); T.dropout({x}, 1.0); T.logsigmoid({x})
T.hardsigmoid({x}); T.linear({x}, {w}); T.linear({x}, {w}, {v1}); T.mse_loss({x}, {same})
T.l1_loss({x}, {same}); T.huber_loss({x}, {same}); T.smooth_l1_loss({x}, {same})
T.mse_loss({x}, {same}, reduction={red}); T.l1_loss({x}, {same}, reduction={red})
T.huber_loss({x}, {same}, {red}, {pn}); T.smooth_l1_loss({x}, {same}, reduction={red}, beta={pn})
T.kl_div({f}, {same}, reduction={red}); T.mse_loss({x}, {y}); T.kl_div({f}, {same}, reduction={red}, log_target={k})
T.binary_cross_entropy({p}, {sp}, reduction={red}); T.binary_cross_entropy_with_logits({f}, {sp}, reduction={red})
T.binary_cross_entropy({f}, {same}); T.cross_entropy({f}, {lab})
T.cross_entropy({f}, {lab}, reduction={red}, label_smoothing=0.25); T.nll_loss({f}, {lab})
T.cross_entropy({f}, {lab}, ignore_index=1, reduction={red}); T.nll_loss({f}, {lab}, ignore_index=0, reduction={red})
T.cross_entropy({f}, {same}); T.cross_entropy({f}, {same}, reduction={red}); T.pad({x}, ({e}, {e}))
T.pad({x}, ({e}, {e}), value={n}); T.layer_norm({x}, ({x}.shape[-1],)); T.layer_norm({x}, {x}.shape)
T.max_pool2d({f}, {e}); T.avg_pool2d({f}, {e}); T.interpolate({f}, scale_factor=2); T.max_pool1d({f}, {e})
T.avg_pool1d({f}, {e}, stride=1); T.adaptive_avg_pool2d({f}, {e}); T.group_norm({f}, {e})
T.grad({out}.sum(), {leaf}, retain_graph=True); T.grad({out}.sum(), {leaf}, create_graph=True)[0]
T.grad({out}.sum(), {leaf}, create_graph=True, allow_unused=True)[0]
T.grad({out}, {leaf}, {out}.detach(), retain_graph=True)[0]; {x} + {np}; {x} * {np}; {x} / {np}; {x} ** {np}
{x}.clip(max={np}); {x} > {np}; {x}.masked_fill({mask}, {np}); {x}.sum(np.int64({d})); {x}[np.int64({d})]
T.full({shape}, {np}); T.tensor({np}); T.from_numpy(array({x}.tolist())); T.tensor(array({x}.tolist()))
T.tensor([{x}.sum(), {x}.sum()]); T.where({mask}, {n}, {n}); T.from_numpy({x}.detach().numpy()); {x}[{idx}][{idx}]
{x}[{idx}].sum(); ({x} * 2)[{idx}]; {x}.unsqueeze(-1)[{idx}]; {x} @ {x}.T; {x} @ {same}.mT; {x} @ {w}.T
"""

WRITES = """
{x} += {y}; {x} -= {y}; {x} *= {y}; {x} /= {y}; {x} += {n}; {x} -= {n}; {x} *= {n}; {x} /= {n}; {x} //= {n}
{x} **= {n}; {x} &= {y}; {x} |= {y}; {x} %= {n}; {x}.fill_({n}); {x}.zero_(); {x}.copy_({y}); {x}[{idx}] = {n}
{x}[{idx}] = {y}; {x}[{idx}] += {n}; {x}[{idx}] *= {y}; {x}[{mask}] = {n}; {x}[{x} > 0] = {n}; {x}[{x} > 0] *= {n}
{x}.add_({y}); {x}.mul_({n}); {x}.sub_({n}); {x}.div_({n}); {f}.data.copy_({y}); {f}.data.fill_({n}); {f}.data += {n}
{f}.data[{idx}] = {n}; {x}.detach().zero_(); {x}.requires_grad_(); {x}.requires_grad_(False); {x}.fill_({np})
{x}[{idx}][{idx}] = {n}; {x}.requires_grad = {k}; {f}.data = {same}; with T.no_grad(): {x} += {y}
with T.no_grad(): {x}[{idx}] = {n}; with T.no_grad(): {x}.copy_({y}); with T.no_grad(): {x} *= {n}
with T.no_grad(): {x}[{mask}] = {n}
"""

SHAPES = [*SHAPES, (4,), (3, 3), (2, 1)]
FLOATS, INTEGERS = ["float32", "float64", "float16"], ["int64", "int32", "uint8"]
DTYPES = [*FLOATS, *INTEGERS, "bool"]
USUAL = [*["float32"] * 4, *DTYPES]
NUMBERS = "0 1 2 3 -1 -2 300 0.5 -1.5 2.0 0.0 1e-3 inf -inf nan True False".split()
SPECIAL = {
    "float16": [np.inf, -np.inf, np.nan, 60000.0, -0.0, 1e-4, 2049.0],
    "float32": [np.inf, -np.inf, np.nan, 3e38, -0.0, 1e-40, 16777217.0, 1e10],
    "float64": [np.inf, -np.inf, np.nan, 1e308, -0.0, 1e-310, 1e40],
    "int64": [2**62, -(2**63), 2**53 + 1, 300],
    "int32": [2**31 - 1, -(2**31), 300],
    "uint8": [255, 128, 200],
}
OPERATIONS = {  # torch has no gelu_slope, and the long tail is compared by its own table
    op.name: op for op in [*OPS, *SPATIAL] if op.name != "gelu_slope" and op not in LONG_TAIL
}

# ## One line, two libraries

OURS = {"tt": tt, "ta": ta, "ts": ts}
THEIRS = {"torch.nn.functional": torch.nn.functional, "torch": torch, "torch.autograd": torch.autograd}
WORD = re.compile(r"\bT\.(\w+)")
VARIABLE = re.compile(r"\bx\d+\b")
UNSEEN = re.compile(r"^x\d+\.data(\[.*\])*( [-+*/%&|^]*=|\.\w+_\()")  # a write that torch's record does not see
TARGET = re.compile(r"(x\d+) = ")


def _home(name: str, modules: dict) -> str | None:
    """The name with the module that has it."""
    homes = (
        f"{alias}.{name}"
        for alias, m in modules.items()
        if hasattr(m, name) and not isinstance(getattr(m, name), ModuleType)
    )
    return next(homes, None)


def in_ours(line: str) -> str:
    """A line of a program as one that runs here."""
    line = line.partition(" ~ ")[0].replace("T.bool", "T.bool_")
    return WORD.sub(lambda m: _home(m[1], OURS) or f"tt.{m[1]}", line)


def in_torch(line: str) -> str:
    """A line of a program as one that runs in torch."""
    ours, _, theirs = line.partition(" ~ ")
    target = TARGET.match(ours)
    line = (target[0] if target else "") + theirs if theirs else ours
    return WORD.sub(lambda m: _home(m[1], THEIRS) or f"torch.{m[1]}", line)


def in_float64(line: str) -> str:
    """A line of a program as one that runs in torch, with all its floats in float64."""
    wide = re.sub(
        r"float(16|32)|(?<=\.)(float|half)(?=\(\))", lambda m: "float64" if m[1] else "double", in_torch(line)
    )
    return f"with wide_floats(): {wide}" if not wide.startswith("with ") else wide


@contextmanager
def wide_floats() -> Iterator[None]:
    """A block in which torch makes float64 where it would make float32."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def names_in(template: str) -> set[str]:
    """The public functions, as `T.name`, and methods, as `.name`, in a line of the catalogue."""
    ours = template.partition(" ~ ")[0]
    return {f"T.{name}" for name in WORD.findall(ours)} | set(re.findall(r"(?<=[})\]])\.[a-zA-Z]\w*", ours))


def _is_known(template: str) -> bool:
    """Do we have everything that a line of the catalogue names?"""
    functions = [n[2:] for n in names_in(template) if n[0] == "T"]
    methods = [n[1:] for n in names_in(template) if n[0] == "."]
    return all(_home(n, OURS) for n in functions) and all(hasattr(tt.Tensor, n) or n == "values" for n in methods)


def _lines_of(catalogue: str) -> list[str]:
    return [line for part in re.split("[;\n]", catalogue) if (line := part.strip()) and _is_known(line)]


CALLS, CHANGES = _lines_of(CATALOGUE), _lines_of(WRITES)


# ## What is compared
#
# A tensor of ours and one of torch become the same plain data.


@dataclass
class Value:
    """A tensor as plain data."""

    dtype: str
    array: np.ndarray
    requires_grad: bool

    def __str__(self):
        recorded = " requires_grad" if self.requires_grad else ""
        return f"{self.array.tolist()} {self.dtype} {self.array.shape}{recorded}"


def plain(value: Any) -> Any:
    """A result of either library as plain data."""
    if isinstance(value, tt.Tensor):
        return Value(str(value.dtype), value.numpy().copy(), value.requires_grad)
    if isinstance(value, torch.Tensor):
        return Value(_dtype(value), value.numpy(force=True).copy(), value.requires_grad)
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    return value


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else type(value).__name__


TOLERANCE = {"float16": 4e-3, "float32": 3e-5, "float64": 1e-9}


def difference(ours: Any, theirs: Any, slack: float = 1.0) -> str | None:
    """In what two plain values differ, in one word; None if they agree."""
    if isinstance(theirs, tuple):
        if not isinstance(ours, tuple) or len(ours) != len(theirs):
            return "kind"
        return next((found for pair in zip(ours, theirs) if (found := difference(*pair, slack))), None)
    if type(ours) is not type(theirs):
        return "kind"
    if isinstance(theirs, float):
        return None if np.isclose(ours, theirs, rtol=3e-5, atol=1e-6, equal_nan=True) else "value"
    if not isinstance(theirs, Value):
        return None if ours == theirs else "value"
    for what in ("dtype", "requires_grad"):
        if getattr(ours, what) != getattr(theirs, what):
            return what
    if ours.array.shape != theirs.array.shape:
        return "shape"
    return None if near(ours.array, theirs.array, slack) else "value"


def near(ours: np.ndarray, theirs: np.ndarray, slack: float = 1.0) -> bool:
    """Equal up to rounding, relative to the largest finite number, with inf and nan in the same places."""
    if ours.tobytes() == theirs.tobytes():
        return True
    if theirs.dtype.kind != "f":
        return False
    rate = TOLERANCE[str(theirs.dtype)] * slack
    finite = np.abs(theirs[np.isfinite(theirs)].astype(np.float64))
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    return np.allclose(ours, theirs, rate, rate * finite.max(initial=1e-3), equal_nan=True)


# ## Running a program
#
# A line that both libraries refuse makes no difference, unless our words are Python's or NumPy's, or the refused line
# has changed numbers. Nor does rounding. A value is compared again with what torch makes of our operands; a gradient is
# compared with the one that torch finds when the whole program runs in float64.


@dataclass
class Finding:
    """One difference: its kind, the line that showed it, what each side gave, and the program up to that line."""

    kind: str
    line: str
    ours: str = ""
    theirs: str = ""
    dtypes: tuple[str, ...] = ()
    template: str = ""
    lines: list[str] = field(default_factory=list)


OUR_ERRORS = (ValueError, TypeError, IndexError, RuntimeError)
NOT_OUR_WORDS = re.compile(
    r"ufunc|ndarray|numpy\.|operands could|axis|axes|array\(|array |Traced|Reducing|LongTail|Storage|Casting|__\w+__"
    r"|unsupported operand|not supported between|cannot interpret|NoneType|read-only|out of bounds for \w+$"
)
# Where two numbers that differ by rounding may lie on two sides of a corner or a step.
CORNERS = re.compile(
    r"relu|abs|clip|clamp|max|min|sort|topk|floor|ceil|round|where|sign|elu|l1_|huber|norm|prod|std|var|[<>%]|//|=="
)
_functions = [
    {name: op.function for name, op in OPERATIONS.items()},
    {name: op.in_torch(torch) for name, op in OPERATIONS.items()},
]
_code = functools.lru_cache(20_000)(functools.partial(compile, filename="<program>", mode="exec"))


def _names(op: dict, **modules: Any) -> dict:
    """What a program finds before its first line."""
    return {"op": op, "inf": np.inf, "nan": np.nan, "array": np.array, "np": np, **modules}


def our_names() -> dict:
    """What a program of ours finds before its first line."""
    return _names(_functions[0], **OURS)


def torch_names() -> dict:
    """What a program of torch finds before its first line."""
    return _names(_functions[1], torch=torch, wide_floats=wide_floats)


def run_line(text: str, names: dict) -> Exception | None:
    """Run one line; the exception that it raises, if any."""
    try:
        exec(_code(text), names)
    except Exception as error:
        return error
    return None


class Pair:
    """The same program in both libraries, run line by line."""

    def __init__(self, lines: Sequence[str] = ()):
        self.lines: list[str] = []
        self.ours, self.theirs = our_names(), torch_names()
        for line in lines:
            self.run(line)

    def tensors(self) -> dict[str, Any]:
        """The tensors of the program, as torch's."""
        return {
            n: v
            for n, v in self.theirs.items()
            if isinstance(v, torch.Tensor) and isinstance(self.ours.get(n), tt.Tensor)
        }

    def run(self, line: str) -> Finding | None:
        """Run a line in both; the difference that it makes, if any. A line that both refuse is left out."""
        read = dict.fromkeys(n for n in VARIABLE.findall(line) if n in self.theirs)
        found = functools.partial(Finding, line=line, dtypes=tuple(_dtype(self.theirs[n]) for n in read))
        target = TARGET.match(line)
        before = {} if target else self._bytes()
        ours, theirs = run_line(in_ours(line), self.ours), run_line(in_torch(line), self.theirs)
        if ours is not None and before and before != self._bytes():
            return found("half written", ours=_told(ours), theirs=_told(theirs))
        if isinstance(ours, NameError) or isinstance(theirs, NameError):
            return found("unknown name")
        if (ours is None) != (theirs is None):
            kind = "we refuse" if ours else "torch refuses"
            return found(kind, ours=_told(ours, self.ours, target), theirs=_told(theirs, self.theirs, target))
        if ours is not None:
            foreign = type(ours) not in OUR_ERRORS or NOT_OUR_WORDS.search(str(ours))
            words = found("words", ours=_told(ours), theirs=_told(theirs))
            return words if foreign and str(ours) != str(theirs) else None
        self.lines.append(line)
        if ".backward(" in line:
            return self._compare_gradients(found)
        return self._compare(found, [target[1]] if target else list(self.tensors()))

    def _bytes(self) -> dict[str, bytes]:
        return {n: v.numpy().tobytes() for n, v in self.ours.items() if isinstance(v, tt.Tensor)}

    def _compare(self, found, names: Sequence[str]) -> Finding | None:
        for name in names:
            a, b = plain(self.ours[name]), plain(self.theirs[name])
            if kind := difference(a, b):
                line = found.keywords["line"]
                if kind == "value":
                    right = self._only_rounding(line, name, a, b) if TARGET.match(line) else self._nearly(a, b, line)
                    kind = "rounding" if right else kind
                return found(kind, ours=f"{name} = {_shown(a)}", theirs=f"{name} = {_shown(b)}")
        return None

    def _nearly(self, ours: Value, theirs: Value, line: str) -> bool:
        """Equal up to the rounding of the narrowest floats in the program, from which the numbers may have come?"""
        if re.search("(%|//)=", line):  # what was a little below a step may be a little above it
            return ours.dtype in TOLERANCE
        if re.search(r"(\*\*|/)=", line) and near(abs(ours.array), abs(theirs.array)):  # of a zero with another sign
            return True
        widths = [TOLERANCE[d] for t in self.tensors().values() if (d := _dtype(t)) in TOLERANCE]
        return theirs.dtype in TOLERANCE and near(ours.array, theirs.array, 10 * max(widths) / TOLERANCE[theirs.dtype])

    def _only_rounding(self, line: str, name: str, ours: Any, theirs: Any) -> bool:
        """Does torch agree when it gets the numbers that our line had, or is ours about as exact as torch's?"""
        if "T.grad(" in line:
            exact = plain(self._in_float64().get(name))
            return self._at_a_corner() or _lost(ours, theirs) or _as_exact(ours, theirs, exact)
        answers = []
        for wide in (False, True):
            names = torch_names()
            for n in VARIABLE.findall(line):
                if n != name and isinstance(mine := self.ours.get(n), tt.Tensor):
                    floats = wide and mine.dtype.kind == "f"
                    array = mine.numpy().astype(np.float64) if floats else mine.numpy().copy()
                    names[n] = torch.from_numpy(array).requires_grad_(mine.requires_grad)
            if run_line(in_float64(line) if wide else in_torch(line), names) is not None:
                return False
            answers.append(plain(names[name]))
        theirs, exact = answers
        narrow = [_dtype(self.theirs[n]) for n in VARIABLE.findall(line) if n in self.theirs and n != name]
        rate = max((TOLERANCE[dtype] for dtype in narrow if dtype in TOLERANCE), default=0.0)
        slack = max(1.0, rate / TOLERANCE.get(getattr(theirs, "dtype", ""), math.inf))
        return difference(ours, theirs, slack) is None or _as_exact(ours, theirs, exact)

    def _compare_gradients(self, found) -> Finding | None:
        for name, theirs in self.tensors().items():
            ours = self.ours[name]
            if not (ours.is_leaf and theirs.is_leaf):
                continue
            a, b = plain(ours.grad), plain(theirs.grad)
            if kind := difference(a, b, slack=10):
                return found(
                    self._kind_of_gradient(kind, name, a, b, found.keywords["line"]),
                    ours=f"{name}.grad = {_shown(a)}",
                    theirs=f"{name}.grad = {_shown(b)}",
                )
        return None

    def _kind_of_gradient(self, kind: str, name: str, ours: Value, theirs: Value, line: str) -> str:
        if kind == "value":
            if self._at_a_corner() or _lost(ours, theirs) or self._nearly(ours, theirs, line):
                return "rounding"
            if self._as_exact_as_torch(name, ours, theirs):
                return "rounding"
            if self._before_the_writes(name, ours):
                return "gradient of what was written"
            if difference(*(replace(v, array=np.sort(v.array, axis=None)) for v in (ours, theirs)), slack=10) is None:
                return "gradient in another order"
        return f"gradient: {kind}"

    def _before_the_writes(self, name: str, ours: Value) -> bool:
        """Is ours the gradient of what was computed, where torch's is that of numbers written into `.data` later?"""
        if not any(map(UNSEEN.search, self.lines)):
            return False
        names = torch_names()
        for line in self.lines:
            if not UNSEEN.search(line):
                run_line(in_torch(line), names)
        return difference(ours, plain(getattr(names.get(name), "grad", None)), slack=10) is None

    def _at_a_corner(self) -> bool:
        """Is there a line with a corner or a step whose operands differ by rounding?"""
        equal = lambda n: np.array_equal(
            *(plain(side[n]).array for side in (self.ours, self.theirs)),
            equal_nan=plain(self.ours[n]).array.dtype.kind == "f",
        )
        tensors = self.tensors()
        corners = filter(CORNERS.search, self.lines[:-1])
        return any(n in tensors and not equal(n) for line in corners for n in VARIABLE.findall(line))

    def _as_exact_as_torch(self, name: str, ours: Value, theirs: Value) -> bool:
        """Is our gradient about as near to the one in float64 as torch's is?"""
        return _as_exact(ours, theirs, plain(getattr(self._in_float64().get(name), "grad", None)))

    def _in_float64(self) -> dict:
        """What torch finds when all floats of the program are in float64."""
        names = torch_names()
        for line in self.lines:
            run_line(in_float64(line), names)
        return names


def _lost(ours: Any, theirs: Any) -> bool:
    """Do they differ only in whether a lost number is inf or nan?"""
    if isinstance(theirs, tuple):
        return all(map(_lost, ours, theirs))
    if difference(ours, theirs) != "value" or not isinstance(theirs, Value):
        return difference(ours, theirs) is None
    finite = np.isfinite(theirs.array)
    return bool((np.isfinite(ours.array) == finite).all() and near(ours.array[finite], theirs.array[finite], 10))


def _as_exact(ours: Any, theirs: Any, exact: Any) -> bool:
    """Is each of our numbers torch's, or about as near to the exact one as torch's are?"""
    if isinstance(theirs, tuple) and isinstance(exact, tuple):
        return all(map(_as_exact, ours, theirs, exact))
    if not isinstance(exact, Value) or exact.array.shape != theirs.array.shape or theirs.dtype not in TOLERANCE:
        return False
    with np.errstate(all="ignore"):
        a, b, right = (np.float64(v) for v in (ours.array, theirs.array, exact.array.astype(theirs.dtype)))
        error, allowed = abs(a - right), abs(b - right)
        largest = abs(right[np.isfinite(right)]).max(initial=0)
        bound = 8 * allowed[np.isfinite(allowed)].max(initial=0) + 10 * TOLERANCE[theirs.dtype] * largest
    same = (a == b) | (a == right) | (np.isnan(a) & (np.isnan(b) | np.isnan(right)))
    same |= np.isinf(b) & (abs(a) > np.finfo(theirs.dtype).max / 1000)  # the order of a sum decides
    return bool((same | (error <= bound)).all())


def _told(error: Exception | None, names: dict | None = None, target: re.Match | None = None) -> str:
    """An error in one line, or what came out instead."""
    if error is not None:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return f"{target[1]} = {_shown(plain(names[target[1]]))}" if target and names else "no error"


def _shown(value: Any) -> str:
    return f"({', '.join(map(_shown, value))})" if isinstance(value, tuple) else str(value)


# ## Writing a program
#
# The next line is drawn with a look at the tensors that torch has by then, so that most lines are possible and some are
# not.


class Author:
    """Writes a program line by line, at random. The methods `a_...` draw what stands in braces in the catalogue."""

    def __init__(self, seed: int, number: int):
        self.random = np.random.default_rng([seed, number])
        self.pair = Pair()
        self.count = 0
        self.base: str | None = None  # the first tensor of the line: the others are drawn to fit it

    def pick(self, options: Sequence) -> Any:
        return options[self.random.integers(len(options))]

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def new_name(self) -> str:
        self.count += 1
        return f"x{self.count}"

    # Lines.

    def line(self) -> tuple[str, str]:
        """The next line, and what it was made from."""
        if self.chance(0.15):
            return self.from_table()
        template = self.pick(CHANGES) if self.chance(0.18) else self.pick(CALLS)
        self.base = None
        words = re.findall(r"\{(\w+)\}", template.partition(" ~ ")[0])
        drawn = [str(getattr(self, f"a_{word}")()) for word in words]
        sides = [re.sub(r"\{\w+\}", "{}", side).format(*drawn) for side in template.split(" ~ ")]
        return ("" if template in CHANGES else f"{self.new_name()} = ") + " ~ ".join(sides), template

    def from_table(self) -> tuple[str, str]:
        """An operation of the tables, on new tensors or on those of the program that have the right shape."""
        op = OPERATIONS[self.pick(list(OPERATIONS))]
        sample, dtype = op.sampler(AtRandom(int(self.random.integers(2**31)))), self.pick([*["float32"] * 3, *FLOATS])
        watched, names = op.watched(sample), []
        for i, array in enumerate(sample.arrays):
            having = self.having([dtype] if self.chance(0.9) else FLOATS, array.shape)
            fitting = [n for n in having if i in watched or not self.pair.theirs[n].requires_grad]
            if array.dtype.kind == "f" and fitting and self.chance(0.3):
                names.append(self.pick(fitting))
            elif array.dtype.kind == "f":
                names.append(self.leaf(dtype, array.shape, np.round(array * 8) / 8, i in watched))
            else:
                names.append(self.leaf(str(array.dtype), array.shape, array))
        options = "".join(f", {key}={_text(value)}" for key, value in sample.options.items())
        return f"{self.new_name()} = op[{op.name!r}]({', '.join(names)}{options})", f"op[{op.name!r}]"

    def ways_back(self) -> Iterator[str]:
        """Lines that go back from up to four results."""
        recorded = self.recorded()
        for name in recorded[-3:] + recorded[:1]:
            if self.chance(0.25):
                yield f"{name}.sum().backward(retain_graph=True)"
            else:
                t = self.pair.theirs[name]
                yield f"{name}.backward({self.literal(_dtype(t), tuple(t.shape))}, retain_graph=True)"

    # Tensors.

    def having(self, dtypes: Sequence[str], shape: tuple | None = None) -> list[str]:
        """The tensors of the program with one of these dtypes, and this shape."""
        fits = lambda t: _dtype(t) in dtypes and t.numel() <= 64 and (shape is None or tuple(t.shape) == tuple(shape))
        return [n for n, t in self.pair.tensors().items() if fits(t)]

    def recorded(self) -> list[str]:
        """The results that both libraries can go back from."""
        return [
            n for n in self.having(FLOATS) if self.pair.theirs[n].grad_fn is not None and not self.pair.ours[n].is_leaf
        ]

    def tensor(self, dtypes: Sequence[str] = DTYPES) -> str:
        """A tensor of the program, preferably a late one, or a new one."""
        names = self.having(dtypes)
        if not names or self.chance(0.15):
            return self.leaf(self.pick(USUAL if dtypes is DTYPES else dtypes))
        return names[-1] if self.chance(0.4) else self.pick(names)

    def leaf(self, dtype: str | None = None, shape: tuple | None = None, values=None, watched: bool = True) -> str:
        """A new tensor; `values` is an array or a function of the shape."""
        dtype, shape = dtype or self.pick(USUAL), self.pick(SHAPES) if shape is None else tuple(shape)
        text = self.literal(dtype, shape, values(shape) if callable(values) else values)
        if watched and dtype in FLOATS and self.chance(0.6):
            text += ".requires_grad_()"
        name = self.new_name()
        found = self.pair.run(f"{name} = {text}")
        assert found is None, found
        return name

    def literal(self, dtype: str, shape: tuple, values: np.ndarray | None = None) -> str:
        """The text of a tensor, of numbers that add and multiply exactly, one of them special now and then."""
        if 0 in shape:
            return f"T.zeros({shape}, dtype=T.{dtype})"
        if values is None:
            values = self.random.integers(-8 if dtype in FLOATS else -3, 9, shape)
            values = np.abs(values) if dtype == "uint8" else values % 2 == 0 if dtype == "bool" else values
            values = np.asarray(values / 4 if dtype in FLOATS else values, None if dtype in FLOATS else object)
            if dtype != "bool" and self.chance(0.15):
                values.flat[self.random.integers(values.size)] = self.pick(SPECIAL[dtype])
        return f"T.tensor({np.asarray(values).tolist()}, dtype=T.{dtype})"

    @property
    def shape(self) -> tuple:
        self.base = self.base or self.tensor()
        return tuple(self.pair.theirs[self.base].shape)

    @property
    def dtype(self) -> str:
        return _dtype(self.pair.theirs[self.base]) if self.shape is not None else ""

    def like(self, shape: tuple, values=None, p: float = 0.8) -> str:
        """A new tensor, mostly of the first one's dtype."""
        return self.leaf(self.dtype if self.chance(p) else None, shape, values)

    def a_x(self):
        self.base = self.base or self.tensor()
        return self.base

    def a_f(self):
        self.base = self.base or self.tensor(FLOATS)
        return self.base

    def a_i(self):
        return self.tensor(INTEGERS)

    def a_small(self):
        self.base = self.leaf(self.pick(INTEGERS), None, lambda shape: self.random.integers(0, 4, shape))
        return self.base

    def a_y(self):
        fitting = [n for n in self.having(DTYPES) if _broadcast(self.pair.theirs[n].shape, self.shape)]
        if self.chance(0.1) or (fitting and self.chance(0.6)):
            return self.pick(fitting) if fitting else self.tensor()
        last = self.shape[-1:]
        partners = [self.shape, (), last, (*self.shape[:-1], *(1 for _ in last)), self.shape[1:]]
        return self.like(self.pick(partners), p=0.5)

    def a_same(self):
        fitting = self.having(DTYPES, self.shape)
        return self.pick(fitting) if fitting and self.chance(0.7) else self.like(self.shape, p=0.7)

    def a_mask(self):
        shape = self.pick([self.shape, self.shape, self.shape[1:], self.shape[:1]])
        return self.leaf("bool" if self.chance(0.9) else None, shape)

    def a_p(self):
        self.base = self.leaf(self.pick(FLOATS), None, lambda shape: self.random.integers(0, 5, shape) / 4)
        return self.base

    def a_sp(self):
        return self.like(self.shape, self.random.integers(0, 5, self.shape) / 4 if self.dtype in FLOATS else None)

    def a_w(self):
        self.rows = self.pick([1, 2])
        return self.like((self.rows, *self.shape[-1:]))

    def a_v1(self):
        return self.like((self.rows,))

    def a_lab(self):
        wanted = (*self.shape[:1], *self.shape[2:]) if len(self.shape) > 1 else ()
        classes = max((*self.shape, 1, 1)[1 if len(self.shape) > 1 else 0], 1)
        dtype = "int64" if self.chance(0.9) else self.pick(INTEGERS)
        return self.leaf(dtype, wanted, self.random.integers(0, classes, wanted))

    def a_pos(self):
        n, dim = len(self.shape), self.dim % max(len(self.shape), 1)
        size = self.shape[dim] if n else 1
        wanted = tuple(self.pick([m, m, 1, 2]) if d == dim else m for d, m in enumerate(self.shape))
        dtype = "int64" if self.chance(0.9) else self.pick(DTYPES)
        return self.leaf(dtype, wanted, self.random.integers(0, max(size + self.chance(0.05), 1), wanted))

    def a_out(self):
        names = self.recorded()
        return self.pick(names) if names else self.tensor(FLOATS)

    def a_leaf(self):
        names = [n for n in self.having(FLOATS) if self.pair.theirs[n].is_leaf and self.pair.theirs[n].requires_grad]
        return self.pick(names) if names else self.tensor(FLOATS)

    # Arguments.

    def a_dt(self):
        return f"T.{self.pick(DTYPES)}"

    def a_n(self):
        return self.pick(NUMBERS)

    def a_fdt(self):
        return f"T.{self.pick(FLOATS)}"

    def a_fn(self):
        return self.pick([n for n in NUMBERS if n.strip("-") not in ("inf", "nan")])

    def a_pn(self):
        return self.pick(["1", "2", "0.5", "3.0", "1e-3"])

    def a_np(self):
        return self.pick(["np.float64(1.5)", "np.float32(0.5)", "np.int64(2)", "np.float16(2)"])

    def a_e(self):
        return self.pick([0, 1, 2, 2, 3, -1])

    def a_c(self):
        return self.pick([0, 1, 1, 2])

    def a_k(self):
        return self.pick([True, False])

    def a_red(self):
        return self.pick(["'mean'", "'sum'", "'none'"])

    def a_shape(self):
        return self.pick(SHAPES)

    def a_d(self):
        n = max(len(self.shape), 1)
        self.dim = self.pick([*range(-n, n)] * 3 + [n])
        return self.dim

    def a_ds(self):
        if len(self.shape) > 1 and self.chance(0.3):
            return tuple(int(d) for d in self.random.permutation(len(self.shape))[: self.pick([1, 2])])
        return None if self.chance(0.1) else self.a_d()

    def a_perm(self):
        order = tuple(int(d) for d in self.random.permutation(len(self.shape)))
        return order if self.chance(0.95) else (*order, 0)

    def a_re(self):
        count = math.prod(self.shape)
        possible = [(count,), self.shape[::-1], (1, *self.shape), (-1,), (*self.shape, 1), (-1, 1), self.shape]
        return self.pick([*possible, (2, -1), (count, -1), (count + 1,)])

    def a_wide(self):
        wider = tuple(self.pick([2, 3, 4]) if n == 1 and self.chance(0.8) else n for n in self.shape)
        return self.pick([wider, (2, *wider), tuple(-1 for _ in wider), (2, 1, *wider), (0, *wider)])

    def a_idx(self):
        """An index for the first tensor: numbers, slices, lists, tensors, masks, new dimensions."""
        parts, used = [], 0
        while used < len(self.shape) and self.chance(0.75):
            parts.append(self._index_part(self.shape[used]))
            used += 1
            if self.chance(0.1):
                parts.append("None")
            if self.chance(0.08) and "..." not in parts:
                parts.append("...")
                used += self.pick([0, max(len(self.shape) - used - 1, 0)])
        return ", ".join(parts) or self.pick(
            ["...", "None", "()", "(..., None)", "True", *([":", "[]"] if self.shape else ["False"])]
        )

    def _index_part(self, n: int) -> str:
        at = lambda: int(self.random.integers(-n, n)) if n and self.chance(0.95) else self.pick([0, n])
        several = lambda: [at() for _ in range(self.pick([1, 2, 3]))]
        mask = (self.random.random(n) < 0.5).tolist() if n else ":"
        return str(self.pick([
            at(), at(), at(), ":", ":", "1:", ":-1", "::2", "5:", "-2:", ":0", "1:2", self.pick([*[":1"] * 9, "::-1"]),
            several(), f"T.tensor({several()})", f"T.tensor({at()})", f"T.tensor({[several()]})", mask,
            f"T.tensor({mask})" if n else ":", f"T.tensor({several()}, dtype=T.{self.pick(DTYPES)})",
        ]))  # fmt: skip


def _text(value: Any) -> str:
    """An option of an operation as Python."""
    if isinstance(value, np.ndarray):
        return f"array({value.tolist()}, {value.dtype.name!r}).reshape({value.shape})"
    return f"({''.join(f'{_text(v)}, ' for v in value)})" if isinstance(value, tuple) else repr(value)


def _broadcast(a: Sequence[int], b: Sequence[int]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b)))


# ## Differences on purpose
#
# `site/differences.md` has a line for each of them, which begins with the same words. The example is a program whose
# last line shows the difference.


@dataclass(frozen=True)
class OnPurpose:
    """A difference that we want, what findings of it look like, and a program that shows it."""

    what: str
    kind: str
    example: str
    line: str = ""
    ours: str = ""
    theirs: str = ""
    dtypes: str = ""
    program: str = ""

    def explains(self, found: Finding) -> bool:
        names = ("kind", "line", "ours", "theirs")
        same = all(re.search(getattr(self, name), getattr(found, name)) for name in names)
        program = "\n".join([*found.lines, found.ours.split(" = ")[0]])  # at its end, which tensor differs
        return bool(same and re.search(self.dtypes, " ".join(found.dtypes)) and re.search(self.program, program))


NO_SUCH_KERNEL = (
    r"not implemented for '(Bool|Byte|Int|Long)'|only support floating point|could not infer output dtype"
    r"|does(n't| not) support bool|(Boolean|bool) inputs? not supported|do not support bool|Subtraction, the"
)
NOTHING = r"^x\d+ = [\[\], (]+ \w+ \(|^no error$"  # torch checks little when it computes nothing
WRITE = r"^(?!x\d+ = )(with .*: )?x\d+(\.data|\.detach\(\)|\[.*\])*( [-+*/%&|^]*=|\.\w+_\()"
ON_PURPOSE = [
    # What we refuse.
    OnPurpose(
        "writing a recorded value into a view",
        "we refuse",
        "x1 = T.zeros(2); x2 = x1[0:1]; x3 = T.ones(1).requires_grad_(); x2 += x3",
        line=WRITE,
        ours="record|in place",
    ),
    OnPurpose(
        "going back after a write",
        "we refuse",
        "x1 = T.ones(2).requires_grad_(); x2 = x1 + 1; x2.data.zero_(); x2.backward(T.ones(2))",
        line="backward|grad",
        ours="changed in place",
    ),
    OnPurpose("`.T` of three dimensions", "we refuse", "x1 = T.zeros(2, 1, 1); x2 = x1.T", ours=r"\.T is for matrices"),
    OnPurpose(
        "losses of unequal shapes",
        "we refuse",
        "x1 = T.zeros(2, 1); x2 = T.zeros(2); x3 = T.mse_loss(x1, x2)",
        line="_loss",
        ours="shape",
    ),
    OnPurpose(
        "a wrong call on an empty tensor",
        "we refuse",
        "x1 = T.zeros(0, 2); x2 = x1[:, T.tensor([5])]",
        ours="out of range|integers, not|an index of int64|zero|positive size|dtypes|values of shape|do not broadcast"
        "|is not possible",
        theirs=NOTHING,
    ),
    OnPurpose(
        "labels without classes",
        "we refuse",
        "x1 = T.zeros(0); x2 = T.tensor(0); x3 = T.nll_loss(x1, x2, ignore_index=0, reduction='sum')",
        line="nll_loss|cross_entropy",
        ours="has size 0",
    ),
    OnPurpose(
        "writing where elements share memory",
        "we refuse",
        "x1 = T.zeros(1).expand(3); x1[0] = 1.0",
        ours="cannot be written to",
    ),
    OnPurpose(
        "pooling of images without pixels",
        "we refuse",
        "x1 = T.zeros(2, 0, 3); x2 = T.adaptive_avg_pool2d(x1, 1)",
        line="pool",
        ours="at least 1",
    ),
    OnPurpose(
        "integers to the power of negative integers",
        "we refuse",
        "x1 = T.tensor([2]); x2 = T.tensor([-1]); x3 = x1 ** x2",
        line=r"\*\*|pow",
        ours="negative",
    ),
    OnPurpose(
        "joining with an empty vector",
        "we refuse",
        "x1 = T.zeros(0); x2 = T.cat([x1, x1], 1)",
        line=r"T\.cat",
        ours="dimension",
    ),
    OnPurpose(
        "a mask of uint8", "we refuse", "x1 = T.tensor([1, 0], dtype=T.uint8); x2 = T.where(x1, 1.0, 2.0)", ours="mask"
    ),
    OnPurpose(
        "a number that the dtype cannot hold",
        "we refuse",
        "x1 = T.zeros(2, dtype=T.uint8); x1.fill_(-1)",
        ours="can hold|do not fit|cannot put the value",
    ),
    # What we answer.
    OnPurpose(
        "a number that the dtype cannot hold",
        "torch refuses",
        "x1 = T.zeros(2).long(); x2 = T.tensor(nan); x1[[False, False]] = x2",
        line=r"\] = ",
        theirs="without overflow",
    ),
    OnPurpose(
        "numbers written into a leaf",
        "torch refuses",
        "x1 = T.ones(2).requires_grad_(); x1.fill_(3.0)",
        line=r"\.(fill_|zero_|copy_)\(",
        theirs="a (view of a )?leaf Variable",
    ),
    OnPurpose(
        "numbers written into a leaf",
        "torch refuses",
        "x1 = T.zeros(0, 2).requires_grad_(); x2 = x1[None]; x2 *= 2.0",
        theirs="a view of a leaf Variable",
    ),
    OnPurpose(
        "`grad` of what was not recorded",
        "torch refuses",
        "x1 = T.ones(2); x2 = T.grad(x1.sum(), x1, allow_unused=True)[0]",
        line="allow_unused=True",
        theirs="does not require grad",
    ),
    OnPurpose(
        "an empty mask",
        "torch refuses",
        "x1 = T.ones(3, 0); x2 = x1[T.zeros(0, dtype=T.bool)]",
        theirs=r"shape of the mask \[.*\b0\b.*\] at",
    ),
    OnPurpose(
        "`requires_grad` of a result",
        "torch refuses",
        "x1 = T.ones(2).requires_grad_(); x2 = x1 * 2; x2.requires_grad = True",
        line="requires_grad = True",
        theirs="leaf variables",
    ),
    OnPurpose(
        "mixed dtypes in losses and biases",
        "torch refuses",
        "x1 = T.zeros(2); x2 = T.zeros(2, dtype=T.bool); x3 = T.kl_div(x1, x2)",
        theirs=r"Found dtype \w+ but expected|kl_div: Integral|result type \w+ can't be cast"
        "|mixed dtype|Input type .* bias type"
        "|expected scalar type (Half|Float|Double)",
    ),
    OnPurpose(
        "an image without channels",
        "torch refuses",
        "x1 = T.zeros(2, 3); x2 = T.adaptive_avg_pool2d(x1, 2)",
        theirs=r"Expected (2D or )?3D or 4D",
    ),
    OnPurpose(
        "integers in functions of floats",
        "torch refuses",
        "x1 = T.tensor([1, 2]); x2 = T.gelu(x1)",
        theirs=NO_SUCH_KERNEL,
    ),
    OnPurpose(
        "the gradient of `//` and `%`",
        "torch refuses",
        "x1 = T.ones(2).requires_grad_(); x2 = x1 // 2.0; x2.backward(T.ones(2))",
        theirs="derivative for aten::(floor_divide|remainder|hardsigmoid_backward)",
    ),
    OnPurpose(
        "an index that changes after its use",
        "torch refuses",
        "x1 = T.ones(2).requires_grad_(); x2 = T.tensor([0]); x3 = x1[x2] * x1; x2[0] = 1; x3.sum().backward()",
        theirs=r"modified by an inplace operation: \[(torch\.|CPU)(Long|Bool|Int|Byte)"
        "|(Target|index) .* is out of bounds"
        "|value tensor of shape .* to indexing result",
        line="backward|grad",
    ),
    OnPurpose(
        "an operand that was converted before its use",
        "torch refuses",
        "x1 = T.ones(2).half().requires_grad_(); x2 = T.tensor(2.0); x3 = T.minimum(x1, x2); x2.fill_(0.0); "
        "x3.sum().backward()",
        theirs=r"modified by an inplace operation: \[torch\.(Float|Half|Double)Tensor(?!.* is output)",
        program=r"cross_entropy|_loss|_norm|float16|float64|half|double",
    ),
    OnPurpose(
        "`view` of memory in another order",
        "torch refuses",
        "x1 = T.zeros(2, 3); x2 = x1.mT.view(6)",
        line=r"\.view\(|\.view_as\(",
        theirs="view size is not compatible",
    ),
    OnPurpose(
        "`view` of memory in another order",
        "value",
        "x1 = T.ones(2, 3); x2 = x1[..., [0, 0]]; x3 = x2.flatten(); x3 *= 2",
        line=WRITE,
        program=r"(?s)\[.*(flatten|reshape)",
    ),
    OnPurpose(
        "the gradient of a product at inf",
        "value",
        "x1 = T.tensor([inf, 2.0]).requires_grad_(); x2 = T.prod(x1); x3 = T.grad(x2, x1, T.tensor(1.0))[0]",
        line="grad|backward",
        theirs="nan",
        program=r"\bprod\b",
    ),
    OnPurpose(
        "writing to a place twice",
        "gradient: value",
        "x1 = T.zeros(3); x2 = T.ones(1).requires_grad_(); x1[[0, 0, -1]] = x2; x1.backward(T.ones(3))",
        line="backward|grad",
        program=r"(?m)^(with .*: )?x\d+(\.data|\.detach\(\)|\[.*\])*\[\[0, 0, ",
    ),
    OnPurpose(
        "the gradient of a product at inf",
        "gradient: value",
        "x1 = T.tensor([inf, 0.0, 0.0]).requires_grad_(); x2 = T.prod(x1); x2.backward()",
        ours="nan",
        program=r"(?s)^(?=.*\binf\b).*\b(cum)?prod\b",
    ),
    OnPurpose(
        "the gradient of a product at inf",
        "gradient: value",
        "x1 = T.tensor([2.0, inf, 0.75]).requires_grad_(); x2 = T.cumprod(x1, 0); "
        "x2.backward(T.tensor([1.0, 1.0, -1.0]))",
        theirs="nan",
        program=r"(?s)^(?=.*\binf\b).*\b(cum)?prod\b",
    ),
    OnPurpose(
        "squares that overflow",
        "value",
        "x1 = T.tensor([[1e308, 1.0]], dtype=T.float64); x2 = T.layer_norm(x1, (2,))",
        line="_norm",
        theirs="nan",
        dtypes="float64",
    ),
    OnPurpose(
        "a wrong call on an empty tensor",
        "we refuse",
        "x1 = T.zeros(2, 4); x2 = x1[[2], :0].sum()",
        line=r"\]\.sum\(\)",
        ours="out of range",
        theirs=r"= 0(\.0)? \w+ \(\)",
    ),
    OnPurpose(
        "going back after a write",
        "torch refuses",
        "x1 = T.zeros(1, 1, 2, 2); x2 = T.ones(1, 1, 1, 1); x3 = T.zeros(1).requires_grad_(); "
        "x4 = T.conv_transpose2d(x1, x2, x3); x2.zero_(); x4.sum().backward()",
        line="backward|grad",
        theirs="modified by an inplace operation",
        program="conv",
    ),
    OnPurpose(
        "changing a result under its only name",
        "torch refuses",
        "x1 = T.ones(2).requires_grad_(); x2 = T.exp(x1); x2 *= 2.0; x2.backward(T.ones(2))",
        theirs=r"modified by an inplace operation: \[torch\.(Float|Half|Double)Tensor.* is output \d of",
    ),
    OnPurpose(
        "an operand that shares memory",
        "torch refuses",
        "x1 = T.ones(2); x1[None] += x1; x1[:1] += x1",
        theirs="single memory location",
    ),
    OnPurpose(
        "an operand that shares memory",
        "value",
        "x1 = T.tensor([1.0, 2.0]); x2 = x1[-2]; x3 = x1[:]; x3 += x2",
        line=r"x\d+ [-+*/]= x\d+$",
        program=r"(?m)^x\d+ = x\d+\[-?\d+\]$",
    ),
    OnPurpose(
        "another dtype at an index tensor",
        "torch refuses",
        "x1 = T.zeros(2); x2 = T.tensor([1]); x1[x2] = x2",
        theirs="source and destination dtypes match",
    ),
    OnPurpose(
        "class indices of any integer dtype",
        "torch refuses",
        "x1 = T.tensor([0, 1], dtype=T.int32); x2 = T.one_hot(x1, 2)",
        theirs="expected target dtype to be Long or Byte|one_hot is only|gather..: Expected dtype int32/int64"
        "|expected scalar type Long",
    ),
    OnPurpose(
        "internal errors",
        "torch refuses",
        "x1 = T.ones(2).requires_grad_(); x2 = False ** x1; x2.sum().backward()",
        theirs="INTERNAL ASSERT|ZeroTensors are immutable|grad_input must be contiguous",
    ),
    OnPurpose(
        "internal errors",
        "torch refuses",
        "x1 = T.zeros(1, 2, 2, 1, 1).half(); x2 = op['local_response_norm'](x1, size=3)",
        theirs="not implemented for 'Half'",
    ),
    OnPurpose(
        "negative steps", "torch refuses", "x1 = T.arange(3); x2 = x1[::-1]", theirs="step must be greater than zero"
    ),
    OnPurpose(
        "no sizes for no dimensions",
        "torch refuses",
        "x1 = T.zeros(*())",
        theirs="missing 1 required positional argument",
    ),
    OnPurpose(
        "`logsumexp` of everything",
        "torch refuses",
        "x1 = T.zeros(2); x2 = T.logsumexp(x1, None)",
        line="logsumexp.*None",
    ),
    # Where the answers differ.
    OnPurpose(
        "`any` and `all` of uint8",
        "dtype",
        "x1 = T.zeros(2, dtype=T.uint8); x2 = x1.any()",
        line=r"\b(any|all)\b",
        theirs="uint8",
    ),
    OnPurpose(
        "`softmax` of empty integers",
        "dtype",
        "x1 = T.zeros(0, dtype=T.int64); x2 = T.softmax(x1, 0)",
        line="softmax",
        theirs=r"= \[[\[\], ]* (bool|u?int)",
    ),
    OnPurpose(
        "the gradient of a constant gradient",
        "requires_grad",
        "x1 = T.ones(2).requires_grad_(); x2 = T.leaky_relu(x1); x3 = T.grad(x2.sum(), x1, create_graph=True)[0]",
        line="create_graph",
    ),
    OnPurpose(
        "comparing with a number that the dtype cannot hold",
        "value",
        "x1 = T.tensor([1, 255], dtype=T.uint8); x2 = x1 < -1",
        line=r"[<>]|==|!=|\.(lt|le|gt|ge|eq|ne)\(",
        ours=" bool ",
        dtypes="uint8|int32 int64|int64 int32",
    ),
    OnPurpose(
        "a mask of uint8",
        "torch refuses",
        "x1 = T.zeros(2, 3); x2 = T.tensor([1, 0], dtype=T.uint8); x1[x2] = 0.5",
        line=r"\[",
        theirs="only supports boolean masks",
    ),
    OnPurpose(
        "assigning to `.data`",
        "",
        "x1 = T.zeros(2); x2 = T.tensor([1, 2]); x1.data = x2",
        line=WRITE,
        program=r"\.data = ",
    ),
    OnPurpose(
        "the order of memory after pooling and convolution",
        "value",
        "x1 = T.arange(64.0).reshape(1, 2, 4, 8); x2 = T.max_pool2d(x1, 2); x3 = x2.flatten(); x3 *= 2",
        line=WRITE,
        program=r"(pool|conv|interpolate)\w*( \(one image\))?['(]",
    ),
    OnPurpose(
        "a gradient that is passed on",
        "value",
        "x1 = T.ones(2).requires_grad_(); x2 = x1[None]; x3 = T.grad(x2, x1, x2.detach())[0]; x3.zero_()",
        line=WRITE,
        program=r"grad\(.*\.detach\(\)[,)]",
    ),
    OnPurpose(
        "a gradient that is passed on",
        "value",
        "x1 = T.ones(2).requires_grad_(); x2 = T.grad(x1.sum(), x1, create_graph=True)[0]; x2[0] = 3.0",
        line=WRITE,
        program=r"= T\.grad\(.*create_graph",
    ),
    OnPurpose(
        "mixed dtypes in losses and biases",
        "dtype",
        "x1 = T.zeros(2).half(); x2 = T.zeros(2); x3 = T.huber_loss(x1, x2)",
        line="_loss|cross_entropy|kl_div|conv",
        dtypes=r"\b(\w+) (?!\1\b)\w+|int|bool",
    ),
    OnPurpose(
        "fractions in an `arange` of integers",
        "shape|value|refuse",
        "x1 = T.arange(0, -1.5, -1, dtype=T.int32)",
        line=r"T\.arange\(.*dtype=T\.u?int",
    ),
    OnPurpose("`sign` of nan", "value", "x1 = T.tensor(nan); x2 = T.sign(x1)", line="sign", ours="nan"),
    OnPurpose(
        "`sign` of nan",
        "value",
        "x1 = T.tensor(nan).requires_grad_(); x2 = T.grad(T.abs(x1), x1, create_graph=True)[0]",
        line="grad|backward",
        program="abs|l1_|huber",
        ours="nan",
    ),
    OnPurpose(
        "labels without classes",
        "value",
        "x1 = T.zeros(0, 0); x2 = T.zeros(0, dtype=T.int64); "
        "x3 = T.cross_entropy(x1, x2, reduction='sum', label_smoothing=0.5)",
        line="label_smoothing",
        theirs="nan",
    ),
    OnPurpose(
        "targets that are huge",
        "value",
        "x1 = T.tensor([[-0.25, 0.25, 3e+38], [-1.25, -1.5, -1.5]]); x2 = T.cross_entropy(x1, x1)",
        line="cross_entropy",
        program=r"e\+?(3[5-8]|30[5-8])",
    ),
    OnPurpose(
        "slopes and scales that are not finite",
        "value",
        "x1 = T.zeros(1); x2 = T.elu(x1, inf)",
        line=r"\b(leaky_relu|elu|softplus)\(",
        ours="nan",
    ),
    OnPurpose(
        "infinite logits",
        "value",
        "x1 = T.tensor([-inf]); x2 = T.tensor([0.5]); x3 = T.binary_cross_entropy_with_logits(x1, x2)",
        line="with_logits",
        ours="nan|inf",
        theirs="nan|inf",
    ),
    OnPurpose("dropped numbers", "value", "x1 = T.tensor([nan]); x2 = T.dropout(x1, 1.0)", line="dropout"),
    OnPurpose(
        "squares that overflow",
        "value",
        "x1 = T.tensor([3e38, 1.0]); x2 = x1.std()",
        line="var|std|_norm|_loss",
        ours=r"\b(inf|nan)\b",
    ),
    OnPurpose(
        "a number divided by a tensor",
        "value",
        "x1 = T.tensor(1e-310, dtype=T.float64); x2 = 1e-6 / x1",
        line=r"= [-\w.]+ / x\d+$",
        theirs="inf|nan",
    ),
    OnPurpose(
        "the gradient of a variance of too few numbers",
        "value",
        "x1 = T.ones(1, 2).requires_grad_(); x2 = x1.var(0, correction=2); x3 = T.grad(x2.sum(), x1)[0]",
        line="grad|backward",
        ours="nan",
        program=r"\b(var|std)\(.*[2-9]",
    ),
    OnPurpose(
        "the gradient of an infinite power of 0",
        "value",
        "x1 = T.tensor(inf).requires_grad_(); x2 = T.tensor(False); x3 = x2.pow(x1); "
        "x4 = T.grad(x3, x1, T.tensor(nan))[0]",
        line="grad|backward",
        theirs="nan",
        program=r"(?s)(bool_|False).*pow\(x\d",
    ),
    OnPurpose(
        "the gradient of an infinite power of 0",
        "gradient: value",
        "x1 = T.tensor(1.0).requires_grad_(); x2 = 0.0**x1; x2.backward(T.tensor(inf))",
        ours=r"= [\[\], \d.e+-]+ float",
        theirs="nan",
        program=r"(?s)(0(\.0)? ?\*\* ?x|pow\(x\d+, x).*\b(inf|nan)\b",
    ),
    OnPurpose(
        "the root of -0 and -inf",
        "value",
        "x1 = T.tensor([-inf, -0.0], dtype=T.float16); x1 **= 0.5",
        line=r"\*\*|pow",
        ours=r"-0\.0|nan|inf",
        theirs=r"\b0\.0|nan|inf",
        program=r"0\.5",
    ),
    OnPurpose(
        "an exponent at the end of its dtype",
        "value",
        "x1 = T.tensor(1.5).requires_grad_(); x2 = T.tensor(-2147483648, dtype=T.int32); x3 = x1.pow(x2); "
        "x4 = T.grad(x3.sum(), x1)[0]",
        line="grad|backward",
        theirs="inf|nan",
        program=r"-2147483648|-9223372036854775808",
    ),
    OnPurpose(
        "a second derivative of nothing",
        "gradient: kind",
        "x1 = T.arange(3.0)[None].requires_grad_(); x2 = T.max_pool1d(x1, 3); "
        "x3 = T.grad(x2.sum(), x1, create_graph=True)[0]; x3.sum().backward()",
        ours="= None",
        theirs=r"= ([\[\]0., -]|nan)+ \w+ \(",
        program="create_graph=True",
    ),
    OnPurpose(
        "`kl_div` at a target of 0",
        "value",
        "x1 = T.tensor([0.0, 0.5]).requires_grad_(); x2 = T.kl_div(x1.detach(), x1, reduction='sum'); "
        "x3 = T.grad(x2, x1, x2.detach(), retain_graph=True)[0]",
        line="grad|backward",
        theirs="nan",
        program="kl_div",
    ),
    OnPurpose(
        "`kl_div` at a negative target",
        "value",
        "x1 = T.tensor([-0.5]).requires_grad_(); x2 = T.kl_div(x1, x1, reduction='none'); x3 = T.round(x2); "
        "x4 = T.grad(x3.sum(), x1, create_graph=True)[0]",
        line="grad|backward",
        ours="nan",
        program="kl_div",
    ),
    OnPurpose(
        "remainders of quotients that overflow",
        "value",
        "x1 = T.full((9,), 1e-310, dtype=T.float64); x2 = -1 % x1",
        line="%|remainder",
        theirs="nan",
        ours=r"^[^n]*$",
    ),
    OnPurpose(
        "the gradient of the largest where one is nan",
        "value",
        "x1 = T.tensor([[nan, 1.0]]).requires_grad_(); x2 = x1.amax((0, 1)); "
        "x3 = T.grad(x2, x1, create_graph=True)[0]",
        line="grad|backward",
        theirs="nan",
        program="amax|amin",
    ),
    OnPurpose(
        "pooling of images without pixels",
        "torch refuses",
        "x1 = T.zeros(2, 0, 3, 1).requires_grad_(); x2 = T.adaptive_avg_pool2d(x1, 2); x2.sum().backward()",
        line="grad|backward",
        theirs="non-zero size for non-batch",
    ),
    OnPurpose(
        "the slope of `gelu` at -inf",
        "value",
        "x1 = T.tensor([-inf]).requires_grad_(); x2 = T.gelu(x1, approximate='tanh'); "
        "x3 = T.grad(x2, x1, T.ones(1))[0]",
        line="grad|backward",
        theirs="nan",
        program="gelu",
    ),
    OnPurpose(
        "the distance of a tensor to itself",
        "gradient: value",
        "x1 = T.ones(2).requires_grad_(); x2 = T.huber_loss(x1, x1); x2.backward(T.tensor(inf))",
        theirs="nan",
        program="huber|l1_loss|mse_loss",
    ),
    OnPurpose(
        "dropped numbers",
        "gradient: value",
        "x1 = T.ones(2).requires_grad_(); x2 = T.dropout(x1, 1.0); x2.backward(T.tensor([inf, 1.0]))",
        theirs="nan",
        program=r"dropout\(.*1\.0|dropout'\]",
    ),
    OnPurpose(
        "the slope of `abs` at 0",
        "gradient: value",
        "x1 = T.zeros(1).requires_grad_(); x2 = T.abs(x1); x2.backward(T.tensor([inf]))",
        ours=r"= [\[\], \d.e+-]+ float",
        theirs="nan",
        program=r"\babs\b",
    ),
    OnPurpose(
        "a power of exponent 0",
        "gradient: value",
        "x1 = T.zeros(2).requires_grad_(); x2 = T.pow(x1, False); x2.backward(T.tensor([inf, 1.0]))",
        theirs="nan",
        program=r"\*\* ?(False|0)|\*\*= (False|0)|pow\(.*(False|0)|= 0 \*\*",
    ),
    OnPurpose(
        "the root of -0 and -inf",
        "gradient: value",
        "x1 = T.tensor([-inf]).requires_grad_(); x2 = x1 ** np.float32(0.5); x2.sum().backward()",
        theirs="nan",
        program=r"0\.5",
    ),
    OnPurpose(
        "the largest of equal numbers",
        "gradient in another order",
        "x1 = T.tensor([0.5, 0.5, 1.0, 0.0]).requires_grad_(); x2 = T.topk(x1, 2, -1)[0]; "
        "x2.backward(T.tensor([0.25, -1.5]))",
        program=r"topk|\.sort\(|\bsort\b",
    ),
    OnPurpose(
        "huge gradients",
        "gradient: value",
        "x1 = T.tensor([-0.25, 0.875]).requires_grad_(); x2 = T.layer_norm(x1, (2,)); "
        "x2.backward(T.tensor([3e+38, 1.5]))",
        theirs=r"\b(inf|nan)\b",
        program=r"60000|e\+?(3[5-8]|30[5-8])",
    ),
    OnPurpose(
        "huge gradients",
        "gradient: value",
        "x1 = T.tensor([-0.75]).half().requires_grad_(); x2 = T.tensor([0.0]).half().requires_grad_(); "
        "x3 = T.binary_cross_entropy_with_logits(x1, x2, reduction='sum'); "
        "x3.backward(T.tensor(60000.0, dtype=T.float16))",
        ours=r"\b(inf|nan)\b",
        program=r"60000|e\+?(3[5-8]|30[5-8])|(?s:float16.*\b2049\b)",
    ),
    OnPurpose(
        "huge gradients",
        "gradient: value",
        "x1 = T.tensor(-1.5, dtype=T.float64).requires_grad_(); x2 = x1 / x1; "
        "x2.backward(T.tensor(1e40, dtype=T.float64))",
        theirs=r"e\+[23]\d",
        program=r"1e\+?40",
    ),
    OnPurpose(
        "internal errors",
        "gradient: value",
        "x1 = T.tensor(-inf).requires_grad_(); x2 = T.tensor(1.0).requires_grad_(); x3 = T.stack([x1, x2]); "
        "x3.sum().backward(retain_graph=True); x3.backward(T.tensor([16777217.0, 1.75]), retain_graph=True)",
        program="(?s)stack.*backward.*backward",
    ),
    OnPurpose(
        "an operand that was converted before its use",
        "gradient of what was written",
        "x1 = T.ones(2).half(); x2 = T.ones(2).requires_grad_(); x3 = x1 * x2; x1.data.fill_(2.0); x3.sum().backward()",
    ),
    OnPurpose(
        "a gradient that is asked for later",
        "gradient: kind",
        "x1 = T.ones(2).requires_grad_(); x2 = T.ones(2); x3 = x1 * x2; x2.requires_grad_(); x3.sum().backward()",
        program=r"(?m)^x\d+\.requires_grad(_\(\)| = True)$",
    ),
    OnPurpose(
        "a gradient that is asked for later",
        "gradient: value",
        "x1 = T.ones(2).requires_grad_(); x2 = T.ones(2); x3 = x1 * x2; x2.requires_grad_(); x4 = x2 * 2; "
        "x4.sum().backward(); x3.sum().backward()",
        program=r"(?ms)^(x\d+)\.requires_grad(_\(\)| = True)$.*^\1\.grad$",
    ),
    OnPurpose(
        "a view from before `requires_grad_()`",
        "requires_grad",
        "x1 = T.zeros(2); x2 = x1[:1]; x1.requires_grad_()",
        line="requires_grad",
    ),
    OnPurpose(
        "the slope of `logsumexp` at huge numbers",
        "gradient: value",
        "x1 = T.tensor([-1e308, -1e308], dtype=T.float64).requires_grad_(); x2 = T.logsumexp(x1, 0); x2.backward()",
        program=r"(?s)e\+?(3[78]|308).*logsumexp",
    ),
    OnPurpose(
        "two values for one element",
        "gradient: value",
        "x1 = T.ones(2).requires_grad_(); x2 = T.zeros(2) * x1; x2[T.tensor([0, -2])] = x1; x2.sum().backward()",
        program=r"(?m)^x\d+\[.*T\.tensor\(.*\] ?[-+*/]?=",
    ),
    OnPurpose(
        "`hardsigmoid` in float64",
        "gradient: value",
        "x1 = T.ones(1).double().requires_grad_(); x2 = T.hardsigmoid(x1); x2.sum().backward()",
        program="hardsigmoid",
    ),
    OnPurpose(
        "`hardsigmoid` in float64",
        "value",
        "x1 = T.ones(1).double().requires_grad_(); x2 = T.hardsigmoid(x1); "
        "x3 = T.grad(x2.sum(), x1)[0]",
        line="grad",
        dtypes="float64",
        program="hardsigmoid",
        theirs=r"0\.166666671",
    ),
]


def explained(found: Finding) -> str | None:
    """The difference on purpose that explains a finding, if there is one."""
    found = [found]
    if found[0].kind == "gradient in another order":  # a nan and a 0 that changed places may be two differences
        found.append(replace(found[0], kind="gradient: value"))
    return next((entry.what for f in found for entry in ON_PURPOSE if entry.explains(f)), None)


# ## Many programs


def write_and_run(seed: int, number: int, tally: Counter, drawn: set[str]) -> Finding | None:
    """Program `number` of a seed: the first difference that nothing explains."""
    author = Author(seed, number)
    steps = int(author.random.integers(3, 13))
    lines = itertools.chain((author.line() for _ in range(steps)), ((line, "backward") for line in author.ways_back()))
    for line, template in lines:
        known = list(author.pair.lines)
        found = author.pair.run(line)
        tally["lines"] += 1
        drawn |= names_in(template) | set(re.findall(r"op\['(\w+)", template))
        if found is None:
            if not TARGET.match(line) and line not in author.pair.lines:  # refused, perhaps half way
                author.pair = Pair(known)
            continue
        found.template, found.lines = template, [*known, line]
        reason = "rounding" if found.kind == "rounding" else explained(found)
        if reason is None:
            return found
        tally[reason] += 1
        author.pair = Pair(known)  # as if the line had not been written
    return None


def first_difference(lines: Sequence[str]) -> Finding | None:
    """Run a written program; the first line that makes a difference."""
    pair = Pair()
    found = next((found for line in lines if (found := pair.run(line))), None)
    if found:
        found.lines = list(lines)
    return found


def shrunk(found: Finding) -> Finding:
    """The same difference with as few lines as possible."""
    for i in reversed(range(len(found.lines) - 1)):
        smaller = first_difference(found.lines[:i] + found.lines[i + 1 :])
        if smaller and (smaller.kind, smaller.line) == (found.kind, found.line):
            smaller.template = found.template
            return shrunk(smaller)
    return found


def report(found: Finding, seed: int, number: int) -> str:
    """A finding as a program for each library."""
    ours, theirs = ("\n".join(f"    {text(line)}" for line in found.lines) for text in (in_ours, in_torch))
    return f"{found.kind}: program {number} of seed {seed}\n{ours}\n  {found.ours}\n{theirs}\n  {found.theirs}"


def subject(found: Finding) -> str:
    """What a finding is about: its line of the catalogue, or for a gradient the operations on the way."""
    if found.template != "backward":
        return found.template
    operations = [re.sub(r"^x\d+ = |\bx\d+\b|[\d., ]+(?=[,)\]])", "", line) for line in found.lines[:-1]]
    return " | ".join(sorted({o[:40] for o in operations if not re.match(r"T\.(tensor|zeros)", o)}))


# The generator's state, a class of gradients, and the names of primitives that mean something else in torch.
NOT_DRAWN = {"cast", "concat", "convolution", "get_rng_state", "manual_seed", "outer", "set_rng_state"}


def coverage(drawn: set[str]) -> str:
    """How many of the functions that torch has, too, were drawn."""
    ours = [n for m in (tt, ts) for n in m.__all__ if n[0].islower() and callable(getattr(m, n)) and _home(n, THEIRS)]
    missing = sorted(n for n in set(ours) - NOT_DRAWN if not drawn & {f"T.{n}", n})
    methods = sum(d[0] == "." for d in drawn)
    rest = f"; not drawn: {' '.join(missing)}" if missing else ""
    return f"{len(ours) - len(missing)} of {len(ours)} functions that torch has, too, and {methods} methods drawn{rest}"


def run_many(seed: int, numbers: Iterable[int], seconds: float = math.inf) -> tuple[dict, str, int]:
    """Run programs until the time is up: the smallest finding of each kind as text, a summary, and how many ran."""
    tally, drawn, findings, counts = Counter(), set(), {}, Counter()
    start, programs = time.perf_counter(), 0
    for number in numbers:
        if time.perf_counter() - start > seconds:
            break
        programs += 1
        if (found := write_and_run(seed, number, tally, drawn)) is None:
            continue
        if found.template == "backward" or (found.kind, subject(found)) not in findings:
            found = shrunk(found)
        key = found.kind, subject(found)
        counts[key] += 1
        findings.setdefault(key, report(found, seed, number))
    lines = tally.pop("lines", 0)
    purposes = ", ".join(f"{what} {count}" for what, count in tally.most_common()) or "none"
    summary = (
        f"{programs} programs of seed {seed}, {lines} lines, {time.perf_counter() - start:.0f} s\n"
        f"differences: {counts.total()} of {len(counts)} kinds\non purpose or rounding: {purposes}\n{coverage(drawn)}"
    )
    return {(counts[key], *key): findings[key] for key, _ in counts.most_common()}, summary, programs


ROOT = Path(__file__).parents[1]
SECONDS = float(os.environ.get("TT_DIFFERENTIAL_SECONDS", "40"))
KNOWN = 2  # a seed whose first programs show no difference
FEW = 1 / 1500  # of the programs
pytestmark = pytest.mark.filterwarnings("ignore")


def test_known_programs():
    torch.set_num_threads(1)
    findings, summary, _ = run_many(KNOWN, range(2000))
    assert not findings, "\n\n".join([summary, *findings.values()])


# New programs find corners that were never seen: twenty in 100,000 when gradients were last gone through. A corner is
# printed, to be mended or put on the page, and a change that has nothing to do with it does not fail. A fault that a
# change brings in shows more often: of 88 rules, made wrong by an eighth one at a time, the rarest of those that are
# for a first derivative showed after 845 programs (and that of `softmax`, whose sum has no slope, after 1,969).
# A machine that runs many programs in the time finds more corners, so that the limit is a share of the programs.
def test_random_programs(capsys):
    seed = int(os.environ.get("TT_DIFFERENTIAL_SEED", secrets.randbelow(2**31)))
    torch.set_num_threads(1)
    findings, summary, programs = run_many(seed, itertools.count(), SECONDS)
    report = "\n\n".join([summary, *list(findings.values())[:10]])
    with capsys.disabled():
        print(f"\n{report}")
    assert sum(count for count, *_ in findings) < max(5, FEW * programs), report


@pytest.mark.parametrize("entry", ON_PURPOSE, ids=[entry.what for entry in ON_PURPOSE])
def test_on_purpose(entry):
    found = first_difference(entry.example.split("; "))
    assert found is not None and explained(found) == entry.what, found


def _rows_of_the_page() -> list[list[str]]:
    lines = (ROOT / "site" / "differences.md").read_text(encoding="utf-8").splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]


def test_page_has_every_difference_on_purpose():
    assert {entry.what for entry in ON_PURPOSE} <= {what for what, *_ in _rows_of_the_page()}


def test_page_names_a_test_for_every_difference():
    folders = [ROOT / "tests", *ROOT.glob("packages/*/tests")]
    tests = "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("test_*.py"))
    for what, _, _, _, test in _rows_of_the_page():
        assert f"def {test.strip('`')}(" in tests, what


def test_a_planted_difference_is_found_and_shrunk(monkeypatch):
    monkeypatch.setattr(tt.tanh, "kernel", lambda x: np.tanh(x) + 0.125)
    tried = (write_and_run(1, number, Counter(), set()) for number in range(5000))
    found = shrunk(next(found for found in tried if found and found.kind == "value" and "tanh" in found.line))
    assert len(found.lines) <= 2 and first_difference(found.lines).kind == "value"
    assert "tt.tanh" in report(found, 1, 0) or "op['tanh']" in report(found, 1, 0) or ".tanh()" in report(found, 1, 0)


def test_a_program_follows_from_its_seed_and_number():
    first, again = (Author(3, 7) for _ in "ab")
    assert [first.line() for _ in range(5)] == [again.line() for _ in range(5)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run many programs and show the smallest of each kind of difference."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after this time")
    parser.add_argument("--number", type=int, help="run only this program")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    numbers = range(options.programs) if options.number is None else [options.number]
    findings, summary, _ = run_many(options.seed, numbers, options.seconds)
    for (count, *_), text in findings.items():
        print(f"\n{count} times {text}")
    print(f"\n{summary}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
