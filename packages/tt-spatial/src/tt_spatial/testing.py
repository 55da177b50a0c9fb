"""The table of chapter 09's operations, OPS, in the form of `tt_tensor.testing`: what each is called here and in torch,
arguments to try, and arguments to refuse.

An operation on images has too many options to try them all together, so the samples are drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tt_spatial as ts
import tt_spatial.functional as F
from tt_tensor.testing import Draw, Op, Sample


class AtRandom(Draw):
    """Takes any option, by a seed."""

    def pick(self, options):
        return options[self.random.integers(len(options))]


class SpatialOp(Op):
    """An operation whose samples are drawn at random; the same in each run."""

    def samples(self, most: int | None = None) -> list[Sample]:
        return [self.sampler(AtRandom(seed)) for seed in range(most or 50)]


# The position of a window. The pairs have unequal numbers, so that a mix-up of rows and columns is noticed.


def _pairs(value) -> tuple:
    return value if isinstance(value, tuple) else (value, value)


def _fitting(draw: Draw, size, padding, dilation) -> tuple[int, ...]:
    """A size of images into which the window fits, with something left over where it does not divide. A window that
    fell through between its taps would see nothing but padding, where torch writes out of bounds."""
    where = zip(*map(_pairs, (size, padding, dilation)))
    return tuple(max(d * (k - 1) + 1 - 2 * p, d) + draw.pick([2, 0, 1, 3, 4]) for k, p, d in where)


def _laid_out(draw: Draw, values: np.ndarray) -> np.ndarray:
    """The same images, channels first, channels last, upside down or every second pixel of a wider one in memory."""
    last = np.ascontiguousarray(np.moveaxis(values, 1, -1))
    down = np.ascontiguousarray(values[..., ::-1, :])
    return draw.pick([values, np.moveaxis(last, -1, 1), down[..., ::-1, :], np.repeat(values, 2, -1)[..., ::2]])


def _normal(draw: Draw, *shape: int) -> np.ndarray:
    return np.asarray(draw.random.standard_normal(shape))


def _apart(draw: Draw, *shape: int) -> np.ndarray:
    """Numbers of both signs of which no two are closer than 0.2."""
    count = int(np.prod(shape))
    steps = (draw.random.permutation(count) - count // 2) * 0.4
    return (steps + draw.random.uniform(-0.1, 0.1, count)).reshape(shape)


NUMBERS = [1, 2, (2, 1), (1, 3)]


def _under_filters(draw: Draw) -> Sample:
    """Images, filters, and mostly a bias, with every option of conv2d."""
    groups, inside, filters = draw.pick([1, 2, 3]), draw.pick([1, 2, 9]), draw.pick([1, 2])
    size, stride, dilation = draw.pick([(1, 1), (2, 2), (3, 2), (1, 3)]), draw.pick(NUMBERS), draw.pick([1, 2, (1, 2)])
    padding = draw.pick([0, 1, (2, 0), (0, 1), "same", "valid"])
    if padding == "same":
        stride = 1
    n, channels = draw.pick([2, 1, 3]), groups * inside
    height, width = _fitting(draw, size, 0 if isinstance(padding, str) else padding, dilation)
    images = _laid_out(draw, _normal(draw, n, channels, height, width))
    arrays = [images, _normal(draw, groups * filters, inside, *size)]
    arrays += draw.pick([[_normal(draw, groups * filters)], []])
    return Sample(tuple(arrays), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups})


def _single(draw: Draw) -> Sample:
    """One image without the dimension of the batch."""
    return Sample((_normal(draw, 3, 5, 4), _normal(draw, 2, 3, 3, 2), _normal(draw, 2)), {"padding": draw.pick([0, 1])})


def _series(draw: Draw) -> Sample:
    groups, inside, filters, size = draw.pick([1, 2]), draw.pick([1, 2]), draw.pick([1, 2]), draw.pick([1, 2, 3])
    padding, dilation, stride = draw.pick([0, 1, 2, "same", "valid"]), draw.pick([1, 2]), draw.pick([1, 2, 3])
    if padding == "same":
        stride = 1
    _, length = _fitting(draw, size, 0 if isinstance(padding, str) else padding, dilation)
    x = _normal(draw, 2, groups * inside, length)
    arrays = [draw.pick([x, x.swapaxes(1, 2).copy().swapaxes(1, 2)]), _normal(draw, groups * filters, inside, size)]
    arrays += draw.pick([[_normal(draw, groups * filters)], []])
    return Sample(tuple(arrays), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups})


def _backwards(draw: Draw) -> Sample:
    groups, inside, filters = draw.pick([1, 2]), draw.pick([1, 2]), draw.pick([1, 2])
    size, stride, dilation = draw.pick([(1, 1), (2, 2), (3, 2)]), draw.pick([1, 2, (3, 1)]), draw.pick([1, 2, (1, 2)])
    least = [max(s, d) - 1 for s, d in zip(_pairs(stride), _pairs(dilation))]
    more = draw.pick([0, (min(least[0], 1), min(least[1], 2))])
    padding = draw.pick([0, 1, (0, 1)])
    images = _laid_out(draw, _normal(draw, draw.pick([1, 2]), groups * inside, draw.pick([3, 4]), draw.pick([4, 3])))
    arrays = [images, _normal(draw, groups * inside, filters, *size)]
    arrays += draw.pick([[_normal(draw, groups * filters)], []])
    options = {"stride": stride, "padding": padding, "output_padding": more, "groups": groups, "dilation": dilation}
    return Sample(tuple(arrays), options)


def _pooled(numbers: Callable, dilations: list, **others: list) -> Callable[[Draw], Sample]:
    def sample(draw):
        size = draw.pick([2, (2, 3), (3, 1), 1])
        stride, dilation = draw.pick([None, *NUMBERS]), draw.pick(dilations)
        padding = draw.pick([0, tuple(k // 2 for k in _pairs(size))])
        shape = draw.pick([1, 2]), draw.pick([1, 3]), *_fitting(draw, size, padding, dilation)
        options = {"kernel_size": size, "stride": stride, "padding": padding}
        options |= {"dilation": dilation} if dilations != [1] else {}
        return Sample(
            (_laid_out(draw, numbers(draw, *shape)),), options | {name: draw.pick(v) for name, v in others.items()}
        )

    return sample


def _pooled_series(numbers: Callable, **others: list) -> Callable[[Draw], Sample]:
    def sample(draw):
        size, stride, padding = draw.pick([2, 3]), draw.pick([None, 1, 2]), draw.pick([0, 1])
        options = {"kernel_size": size, "stride": stride, "padding": padding}
        options |= {name: draw.pick(v) for name, v in others.items()}
        _, length = _fitting(draw, size, padding, options.get("dilation", 1))
        return Sample((numbers(draw, 2, 2, length),), options)

    return sample


def _adaptively(numbers: Callable) -> Callable[[Draw], Sample]:
    def sample(draw):
        wanted = draw.pick([1, 2, (3, 2), (None, 2), (5, 7)])
        return Sample(
            (_laid_out(draw, numbers(draw, 2, 2, draw.pick([4, 5]), draw.pick([6, 3]))),), {"output_size": wanted}
        )

    return sample


def _resized(draw: Draw) -> Sample:
    mode = draw.pick(["nearest", "bilinear", "corners"])
    options = draw.pick(
        [{"size": (5, 2)}, {"size": 3}, {"size": (1, 1)}, {"scale_factor": 2}, {"scale_factor": (1.5, 0.5)},
         {"scale_factor": 1.7}]
    )  # fmt: skip
    how = {"mode": "bilinear", "align_corners": True} if mode == "corners" else {"mode": mode}
    return Sample((_laid_out(draw, _normal(draw, 2, 2, draw.pick([3, 4]), draw.pick([5, 2]))),), options | how)


def _padded(draw: Draw) -> Sample:
    mode = draw.pick(["constant", "reflect", "replicate", "circular"])
    if mode == "constant":
        padding = draw.pick([(1, 2), (0, 1, 2, 0), (-1, 2, 0, -1), (1, 0, 0, 1, 2, 1)])
        return Sample((_laid_out(draw, _normal(draw, 2, 2, 3, 4)),), {"padding": padding, "value": draw.pick([0, 1.5])})
    padding = draw.pick([(1, 2, 0, 1), (2, 0, 1, 2), (3, 3, 2, 2)])
    return Sample((_laid_out(draw, _normal(draw, 2, 2, 3, 4)),), {"padding": padding, "mode": mode})


def _interpolate_in(torch: Any) -> Callable:
    def function(x, align_corners=False, **options):
        return torch.nn.functional.interpolate(x, align_corners=align_corners or None, **options)

    return function


def _beyond(draw: Draw) -> Sample:
    """Images and a pooling whose last window may stick out."""
    kernel, padding = draw.pick([(2, 1), (3, 0), ((3, 2), (1, 0)), (3, 1)])
    stride = draw.pick([2, 3, (1, 3), None])
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": draw.pick([True, False])}
    sides = draw.pick([4, 5, 6]), draw.pick([7, 5, 4])
    return Sample((_laid_out(draw, _apart(draw, 2, 3, *sides)),), options)


def _divided(draw: Draw) -> Sample:
    sample = _beyond(draw)
    more = {"count_include_pad": draw.pick([True, False]), "divisor_override": draw.pick([None, 3])}
    return Sample(sample.arrays, sample.options | more)


def _in_a_row(options: dict) -> Callable[[Draw], Sample]:
    def sample(draw: Draw) -> Sample:
        kernel, padding = draw.pick([(2, 1), (3, 0), (3, 1)])
        where = {"kernel_size": kernel, "stride": draw.pick([2, 3, None]), "padding": padding}
        more = {name: draw.pick(values) for name, values in options.items()}
        return Sample((_apart(draw, 2, 3, draw.pick([5, 7, 8])),), where | more)

    return sample


def _adaptively_in_a_row(draw: Draw) -> Sample:
    return Sample((_apart(draw, 2, 3, draw.pick([5, 7, 6])),), {"output_size": draw.pick([1, 2, 3, 4, 9])})


def _backwards_in_a_row(draw: Draw) -> Sample:
    groups, inside, filters, size = draw.pick([1, 2]), draw.pick([1, 2]), draw.pick([1, 2]), draw.pick([1, 2, 3])
    stride, dilation = draw.pick([1, 2, 3]), draw.pick([1, 2])
    more = draw.pick([0, min(1, max(stride, dilation) - 1)])
    arrays = [_normal(draw, 2, groups * inside, draw.pick([4, 5])), _normal(draw, groups * inside, filters, size)]
    arrays += draw.pick([[_normal(draw, groups * filters)], []])
    options = {"stride": stride, "padding": draw.pick([0, 1]), "output_padding": more, "groups": groups,
               "dilation": dilation}  # fmt: skip
    return Sample(tuple(arrays), options)


# Back to images: the places are fixed, only the numbers are watched.


def _unpooled_by(functions: Any) -> Callable:
    def unpool(x, kernel_size):
        largest, places = functions.max_pool2d(x, kernel_size, return_indices=True)
        return functions.max_unpool2d(largest, places, kernel_size)

    return unpool


def _unpooled_in(torch: Any) -> Callable:
    return _unpooled_by(torch.nn.functional)


def _unpool(draw: Draw) -> Sample:
    size = draw.pick([2, (1, 2), 3])
    return Sample((_apart(draw, 2, 3, 6, 6),), {"kernel_size": size})


# Single images, neighbours, and what computes nothing.


def _by_instance(draw: Draw) -> Sample:
    """Like batch normalization, for series or more."""
    shape = draw.pick([(4, 3, 3, 2), (2, 3, 5), (2, 3, 2, 3, 2), (1, 3, 2, 2)])
    x, use = 3 * _normal(draw, *shape) + 2, draw.pick([True, False])
    weight, bias = draw.pick([(draw.random.uniform(0.5, 2, 3), _normal(draw, 3)), (np.zeros(0), np.zeros(0))])
    mean, var = draw.pick([(_normal(draw, 3), draw.random.uniform(0.5, 2, 3)), (np.zeros(0), np.zeros(0))])
    options = {"use_input_stats": use or not mean.size, "momentum": draw.pick([0.1, 0.7]), "eps": 1e-3}
    return Sample((x, mean, var, weight, bias), options)


def _instance_norm(x, mean, var, weight, bias, **options):
    return F.instance_norm(x, *_there(mean, var, weight, bias), **options)


def _instance_norm_in(torch: Any) -> Callable:
    return lambda x, *others, **options: torch.nn.functional.instance_norm(x, *_there(*others), **options)


def _by_size(draw: Draw) -> Sample:
    shape = draw.pick([(4,), (3, 4), (2, 3, 4)])
    x = _normal(draw, *draw.pick([(2,), (2, 3), ()]), *shape)
    return Sample((x, *draw.pick([(), (_normal(draw, *shape),)])), {"where": shape, "eps": draw.pick([None, 0.1])})


def _among_neighbours(draw: Draw) -> Sample:
    x = _normal(draw, *draw.pick([(2, 5, 3), (1, 6, 2, 3), (2, 4, 2, 1, 2)]))
    return Sample((x,), {"size": draw.pick([1, 2, 3, 5]), "alpha": 0.7, "beta": 0.75, "k": draw.pick([1.0, 2.0])})


def _shuffled(draw: Draw) -> Sample:
    r = draw.pick([1, 2, 3])
    return Sample((_normal(draw, *draw.pick([(2,), (), (2, 1)]), 2 * r * r, 3, 2),), {"upscale_factor": r})


def _unshuffled(draw: Draw) -> Sample:
    r = draw.pick([1, 2, 3])
    return Sample((_normal(draw, *draw.pick([(2,), (), (2, 1)]), 2, 3 * r, 2 * r),), {"downscale_factor": r})


def _dealt_out(draw: Draw) -> Sample:
    return Sample((_normal(draw, 2, 6, *draw.pick([(3,), (3, 2)])),), {"groups": draw.pick([1, 2, 3])})


def _columns(draw: Draw) -> tuple[dict, tuple[int, int], tuple[int, int]]:
    size, dilation = draw.pick([(2, 2), (3, 1), (1, 2)]), draw.pick([1, (1, 2)])
    stride, padding = draw.pick([1, 2, (1, 2)]), draw.pick([0, 1, (0, 1)])
    options = {"kernel_size": size, "dilation": dilation, "padding": padding, "stride": stride}
    height, width = _fitting(draw, size, padding, dilation)
    where = (_pairs(option) for option in (size, stride, padding, dilation))
    rows, columns = map(ts.conv_size, (height, width), *where)
    return options, (height, width), (rows, columns)


def _unfolded(draw: Draw) -> Sample:
    options, sides, _ = _columns(draw)
    return Sample((_normal(draw, *draw.pick([(2,), ()]), 3, *sides),), options)


def _folded(draw: Draw) -> Sample:
    options, sides, places = _columns(draw)
    rows, count = 2 * int(np.prod(options["kernel_size"])), places[0] * places[1]
    return Sample((_normal(draw, *draw.pick([(2,), ()]), rows, count),), {"output_size": sides, **options})


def _otherwise_resized(draw: Draw) -> Sample:
    """The modes besides nearest and bilinear, and other numbers of dimensions."""
    mode, sides = draw.pick(
        [("nearest-exact", 1), ("nearest-exact", 2), ("linear", 1), ("trilinear", 3), ("nearest", 3), ("area", 1),
         ("area", 2), ("bilinear", 2)]
    )  # fmt: skip
    size = draw.pick([{"size": 5}, {"size": 2}, {"scale_factor": 2}, {"scale_factor": 1.7}])
    more: dict[str, Any] = {"recompute_scale_factor": draw.pick([None, True])} if "scale_factor" in size else {}
    more |= {"align_corners": True} if mode.endswith("linear") and draw.pick([True, False]) else {}
    return Sample((_normal(draw, 2, 2, *(3, 4, 2)[:sides]),), {"mode": mode, **size, **more})


def _pad_in(torch: Any) -> Callable:
    return lambda x, padding, **options: torch.nn.functional.pad(x, padding, **options)


def _volume(draw: Draw, channels: int) -> np.ndarray:
    """Vectors, series, images or volumes with so many channels, neither of mean 0 nor of variance 1."""
    shape = draw.pick(
        [(4, channels, 3, 2), (3, channels), (2, channels, 5), (2, channels, 2, 3, 2), (1, channels, 2, 2)]
    )
    values = 3 * _normal(draw, *shape) + 2
    return _laid_out(draw, values) if len(shape) > 3 else values


def _by_batch(draw: Draw) -> Sample:
    """Batch normalization; averages and affine parameters are there or not. An absent one is an empty array."""
    x, training = _volume(draw, 3), draw.pick([True, False])
    weight, bias = (draw.pick([draw.random.uniform(0.5, 2, 3), np.zeros(0)]) for _ in "wb")
    if weight.size == 0:
        bias = np.zeros(0)
    mean, var = draw.pick([(_normal(draw, 3), draw.random.uniform(0.5, 2, 3)), (np.zeros(0), np.zeros(0))])
    training = training or not mean.size
    if training and x.size == x.shape[1]:
        training = False
    return Sample(
        (x, mean, var, weight, bias),
        {"training": training, "momentum": draw.pick([0.1, 0.7]), "eps": draw.pick([1e-5, 0.1])},
    )


def _there(*tensors):
    return [None if tensor is not None and not len(tensor) else tensor for tensor in tensors]


def _batch_norm(x, mean, var, weight, bias, **options):
    return ts.batch_norm(x, *_there(mean, var, weight, bias), **options)


def _batch_norm_in(torch: Any) -> Callable:
    return lambda x, *others, **options: torch.nn.functional.batch_norm(x, *_there(*others), **options)


def _by_layer(draw: Draw) -> Sample:
    shape = draw.pick([(4,), (3, 4), (2, 3, 4)])
    x = 3 * _normal(draw, *draw.pick([(2,), (2, 3), ()]), *shape) + 2
    more = draw.pick([(), (_normal(draw, *shape),), (_normal(draw, *shape), _normal(draw, *shape))])
    return Sample((x, *more), {"where": shape, "eps": draw.pick([1e-5, 0.1])})


def _by_group(draw: Draw) -> Sample:
    x = _volume(draw, 6)
    more = draw.pick([(), (_normal(draw, 6),), (_normal(draw, 6), _normal(draw, 6))])
    return Sample((x, *more), {"where": draw.pick([1, 2, 3] if x.ndim > 2 else [1]), "eps": draw.pick([1e-5, 0.1])})


def _second(function: Callable) -> Callable:
    """A function whose second argument is not a tensor."""
    return lambda x, *others, where, **options: function(x, where, *others, **options)


_NN = "nn.functional."


OPS: list[Op] = [
    SpatialOp("conv2d", ts.conv2d, _NN + "conv2d", _under_filters),
    SpatialOp("conv2d (one image)", ts.conv2d, _NN + "conv2d", _single),
    SpatialOp("conv1d", ts.conv1d, _NN + "conv1d", _series),
    SpatialOp("conv_transpose2d", ts.conv_transpose2d, _NN + "conv_transpose2d", _backwards),
    SpatialOp("max_pool2d", ts.max_pool2d, _NN + "max_pool2d", _pooled(_apart, [1, 2, (1, 2)])),
    SpatialOp("max_pool1d", ts.max_pool1d, _NN + "max_pool1d", _pooled_series(_apart, dilation=[1, 2])),
    SpatialOp("avg_pool2d", ts.avg_pool2d, _NN + "avg_pool2d", _pooled(_normal, [1], count_include_pad=[True, False])),
    SpatialOp(
        "avg_pool1d", ts.avg_pool1d, _NN + "avg_pool1d", _pooled_series(_normal, count_include_pad=[True, False])
    ),
    SpatialOp("adaptive_avg_pool2d", ts.adaptive_avg_pool2d, _NN + "adaptive_avg_pool2d", _adaptively(_normal)),
    SpatialOp("adaptive_max_pool2d", ts.adaptive_max_pool2d, _NN + "adaptive_max_pool2d", _adaptively(_apart)),
    SpatialOp("max_pool2d (sticking out)", F.max_pool2d, _NN + "max_pool2d", _beyond),
    SpatialOp("avg_pool2d (sticking out)", F.avg_pool2d, _NN + "avg_pool2d", _divided),
    SpatialOp("max_pool1d (sticking out)", F.max_pool1d, _NN + "max_pool1d", _in_a_row({"ceil_mode": [True, False]})),
    SpatialOp(
        "avg_pool1d (sticking out)", F.avg_pool1d, _NN + "avg_pool1d",
        _in_a_row({"ceil_mode": [True, False], "count_include_pad": [True, False]}),
    ),
    SpatialOp("adaptive_avg_pool1d", F.adaptive_avg_pool1d, _NN + "adaptive_avg_pool1d", _adaptively_in_a_row),
    SpatialOp("adaptive_max_pool1d", F.adaptive_max_pool1d, _NN + "adaptive_max_pool1d", _adaptively_in_a_row),
    SpatialOp("max_unpool2d", _unpooled_by(F), _unpooled_in, _unpool),
    SpatialOp("conv_transpose1d", F.conv_transpose1d, _NN + "conv_transpose1d", _backwards_in_a_row),
    SpatialOp("interpolate", ts.interpolate, _interpolate_in, _resized),
    SpatialOp("interpolate (other modes)", ts.interpolate, _interpolate_in, _otherwise_resized),
    SpatialOp("pad", ts.pad, _pad_in, _padded),
    SpatialOp("batch_norm", _batch_norm, _batch_norm_in, _by_batch, (0, 3, 4)),
    SpatialOp("layer_norm", _second(ts.layer_norm), lambda torch: _second(torch.nn.functional.layer_norm), _by_layer),
    SpatialOp("group_norm", _second(ts.group_norm), lambda torch: _second(torch.nn.functional.group_norm), _by_group),
    SpatialOp("instance_norm", _instance_norm, _instance_norm_in, _by_instance, (0, 3, 4)),
    SpatialOp("rms_norm", _second(F.rms_norm), lambda torch: _second(torch.nn.functional.rms_norm), _by_size),
    SpatialOp("local_response_norm", F.local_response_norm, _NN + "local_response_norm", _among_neighbours),
    SpatialOp("pixel_shuffle", F.pixel_shuffle, _NN + "pixel_shuffle", _shuffled),
    SpatialOp("pixel_unshuffle", F.pixel_unshuffle, _NN + "pixel_unshuffle", _unshuffled),
    SpatialOp("channel_shuffle", F.channel_shuffle, _NN + "channel_shuffle", _dealt_out),
    SpatialOp("unfold", F.unfold, _NN + "unfold", _unfolded),
    SpatialOp("fold", F.fold, _NN + "fold", _folded),
]

__all__ = ["OPS", "AtRandom", "SpatialOp"]
