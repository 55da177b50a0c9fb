"""Chapter 17 number by number where that is bearable, and by tables of points elsewhere."""


def to_bfloat16(x):
    x = np.asarray(x, np.float32)
    halves = np.ascontiguousarray(x.reshape(-1)).view(np.uint16).reshape(-1, 2)
    low, high = halves[:, 0].astype(np.int64), halves[:, 1].astype(np.int64)
    high += np.where(low == 0x8000, high & 1, low > 0x8000)
    return np.where(np.isnan(x.reshape(-1)), 0x7FC0, high).astype(np.uint16).reshape(x.shape)


def from_bfloat16(bits):
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)


def symmetric_scale(x, bits=8, dim=None):
    sizes = np.sqrt(np.square(np.asarray(x, np.float64)))
    top = np.amax(sizes, axis=dim, keepdims=dim is not None)
    top = top + (top == 0) * (2 ** (bits - 1) - 1)
    return np.float32(top / (2 ** (bits - 1) - 1)) if dim is None else (top / (2 ** (bits - 1) - 1)).astype(np.float32)


def quantize(x, scale, zero_point=0, low=-127, high=127):
    q = np.around(x / np.asarray(scale)) + np.asarray(zero_point)
    q = np.where(q > high, high, q)
    q = np.where(q < low, low, q)
    return q.astype("u1" if low == 0 else "i1")


def dequantize(q, scale, zero_point=0):
    from_zero = q.astype(np.int32) - int(zero_point)
    return from_zero.astype(np.float32) * np.asarray(scale, np.float32)


def expected_error(x, scale):
    return sum(abs(v) for v in x) * scale / 2, scale * math.sqrt(sum(v * v for v in x) / 12)


def two_in_a_byte(q):
    first, second = np.split(q.astype(np.uint8), 2, axis=-1)
    return np.add(first, np.multiply(second, 16, dtype=np.uint8), dtype=np.uint8)


def one_by_one(packed):
    table = np.arange(256, dtype=np.uint8)
    lower, upper = table % 16, table // 16
    return np.concatenate((lower[packed], upper[packed]), axis=packed.ndim - 1)


def blocks_of(x, kind):
    rest = x.shape[-1] % 32
    if rest:
        raise ValueError(f"a row of {x.shape[-1]} is no multiple of 32")
    rows = x.astype(np.float32).reshape(-1, 32)
    out = np.zeros(len(rows), BLOCKS[kind])
    for target, row in zip(out, rows):
        if kind == "q4_1":
            bottom, step = row.min(), (row.max() - row.min()) / np.float32(15)
            shifted = (row - bottom) * (np.float32(1) / step if step else np.float32(0)) + np.float32(0.5)
            target["m"], target["q"] = bottom, two_in_a_byte(shifted.astype(int).clip(0, 15))
        elif kind == "q4_0":
            step = row[np.argmax(np.abs(row))] / np.float32(-8)
            inverse = np.float32(1) / step if step else np.float32(0)
            target["q"] = two_in_a_byte((row.astype(float) * float(inverse) + 8.5).astype(int).clip(0, 15))
        else:
            step = np.abs(row).max() / np.float32(127)
            scaled = row * (np.float32(1) / step if step else np.float32(0))
            target["q"] = (scaled + np.where(scaled < 0, np.float32(-0.5), np.float32(0.5))).astype(int)
        target["d"] = step
    return out.reshape(*x.shape[:-1], -1)


def numbers_of(blocks):
    flat = blocks.reshape(-1)
    rows = np.empty((len(flat), 32), np.float32)
    for row, block in zip(rows, flat):
        d = np.float32(block["d"])
        if block["q"].size == 32:
            row[:] = block["q"].astype(np.float32) * d
        else:
            q = one_by_one(block["q"]).astype(np.float32)
            row[:] = q * d + np.float32(block["m"]) if "m" in block.dtype.names else (q - 8) * d
    return rows.reshape(*blocks.shape[:-1], 32 * blocks.shape[-1])


def packed_product(x, data, /, kind):
    out = np.zeros((len(data), math.prod(x.shape[:-1])), x.dtype)
    flat = x.reshape(-1, x.shape[-1])
    at_a_time, start = PART // x.shape[-1] or 1, 0
    while start < len(data):
        stop = min(start + at_a_time, len(data))
        out[start:stop] = FORMATS[kind].unpack(data[start:stop]) @ flat.T
        start = stop
    return out.T.reshape(*x.shape[:-1], len(data))


