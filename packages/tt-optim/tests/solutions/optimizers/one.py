"""Chapter 06 as the papers write it: a new array for each operation, parameters one after the other."""


class SmallestOptimizer:
    def step(self):
        for parameter in self.parameters:
            parameter.data = parameter.numpy() - self.rate * parameter.grad.numpy()


class Optimizer:
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = gradient_of(parameter)
                remembered = self.state.get(parameter) or self.first_state(parameter)
                remembered["step"] += 1
                self.state[parameter] = remembered
                self.apply_update(parameter, gradient, remembered, group)


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


def train_xor_by_hand(make, steps=500):
    x, wanted = xor_points()
    network = xor_network()
    optimizer = make(list(network.parameters()))

    def round():
        loss = xor_gradients_by_hand(network, x, wanted)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return network, [round() for _ in range(steps)]


def predict_steps():
    velocities = {"long run": 10, "coasting": 1 / 2}
    return velocities | {"longest": 0.02, "thousand": 1, "clipped": 4 / 5, "memory": 34}


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
