"""Chapter 12 in loops over ids, and matrices that turn."""


def by_one_hot(ids, weight):
    shape = ids.shape
    rows = np.zeros((ids.numel(), len(weight)))
    for place, number in enumerate(ids.numpy().ravel()):
        rows[place, number] = 1.0
    return (Tensor(rows, weight.dtype) @ weight).reshape(*shape, weight.shape[1])


def embedding(ids, weight, /, padding_idx=None):
    if ids.dtype.kind == "f":
        raise TypeError(f"these ids are {ids.dtype}")
    outside = np.logical_or(ids < 0, ids > len(weight) - 1)
    if outside.any():
        raise IndexError(f"id {ids[outside].ravel()[0]} is none of {len(weight)}")
    out = np.empty((ids.size, weight.shape[1]), weight.dtype)
    for place, number in enumerate(ids.ravel()):
        out[place] = weight[number]
    return out.reshape(*ids.shape, weight.shape[1])


def add_rows(ids, g, /, rows):
    out = np.zeros((rows, g.shape[-1]), g.dtype)
    for number, vector in zip(ids.ravel(), g.reshape(-1, g.shape[-1])):
        out[number] += vector
    return out


def _table_share(g, out, ids, weight, padding_idx=None):
    kept = g if padding_idx is None else g * (ids != padding_idx).reshape((*ids.shape, 1))
    return add_rows(ids, kept, rows=weight.shape[0])


class Embedding:
    def reset_parameters(self):
        rows = [np.asarray(tt.randn(self.embedding_dim)) for _ in range(self.num_embeddings)]
        if self.padding_idx is not None:
            rows[self.padding_idx] = np.zeros(self.embedding_dim)
        self.weight.copy_(np.stack(rows))


def nearest(weight, token, count):
    rows = weight.numpy().astype(np.float64)
    unit = rows / np.sqrt((rows * rows).sum(1))[:, None]
    left, found = [i for i in range(len(rows)) if i != token], []
    while left and len(found) < count:
        best = max(left, key=lambda i: unit[i] @ unit[token])
        left.remove(best)
        found.append((best, float(unit[best] @ unit[token])))
    return found


def in_a_plane(vectors):
    centred = vectors - vectors.sum(0) / len(vectors)
    directions = []
    for _ in range(2):
        spread = centred.T @ centred
        for known in directions:
            spread = spread - np.outer(known, known) * (known @ centred.T @ centred @ known)
        directions.append(np.linalg.eigh(spread)[1][:, -1])
    return np.stack([centred @ direction for direction in directions], axis=1)


class LearnedPositions:
    def forward(self, x):
        tokens, places = x.shape[-2], len(self.weight)
        if tokens > places:
            raise ValueError(f"{tokens} tokens do not fit into {places} places")
        return x + tt.split(self.weight, [tokens, places - tokens])[0] if tokens < places else x + self.weight


def frequencies(dim, base=10_000.0):
    if dim <= 1 or dim != dim // 2 * 2:
        raise ValueError(f"{dim} numbers do not make pairs")
    return np.power(base, -np.linspace(0, 1, dim // 2, endpoint=False))


def sinusoidal_positions(length, dim):
    rates = np.repeat(frequencies(dim), 2)
    quarter = np.tile([0, np.pi / 2], dim // 2)
    return Tensor(np.sin(np.arange(length)[:, None] * rates + quarter), np.float32)


def turned_pairs(x, /, angles, interleaved):
    size = x.shape[-1]
    order = np.arange(size) if interleaved else np.arange(size).reshape(2, -1).T.ravel()
    cos, sin = np.cos(angles), np.sin(angles)
    matrices = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    pairs = x[..., order].reshape(*x.shape[:-1], size // 2, 2)
    out = np.empty_like(x)
    out[..., order] = (matrices @ pairs[..., None]).reshape(x.shape)
    return out


def rotary(x, positions=None, base=10_000.0, interleaved=True):
    places = np.asarray(range(x.shape[-2]) if positions is None else positions)
    if np.size(places[..., 0]) * x.shape[-2] != places.size:
        raise ValueError(f"{places.size} places do not fit {x.shape[-2]} tokens")
    angles = np.multiply.outer(places, frequencies(x.shape[-1], base))
    return turned_pairs(x, angles=angles, interleaved=interleaved)


def embedding_bag(ids, weight, padding_idx):
    counts = tt.one_hot(ids, len(weight)).sum(1).to(weight.dtype)
    there = (np.arange(len(weight)) != padding_idx).astype(weight.dtype)
    counts = counts * there
    return (counts @ weight) / counts.sum(1, keepdim=True).clip(min=1)
