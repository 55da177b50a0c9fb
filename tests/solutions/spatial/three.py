"""Chapter 09 by tensordot, by padded copies, and by sums over taps."""


def seven_loops(x, weight):
    kh, kw = weight.shape[-2:]
    out = np.zeros((x.shape[0], weight.shape[0], x.shape[2] - kh + 1, x.shape[3] - kw + 1), x.dtype)
    row = 0
    while row < out.shape[2]:
        for column in range(out.shape[3]):
            for n, image in enumerate(x):
                for o, detector in enumerate(weight):
                    for c, kernel in enumerate(detector):
                        for i in range(kh):
                            for j in range(kw):
                                out[n, o, row, column] += kernel[i, j] * image[c, row + i, column + j]
        row += 1
    return out


def conv_size(n, kernel, stride=1, padding=0, dilation=1):
    room = n + padding + padding - dilation * kernel + dilation - 1
    return math.floor(room / stride) + 1


def by_taps(x, weight):
    detectors, _, kh, kw = weight.shape
    height, width = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    out = np.zeros((detectors, len(x), height, width), np.result_type(x, weight))
    for i in range(kh):
        for j in range(kw):
            out += np.tensordot(weight[:, :, i, j], x[:, :, i : i + height, j : j + width], axes=(1, 1))
    return out.swapaxes(0, 1)


def windows(x, size, stride, dilation):
    def along(array, axis, k, s, d):
        view = sliding_window_view(array, d * (k - 1) + 1, axis=axis, writeable=array.flags.writeable)
        return view[..., ::d].swapaxes(0, axis)[::s].swapaxes(0, axis)

    view = along(x, 1, size[0], stride[0], dilation[0])
    view = along(view, 2, size[1], stride[1], dilation[1])
    return view.transpose(0, 1, 2, 4, 5, 3)


