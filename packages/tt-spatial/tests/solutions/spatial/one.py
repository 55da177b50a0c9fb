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


def dense_windows(x, size, stride):
    from numpy.lib.stride_tricks import as_strided

    n, height, width, channels = x.shape
    rows, columns = ((pixels - k) // step + 1 for pixels, k, step in zip((height, width), size, stride))
    a, b, c, d = x.strides
    return as_strided(x, (n, rows, columns, *size, channels), (a, b * stride[0], c * stride[1], b, c, d))


def convolution(x, weight, /, *bias, stride, padding, dilation, groups):
    rows, columns = _output_size(x, weight.shape[2:], stride, padding, dilation)
    out = np.zeros((len(x), rows, columns, len(weight)), x.dtype)
    matrices = _matrices(weight, groups)
    each = len(weight) // groups
    for n, seen in enumerate(_im2col(x, weight.shape[2:], stride, padding, dilation, groups)):
        for g in range(groups):
            out[n, :, :, g * each : (g + 1) * each] = (seen[g] @ matrices[g]).reshape(rows, columns, each)
    if bias:
        out += bias[0]
    return out.transpose(0, 3, 1, 2)


def gradients_by_taps(x, weight, g):
    of_x, of_weight = np.zeros(x.shape), np.zeros(weight.shape)
    for o, c, i, j in np.ndindex(*weight.shape):
        place = (slice(None), c, slice(i, i + g.shape[2]), slice(j, j + g.shape[3]))
        of_x[place] += weight[o, c, i, j] * g[:, o]
        of_weight[o, c, i, j] = (x[place] * g[:, o]).sum()
    return of_x, of_weight


def weight_convolution(x, g, /, size, stride, padding, dilation, groups):
    filters, channels = g.shape[1], x.shape[1] // groups
    each = filters // groups
    share = np.zeros((filters, channels, *size), g.dtype)
    for n, seen in enumerate(_im2col(x, size, stride, padding, dilation, groups)):
        rows = g[n].transpose(1, 2, 0).reshape(-1, filters)
        for i in range(groups):
            product = rows[:, i * each : (i + 1) * each].T @ seen[i]
            share[i * each : (i + 1) * each] += product.reshape(each, *size, channels).transpose(0, 3, 1, 2)
    return share


def flip_kernels(weight, groups):
    filters = len(weight) // groups
    parts = []
    for g in range(groups):
        of_group = weight[g * filters : (g + 1) * filters]
        parts.append(np.flip(of_group, (2, 3)).transpose(1, 0, 2, 3))
    return np.concatenate(parts)


class Conv2d:
    def reset_parameters(self):
        bound = self.weight[0].numel() ** -0.5
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                parameter.copy_(generator().uniform(-bound, bound, size=parameter.shape))


def max_pool(x, /, size, stride, padding, dilation):
    rows, columns = _output_size(x, size, stride, padding, dilation)
    out = np.full((len(x), rows, columns, x.shape[1]), -np.inf, x.dtype)
    for tap in taps(padded(x, padding, -np.inf), size, stride, dilation):
        out = np.where(tap > out, tap, out)
    return out.transpose(0, 3, 1, 2)


def max_unpool(g, x, largest, /, size, stride, padding, dilation):
    (top, left), (height, width) = padding, x.shape[2:]
    best, give = largest.transpose(0, 2, 3, 1), g.transpose(0, 2, 3, 1)
    whole = np.zeros((len(x), height + 2 * top, width + 2 * left, x.shape[1]), g.dtype)
    given = np.zeros(best.shape, bool)
    places = taps(whole, size, stride, dilation)
    for tap, place in zip(taps(padded(x, padding, -np.inf), size, stride, dilation), places):
        wins = (tap == best) & ~given
        place += np.where(wins, give, 0)
        given |= wins
    return whole[:, top : top + height, left : left + width].transpose(0, 3, 1, 2)


class Anywhere:
    def forward(self, x):
        x = relu(self.conv1(x))
        x = max_pool2d(relu(self.conv2(x)), 2)
        x = relu(self.conv3(x)).flatten(2)
        return self.fc(tt.amax(x, dim=2))


class LeNet:
    def features(self, x):
        for layer in (self.conv1, self.conv2):
            x = max_pool2d(relu(layer(x)), kernel_size=2)
        return x

    def forward(self, x):
        x = self.features(x)
        x = x.reshape(x.shape[0], -1)
        for layer in (self.fc1, self.fc2):
            x = relu(layer(x))
        return self.fc3(x)


def predict_lenet():
    expected = {"most weights": "fc1", "most multiply-adds": "conv2"}
    pixels, maps = 28, {"1": (6, 2), "2": (16, 0)}
    for number, (count, padding) in maps.items():
        pixels = conv_size(pixels, 5, padding=padding)
        expected["conv" + number] = (count, pixels, pixels)
        pixels //= 2
        expected["pool" + number] = (count, pixels, pixels)
    return expected


def receptive_field(layers):
    sees = 1
    for position, (kernel, _) in enumerate(layers):
        sees += (kernel - 1) * math.prod(stride for _, stride in layers[:position])
    return sees
