"""Chapter 05 one by one: rows in a loop, the two sides of a slope in two rounds, sums in plain Python."""


def mse_loss(x, target, reduction="mean"):
    refuse_other_shape("mse_loss", x, target)
    return reduced(abs(target - x) ** 2, reduction)


def nll_loss(log_probabilities, target, weight=None, ignore_index=-100, reduction="mean"):
    from tt_tensor.more_ops import stack

    labels, counted = class_ids(log_probabilities, target, ignore_index)
    rows = _rows(log_probabilities, 1) if log_probabilities.ndim > 1 else log_probabilities.reshape(1, -1)
    losses, importance = [], 0.0
    for row, (label, counts) in enumerate(zip(labels.reshape(-1).tolist(), counted.reshape(-1).tolist())):
        share = (1.0 if weight is None else weight.tolist()[label]) if counts else 0.0
        losses.append(rows[row, label] * -share)
        importance += share
    if reduction == "none":
        return stack(losses).reshape(labels.shape)
    return stack(losses).sum() / (importance if reduction == "mean" else 1)


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{label_smoothing} is not between 0 and 1")
    log_p = log_softmax(x, dim=min(1, x.ndim - 1))
    if target.dtype.kind == "f" and target.shape == x.shape:
        return _soft_cross_entropy(log_p, target, weight, reduction, label_smoothing, min(1, x.ndim - 1))
    hard = nll_loss(log_p, target, weight, ignore_index, reduction)
    if not label_smoothing:
        return hard
    labels, counted = class_ids(x, target, ignore_index)
    even = _uniform_surprise(log_p, labels, counted, weight, reduction, min(1, x.ndim - 1))
    return hard + label_smoothing * (even - hard)


def binary_cross_entropy_with_logits(x, target, weight=None, reduction="mean", pos_weight=None):
    from tt_tensor.more_ops import stack, zeros_like

    refuse_other_shape("binary_cross_entropy_with_logits", x, target)
    both = log_softmax(stack([zeros_like(x), x], dim=-1), dim=-1)
    yes = both[..., 1] if pos_weight is None else both[..., 1] * pos_weight
    losses = -(target * yes) - (1 - target) * both[..., 0]
    if weight is not None:
        losses = losses * weight
    return reduced(losses, reduction)


def slope(loss, x, eps=None):
    step = eps or (1e-6 if x.dtype == np.float64 else 1e-2)
    numbers = x.data.writable()
    sides = []
    for move in (step, -step):
        losses = []
        for place in np.ndindex(*numbers.shape):
            old = numbers[place]
            try:
                numbers[place] = old + move
                losses.append(loss().item())
            finally:
                numbers[place] = old
        sides.append(np.reshape(losses, numbers.shape))
    return (sides[0] - sides[1]) / (2 * step)


def cross_entropy_gradient(x, target):
    from tt_tensor.more_ops import stack

    rows = []
    for logits, label in zip(x, target.tolist()):
        true = np.zeros(len(logits), x.dtype)
        true[label] = 1
        rows.append((softmax(logits, dim=0) - from_numpy(true)) / len(x))
    return stack(rows)


def mse_gradient(x, target):
    count = 1
    for size in x.shape:
        count *= size
    difference = x - target
    return (difference + difference) / count


def descend(network, loss, rate, steps):
    if steps == 0:
        return []
    before = loss().item()
    corrections = []
    for p in network.parameters():
        corrections.append((p.data.writable(), rate * slope(loss, p)))
    for numbers, correction in corrections:
        numbers[...] -= correction
    return [before, *descend(network, loss, rate, steps - 1)]


def perplexity(x, target):
    surprises = nll_loss(log_softmax(x, dim=1), target, reduction="none").tolist()
    return np.exp(1) ** float(np.mean(surprises))


def hinge_loss(x, target):
    refuse_other_shape("hinge_loss", x, target)
    missing = 1 - target * x
    return ((missing + abs(missing)) / 2).mean()


def relative_error(a, b):
    difference = largest = 0.0
    for one, other in zip(np.ravel(a).tolist(), np.ravel(b).tolist()):
        sizes = sorted((-one, one, -other, other))
        largest = sizes[-1] if sizes[-1] > largest else largest
        distance = one - other if one > other else other - one
        difference = distance if distance > difference else difference
    return difference / largest if largest else 0.0
