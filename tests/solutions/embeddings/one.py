"""Chapter 12 with NumPy's own words, plainly."""


def by_one_hot(ids, weight):
    rows = np.eye(len(weight), dtype=weight.dtype)[ids.numpy()]
    return from_numpy(rows) @ weight


def embedding(ids, weight, /, padding_idx=None):
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"ids of dtype {ids.dtype} are not whole numbers")
    for number in ids.ravel():
        if not 0 <= number < len(weight):
            raise IndexError(f"no row {number} in a table of {len(weight)}")
    return np.take(weight, ids, axis=0)


def add_rows(ids, g, /, rows):
    table = np.zeros((rows, g.shape[-1]), g.dtype)
    np.add.at(table, ids, g)
    return table


def _table_share(g, out, ids, weight, padding_idx=None):
    shape = (*ids.shape, 1)
    if padding_idx is None:
        return add_rows(ids, g, rows=weight.shape[0])
    return add_rows(ids, g * (ids.reshape(shape) != padding_idx), rows=weight.shape[0])


class Embedding:
    def reset_parameters(self):
        tt.normal_(self.weight)
        if self.padding_idx is not None:
            keep = np.ones((self.num_embeddings, 1), np.float32)
            keep[self.padding_idx] = 0
            self.weight.copy_(self.weight.numpy() * keep)


def nearest(weight, token, count):
    rows = weight.numpy()
    found = []
    for row in range(len(rows)):
        if row != token:
            length = np.sqrt((rows[row] ** 2).sum() * (rows[token] ** 2).sum())
            found.append((row, float((rows[row] * rows[token]).sum() / length)))
    return sorted(found, key=lambda pair: -pair[1])[:count]


def in_a_plane(vectors):
    centred = vectors - np.mean(vectors, axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    return centred @ directions[:, np.argsort(values)[::-1][:2]]


class LearnedPositions:
    def forward(self, x):
        length = x.shape[-2]
        if length > self.weight.shape[0]:
            raise ValueError(f"no positions for {length} tokens")
        return x + embedding(tt.arange(length), self.weight)


def frequencies(dim, base=10_000.0):
    if dim <= 0 or dim % 2 == 1:
        raise ValueError(f"dim {dim} is not even")
    return np.array([base ** (-2 * i / dim) for i in range(dim // 2)])


def sinusoidal_positions(length, dim):
    table = np.zeros((length, dim), np.float32)
    for place in range(length):
        for i, rate in enumerate(frequencies(dim)):
            table[place, 2 * i] = np.sin(place * rate)
            table[place, 2 * i + 1] = np.cos(place * rate)
    return from_numpy(table)


def turned_pairs(x, /, angles, interleaved):
    half = x.shape[-1] // 2
    pairs = x.reshape(*x.shape[:-1], half, 2) if interleaved else np.stack([x[..., :half], x[..., half:]], -1)
    a, b = pairs[..., 0], pairs[..., 1]
    both = [a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)]
    out = np.stack(both, -1).reshape(x.shape) if interleaved else np.concatenate(both, -1)
    return out.astype(x.dtype)


def rotary(x, positions=None, base=10_000.0, interleaved=True):
    if positions is None:
        positions = range(x.shape[-2])
    positions = np.array(positions)
    if positions.shape[-1:] != (x.shape[-2],):
        raise ValueError(f"{positions.shape} positions for {x.shape[-2]} tokens")
    angles = np.expand_dims(positions, -1) * frequencies(x.shape[-1], base)
    return turned_pairs(x, angles=angles, interleaved=interleaved)


def embedding_bag(ids, weight, padding_idx):
    means = []
    for row in ids.numpy():
        kept = row[row != padding_idx]
        means.append(embedding(tensor(kept, dtype=np.int64), weight).mean(0) if len(kept) else weight[0] * 0)
    return tt.stack(means)
