# says: pad with -inf


def max_pool(x, /, size, stride, padding, dilation):
    out = np.empty((len(x), *_places(x, size, stride, padding, dilation), x.shape[1]), x.dtype)
    for part, (first, *others) in _tapped(x, size, stride, padding, dilation, 0):
        out[part] = first
        for tap in others:
            out[part] = np.maximum(out[part], tap)
    return _channels_first(out)
