# says: pad with -inf


def max_pool(x, /, size, stride, padding, dilation):
    taps = _taps(x, size, stride, padding, dilation, 0)
    out = taps[0]
    for tap in taps[1:]:
        out = np.maximum(out, tap)
    return channels_first(out)
