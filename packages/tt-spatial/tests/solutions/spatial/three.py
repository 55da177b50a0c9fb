"""Chapter 09 by tensordot, by padded copies, and by sums over taps."""


def seven_loops(x, weight):
    kh, kw = weight.shape[-2:]
    out = np.zeros((x.shape[0], weight.shape[0], x.shape[2] - kh + 1, x.shape[3] - kw + 1), x.dtype)
    row = 0
    while row < out.shape[2]:
        for column in range(out.shape[3]):
            for n, image in enumerate(x):
                for o, filter in enumerate(weight):
                    for c, kernel in enumerate(filter):
                        for i in range(kh):
                            for j in range(kw):
                                out[n, o, row, column] += kernel[i, j] * image[c, row + i, column + j]
        row += 1
    return out


def conv_size(n, kernel, stride=1, padding=0, dilation=1):
    room = n + padding + padding - dilation * kernel + dilation - 1
    return math.floor(room / stride) + 1


def by_taps(x, weight):
    filters, _, kh, kw = weight.shape
    height, width = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    out = np.zeros((filters, len(x), height, width), np.result_type(x, weight))
    for i in range(kh):
        for j in range(kw):
            out += np.tensordot(weight[:, :, i, j], x[:, :, i : i + height, j : j + width], axes=(1, 1))
    return out.swapaxes(0, 1)


def dense_windows(x, size, stride):
    seen = sliding_window_view(x, (1, *size, 1), writeable=x.flags.writeable)
    return seen[:, :: stride[0], :: stride[1], :, 0, :, :, 0].transpose(0, 1, 2, 4, 5, 3)


def convolution(x, weight, /, *bias, stride, padding, dilation, groups):
    rows, columns = _output_size(x, weight.shape[2:], stride, padding, dilation)
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


def gradients_by_taps(x, weight, g):
    kh, kw = weight.shape[2:]
    of_x = x * 0
    for row in range(g.shape[2]):
        for column in range(g.shape[3]):
            handed_out = np.einsum("no,ocij->ncij", g[:, :, row, column], weight)
            of_x[:, :, row : row + kh, column : column + kw] += handed_out
    seen = sliding_window_view(x, (kh, kw), axis=(2, 3))
    return of_x, np.einsum("nors,ncrsij->ocij", g, seen)


def weight_convolution(x, g, /, size, stride, padding, dilation, groups):
    seen = np.stack(list(_im2col(x, size, stride, padding, dilation, groups)))
    shares = np.stack([_by_group(image, groups) for image in g.transpose(0, 2, 3, 1)])
    total = np.einsum("ngpk,ngpo->gok", seen, shares, optimize=True)
    return total.reshape(g.shape[1], *size, x.shape[1] // groups).transpose(0, 3, 1, 2).copy()


def flip_kernels(weight, groups):
    parts = np.split(weight, groups)
    parts = [np.swapaxes(part, 0, 1)[..., ::-1, ::-1] for part in parts]
    return np.vstack(parts)


class Conv2d:
    def reset_parameters(self):
        filter = math.prod(self.weight.shape) / self.out_channels
        limit = filter**-0.5
        self.weight.copy_(generator().uniform(-limit, limit, self.weight.shape))
        if self.bias is not None:
            self.bias.copy_(generator().uniform(-limit, limit, self.bias.shape))


def max_pool(x, /, size, stride, padding, dilation):
    best = np.fmax.reduce(taps(padded(x, padding, -np.inf), size, stride, dilation))
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


class Anywhere:
    def forward(self, x):
        for layer in (self.conv1, self.conv2):
            x = relu(layer(x))
        x = relu(self.conv3(max_pool2d(x, 2)))
        found = max_pool2d(x, x.shape[2:])
        return self.fc(found.reshape(len(found), -1))


class LeNet:
    def features(self, x):
        first = self.conv1(x).relu()
        second = self.conv2(max_pool2d(first, (2, 2))).relu()
        return max_pool2d(second, (2, 2))

    def forward(self, x):
        flat = self.features(x).flatten(1)
        return self.fc3(relu(self.fc2(relu(self.fc1(flat)))))


def predict_lenet():
    return dict(
        [("conv1", (6, 28, 28)), ("pool1", (6, 14, 14)), ("conv2", (16, 10, 10)), ("pool2", (16, 5, 5))],
        **{"most multiply-adds": "conv2", "most weights": "fc1"},
    )


def receptive_field(layers):
    first, last, step = 0, 0, 1
    for kernel, stride in layers:
        last = last + step * (kernel - 1)
        step = step * stride
    return last - first + 1
