"""The one table of operations, OPS: what each is called here and in torch, arguments to try, and arguments to refuse.

The loop kernels, parity with torch, gradient checks, the rules for dtypes and the error cases all walk through it, so
an operation that is entered here is tested everywhere. Nothing here imports torch: an entry says where torch keeps its
counterpart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np

import tt_tensor as tt

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """The arguments of one call: arrays (float64, int, bool) that become tensors, and options passed by keyword."""

    arrays: tuple[np.ndarray, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "arrays", tuple(map(np.asarray, self.arrays)))


class Draw:
    """Makes the choices of which a sample is built; subclasses say how to `pick`.

    Taking every way in turn is one (`every_sample`), asking hypothesis is another."""

    def __init__(self, seed: int = 0):
        self.random = np.random.default_rng(seed)

    def pick(self, options: Sequence) -> Any:
        """One of the options; the first is the plainest."""
        raise NotImplementedError

    def shape(self, least: int = 0, empty: bool = True) -> Shape:
        """A shape of at least `least` dimensions, without size 0 unless `empty`."""
        return self.pick([s for s in SHAPES if len(s) >= least and (empty or 0 not in s)])

    def partner(self, shape: Shape) -> Shape:
        """A shape that broadcasts with `shape`: the same, fewer dimensions, sizes of 1, or one dimension more."""
        last = shape[-1:]
        return self.pick(list(dict.fromkeys([shape, (), last, (*shape[:-1], *(1 for _ in last)), (2, *shape)])))

    def dim(self, shape: Shape) -> int:
        """A dimension of `shape`, counted from the front or from the end."""
        return self.pick(sorted({0, -1, len(shape) - 1, -len(shape)})) if shape else self.pick([0, -1])

    def laid_out(self, values: np.ndarray) -> np.ndarray:
        """The same values, contiguous, transposed in memory, or every second number of a longer row."""
        if values.ndim < 2:
            return values
        strided = np.repeat(values, 2, axis=-1)[..., ::2]
        return self.pick([values, np.ascontiguousarray(values.mT).mT, strided])


SHAPES: list[Shape] = [(3,), (), (1,), (0,), (2, 3), (3, 1), (0, 2), (2, 3, 2), (2, 0, 3), (1, 2, 1, 2)]


class _Replay(Draw):
    """Follows a list of choices as far as it goes and takes the first option from there on."""

    def __init__(self, path: list[tuple[int, int]]):
        super().__init__(len(path))
        self.path, self.at = path, 0

    def pick(self, options):
        if self.at == len(self.path):
            self.path.append((0, len(options)))
        choice, _ = self.path[self.at]
        self.at += 1
        return options[choice]


Sampler = Callable[[Draw], Sample]


def every_sample(sampler: Sampler) -> Iterator[Sample]:
    """A sample for each combination of choices that the sampler can make, in a fixed order with fixed numbers."""
    path: list[tuple[int, int]] = []
    while True:
        yield sampler(_Replay(path))
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1] = (path[-1][0] + 1, path[-1][1])


@dataclass(frozen=True)
class Misuse:
    """A call that must be refused, with this exception, in words that hold each of these."""

    call: Callable[[], Any]
    error: type[Exception]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Op:
    """One operation of chapters 02 to 05.

    `torch` is the dotted name of torch's counterpart, or a function that returns it, given the module torch.
    `differentiable` lists the arguments that have a gradient; None stands for all that are floats."""

    name: str
    function: Callable
    torch: str | Callable[[Any], Callable]
    sampler: Sampler
    differentiable: tuple[int, ...] | None = None
    misuses: tuple[Misuse, ...] = ()

    def samples(self, most: int | None = None) -> list[Sample]:
        """Every sample of this operation, or at most so many, taken at random; the same in each run."""
        every = list(every_sample(self.sampler))
        if most is None or most >= len(every):
            return every
        return [every[i] for i in np.random.default_rng(most).permutation(len(every))[:most]]

    def in_torch(self, torch: Any) -> Callable:
        """The counterpart, given the module torch."""
        return attrgetter(self.torch)(torch) if isinstance(self.torch, str) else self.torch(torch)

    def tensors(self, sample: Sample, dtype: Any = np.float64) -> list[tt.Tensor]:
        """The arrays of the sample as tensors of the same strides, floats as `dtype`."""
        return [tt.from_numpy(a.astype(dtype, copy=False) if a.dtype.kind == "f" else a) for a in sample.arrays]

    def watched(self, sample: Sample) -> list[int]:
        """Which arrays of the sample have a gradient."""
        floats = [i for i, a in enumerate(sample.arrays) if a.dtype.kind == "f"]
        return floats if self.differentiable is None else [i for i in floats if i in self.differentiable]


def tensors_of(result: Any) -> list[tt.Tensor]:
    """The tensors in an operation's result, which is a tensor or a tuple of them."""
    return [result] if isinstance(result, tt.Tensor) else list(result)


# Numbers. Where a function has a corner or a step (all of ours have them at halves), differences on the two sides of it
# say nothing about a slope, so `apart` keeps away from halves, and its numbers away from each other.

Numbers = Callable[[Draw, Shape], np.ndarray]


def normal(draw: Draw, shape: Shape) -> np.ndarray:
    """Standard normal numbers."""
    return np.asarray(draw.random.standard_normal(shape))


def positive(draw: Draw, shape: Shape) -> np.ndarray:
    """Numbers from 0.5 to 2."""
    return np.asarray(draw.random.uniform(0.5, 2.0, shape))


def probabilities(draw: Draw, shape: Shape) -> np.ndarray:
    """Numbers from 0.05 to 0.95."""
    return np.asarray(draw.random.uniform(0.05, 0.95, shape))


