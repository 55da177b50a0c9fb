"""Chapter 03 by absolute values, by its own functions, and by what autograd would make of them."""


def numeric_slope(function, x, distance=1e-6):
    x = np.array(x).astype(np.float64)
    to_the_right, to_the_left = ((function(x + step) - function(x)) / step for step in (distance, -distance))
    return (to_the_right + to_the_left) / 2


def elu(x, /, alpha=1.0):
    x = as_floats(x)
    size = np.abs(x)
    with quiet():
        left = np.where(x < 0, np.expm1(-size), np.zeros((), x.dtype))
    return np.where(x > 0, x, left * alpha).astype(x.dtype)


def predict_far_out():
    answers = dict.fromkeys("bc", 0.0)
    answers |= {"a": math.nan, "d": float("-inf"), "e": -2e2}
    return answers


def relu_slope(x):
    positive = 0.0 < x
    return positive + 0.0 * x


def sigmoid(x, /):
    x = as_floats(x)
    return np.exp(-np.logaddexp(np.zeros((), x.dtype), -x))


def gelu(x, /, approximate="none"):
    x = as_floats(x)
    if approximate not in ("none", "tanh"):
        raise ValueError('approximate may be "none" or "tanh"; it is ' + repr(approximate))
    share = _normal_below(x) if approximate == "none" else _tanh_below(x)
    return np.multiply(share, x)


def softmax(x, /, dim):
    x = as_floats(x)
    with quiet():
        odds = np.exp(x - np.maximum.reduce(x, axis=dim, keepdims=True, initial=-np.inf))
        total = np.add.reduce(odds, axis=dim, keepdims=True, dtype=ADDED_IN[x.dtype])
        return (odds * (1 / total)).astype(x.dtype)


def log_softmax(x, /, dim):
    x = as_floats(x)
    with quiet():
        total = np.logaddexp.reduce(x.astype(ADDED_IN[x.dtype]), axis=dim, keepdims=True)
        return (x - total).astype(x.dtype, copy=False)


def softmax_backward(p, g):
    p, g = np.asarray(p), np.asarray(g)
    jacobians = p[:, :, None] * (np.eye(p.shape[1]) - p[:, None, :])
    return (jacobians @ g[:, :, None])[:, :, 0]


def log_sigmoid(x):
    size = relu(x) + relu(-x)
    return (x - size) / 2 - softplus(-size)


def softmax_with_temperature(x, temperature):
    if temperature > 0:
        return softmax(x * temperature**-1, dim=x.ndim - 1)
    raise ValueError(f"a temperature of {temperature} divides by nothing good; it has to be positive")
