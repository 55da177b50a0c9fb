"""Chapter 12 by products with zeros and ones, and complex numbers."""


def by_one_hot(ids, weight):
    hot = ids.unsqueeze(-1) == tt.arange(len(weight))
    return hot.to(weight.dtype) @ weight


def embedding(ids, weight, /, padding_idx=None):
    if ids.dtype.kind in "fb":
        raise TypeError("ids must be whole numbers")
    bad = [int(i) for i in np.unique(ids) if i < 0 or i >= weight.shape[0]]
    if bad:
        raise IndexError(f"ids {bad} have no row among {weight.shape[0]}")
    return np.ascontiguousarray(weight)[ids, :]


def add_rows(ids, g, /, rows):
    g = g.reshape(ids.size, g.shape[-1])
    hot = (np.arange(rows)[:, None] == ids.reshape(1, -1)).astype(g.dtype)
    return hot @ g


def _table_share(g, out, ids, weight, padding_idx=None):
    share = add_rows(ids, g, rows=len(weight))
    if padding_idx is None:
        return share
    return share * (np.arange(len(weight)) != padding_idx).astype(share.dtype).reshape(-1, 1)


class Embedding:
    def reset_parameters(self):
        drawn = tt.generator().standard_normal(self.weight.shape)
        drawn[[] if self.padding_idx is None else [self.padding_idx]] = 0
        self.weight.copy_(drawn)


def nearest(weight, token, count):
    product = weight.numpy() @ weight.numpy().T
    length = np.sqrt(np.diag(product))
    cosines = product[token] / (length * length[token])
    cosines[token] = -2
    return [(int(i), float(cosines[i])) for i in np.argsort(cosines)[::-1][:count]]


def in_a_plane(vectors):
    centred = vectors - vectors.mean(axis=0, keepdims=True)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :2] * sizes[:2]


class LearnedPositions:
    def forward(self, x):
        places = tt.arange(x.shape[-2])
        if x.shape[-2] > len(self.weight):
            raise ValueError(f"{x.shape[-2]} are more tokens than the {len(self.weight)} places")
        return self.weight[places] + x


def frequencies(dim, base=10_000.0):
    if dim % 2 or dim < 1:
        raise ValueError(f"an even number of numbers is needed, not {dim}")
    return np.exp(-np.log(base) * np.arange(dim // 2) * 2 / dim)


def sinusoidal_positions(length, dim):
    angles = np.outer(np.arange(length), frequencies(dim))
    out = np.empty((length, dim), np.float32)
    out[:, ::2] = np.sin(angles)
    out[:, 1::2] = np.cos(angles)
    return Tensor(out)


def turned_pairs(x, /, angles, interleaved):
    half = x.shape[-1] // 2
    first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(half), slice(half, None))
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(1j * angles)
    out = np.zeros_like(x)
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


def rotary(x, positions=None, base=10_000.0, interleaved=True):
    length = x.shape[-2]
    places = np.arange(length) if positions is None else np.asarray(positions, float)
    if places.shape[-1] != length:
        raise ValueError("one place for each token, please")
    rates = frequencies(x.shape[-1], base)
    return turned_pairs(x, angles=places.reshape(*places.shape, 1) * rates, interleaved=interleaved)


def embedding_bag(ids, weight, padding_idx):
    kept = ids.numpy() != padding_idx
    shares = kept / np.maximum(kept.sum(1, keepdims=True), 1)
    return (embedding(ids, weight) * Tensor(shares[..., None], weight.dtype)).sum(1)
