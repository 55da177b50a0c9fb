"""Chapter 05 by methods of tensors, by logsumexp, and by whole arrays put in place of others."""


def mse_loss(x, target, reduction="mean"):
    refuse_other_shape("mse_loss", target, x)
    return reduced((target - as_float(x, target)) ** 2, reduction)


def nll_of_rows(log_probabilities, labels):
    return 0 - log_probabilities[np.arange(labels.size), labels]


def surprises(z, labels):
    top = z.max(axis=1)
    low = z - top[:, None]
    gaps = low - low[np.arange(len(z)), labels][:, None]
    rest = np.exp(low).sum(axis=1, dtype=ADDED_IN[z.dtype])
    return np.log(rest) + np.take(gaps.reshape(-1), np.argmax(z, axis=1) + np.arange(len(z)) * z.shape[1])


def weighted(losses, importance, reduction):
    counts = importance != 0
    safe = where(Tensor(counts), losses, losses.new_zeros(1)) * Tensor(importance, losses.dtype)
    return safe if reduction == "none" else reduced(safe, reduction) if reduction != "mean" else total_over(
        safe, importance
    )


def soft_surprises(log_p, wanted, label_smoothing):
    sharp, even = -(wanted * log_p).sum(dim=1), -log_p.mean(dim=1)
    return sharp * (1 - label_smoothing) + even * label_smoothing


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


def descend(network, loss, rate, steps):
    history = []
    for _ in range(steps):
        history += [float(loss().numpy())]
        moved = {name: p.numpy() - rate * slope(loss, p) for name, p in network.named_parameters()}
        network.load_state_dict({**network.state_dict(), **{name: tensor(values) for name, values in moved.items()}})
    return history


def predict_losses():
    names = ["ignorance", "sure and wrong", "twice", "pairs", "smudge", "passes"]
    return dict(zip(names, [6.908, 1e3, 1, 16, 0.673, 34]))


def hinge_loss(x, target):
    refuse_other_shape("hinge_loss", x, target)
    margin = target * x
    return where(margin < 1, 1 - margin, 0.0).mean()


def relative_error(a, b):
    everything = np.abs(np.concatenate([np.ravel(a), np.ravel(b)]))
    return float(np.linalg.norm(np.ravel(a - b), np.inf) / (everything.max() or 1))