def apart(draw: Draw, shape: Shape) -> np.ndarray:
    """Numbers of both signs, each at least 0.15 from every half and 0.2 from every other."""
    count = int(np.prod(shape))
    return ((draw.random.permutation(count) - count // 2) * 0.5 + 0.25 + draw.random.uniform(-0.1, 0.1, count)).reshape(
        shape
    )


def whole(draw: Draw, shape: Shape) -> np.ndarray:
    """Integers from -2 to 2, many of them equal, as floats."""
    return np.asarray(draw.random.integers(-2, 3, shape), np.float64)


def bits(draw: Draw, shape: Shape) -> np.ndarray:
    """Integers from -9 to 9."""
    return np.asarray(draw.random.integers(-9, 10, shape))


def truths(draw: Draw, shape: Shape) -> np.ndarray:
    """True and False."""
    return np.asarray(draw.random.random(shape) < 0.5)


# Samplers: functions that make one for each family of operations.


def unary(numbers: Numbers = normal, *options: dict, least: int = 0, empty: bool = True) -> Sampler:
    """One operand of any shape and layout."""
    return lambda draw: Sample((draw.laid_out(numbers(draw, draw.shape(least, empty))),), draw.pick(options or ({},)))


def binary(numbers: Numbers = normal, second: Numbers | None = None) -> Sampler:
    """Two operands that broadcast."""

    def sample(draw):
        shape = draw.shape()
        pair = numbers(draw, shape), (second or numbers)(draw, draw.partner(shape))
        return Sample((draw.laid_out(pair[0]), pair[1]) if draw.pick([False, True]) else (pair[1], pair[0]))

    return sample


def reducing(numbers: Numbers = normal, empty: bool = True, several: bool = True, whole_too: bool = True) -> Sampler:
    """One operand and the dimensions to reduce: none given, one, or (if `several`) two."""

    def sample(draw):
        shape = draw.shape(0 if whole_too else 1, empty)
        dims: list[Any] = ([None] if whole_too else []) + ([0, -1] if shape else [])
        dims += [(0, -1)] if several and len(shape) > 1 else []
        return Sample(
            (draw.laid_out(numbers(draw, shape)),), {"dim": draw.pick(dims), "keepdim": draw.pick([False, True])}
        )

    return sample


def along(numbers: Numbers = normal, *options: dict, least: int = 0, empty: bool = True) -> Sampler:
    """One operand and one of its dimensions."""

    def sample(draw):
        shape = draw.shape(least, empty)
        return Sample((draw.laid_out(numbers(draw, shape)),), {"dim": draw.dim(shape), **draw.pick(options or ({},))})

    return sample


def these(*samples: Callable[[Draw], Sample]) -> Sampler:
    """One of several samplers."""
    return lambda draw: draw.pick(samples)(draw)


def of_shapes(*shapes: Shape | tuple[Shape, ...], numbers: Numbers = normal) -> Sampler:
    """Operands of the given shapes, a tuple of shapes for each sample."""

    def sample(draw):
        return Sample(tuple(draw.laid_out(numbers(draw, s)) for s in draw.pick(shapes)))

    return sample


def _reshaping(draw):
    shape = draw.shape()
    count = int(np.prod(shape))
    targets = [(count,), (1, count, 1), shape[::-1]] + ([(-1,), (1, -1)] if count else [])
    return Sample((draw.laid_out(normal(draw, shape)),), {"shape": draw.pick(targets)})


def _permuting(draw):
    shape = draw.shape()
    order = tuple(range(len(shape)))
    return Sample((draw.laid_out(normal(draw, shape)),), {"dims": draw.pick([order[::-1], order[1:] + order[:1]])})


def _expanding(draw):
    shape = draw.shape()
    wider = tuple(4 if n == 1 else n for n in shape)
    return Sample(
        (draw.laid_out(normal(draw, shape)),), {"shape": draw.pick([wider, (2, *wider), (2, *(-1 for _ in shape))])}
    )


_INDICES: list[Any] = [
    1, -1, slice(1, None), slice(None, None, 2), slice(5, 5), ..., None, (0, -1), (slice(None), 1), (..., 0),
    (..., None, slice(0, 2)), (None, 1, ..., None), [], [0, 1, 1], (slice(None), [2, 0, 2]), ([0, 1], [2, 0]),
    ([[0], [1]], [0, 2]), (1, ..., [0, 0]), ([0, 1], slice(None), [1, 1]), [True, False],
    np.array([[True, False, True], [False, True, True]]), (slice(None), [False, True, True]),
]


def _indexing(draw):
    return Sample((draw.laid_out(normal(draw, (2, 3, 2))),), {"index": draw.pick(_INDICES)})


def _placing(draw):
    shape, index = (2, 3, 2), draw.pick([i for i in _INDICES if not isinstance(i, list)])
    index = _as_arrays(index)
    return Sample((normal(draw, np.zeros(shape)[index].shape),), {"index": index, "shape": shape})


def _as_arrays(index):
    if isinstance(index, tuple):
        return tuple(map(_as_arrays, index))
    return np.asarray(index) if isinstance(index, list) else index


def _picking(draw):
    shape, dim = draw.pick([((3,), 0), ((2, 3), 1), ((2, 3), -2), ((2, 3, 2), 1), ((3, 0), 0)])
    less = tuple(4 if d == dim % len(shape) else n for d, n in enumerate(shape))
    index = draw.random.integers(0, shape[dim], less)
    return draw.laid_out(normal(draw, shape)), index, dim, shape


def _gathering(draw):
    x, index, dim, _ = _picking(draw)
    return Sample((x, index if draw.pick([True, False]) or index.size == 0 else index[:1]), {"dim": dim})


def _taking(draw):
    x, index, dim, _ = _picking(draw)
    return Sample((x,), {"index": index, "dim": dim})


def _scattering(draw):
    _, index, dim, shape = _picking(draw)
    return Sample((normal(draw, index.shape),), {"index": index, "dim": dim, "shape": shape})


def _joining(draw):
    shapes, dim = draw.pick(
        [([(2,), (3,)], 0), ([(2, 3), (1, 3), (0, 3)], 0), ([(2, 1), (2, 2)], -1), ([(2, 3)], 1), ([(1, 2, 2)] * 3, 1)]
    )
    return Sample(tuple(draw.laid_out(normal(draw, s)) for s in shapes), {"dim": dim})


def _stacking(draw):
    shape = draw.shape()
    return Sample(
        tuple(draw.laid_out(normal(draw, shape)) for _ in range(draw.pick([2, 1]))),
        {"dim": draw.pick([0, -1, len(shape)])},
    )


def _choosing(draw):
    shape = draw.shape()
    other = draw.partner(shape)
    return Sample((truths(draw, draw.pick([shape, other])), normal(draw, shape), normal(draw, other)))


def _masking(draw):
    shape = draw.shape()
    return Sample(
        (draw.laid_out(normal(draw, shape)), truths(draw, draw.pick([shape, shape[1:]]))),
        {"value": draw.pick([-1.5, 0.0])},
    )


def _variance(draw):
    base = reducing(empty=False, several=True)(draw)
    (x,) = base.arrays
    dim = base.options["dim"]
    axes = range(x.ndim) if dim is None else {d % x.ndim for d in (dim if isinstance(dim, tuple) else (dim,))}
    correction = 0 if np.prod([x.shape[d] for d in axes], dtype=int) < 2 else draw.pick([1, 0])
    return Sample(base.arrays, {**base.options, "correction": correction})


def _spread(draw):
    """Samples for std: a root has no slope at 0, so no reduction over a single number."""
    shape, dim = draw.pick([((3,), None), ((3,), 0), ((2, 3), None), ((2, 3), 0), ((2, 3), (0, 1)), ((2, 3, 2), -1)])
    options = {"dim": dim, "keepdim": draw.pick([False, True]), "correction": draw.pick([1, 0])}
    return Sample((draw.laid_out(apart(draw, shape)),), options)


def _linear(draw):
    rows, n_in, n_out = draw.pick([(2,), (), (0,), (2, 3)]), 3, draw.pick([2, 1])
    shapes = [(*rows, n_in), (n_out, n_in)] + [(n_out,)] * draw.pick([True, False])
    return Sample(tuple(draw.laid_out(normal(draw, s)) for s in shapes))


def _affine(draw):
    x, weight, *_ = _linear(draw).arrays
    return Sample((x, weight, normal(draw, weight.shape[:1])))


def _regression(
    numbers: Numbers = normal, target: Numbers | None = None, *options: dict, reductions=("mean", "sum", "none")
) -> Sampler:
    """Input and target of one shape, differences nowhere near a corner, and the reductions."""

    def sample(draw):
        shape = draw.shape()
        t = (target or numbers)(draw, shape)
        x = numbers(draw, shape) if target else t + apart(draw, shape)
        return Sample((draw.laid_out(x), t), {"reduction": draw.pick(reductions), **draw.pick(options or ({},))})

    return sample


_CLASSES = 3


def _labelled(draw, weights=True):
    shape = draw.pick([(4, _CLASSES), (_CLASSES,), (0, _CLASSES), (2, _CLASSES, 2), (2, _CLASSES, 2, 2)])
    labels = np.asarray(draw.random.integers(0, _CLASSES, shape[:1] * (len(shape) > 1) + shape[2:]))
    options = {"reduction": draw.pick(["mean", "sum", "none"])}
    if labels.size > 1 and draw.pick([False, True]):
        labels.flat[0] = options["ignore_index"] = draw.pick([-100, 1])
        labels.flat[1] = 0  # at least one counts: the mean of nothing is nan
    weight = (positive(draw, (_CLASSES,)),) if weights and draw.pick([False, True]) else ()
    return Sample((draw.laid_out(normal(draw, shape)), labels, *weight), options)


def _smoothed(draw):
    base = _labelled(draw)
    return Sample(base.arrays, {**base.options, "label_smoothing": draw.pick([0.0, 0.3])})


def _with_soft_targets(draw):
    shape = draw.pick([(4, _CLASSES), (_CLASSES,), (2, _CLASSES, 2)])
    weight = (positive(draw, (_CLASSES,)),) if draw.pick([False, True]) else ()
    options = {"reduction": draw.pick(["mean", "sum", "none"]), "label_smoothing": draw.pick([0.0, 0.3])}
    return Sample((normal(draw, shape), probabilities(draw, shape), *weight), options)


def _with_weights(draw):
    arrays = normal(draw, (3, 2)), probabilities(draw, (3, 2)), positive(draw, (3, 2)), positive(draw, (2,))
    return Sample(arrays, {"reduction": draw.pick(["mean", "none"])})


# Adapters: ours and torch's where one call does not fit both.


def _on_list(function):
    return lambda *tensors, **options: function(tensors, **options)


def _whole_or(name):
    """torch's reduction `name`, which does not take dim=None: () stands for all dimensions."""
    return lambda torch: (
        lambda x, dim, keepdim: getattr(torch, name)(x, dim=() if dim is None else dim, keepdim=keepdim)
    )


def _positional(name):
    """torch's reduction `name`, which knows neither dim nor keepdim for the whole."""

    def of(torch):
        def reduction(x, dim, keepdim):
            if dim is not None:
                return getattr(torch, name)(x, dim, keepdim)
            return getattr(torch, name)(x).reshape([1] * x.ndim if keepdim else [])

        return reduction

    return of


def _ours_positional(function):
    def reduction(x, dim, keepdim):
        if dim is not None:
            return function(x, dim, keepdim)
        return function(x).reshape([1] * x.ndim if keepdim else [])

    return reduction


def _in_torch(torch, index):
    if isinstance(index, tuple):
        return tuple(_in_torch(torch, i) for i in index)
    index = np.asarray(index) if isinstance(index, list) else index
    if not isinstance(index, np.ndarray):
        return index
    return torch.from_numpy(index.astype(np.int64 if index.dtype.kind != "b" else bool))


def _place_in_torch(torch):
    def place(values, index, shape):
        positions = torch.from_numpy(np.arange(int(np.prod(shape))).reshape(shape)[index].copy())
        return (
            torch.zeros(int(np.prod(shape)), dtype=values.dtype)
            .index_add(0, positions.reshape(-1), values.reshape(-1))
            .reshape(shape)
        )

    return place


def _scatter_in_torch(torch):
    def place_along(values, index, dim, shape):
        return torch.zeros(shape, dtype=values.dtype).scatter_add(dim, torch.from_numpy(index), values)

    return place_along


def _gelu_slope_in_torch(torch):
    def slope(x, approximate):
        x = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(torch.nn.functional.gelu(x, approximate=approximate).sum(), x, create_graph=True)[0]

    return slope


def _loss(function):
    """A loss whose third array, if there is one, is `weight`."""
    return lambda x, target, weight=None, **options: function(x, target, weight=weight, **options)


def _weighted(function):
    """A loss whose third and fourth arrays are `weight` and `pos_weight`."""
    return lambda x, target, w, p, **options: function(x, target, weight=w, pos_weight=p, **options)


def _loss_in_torch(name):
    """torch's loss, whose gradient for an input that is not contiguous fails for some shapes."""
    return lambda torch: (
        lambda x, *others, **options: _loss(getattr(torch.nn.functional, name))(x.contiguous(), *others, **options)
    )


def _refuses(*misuses: tuple) -> tuple[Misuse, ...]:
    """Misuses from tuples of call, exception and words."""
    return tuple(Misuse(call, error, tuple(words)) for call, error, *words in misuses)


def _x(*shape: int) -> tt.Tensor:
    return tt.zeros(*shape)


def _ids(*values) -> tt.Tensor:
    return tt.tensor(list(values), dtype=tt.int64)


def _elementwise(
    name: str, numbers: Numbers = normal, *, torch: Any = None, second: Numbers | None = None, differentiable=None
) -> Op:
    function = getattr(tt, name)
    refused = _refuses((lambda: function(_x(3, 4), _x(3)), ValueError, name, "(3, 4)", "(3,)", "dimension -1"))
    return Op(name, function, torch or name, binary(numbers, second), differentiable, refused)


def _of_one(name: str, numbers: Numbers = normal, *options: dict, torch: Any = None, differentiable=None) -> Op:
    return Op(name, getattr(tt, name), torch or name, unary(numbers, *options), differentiable)


def _reduction(
    name: str, sampler: Sampler, torch: Any, ours: Any = None, differentiable=None, misuses: tuple = ()
) -> Op:
    function = ours or getattr(tt, name)
    call = lambda: function(_x(2, 3), dim=2, keepdim=False)
    return Op(
        name, function, torch, sampler, differentiable, (*_refuses((call, IndexError, "2", "2 dimensions")), *misuses)
    )


_NO_LARGEST = _refuses(
    (lambda: tt.amax(_x(0)), ValueError, "amax", "(0,)"), (lambda: tt.max(_x(2, 0), 1), ValueError, "(2, 0)")
)

ARITHMETIC = [
    _elementwise("add"),
    _elementwise("sub"),
    _elementwise("mul"),
    _elementwise("div", second=positive),
    _elementwise("power_of", positive, torch="pow"),
    _elementwise("maximum", apart),
    _elementwise("minimum", apart),
    _elementwise("floor_divide", apart, second=positive, differentiable=()),
    _elementwise(
        "remainder",
        apart,
        second=lambda draw, shape: np.asarray(draw.random.choice([0.61, -0.61], shape)),
        differentiable=(0,),
    ),
    *(
        _elementwise(name, whole, differentiable=())
        for name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or")
    ),
    *(
        Op(
            f"bitwise_{name}", getattr(tt, f"bitwise_{name}"), f"bitwise_{name}", binary(bits), (),
            _refuses((lambda name=name: getattr(tt, f"bitwise_{name}")(_x(2), _x(2)), TypeError, "float32")),
        )
        for name in ("and", "or", "xor")
    ),
    Op("2 - x", lambda x: 2 - x, lambda torch: lambda x: 2 - x, unary()),
    Op("2.5 / x", lambda x: 2.5 / x, lambda torch: lambda x: 2.5 / x, unary(positive)),
    Op("2 ** x", lambda x: 2**x, lambda torch: lambda x: 2**x, unary()),
    Op("x // 0.7", lambda x: x // 0.7, lambda torch: lambda x: x // 0.7, unary(positive), ()),
    Op(
        "x % 0.7", lambda x: x % 0.7, lambda torch: lambda x: x % 0.7,
        unary(lambda draw, shape: np.asarray(draw.random.uniform(0.75, 1.35, shape))),
    ),
    Op("pow", tt.pow, "pow", unary(positive, *({"exponent": e} for e in (2, 3, 0, 1, -1, 0.5, -1.5)))),
    Op(
        "power", lambda x, exponent: tt.power(x, exponent=exponent), "pow",
        unary(apart, *({"exponent": e} for e in (2, 3, 0, 1, 2.0, -2))),
    ),
    Op(
        "matmul", tt.matmul, "matmul",
        of_shapes(
            ((2, 3), (3, 2)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 2, 3), (3, 2)), ((2, 3), (4, 3, 1)),
            ((2, 1, 2, 3), (3, 3, 1)), ((3,), (2, 3, 2)), ((2, 2, 3), (3,)), ((2, 0), (0, 3)), ((0, 2), (2, 2)),
            ((0, 2, 2), (2, 1)),
        ),
        misuses=_refuses(
            (lambda: _x(3, 4) @ _x(3, 4), ValueError, "matmul", "(3, 4) and (3, 4)"),
            (lambda: _x() @ _x(3), ValueError, "matmul", "()"),
        ),
    ),
]

ELEMENTWISE = [
    *(_of_one(name) for name in ("neg", "exp", "sin", "cos", "tanh", "erf")),
    *(_of_one(name, positive) for name in ("log", "sqrt")),
    *(_of_one(name, apart) for name in ("abs", "sign", "floor", "ceil", "round")),
    *(_of_one(name, whole, differentiable=()) for name in ("isnan", "isinf", "isfinite", "logical_not")),
    Op(
        "bitwise_not", tt.bitwise_not, "bitwise_not", unary(bits), (),
        _refuses((lambda: ~_x(2), TypeError, "bitwise_not", "float32")),
    ),
    Op(
        "clip", tt.clip, "clip", unary(apart, {"min": -0.5, "max": 0.5}, {"min": 0.0}, {"max": 1.0}),
        misuses=_refuses((lambda: tt.clip(_x(2)), ValueError, "clip", "min", "max")),
    ),
    Op("cast", lambda x: x.to(tt.float32), lambda torch: lambda x: x.to(torch.float32), unary(whole), ()),
    Op("clone", lambda x: x.clone(), "clone", unary()),
    Op("contiguous", lambda x: x.contiguous(), lambda torch: lambda x: x.contiguous(), unary()),
    Op("where", tt.where, "where", _choosing),
    Op("masked_fill", tt.masked_fill, "masked_fill", _masking),
]

REDUCTIONS = [
    _reduction("sum", reducing(), "sum"),
    _reduction("mean", reducing(empty=False), "mean"),
    _reduction("var", _variance, "var"),
    _reduction("std", _spread, "std"),
    _reduction("prod", reducing(several=False), _positional("prod")),
    _reduction("amax", reducing(apart, empty=False), _whole_or("amax"), misuses=_NO_LARGEST),
    _reduction("amin", reducing(apart, empty=False), _whole_or("amin")),
    _reduction("max", reducing(apart, empty=False, several=False), _positional("max"), _ours_positional(tt.max)),
    _reduction("min", reducing(apart, empty=False, several=False), _positional("min"), _ours_positional(tt.min)),
    _reduction("argmax", reducing(whole, empty=False, several=False), "argmax", differentiable=()),
    _reduction("argmin", reducing(whole, empty=False, several=False), "argmin", differentiable=()),
    _reduction("any", reducing(whole), _positional("any"), differentiable=()),
    _reduction("all", reducing(whole), _positional("all"), differentiable=()),
    _reduction("logsumexp", reducing(empty=False, whole_too=False), "logsumexp"),
    Op(
        "cumsum", tt.cumsum, "cumsum", along(),
        misuses=_refuses((lambda: tt.cumsum(_x(2), dim=1), IndexError, "cumsum", "1")),
    ),
]

SHAPING = [
    Op(
        "reshape", lambda x, shape: x.reshape(shape), "reshape", _reshaping,
        misuses=_refuses((lambda: _x(3, 4).reshape(5, 2), ValueError, "reshape", "(3, 4)", "(5, 2)")),
    ),
    Op("view", lambda x, shape: x.view(*shape), lambda torch: lambda x, shape: x.contiguous().view(shape), _reshaping),
    Op(
        "permute", lambda x, dims: x.permute(dims), "permute", _permuting,
        misuses=_refuses(
            (lambda: _x(2, 3).permute(0, 0), ValueError, "permute", "(0, 0)"),
            (lambda: _x(2, 3).permute(0, 2), IndexError, "2"),
        ),
    ),
    Op(
        "expand", lambda x, shape: x.expand(*shape), lambda torch: lambda x, shape: x.expand(shape), _expanding,
        misuses=_refuses((lambda: _x(3).expand(2, 4), ValueError, "expand", "(3,)", "(2, 4)")),
    ),
    Op("flatten", tt.flatten, "flatten", unary(normal, {}, {"start_dim": 0, "end_dim": -1}, {"start_dim": -1})),
    Op("squeeze", tt.squeeze, "squeeze", unary()),
    Op("squeeze(dim)", tt.squeeze, "squeeze", along()),
    Op(
        "unsqueeze", tt.unsqueeze, "unsqueeze", along(),
        misuses=_refuses((lambda: _x(2).unsqueeze(3), IndexError, "3")),
    ),
    Op(
        "transpose", tt.transpose, "transpose",
        unary(normal, {"dim0": 0, "dim1": -1}, {"dim0": -1, "dim1": 1}, least=2),
    ),
    Op(
        "T", lambda x: x.T, lambda torch: lambda x: x.T, of_shapes(((2, 3),), ((0, 2),)),
        misuses=_refuses((lambda: _x(2, 3, 4).T, ValueError, "(2, 3, 4)", ".mT")),
    ),
    Op("mT", lambda x: x.mT, lambda torch: lambda x: x.mT, unary(least=2)),
    Op("flip", tt.flip, lambda torch: lambda x, dim: torch.flip(x, (dim,)), along(least=1)),
    Op(
        "getitem", lambda x, index: x[index], lambda torch: lambda x, index: x[_in_torch(torch, index)], _indexing,
        misuses=_refuses(
            (lambda: _x(3)[3], IndexError, "getitem", "3"), (lambda: _x(3)[0, 0], IndexError, "(3,)"),
            (lambda: _x(3)[tt.zeros(2)], IndexError, "float32", "long"),
            (lambda: _x(3)[np.zeros(2)], IndexError, "float64"),
        ),
    ),
    Op("place", lambda v, index, shape: tt.place(v, index=index, shape=shape), _place_in_torch, _placing),
]

JOINING = [
    Op(
        "cat", _on_list(tt.cat), lambda torch: _on_list(torch.cat), _joining,
        misuses=_refuses(
            (lambda: tt.cat([]), ValueError, "at least one"),
            (lambda: tt.cat([_x(2, 3), _x(2, 2)]), ValueError, "(2, 3) and (2, 2)"),
        ),
    ),
    Op(
        "stack", _on_list(tt.stack), lambda torch: _on_list(torch.stack), _stacking,
        misuses=_refuses(
            (lambda: tt.stack([_x(2), _x(3)]), ValueError, "(2,)", "(3,)"),
            (lambda: tt.stack([]), ValueError, "at least one"),
        ),
    ),
    Op(
        "split", tt.split, lambda torch: lambda x, size, dim: torch.split(x, size, dim),
        these(
            along(normal, {"size": 2}, {"size": 1}, least=1),
            lambda draw: Sample((normal(draw, (4, 3)),), {"size": [1, 0, 3], "dim": 0}),
        ),
        misuses=_refuses(
            (lambda: tt.split(_x(4), [1, 2]), ValueError, "[1, 2]", "3", "4"),
            (lambda: tt.split(_x(4), 0), ValueError, "0"),
        ),
    ),
    Op(
        "chunk", tt.chunk, lambda torch: lambda x, chunks, dim: torch.chunk(x, chunks, dim),
        along(normal, {"chunks": 2}, {"chunks": 3}, least=1, empty=False),
        misuses=_refuses((lambda: tt.chunk(_x(4), 0), ValueError, "0")),
    ),
    Op("tril", tt.tril, "tril", unary(normal, {}, {"diagonal": 1}, {"diagonal": -1}, least=2)),
    Op("triu", tt.triu, "triu", unary(normal, {}, {"diagonal": 1}, {"diagonal": -1}, least=2)),
    Op(
        "gather", lambda x, index, dim: tt.gather(x, dim, index),
        lambda torch: lambda x, index, dim: torch.gather(x, dim, index), _gathering,
        misuses=_refuses(
            (lambda: _x(2, 3).gather(1, _ids([3], [0])), IndexError, "gather", "3", "size 3"),
            (lambda: _x(2, 3).gather(1, _ids(0, 1)), IndexError, "(2,)", "(2, 3)"),
            (lambda: _x(2, 3).gather(1, _x(2, 1)), IndexError, "float32"),
            (lambda: _x(1, 3).gather(1, _ids([0], [1])), IndexError, "gather", "(2, 1)", "(1, 3)"),
        ),
    ),
    Op(
        "take_along", tt.take_along,
        lambda torch: lambda x, index, dim: torch.take_along_dim(x, torch.from_numpy(index), dim), _taking,
    ),
    Op("place_along", tt.place_along, _scatter_in_torch, _scattering),
    Op(
        "one_hot", tt.one_hot, "nn.functional.one_hot",
        lambda draw: Sample(
            (np.asarray(draw.random.integers(0, 3, draw.shape(empty=False))),), {"num_classes": draw.pick([3, 5])},
        ),
        differentiable=(),
        misuses=_refuses(
            (lambda: tt.one_hot(_ids(0, 3), 3), ValueError, "3 classes"),
            (lambda: tt.one_hot(_x(2)), TypeError, "float32"),
        ),
    ),
    Op("sort", tt.sort, "sort", along(apart, {}, {"descending": True})),
    Op(
        "argsort", tt.argsort, lambda torch: lambda x, **options: torch.argsort(x, stable=True, **options),
        along(whole, {}, {"descending": True}), (),
    ),
    Op(
        "topk", tt.topk, "topk", along(apart, {"k": 1}, {"k": 0}, least=1, empty=False),
        misuses=_refuses((lambda: tt.topk(_x(2), 3), ValueError, "3", "2")),
    ),
]

_NN = "nn.functional."
_NO_DIM = lambda function: _refuses(
    (lambda: function(_x(2, 3), dim=2), IndexError, function.__name__, "2", "(2, 3)"),
    (lambda: function(_x(2)), TypeError, "dim"),
)

ACTIVATIONS = [
    Op("relu", tt.relu, _NN + "relu", unary(apart)),
    Op(
        "leaky_relu", tt.leaky_relu, _NN + "leaky_relu",
        unary(apart, {}, {"negative_slope": 0.3}, {"negative_slope": 1.5}),
    ),
    Op("elu", tt.elu, _NN + "elu", unary(apart, {}, {"alpha": 0.7})),
    Op("sigmoid", tt.sigmoid, "sigmoid", unary()),
    Op("softplus", tt.softplus, _NN + "softplus", unary(normal, {}, {"beta": 2.5})),
    Op("silu", tt.silu, _NN + "silu", unary()),
    Op(
        "gelu", tt.gelu, _NN + "gelu", unary(normal, {}, {"approximate": "tanh"}),
        misuses=_refuses((lambda: tt.gelu(_x(2), approximate="sigmoid"), ValueError, "gelu", "sigmoid", "tanh")),
    ),
    Op(
        "gelu_slope", tt.gelu_slope, _gelu_slope_in_torch,
        unary(normal, {"approximate": "none"}, {"approximate": "tanh"}),
    ),
    Op("softmax", tt.softmax, "softmax", along(), misuses=_NO_DIM(tt.softmax)),
    Op("log_softmax", tt.log_softmax, "log_softmax", along(), misuses=_NO_DIM(tt.log_softmax)),
]

LAYERS = [
    Op(
        "linear", tt.linear, _NN + "linear", _linear,
        misuses=_refuses((lambda: tt.linear(_x(5, 4), _x(2, 3)), ValueError, "linear", "(5, 4)", "(2, 3)")),
    ),
    Op("affine", tt.affine, _NN + "linear", _affine),
    Op(
        "dropout", tt.dropout, _NN + "dropout", unary(normal, {"p": 0.0}, {"p": 1.0}, {"p": 0.5, "training": False}),
        misuses=_refuses((lambda: tt.dropout(_x(2), 1.5), ValueError, "1.5", "between 0 and 1")),
    ),
]


def _distance(name: str, *options: dict) -> Op:
    function = getattr(tt, name)
    refused = _refuses(
        (lambda: function(_x(4, 1), _x(4)), ValueError, "(4, 1)", "(4,)"),
        (lambda: function(_x(4), _x(4), reduction="average"), ValueError, "average", "mean"),
    )
    return Op(name, function, _NN + name, _regression(normal, None, *options), misuses=refused)


def _of_labels(name: str, sampler: Sampler) -> Op:
    function = getattr(tt, name)
    refused = _refuses(
        (lambda: function(_x(2, 3), _ids(0, 3)), IndexError, "label 3", "3 classes"),
        (lambda: function(_x(2, 3), _ids(0, -1)), IndexError, "-1"),
        (lambda: function(_x(2, 3), _x(2)), TypeError, "float32", "integers"),
        (lambda: function(_x(2, 3), _ids(0, 1, 2)), ValueError, "(2, 3)", "(3,)"),
        (lambda: function(_x(2, 3), _ids(0, 1), weight=_x(2)), ValueError, "weight", "3 classes", "(2,)"),
    )
    return Op(name, _loss(function), _loss_in_torch(name), sampler, (0,), refused)


LOSSES = [
    _distance("mse_loss"),
    _distance("l1_loss"),
    _distance("huber_loss", {}, {"delta": 0.5}),
    _distance("smooth_l1_loss", {}, {"beta": 0.5}, {"beta": 0}),
    _of_labels("nll_loss", _labelled),
    _of_labels("cross_entropy", _smoothed),
    Op(
        "cross_entropy (soft)", _loss(tt.cross_entropy), _loss_in_torch("cross_entropy"), _with_soft_targets, (0, 1),
        _refuses(
            (lambda: tt.cross_entropy(_x(2, 3), _ids(0, 1), label_smoothing=2.0), ValueError, "label_smoothing", "2.0"),
        ),
    ),
    Op(
        "binary_cross_entropy", tt.binary_cross_entropy, _NN + "binary_cross_entropy",
        _regression(probabilities, probabilities),
        misuses=_refuses(
            (lambda: tt.binary_cross_entropy(tt.full((2,), 1.5), _x(2)), ValueError, "1.5", "with_logits"),
            (lambda: tt.binary_cross_entropy(_x(2), _x(2, 1)), ValueError, "(2,)", "(2, 1)"),
        ),
    ),
    Op(
        "binary_cross_entropy_with_logits", tt.binary_cross_entropy_with_logits,
        _NN + "binary_cross_entropy_with_logits", _regression(normal, probabilities),
        misuses=_refuses((lambda: tt.binary_cross_entropy_with_logits(_x(2), _x(2, 1)), ValueError, "(2,)", "(2, 1)")),
    ),
    Op(
        "binary_cross_entropy_with_logits (weights)", _weighted(tt.binary_cross_entropy_with_logits),
        lambda torch: _weighted(torch.nn.functional.binary_cross_entropy_with_logits), _with_weights, (0, 1),
    ),
    Op(
        "kl_div", tt.kl_div, _NN + "kl_div", _regression(lambda draw, s: np.log(probabilities(draw, s)), probabilities),
        misuses=_refuses((lambda: tt.kl_div(_x(2), _x(2, 1)), ValueError, "(2,)", "(2, 1)")),
    ),
    Op(
        "kl_div (batchmean, log_target)", tt.kl_div, _NN + "kl_div",
        lambda draw: Sample(
            tuple(np.log(probabilities(draw, (2, 3))) for _ in "xt"),
            {"reduction": draw.pick(["batchmean", "none"]), "log_target": True},
        ),
    ),
]

# The long tail: the appendices `pointwise`, `products`, `counting`, `arranging` and `linalg`. Nearly all of it is
# called here as in torch, so one expression serves for both: a function that takes the module and returns what to call.


def _both(
    name: str, sampler: Sampler, call: Callable | None = None, differentiable=None, misuses: tuple = (), ours=None
) -> Op:
    call = call or attrgetter(name)
    return Op(name, (ours or call)(tt), call, sampler, differentiable, misuses)


def _each_of(names: str, sampler: Sampler, differentiable=None) -> list[Op]:
    return [_both(name, sampler, None, differentiable) for name in names.split()]


def options(shapes: Sequence, *choices: dict, numbers: Numbers = normal) -> Sampler:
    """Operands of one of the shapes (a tuple of shapes for each sample) and one of several sets of options."""

    def sample(draw):
        arrays = tuple(draw.laid_out(numbers(draw, s)) for s in draw.pick(shapes))
        return Sample(arrays, draw.pick(choices or ({},)))

    return sample


def _above_one(draw, shape):
    return positive(draw, shape) + 0.6


def _few(draw, shape):
    return np.asarray(draw.random.integers(0, 5, shape))


def _either_sign(draw, shape):
    return np.asarray(draw.random.choice([0.61, -0.61], shape))


POINTWISE = [
    *_each_of("expm1 atan sinh cosh asinh exp2 square erfc deg2rad rad2deg sinc", unary()),
    *_each_of("log1p log2 log10 rsqrt reciprocal lgamma digamma", unary(positive)),
    *_each_of("tan asin acos atanh erfinv logit", unary(probabilities)),
    *_each_of("acosh", unary(_above_one)),
    *_each_of("trunc frac nan_to_num", unary(apart)),
    *_each_of("signbit isposinf isneginf", unary(whole), ()),
    _elementwise("atan2", apart),
    _elementwise("hypot", apart),
    _elementwise("logaddexp"),
    _elementwise("fmod", apart, second=_either_sign, differentiable=(0,)),
    *(
        Op(
            f"bitwise_{side}_shift",
            getattr(tt, f"bitwise_{side}_shift"),
            f"bitwise_{side}_shift",
            binary(_few),
            (),
            _refuses((lambda side=side: getattr(tt, f"bitwise_{side}_shift")(_x(2), _x(2)), TypeError, "float32")),
        )
        for side in ("left", "right")
    ),
    _both("copysign", options([((3,), (3,)), ((2, 3), (3,))], numbers=apart), None, (0,)),
    _both("xlogy", binary(positive)),
    _both("logical_xor", binary(whole), None, ()),
    _both(
        "isclose", options([((3,), (3,)), ((2, 3), (3,))], {}, {"rtol": 0.5}, {"atol": 1.0}, numbers=whole), None, ()
    ),
    _both("heaviside", options([((2, 3), (3,))], numbers=whole), None, ()),
    _both("polygamma", unary(positive, {"n": 0}, {"n": 1}, {"n": 2}), lambda m: lambda x, n: m.polygamma(n, x)),
    Op(
        "zeta_sum",
        tt.zeta_sum,
        lambda torch: lambda x, s: torch.special.zeta(torch.full_like(x, s, requires_grad=False), x),
        unary(positive, {"s": 2}, {"s": 3}),
    ),
    _both(
        "add(alpha)",
        options([((2, 3), (3,))], {"alpha": 1}, {"alpha": 3}),
        lambda m: m.add,
        None,
        (),
        lambda m: m.add_scaled,
    ),
    *(_both(name, options([((2, 3), (3,))], {}, {"alpha": 3})) for name in ("subtract", "rsub")),
    _both(
        "divide",
        options([((2, 3), (3,))], {}, {"rounding_mode": "trunc"}, {"rounding_mode": "floor"}, numbers=apart),
        None,
        None,
        _refuses((lambda: tt.divide(_x(2), 1, rounding_mode="up"), ValueError, "up", "trunc", "floor")),
    ),
    _both("lerp", options([((2, 3), (2, 3)), ((2, 3), (3,))], {"weight": 0.3})),
    *(
        _both(name, options([((2, 3), (3,), (2, 1))], {}, {"value": 2}, numbers=positive))
        for name in ("addcmul", "addcdiv")
    ),
]

_EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
    ("ij->ji", (2, 3)),
    ("ba", (2, 3)),
    ("ii", (3, 3)),
    ("ii->i", (3, 3)),
    ("i,j->ij", (2,), (3,)),
    ("ij,ij->", (2, 3), (2, 3)),
    ("i,ij,j", (2,), (2, 3), (3,)),
    ("...ij,...jk->...ik", (2, 2, 3), (3, 2)),
    ("bhqd,bhkd->bhqk", (2, 1, 2, 3), (2, 1, 2, 3)),
    ("ij->", (2, 3)),
    ("ik,jkl,il->ij", (2, 3), (2, 3, 2), (2, 2)),
    ("b...,b...->b...", (2, 3), (2, 3)),
    ("iij,jk->k", (2, 2, 3), (3, 2)),
    ("ij,jk->ik", (2, 0), (0, 3)),
    ("ij,ij->ij", (2, 3), (1, 3)),
    ("...->...", (2, 3)),
    ("i j, j k -> k i", (2, 3), (3, 4)),
]


