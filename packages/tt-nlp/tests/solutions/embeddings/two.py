"""Chapter 12 by products with zeros and ones, and complex numbers."""


def embedding(ids, weight, /, padding_idx=None):
    if ids.dtype.kind in "fb":
        raise TypeError("ids must be whole numbers")
    bad = [int(i) for i in np.unique(ids) if i < 0 or i >= weight.shape[0]]
    if bad:
        raise IndexError(f"ids {bad} have no row among {weight.shape[0]}")
    return np.ascontiguousarray(weight)[ids, :]


def add_rows(ids, g, /, rows):
    g, flat = g.reshape(ids.size, g.shape[-1]), ids.reshape(-1).astype(np.int64)
    sums = np.zeros((rows, g.shape[1]), g.dtype)
    for column in range(g.shape[1]):
        sums[:, column] = np.bincount(flat, g[:, column], rows)
    return sums


def _table_vjp(g, out, ids, weight, padding_idx=None):
    share = add_rows(ids, g, rows=len(weight))
    if padding_idx is None:
        return share
    rows = np.arange(len(weight)).reshape(-1, 1)
    return tt.choose(rows == padding_idx, np.zeros((), share.dtype), share)


def predict_costs():
    return {"bytes_grad": 128_000, "bytes_out": 16_384, "multiply_adds": 4_096_000}


def questions(ids):
    ids = np.asarray(list(ids))
    neighbours = np.stack([ids[:-4], ids[1:-3], ids[3:-1], ids[4:]], axis=1)
    return Tensor(neighbours), Tensor(ids[2:-2])


class FillTheGap:
    def __init__(self, vocabulary, width=16, tied=True):
        Module.__init__(self)
        table, head = Embedding(vocabulary, width), Linear(width, vocabulary)
        table.weight.copy_(0.1 * np.array(table.weight.numpy()))
        if tied:
            head.weight = table.weight
        self.table, self.head = table, head
        self.mix = Linear(4 * width, width)


def nearest(weight, token, count):
    refuse_ids(np.array([token]), len(weight))
    product = weight.numpy() @ weight.numpy().T
    length = np.sqrt(np.diag(product))
    both = length * length[token]
    cosines = np.divide(product[token], both, out=np.zeros_like(both), where=both > 0)
    cosines[token] = -2
    return [(int(i), float(cosines[i])) for i in np.argsort(cosines)[::-1][:count] if i != token]


def in_a_plane(vectors):
    centred = vectors - vectors.mean(axis=0, keepdims=True)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :2] * sizes[:2]


def sinusoidal_positions(length, dim):
    angles = np.outer(np.arange(length), frequencies(dim))
    out = np.empty((length, dim), np.float32)
    out[:, ::2] = np.sin(angles)
    out[:, 1::2] = np.cos(angles)
    return Tensor(out)


def rotate_pairs(x, /, angles, interleaved):
    half = x.shape[-1] // 2
    first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(half), slice(half, None))
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(1j * angles)
    out = np.zeros_like(x)
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


def rotary(x, positions=None, base=10_000.0, interleaved=True):
    if len(x.shape) == 1 or x.dtype.kind in "iub":
        raise ValueError("a place and an even number of floats for each token, please")
    length = x.shape[-2]
    places = np.arange(length) if positions is None else np.asarray(positions, float)
    if not (places.ndim and {places.shape[-1]} <= {1, length}):
        raise ValueError("one place for each token, please")
    rates = frequencies(x.shape[-1], base)
    return rotate_pairs(x, angles=places.reshape(*places.shape, 1) * rates, interleaved=interleaved)


def embedding_bag(ids, weight, padding_idx):
    kept = ids.numpy() != padding_idx
    shares = kept / np.maximum(kept.sum(1, keepdims=True), 1)
    counted = tt.where(Tensor(kept[..., None]), embedding(ids, weight), 0.0)
    return (counted * Tensor(shares[..., None], weight.dtype)).sum(1)
