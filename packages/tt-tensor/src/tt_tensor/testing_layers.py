"""The table of the appendices of chapters 03 to 05: LAYER_OPS, in the form of `testing.OPS`."""

from __future__ import annotations

from typing import Any

import numpy as np

import tt_tensor as tt
from tt_tensor import functional as F
from tt_tensor.testing import (
    Draw, Misuse, Op, Sample, Sampler, apart, normal, of_shapes, positive, unary,
)

_NN = "nn.functional."


def _refuses(call, error, *words) -> tuple[Misuse, ...]:
    return (Misuse(call, error, words),)


def _x(*shape):
    return tt.zeros(*shape)


def _smooth(draw: Draw, shape) -> np.ndarray:
    return np.asarray(draw.random.standard_normal(shape) * 3)


def _named(name: str, sampler: Sampler, misuses=(), differentiable=None) -> Op:
    return Op(name, getattr(F, name), _NN + name, sampler, differentiable, tuple(misuses))


# -- activations ------------------------------------------------------------------------------------------------------


def _corners(draw: Draw, shape) -> np.ndarray:
    """Numbers between whole and half ones, of up to 9."""
    return np.asarray(draw.random.integers(-19, 19, shape) / 2 + 0.25)


def _halved(draw):
    shape, dim = draw.pick([((4,), -1), ((2, 6), 1), ((2, 6), 0), ((2, 4, 3), -2)])
    return Sample((draw.laid_out(_smooth(draw, shape)),), {"dim": dim})


def _sloped(draw):
    shape, size = draw.pick([((3,), 1), ((), 1), ((2, 3), 3), ((2, 3, 4), 3), ((2, 3, 2, 2), 1), ((0, 3), 3)])
    return Sample((draw.laid_out(_corners(draw, shape)), positive(draw, (size,))))


def _rows(draw):
    shape, dim = draw.pick([((3,), None), ((2, 3), None), ((2, 3), 0), ((2, 3, 4), 1)])
    return Sample((draw.laid_out(_smooth(draw, shape)),), {"dim": dim})


def _bilinear(draw):
    lead = draw.pick([(), (4,), (2, 4)])
    shapes = [(*lead, 2), (*lead, 3), (5, 2, 3), (5,)]
    return Sample(tuple(normal(draw, s) for s in shapes[: draw.pick([4, 3])]))


ACTIVATIONS = [
    _named("relu6", unary(_corners)),
    _named(
        "hardtanh", unary(_corners, {}, {"min_val": -2.0, "max_val": 0.5}),
        _refuses(lambda: F.hardtanh(_x(2), 1.0, 0.0), ValueError, "min_val", "1.0", "0.0"),
    ),
    _named("hardsigmoid", unary(_corners)),
    _named("hardswish", unary(_corners)),
    _named("threshold", unary(_corners, {"threshold": 0.1, "value": 20.0})),
    _named("hardshrink", unary(_corners, {}, {"lambd": 2.0})),
    _named(
        "softshrink", unary(_corners, {}, {"lambd": 2.0}),
        _refuses(lambda: F.softshrink(_x(2), -1.0), ValueError, "lambd", "-1.0"),
    ),
    _named("tanhshrink", unary(_smooth)),
    _named("selu", unary(apart)),
    _named(
        "celu", unary(apart, {}, {"alpha": 0.7}), _refuses(lambda: F.celu(_x(2), 0.0), ValueError, "alpha", "0.0")
    ),
    _named("mish", unary(_smooth)),
    _named("softsign", unary(apart)),
    _named("logsigmoid", unary(_smooth)),
    _named("softplus", unary(_smooth, {}, {"beta": 2.5}, {"beta": 0.5, "threshold": 1.1})),
    _named(
        "prelu", _sloped, _refuses(lambda: F.prelu(_x(2, 3), _x(2)), ValueError, "(2,)", "(2, 3)", "1 number or 3")
    ),
    _named(
        "rrelu", unary(apart, {}, {"lower": 0.1, "upper": 0.5}),
        _refuses(lambda: F.rrelu(_x(2), 0.5, 0.1), ValueError, "lower", "0.5", "0.1"),
    ),
    _named("glu", _halved, _refuses(lambda: F.glu(_x(2, 3)), ValueError, "even", "(2, 3)")),
    _named("softmax", _rows, _refuses(lambda: F.softmax(_x(1, 2, 3)), ValueError, "dim", "(1, 2, 3)")),
    _named("log_softmax", _rows, _refuses(lambda: F.log_softmax(_x(1, 2, 3)), ValueError, "dim", "(1, 2, 3)")),
    _named("softmin", _rows),
    _named(
        "bilinear", _bilinear,
        _refuses(lambda: F.bilinear(_x(2, 3), _x(2, 4), _x(5, 4, 3)), ValueError, "(2, 3)", "(2, 4)", "(5, 4, 3)"),
    ),
]

# -- losses -----------------------------------------------------------------------------------------------------------

REDUCTIONS = [{}, {"reduction": "sum"}, {"reduction": "none"}]


def _signs(draw: Draw, shape) -> np.ndarray:
    return np.asarray(draw.random.choice([-1.0, 1.0], shape))


def _judged(*options: dict, inputs: int = 1, numbers=_smooth, targets=_signs) -> Sampler:
    """So many inputs and a target of one shape."""

    def sample(draw):
        shape = draw.pick([(3,), (), (2, 3)])
        arrays = [draw.laid_out(numbers(draw, shape)) for _ in range(inputs)]
        return Sample((*arrays, targets(draw, shape)), {**draw.pick(options or ({},)), **draw.pick(REDUCTIONS)})

    return sample