def convolution(x, weight, /, *bias, stride, padding, dilation, groups):
    rows, columns = _places(x, weight.shape[2:], stride, padding, dilation)
    wide = np.zeros((len(x), x.shape[1], x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1]), x.dtype)
    wide[:, :, padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]] = x
    out = np.zeros((groups, len(weight) // groups, len(x), rows, columns), x.dtype)
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    channels = weight.shape[1]
    for i, j in np.ndindex(*weight.shape[2:]):
        first = (i * dilation[0], j * dilation[1])
        seen = wide[:, :, first[0] :: stride[0], first[1] :: stride[1]][:, :, :rows, :columns]
        for g in range(groups):
            mine = seen[:, g * channels : (g + 1) * channels]
            out[g] += np.tensordot(by_group[g, :, :, i, j], mine, axes=(1, 1))
    out = out.reshape(len(weight), len(x), rows, columns).swapaxes(0, 1)
    return out + bias[0].reshape(-1, 1, 1) if bias else out


def weight_convolution(x, g, /, size, stride, padding, dilation, groups):
    seen = np.stack(list(_columns(x, size, stride, padding, dilation, groups)))
    shares = np.stack([_by_group(image, groups) for image in g.transpose(0, 2, 3, 1)])
    total = np.einsum("ngpk,ngpo->gok", seen, shares, optimize=True)
    return total.reshape(g.shape[1], *size, x.shape[1] // groups).transpose(0, 3, 1, 2).copy()


def turned(weight, groups):
    parts = np.split(weight, groups)
    parts = [np.swapaxes(part, 0, 1)[..., ::-1, ::-1] for part in parts]
    return np.vstack(parts)


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    if x.ndim == 3:
        image = x.reshape(1, *x.shape)
        out = conv2d(image, weight, bias, stride, padding, dilation, groups)
        return out.reshape(*out.shape[1:])
    images("conv2d", x)
    channels = weight.shape[1] * groups
    refuse_misfits("conv2d", x.shape, weight.shape, bias, x.shape[1], channels, groups)
    where = {"stride": pair(stride, "stride"), "dilation": pair(dilation, "dilation")}
    size = weight.shape[2], weight.shape[3]
    if padding == "same":
        x, where["padding"] = same_padding(x, size, where["stride"], where["dilation"])
    else:
        where["padding"] = (0, 0) if padding == "valid" else pair(padding, "padding", least=0)
    refuse_too_small("conv2d", x, size, where["padding"], where["dilation"])
    inputs = one_dtype(x, weight) if bias is None else one_dtype(x, weight, bias)
    return convolution(*inputs, **where, groups=groups)


class Conv2d:
    def reset_parameters(self):
        detector = math.prod(self.weight.shape) / self.out_channels
        limit = detector**-0.5
        self.weight.copy_(generator().uniform(-limit, limit, self.weight.shape))
        if self.bias is not None:
            self.bias.copy_(generator().uniform(-limit, limit, self.bias.shape))


def max_pool(x, /, size, stride, padding, dilation):
    best = np.fmax.reduce(_taps(x, size, stride, padding, dilation, -np.inf))
    return best.transpose(0, 3, 1, 2)


def max_unpool(g, x, largest, /, size, stride, padding, dilation):
    (top, left), (n, channels, height, width) = padding, x.shape
    wide = np.full((n, channels, height + 2 * top, width + 2 * left), -np.inf, x.dtype)
    wide[:, :, top : top + height, left : left + width] = x
    out, left_over = np.zeros(wide.shape, g.dtype), g.copy()
    rows, columns = g.shape[2:]
    for i, j in np.ndindex(*size):
        down = slice(i * dilation[0], i * dilation[0] + (rows - 1) * stride[0] + 1, stride[0])
        across = slice(j * dilation[1], j * dilation[1] + (columns - 1) * stride[1] + 1, stride[1])
        wins = wide[:, :, down, across] == largest
        out[:, :, down, across] += np.where(wins, left_over, 0)
        left_over = np.where(wins, 0, left_over)
    return out[:, :, top : top + height, left : left + width]


class LeNet:
    def forward(self, x):
        flat = self.features(x).flatten(1)
        return self.fc3(relu(self.fc2(relu(self.fc1(flat)))))


def receptive_field(layers):
    first, last, step = 0, 0, 1
    for kernel, stride in layers:
        last = last + step * (kernel - 1)
        step = step * stride
    return last - first + 1


def channel_moments(x):
    means, variances = [], []
    for channel in range(x.shape[1]):
        values = x[:, channel].astype(np.float64)
        means.append(values.mean())
        variances.append(values.var())
    return np.array(means, x.dtype), np.array(variances, x.dtype)


def normal_share(h, normal, slope, dims):
    count = tt.sum(h * 0 + 1, dims, keepdim=True)
    common = tt.sum(h, dims, keepdim=True) + normal * tt.sum(h * normal, dims, keepdim=True)
    return slope * (h - common / count)


def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    channels = channels_of(x, running_mean, weight)
    ones, zeros = tt.ones(channels, dtype=x.dtype), tt.zeros(channels, dtype=x.dtype)
    weight, bias = ones if weight is None else weight, zeros if bias is None else bias
    along = tuple(channels if d == 1 else 1 for d in range(x.ndim))
    if running_mean is not None and not training:
        normal = (x - running_mean.reshape(along)) / ((running_var + eps) ** 0.5).reshape(along)
        return normal * weight.reshape(along) + bias.reshape(along)
    count = math.prod(x.shape) // channels
    if count <= 1:
        raise ValueError(f"batch_norm: {x.shape} has one value a channel, which is no batch to learn from")
    mean, var = channel_moments(x.numpy())
    if running_mean is not None:
        moved = {"mean": (running_mean, mean), "var": (running_var, var * count / (count - 1))}
        for running, batch in moved.values():
            running.copy_(running.numpy() * (1 - momentum) + batch * momentum)
    return normalize_channels(x, weight, bias, eps=eps, mean=mean, var=var)


def conv_weights(channels, detectors, kernel, groups=1):
    return channels * detectors * kernel**2 // groups
