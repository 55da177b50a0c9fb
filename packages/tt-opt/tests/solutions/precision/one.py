"""Chapter 17, step by step: plain names, one operation a line."""


def to_bfloat16(x):
    x = np.array(x, dtype=np.float32)
    bits = x.view(np.uint32)
    kept = bits >> 16
    rest = bits & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & (kept % 2 == 1))
    kept = kept + up
    kept[np.isnan(x)] = 0x7FC0
    return kept.astype(np.uint16)


def from_bfloat16(bits):
    wide = np.array(bits, dtype=np.uint32) * 65536
    return wide.astype(np.uint32).view(np.float32)


def symmetric_scale(x, bits=8, dim=None):
    size = np.abs(x)
    top = size.max() if dim is None else size.max(axis=dim, keepdims=True)
    points = 2 ** (bits - 1) - 1
    scale = np.asarray(top / points, np.float32)
    return np.where(scale > 0, scale, np.float32(1))


def quantize(x, scale, zero_point=0, low=-127, high=127):
    steps = np.round(np.asarray(x) / scale)
    steps = steps + zero_point
    steps = np.minimum(np.maximum(steps, low), high)
    if low == 0:
        return steps.astype(np.uint8)
    return steps.astype(np.int8)


def dequantize(q, scale, zero_point=0):
    steps = np.asarray(q, np.float32) - zero_point
    return (steps * scale).astype(np.float32)


def expected_error(x, scale):
    worst = 0.0
    squares = 0.0
    for value in x:
        worst += scale / 2 * abs(value)
        squares += scale**2 / 12 * value**2
    return worst, math.sqrt(squares)


def two_in_a_byte(q):
    lower, upper = q[..., :16], q[..., 16:]
    return (lower + 16 * upper).astype(np.uint8)


def one_by_one(packed):
    out = np.empty((*packed.shape[:-1], 32), np.uint8)
    out[..., :16] = packed % 16
    out[..., 16:] = packed // 16
    return out


