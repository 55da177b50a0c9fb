"""Chapter 06 by linear combinations, running means of varying weight, and biases as weights of a constant input."""


class Optimizer:
    def zero_grad(self):
        waiting = [parameter for group in self.param_groups for parameter in group["params"]]
        while waiting:
            waiting.pop().grad = None

    def step(self):
        jobs = []
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                remembered = self.state[parameter] if parameter in self.state else self._remember(parameter)
                remembered.update(step=remembered["step"] + 1)
                arrays = [parameter.writable(), _gradient_of(parameter)]
                arrays.extend(remembered[name] for name in self.memory)
                jobs.append((arrays, self.constants(group, remembered["step"])))
        _run(self.update, jobs, 0)


class SGD:
    def update(self, p, g, velocity, scratch, lr, momentum, kept, decay, nesterov):
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


class RMSprop:
    def update(self, p, g, average, velocity, mean, scratch, lr, alpha, eps, decay, momentum, centered):
        whole = np.add(g, p * decay)
        average[...] = np.average([average, whole**2], axis=0, weights=[alpha, 1 - alpha])
        variance = average
        if centered:
            mean[...] = np.average([mean, whole], axis=0, weights=[alpha, 1 - alpha])
            variance = (average**0.5 - mean) * (average**0.5 + mean)
        step = whole / (variance**0.5 + eps)
        if momentum:
            step += momentum * velocity
            velocity[...] = step
        p[...] -= lr * step


def adam_by_formula(p, g, m, v, t, lr=1e-3):
    m, v = np.average([m, g], axis=0, weights=[9, 1]), np.average([v, g**2], axis=0, weights=[999, 1])
    r = (1 - 0.999**t) ** 0.5
    return p - lr * r / (1 - 0.9**t) * m / (v**0.5 + 1e-8 * r), m, v


class Adam:
    def update(self, p, g, grad_sum, square_sum, scratch, t, lr, betas, eps, decay):
        # The memories hold corrected averages: a new gradient weighs 1 at first, and 1 - beta in the long run.
        if self.decoupled:
            p -= lr * decay * p
            decay = 0
        g = g + decay * p
        new1, new2 = ((1 - beta) / (1 - beta**t) for beta in betas)
        grad_sum += new1 * (g - grad_sum)
        square_sum += new2 * (g**2 - square_sum)
        p -= lr * grad_sum / (square_sum**0.5 + eps)


def clip_grad_norm_(parameters, max_norm, error_if_nonfinite=False):
    gradients = [p.grad for p in ([parameters] if isinstance(parameters, Tensor) else parameters) if p.grad is not None]
    length = sum(float((g.double() ** 2).sum()) for g in gradients) ** 0.5
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


class Lion:
    def update(self, p, g, momentum, scratch, lr, betas, decay):
        blend = momentum * betas[0] + g * (1 - betas[0])
        np.abs(blend, out=scratch)
        direction = np.divide(blend, scratch, out=np.zeros_like(blend), where=scratch > 0)
        p[...] = (1 - lr * decay) * p - lr * direction
        momentum -= (1 - betas[1]) * (momentum - g)


def gradient_norm(parameters):
    squares = []
    for p in parameters:
        if p.grad is not None:
            squares += [number * number for number in p.grad.numpy().ravel().tolist()]
    return math.sqrt(math.fsum(squares))


def average_weights(states):
    from tt_tensor import stack

    first, *others = states
    for other in others:
        if sorted(other) != sorted(first):
            raise ValueError("one of them has other names")
    return {name: stack([state[name] for state in states]).mean(0) for name in first}
