"""Chapter 03 by choosing between two formulas where one would overflow, and by loops over rows."""


def numeric_slope(function, x, distance=1e-6):
    points = np.stack([np.asarray(x, np.float64) + side * distance for side in (-1, 1)])
    return np.diff(function(points), axis=0)[0] / (distance + distance)


def elu(x, /, alpha=1.0):
    out = np.array(as_floats(x))
    left = out < 0
    out[left] = alpha * (np.exp(out[left]) - 1)
    return out


def predict_far_out():
    infinite, lost = math.inf, 0.0
    return {"a": infinite / infinite, "b": lost / 1, "c": 1 / infinite, "d": -infinite, "e": 0.0 - 200}


def relu_slope(x):
    return ((x > 0) & (x == x)) * 1.0


def sigmoid(x, /):
    x = as_floats(x)
    out = np.empty_like(x)
    right = x >= 0
    out[right] = 1 / (1 + np.exp(-x[right]))
    left = np.exp(x[~right])
    out[~right] = left / (1 + left)
    return out


def gelu(x, /, approximate="none"):
    known = {
        "none": lambda z: 0.5 * z * (1 + erf(z / math.sqrt(2))),
        "tanh": lambda z: z * sigmoid.kernel(2 * math.sqrt(2 / math.pi) * (z + 0.044715 * np.clip(z, -40, 40) ** 3)),
    }
    if approximate not in known:
        raise ValueError(f"approximate={approximate!r} is not one of {list(known)}")
    return known[approximate](as_floats(x))


def softmax(x, /, dim):
    x = np.moveaxis(as_floats(x), dim, -1)
    with np.errstate(all="ignore"):
        e = np.exp(x - (x.max(-1)[..., None] if x.shape[-1] else np.zeros((), x.dtype)))
        p = (e / e.sum(-1, dtype=np.float64)[..., None]).astype(x.dtype)
    return np.moveaxis(p, -1, dim)


def log_softmax(x, /, dim):
    x = as_floats(x)
    with np.errstate(all="ignore"):
        highest = np.amax(x, axis=dim, keepdims=True, initial=-np.inf)
        total = np.log(np.exp(x - highest).sum(axis=dim, keepdims=True, dtype=ADDED_IN[x.dtype]))
        return ((x - highest) - total).astype(x.dtype)


def softmax_backward(p, g):
    return p * g - p * np.einsum("nc,nc->n", p, g)[:, None]


def log_sigmoid(x):
    values = x.numpy()
    return tensor(-np.logaddexp(np.zeros((), values.dtype), -values))


def softmax_with_temperature(x, temperature):
    if temperature <= 0:
        raise ValueError(f"{temperature} is no temperature: it has to be above 0")
    e = ((x - x.amax(dim=-1, keepdim=True)) / temperature).exp()
    return e / e.sum(dim=-1, keepdim=True)
