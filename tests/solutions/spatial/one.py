"""Chapter 09 by plain loops over few things, and NumPy for the rest."""


def seven_loops(x, weight):
    rows, columns = x.shape[2] - weight.shape[2] + 1, x.shape[3] - weight.shape[3] + 1
    out = np.zeros((x.shape[0], weight.shape[0], rows, columns), x.dtype)
    for n, o, r, s in np.ndindex(*out.shape):
        total = 0
        for c, i, j in np.ndindex(*weight.shape[1:]):
            total = total + weight[o, c, i, j] * x[n, c, r + i, s + j]
        out[n, o, r, s] = total
    return out


def conv_size(n, kernel, stride=1, padding=0, dilation=1):
    last_start = n + 2 * padding - ((kernel - 1) * dilation + 1)
    return last_start // stride + 1


def by_taps(x, weight):
    height, width = x.shape[2] - weight.shape[2] + 1, x.shape[3] - weight.shape[3] + 1
    out = np.zeros((len(x), len(weight), height, width), np.result_type(x, weight))
    for i, j in np.ndindex(*weight.shape[2:]):
        seen = x[:, :, i : i + height, j : j + width]
        out += np.einsum("nchw,oc->nohw", seen, weight[:, :, i, j])
    return out


def windows(x, size, stride, dilation):
    from numpy.lib.stride_tricks import as_strided

    n, height, width, channels = x.shape
    rows = (height - (size[0] - 1) * dilation[0] - 1) // stride[0] + 1
    columns = (width - (size[1] - 1) * dilation[1] - 1) // stride[1] + 1
    a, b, c, d = x.strides
    strides = (a, b * stride[0], c * stride[1], b * dilation[0], c * dilation[1], d)
    return as_strided(x, (n, rows, columns, *size, channels), strides)


def convolution(x, weight, /, *bias, stride, padding, dilation, groups):
    rows, columns = _places(x, weight.shape[2:], stride, padding, dilation)
    out = np.zeros((len(x), rows, columns, len(weight)), x.dtype)
    matrices = _matrices(weight, groups)
    each = len(weight) // groups
    for n, seen in enumerate(_columns(x, weight.shape[2:], stride, padding, dilation, groups)):
        for g in range(groups):
            out[n, :, :, g * each : (g + 1) * each] = (seen[g] @ matrices[g]).reshape(rows, columns, each)
    if bias:
        out += bias[0]
    return out.transpose(0, 3, 1, 2)


def weight_convolution(x, g, /, size, stride, padding, dilation, groups):
    detectors, channels = g.shape[1], x.shape[1] // groups
    each = detectors // groups
    share = np.zeros((detectors, channels, *size), g.dtype)
    for n, seen in enumerate(_columns(x, size, stride, padding, dilation, groups)):
        rows = g[n].transpose(1, 2, 0).reshape(-1, detectors)
        for i in range(groups):
            product = rows[:, i * each : (i + 1) * each].T @ seen[i]
            share[i * each : (i + 1) * each] += product.reshape(each, *size, channels).transpose(0, 3, 1, 2)
    return share


def turned(weight, groups):
    detectors = len(weight) // groups
    parts = []
    for g in range(groups):
        of_group = weight[g * detectors : (g + 1) * detectors]
        parts.append(np.flip(of_group, (2, 3)).transpose(1, 0, 2, 3))
    return np.concatenate(parts)


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    single = x.ndim == 3
    if single:
        x = x.unsqueeze(0)
    x = images("conv2d", x)
    refuse_misfits("conv2d", x.shape, weight.shape, bias, x.shape[1], weight.shape[1] * groups, groups)
    size, stride, dilation = weight.shape[2:], pair(stride, "stride"), pair(dilation, "dilation")
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        x, padding = same_padding(x, size, stride, dilation)
    else:
        padding = pair(padding, "padding", 0)
    refuse_too_small("conv2d", x, size, padding, dilation)
    where = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if bias is None:
        x, weight = one_dtype(x, weight)
        out = convolution(x, weight, **where)
    else:
        x, weight, bias = one_dtype(x, weight, bias)
        out = convolution(x, weight, bias, **where)
    return out.squeeze(0) if single else out


class Conv2d:
    def reset_parameters(self):
        bound = self.weight[0].numel() ** -0.5
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                parameter.copy_(generator().uniform(-bound, bound, size=parameter.shape))


def max_pool(x, /, size, stride, padding, dilation):
    rows, columns = _places(x, size, stride, padding, dilation)
    out = np.full((len(x), rows, columns, x.shape[1]), -np.inf, x.dtype)
    for tap in _taps(x, size, stride, padding, dilation, -np.inf):
        out = np.where(tap > out, tap, out)
    return out.transpose(0, 3, 1, 2)


def max_unpool(g, x, largest, /, size, stride, padding, dilation):
    (top, left), (height, width) = padding, x.shape[2:]
    best, give = largest.transpose(0, 2, 3, 1), g.transpose(0, 2, 3, 1)
    whole = np.zeros((len(x), height + 2 * top, width + 2 * left, x.shape[1]), g.dtype)
    given = np.zeros(best.shape, bool)
    places = _taps_of(windows(whole, size, stride, dilation))
    for tap, place in zip(_taps(x, size, stride, padding, dilation, -np.inf), places):
        wins = (tap == best) & ~given
        place += np.where(wins, give, 0)
        given |= wins
    return whole[:, top : top + height, left : left + width].transpose(0, 3, 1, 2)


class LeNet:
    def forward(self, x):
        x = self.features(x)
        x = x.reshape(x.shape[0], -1)
        for layer in (self.fc1, self.fc2):
            x = relu(layer(x))
        return self.fc3(x)


def receptive_field(layers):
    sees = 1
    for position, (kernel, _) in enumerate(layers):
        sees += (kernel - 1) * math.prod(stride for _, stride in layers[:position])
    return sees


def channel_moments(x):
    dims = (0, *range(2, x.ndim))
    mean = x.mean(axis=dims, dtype=np.float64)
    centred = x - mean.reshape(1, -1, *[1] * (x.ndim - 2))
    return mean.astype(x.dtype), (centred**2).mean(axis=dims).astype(x.dtype)


def normal_share(h, normal, slope, dims):
    left = h - tt.mean(h, dims, keepdim=True)
    return (left - normal * tt.mean(left * normal, dims, keepdim=True)) * slope


def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    channels = channels_of(x, running_mean, weight)
    if weight is None:
        weight = tt.ones(channels, dtype=x.dtype)
    if bias is None:
        bias = tt.zeros(channels, dtype=x.dtype)
    if training or running_mean is None:
        count = x.numel() // channels
        if count == 1:
            raise ValueError(f"a single value a channel, in a batch of shape {x.shape}, has no variance")
        mean, var = channel_moments(x.numpy())
        if running_mean is not None:
            for running, now in ((running_mean, mean), (running_var, var * count / (count - 1))):
                running.copy_(running.numpy() + momentum * (now - running.numpy()))
        return normalize_channels(x, weight, bias, mean=mean, var=var, eps=eps)
    shape = (1, channels, *[1] * (x.ndim - 2))
    slope = weight / (running_var + eps) ** 0.5
    return (x - running_mean.reshape(shape)) * slope.reshape(shape) + bias.reshape(shape)


def conv_weights(channels, detectors, kernel, groups=1):
    seen = channels // groups
    return kernel**2 * seen * detectors
