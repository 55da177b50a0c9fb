# # Distributions
#
# An appendix of chapter 05. A network that must *act*, in a game for example, puts out a distribution from which we
# draw the action. Drawing has no gradient, but the logarithm of the action's probability has one. With it you can
# learn: make the actions likelier that led to a reward (REINFORCE, Williams, 1992). These lines do it, in PyTorch and
# here:
#
# ```python
# m = Categorical(probs=policy(state))
# action = m.sample()
# loss = -m.log_prob(action) * reward
# ```

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tt_tensor.activations import log_softmax, sigmoid, softplus
from tt_tensor.more_ops import clip, gather, where
from tt_tensor.setup import generator
from tt_tensor.tensor import Tensor, as_array, broadcast_shape, expand, float32, from_numpy, log, sum

# ## What they share
#
# A distribution has parameters. If you pass tensors, you get a whole batch of distributions, one for each element of
# `batch_shape`. `sample(shape)` draws an array of this shape for each of them.


class Distribution:
    """The base class of a batch of distributions. Subclasses draw from it and compute the logarithm of its density."""

    has_rsample = False
    event_shape: tuple[int, ...] = ()

    def __init__(self, batch_shape: tuple[int, ...]):
        self.batch_shape = batch_shape

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Random numbers of shape sample_shape + batch_shape, without a gradient."""
        return self.rsample(sample_shape).detach()

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Random numbers whose gradient with respect to the parameters is known."""
        raise NotImplementedError(f"{type(self).__name__} has no rsample(): its draws have no gradient; use log_prob()")

    def log_prob(self, value) -> Tensor:
        """The logarithm of the probability (or of its density) of each value."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The expected surprise, -log_prob, in nats."""
        raise NotImplementedError

    @property
    def mean(self) -> Any:
        """The expected value."""
        raise NotImplementedError

    @property
    def variance(self) -> Any:
        """The expected square of the distance from the mean."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def _shape(self, sample_shape):
        return (*sample_shape, *self.batch_shape)

    def __repr__(self):
        return f"{type(self).__name__}(batch_shape={self.batch_shape})"


# You may also pass plain numbers; we bring two parameters to one shape. Error messages name the parameter.


def _parameters(*values) -> list[Tensor]:
    floats = [v.dtype for v in values if isinstance(v, Tensor) and v.dtype.kind == "f"]
    tensors = [v if isinstance(v, Tensor) else Tensor(as_array(v, floats[0] if floats else float32)) for v in values]
    shape: tuple[int, ...] = ()
    for tensor in tensors:
        shape = broadcast_shape(shape, tensor.shape)
    return [tensor if tensor.shape == shape else expand(tensor, shape=shape) for tensor in tensors]


def _demand(name: str, values: Tensor, holds, what: str) -> None:
    if not holds(values.numpy()).all():
        raise ValueError(f"{name} must be {what}, not {values}")


def _either(name: str, probs, logits) -> None:
    if (probs is None) == (logits is None):
        raise ValueError(f"{name} needs either probs or logits: pass exactly one of them")


def _is_probability(values):
    return (values >= 0) & (values <= 1)


# A probability of 0 has no logarithm. As in PyTorch, we keep probabilities away from 0 and 1 by the precision of their
# dtype.


def _inside(probs: Tensor) -> Tensor:
    tiny = float(np.finfo(probs.dtype).eps)
    return clip(probs, min=tiny, max=1 - tiny)


# ## One of several
#
# Your probabilities need not add up to 1, because we divide them by their sum. To draw, we add up the probabilities and
# look where a uniform random number falls.


class Categorical(Distribution):
    """One of K classes, by probabilities or logits of shape (..., K). Values are class numbers."""

    def __init__(self, probs=None, logits=None, validate_args=None):
        _either("Categorical", probs, logits)
        (given,) = _parameters(probs if logits is None else logits)
        if given.ndim == 0:
            raise ValueError("Categorical needs one number for each class in the last dimension, not a single number")
        if logits is None:
            _demand("probs", given, lambda v: (v >= 0) & (v.sum(-1, keepdims=True) > 0), "0 or more, and not all 0")
            self.probs = given / sum(given, dim=-1, keepdim=True)
            self.logits = log(_inside(self.probs))
        else:
            self.logits = log_softmax(given, dim=-1)
            self.probs = self.logits.exp()
        super().__init__(given.shape[:-1])

    def sample(self, sample_shape=()) -> Tensor:
        edges = np.cumsum(self.probs.numpy(), axis=-1, dtype=np.float64)
        fallen = generator().random((*self._shape(sample_shape), 1)) * edges[..., -1:]
        return from_numpy(np.asarray((fallen >= edges).sum(-1, dtype=np.int64)))

    # The classes are broadcast against the batch, so that one value can be judged by many distributions.

    def log_prob(self, value) -> Tensor:
        """The logarithm of the probability of class numbers, whose shape broadcasts with batch_shape."""
        value = value if isinstance(value, Tensor) else Tensor(as_array(value, np.int64))
        classes = self.logits.shape[-1]
        _demand("value", value, lambda v: (v >= 0) & (v < classes), f"a class from 0 to {classes - 1}")
        shape = broadcast_shape(value.shape, self.batch_shape)
        logits = expand(self.logits, shape=(*shape, classes))
        index = np.broadcast_to(value.numpy().astype(np.int64), shape)
        return gather(logits, -1, from_numpy(np.array(index)[..., None])).squeeze(-1)

    def entropy(self) -> Tensor:
        return -sum(self.probs * clip(self.logits, min=float(np.finfo(self.logits.dtype).min)), dim=-1)

    mean = variance = property(lambda self: self.probs[..., 0] * math.nan)  # classes are not numbers


# ## Yes or no


class Bernoulli(Distribution):
    """1 with a probability given by probs or logits, otherwise 0."""

    def __init__(self, probs=None, logits=None, validate_args=None):
        _either("Bernoulli", probs, logits)
        (given,) = _parameters(probs if logits is None else logits)
        if logits is None:
            _demand("probs", given, _is_probability, "between 0 and 1")
        self.probs = given if logits is None else sigmoid(given)
        self.logits = given if logits is not None else log(_inside(given)) - (-_inside(given)).log1p()
        super().__init__(given.shape)

    def sample(self, sample_shape=()) -> Tensor:
        drawn = generator().random(self._shape(sample_shape)) < self.probs.numpy()
        return from_numpy(np.asarray(drawn, self.probs.dtype))

    def log_prob(self, value) -> Tensor:
        _demand("value", _parameters(value)[0], lambda v: (v == 0) | (v == 1), "0 or 1")
        return -(value * softplus(-self.logits) + (1 - value) * softplus(self.logits))

    def entropy(self) -> Tensor:
        return self.probs * softplus(-self.logits) + (1 - self.probs) * softplus(self.logits)

    mean = property(lambda self: self.probs)
    variance = property(lambda self: self.probs * (1 - self.probs))


# ## Numbers
#
# A normal random number is `loc + scale * noise`, where the noise has no parameters. So a draw has a gradient after all
# (Kingma and Welling, 2014), and `rsample` keeps it. This is the *reparameterization trick*. We use it for the uniform
# and the exponential distribution, too.


class Normal(Distribution):
    """The normal distribution with mean `loc` and standard deviation `scale`."""

    has_rsample = True

    def __init__(self, loc, scale, validate_args=None):
        self.loc, self.scale = _parameters(loc, scale)
        _demand("scale", self.scale, lambda v: v > 0, "positive")
        super().__init__(self.loc.shape)

    def rsample(self, sample_shape=()) -> Tensor:
        noise = generator().standard_normal(self._shape(sample_shape))
        return self.loc + self.scale * from_numpy(np.asarray(noise, self.loc.dtype))

    def log_prob(self, value) -> Tensor:
        z = (value - self.loc) / self.scale
        return -0.5 * z * z - log(self.scale) - 0.5 * math.log(2 * math.pi)

    def entropy(self) -> Tensor:
        return log(self.scale) + 0.5 * (1 + math.log(2 * math.pi))

    def cdf(self, value) -> Tensor:
        """The probability of a number up to value."""
        return 0.5 * (1 + ((value - self.loc) / (self.scale * math.sqrt(2))).erf())

    mean = property(lambda self: self.loc)
    variance = property(lambda self: self.scale * self.scale)


# A uniform random number is a fraction between 0 and 1, stretched and shifted.


class Uniform(Distribution):
    """The uniform distribution from `low` up to `high`."""

    has_rsample = True

    def __init__(self, low, high, validate_args=None):
        self.low, self.high = _parameters(low, high)
        _demand("high", self.high - self.low, lambda v: v > 0, "greater than low, by a positive number")
        super().__init__(self.low.shape)

    def rsample(self, sample_shape=()) -> Tensor:
        position = generator().random(self._shape(sample_shape))
        return self.low + (self.high - self.low) * from_numpy(np.asarray(position, self.low.dtype))

    def log_prob(self, value) -> Tensor:
        (value,) = _parameters(value)
        inside = (value >= self.low) & (value < self.high)
        return where(inside, -log(self.high - self.low), -math.inf)

    def entropy(self) -> Tensor:
        return log(self.high - self.low)

    mean = property(lambda self: (self.low + self.high) / 2)
    variance = property(lambda self: (self.high - self.low) ** 2 / 12)


# The time until the next event is exponentially distributed, if events happen at a constant rate.


class Exponential(Distribution):
    """The waiting time for something that happens `rate` times per unit of time."""

    has_rsample = True

    def __init__(self, rate, validate_args=None):
        (self.rate,) = _parameters(rate)
        _demand("rate", self.rate, lambda v: v > 0, "positive")
        super().__init__(self.rate.shape)

    def rsample(self, sample_shape=()) -> Tensor:
        waits = generator().exponential(size=self._shape(sample_shape))
        return from_numpy(np.asarray(waits, self.rate.dtype)) / self.rate

    def log_prob(self, value) -> Tensor:
        return log(self.rate) - self.rate * value

    def entropy(self) -> Tensor:
        return 1 - log(self.rate)

    mean = property(lambda self: 1 / self.rate)
    variance = property(lambda self: 1 / (self.rate * self.rate))


# ## How far apart?
#
# The *Kullback-Leibler divergence* is the surprise of believing $q$ where $p$ is true, minus the uncertainty of $p$
# itself.


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of q from p, in nats, for two distributions of one kind. Raises
    NotImplementedError for other pairs."""
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        apart = where(p.probs == 0, 0.0, p.probs * (p.logits - q.logits))
        return sum(where((q.probs == 0) & (p.probs > 0), math.inf, apart), dim=-1)
    if isinstance(p, Bernoulli) and isinstance(q, Bernoulli):
        one = softplus(-q.logits) - softplus(-p.logits)
        return p.probs * one + (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    if isinstance(p, Normal) and isinstance(q, Normal):
        ratio, moved = p.scale / q.scale, (p.loc - q.loc) / q.scale
        return 0.5 * (ratio * ratio + moved * moved - 1) - log(ratio)
    raise NotImplementedError(
        f"kl_divergence has no formula for {type(p).__name__} and {type(q).__name__}: both must be Categorical, both "
        "Bernoulli or both Normal"
    )


# A divergence is an expectation, so we can check it by drawing.


def check_divergence():
    p, q = Normal(0.0, 1.0), Normal(1.0, 2.0)
    x = p.sample((20_000,))
    drawn = (p.log_prob(x) - q.log_prob(x)).mean().item()
    assert abs(kl_divergence(p, q).item() - drawn) < 0.03


def check_categorical():
    m = Categorical(probs=Tensor([1.0, 3.0]))
    drawn = m.sample((4000,))
    assert 0.71 < drawn.float().mean().item() < 0.79 and abs(m.log_prob(1).item() - math.log(0.75)) < 1e-6


__all__ = ["Bernoulli", "Categorical", "Distribution", "Exponential", "Normal", "Uniform", "kl_divergence"]
