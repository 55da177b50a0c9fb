"""Chapter 05 by methods of tensors, by logsumexp, and by whole arrays put in place of others."""


def mse_loss(x, target, reduction="mean"):
    refuse_other_shape("mse_loss", target, x)
    return reduced((target - as_float(x, target)) ** 2, reduction)


def nll_loss(log_probabilities, target, weight=None, ignore_index=-100, reduction="mean"):
    labels, counted = class_ids(log_probabilities, target, ignore_index)
    table = _rows(log_probabilities, 1) if log_probabilities.ndim > 1 else log_probabilities.reshape(1, -1)
    flat, counts = labels.reshape(-1), counted.reshape(-1)
    picked = table[np.arange(flat.size), flat]
    if weight is not None:
        counts = counts * weight.numpy()[flat]
    losses = (0 - picked) * from_numpy(counts.astype(log_probabilities.dtype))
    if reduction == "none":
        return losses.reshape(labels.shape)
    return losses.sum() if reduction == "sum" else losses.sum() / float(counts.sum())


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing = {label_smoothing} is outside of 0 to 1")
    at = min(1, x.ndim - 1)
    classes, total = x.shape[at], x.logsumexp(dim=at, keepdim=True)
    surprises = total - x
    per_class = np.ones(classes, x.dtype) if weight is None else class_weights(weight, classes).astype(x.dtype)
    weighted = surprises * _column(per_class, at, x.ndim)
    even = weighted.mean(dim=at)
    if target.dtype.kind == "f" and x.shape == target.shape:
        losses, divisor = (weighted * target).sum(dim=at), max(x.numel() // classes, 1)
    else:
        labels, counted = class_ids(x, target, ignore_index)
        share = Tensor(counted.astype(x.dtype))
        losses = gather(weighted, at, np.expand_dims(labels, at)).squeeze(at) * share
        even, divisor = even * share, float((per_class[labels] * counted).sum())
    losses = losses * (1 - label_smoothing) + even * label_smoothing
    return losses.sum() / divisor if reduction == "mean" else reduced(losses, reduction)


def binary_cross_entropy_with_logits(x, target, weight=None, reduction="mean", pos_weight=None):
    refuse_other_shape("binary_cross_entropy_with_logits", x, target)
    small = ((-abs(x)).exp() + 1).log()
    losses = relu(x) - x * target + small
    if pos_weight is not None:
        losses = losses + (pos_weight - 1) * target * (relu(-x) + small)
    return reduced(losses * (1.0 if weight is None else weight), reduction)


def slope(loss, x, eps=None):
    start = x.numpy().copy()
    eps = eps if eps is not None else {4: 1e-2, 8: 1e-6}[start.itemsize]
    moves = np.eye(start.size).reshape(-1, *start.shape) * eps

    def at(values):
        x.data = values
        return float(loss().numpy())

    gradient = np.array([at(start + move) - at(start - move) for move in moves]) / (2 * eps)
    x.data = start
    return gradient.reshape(start.shape)


def cross_entropy_gradient(x, target):
    rows, classes = x.shape
    true = np.eye(classes, dtype=x.dtype)[target.numpy()]
    return (log_softmax(x, dim=1).exp() - from_numpy(true)) * (1 / rows)


def mse_gradient(x, target):
    half = x.numel() / 2
    return x / half - target / half


def descend(network, loss, rate, steps):
    history = []
    for _ in range(steps):
        history += [float(loss().numpy())]
        moved = {name: p.numpy() - rate * slope(loss, p) for name, p in network.named_parameters()}
        network.load_state_dict({**network.state_dict(), **{name: tensor(values) for name, values in moved.items()}})
    return history


def perplexity(x, target):
    bits = cross_entropy(x, target).item() / np.log(2)
    return 2.0**bits


def hinge_loss(x, target):
    refuse_other_shape("hinge_loss", x, target)
    margin = target * x
    return where(margin < 1, 1 - margin, 0.0).mean()


def relative_error(a, b):
    everything = np.abs(np.concatenate([np.ravel(a), np.ravel(b)]))
    return float(np.linalg.norm(np.ravel(a - b), np.inf) / (everything.max() or 1))
