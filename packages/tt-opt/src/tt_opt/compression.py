# # Compression
#
# At the end of this chapter your network has a tenth of its weights, or half of its channels, or a smaller student, and
# answers nearly as well as before. We also find out which of these tricks make it faster.

# ## The hurt
#
# In chapter 17 we made each weight smaller and asked whether we need all of them. Now we take LeNet, trained on the
# digits of chapter 08, set more and more of its smallest weights to 0, and count how many held-out digits it still
# reads.

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tt_tensor as tt
from tt_autograd import Batches, Callback, accuracy, evaluate, evaluating, fit, no_grad, rule, save_checkpoint
from tt_nlp import CausalSelfAttention, self_attention
from tt_opt.precision import model_bytes, quantize, quantize_, symmetric_scale
from tt_optim import Adam
from tt_spatial import BatchNorm, BatchNorm2d, Conv1d, Conv2d, LeNet, MaxPool2d, framed_digits
from tt_tensor import (
    Linear, Module, Parameter, ReLU, Tensor, cross_entropy, from_numpy, kl_div, log_softmax, meter, primitive, softmax,
)

Places = Sequence[int] | range | np.ndarray  # indices of outputs or inputs of a layer

# For that we need a trained network. Training takes a while, so we keep the network and hand out copies.


def train_images(model: Module, images: tuple[Tensor, Tensor], epochs: int, rate: float = 2e-3, **options) -> Module:
    """Train a model on images and labels for some epochs, with mini-batches of 32; returns it."""
    optimizer, data = Adam(model.parameters(), lr=rate), Batches(*images, 32, shuffle=True)
    fit(model, cross_entropy, optimizer, data, epochs=epochs, progress=False, **options)
    return model


def right(model: Module, images: tuple[Tensor, Tensor]) -> float:
    """Return the share of right answers."""
    return evaluate(model, cross_entropy, Batches(*images, 359), [accuracy])["accuracy"]


@functools.cache
def _trained_lenet() -> Module:
    tt.manual_seed(0)
    return train_images(LeNet(size=16), framed_digits()[0], 15)


def trained_lenet() -> Module:
    """Return a copy of a LeNet that has learned to read digits of 16 x 16 pixels."""
    return deepcopy(_trained_lenet())


# ## The smallest thing that could work
#
# Setting weights to 0 is called *pruning*. Which weights should we take? We want those that change the outputs least,
# and a weight times an input is small if the weight is small. So we rank weights by *magnitude*, $|w|$. (If we ranked
# by $w$, we would remove the large negative weights first, which are as important as the large positive ones.)


def magnitude_mask(x: np.ndarray, share: float) -> np.ndarray:  # exercise
    """Return a mask that is True for the elements that stay if we prune `share` of them, those of smallest magnitude.
    Of equal elements, the first go first. ValueError unless 0 <= share <= 1."""
    if not 0 <= share <= 1:
        raise ValueError(f"the share of weights to prune must be a number from 0 to 1, not {share}")
    mask = np.ones(x.size, bool)
    mask[np.argsort(np.abs(x), axis=None, kind="stable")[: round(share * x.size)]] = False
    return mask.reshape(x.shape)


# Of four weights, the two of smallest magnitude go.


def check_magnitude_mask():
    assert magnitude_mask(np.array([[-3.0, 0.5], [1.0, -0.1]]), 0.5).tolist() == [[True, False], [True, False]]


# Do we choose one threshold for each matrix, or one for the whole network? Layers differ. The first convolution of
# LeNet has 150 weights, and its first linear layer has 30,720, many of which do little. If we rank all matrices
# together, layers with many small weights lose more of them. We try both.


def prunable(model: Module) -> list[Parameter]:
    """Return the parameters with two or more dimensions: matrices, filters and tables, but neither biases nor norms.
    ValueError if there are none."""
    found = [p for p in model.parameters() if p.ndim > 1]
    if not found:
        raise ValueError(f"{type(model).__name__} has no weights to prune: prune first, and quantize afterwards")
    return found


# To prune a model we multiply its weights by the masks. We return the masks, because we will need them again.


def prune_(model: Module, share: float, together: bool = True) -> dict[Parameter, np.ndarray]:  # exercise
    """Set `share` of the prunable weights of a model to 0, in place: the smallest of all, or, unless `together`, the
    smallest of each parameter. Returns the masks, True for each weight that stays."""
    weights = prunable(model)
    if together:
        flat = magnitude_mask(np.concatenate([w.numpy().ravel() for w in weights]), share)
        cuts = np.cumsum([w.numel() for w in weights])[:-1]
        masks = [part.reshape(w.shape) for part, w in zip(np.split(flat, cuts), weights)]
    else:
        masks = [magnitude_mask(w.numpy(), share) for w in weights]
    for weight, mask in zip(weights, masks):
        weight.copy_(weight.numpy() * mask)
    return dict(zip(weights, masks))


# And here is what happens:


def show_hurt():
    _, held_out = framed_digits()
    print("pruned   each layer   all together")
    for share in (0, 0.5, 0.8, 0.9, 0.95):
        shares = []
        for together in (False, True):
            prune_(model := trained_lenet(), share, together)
            shares.append(right(model, held_out))
        print(f"{share:6.0%} {shares[0]:12.1%} {shares[1]:14.1%}")


# If we rank all weights together, half of them contribute nothing that we can see. At nineteen twentieths, however, the
# network is broken, and if each layer loses its share, much earlier. There is a second disappointment: a zero takes
# four bytes, like any other number, and the processor multiplies by it as by any other number. So far we have made
# nothing smaller and nothing faster.

# ## The idea
#
# The remaining weights can take over. If we prune *and continue to train* (*fine-tuning*), the network learns to do
# without the weights that are gone (*optimal brain damage*, Y. LeCun et al., 1990; S. Han et al., 2015). If we want to
# remove many weights, we go step by step: we prune a little, train a little, and repeat. M. Zhu and S. Gupta (2017) let
# the *sparsity*, the share of zeros, grow fast in the beginning, when there is much to spare, and slowly at the end. At
# a fraction $t$ of the way to a sparsity of $s$, it is
#
# $$ s_t = s \left( 1 - (1 - t)^3 \right) . $$


def cubic_share(share: float, t: float) -> float:  # exercise
    """Return the share of weights that are gone at t: 0 at t <= 0, `share` at t >= 1, and in between by the formula."""
    return share * (1 - (1 - min(max(t, 0), 1)) ** 3)


