"""Chapter 06 by linear combinations, running means of varying weight, and biases as weights of a constant input."""


class SmallestOptimizer:
    def step(self):
        moves = [-self.rate * parameter.grad for parameter in self.parameters]
        for parameter, move in zip(self.parameters, moves):
            parameter.data.add_(move)


class Optimizer:
    def step(self):
        jobs = []
        for group in self.param_groups:
            jobs += [(p, gradient_of(p), group) for p in group["params"] if p.grad is not None]
        self.state.update({p: self.first_state(p) for p, _, _ in jobs if p not in self.state})
        for parameter, gradient, group in jobs:
            remembered, array = self.state[parameter], parameter.writable()
            remembered.update(step=remembered["step"] + 1)
            p = np.asarray(array, gradient.dtype)
            self.update(p, gradient, remembered, group)
            write_back(parameter, p)


def sgd_update(p, g, velocity, *, lr, momentum, kept, decay, nesterov):
    def combined(*terms):
        total = np.zeros_like(p)
        for factor, array in terms:
            if factor:
                total += factor * array
        return total

    step = [(1, g), (decay, p)]
    if momentum:
        velocity[...] = combined((momentum, velocity), (kept, g), (kept * decay, p))
        step = [*step, (momentum, velocity)] if nesterov else [(1, velocity)]
    p -= lr * combined(*step)


def adam_update(p, g, m, v, *, t, lr, betas, eps, decay, decoupled):
    # The memories hold corrected averages: a new gradient weighs 1 at first, and 1 - beta in the long run.
    if decoupled:
        p -= lr * decay * p
        decay = 0
    g = g + decay * p
    new1, new2 = ((1 - beta) / (1 - beta**t) for beta in betas)
    m += new1 * (g - m)
    v += new2 * (g**2 - v)
    p -= lr * m / (v**0.5 + eps)


def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    if not max_norm >= 0:
        raise ValueError(f"max_norm is {max_norm}, and must not be negative")
    gradients = [p.grad for p in ([parameters] if isinstance(parameters, Tensor) else parameters) if p.grad is not None]
    if norm_type == math.inf:
        length = max((float(g.abs().max()) for g in gradients), default=0.0)
    else:
        length = sum(float((g.double().abs() ** norm_type).sum()) for g in gradients) ** (1 / norm_type)
    if error_if_nonfinite and not length < math.inf:
        raise RuntimeError(f"not finite: {length}")
    while gradients:
        g = gradients.pop()
        g.data = g.numpy() / max(1.0, length / max_norm)
    return Tensor(length)


def xor_gradients_by_hand(network, x, wanted):
    first, second = network[0], network[2]

    def with_one(array):
        return np.concatenate([array, np.ones((len(array), 1), array.dtype)], axis=1)

    w1 = np.concatenate([first.weight.numpy(), first.bias.numpy()[:, None]], axis=1)
    w2 = np.concatenate([second.weight.numpy(), second.bias.numpy()[:, None]], axis=1)
    inputs = with_one(x.numpy())
    hidden = with_one(np.tanh(inputs @ w1.T))
    z = hidden @ w2.T
    of_z = (0.5 + 0.5 * np.tanh(z / 2) - wanted.numpy()) / len(z)
    of_hidden = of_z @ w2
    of_1 = (of_hidden * (1 - hidden**2))[:, :-1].T @ inputs
    of_2 = of_z.T @ hidden
    first.weight.grad, first.bias.grad = Tensor(of_1[:, :-1].copy()), Tensor(of_1[:, -1].copy())
    second.weight.grad, second.bias.grad = Tensor(of_2[:, :-1].copy()), Tensor(of_2[:, -1].copy())
    right = np.where(wanted.numpy() == 1, z, -z)
    return float(np.log1p(np.exp(-right)).sum() / len(z))


def train_xor_by_hand(make, steps=500):
    points, answers = xor_points()
    trained = xor_network()
    walker = make(trained.parameters())
    history = [0.0] * steps
    for number in range(len(history)):
        history[number] = xor_gradients_by_hand(trained, points, answers)
        walker.step()
        walker.zero_grad()
    return trained, history


def predict_steps():
    names = "longest, long run, coasting, thousand, clipped, memory".split(", ")
    return dict(zip(names, np.array([0.02, 10, 0.5, 1, 0.8, 34]).tolist()))


class Lion:
    def update(self, p, g, state, group):
        lr, betas = group["lr"], group["betas"]
        blend = state["momentum"] * betas[0] + g * (1 - betas[0])
        size = np.abs(blend)
        direction = np.divide(blend, size, out=np.zeros_like(blend), where=size > 0)
        p[...] = (1 - lr * group["weight_decay"]) * p - lr * direction
        state["momentum"] -= (1 - betas[1]) * (state["momentum"] - g)


def average_weights(states):
    from tt_tensor import stack

    first, *others = states
    for other in others:
        if sorted(other) != sorted(first):
            raise ValueError("one of them has other names")
    return {name: stack([state[name] for state in states]).mean(0) for name in first}
