"""MyGrad, with its documented switch for speed. It brings no optimizers."""

import mygrad as mg
import workloads as w
from mygrad.nnet import relu, softmax_crossentropy

from .numpy_by_hand import Network

mg.turn_memory_guarding_off()


def mlp():
    x, y, layers = w.mlp()
    network = Network(layers)
    weights = [mg.tensor(p, copy=False) for p in network.p]

    def step():
        h = x
        for i in range(0, len(weights), 2):
            h = (relu(h) if i else h) @ weights[i].T + weights[i + 1]
        loss = softmax_crossentropy(h, y)
        loss.backward()
        for gradient, weight in zip(network.g, weights):
            gradient[...] = weight.grad
        network.update()
        return loss.item()

    return step


def small():
    start, a, b = (mg.tensor(v) for v in w.small())

    def step():
        x = start
        for _ in range(w.OPERATIONS // 2):
            x = x * a
            x = x + b
        loss = x.sum()
        loss.backward()
        return loss.item()

    return step
