"""Chapter 03 by masks, by tanh, and by summed exponentials."""


def relu(x, /):
    return x * (x > 0)


def relu_slope(x):
    return 1.0 - (x <= 0) * 1.0


def sigmoid(x, /):
    return 0.5 * (1 + np.tanh(0.5 * _floating(x)))


def sigmoid_slope(x):
    s = sigmoid(x)
    return s - s * s


def gelu(x, /, approximate="none"):
    x = _floating(x)
    if approximate == "none":
        return _normal_below(x) * x
    if approximate != "tanh":
        raise ValueError(f"there is no approximation {approximate!r} of gelu: use 'none' or 'tanh'")
    near = np.clip(x, -10, 10)
    inner = math.sqrt(2 / math.pi) * (near + 0.044715 * near * near * near)
    return x / 2 + x / 2 * np.tanh(inner)


def softmax(x, /, dim):
    with np.errstate(all="ignore"):
        return np.exp(log_softmax.kernel(x, dim=dim))


def log_softmax(x, /, dim):
    x = _floating(x)
    with np.errstate(all="ignore"):
        top = np.max(x, axis=dim, keepdims=True) if x.size else 0
        y = x - top
        return y - np.log(np.sum(np.exp(y), axis=dim, keepdims=True))


def softmax_backward(p, g):
    rows = [(np.diag(q) - np.outer(q, q)) @ r for q, r in zip(np.asarray(p), np.asarray(g))]
    return np.array(rows)


def hard_sigmoid(x):
    return relu(x / 6 + 0.5) - relu(x / 6 - 0.5)


def log_sigmoid(x):
    return x - softplus(x)


def softmax_with_temperature(x, temperature):
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: give a positive number")
    return log_softmax(x * (1 / temperature), dim=-1).exp()