# An optimizer does not know our masks, and *momentum* alone would move a weight away from 0. So after each step we
# multiply by the masks again. We do that in a callback, which `fit` calls after each step.


class Pruning(Callback):
    """Prunes while `fit` trains. The share of zeros grows to `share` in `steps` steps, with new masks after each
    `every` of them, and then stays. Raises ValueError unless 0 <= share <= 1 and steps and every are 1 or more."""

    def __init__(self, share: float, steps: int, every: int = 10, together: bool = True):
        if not 0 <= share <= 1 or min(steps, every) < 1:
            raise ValueError(f"share must be from 0 to 1, steps and every 1 or more, not {share}, {steps}, {every}")
        self.share, self.steps, self.every, self.together = share, steps, every, together
        self.masks: dict[Parameter, np.ndarray] = {}

    def on_step(self, run):  # exercise
        """Prune to the share of this step if it is time for that, and multiply the weights by the masks."""
        if run.steps <= self.steps and (run.steps % self.every == 0 or run.steps == self.steps):
            share = cubic_share(self.share, run.steps / self.steps)
            self.masks = prune_(run.model, share, self.together)
        for parameter, mask in self.masks.items():
            parameter.copy_(parameter.numpy() * mask)

    # If you interrupt a training and resume it, it needs its masks. So we save them in its checkpoint.

    def on_start(self, run):
        self.model, self.masks = run.model, {}

    def state_dict(self):
        return {"masks": [from_numpy(mask) for mask in self.masks.values()]}

    def load_state_dict(self, state):
        self.masks = dict(zip(prunable(self.model), (mask.numpy() for mask in state["masks"])))


def density(model: Module) -> float:
    """Return the share of the prunable weights that are not 0."""
    counts = [(np.count_nonzero(w.numpy()), w.numel()) for w in prunable(model)]
    return sum(left for left, _ in counts) / sum(size for _, size in counts)


# How much can we remove in this way? We prune at once and look, then fine-tune, and finally we prune step by step.


def show_pruning():
    images, held_out = framed_digits()
    print("pruned   at once   then trained   step by step")
    for share in (0.9, 0.98):
        tt.manual_seed(0)
        prune_(model := trained_lenet(), share)
        at_once = right(model, held_out)
        train_images(model, images, 8, callbacks=[Pruning(share, steps=1)])
        gradual = train_images(trained_lenet(), images, 8, callbacks=[Pruning(share, steps=200)])
        print(f"{share:6.0%} {at_once:9.1%} {right(model, held_out):14.1%} {right(gradual, held_out):14.1%}")


# With a tenth of its weights the network reads nearly as well as before. (One percent is three or four of the 359
# digits, so do not trust the last digit of these numbers.) With a fiftieth of the weights, patience pays. Here is the
# whole curve of pruning at once, and a look into the largest matrix after it has lost nine tenths of its weights.


def show_sparsity():
    """Accuracy against the share of weights that were pruned at once, and the largest matrix of LeNet without 90 %."""
    import matplotlib.pyplot as plt

    _, held_out = framed_digits()
    shares = [0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), width_ratios=[1, 1.6])
    for together, label in ((True, "all together"), (False, "each layer")):
        scores = []
        for share in shares:
            prune_(model := trained_lenet(), share, together)
            scores.append(100 * right(model, held_out))
        axes[0].plot(shares, scores, label=label)
    axes[0].set(xlabel="share of weights pruned", ylabel="right answers, %")
    axes[0].legend()
    prune_(model := trained_lenet(), 0.9)
    weight = max(prunable(model), key=lambda p: p.numel()).numpy()
    axes[1].imshow(weight, cmap="RdBu", vmin=-0.2, vmax=0.2, aspect="auto")
    axes[1].set(title=f"{(weight == 0).mean():.0%} of this matrix is 0", xlabel="input", ylabel="output")
    figure.tight_layout()
    return figure


# If we rank all matrices together, the network survives longer. The remaining weights are not spread evenly: some
# inputs and outputs have lost nearly all of theirs. We will come back to these below, in *Channels that vanish*.

# ## Sparse storage
#
# To save memory we store only the elements that are not 0. A common format for such a *sparse matrix* is *compressed
# sparse row* (CSR). It has three arrays: the `values` that are not 0, row by row; the column of each value,
# `col_indices`; and `crow_indices`, which says where each row begins. Row $r$ has the values from `crow_indices[r]` up
# to, but not including, `crow_indices[r + 1]`. If a matrix has at most 65,536 columns, a column index fits into two
# bytes.


class CompressedRows(NamedTuple):
    """A sparse matrix (R, K) in CSR: values (n,), their columns (n,), and the start of each row among them (R + 1,)."""

    values: np.ndarray
    col_indices: np.ndarray
    crow_indices: np.ndarray
    shape: tuple[int, int]

    def dense(self) -> np.ndarray:  # exercise
        """Return the matrix (R, K) with its zeros."""
        out = np.zeros(self.shape, self.values.dtype)
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.crow_indices))
        out[rows, self.col_indices] = self.values
        return out

    @property
    def nbytes(self) -> int:
        """The memory of the three arrays, in bytes."""
        return self.values.nbytes + self.col_indices.nbytes + self.crow_indices.nbytes


# NumPy finds the values in the order that we need.


def compressed_rows(matrix: np.ndarray) -> CompressedRows:  # exercise
    """Return a matrix (R, K) without its zeros. Columns are uint16 if K <= 65,536 and int32 otherwise, starts int32."""
    rows, columns = np.nonzero(matrix)
    starts = np.searchsorted(rows, np.arange(len(matrix) + 1)).astype(np.int32)
    kind = np.uint16 if matrix.shape[1] <= 1 << 16 else np.int32
    return CompressedRows(matrix[rows, columns], columns.astype(kind), starts, matrix.shape)


# A small matrix with an empty row, there and back:


def check_compressed_rows():
    matrix = np.array([[0, 2, 0], [0, 0, 0], [3, 0, 4]], np.float32)
    packed = compressed_rows(matrix)
    assert [a.tolist() for a in packed[:3]] == [[2, 3, 4], [1, 0, 2], [0, 1, 1, 3]]
    assert (packed.dense() == matrix).all()


# A value now takes six bytes, its column included, instead of four. So a matrix of which a fraction $d$ is left needs
# $6 d / 4 = 1.5 \, d$ times as much memory, and we save memory if $d$ is below two thirds. Our product visits only the
# values that are left.


