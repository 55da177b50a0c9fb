"""Chapter 06 in place: pieces of its own, sums that are corrected when they are used, one example at a time."""


class Optimizer:
    def zero_grad(self):
        [setattr(parameter, "grad", None) for group in self.param_groups for parameter in group["params"]]

    def step(self):
        piece = 50_000
        for group in self.param_groups:
            for parameter in filter(lambda p: p.grad is not None, group["params"]):
                try:
                    remembered = self.state[parameter]
                except KeyError:
                    remembered = self._remember(parameter)
                remembered["step"] += 1
                constants = self.constants(group, remembered["step"])
                arrays = [parameter.writable(), _gradient_of(parameter), *map(remembered.get, self.memory)]
                if not all(array.flags.c_contiguous for array in arrays):
                    self.update(*arrays, np.zeros_like(arrays[0]), **constants)
                    continue
                flat = [array.reshape(-1) for array in arrays]
                scratch = np.empty(min(piece, flat[0].size), flat[0].dtype)
                for start in range(0, flat[0].size, piece):
                    parts = [array[start : start + piece] for array in flat]
                    self.update(*parts, scratch[: parts[0].size], **constants)


class SGD:
    def update(self, p, g, velocity, scratch, lr, momentum, kept, decay, nesterov):
        np.copyto(scratch, g)
        scratch += decay * p
        if momentum:
            velocity *= momentum
            velocity += kept * scratch
            if nesterov:
                scratch += momentum * velocity
            else:
                np.copyto(scratch, velocity)
        scratch *= -lr
        p += scratch


class RMSprop:
    def update(self, p, g, average, velocity, mean, scratch, lr, alpha, eps, decay, momentum, centered):
        np.multiply(p, decay, out=scratch)
        scratch += g
        average += (1 - alpha) * (scratch * scratch - average)
        divisor = average.copy()
        if centered:
            mean += (1 - alpha) * (scratch - mean)
            divisor -= np.square(mean)
        np.sqrt(divisor, out=divisor)
        divisor += eps
        scratch /= divisor
        if momentum:
            velocity *= momentum
            velocity += scratch
            p -= lr * velocity
        else:
            p -= lr * scratch


def adam_by_formula(p, g, m, v, t, lr=1e-3):
    new_m, new_v = m.copy(), v.copy()
    new_m *= 0.9
    new_m += 0.1 * g
    new_v *= 0.999
    new_v += 0.001 * np.square(g)
    return p - lr / (1 - 0.9**t) * new_m / (np.sqrt(new_v) / np.sqrt(1 - 0.999**t) + 1e-8), new_m, new_v


class Adam:
    def update(self, p, g, grad_sum, square_sum, scratch, t, lr, betas, eps, decay):
        # Of both sums the averages are taken when they are used: by the weights that went into them.
        np.copyto(scratch, g)
        if decay and not self.decoupled:
            scratch += decay * p
        grad_sum *= betas[0]
        grad_sum += scratch
        square_sum *= betas[1]
        scratch *= scratch
        square_sum += scratch
        total1, total2 = (sum(beta**i for i in range(t)) for beta in betas)
        np.divide(square_sum, total2, out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch += eps
        np.divide(grad_sum, scratch, out=scratch)
        if self.decoupled:
            p *= 1 - lr * decay
        p -= lr / total1 * scratch


def clip_grad_norm_(parameters, max_norm, error_if_nonfinite=False):
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    held = [p for p in parameters if p.grad is not None]
    length = gradient_norm(held)
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
    def update(self, p, g, momentum, scratch, lr, betas, decay):
        np.multiply(momentum, betas[0], out=scratch)
        scratch += (1 - betas[0]) * g
        p *= 1 - lr * decay
        p -= lr * (scratch > 0)
        p += lr * (scratch < 0)
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
