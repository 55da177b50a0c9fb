"""Chapter 03 by masks, by tanh, and by summed exponentials."""


def numeric_slope(function, x, distance=1e-6):
    x = np.array(x, dtype=float)
    right, left = function(x + distance), function(x - distance)
    return 0.5 * (right - left) / distance


def elu(x, /, alpha=1.0):
    x = as_floats(x)
    left = x < 0
    safe = np.where(left, x, 0).astype(x.dtype)
    return np.where(left, alpha * np.expm1(safe), x).astype(x.dtype)


def predict_far_out():
    return dict(zip("abcde", (float("nan"), 0, 0, float("-inf"), -200)))


def relu_slope(x):
    return 1.0 - (x <= 0) * 1.0


def sigmoid(x, /):
    return 0.5 * (1 + np.tanh(0.5 * as_floats(x)))


def gelu(x, /, approximate="none"):
    x = as_floats(x)
    if approximate == "none":
        return 0.5 * x * (1 + erf(x / math.sqrt(2)))
    if approximate != "tanh":
        raise ValueError(f"there is no approximation {approximate!r} of gelu: use 'none' or 'tanh'")
    near = np.clip(x, -10, 10)
    inner = math.sqrt(2 / math.pi) * (near + 0.044715 * near * near * near)
    return x / 2 + x / 2 * np.tanh(inner)


def softmax(x, /, dim):
    with np.errstate(all="ignore"):
        return np.exp(log_softmax.kernel(x, dim=dim))


def log_softmax(x, /, dim):
    x = as_floats(x)
    with np.errstate(all="ignore"):
        top = np.max(x, axis=dim, keepdims=True) if x.size else np.zeros((), x.dtype)
        y = x - top
        total = np.sum(np.exp(y), axis=dim, keepdims=True, dtype=np.float64)
        return (y - np.log(total)).astype(x.dtype)


def softmax_backward(p, g):
    rows = [(np.diag(q) - np.outer(q, q)) @ r for q, r in zip(np.asarray(p), np.asarray(g))]
    return np.array(rows)


def log_sigmoid(x):
    return x - softplus(x)


def softmax_with_temperature(x, temperature):
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: give a positive number")
    return log_softmax(x * (1 / temperature), dim=-1).exp()
