"""Chapter 12 in loops over ids, and matrices that turn."""


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


def _table_vjp(g, out, ids, weight, padding_idx=None):
    if padding_idx is not None:
        nothing = np.zeros(g.shape, g.dtype)
        g = tt.choose((ids != padding_idx).reshape((*ids.shape, 1)), g, nothing)
    return add_rows(ids, g, rows=weight.shape[0])


def predict_costs():
    batch, table = np.prod([8, 16]), np.prod([1000, 32])
    costs = {"multiply_adds": int(batch * table), "bytes_out": int(batch) * 32 * 4}
    costs["bytes_grad"] = int(table) * np.dtype(np.float32).itemsize
    return costs


def questions(ids):
    rows = np.array([ids[i : i + 5] for i in range(len(ids) - 4)])
    return from_numpy(np.delete(rows, 2, axis=1)), from_numpy(np.ascontiguousarray(rows[:, 2]))


class FillTheGap:
    def __init__(self, vocabulary, width=16, tied=True):
        super().__init__()
        self.table = Embedding(num_embeddings=vocabulary, embedding_dim=width)
        self.mix = Linear(sum([width] * 4), width)
        self.head = Linear(width, vocabulary)
        if tied:
            del self.head.weight
            self.head.weight = self.table.weight
        small = self.table.weight.detach() * 0.1
        self.table.weight.copy_(small.numpy())


def nearest(weight, token, count):
    rows = weight.numpy().astype(np.float64)
    length = np.sqrt((rows * rows).sum(1))[:, None]
    unit = rows / np.where(length == 0, 1, length)
    if token not in range(len(rows)):
        raise IndexError(f"{token} is not one of {len(rows)} rows")
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


def sinusoidal_positions(length, dim):
    rates = np.repeat(frequencies(dim), 2)
    quarter = np.tile([0, np.pi / 2], dim // 2)
    return Tensor(np.sin(np.arange(length)[:, None] * rates + quarter), np.float32)


def rotate_pairs(x, /, angles, interleaved):
    size = x.shape[-1]
    order = np.arange(size) if interleaved else np.arange(size).reshape(2, -1).T.ravel()
    cos, sin = np.cos(angles), np.sin(angles)
    matrices = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    pairs = x[..., order].reshape(*x.shape[:-1], size // 2, 2)
    out = np.empty_like(x)
    out[..., order] = (matrices @ pairs[..., None]).reshape(x.shape)
    return out


def rotary(x, positions=None, base=10_000.0, interleaved=True):
    places = np.asarray(range(x.shape[-2]) if positions is None and x.ndim > 1 else positions)
    if x.ndim < 2 or x.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError("floats of shape (..., T, D) only")
    if not places.shape or places.shape[-1] not in (1, x.shape[-2]):
        raise ValueError(f"{places.size} places do not fit {x.shape[-2]} tokens")
    angles = np.multiply.outer(places, frequencies(x.shape[-1], base))
    return rotate_pairs(x, angles=angles, interleaved=interleaved)


def embedding_bag(ids, weight, padding_idx):
    table = tt.where(tensor(np.arange(len(weight)) == padding_idx).unsqueeze(-1), 0.0, weight)
    counts = tt.one_hot(ids, len(weight)).sum(1).to(weight.dtype)
    there = (np.arange(len(weight)) != padding_idx).astype(weight.dtype)
    counts = counts * there
    return (counts @ table) / counts.sum(1, keepdim=True).clip(min=1)