class QuantizedEmbedding:
    def vectors(self, ids):
        taken = np.take(self.rows.numpy(), ids.numpy().flatten(), axis=0)
        unpacked = from_numpy(FORMATS[self.kind].unpack(taken))
        return unpacked.reshape(*ids.shape, self.shape[1])


def quantize_(model, kind="int8"):
    if kind not in list(FORMATS):
        raise ValueError(f"format {kind!r}")
    if type(model) in list(QUANTIZED):
        raise TypeError("give the network, not a layer")
    weights = {}
    owners = [(parent, name) for parent in model.modules() for name in parent._modules]
    for parent, name in owners:
        layer = getattr(parent, name)
        if type(layer) in QUANTIZED:
            weight = layer.weight
            if weight not in weights:
                numbers = weight.numpy().reshape(len(weight), -1)
                possible = not numbers.shape[1] % FORMATS[kind].multiple
                chosen = kind if possible else "int8"
                weights[weight] = from_numpy(FORMATS[chosen].pack(numbers)), chosen
            rows, chosen = weights[weight]
            setattr(parent, name, QUANTIZED[type(layer)].of(layer, rows, chosen))
    return model


def observed(model, batches):
    found = None
    for batch in batches:
        seen = []

        def look(proceed, primitive, tensors, params, seen=seen):
            if primitive.name in PRODUCTS:
                seen.append(tensors[0].detach().numpy().flatten())
            return proceed(primitive, tensors, params)

        with interpreting(look):
            with no_grad():
                model(batch)
        found = seen if found is None else [np.append(a, b) for a, b in zip(found, seen)]
    return found


def affine_scale(low, high):
    span = max(high, 0.0) - min(low, 0.0)
    if span == 0.0:
        return 1.0, 0
    step = span / 255.0
    return step, int(math.floor(-min(low, 0.0) / step + 0.5))


def least_error(x):
    def loss(ends):
        scale, zero_point = affine_scale(*ends)
        back = (np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point) * scale
        return np.mean(np.abs(back - x) ** 2)

    candidates = [(float(x.min() * i / 20), float(x.max() * i / 20)) for i in reversed(range(1, 21))]
    losses = [loss(ends) for ends in candidates]
    return candidates[losses.index(min(losses))]


def fake_quantize(x, /, scale, zero_point=0, low=-127, high=127):
    lowest, highest = (low - zero_point) * scale, (high - zero_point) * scale
    near = np.around(x / scale) * scale
    return np.minimum(np.maximum(near, lowest), highest).astype(x.dtype)


def fake_vjp(g, out, x, scale, zero_point=0, low=-127, high=127):
    step = x / scale + zero_point
    below, above = step < low - 0.5, step > high + 0.5
    return tt.choose(below | above, g * 0, g)


@contextmanager
def rounding(bits=8, ranges=()):
    state = {"call": 0}

    def weight_on_a_grid(weight):
        limit = 2 ** (bits - 1) - 1
        per_row = np.stack([symmetric_scale(row, bits) for row in weight.detach().numpy()])
        shaped = per_row.reshape(len(per_row), *(1 for _ in weight.shape[1:]))
        return fake_quantize(weight, scale=shaped, low=-limit, high=limit)

    def input_on_a_grid(x):
        if not len(ranges):
            return x
        scale, zero = affine_scale(*ranges[state["call"]])
        state["call"] = 0 if state["call"] + 1 == len(ranges) else state["call"] + 1
        return fake_quantize(x, scale=scale, zero_point=zero, low=0, high=255)

    def change(proceed, primitive, tensors, params):
        if primitive.name in PRODUCTS:
            x, weight, *others = tensors
            tensors = (input_on_a_grid(x), weight_on_a_grid(weight), *others)
        return proceed(primitive, tensors, params)

    with interpreting(change):
        yield


def decibels(x, rounded):
    signal, noise = np.linalg.norm(x), np.linalg.norm(x - rounded)
    return float("inf") if noise == 0 else 20 * math.log10(signal / noise)