def _contracting(draw):
    equation, *shapes = draw.pick(_EQUATIONS)
    return Sample(tuple(draw.laid_out(normal(draw, s)) for s in shapes), {"equation": equation})


_LENGTHS: list[dict[str, Any]] = [{"p": 2}, {"p": 1}, {"p": 3}, {"p": float("inf")}]

PRODUCTS = [
    _both(
        "mm",
        of_shapes(((2, 3), (3, 2)), ((2, 0), (0, 2))),
        None,
        None,
        _refuses((lambda: tt.mm(_x(2), _x(2)), ValueError, "mm", "(2,)", "matmul")),
    ),
    _both(
        "bmm",
        of_shapes(((2, 2, 3), (2, 3, 2))),
        None,
        None,
        _refuses((lambda: tt.bmm(_x(2, 3, 3), _x(1, 3, 3)), ValueError, "bmm", "2 and 1")),
    ),
    _both("mv", of_shapes(((2, 3), (3,)))),
    _both("dot", of_shapes(((3,), (3,)), ((0,), (0,)))),
    _both("outer", of_shapes(((2,), (3,)))),
    _both("inner", of_shapes(((2,), (2,)), ((2, 3), (4, 3)))),
    _both("addmm", options([((2, 2), (2, 3), (3, 2)), ((2,), (2, 3), (3, 2))], {}, {"beta": 3, "alpha": 2})),
    _both("addmv", options([((2,), (2, 3), (3,))], {}, {"beta": 3, "alpha": 2})),
    _both("addr", options([((2, 3), (2,), (3,))], {}, {"beta": 3, "alpha": 2})),
    _both("baddbmm", options([((2, 2, 2), (2, 2, 3), (2, 3, 2))], {}, {"beta": 3, "alpha": 2})),
    _both(
        "einsum",
        _contracting,
        lambda m: lambda *x, equation: m.einsum(equation, *x),
        None,
        _refuses(
            (lambda: tt.einsum("ij,jk", _x(2, 3)), ValueError, "2 operands", "1"),
            (lambda: tt.einsum("ij,jk", _x(2, 3), _x(4, 2)), ValueError, "'j'", "3 and 4"),
            (lambda: tt.einsum("ij", _x(2)), ValueError, "'ij'", "(2,)"),
            (lambda: tt.einsum("ij->k", _x(2, 3)), ValueError, "ij->k"),
            (lambda: tt.einsum("i1", _x(2, 3)), ValueError, "i1", "letters"),
        ),
    ),
    _both(
        "tensordot",
        these(
            options([((2, 3), (3, 2)), ((2, 2, 3), (3, 2))], {"dims": 1}),
            options([((2, 3), (2, 3))], {"dims": ([0, 1], [0, 1])}, {"dims": ([1], [1])}, {"dims": 0}),
        ),
        None,
        None,
        _refuses((lambda: tt.tensordot(_x(2, 3), _x(4, 2), 1), ValueError, "(2, 3)", "(4, 2)")),
    ),
    _both(
        "kron",
        of_shapes(((2, 3), (2, 2)), ((2,), (2, 2)), ((), (2,))),
        lambda m: lambda x, y: m.kron(x.contiguous(), y.contiguous()),  # torch fails for a transposed operand
    ),
    _both("cross", options([((2, 3), (2, 3)), ((3,), (3,))], {"dim": -1})),
    _both("cdist", options([((2, 3), (4, 3)), ((2, 2, 3), (2, 3, 3))], *_LENGTHS)),
    _both("pairwise_distance", options([((2, 3), (2, 3)), ((3,), (3,))], *_LENGTHS, {"keepdim": True})),
    _both("cosine_similarity", options([((2, 3), (2, 3))], {}, {"dim": 0})),
    Op("normalize", tt.normalize, _NN + "normalize", options([((2, 3),)], {}, {"dim": 0}, {"p": 1})),
    _both(
        "norm",
        options([((2, 3),), ((2, 3, 2),)], {}, {"p": 1}, {"dim": 1}, {"p": 3, "dim": -1, "keepdim": True}),
        None,
        None,
        _refuses((lambda: tt.norm(_x(2), "nuc"), ValueError, "nuc", "fro")),
    ),
]