@primitive(cost=lambda out, x, values, *rest: math.prod(x.shape[:-1]) * len(values))
def sparse_product(x, values, col_indices, crow_indices, /):  # exercise
    """x @ matrix.T for x (..., K) and a matrix (R, K) in compressed rows: (..., R)."""
    out = np.zeros((*x.shape[:-1], len(crow_indices) - 1), x.dtype)
    for row, (start, end) in enumerate(pairwise(crow_indices.tolist())):
        out[..., row] = x[..., col_indices[start:end]] @ values[start:end]
    return out


# The gradients are those of a matrix product. The gradient of $x$ is a product with the transposed matrix, which is
# sparse as well. Only the stored values get gradients, so a sparse layer stays sparse when we train it.


def _rows_of(starts) -> np.ndarray:
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def sparse_x_vjp(g, out, x, values, col_indices, crow_indices):
    """Return the gradient of x, given the gradient g of the result."""
    columns, rows = np.asarray(col_indices), _rows_of(np.asarray(crow_indices))
    order = np.argsort(columns, kind="stable")
    starts = np.searchsorted(columns[order], np.arange(x.shape[-1] + 1))
    as_given = np.asarray if isinstance(g, np.ndarray) else from_numpy
    return sparse_product(g, values[as_given(order)], as_given(rows[order]), as_given(starts))


def sparse_values_vjp(g, out, x, values, col_indices, crow_indices):
    """Return the gradient of the values, given the gradient g of the result."""
    dense = g.reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    return dense[_rows_of(np.asarray(crow_indices)), np.asarray(col_indices).astype(np.int64)]


rule(sparse_product, sparse_x_vjp, sparse_values_vjp, None, None)


# The product and its gradient must equal those of the dense matrix.


def check_sparse_product():
    matrix = np.array([[0, 2, 0], [0, 0, 0], [3, 0, 4]], np.float32)
    values, columns, starts = map(from_numpy, compressed_rows(matrix)[:3])
    x = tt.randn(5, 3, requires_grad=True)
    y = sparse_product(x, values, columns, starts)
    y.sum().backward()
    assert np.allclose(y.detach().numpy(), x.detach().numpy() @ matrix.T)
    assert np.allclose(x.grad.numpy(), matrix.sum(0))


# Now we build a layer from it. With `kind="int8"` the remaining values get the grid of chapter 17, with a scale for
# each row.


