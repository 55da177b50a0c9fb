"""Chapter 07 on PyTorch: torch.autograd. The table of rules is for primitives that PyTorch does not know."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch
from torch import enable_grad, is_grad_enabled, no_grad
from torch.autograd.gradcheck import GradcheckError

import tt_tensor as tt
from tt_tensor import Tensor, install, interpreting

RULES: dict = {}
NO_GRADIENT = {tt.eq, tt.ne, tt.lt, tt.le, tt.gt, tt.ge}

# ## The table


def rule(primitive, *shares, together=None):
    """Enter the derivatives of a primitive of yours into the table: for each input (g, out, *inputs, **params)."""
    if primitive in RULES or primitive.native:
        raise ValueError(f"{primitive.name} has a rule already")
    RULES[primitive] = (lambda array: together) if together else shares


def kept(mask, g):
    """g where the mask is true, and exactly 0 elsewhere."""
    return torch.where(mask, g, torch.zeros((), dtype=g.dtype))


class _ByRule(torch.autograd.Function):
    """A primitive of yours as an operation of PyTorch."""

    @staticmethod
    def forward(ctx, next, primitive, params, *tensors):
        ctx.primitive, ctx.params = primitive, params
        out = next(primitive, tensors, params)
        ctx.save_for_backward(out, *tensors)
        return out

    @staticmethod
    def backward(ctx, g):
        out, *tensors = (x.as_subclass(Tensor) for x in ctx.saved_tensors)
        rules, g = RULES[ctx.primitive], g.as_subclass(Tensor)
        needed = ctx.needs_input_grad[3:]
        if isinstance(rules, tuple):
            shares = [
                share(g, out, *tensors, **ctx.params) if share and wanted else None
                for share, wanted in zip(rules, needed)
            ]
        else:
            shares = rules(out)(needed, g, out, *tensors, **ctx.params)
        return None, None, None, *(s if s is None else _plain(unbroadcast(s, x.shape)) for s, x in zip(shares, tensors))


def record(next, primitive, tensors, params):
    """The interpreter that remembers. PyTorch records its own kernels; what comes from elsewhere needs a rule."""
    if primitive.kernel is primitive.native or not (is_grad_enabled() and any(t.requires_grad for t in tensors)):
        return next(primitive, tensors, params)
    if primitive in NO_GRADIENT:
        return next(primitive, tensors, params)
    if primitive not in RULES:
        raise NotImplementedError(f"{primitive.name} has no rule: enter its derivatives with rule()")
    return _ByRule.apply(next, primitive, params, *tensors)


install(record)


def unbroadcast(g, shape):
    """g summed over the dimensions along which `shape` was broadcast, so that it has that shape."""
    return g.sum_to_size(shape) if isinstance(g, torch.Tensor) else Tensor(g).sum_to_size(shape).numpy()


def with_summed_dims(g, x, dim, keepdim):
    """g with the dimensions that a reduction of x took away put back, with size 1."""
    if keepdim or g.ndim == x.ndim:
        return g
    gone = range(x.ndim) if dim is None else [d % x.ndim for d in ([dim] if isinstance(dim, int) else dim)]
    return g.reshape(tuple(1 if d in gone else n for d, n in enumerate(x.shape)))


# ## What the user sees


def _plain(tensors):
    """Our tensors as PyTorch's: functions of torch that are written in Python ask for a dtype of PyTorch."""
    if isinstance(tensors, torch.Tensor):
        return tensors.as_subclass(torch.Tensor)
    return tensors and [_plain(tensor) for tensor in tensors]


class _HasHistory(type(torch.Tensor)):
    def __instancecheck__(cls, x):
        return isinstance(x, Tensor) and x.grad_fn is not None


class Traced(Tensor, metaclass=_HasHistory):
    """The result of an operation on a tensor that requires a gradient. PyTorch's tensors are of one class."""


class Walk:
    """One pass back through the record. PyTorch's is written in C++, and cannot be taken apart."""

    def __init__(self, outputs, seeds, create_graph):
        self.outputs, self.seeds, self.create_graph = outputs, seeds, create_graph

    def run(self, keep=None, retain_graph=False, wanted=None, useful=None):
        """The whole walk, into `.grad` of the leaves."""
        torch.autograd.backward(_plain(self.outputs), _plain(self.seeds), retain_graph, self.create_graph)


def backward(output, gradient=None, retain_graph=None, create_graph=False):
    """Add d(output)/d(leaf) to `.grad` of every leaf."""
    output.backward(gradient, retain_graph, create_graph)


