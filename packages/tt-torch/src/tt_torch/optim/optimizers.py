"""Chapter 06 on PyTorch: torch.optim, and the chapter's experiments with PyTorch's autograd."""

from __future__ import annotations


import numpy as np
import torch
from torch import optim
from torch.nn.utils import clip_grad_norm_
from torch.utils._pytree import tree_map_only

from tt_tensor import Parameter, Tensor, binary_cross_entropy_with_logits
from tt_tensor.activations import xor_points
from tt_tensor.losses import xor_network

Optimizer = optim.Optimizer


class SmallestOptimizer:
    """Parameters and a rate."""

    def __init__(self, parameters, rate):
        self.parameters, self.rate = list(parameters), rate

    @torch.no_grad()
    def step(self):
        for parameter in self.parameters:
            parameter -= self.rate * parameter.grad


class Ours:
    """An optimizer whose `state_dict` is a copy, of tensors of the course (PyTorch's shares memory)."""

    def state_dict(self):
        return tree_map_only(torch.Tensor, Tensor, super().state_dict())


class SGD(Ours, optim.SGD):
    """torch.optim.SGD."""


class Adam(Ours, optim.Adam):
    """torch.optim.Adam."""


class AdamW(Ours, optim.AdamW):
    """torch.optim.AdamW."""


class Lion(Ours, optim.Optimizer):
    """Steps by the sign of a mixture of momentum and gradient; weight decay as in AdamW."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(torch.lerp(p.grad, momentum, group["betas"][0]).sign_(), alpha=group["lr"])
                momentum.lerp_(p.grad, 1 - group["betas"][1])


def average_weights(states):
    """The mean of several state dictionaries with the same names. Raises ValueError if the names differ."""
    if len({tuple(state) for state in states}) != 1:
        raise ValueError("the state dictionaries have different names, or there are none")
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


# ## What the chapter tells


def valley(x, y):
    """100 times steeper in y than in x."""
    return 0.5 * (x * x + 100 * y * y)


def rosenbrock(x, y):
    """Rosenbrock's banana."""
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def rosenbrock_gradient(x, y):
    """The slopes of rosenbrock in x and y, by autograd."""
    point = Tensor(np.array([x, y]), requires_grad=True)
    return torch.autograd.grad(rosenbrock(*point), point)[0].numpy()


def walk(make, start=(-1.2, 1.0), steps=200):
    """The path of an optimizer on rosenbrock, shape (steps + 1, 2)."""
    point = Parameter(np.array(start))
    optimizer, path = make([point]), [point.numpy().copy()]
    for _ in range(steps):
        optimizer.zero_grad()
        rosenbrock(*point).backward()
        optimizer.step()
        path.append(point.numpy().copy())
    return np.array(path)


def sgd_update(p, g, velocity, *, lr, momentum, kept, decay, nesterov):
    """Change p and its velocity in place, given the gradient g."""
    if decay:
        g = g + decay * p
    if momentum:
        velocity *= momentum
        velocity += kept * g
        g = g + momentum * velocity if nesterov else velocity
    p -= lr * g


def adam_update(p, g, m, v, *, t, lr, betas, eps, decay, decoupled):
    """Change p and the averages m and v in place in step t, from 1, given the gradient g. By torch.optim."""
    weight = torch.nn.Parameter(torch.from_numpy(p))
    weight.grad = torch.from_numpy(np.ascontiguousarray(g))
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind([weight], lr=lr, betas=betas, eps=eps, weight_decay=decay)
    averages = {"exp_avg": torch.from_numpy(m), "exp_avg_sq": torch.from_numpy(v)}
    optimizer.state[weight] = {"step": torch.tensor(float(t - 1)), **averages}
    optimizer.step()


def adam_from_all_gradients(gradients, lr=1e-3):
    """How far the last of len(gradients) steps of Adam moves a weight, by torch.optim.Adam."""
    weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=lr)
    for g in gradients:
        before, weight.grad = weight.item(), torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    return weight.item() - before


def xor_gradients_by_hand(network, x, wanted):
    """Fill `.grad` of the parameters of an xor_network; returns the loss. By autograd, since this is PyTorch."""
    network.zero_grad()
    loss = binary_cross_entropy_with_logits(network(x), wanted)
    loss.backward()
    return loss.item()


def xor_case():
    """An xor_network with fixed float64 weights, inputs and answers."""
    network = xor_network().double()
    for number, parameter in enumerate(network.parameters()):
        parameter.data = np.sin(np.arange(parameter.numel()) + 2.0 * number + 1).reshape(parameter.shape)
    x, wanted = xor_points()
    return network, x.double(), wanted.double()


def train_xor_by_hand(make, steps=500):
    """Train an xor_network; the network and its losses."""
    network, points = xor_network(), xor_points()
    optimizer, losses = make(network.parameters()), []
    for _ in range(steps):
        losses.append(xor_gradients_by_hand(network, *points))
        optimizer.step()
        optimizer.zero_grad()
    return network, losses


def predict_steps():
    """Six predictions by name."""
    numbers = {"longest": 0.02, "long run": 10.0, "coasting": 0.5, "thousand": 1.0, "clipped": 0.8}
    return {**numbers, "memory": 2.0 * sum(p.numel() for p in xor_network().parameters())}


__all__ = [
    "Adam", "AdamW", "Lion", "Optimizer", "SGD", "adam_from_all_gradients", "adam_update", "average_weights",
    "clip_grad_norm_", "rosenbrock", "rosenbrock_gradient", "sgd_update", "train_xor_by_hand", "valley", "walk",
    "xor_case", "xor_gradients_by_hand",
]