class SparseLinear(Linear):
    """Linear with a weight in compressed rows. Its values are a parameter `values`, or, as int8, buffers `q` and
    `scale`."""

    @classmethod
    def of(cls, layer: Linear, kind: str = "float32") -> SparseLinear:
        """Return a sparse layer like a dense one. kind: "float32" or "int8", ValueError otherwise."""
        if kind not in ("float32", "int8"):
            raise ValueError(f'kind must be "float32" or "int8" for a sparse layer, not {kind!r}')
        new: Any = cls.__new__(cls)
        Module.__init__(new)
        new.in_features, new.out_features, new.bias = layer.in_features, layer.out_features, layer.bias
        matrix, scale = layer.weight.detach().numpy(), None
        if kind == "int8":
            scale = symmetric_scale(matrix, dim=1)
            matrix = quantize(matrix, scale)
        packed = compressed_rows(matrix)
        new.values = Parameter(from_numpy(packed.values)) if scale is None else None
        new.register_buffer("scale", None if scale is None else from_numpy(scale[:, 0]))
        new.register_buffer("q", None if scale is None else from_numpy(packed.values))
        new.register_buffer("col_indices", from_numpy(packed.col_indices))
        new.register_buffer("crow_indices", from_numpy(packed.crow_indices))
        return new

    # The scale of a row is a factor of the whole output, so we multiply by it after the sum, and before we add the
    # bias.

    def forward(self, x):  # exercise
        """(..., in_features) -> (..., out_features)."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"a sparse layer for {self.in_features} features cannot read an input of shape {x.shape}")
        if self.scale is None:
            y = sparse_product(x, self.values, self.col_indices, self.crow_indices)
        else:
            y = sparse_product(x, self.q, self.col_indices, self.crow_indices) * self.scale
        return y if self.bias is None else y + self.bias

    @property
    def weight(self) -> Any:  # type: ignore[override]
        """The weight with its zeros, a tensor."""
        values, shape = self.values if self.scale is None else self.q, (self.out_features, self.in_features)
        arrays = values.detach().numpy(), self.col_indices.numpy(), self.crow_indices.numpy()
        matrix = CompressedRows(*arrays, shape).dense()
        return from_numpy(matrix if self.scale is None else matrix * self.scale.numpy()[:, None])


# To make a network sparse we replace its layers, as in chapter 17. We replace a layer if at most two thirds of its
# weights are left, because from there on the sparse layer is smaller. If another layer uses the same weight, the layer
# must stay, or we would store the weight twice.


def sparsify_(model: Module, kind: str = "float32", most: float = 2 / 3) -> Module:
    """Replace each Linear layer whose density is at most `most` by a sparse one, in place; returns the model.
    kind: "float32" or "int8". A layer that shares its weight with another one stays."""
    sparse = {n: SparseLinear.of(m, kind) for n, m in _alone(model).items() if density(m) <= most}
    _put(sparse, _by_name(model))
    return model


# Three helpers find the layers of a model by name, those that share their weight with no other layer, and put layers
# in.


def _by_name(model):
    return dict(model.named_modules(remove_duplicate=False))


def _alone(model):
    """Return the Linear layers that share their weight with no other module, by name."""
    named = _by_name(model)
    users = [id(m.weight) for m in named.values() if isinstance(getattr(m, "weight", None), Parameter)]
    return {n: m for n, m in named.items() if type(m) is Linear and users.count(id(m.weight)) == 1}


def _put(layers, modules):
    if "" in layers:
        raise TypeError(f"{type(modules['']).__name__} is a layer: pass the network that has it, or Sequential(layer)")
    for name, layer in layers.items():
        parent, _, own = name.rpartition(".")
        setattr(modules[parent], own, layer)


# When does it pay? We take a matrix of 512 by 512 and give it more and more zeros.


def show_density():
    random = np.random.default_rng(0)
    matrix, x = random.normal(size=(512, 512)).astype(np.float32), tt.randn(1, 512)
    weight = from_numpy(matrix)
    dense = tt.measure(lambda: x @ weight.T).seconds
    print("density   memory   time of x @ matrix.T, dense = 1")
    for share in (0.5, 0.8, 0.9, 0.95, 0.99):
        packed = compressed_rows(matrix * magnitude_mask(matrix, share))
        arrays = [from_numpy(a) for a in packed[:3]]
        seconds = tt.measure(sparse_product, x, *arrays).seconds
        print(f"{1 - share:7.0%} {packed.nbytes / matrix.nbytes:8.2f} {seconds / dense:10.1f}")


# The memory falls as the formula says, with 1.5 times the density. The time does not. Our loop visits the rows one by
# one and gathers the inputs from all over the place, where the dense product walks straight through its memory. The
# compiled kernels of chapter 15 have no such loop in Python, but they gather, too. They overtake their own dense
# product below a density between a twentieth and a half, depending on the size and the number of inputs. You find the
# numbers on the page *Benchmarks*.

# ## Channels that vanish
#
# Zeros scattered here and there hardly help a processor, but whole rows of them do. If we remove an *output channel* of
# a convolution, its *filter* vanishes, and with it its bias, the *feature map* that it computes, and everything that
# reads this map. The rest is dense and smaller. This is *structured pruning*, and with it the time shrinks, too.
#
# We remove the channels with the smallest filters, measured by the sum of their magnitudes (H. Li et al., 2016).


def smallest_outputs(layer: Module, share: float) -> np.ndarray:  # exercise
    """Return the indices of the outputs of a layer whose weights have the smallest sums of magnitudes, `share` of them
    but not all, in ascending order. ValueError unless 0 <= share <= 1."""
    if not 0 <= share <= 1:
        raise ValueError(f"the share of outputs to remove must be a number from 0 to 1, not {share}")
    size = np.abs(layer.weight.detach().numpy()).reshape(len(layer.weight), -1).sum(1)
    count = min(round(share * len(size)), len(size) - 1)
    return np.sort(np.argsort(size, kind="stable")[:count])


# But which layers read a channel? In a sequence of layers we could look: *batch normalization* has an entry for each
# channel, the next convolution has a slice of each filter, and behind a `Flatten` the linear layer has a column for
# each pixel of the map. A network can be any function, though. If you were a plumber and wanted to know where a pipe
# leads, you would put dye into the water. Our dye is `nan`, because every number that we compute from a `nan` is `nan`.
# We set a channel to `nan` and look at which inputs of which layers it arrives.
#
# There is a leak: a ReLU written as `np.where(x > 0, x, 0)` turns `nan` into 0, because `nan` is not above 0. So we use
# two more dyes, infinity and minus infinity, one of which passes there. We look for any number that is not finite.


READERS, PASSERS = (Linear, Conv1d, Conv2d), (BatchNorm,)


def features_last(x: np.ndarray, layer: Module) -> np.ndarray:
    """Return a view (..., features) of what a layer reads or writes: except for Linear, features are dimension 1."""
    return np.moveaxis(x, -1 if isinstance(layer, Linear) else 1, -1)


# We wrap a layer, so that it notes where dye arrives, and adds dye to some of its own outputs.


class Watched(Module):
    """A layer that notes at which of its inputs dye arrives, that is, numbers that are not finite, and whose own
    outputs `dyed` become `dye`. A layer that mixes its inputs gets 0 instead of dye, so that the dye ends there."""

    def __init__(self, layer: Module, dyed: Places = (), dye: float = math.nan):
        super().__init__()
        self.layer, self.dyed, self.dye = layer, list(dyed), dye
        self.arrived = np.array(False)

    def forward(self, x):  # exercise
        """Return the result of the layer, with dye in `dyed`. `arrived` then has a truth value for each input
        feature."""
        dye = ~np.isfinite(features_last(x.numpy(), self.layer))
        self.arrived = self.arrived | dye.reshape(-1, dye.shape[-1]).any(0)
        if isinstance(self.layer, READERS):
            x = from_numpy(np.nan_to_num(x.numpy(), posinf=0, neginf=0))
        y = self.layer(x).numpy().copy()
        features_last(y, self.layer)[..., self.dyed] = self.dye
        return from_numpy(y)


# To watch a network, we replace its layers by watched ones and pour all three dyes, one after the other.


def pour(model: Module, example: Tensor, watched: Iterable[Watched]) -> bool:
    """Run a model on an example with each dye in its watched layers. Returns whether any dye reached the result."""
    reached = False
    for dye in (math.nan, math.inf, -math.inf):
        for layer in watched:
            layer.dye = dye
        with evaluating(model), no_grad(), tt.quiet():
            reached |= not np.isfinite(model(example).numpy()).all()
    return reached


# `readers` puts the original layers back even after an error and then reads what the watched ones have noted. In two
# cases we cannot remove the channels: if dye is in the result of the model, and if dye is at every input of a layer,
# because a normalization over all channels has mixed those that leave with those that stay.


def readers(model: Module, name: str, doomed: Places, example: Tensor) -> dict[str, np.ndarray]:  # exercise
    """Return the names of the layers that read the outputs `doomed` of the layer called `name`, each with the indices
    of the inputs at which they arrive. `example` is a batch of inputs for the model.

    Raises ValueError if they reach the output of the model, or every input of a layer, because then something has mixed
    them with the outputs that stay. A layer that has two names is listed under the first one."""
    modules = _by_name(model)
    layers = {n: layer for n, layer in modules.items() if isinstance(layer, READERS + PASSERS)}
    if not isinstance(layers.get(name), READERS):
        known = [n for n, layer in layers.items() if isinstance(layer, READERS)]
        raise ValueError(f"there is no layer {name!r} with outputs to remove: choose one of {', '.join(known)}")
    watched, layer = {m: Watched(m) for m in layers.values()}, modules[name]
    watched[layer].dyed = _numbers(doomed, len(layer.weight), name).tolist()
    _put({n: watched[layer] for n, layer in layers.items()}, modules)
    try:
        reached = pour(model, example, watched.values())
    finally:
        _put(layers, modules)
    seen = {n: watched[layer].arrived for n, layer in model.named_modules() if layer in watched}
    found = {n: np.flatnonzero(arrived) for n, arrived in seen.items() if arrived.any()}
    for reader, inputs in found.items():
        if len(inputs) == seen[reader].size:
            raise ValueError(f"all inputs of {reader} depend on these outputs of {name}: they cannot be removed alone")
    if reached:
        raise ValueError(f"these outputs of {name} are a part of what the model returns, so they cannot be removed")
    return found


# You may give an index twice, or a negative one, which counts from the end. Others are refused before anything has
# changed.


def _numbers(doomed, count, name):
    """Return the indices in ascending order, each of them once."""
    try:
        return np.unique(np.arange(count)[list(doomed)])
    except IndexError:
        raise IndexError(f"{name}: {list(doomed)} are not all indices from 0 to {count - 1}") from None


# We need a network to try it with:


def small_reader() -> Module:
    """Return two convolutions with batch normalization and a linear layer, for images (N, 1, 16, 16)."""
    return tt.Sequential(
        Conv2d(1, 16, 3, padding=1), BatchNorm2d(16), ReLU(), MaxPool2d(2),
        Conv2d(16, 32, 3, padding=1), BatchNorm2d(32), ReLU(), MaxPool2d(2), tt.Flatten(), Linear(512, 10),
    )  # fmt: skip


def check_readers():
    model, images = small_reader(), tt.zeros(2, 1, 16, 16)
    assert {n: i.tolist() for n, i in readers(model, "0", [2, 5], images).items()} == {"1": [2, 5], "4": [2, 5]}
    assert readers(model, "4", [3], images)["9"].tolist() == list(range(48, 64))


# The last line says that 16 columns of the linear layer read channel 3 of the second convolution, which after pooling
# is a map of 4 by 4. We did not have to tell it.
#
# Now to the surgery itself. For each kind of layer we need to know the names of its sizes, first that of its outputs,
# then that of its inputs.

SIZES = {
    Linear: ("out_features", "in_features"), BatchNorm: ("num_features",),
    Conv1d: ("out_channels", "in_channels"), Conv2d: ("out_channels", "in_channels"),
}


# We cut the arrays of a layer, and correct its size.


def without_(layer: Module, gone: Places, dim: int) -> None:  # exercise
    """Remove outputs (dim 0) or inputs (dim 1) from the arrays of a layer, in place, and correct its size. The features
    of a batch normalization count as outputs."""
    size = next(names[dim] for kind, names in SIZES.items() if isinstance(layer, kind))
    gone = _numbers(gone, getattr(layer, size), size)
    names = ("weight", "bias", "running_mean", "running_var") if dim == 0 else ("weight",)
    for name in names:
        tensor = getattr(layer, name, None)
        if tensor is not None:
            rest = from_numpy(np.delete(tensor.detach().numpy(), gone, axis=dim))
            if isinstance(tensor, Parameter):
                setattr(layer, name, Parameter(rest, tensor.requires_grad))
            else:
                layer.register_buffer(name, rest)
    setattr(layer, size, getattr(layer, size) - len(gone))


# We operate on a copy first. If the copy does not survive, for example because the outputs of two layers are added and
# only one of them became narrower, your model is still unchanged.


def remove_outputs_(model: Module, name: str, doomed: Places, example: Tensor) -> Module:  # exercise
    """Remove outputs of the layer called `name` and everything that reads them, in place; returns the model. Afterwards
    you need a new optimizer. Raises ValueError, and changes nothing, where that cannot be done."""
    found = readers(model, name, doomed, example)
    for patient in (deepcopy(model), model):  # a copy first: if that does not survive, the model is as it was
        modules = _by_name(patient)
        _refuse_surgery(patient, (name, *found))
        without_(modules[name], doomed, 0)
        for reader, inputs in found.items():
            without_(modules[reader], inputs, 0 if isinstance(modules[reader], PASSERS) else 1)
        try:
            with evaluating(patient), no_grad():
                patient(example)
        except Exception as error:
            raise ValueError(f"without these outputs of {name} the network does not fit together: {error}") from error
    return model


# We refuse to operate on some layers: on those with groups, on packed ones, and on those that share their weight.


def _refuse_surgery(model, names):
    modules, weights = _by_name(model), [getattr(m, "weight", None) for m in model.modules()]
    for name in names:
        layer, weight = modules[name], modules[name].weight
        if getattr(layer, "groups", 1) > 1:
            raise ValueError(f"{name} has groups, whose channels cannot be removed one by one")
        if not isinstance(weight, Parameter | None):
            raise ValueError(f"{name} is a {type(layer).__name__}: remove first, and pack the numbers afterwards")
        if weight is not None and sum(w is weight for w in weights) > 1:
            raise ValueError(f"{name} shares its weight with another layer, which would keep what is removed here")


# For a whole network we operate layer by layer. The last layer keeps its outputs, because they are the answer.


def slim_(model: Module, share: float, example: Tensor, names: Iterable[str] | None = None) -> Module:  # exercise
    """Remove the smallest `share` of the outputs of each layer in `names`, in place; returns the model. Without names,
    of all Linear and Conv2d layers except for the last one. If a layer is refused, the layers before it stay
    smaller."""
    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, READERS)}
    chosen = list(layers)[:-1] if names is None else list(names)
    if unknown := [name for name in chosen if name not in layers]:
        raise ValueError(f"there are no layers {unknown} with outputs to remove: choose from {', '.join(layers)}")
    for name in chosen:
        doomed = smallest_outputs(layers[name], share)
        if len(doomed):
            remove_outputs_(model, name, doomed, example)
    return model


# If we remove half of all channels, we halve both the number and the depth of the filters.


def check_slim():
    model, images = small_reader(), tt.randn(2, 1, 16, 16)
    slim_(model, 0.5, images)
    assert [tuple(p.shape) for p in prunable(model)] == [(8, 1, 3, 3), (16, 8, 3, 3), (10, 256)]
    assert dict(model.named_modules())["1"].num_features == 8 and model(images).shape == (2, 10)


# After the surgery the patient is weak, and a few epochs bring it back. What did it cost us, and what did we save?


@functools.cache
def _trained_reader() -> Module:
    tt.manual_seed(0)
    return train_images(small_reader(), framed_digits()[0], 6)


def show_slim():
    images, held_out = framed_digits()
    print("removed   multiply-adds   KB     ms      right   after three epochs")
    for share in (0, 0.5, 0.75):
        slim_(model := deepcopy(_trained_reader()), share, images[0][:2])
        before = right(model, held_out)
        tt.manual_seed(0)
        train_images(model, images, 3, rate=1e-3)
        count, milliseconds = cost_of_images(model)
        sizes = f"{share:7.0%} {count:15,.0f} {model_bytes(model) / 1e3:5.1f} {milliseconds:6.2f}"
        print(f"{sizes} {before:10.1%} {right(model, held_out):10.1%}")


# We count multiply-adds with the meter, and measure time.


def cost_of_images(model: Module) -> tuple[float, float]:
    """Return the multiply-adds for one image, and the milliseconds for 64 of them."""
    images = framed_digits()[0][0][:64]
    with evaluating(model), no_grad():
        with meter() as counted:
            model(images)
        return counted.multiply_adds.total() / 64, tt.measure(model, images).seconds * 1e3


# If we keep half of the channels of two layers in a row, a quarter of the multiply-adds between them is left, because
# we halve both the number of filters and the depth of each filter. The time falls less than the count, since each call
# has a fixed cost, which matters more for small arrays.

# ## Heads
#
# A transformer has a structure of its own: *hidden units* in its MLPs, for which `slim_` needs only the names of the
# layers, and attention *heads*. Head $h$ has its rows in the matrix that makes queries, keys and values, and its
# columns in the matrix that reads what the heads found. (P. Michel et al., 2019, removed most heads of trained
# translators and lost little.) The attention of chapter 14 computes the width of a head from that of the model. With
# fewer heads this is no longer right, so we replace the layer by one that infers the width from the matrix.


class NarrowAttention(CausalSelfAttention):
    """CausalSelfAttention whose heads may be fewer than fill the width."""

    @classmethod
    def of(cls, attention: Module, n_head: int) -> NarrowAttention:
        """Return attention with the layers of another one and n_head heads."""
        new: Any = cls.__new__(cls)
        Module.__init__(new)
        new.n_head, new.p, new.dropout = n_head, attention.p, attention.dropout
        new.c_attn, new.c_proj, new.training = attention.c_attn, attention.c_proj, attention.training
        return new

    def forward(self, x):
        B, T, _ = x.shape
        qkv = self.c_attn(x).reshape(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)  # (3, B, n_head, T, D)
        found = self_attention(qkv, dropout_p=self.p if self.training else 0.0, is_causal=True)
        return self.dropout(self.c_proj(found.transpose(1, 2).reshape(B, T, -1)))


# Which heads do we remove? Again those with the smallest weights. The rows of `c_attn` come in three parts, for
# queries, keys and values, and each part has rows of all heads.


def smallest_heads(attention: Module, count: int) -> list[int]:  # exercise
    """Return the indices of the `count` heads with the smallest sums of magnitudes in the weight of c_attn, in
    ascending order."""
    size = np.abs(attention.c_attn.weight.detach().numpy()).reshape(3, attention.n_head, -1).sum((0, 2))
    return sorted(np.argsort(size, kind="stable")[:count].tolist())


# Each block loses equally many heads, so that a cache of chapter 16 still has one shape. The attribute `kv_heads` says
# how many heads it has.


def remove_heads_(model: Module, doomed: Sequence[Sequence[int]]) -> Module:  # exercise
    """Remove heads of a GPT, in place; returns the model. doomed: for each block the indices of the heads to remove,
    equally many. Raises ValueError, and changes nothing, for other indices, and if no head would stay."""
    attentions = _attentions(model)
    gone = [_numbers(heads, attention.n_head, "attention") for attention, heads in zip(attentions, doomed)]
    left = {attention.n_head - len(heads) for attention, heads in zip(attentions, gone)}
    if len(doomed) != len(attentions) or len(left) != 1 or min(left) < 1:
        raise ValueError(f"give {len(attentions)} lists of heads of equal length, one for each block, and leave a head")
    (n_head,) = left
    for block, attention, heads in zip(model.transformer.h, attentions, gone):
        width = attention.c_proj.in_features
        columns = np.arange(width).reshape(attention.n_head, -1)[heads].ravel()
        without_(attention.c_attn, np.concatenate([columns + part * width for part in range(3)]), 0)
        without_(attention.c_proj, columns, 1)
        block.attn = NarrowAttention.of(attention, n_head)
    model.kv_heads = n_head
    return model


# A model of another kind is refused.


def _attentions(model):
    attentions = [block.attn for block in model.transformer.h]
    if not {type(attention) for attention in attentions} <= {CausalSelfAttention, NarrowAttention}:
        raise ValueError(f"heads can be removed only from a GPT of chapter 14, not from a {type(model).__name__}")
    _refuse_surgery(model, [n for n in _by_name(model) if n.endswith((".attn.c_attn", ".attn.c_proj"))])
    return attentions


# The dye agrees with us: only the columns of a head read its rows.


def check_heads():
    from tt_nlp.transformers import small_gpt

    model, ids = small_gpt(20, 2), tt.randint(0, 20, (2, 8))
    found = readers(model, "transformer.h.0.attn.c_attn", range(16, 32), ids)
    assert {n: i.tolist() for n, i in found.items()} == {"transformer.h.0.attn.c_proj": list(range(16, 32))}
    assert remove_heads_(model, [[1], [2]])(ids).shape == (2, 8, 20)
    assert model.transformer.h[1].attn.c_attn.out_features == 3 * 48


# ## Low rank
#
# There is another kind of structure, which no single weight shows. If the rows of a matrix $W$ (R, K) are nearly
# *linear combinations* of $r$ rows, then $W \approx A B$ with *low-rank* factors $A$ (R, r) and $B$ (r, K), which have
# $r (R + K)$ numbers instead of $R K$. The best factors come from the *singular value decomposition*
#
# $$ W = U \Sigma V^T = \sum_i \sigma_i \, u_i v_i^T , \qquad A B = \sum_{i \le r} \sigma_i \, u_i v_i^T , $$
#
# of which we keep the $r$ largest singular values. Since the matrices $u_i v_i^T$ are orthogonal to each other and of
# length 1, the squared error is $\sum_{i > r} \sigma_i^2$, and no other factors of rank $r$ have a smaller one (C.
# Eckart and G. Young, 1936).


def low_rank(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:  # exercise
    """Return the factors (R, rank) and (rank, K) whose product is nearest to a matrix (R, K)."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank], vt[:rank]


