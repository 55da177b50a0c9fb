"""Ours, as the chapters use it."""

import workloads as w

import tt_autograd as ta
import tt_tensor as tt
from tt_optim import Adam


def _model(layers):
    parts = []
    for weight, bias in layers:
        linear = tt.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight, bias
        parts += [linear, tt.ReLU()]
    return tt.Sequential(*parts[:-1])


def _adam(parameters):
    return Adam(parameters, lr=w.RATE, betas=w.BETAS, eps=w.EPS)


def mlp():
    x, y, layers = w.mlp()
    x, y, model = tt.tensor(x), tt.tensor(y), _model(layers)
    optimizer = _adam(model.parameters())

    def step():
        loss = tt.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def digits():
    x, y, layers = w.digits()
    model, data = _model(layers), ta.Batches(tt.tensor(x), tt.tensor(y), w.BATCH)
    optimizer = _adam(model.parameters())
    return lambda: ta.fit(model, tt.cross_entropy, optimizer, data, epochs=1, progress=False)["loss"][0]


def adam():
    values, gradients = w.adam()
    parameters = [tt.Parameter(v) for v in values]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = tt.tensor(gradient)
    return _adam(parameters).step


def small():
    start, a, b = (tt.tensor(v, requires_grad=True) for v in w.small())

    def step():
        x = start
        for _ in range(w.OPERATIONS // 2):
            x = x * a
            x = x + b
        start.grad = a.grad = b.grad = None
        loss = x.sum()
        loss.backward()
        return loss.item()

    return step
