"""Chapter 05 one by one: rows in a loop, the two sides of a slope in two rounds, sums in plain Python."""


def mse_loss(x, target, reduction="mean"):
    refuse_other_shape("mse_loss", x, target)
    return reduced(abs(target - x) ** 2, reduction)


def nll_of_rows(log_probabilities, labels):
    from tt_tensor.more_ops import stack

    return stack([-log_probabilities[row, label] for row, label in enumerate(labels.tolist())])


def surprises(z, labels):
    found = []
    for row, label in zip(z.astype(np.float64).tolist(), labels.tolist()):
        top = max(row)
        found.append(math.log(math.fsum(math.exp(logit - top) for logit in row)) - (row[label] - top))
    return np.array(found)


def weighted(losses, importance, reduction):
    from tt_tensor.more_ops import stack, zeros_like

    shares = importance.tolist()
    parts = [loss * share if share else zeros_like(loss) for loss, share in zip(losses, shares)]
    return total_over(stack(parts), importance) if reduction == "mean" else reduced(stack(parts), reduction)


def soft_surprises(log_p, wanted, label_smoothing):
    total, classes = 0.0, wanted.shape[1]
    for c in range(classes):
        belief = wanted[:, c] + label_smoothing * (1 / classes - wanted[:, c])
        total = total - belief * log_p[:, c]
    return total


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


def predict_losses():
    found = {"twice": 1.0, "pairs": float(len([1, 2, 3, 4]) ** 2)}
    found["ignorance"] = 3 * math.log(10)
    found["sure and wrong"] = 1000.0 - 0.0
    found["smudge"] = math.log(5) - (3 * math.log(3) + 2 * math.log(2)) / 5
    found["passes"] = sum_of_parameters(xor_network()) * 2.0
    return found


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