_DIMS = ((3,), (2, 3), (2, 0, 3))


def _fraction(draw):
    base = reducing(apart, empty=False, several=False)(draw)
    q = draw.pick([0.3, 0.0, 1.0, [0.25, 0.5]])
    how = draw.pick(["linear", "lower", "higher", "midpoint"])
    return Sample(base.arrays, {**base.options, "q": q, "interpolation": how})


def _quantile_of(m):
    q_of = (lambda q, x: q) if m is tt else (lambda q, x: m.tensor(q, dtype=x.dtype))
    return lambda x, q, **rest: m.quantile(x, q_of(q, x), **rest)


def _middle(name):
    return lambda m: (
        lambda x, dim, keepdim: (
            getattr(m, name)(x, dim, keepdim)
            if dim is not None
            else getattr(m, name)(x).reshape([1] * x.ndim if keepdim else [])
        )
    )


def _sorted_rows(draw):
    sequence = draw.pick([np.sort(whole(draw, (4,))), np.sort(whole(draw, (2, 4)), -1)])
    return Sample((sequence, whole(draw, (*sequence.shape[:-1], 3))), {"right": draw.pick([False, True])})


_SPREAD_TWO = lambda name: lambda m: lambda x, **options: getattr(m, name)(x, **options)

COUNTING = [
    _both("cumprod", along()),
    _both("logcumsumexp", along()),
    _both("cummax", along(apart, empty=False)),
    _both("cummin", along(apart, empty=False)),
    Op("running_argmax", tt.running_argmax, lambda torch: lambda x, dim: torch.cummax(x, dim)[1], along(whole), ()),
    _both("diff", options([(s,) for s in _DIMS], {}, {"n": 2}, {"dim": 0})),
    _both(
        "kthvalue",
        along(apart, {"k": 1}, {"k": 1, "keepdim": True}, least=1, empty=False),
        None,
        None,
        _refuses((lambda: tt.kthvalue(_x(2), 3), ValueError, "k = 3", "2 elements")),
    ),
    _both("median", reducing(apart, empty=False, several=False), _middle("median")),
    _both("nanmedian", reducing(apart, empty=False, several=False), _middle("nanmedian")),
    _both("msort", unary(apart, least=1)),
    _both("quantile", _fraction, _quantile_of, None, _refuses((lambda: tt.quantile(_x(2), 1.5), ValueError, "1.5"))),
    _both(
        "mode",
        options([((2, 5),), ((5,),)], {}, {"dim": 0}, {"keepdim": True}, numbers=whole),
        lambda m: lambda x, **o: m.mode(x, **o)[0],
        (),
    ),
    _both("aminmax", reducing(apart, empty=False, several=False)),
    _both("var_mean", _spread),
    _both("std_mean", _spread),
    _both("nansum", reducing()),
    _both("nanmean", reducing(empty=False)),
    _both("count_nonzero", unary(whole, {}, least=0), None, ()),
    _both(
        "unique", unary(whole, {}, {"return_inverse": True}, {"return_inverse": True, "return_counts": True}), None, ()
    ),
    _both(
        "unique(dim)",
        options([((4, 2),)], {"dim": 0}, {"dim": 1, "return_inverse": True}, numbers=whole),
        lambda m: m.unique,
        (),
    ),
    _both("unique_consecutive", unary(whole, {}, {"return_inverse": True, "return_counts": True}, least=1), None, ()),
    _both(
        "bincount",
        options([((5,),), ((0,),)], {}, {"minlength": 7}, numbers=_few),
        None,
        (),
        _refuses((lambda: tt.bincount(_x(2)), ValueError, "float32", "integers")),
    ),
    _both("bincount(weights)", lambda draw: Sample((_few(draw, (5,)), normal(draw, (5,)))), lambda m: m.bincount, ()),
    _both("histc", options([((7,),)], {"bins": 4}, {"bins": 3, "min": -1, "max": 1}), None, ()),
    _both("searchsorted", _sorted_rows, None, ()),
    _both(
        "bucketize",
        lambda draw: Sample((whole(draw, (2, 3)), np.sort(whole(draw, (4,)))), {"right": draw.pick([False, True])}),
        None,
        (),
    ),
    _both("isin", options([((2, 3), (2,))], {}, {"invert": True}, numbers=whole), None, ()),
]


