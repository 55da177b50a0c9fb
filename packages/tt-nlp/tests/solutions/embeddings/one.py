"""Chapter 12 with NumPy's own words, plainly."""


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


def _table_vjp(g, out, ids, weight, padding_idx=None):
    if padding_idx is None:
        return add_rows(ids, g, rows=weight.shape[0])
    hidden = (ids == padding_idx).reshape((*ids.shape, 1))
    return add_rows(ids, tt.choose(hidden, np.zeros((), g.dtype), g), rows=weight.shape[0])


def predict_costs():
    places, rows, width = 8 * 16, 1000, 32
    return {"multiply_adds": places * rows * width, "bytes_out": 4 * places * width, "bytes_grad": 4 * rows * width}


def questions(ids):
    x, y = [], []
    for place in range(2, len(ids) - 2):
        x.append([ids[place - 2], ids[place - 1], ids[place + 1], ids[place + 2]])
        y.append(ids[place])
    return tensor(x), tensor(y)


class FillTheGap:
    def __init__(self, vocabulary, width=16, tied=True):
        super().__init__()
        self.table = Embedding(vocabulary, width)
        self.table.weight.copy_(self.table.weight.numpy() / 10)
        self.mix = Linear(width * 4, width)
        self.head = Linear(width, vocabulary)
        self.head.weight = self.table.weight if tied else self.head.weight


def nearest(weight, token, count):
    rows = weight.numpy()
    if not 0 <= token < len(rows):
        raise IndexError(f"no row {token} in a table of {len(rows)}")
    found = []
    for row in range(len(rows)):
        if row != token:
            length = np.sqrt((rows[row] ** 2).sum() * (rows[token] ** 2).sum())
            found.append((row, float((rows[row] * rows[token]).sum() / length) if length else 0.0))
    return sorted(found, key=lambda pair: -pair[1])[:count]


def in_a_plane(vectors):
    centred = vectors - np.mean(vectors, axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    return centred @ directions[:, np.argsort(values)[::-1][:2]]


def sinusoidal_positions(length, dim):
    table = np.zeros((length, dim), np.float32)
    for place in range(length):
        for i, rate in enumerate(frequencies(dim)):
            table[place, 2 * i] = np.sin(place * rate)
            table[place, 2 * i + 1] = np.cos(place * rate)
    return from_numpy(table)


def rotate_pairs(x, /, angles, interleaved):
    half = x.shape[-1] // 2
    pairs = x.reshape(*x.shape[:-1], half, 2) if interleaved else np.stack([x[..., :half], x[..., half:]], -1)
    a, b = pairs[..., 0], pairs[..., 1]
    both = [a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)]
    out = np.stack(both, -1).reshape(x.shape) if interleaved else np.concatenate(both, -1)
    return out.astype(x.dtype)


def rotary(x, positions=None, base=10_000.0, interleaved=True):
    if x.ndim < 2 or not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"{x.dtype} of shape {x.shape} cannot be turned")
    if positions is None:
        positions = range(x.shape[-2])
    positions = np.array(positions)
    if positions.shape[-1:] not in ((x.shape[-2],), (1,)):
        raise ValueError(f"{positions.shape} positions for {x.shape[-2]} tokens")
    angles = np.expand_dims(positions, -1) * frequencies(x.shape[-1], base)
    return rotate_pairs(x, angles=angles, interleaved=interleaved)


def embedding_bag(ids, weight, padding_idx):
    means = []
    for row in ids.numpy():
        kept = row[row != padding_idx]
        nothing = tt.zeros(weight.shape[1]).to(weight.dtype)
        means.append(embedding(tensor(kept, dtype=np.int64), weight).mean(0) if len(kept) else nothing)
    return tt.stack(means)