def blocks_of(x, kind):
    width = x.shape[-1]
    if width % 32 != 0:
        raise ValueError(f"{width} numbers are not blocks of 32")
    x = np.asarray(x, np.float32).reshape(*x.shape[:-1], width // 32, 32)
    out = np.zeros(x.shape[:-1], BLOCKS[kind])
    for place in np.ndindex(out.shape):
        block = x[place]
        if kind == "q8_0":
            d = np.abs(block).max() / np.float32(127)
            q = block * (1 / d if d else np.float32(0))
            out[place]["q"] = np.sign(q) * np.floor(np.abs(q) + np.float32(0.5))
        elif kind == "q4_0":
            d = block[np.abs(block).argmax()] / np.float32(-8)
            q = block.astype(np.float64) * float(1 / d if d else 0) + 8.5
            out[place]["q"] = two_in_a_byte(np.minimum(np.floor(q), 15))
        else:
            d = (block.max() - block.min()) / np.float32(15)
            q = (block - block.min()) * (1 / d if d else np.float32(0)) + np.float32(0.5)
            out[place]["q"] = two_in_a_byte(np.minimum(np.floor(q), 15))
            out[place]["m"] = block.min()
        out[place]["d"] = d
    return out


def numbers_of(blocks):
    scale = np.asarray(blocks["d"], np.float32)[..., np.newaxis]
    names = blocks.dtype.names
    if blocks.dtype == BLOCKS["q8_0"]:
        x = blocks["q"] * scale
    elif "m" in names:
        x = one_by_one(blocks["q"]) * scale + np.asarray(blocks["m"], np.float32)[..., np.newaxis]
    else:
        x = (one_by_one(blocks["q"]).astype(np.int8) - 8) * scale
    return np.asarray(x, np.float32).reshape(*blocks.shape[:-1], blocks.shape[-1] * 32)


def packed_product(x, data, /, kind):
    parts, rows = [], max(PART // x.shape[-1], 1)
    for start in range(0, len(data), rows):
        weight = FORMATS[kind].unpack(data[start : start + rows])
        parts.append(np.matmul(x, weight.T))
    return np.concatenate(parts, axis=-1)


class QuantizedEmbedding:
    def vectors(self, ids):
        packed = self.rows.numpy()
        vectors = [FORMATS[self.kind].unpack(packed[i : i + 1])[0] for i in ids.numpy().ravel()]
        return from_numpy(np.array(vectors).reshape(*ids.shape, len(vectors[0])))


def quantize_(model, kind="int8"):
    if kind not in FORMATS:
        raise ValueError(f"{kind} is not one of {list(FORMATS)}")
    if type(model) in QUANTIZED:
        raise TypeError("a layer cannot be replaced in itself")
    seen = []
    for path, layer in list(model.named_modules(remove_duplicate=False)):
        kind_of_layer = type(layer)
        if kind_of_layer not in QUANTIZED:
            continue
        own_kind, rows = None, None
        for weight, known_rows, known_kind in seen:
            if weight is layer.weight:
                rows, own_kind = known_rows, known_kind
        if rows is None:
            matrix = layer.weight.numpy()
            matrix = matrix.reshape(matrix.shape[0], -1)
            own_kind = kind
            if matrix.shape[1] % FORMATS[kind].multiple:
                own_kind = "int8"
            rows = from_numpy(FORMATS[own_kind].pack(matrix))
            seen.append((layer.weight, rows, own_kind))
        parent, names = model, path.split(".")
        for name in names[:-1]:
            parent = getattr(parent, name)
        setattr(parent, names[-1], QUANTIZED[kind_of_layer].of(layer, rows, own_kind))
    return model


def observed(model, batches):
    joined = {}
    place = 0

    def watch(proceed, primitive, tensors, params):
        nonlocal place
        if primitive.name in ("affine", "convolution"):
            joined.setdefault(place, []).extend(tensors[0].detach().numpy().ravel().tolist())
            place += 1
        return proceed(primitive, tensors, params)

    for batch in batches:
        place = 0
        with interpreting(watch), no_grad():
            model(batch)
    return [np.array(joined[i], np.float32) for i in sorted(joined)]


def affine_scale(low, high):
    if low > 0:
        low = 0.0
    if high < 0:
        high = 0.0
    if low == high:
        return 1.0, 0
    scale = (high - low) / 255
    return scale, round(-low / scale)


def least_error(x):
    best, smallest = (float(x.min()), float(x.max())), math.inf
    for step in range(20, 0, -1):
        low, high = x.min() * step / 20, x.max() * step / 20
        scale, zero = affine_scale(low, high)
        back = dequantize(quantize(x, scale, zero, 0, 255), scale, zero)
        error = ((back - x) ** 2).mean()
        if error < smallest:
            best, smallest = (float(low), float(high)), error
    return best


def fake_quantize(x, /, scale, zero_point=0, low=-127, high=127):
    steps = np.round(x / scale) + zero_point
    steps = np.minimum(np.maximum(steps, low), high)
    return np.asarray((steps - zero_point) * scale, x.dtype)


def fake_vjp(g, out, x, scale, zero_point=0, low=-127, high=127):
    least = (low - 0.5 - zero_point) * scale
    most = (high + 0.5 - zero_point) * scale
    return tt.choose(x < least, g * 0, tt.choose(x > most, g * 0, g))


@contextmanager
def rounding(bits=8, ranges=()):
    place = [0]

    def change(proceed, primitive, tensors, params):
        if primitive.name not in PRODUCTS:
            return proceed(primitive, tensors, params)
        tensors = list(tensors)
        if len(ranges):
            low, high = ranges[place[0]]
            place[0] = (place[0] + 1) % len(ranges)
            scale, zero = affine_scale(low, high)
            tensors[0] = fake_quantize(tensors[0], scale=scale, zero_point=zero, low=0, high=255)
        weight = tensors[1].detach().numpy()
        dims = tuple(range(1, weight.ndim))
        most = 2 ** (bits - 1) - 1
        largest = np.abs(weight).max(axis=dims, keepdims=True)
        scale = np.where(largest > 0, largest / most, 1).astype(np.float32)
        tensors[1] = fake_quantize(tensors[1], scale=scale, low=-most, high=most)
        return proceed(primitive, tuple(tensors), params)

    with interpreting(change):
        yield


def decibels(x, rounded):
    noise = np.sum((rounded - x) ** 2)
    if noise == 0:
        return math.inf
    return float(10 * np.log10(np.sum(x**2) / noise))