# For a random matrix, the squared error must be the sum of the squares that were left out.


def check_low_rank():
    matrix = np.random.default_rng(0).normal(size=(20, 30))
    left, right = low_rank(matrix, 5)
    missed = np.linalg.svd(matrix)[1][5:]
    assert left.shape == (20, 5) and np.isclose(((left @ right - matrix) ** 2).sum(), (missed**2).sum())


# Which rank should each layer get? All layers share one budget of numbers. A singular value $\sigma$ of a matrix (R, K)
# costs $R + K$ numbers and saves a squared error of $\sigma^2$. So we buy those that save most for their price.


def ranks_for(matrices: Sequence[np.ndarray], budget: float) -> list[int]:  # exercise
    """Return a rank of at least 1 for each matrix, such that all factors together have at most `budget` numbers (if
    rank 1 already has more, then just 1). Singular values are bought in the order of sigma ** 2 / (R + K), the largest
    first, until the next one would exceed the budget."""
    prices = [sum(m.shape) for m in matrices]
    offers = [
        (s**2 / price, i) for i, (m, price) in enumerate(zip(matrices, prices))
        for s in np.linalg.svd(m, compute_uv=False)[1:]
    ]  # fmt: skip
    ranks, spent = [1] * len(matrices), sum(prices)
    for _, i in sorted(offers, reverse=True):
        spent += prices[i]
        if spent > budget:
            break
        ranks[i] += 1
    return ranks