def _scattered_with(numbers, *choices):
    def sample(draw):
        dim, index, shape = draw.pick(
            [(0, [[1, 0, 1]], (2, 3)), (1, [[0, 2], [2, 1]], (2, 3)), (0, [2, 0], (3,)), (-1, [[0], [2]], (2, 3))]
        )
        index = np.array(index)
        return Sample(
            (numbers(draw, shape), index, numbers(draw, index.shape)), {"dim": dim, **draw.pick(choices or ({},))}
        )

    return sample


def _of_rows(*choices):
    def sample(draw):
        dim, index = draw.pick([(0, [1, 0]), (1, [2]), (-1, [0, 2])])
        shape = tuple(len(index) if d == dim % 2 else n for d, n in enumerate((2, 3)))
        return Sample(
            (normal(draw, (2, 3)), np.array(index), normal(draw, shape)), {"dim": dim, **draw.pick(choices or ({},))}
        )

    return sample


def _by(name):
    return lambda m: lambda x, index, *rest, dim, **options: getattr(m, name)(x, dim, index, *rest, **options)


def _filling(draw):
    base = _of_rows()(draw)
    return Sample(base.arrays[:2], {**base.options, "value": 1.5})


def _by_mask(draw):
    return Sample((draw.laid_out(normal(draw, (2, 3))), truths(draw, draw.pick([(2, 3), (3,)]))))


