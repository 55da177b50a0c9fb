"""Chapter 06 as the papers write it: a new array for each operation, parameters one after the other."""


class Optimizer:
    def zero_grad(self, set_to_none=True):
        from itertools import chain

        for parameter in chain.from_iterable(group["params"] for group in self.param_groups):
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient, numbers = gradient_of(parameter), parameter.writable()
                remembered = self.state.get(parameter) or self.first_state(parameter)
                remembered["step"] += 1
                self.state[parameter] = remembered
                copied = numbers.astype(gradient.dtype)
                self.update(copied, gradient, remembered, group)
                numbers[...] = copied


def sgd_update(p, g, velocity, *, lr, momentum, kept, decay, nesterov):
    g = g + decay * p if decay else g
    if momentum > 0:
        velocity[...] = momentum * velocity + kept * g
        g = g + momentum * velocity if nesterov else velocity
    p[...] = p - lr * g


def adam_update(p, g, m, v, *, t, lr, betas, eps, decay, decoupled):
    if decoupled:
        p[...] = p - lr * decay * p
    else:
        g = g + decay * p
    m[...] = m + (1 - betas[0]) * (g - m)
    v[...] = betas[1] * v + (1 - betas[1]) * g**2
    corrected, usual = m / (1 - betas[0] ** t), np.sqrt(v / (1 - betas[1] ** t))
    p[...] = p - lr * corrected / (usual + eps)


def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    if not max_norm >= 0:
        raise ValueError(f"max_norm is {max_norm}, and must not be negative")
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    gradients = [p.grad.writable() for p in parameters if p.grad is not None]
    length = float(np.linalg.norm(np.concatenate([g.reshape(-1) for g in gradients]), norm_type)) if gradients else 0.0
    if error_if_nonfinite and not np.isfinite(length):
        raise RuntimeError(f"the length of all gradients is {length}")
    if length > max_norm:
        for g in gradients:
            g *= max_norm / length
    return Tensor(length)


def xor_gradients_by_hand(network, x, wanted):
    w1, b1, w2, b2 = (p.numpy() for p in (network[0].weight, network[0].bias, network[2].weight, network[2].bias))
    inputs, targets = x.numpy(), wanted.numpy()
    h = np.tanh(inputs @ w1.T + b1)
    z = h @ w2.T + b2
    of_z = (1 / (1 + np.exp(-z)) - targets) / len(inputs)
    of_a = of_z @ w2 * (1 - h**2)
    gradients = [of_a.T @ inputs, of_a.sum(axis=0), of_z.T @ h, of_z.sum(axis=0)]
    for parameter, gradient in zip(network.parameters(), gradients):
        parameter.grad = Tensor(gradient)
    return float(np.mean(np.logaddexp(0, z) - targets * z))


class Lion:
    def update(self, p, g, state, group):
        (early, late), momentum = group["betas"], state["momentum"]
        direction = np.sign(early * momentum + (1 - early) * g)
        momentum[...] = late * momentum + (1 - late) * g
        p[...] = p - group["lr"] * (group["weight_decay"] * p + direction)


def average_weights(states):
    names = set(states[0])
    if any(set(state) != names for state in states):
        raise ValueError("the dictionaries do not have the same names")
    return {name: Tensor(np.mean([state[name].numpy() for state in states], axis=0)) for name in states[0]}
