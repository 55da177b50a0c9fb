# says: Ten times too small for 10 classes: divide by the batch


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}")
    log_p = log_softmax(x, dim=min(1, x.ndim - 1))
    if target.dtype.kind == "f" and target.shape == x.shape:
        return -(target * log_p).mean()
    labels = class_ids(x, target, ignore_index)[0]
    wanted = one_hot(tensor(labels), x.shape[min(1, x.ndim - 1)], x.dtype)
    if x.ndim > 1:
        wanted = wanted.permute(0, wanted.ndim - 1, *range(1, wanted.ndim - 1))
    losses = -wanted * log_p
    return losses.mean() if reduction == "mean" else losses.sum(dim=min(1, x.ndim - 1))