# Each factor becomes a layer. The first one, which has no bias, goes from $K$ features to $r$, and the second one from
# there to $R$.


def factorized(layer: Linear, rank: int) -> Module:
    """Return two linear layers of that rank in place of one, or the layer itself if they would not be smaller."""
    if rank * (layer.in_features + layer.out_features) >= layer.in_features * layer.out_features:
        return layer
    left, right = low_rank(layer.weight.detach().numpy(), rank)
    first = Linear(layer.in_features, rank, bias=False).to(layer.weight.dtype)
    second = Linear(rank, layer.out_features, bias=layer.bias is not None).to(layer.weight.dtype)
    first.weight.copy_(right)
    second.weight.copy_(left)
    if layer.bias is not None:
        second.bias.copy_(layer.bias.detach().numpy())
    return tt.Sequential(first, second)


# For a whole network we spend one budget on all layers.


def factorize_(model: Module, share: float) -> Module:  # exercise
    """Replace each Linear layer of a model by two of low rank, in place, with ranks from `ranks_for` and `share` of
    their numbers as the budget; returns the model. Layers that share their weight stay, and so do layers that would not
    shrink."""
    layers = _alone(model)
    matrices = [layer.weight.detach().numpy() for layer in layers.values()]
    ranks = ranks_for(matrices, share * sum(m.size for m in matrices))
    _put({n: factorized(layer, rank) for (n, layer), rank in zip(layers.items(), ranks)}, _by_name(model))
    return model


