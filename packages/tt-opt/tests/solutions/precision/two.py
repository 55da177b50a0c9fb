"""Chapter 17 with NumPy's functions: views, einsum, digitize, percentages of an axis."""


def to_bfloat16(x):
    x = np.ascontiguousarray(x, dtype="<f4")
    wide = x.view("<u4").astype(np.uint64)
    bias = np.uint64(0x7FFF) + (wide // np.uint64(65536)) % np.uint64(2)
    upper = ((wide + bias) // np.uint64(65536)).astype(np.uint16)
    upper[x != x] = 0x7FC0
    return upper


def from_bfloat16(bits):
    bits = np.asarray(bits, np.uint16)
    pairs = np.stack([np.zeros_like(bits), bits], axis=-1)
    return np.ascontiguousarray(pairs).view("<f4")[..., 0]


def symmetric_scale(x, bits=8, dim=None):
    options = {} if dim is None else {"axis": dim, "keepdims": True}
    top = np.maximum(x.max(**options), -x.min(**options))
    return np.float32(1) * np.where(top, top / ((1 << bits - 1) - 1), 1.0).astype(np.float32)


def quantize(x, scale, zero_point=0, low=-127, high=127):
    kind = np.int8 if low else np.uint8
    nearest = np.rint(np.divide(x, scale))
    nearest += zero_point
    return nearest.clip(low, high).astype(kind)


def dequantize(q, scale, zero_point=0):
    return np.multiply(np.subtract(q, zero_point, dtype=np.float32), scale, dtype=np.float32)


def expected_error(x, scale):
    return np.linalg.norm(x, 1) * scale * 0.5, np.linalg.norm(x) * scale / np.sqrt(12)


def two_in_a_byte(q):
    halves = np.asarray(q, np.uint8).reshape(*q.shape[:-1], 2, 16)
    return np.bitwise_or(halves[..., 0, :], np.left_shift(halves[..., 1, :], 4))


def one_by_one(packed):
    halves = np.stack([np.bitwise_and(packed, 15), np.right_shift(packed, 4)], axis=-2)
    return halves.reshape(*packed.shape[:-1], 32)


def blocks_of(x, kind):
    blocks, left = divmod(x.shape[-1], ROW)
    if left:
        raise ValueError(f"{kind}: {left} numbers of a row are left over")
    x = np.ascontiguousarray(x, np.float32).reshape(*x.shape[:-1], blocks, ROW)
    one, most, least = np.float32(1), x.max(-1), x.min(-1)
    top = np.where(most > -least, most, least)
    d = {"q8_0": np.abs(top) / 127, "q4_0": top / -8, "q4_1": (most - least) / 15}[kind].astype(np.float32)
    with np.errstate(divide="ignore"):
        inverse = np.where(d == 0, 0, one / d)[..., None]
    fields = {"d": d}
    if kind == "q8_0":
        scaled = x * inverse
        fields["q"] = np.where(scaled < 0, np.ceil(scaled - np.float32(0.5)), np.floor(scaled + np.float32(0.5)))
    elif kind == "q4_0":
        fields["q"] = two_in_a_byte((np.float64(x) * inverse + 8.5).astype(np.int32).clip(0, 15))
    else:
        fields["m"] = least
        fields["q"] = two_in_a_byte(((x - least[..., None]) * inverse + np.float32(0.5)).astype(np.int32).clip(0, 15))
    out = np.zeros(d.shape, BLOCKS[kind])
    for name, values in fields.items():
        out[name] = values
    return out


def numbers_of(blocks):
    (name,) = (name for name, kind in BLOCKS.items() if kind == blocks.dtype)
    q = blocks["q"] if name == "q8_0" else one_by_one(blocks["q"])
    x = np.einsum("...,...i->...i", blocks["d"].astype(np.float32), q.astype(np.float32) - 8 * (name == "q4_0"))
    if name == "q4_1":
        x += np.expand_dims(blocks["m"].astype(np.float32), -1)
    return x.reshape(*blocks.shape[:-1], ROW * blocks.shape[-1]).astype(np.float32)


def packed_product(x, data, /, kind):
    many = -(-len(data) * x.shape[-1] // PART)
    chunks = np.array_split(data, max(1, many))
    return np.concatenate([np.einsum("...k,nk->...n", x, FORMATS[kind].unpack(c)) for c in chunks], -1).astype(x.dtype)


class QuantizedEmbedding:
    def vectors(self, ids):
        wanted, places = np.unique(ids.numpy(), return_inverse=True)
        table = FORMATS[self.kind].unpack(np.ascontiguousarray(self.rows.numpy()[wanted]))
        return from_numpy(table[places.reshape(ids.shape)])


def quantize_(model, kind="int8"):
    form = FORMATS.get(kind)
    if form is None:
        raise ValueError(f"unknown: {kind}")
    if isinstance(model, tuple(QUANTIZED)):
        raise TypeError(f"{model} is a single layer")
    memory = {}

    def rows_of(weight):
        if id(weight) not in memory:
            flat = np.reshape(weight.numpy(), (weight.shape[0], -1))
            name = "int8" if flat.shape[-1] % form.multiple else kind
            memory[id(weight)] = (from_numpy(FORMATS[name].pack(flat)), name, weight)
        return memory[id(weight)][:2]

    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            new = QUANTIZED.get(type(child))
            if new is not None:
                setattr(parent, name, new.of(child, *rows_of(child.weight)))
    return model


def observed(model, batches):
    flat, lengths = [], []

    def spy(proceed, primitive, tensors, params):
        if primitive.name in PRODUCTS:
            flat.append(np.ravel(tensors[0].detach().numpy()))
        return proceed(primitive, tensors, params)

    with no_grad(), interpreting(spy):
        for batch in batches:
            before = len(flat)
            model(batch)
            lengths.append(len(flat) - before)
    each = lengths[0]
    return [np.hstack(flat[i::each]) for i in range(each)]


def affine_scale(low, high):
    ends = np.array([low, high, 0.0])
    width = float(ends.max() - ends.min())
    if not width:
        return 1.0, 0
    return width / 255, int(np.rint(-ends.min() / (width / 255)))


def least_error(x):
    shares = np.linspace(1, 0.05, 20)
    errors = []
    for share in shares:
        grid = affine_scale(x.min() * share, x.max() * share)
        q = quantize(x, *grid, low=0, high=255)
        errors.append(np.square(dequantize(q, *grid) - x).mean())
    best = shares[int(np.argmin(errors))]
    return float(x.min() * best), float(x.max() * best)


def fake_quantize(x, /, scale, zero_point=0, low=-127, high=127):
    nearest = np.rint(x / scale)
    return (np.clip(nearest, low - zero_point, high - zero_point) * scale).astype(x.dtype)


def fake_vjp(g, out, x, scale, zero_point=0, low=-127, high=127):
    middle = (low + high) / 2 - zero_point
    return tt.choose(tt.abs(x / scale - middle) <= (high - low + 1) / 2, g, g * 0)


@contextmanager
def rounding(bits=8, ranges=()):
    grids = itertools.cycle([affine_scale(*ends) for ends in ranges]) if len(ranges) else None
    top = (1 << (bits - 1)) - 1

    def interpreter(proceed, primitive, tensors, params):
        if primitive.name not in PRODUCTS:
            return proceed(primitive, tensors, params)
        x, weight = tensors[:2]
        if grids is not None:
            scale, zero = grids.__next__()
            x = fake_quantize(x, scale=scale, zero_point=zero, low=0, high=255)
        rows = weight.detach().numpy().reshape(weight.shape[0], -1)
        steps = symmetric_scale(rows, bits, dim=1)[(...,) + (None,) * (weight.ndim - 2)]
        return proceed(primitive, (x, fake_quantize(weight, scale=steps, low=-top, high=top), *tensors[2:]), params)

    with interpreting(interpreter):
        yield


def decibels(x, rounded):
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.dot(x.ravel(), x.ravel()) / np.sum(np.square(x - rounded))))