def _vectors(count: int, with_sign: bool, *options: dict) -> Sampler:
    def sample(draw):
        shape = draw.pick([(4, 3), (3,)])
        arrays = [_smooth(draw, shape) for _ in range(count)] + ([_signs(draw, shape[:-1])] if with_sign else [])
        return Sample(tuple(arrays), {**draw.pick(options), **draw.pick(REDUCTIONS)})

    return sample


def _classes(draw):
    shape = draw.pick([(4, 3), (3,)])
    options: dict[str, Any] = draw.pick([{}, {"p": 2}, {"margin": 0.4}])
    return Sample((_smooth(draw, shape), draw.random.integers(0, 3, shape[:-1])), {**options, **draw.pick(REDUCTIONS)})


def _weighted_classes(draw):
    sample = _classes(draw)
    return Sample((*sample.arrays, positive(draw, (3,))), sample.options)


def _in_order(name):
    def in_torch(torch):
        function = getattr(torch.nn.functional, name)
        return lambda x, target, weight, **options: function(x, target, weight=weight, **options)

    return in_torch


def _listed(draw):
    shape = draw.pick([(3, 4), (4,)])
    rows = [draw.random.permutation(4) for _ in range(int(np.prod(shape[:-1])))]
    for row in rows:
        row[draw.random.integers(0, 4) :] = -1
    return Sample((_smooth(draw, shape), np.array(rows).reshape(shape)), draw.pick(REDUCTIONS))


def _answers(draw):
    arrays = (_smooth(draw, (4, 3)), np.asarray(draw.random.integers(0, 2, (4, 3)), np.float64))
    return Sample((*arrays, positive(draw, (3,)))[: draw.pick([2, 3])], draw.pick(REDUCTIONS))


def _counts(draw: Draw, shape) -> np.ndarray:
    return np.asarray(draw.random.integers(0, 6, shape), np.float64)


def _spread(draw):
    shape = draw.pick([(4, 3), (3,)])
    var = draw.pick([shape, (*shape[:-1], 1), shape[:-1]])
    arrays = (_smooth(draw, shape), _smooth(draw, shape), positive(draw, var))
    return Sample(arrays, {**draw.pick([{}, {"full": True}]), **draw.pick(REDUCTIONS)})


def _other_shapes(name, *tensors):
    return _refuses(lambda: getattr(F, name)(*tensors), ValueError, name, str(tensors[0].shape))


LOSSES = [
    _named(
        "margin_ranking_loss", _judged({}, {"margin": 0.5}, inputs=2),
        _other_shapes("margin_ranking_loss", _x(2), _x(3), _x(2)), (0, 1),
    ),
    _named("soft_margin_loss", _judged(), _other_shapes("soft_margin_loss", _x(2, 1), _x(2)), (0,)),
    _named(
        "hinge_embedding_loss", _judged({}, {"margin": 2.0}),
        _other_shapes("hinge_embedding_loss", _x(2, 1), _x(2)), (0,),
    ),
    _named(
        "cosine_embedding_loss", _vectors(2, True, {}, {"margin": 0.3}),
        _other_shapes("cosine_embedding_loss", _x(2, 3), _x(2, 3), _x(3)), (0, 1),
    ),
    _named(
        "triplet_margin_loss", _vectors(3, False, {}, {"margin": 3.0, "swap": True}, {"p": 1}),
        _refuses(lambda: F.triplet_margin_loss(_x(3), _x(3), _x(3), margin=-1.0), ValueError, "margin", "-1.0"),
    ),
    _named(
        "multi_margin_loss", _classes,
        _refuses(lambda: F.multi_margin_loss(_x(2, 3), tt.tensor([0, 3])), IndexError, "label 3"), (0,),
    ),
    Op(
        "multi_margin_loss (weighted)", lambda x, target, weight, **options: F.multi_margin_loss(
            x, target, weight=weight, **options
        ), _in_order("multi_margin_loss"), _weighted_classes, (0,),
        _refuses(lambda: F.multi_margin_loss(_x(2, 3), tt.tensor([0, 1]), p=3), ValueError, "p must be 1 or 2"),
    ),
    _named(
        "multilabel_margin_loss", _listed,
        _refuses(lambda: F.multilabel_margin_loss(_x(1, 2), tt.tensor([[2, -1]])), IndexError, "0 to 1"), (0,),
    ),
    _named("multilabel_soft_margin_loss", _answers, _other_shapes("multilabel_soft_margin_loss", _x(2), _x(3)), (0,)),
    _named(
        "poisson_nll_loss",
        _judged({}, {"full": True}, {"log_input": False, "full": True}, numbers=positive, targets=_counts),
        _other_shapes("poisson_nll_loss", _x(2), _x(3)), (0,),
    ),
    _named(
        "gaussian_nll_loss", _spread,
        _refuses(lambda: F.gaussian_nll_loss(_x(2), _x(2), tt.tensor([1.0, -1.0])), ValueError, "negative", "-1"),
    ),
]

DISTANCES = [
    _named("cosine_similarity", of_shapes(((4, 3), (4, 3)), ((2, 3, 4), (2, 3, 4)), numbers=positive)),
    _named("pairwise_distance", of_shapes(((4, 3), (4, 3)), ((3,), (3,)))),
    _named("normalize", of_shapes(((4, 3),), ((2, 3, 4),))),
]

LAYER_OPS: list[Op] = [*ACTIVATIONS, *LOSSES, *DISTANCES]

__all__ = ["LAYER_OPS"]
