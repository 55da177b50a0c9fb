"""Chapter 09 by counting, by einsum, and by index arrays."""


def seven_loops(x, weight):
    n, c, height, width = x.shape
    o, _, kh, kw = weight.shape
    rows, columns = height - kh + 1, width - kw + 1
    out = [[[[0.0] * columns for _ in range(rows)] for _ in range(o)] for _ in range(n)]
    for image in range(n):
        for filter in range(o):
            for channel in range(c):
                for i in range(kh):
                    for j in range(kw):
                        w = weight[filter, channel, i, j]
                        for row in range(rows):
                            for column in range(columns):
                                out[image][filter][row][column] += w * x[image, channel, i + row, j + column]
    return np.array(out, x.dtype).reshape(n, o, rows, columns)


def conv_size(n, kernel, stride=1, padding=0, dilation=1):
    reach = dilation * (kernel - 1) + 1
    return len(range(0, n + 2 * padding - reach + 1, stride))


def by_taps(x, weight):
    kh, kw = weight.shape[2:]
    last = np.moveaxis(x, 1, -1)
    rows, columns = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    taps = [last[:, i : i + rows, j : j + columns] @ weight[:, :, i, j].T for i in range(kh) for j in range(kw)]
    return np.moveaxis(np.sum(taps, axis=0), -1, 1)


def dense_windows(x, size, stride):
    view = x
    for axis in (1, 2):
        view = sliding_window_view(view, size[axis - 1], axis=axis, writeable=x.flags.writeable)
    return np.moveaxis(view[:, :: stride[0], :: stride[1]], 3, -1)


def convolution(x, weight, /, *bias, stride, padding, dilation, groups):
    (top, left), size = padding, weight.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left))).transpose(0, 2, 3, 1)
    seen = windows(padded, size, stride, dilation)
    channels, filters = x.shape[1] // groups, len(weight) // groups
    maps = [
        np.einsum(
            "nrsijc,ocij->nrso", seen[..., g * channels : (g + 1) * channels],
            weight[g * filters : (g + 1) * filters], optimize=True,
        )
        for g in range(groups)
    ]
    out = np.concatenate(maps, axis=-1)
    for b in bias:
        out = out + b
    return np.ascontiguousarray(out).transpose(0, 3, 1, 2)


def gradients_by_taps(x, weight, g):
    of_x = np.zeros(x.shape, x.dtype)
    of_weight = np.empty(weight.shape, weight.dtype)
    for r, s in np.ndindex(*weight.shape[2:]):
        under = x[:, :, r : r + g.shape[2], s : s + g.shape[3]]
        of_weight[:, :, r, s] = np.tensordot(g, under, axes=((0, 2, 3), (0, 2, 3)))
        share = np.tensordot(g, weight[:, :, r, s], axes=(1, 0))
        of_x[:, :, r : r + g.shape[2], s : s + g.shape[3]] += share.transpose(0, 3, 1, 2)
    return of_x, of_weight


def weight_convolution(x, g, /, size, stride, padding, dilation, groups):
    (top, left), channels, filters = padding, x.shape[1] // groups, g.shape[1] // groups
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    rows, columns = g.shape[2:]
    share = np.zeros((g.shape[1], channels, *size), g.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            down = slice(i * dilation[0], i * dilation[0] + (rows - 1) * stride[0] + 1, stride[0])
            across = slice(j * dilation[1], j * dilation[1] + (columns - 1) * stride[1] + 1, stride[1])
            seen = padded[:, :, down, across]
            for k in range(groups):
                mine = slice(k * filters, (k + 1) * filters)
                share[mine, :, i, j] = np.einsum(
                    "nors,ncrs->oc", g[:, mine], seen[:, k * channels : (k + 1) * channels]
                )
    return share


def flip_kernels(weight, groups):
    filters, channels, kh, kw = weight.shape
    each = filters // groups
    out = np.empty((groups * channels, each, kh, kw), weight.dtype)
    for filter in range(filters):
        group, inside = divmod(filter, each)
        for channel in range(channels):
            out[group * channels + channel, inside] = np.rot90(weight[filter, channel], 2)
    return out


class Conv2d:
    def reset_parameters(self):
        fan_in = self.in_channels // self.groups * self.kernel_size[0] * self.kernel_size[1]
        for parameter in self.parameters():
            drawn = generator().random(parameter.shape) * 2 - 1
            parameter.copy_(drawn / math.sqrt(fan_in))


def max_pool(x, /, size, stride, padding, dilation):
    (top, left) = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)), constant_values=-np.inf)
    seen = windows(padded.transpose(0, 2, 3, 1), size, stride, dilation)
    return seen.max(axis=(3, 4)).transpose(0, 3, 1, 2)


def max_unpool(g, x, largest, /, size, stride, padding, dilation):
    (top, left), (n, channels, height, width) = padding, x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)), constant_values=-np.inf)
    seen = windows(padded.transpose(0, 2, 3, 1), size, stride, dilation)
    rows, columns = seen.shape[1:3]
    flat = seen.transpose(0, 1, 2, 5, 3, 4).reshape(n, rows, columns, channels, -1)
    first = flat.argmax(axis=-1)
    i, j = np.divmod(first, size[1])
    image, row, column, channel = np.indices(first.shape)
    out = np.zeros((n, channels, height + 2 * top, width + 2 * left), g.dtype)
    down, across = row * stride[0] + i * dilation[0], column * stride[1] + j * dilation[1]
    np.add.at(out, (image, channel, down, across), g.transpose(0, 2, 3, 1))
    return out[:, :, top : top + height, left : left + width]


class Anywhere:
    def forward(self, x):
        maps = self.conv2(self.conv1(x).relu()).relu()
        maps = self.conv3(max_pool2d(maps, kernel_size=2))
        return self.fc(maps.amax((2, 3)).relu())


class LeNet:
    def features(self, x):
        maps = relu(max_pool2d(self.conv1(x), 2))
        return relu(max_pool2d(self.conv2(maps), 2))

    def forward(self, x):
        hidden = relu(self.fc1(tt.reshape(self.features(x), shape=(len(x), -1))))
        hidden = relu(self.fc2(hidden))
        return self.fc3(hidden)


def predict_lenet():
    sizes = [28 + 2 * 2 - 4, 28 // 2, 14 - 4, 10 // 2]
    names, maps = ["conv1", "pool1", "conv2", "pool2"], [6, 6, 16, 16]
    expected = {name: (count, size, size) for name, count, size in zip(names, maps, sizes)}
    expected["most weights"], expected["most multiply-adds"] = "fc1", "conv2"
    return expected


def receptive_field(layers):
    sees = 1
    for kernel, stride in reversed(layers):
        sees = (sees - 1) * stride + kernel
    return sees
