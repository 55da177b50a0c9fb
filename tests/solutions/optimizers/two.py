"""Chapter 06 in place: sums that are corrected when they are used, one example at a time."""


class Optimizer:
    def zero_grad(self, set_to_none=True):
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            parameter.grad = None if set_to_none or parameter.grad is None else Tensor(np.zeros_like(parameter.numpy()))

    def step(self):
        for group in self.param_groups:
            for parameter in filter(lambda p: p.grad is not None, group["params"]):
                try:
                    remembered = self.state[parameter]
                except KeyError:
                    remembered = self._remember(parameter)
                remembered["step"] += 1
                arrays = [parameter.writable(), _gradient_of(parameter)]
                wide, gradient = (array.astype(np.result_type(array, np.float32), copy=False) for array in arrays)
                constants = self.constants(group, remembered["step"])
                self.update(wide, gradient, *map(remembered.get, self.memory), **constants)
                if wide is not arrays[0]:
                    arrays[0][...] = wide


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


class RMSprop:
    def update(self, p, g, average, velocity, mean, lr, alpha, eps, decay, momentum, centered):
        whole = g + decay * p
        average += (1 - alpha) * (whole * whole - average)
        divisor = average.copy()
        if centered:
            mean += (1 - alpha) * (whole - mean)
            divisor -= np.square(mean)
        np.sqrt(divisor, out=divisor)
        divisor += eps
        whole /= divisor
        if momentum:
            velocity *= momentum
            velocity += whole
            p -= lr * velocity
        else:
            p -= lr * whole


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
    length = gradient_norm(held)
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


class Lion:
    def update(self, p, g, momentum, lr, betas, decay):
        blend = momentum * betas[0]
        blend += (1 - betas[0]) * g
        p *= 1 - lr * decay
        p -= lr * (blend > 0)
        p += lr * (blend < 0)
        momentum *= betas[1]
        momentum += (1 - betas[1]) * g


def gradient_norm(parameters):
    return math.hypot(*(math.hypot(*np.ravel(p.grad.numpy())) for p in parameters if p.grad is not None))


def average_weights(states):
    average = {}
    for count, state in enumerate(states, 1):
        if average and average.keys() != state.keys():
            raise ValueError(f"{sorted(average)} and {sorted(state)} are different names")
        for name, value in state.items():
            before = average.get(name, value)
            average[name] = before + (value - before) / count
    return average