# How much of LeNet survives half of the budget, a quarter, and a tenth?


def show_low_rank():
    images, held_out = framed_digits()
    print("budget   ranks            right   after five epochs")
    for share in (0.5, 0.25, 0.1):
        model = factorize_(trained_lenet(), share)
        before = right(model, held_out)
        ranks = [part[0].out_features for part in model.modules() if isinstance(part, tt.Sequential)]
        tt.manual_seed(0)
        train_images(model, images, 5, rate=5e-4)
        print(f"{share:6.0%}   {ranks!s:12s} {before:9.1%} {right(model, held_out):10.1%}")


# LeNet's linear layers get by with a quarter of their numbers before any training. (The last layer, 84 to 10, stays as
# it is where its factors would be larger.)

# ## A student
#
# So far we started from a large network and took something away. We can also start with a small one and let the large
# one teach it. This is *knowledge distillation* (G. Hinton et al., 2015). What can a teacher say that the labels do
# not? A label says "7". The teacher says "a 7, and if not, then a 1, and surely not a 0". To make these small
# probabilities count, we divide the logits of both by a *temperature* $T$ before the softmax. The student's loss is the
# *Kullback-Leibler divergence* from the teacher, beside the usual *cross-entropy* with the labels:
#
# $$ \mathcal{L} = \alpha \, T^2 \, \mathrm{KL}\!\left(\sigma(t / T) \,\|\, \sigma(s / T)\right)
#    + (1 - \alpha) \, \mathrm{CE}(s, y) . $$
#
# Why $T^2$? The divergence differs from the cross-entropy with the teacher's probabilities only by a constant, so its
# gradient with respect to a logit $s_i$ is that of chapter 05, with the factor $\frac{1}{T}$ from the chain rule. For a
# large $T$ we have $e^{s_i / T} \approx 1 + s_i / T$, so with $C$ classes and logits of mean 0, $\sigma(s / T)_i
# \approx (1 + s_i / T) / C$. Together:
#
# $$ \frac{\partial \, \mathrm{KL}}{\partial s_i} = \frac{1}{T} \left( \sigma(s / T)_i - \sigma(t / T)_i \right)
#    \approx \frac{1}{C \, T^2} (s_i - t_i) . $$
#
# The gradient shrinks as $1 / T^2$, and the factor restores its size whatever $T$ we choose. The order of the arguments
# matters, too: the teacher comes first, because the sum is weighted by *its* probabilities.


def distillation_loss(outputs: tuple[Tensor, Tensor], targets: Tensor, T=4.0, alpha=0.9) -> Tensor:  # exercise
    """Return the loss of a student. outputs: logits (..., C) of student and teacher; targets: class indices (...). With
    alpha 1 the labels do not count, with alpha 0 the teacher does not. Raises ValueError unless T > 0."""
    if not T > 0:
        raise ValueError(f"the temperature must be above 0, not {T}")
    student, teacher = (logits.reshape(-1, logits.shape[-1]) for logits in outputs)
    soft = kl_div(log_softmax(student / T, 1), softmax(teacher.detach() / T, 1), reduction="batchmean")
    return soft * (alpha * T * T) + cross_entropy(student, targets.reshape(-1)) * (1 - alpha)


# `fit` passes the result of the model to the loss. So we combine student and teacher into one model that returns the
# logits of both, and in which only the student has parameters. The teacher may be any function from inputs to logits.


class Taught(Module):
    """A student beside its teacher: inputs -> (student's logits, teacher's logits)."""

    def __init__(self, student: Module, teacher: Callable[[Tensor], Tensor]):
        super().__init__()
        self.student = student
        self.ask = lambda x: teacher(x)  # not registered: its parameters are not ours

    def forward(self, x):
        with no_grad():
            answer = self.ask(x)
        return self.student(x), answer


# A teacher helps most where there is little else to learn from. Our student is an MLP that gets only 150 digits. The
# teacher is a convolutional network that has seen all 1,438. Six students learn alone and six from the teacher, in
# pairs that start with the same weights and see the same mini-batches.


def show_distillation():
    (x, y), held_out = framed_digits()
    teacher, few = deepcopy(_trained_reader()).eval(), (x[:150], y[:150])
    alone: list[float] = []
    taught: list[float] = []
    for seed in range(6):
        for scores in (alone, taught):
            tt.manual_seed(seed)
            student = tt.Sequential(tt.Flatten(), Linear(256, 64), ReLU(), Linear(64, 10))
            model, loss = (student, cross_entropy) if scores is alone else (Taught(student, teacher), distillation_loss)
            data, optimizer = Batches(*few, 32, shuffle=True), Adam(student.parameters(), lr=3e-3)
            fit(model, loss, optimizer, data, epochs=60, progress=False)
            scores.append(right(student, held_out))
    gain = 100 * np.subtract(taught, alone)
    half = 2.57 * gain.std(ddof=1) / math.sqrt(len(gain))  # 2.57: Student's t for 95 % of 5 degrees of freedom
    print(f"teacher {right(teacher, held_out):.1%}, alone {np.mean(alone):.1%}, taught {np.mean(taught):.1%}")
    print(f"gain {gain.mean():.1f} points, 95 % interval {gain.mean() - half:.1f} to {gain.mean() + half:.1f}")


