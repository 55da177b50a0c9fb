"""Chapter 06 in place: sums that are corrected when they are used, one example at a time."""


class SmallestOptimizer:
    def step(self):
        for parameter in self.parameters:
            numbers = parameter.data.writable()
            np.subtract(numbers, np.multiply(self.rate, parameter.grad.numpy()), out=numbers)


class Optimizer:
    def step(self):
        for group in self.param_groups:
            for parameter in filter(lambda p: p.grad is not None, group["params"]):
                gradient = gradient_of(parameter)
                try:
                    remembered = self.state[parameter]
                except KeyError:
                    remembered = self.state[parameter] = self.first_state(parameter)
                remembered["step"] += 1
                self.apply_update(parameter, gradient, remembered, group)


def sgd_update(p, g, velocity, *, lr, momentum, kept, decay, nesterov):
    step = g.copy()
    if decay:
        step += decay * p
    if momentum:
        velocity *= momentum
        velocity += kept * step
        if nesterov:
            step += momentum * velocity
        else:
            step = velocity.copy()
    step *= -lr
    p += step


def adam_update(p, g, m, v, *, t, lr, betas, eps, decay, decoupled):
    # The two memories hold plain sums; the averages are taken when they are used, by the weights that went into them.
    whole = g.copy()
    if decay and not decoupled:
        whole += decay * p
    m *= betas[0]
    m += whole
    v *= betas[1]
    v += whole * whole
    total1, total2 = (sum(beta**i for i in range(t)) for beta in betas)
    if decoupled:
        p *= 1 - lr * decay
    p -= lr / total1 * m / (np.sqrt(v / total2) + eps)


def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    if not max_norm >= 0:
        raise ValueError(f"max_norm is {max_norm}, and must not be negative")
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    held = [p for p in parameters if p.grad is not None]
    length = math.hypot(*(math.hypot(*np.ravel(p.grad.numpy())) for p in held))
    if norm_type != 2:
        length = float(np.linalg.norm([n for p in held for n in np.ravel(p.grad.numpy())], norm_type))
    if error_if_nonfinite and (length == math.inf or length != length):
        raise RuntimeError(f"a gradient is not finite, their common length is {length}")
    share = min(1.0, max_norm / length) if length else 1.0
    for p in held:
        p.grad = p.grad * share
    return Tensor(length)


def xor_gradients_by_hand(network, x, wanted):
    w1, b1, w2, b2 = (p.numpy() for p in network.parameters())
    sums, loss = [np.zeros_like(w) for w in (w1, b1, w2, b2)], 0.0
    for example, target in zip(x.numpy(), wanted.numpy()):
        h = np.tanh(w1 @ example + b1)
        z = w2 @ h + b2
        of_z = (1 / (1 + np.exp(-z)) - target) / len(x)
        of_a = (of_z @ w2) * (1 - h) * (1 + h)
        for total, share in zip(sums, (np.outer(of_a, example), of_a, np.outer(of_z, h), of_z)):
            total += share
        loss += (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - target * z).item() / len(x)
    for parameter, total in zip(network.parameters(), sums):
        parameter.grad = Tensor(total)
    return loss


def train_xor_by_hand(make, steps=500):
    network, losses = xor_network(), []
    optimizer = make(network.parameters())
    while len(losses) < steps:
        losses += [xor_gradients_by_hand(network, *xor_points())]
        optimizer.step()
        optimizer.zero_grad()
    return network, losses


def predict_steps():
    velocity, largest = 0.0, 0.0
    for _ in range(500):
        velocity = 0.9 * velocity + 1
    while abs(1 - 100 * (largest + 1e-6)) <= 1:
        largest += 1e-6
    found = {"longest": largest, "long run": velocity, "coasting": 0.5 * 1 + 0}
    found |= {"thousand": 2000 / 2000, "clipped": 4 / (9 + 16) ** 0.5, "memory": 17 + 17}
    return found


class Lion:
    def update(self, p, g, state, group):
        rate, share, momentum = group["lr"], 1 - group["betas"][1], state["momentum"]
        blend = momentum * group["betas"][0]
        blend += (1 - group["betas"][0]) * g
        p *= 1 - rate * group["weight_decay"]
        p -= rate * (blend > 0)
        p += rate * (blend < 0)
        momentum *= 1 - share
        momentum += share * g


def average_weights(states):
    average = {}
    for count, state in enumerate(states, 1):
        if average and average.keys() != state.keys():
            raise ValueError(f"{sorted(average)} and {sorted(state)} are different names")
        for name, value in state.items():
            before = average.get(name, value)
            average[name] = before + (value - before) / count
    return average