def _scattering_mask(draw):
    return Sample((normal(draw, (2, 3)), truths(draw, draw.pick([(2, 3), (3,)])), normal(draw, (2, 4))))


def _on_tensors(name):
    return lambda m: lambda *x, **options: getattr(m, name)(x, **options)


_SEVERAL = of_shapes(((2,), (2,)), ((2, 3), (2, 3)), ((1, 2, 2), (1, 2, 2)))

ARRANGING = [
    _both(
        "movedim",
        unary(normal, {"source": 0, "destination": -1}, {"source": (0, 1), "destination": (1, 0)}, least=2),
        None,
        None,
        _refuses((lambda: tt.movedim(_x(2, 3), (0, 0), (0, 1)), ValueError, "(0, 0)")),
    ),
    _both("swapaxes", unary(normal, {"axis0": 0, "axis1": -1}, least=2)),
    _both("swapdims", unary(normal, {"dim0": 0, "dim1": -1}, least=2)),
    _both("t", of_shapes(((2, 3),), ((2,),))),
    _both("ravel", unary()),
    _both(
        "unflatten",
        options([((6, 2),)], {"dim": 0, "sizes": (2, 3)}, {"dim": 0, "sizes": (-1, 2)}, {"dim": -1, "sizes": (2, 1)}),
        None,
        None,
        _refuses((lambda: tt.unflatten(_x(6), 0, (4, 2)), ValueError, "(4, 2)", "6")),
    ),
    _both("broadcast_to", options([((3,),), ((2, 1),)], {"size": (2, 3)})),
    _both("broadcast_tensors", of_shapes(((2, 1), (3,)), ((2, 3), ()))),
    _both("atleast_1d", unary()),
    _both("atleast_2d", unary()),
    *(_both(name, _SEVERAL, _on_tensors(name)) for name in ("hstack", "vstack", "dstack")),
    _both("column_stack", of_shapes(((2,), (2, 3)), ((2,), (2,))), _on_tensors("column_stack")),
    _both("unbind", along(least=1, empty=False)),
    _both(
        "tensor_split",
        options([((5, 2),)], {"at": 2}, {"at": (1, 3)}, {"at": 2, "dim": 1}),
        lambda m: lambda x, at, dim=0: m.tensor_split(x, at, dim),
    ),
    _both("tile", unary(normal, {"dims": (2,)}, {"dims": (2, 1, 2)}, {"dims": ()})),
    _both("repeat_interleave", unary(normal, {"repeats": 2}, {"repeats": 2, "dim": -1}, least=1)),
    _both(
        "repeat_interleave(each)",
        lambda draw: Sample((normal(draw, (2, 3)), _few(draw, (3,))), {"dim": 1}),
        lambda m: lambda x, repeats, dim: m.repeat_interleave(x, repeats, dim),
        None,
        _refuses((lambda: tt.repeat_interleave(_x(3), _ids(1, 2)), ValueError, "[1, 2]")),
    ),
    _both(
        "roll",
        unary(
            normal,
            {"shifts": 1},
            {"shifts": -2, "dims": 0},
            {"shifts": (1, 2), "dims": (0, 1)},
            {"shifts": 4, "dims": -1},
            least=2,
        ),
        None,
        None,
        _refuses((lambda: tt.roll(_x(2, 2), (1, 2), 0), ValueError, "2 shifts")),
    ),
    _both("fliplr", unary(least=2)),
    _both("flipud", unary(least=1)),
    _both(
        "rot90",
        unary(normal, {}, {"k": 2}, {"k": -1}, {"dims": (1, 0)}, least=2),
        lambda m: lambda x, k=1, dims=(0, 1): m.rot90(x, k, dims),
    ),
    _both("diagonal", unary(normal, {}, {"offset": 1}, {"offset": -1}, {"dim1": -1, "dim2": 0}, least=2)),
    _both("diag_embed", unary(normal, {}, {"offset": 1}, {"offset": -2}, {"dim1": 0, "dim2": 1}, least=1)),
    _both(
        "diag",
        options([((3,),), ((2, 3),)], {}, {"diagonal": 1}, {"diagonal": -1}),
        None,
        None,
        _refuses((lambda: tt.diag(_x(2, 2, 2)), ValueError, "(2, 2, 2)")),
    ),
    _both("trace", of_shapes(((3, 3),), ((2, 3),), ((0, 0),))),
    _both("select", unary(normal, {"dim": 0, "index": 0}, {"dim": -1, "index": -1}, least=1, empty=False)),
    _both(
        "narrow",
        options([((3, 3),)], {"dim": 0, "start": 1, "length": 2}, {"dim": -1, "start": -2, "length": 1}),
        None,
        None,
        _refuses((lambda: tt.narrow(_x(3), 0, 2, 2), ValueError, "2 from 2", "size 3")),
    ),
    _both(
        "index_select",
        lambda draw: Sample(_of_rows()(draw).arrays[:2], {"dim": 1}),
        _by("index_select"),
        None,
        _refuses((lambda: tt.index_select(_x(3), 0, _x(1)), IndexError, "float32")),
    ),
    _both("masked_select", _by_mask),
    _both("take", lambda draw: Sample((normal(draw, (2, 3)), _few(draw, draw.pick([(2,), (2, 2)]))))),
    _both("nonzero", unary(whole), None, ()),
    _both("argwhere", unary(whole), None, ()),
    _both("where(mask)", unary(whole), lambda m: lambda x: m.where(x != 0), ()),
    _both(
        "scatter_add",
        _scattered_with(normal),
        lambda m: lambda x, index, src, dim: m.scatter_add(x, dim, index, src),
        None,
        _refuses(
            (lambda: tt.scatter_add(_x(2, 3), 0, _ids([2]), _x(1, 1)), IndexError, "2", "size 2"),
            (lambda: tt.scatter_add(_x(2, 3), 0, _ids(1), _x(1)), ValueError, "(1,)", "(2, 3)"),
            (lambda: tt.scatter_add(_x(2, 3), 0, _ids([1, 1]), _x(1, 1)), ValueError, "(1, 2)", "(1, 1)"),
        ),
    ),
    _both(
        "scatter",
        _scattered_with(normal),
        lambda m: lambda x, index, src, dim: m.scatter(x, dim, index, src),
        None,
        _refuses((lambda: tt.scatter(_x(2), 0, _ids(1), 1.0, reduce="max"), ValueError, "max", "multiply")),
    ),
    _both(
        "scatter(value)",
        lambda draw: Sample((normal(draw, (2, 3)), np.array([[1, 0, 1]])), {"dim": 0}),
        lambda m: lambda x, index, dim: m.scatter(x, dim, index, 2.0),
    ),
    _both(
        "scatter(add)",
        lambda draw: Sample((normal(draw, (2, 3)), np.array([[1, 0, 1], [1, 1, 1]])), {"dim": 0}),
        lambda m: lambda x, index, dim: m.scatter(x, dim, index, 2, reduce="add"),
        (),
    ),
    _both(
        "scatter(multiply)",
        lambda draw: Sample((normal(draw, (2, 3)), np.array([[1, 0, 1], [1, 1, 1]])), {"dim": 0}),
        lambda m: lambda x, index, dim: m.scatter(x, dim, index, 2, reduce="multiply"),
        (),
    ),
    _both(
        "index_add",
        _of_rows({}, {"alpha": 2}),
        _by("index_add"),
        None,
        _refuses(
            (lambda: tt.index_add(_x(2, 3), 0, _ids(0), _x(2, 3)), ValueError, "(1, 3)", "(2, 3)"),
            (lambda: tt.index_add(_x(2, 3), 0, _ids(2), _x(1, 3)), IndexError, "[2]", "size 2"),
        ),
    ),
    _both("index_copy", _of_rows(), _by("index_copy")),
    _both("index_fill", _filling, _by("index_fill")),
    _both(
        "masked_scatter",
        _scattering_mask,
        None,
        None,
        _refuses((lambda: tt.masked_scatter(_x(2), _x(2) == 0, _x(1)), ValueError, "2 times", "1 elements")),
    ),
    _both(
        "meshgrid",
        options([((2,), (3,)), ((2,), (3,), (1,)), ((2,),)], {"indexing": "ij"}, {"indexing": "xy"}),
        lambda m: lambda *x, indexing: m.meshgrid(*x, indexing=indexing),
        None,
        _refuses((lambda: tt.meshgrid(_x(2), indexing="yx"), ValueError, "yx")),
    ),
    _both("cartesian_prod", of_shapes(((2,), (3,)), ((2,),))),
    _both("combinations", options([((4,),)], {}, {"r": 3}, {"with_replacement": True})),
    _both("block_diag", of_shapes(((2, 2), (1, 3)), ((2,), ()))),
]


