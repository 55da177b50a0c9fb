# says: pad with -inf


def max_pool(x, /, size, stride, padding, dilation):
    out, *others = taps(padded(x, padding), size, stride, dilation)
    for tap in others:
        out = np.maximum(out, tap)
    return channels_first(out)