# With so few examples the teacher's answers are worth more than the labels alone. This is not always so. With all 1,438
# digits a student of this size learned as much from the labels, and in our trials the teacher did not help; in exercise
# 3 you can repeat them.

# ## All tricks in one table
#
# Now we put all tricks side by side. After each of them we train for some epochs, as above. The file is the one that
# `save_checkpoint` writes, the memory is that of parameters and buffers, and the time is for 64 images.


def show_table():
    images, held_out = framed_digits()

    def again(model, **options):
        tt.manual_seed(0)
        return train_images(model, images, 8, 1e-3, **options)

    pruned = again(trained_lenet(), callbacks=[Pruning(0.9, 200)])
    slim = again(slim_(trained_lenet(), 0.5, images[0][:2]))
    table = {
        "LeNet": trained_lenet(),
        "90 % pruned": pruned,
        "90 % pruned, compressed rows": sparsify_(deepcopy(pruned)),
        "90 % pruned, rows of int8": sparsify_(deepcopy(pruned), "int8"),
        "half of all channels": slim,
        "half of all channels, int8": quantize_(deepcopy(slim), "int8"),
        "low rank, a quarter": again(factorize_(trained_lenet(), 0.25)),
        "int8 alone": quantize_(trained_lenet(), "int8"),
    }
    print(f"{'':30s} file, KB  memory, KB    ms  right")
    for name, model in table.items():
        sizes = f"{file_bytes(model) / 1e3:8.1f} {model_bytes(model) / 1e3:11.1f}"
        print(f"{name:30s} {sizes} {cost_of_images(model)[1]:6.2f} {right(model, held_out):6.1%}")


# To know the size of a file, we write it.


def file_bytes(model: Module) -> int:
    """Return the size in bytes of the file that `save_checkpoint` writes for a model."""
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(file := Path(folder) / "model.safetensors", model.state_dict())
        return file.stat().st_size


# Structured pruning saves time, zeros and small numbers save memory, and their gains multiply: half of the channels,
# and a quarter of the bytes for each weight. On the page *Trainings* you find the same table for LeNet on MNIST, for
# the network of chapter 10 on CIFAR-10, and for the GPT that writes Shakespeare, with the command that repeats it.

# ## Errors you will meet
#
# The share of weights is a number from 0 to 1 and not a percentage, names are those of `named_modules`, and some
# outputs cannot go.


def show_errors():
    model, images = small_reader(), tt.zeros(1, 1, 16, 16)
    attempts = [
        lambda: prune_(model, 90),
        lambda: readers(model, "conv1", [0], images),
        lambda: remove_outputs_(model, "9", [0], images),
        lambda: remove_outputs_(quantize_(small_reader()), "0", [0], images),
    ]
    for attempt in attempts:
        try:
            attempt()
        except ValueError as error:
            print(f"ValueError: {error}")


# ## Exercises
#
# Besides the exercises that are marked in the text:
#
# 1. Write `rewind_` for the *lottery ticket* experiment (J. Frankle and M. Carbin, 2019). Keep the masks of a pruned
#    network, set the remaining weights back to their values before any training, and train them alone. Does a tenth of
#    LeNet learn as well as the whole? Does it do so with weights drawn anew?
# 2. Rank the channels of `small_reader` by the weight of the batch normalization behind them instead of by their
#    filters (Z. Liu et al., 2017). Which ranking finds the better half?
# 3. Repeat `show_distillation` with all 1,438 digits, with $T = 1$, and without the factor $T^2$.


def rewind_(model: Module, start: dict[str, Tensor], masks: dict[Parameter, np.ndarray]) -> Module:  # exercise
    """Set all parameters of a model back to those in `start`, a state_dict, times their masks where there are any;
    returns the model."""
    for name, parameter in model.named_parameters():
        parameter.copy_(start[name].numpy() * masks.get(parameter, 1))
    return model


# Half of the weights must be 0 afterwards, and the others as they were.


def check_rewind():
    model = Linear(4, 3)
    start = deepcopy(model.state_dict())
    model.weight.copy_(np.arange(12.0).reshape(3, 4))
    rewind_(model, start, prune_(model, 0.5))
    assert (model.weight.numpy()[1] == 0).sum() == 2 and (model.weight.numpy()[2] == start["weight"].numpy()[2]).all()


# ## A road not taken
#
# We judge weights by their magnitude. *Optimal brain damage* used second derivatives of the loss, and *SparseGPT* (E.
# Frantar and D. Alistarh, 2023) prunes a large language model in one pass, without training, by letting the remaining
# weights make up for each weight that goes. Hardware offers a compromise between zeros anywhere and whole channels: two
# of four weights in a row must be 0 (*2:4 sparsity*), and graphics cards can multiply such matrices in half of the
# time. PyTorch has `torch.nn.utils.prune`, which keeps a mask as a buffer and multiplies by it in each forward pass,
# and `torch.sparse`. To remove channels you need other packages, which follow the computational graph and know for each
# operation how it passes channels on. Our dye needs no such table.

# ## What hurts next
#
# We have many tricks, and a table of times for them. Now we measure the time of one and the same network six times.


def show_doubt():
    model = trained_lenet()
    print("ms:", *(f"{cost_of_images(model)[1]:.2f}" for _ in range(6)))


# If these times differ by as much as two rows of our table, which of the tricks really helped? Chapter 19,
# *Benchmarking*, finds out.

__all__ = [
    "SIZES", "CompressedRows", "NarrowAttention", "Pruning", "SparseLinear", "Taught", "Watched", "compressed_rows",
    "cubic_share", "density", "distillation_loss", "factorize_", "factorized", "features_last", "file_bytes",
    "low_rank", "magnitude_mask", "pour", "prunable", "prune_", "ranks_for", "readers", "remove_heads_",
    "remove_outputs_", "rewind_", "slim_", "smallest_heads", "smallest_outputs", "sparse_product",
    "sparse_values_vjp", "sparse_x_vjp", "sparsify_", "without_",
]
