"""Chapter 05 by masks: what is wanted is a table of zeros and ones, or of probabilities."""


def mse_loss(x, target, reduction="mean"):
    if x.shape != target.shape:
        raise ValueError(f"mse_loss: {x.shape} and {target.shape} are different shapes")
    squares = (x - target) ** 2
    if reduction == "none":
        return squares
    if reduction not in ("mean", "sum"):
        raise ValueError(f"no reduction is called {reduction!r}")
    return squares.sum() / (squares.numel() if reduction == "mean" else 1)


def nll_loss(log_probabilities, target, weight=None, ignore_index=-100, reduction="mean"):
    labels, counted = class_ids(log_probabilities, target, ignore_index)
    at = 1 if log_probabilities.ndim > 1 else 0
    classes = log_probabilities.shape[at]
    here = np.moveaxis(np.arange(classes) == labels[..., None], -1, at)
    picked = where(Tensor(here), log_probabilities, 0.0).sum(dim=at)
    weights = (np.ones(classes) if weight is None else weight.numpy())[labels] * counted
    losses = -picked * Tensor(weights.astype(log_probabilities.dtype))
    if reduction == "mean":
        return losses.sum() / float(weights.sum())
    return losses.sum() if reduction == "sum" else losses


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    if label_smoothing < 0 or label_smoothing > 1:
        raise ValueError(f"label_smoothing is a share, not {label_smoothing}")
    at = 1 if x.ndim > 1 else 0
    log_p, classes = log_softmax(x, dim=at), x.shape[at]
    weights = np.ones(classes) if weight is None else class_weights(weight, classes)
    across = weights.reshape([classes if d == at else 1 for d in range(x.ndim)])
    if target.dtype.kind == "f" and target.shape == x.shape:
        wanted, divisor = target.numpy(), x.numel() // classes
    else:
        labels, counted = class_ids(x, target, ignore_index)
        wanted = np.moveaxis(np.eye(classes)[labels] * counted[..., None], -1, at)
        divisor = float((weights[labels] * counted).sum())
    counts = wanted.sum(axis=at, keepdims=True)
    wanted = ((1 - label_smoothing) * wanted + label_smoothing / classes * counts) * across
    losses = -(log_p * Tensor(wanted.astype(x.dtype))).sum(dim=at)
    if reduction == "mean":
        return losses.sum() / divisor
    return losses if reduction == "none" else losses.sum()


def binary_cross_entropy_with_logits(x, target, weight=None, reduction="mean", pos_weight=None):
    refuse_other_shape("binary_cross_entropy_with_logits", x, target)
    yes, no = softplus(-x) * target, softplus(x) * (1 - target)
    losses = no + (yes if pos_weight is None else yes * pos_weight)
    if weight is not None:
        losses = weight * losses
    return reduced(losses, reduction)


def slope(loss, x, eps=None):
    if eps is None:
        eps = 0.01 if x.dtype == np.float32 else 1e-6
    numbers, gradient = x.data.writable(), np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        kept = numbers[index]
        numbers[index] = kept + eps
        above = loss().item()
        numbers[index] = kept - eps
        below = loss().item()
        numbers[index] = kept
        gradient[index] = (above - below) / (eps + eps)
    return gradient


def cross_entropy_gradient(x, target):
    believed = softmax(x, dim=1).numpy().copy()
    believed[np.arange(len(believed)), target.numpy()] -= 1
    return Tensor(believed / len(believed))


def mse_gradient(x, target):
    return (x - target) * (2 / x.numel())


def descend(network, loss, rate, steps):
    history, parameters = [], list(network.parameters())
    while len(history) < steps:
        history.append(loss().item())
        slopes = [slope(loss, p) for p in parameters]
        for p, g in zip(parameters, slopes):
            p.data = p.numpy() - rate * g
    return history


def perplexity(x, target):
    return float(np.exp(cross_entropy(x, target).item()))


def hinge_loss(x, target):
    if x.shape != target.shape:
        raise ValueError(f"hinge_loss: {x.shape} and {target.shape}")
    return (1 - x * target).clip(min=0.0).mean()


def relative_error(a, b):
    difference, largest = np.max(np.abs(a - b)), np.max(np.maximum(np.abs(a), np.abs(b)))
    return 0.0 if largest == 0 else float(difference / largest)
