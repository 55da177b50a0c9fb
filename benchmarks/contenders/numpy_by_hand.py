"""No framework: forward and backward written out for this network, in place, into arrays that are made once.

This is the mark that a framework on NumPy can come near to, and, without threads of its own, hardly pass.
"""

import numpy as np
import workloads as w

BLOCK = 65536  # numbers that are updated together, so that they stay in the cache


class Network:
    """Linear layers with ReLU between them, cross-entropy behind them, and Adam over one flat array."""

    def __init__(self, layers):
        arrays = [a for layer in layers for a in layer]
        self.flat = np.concatenate([a.ravel() for a in arrays])
        self.gradient, self.m, self.v = (np.zeros_like(self.flat) for _ in range(3))
        self.scratch = np.empty(BLOCK, np.float32)
        ends = np.cumsum([0] + [a.size for a in arrays])
        self.p, self.g = (
            [flat[i:j].reshape(a.shape) for i, j, a in zip(ends, ends[1:], arrays)]
            for flat in (self.flat, self.gradient)
        )
        self.steps = 0

    def step(self, x, y):
        values, rows = [x], np.arange(len(y))
        for i in range(0, len(self.p), 2):
            values.append(values[-1] @ self.p[i].T)
            values[-1] += self.p[i + 1]
            if i < len(self.p) - 2:
                np.maximum(values[-1], np.float32(0), out=values[-1])
        d = values.pop()
        d -= d.max(1, keepdims=True)
        picked = d[rows, y].sum()
        np.exp(d, out=d)
        sums = d.sum(1, keepdims=True)
        d /= sums * len(y)
        d[rows, y] -= np.float32(1 / len(y))
        for i in reversed(range(0, len(self.p), 2)):
            x = values.pop()
            np.matmul(d.T, x, out=self.g[i])
            d.sum(0, out=self.g[i + 1])
            if i:
                d = d @ self.p[i]
                d *= x > 0
        self.update()
        return float(np.log(sums).sum() - picked) / len(y)

    def update(self):
        self.steps += 1
        (beta1, beta2), size = w.BETAS, self.flat.size
        root = ((1 - beta2) / (1 - beta2**self.steps)) ** 0.5
        rate, eps = w.RATE * (1 - beta1) / (1 - beta1**self.steps) / root, w.EPS / root
        for i in range(0, size, BLOCK):
            p, g, m, v = (a[i : i + BLOCK] for a in (self.flat, self.gradient, self.m, self.v))
            scratch = self.scratch[: p.size]
            m *= beta1
            m += g
            v *= beta2
            v += np.multiply(g, g, out=scratch)
            np.sqrt(v, out=scratch)
            scratch += eps
            np.divide(m, scratch, out=scratch)
            scratch *= rate
            p -= scratch


def mlp():
    x, y, layers = w.mlp()
    network = Network(layers)
    return lambda: network.step(x, y)


def digits():
    x, y, layers = w.digits()
    network, starts = Network(layers), range(0, len(y), w.BATCH)

    def epoch():
        batches = [(x[i : i + w.BATCH], y[i : i + w.BATCH]) for i in starts]
        return sum(network.step(a, b) * len(b) for a, b in batches) / len(y)

    return epoch


def adam():
    values, gradients = w.adam()
    network = Network([values])
    network.gradient[:] = np.concatenate([g.ravel() for g in gradients])
    return network.update