def grad(outputs, inputs, grad_outputs=None, create_graph=False, retain_graph=None, allow_unused=False):
    """torch.autograd.grad."""
    options = {"create_graph": create_graph, "retain_graph": retain_graph, "allow_unused": allow_unused}
    return torch.autograd.grad(_plain(outputs), inputs, _plain(grad_outputs), **options)


def _plainly(function):
    """A function of our tensors as one of PyTorch's."""
    return lambda *values: _plain(function(*(value.as_subclass(Tensor) for value in values)))


def check_gradients(function, *inputs, order=2, eps=1e-6, atol=1e-6, rtol=1e-5):
    """torch.autograd.gradcheck and gradgradcheck. Raises AssertionError if one fails."""
    if any(x.dtype != np.float64 for x in inputs if x.requires_grad) or not any(x.requires_grad for x in inputs):
        raise ValueError("check_gradients needs float64 inputs, at least one of which requires a gradient")

    values = [_plain(x.detach()).requires_grad_(x.requires_grad) for x in inputs]
    for number in range(1, order + 1):
        check = torch.autograd.gradcheck if number == 1 else torch.autograd.gradgradcheck
        try:
            check(_plainly(function), values, eps=eps, atol=atol, rtol=rtol)
        except GradcheckError as error:
            raise AssertionError(f"gradient of order {number}: {error}") from None


class Anomaly(RuntimeError):
    """An operation made a nan out of inputs without one; raised under `detect_anomaly`."""


@contextmanager
def detect_anomaly():
    """PyTorch's, which looks at backward passes, and a look at what goes through the door in forward passes."""

    def guard(next, primitive, tensors, params):
        out = next(primitive, tensors, params)
        if torch.isnan(out.detach()).numpy().any() and not any(torch.isnan(t.detach()).numpy().any() for t in tensors):
            shapes = " and ".join(str(tuple(t.shape)) for t in tensors)
            raise Anomaly(f"{primitive.name} of shape {shapes} made a nan out of inputs without one")
        return out

    with interpreting(guard), torch.autograd.set_detect_anomaly(True):
        yield


def graph(output):
    """The record behind a tensor as mermaid text: PyTorch's nodes, from the leaves to the output."""
    lines, names, stack = ["flowchart LR"], {}, [output.grad_fn] if output.grad_fn else []

    def name(node):
        if node not in names:
            names[node] = f"n{len(names)}"
            lines.append(f'    {names[node]}["{node.name()}"]')
            stack.append(node)
        return names[node]

    while stack:
        node = stack.pop()
        lines += [f"    {name(parent)} --> {name(node)}" for parent, _ in node.next_functions if parent]
    return "\n".join(lines)


# ## What the chapter tells


class Value:
    """A number that remembers how it was made: pairs of (input, derivative with respect to it)."""

    def __init__(self, number, made_of=()):
        self.number, self.made_of, self.gradient = number, made_of, 0.0

    def __add__(self, other):
        return Value(self.number + other.number, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other):
        return Value(self.number * other.number, [(self, other.number), (other, self.number)])

    def backward(self, g=1.0):
        self.gradient += g
        for value, slope in self.made_of:
            value.backward(g * slope)


def jacobian(function, x):
    """torch.autograd.functional.jacobian, as an array."""
    return torch.autograd.functional.jacobian(_plainly(function), _plain(x)).numpy()


def hessian_vector_product(function, x, vector):
    """torch.autograd.functional.hvp."""
    _, product = torch.autograd.functional.hvp(_plainly(function), _plain(x), _plain(vector))
    return product.as_subclass(Tensor)


def softsign(x):
    """torch.nn.functional.softsign."""
    return torch.nn.functional.softsign(x)


def train_by_loop(steps=1000):
    """Train an xor_network by a loop written out; its last loss."""
    network, (x, wanted) = tt.losses.xor_network(), tt.activations.xor_points()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = tt.binary_cross_entropy_with_logits(network(x), wanted)
        loss.backward()
        optimizer.step()
    return loss.item()


__all__ = [
    "Anomaly", "NO_GRADIENT", "RULES", "Traced", "Value", "Walk", "backward", "check_gradients", "detect_anomaly",
    "enable_grad", "grad", "graph", "hessian_vector_product", "is_grad_enabled", "jacobian", "kept", "no_grad",
    "record", "rule", "softsign", "train_by_loop", "unbroadcast", "with_summed_dims",
]
