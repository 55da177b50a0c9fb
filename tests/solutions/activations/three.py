"""Chapter 03 by absolute values, by its own functions, and by what autograd would make of them."""


def relu(x, /):
    half = np.asarray(0.5, x.dtype) if x.dtype.kind == "f" else 1
    return (x + np.abs(x)) * half if x.dtype.kind == "f" else (x + np.abs(x)) // 2


def relu_slope(x):
    positive = 0.0 < x
    return positive + 0.0 * x


def sigmoid(x, /):
    x = _floating(x)
    return np.exp(-np.logaddexp(np.zeros((), x.dtype), -x))


def sigmoid_slope(x):
    distance = sigmoid(x) - 0.5
    return 0.25 - distance * distance


def gelu(x, /, approximate="none"):
    x = _floating(x)
    if approximate not in ("none", "tanh"):
        raise ValueError('approximate may be "none" or "tanh"; it is ' + repr(approximate))
    share = _normal_below(x) if approximate == "none" else _tanh_below(x)
    return np.multiply(share, x)


def softmax(x, /, dim):
    x = _floating(x)
    with quiet():
        odds = np.exp(x - np.maximum.reduce(x, axis=dim, keepdims=True, initial=-np.inf))
        return odds * (1 / np.add.reduce(odds, axis=dim, keepdims=True))


def log_softmax(x, /, dim):
    x = _floating(x)
    with quiet():
        total = np.logaddexp.reduce(x, axis=dim, keepdims=True)
        return (x - total).astype(x.dtype, copy=False)


def softmax_backward(p, g):
    p, g = np.asarray(p), np.asarray(g)
    jacobians = p[:, :, None] * (np.eye(p.shape[1]) - p[:, None, :])
    return (jacobians @ g[:, :, None])[:, :, 0]


def hard_sigmoid(x):
    shifted = (x + 3).clip(min=0.0, max=6.0)
    return shifted / 6


def log_sigmoid(x):
    size = relu(x) + relu(-x)
    return (x - size) / 2 - softplus(-size)


def softmax_with_temperature(x, temperature):
    if temperature > 0:
        return softmax(x * temperature**-1, dim=x.ndim - 1)
    raise ValueError(f"a temperature of {temperature} divides by nothing good; it has to be positive")