def _invertible(draw, shape):
    return (
        normal(draw, shape) + 3 * np.eye(shape[-1])
        if len(shape) > 1 and shape[-1] == shape[-2]
        else normal(draw, shape)
    )


def _definite(draw, shape):
    half = normal(draw, shape)
    return half @ half.mT + np.eye(shape[-1])


_SQUARE = [((2, 2),), ((2, 3, 3),), ((1, 1),)]
_SINGULAR = _refuses(
    (lambda: tt.linalg.inv(_x(2, 2)), ValueError, "singular"),
    (lambda: tt.linalg.inv(_x(2, 3)), ValueError, "square", "(2, 3)"),
)
_HALF = lambda m: lambda x: m.linalg.cholesky((x + x.mT) / 2)

LINALG = [
    _both(
        "linalg.vector_norm",
        options(
            [((2, 3),), ((2, 3, 2),)],
            {},
            {"ord": 1},
            {"ord": 3, "dim": 1},
            {"ord": float("inf"), "dim": -1, "keepdim": True},
            numbers=apart,
        ),
    ),
    _both("linalg.vector_norm(0)", options([((2, 3),)], {"ord": 0}, numbers=whole), lambda m: m.linalg.vector_norm, ()),
    _both(
        "linalg.matrix_norm",
        options(
            [((2, 3),), ((2, 3, 2),)],
            {},
            {"ord": 1},
            {"ord": float("inf"), "keepdim": True},
            {"ord": -1, "dim": (0, 1)},
            numbers=apart,
        ),
        None,
        None,
        _refuses((lambda: tt.linalg.matrix_norm(_x(2, 2), 3), ValueError, "3", "fro")),
    ),
    _both(
        "linalg.matrix_norm(2)",
        options([((2, 3),), ((2, 3, 2),)], {"ord": 2}, {"ord": "nuc"}, {"ord": -2, "keepdim": True}),
        lambda m: m.linalg.matrix_norm,
        (),
    ),
    _both("linalg.norm", options([((2, 3),), ((2, 3, 2),)], {}, {"dim": 1}, {"dim": (0, 1)})),
    _both(
        "linalg.norm(ord)",
        options([((2, 3),)], {"ord": 1}, {"ord": "fro"}, {"ord": 3, "dim": 0}, numbers=apart),
        lambda m: m.linalg.norm,
    ),
    _both(
        "linalg.solve",
        options([((2, 2), (2, 3)), ((2, 2), (2,)), ((2, 2, 2), (2, 2, 1))], numbers=_invertible),
        None,
        None,
        _SINGULAR,
    ),
    Op(
        "solved",
        tt.linalg.solved,
        "linalg.solve",
        options([((2, 2), (2, 3)), ((3, 2, 2), (2, 1))], numbers=_invertible),
    ),
    _both("linalg.inv", options(_SQUARE, numbers=_invertible)),
    _both("linalg.det", options(_SQUARE, numbers=_invertible)),
    Op(
        "logabsdet",
        tt.linalg.logabsdet,
        lambda torch: lambda x: torch.linalg.slogdet(x)[1],
        options(_SQUARE, numbers=_invertible),
    ),
    _both("linalg.slogdet", options(_SQUARE, numbers=_invertible), None, ()),
    _both(
        "linalg.cholesky",
        options(_SQUARE, numbers=_definite),
        _HALF,
        None,
        _refuses((lambda: tt.linalg.cholesky(-tt.eye(2)), ValueError, "positive definite")),
    ),
    _both("linalg.matrix_power", options(_SQUARE, *({"n": n} for n in (3, 1, -2)), numbers=_invertible)),
    _both("linalg.matrix_power(0)", options(_SQUARE, {"n": 0}), lambda m: m.linalg.matrix_power, ()),
    _both("linalg.svdvals", options([((2, 3),), ((2, 2, 2),)]), None, ()),
    _both("linalg.eigvalsh", options(_SQUARE, numbers=_definite), None, ()),
    _both("linalg.pinv", options([((2, 3),), ((3, 2),)]), None, ()),
]

LONG_TAIL = [*POINTWISE, *PRODUCTS, *COUNTING, *ARRANGING, *LINALG]

OPS: list[Op] = [*ARITHMETIC, *ELEMENTWISE, *REDUCTIONS, *SHAPING, *JOINING, *ACTIVATIONS, *LAYERS, *LOSSES, *LONG_TAIL]

__all__ = ["LONG_TAIL", "OPS", "Draw", "Misuse", "Op", "Sample", "every_sample", "tensors_of"]
