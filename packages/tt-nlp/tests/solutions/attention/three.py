"""Chapter 13 with other ways to the same numbers."""


def attention_by_loops(query, key, value):
    out = np.zeros((query.shape[0], query.shape[1], value.shape[2]))
    for h in range(len(query)):
        for t in range(len(query[h])):
            total, weight, largest = 0.0, 0.0, -math.inf
            for k, v in zip(key[h], value[h]):
                score = float(query[h, t] @ k) / query.shape[2] ** 0.5
                new = max(largest, score)
                keep, power = math.exp(largest - new), math.exp(score - new)
                total, weight, largest = total * keep + power * v, weight * keep + power, new
            out[h, t] = total / weight
    return out


def causal_mask(queries, keys=None):
    mask = np.zeros((queries, keys or queries), bool)
    for t in range(queries):
        mask[t, : t + 1] = True
    return from_numpy(mask)


def attention_weights(query, key, mask=None, scale=None):
    root = math.sqrt(query.shape[-1])
    scores = (query / root if scale is None else query * scale) @ key.transpose(-1, -2)
    if mask is not None:
        added = as_added(mask, scores.dtype)
        closed = np.isneginf(added.numpy())
        hopeless = np.broadcast_to(closed.all(-1, keepdims=True), closed.shape)
        scores = scores + tt.where(from_numpy(hopeless.copy()), tt.zeros(*added.shape, dtype=added.dtype), added)
        return tt.softmax(scores, dim=-1) * from_numpy((1 - hopeless).astype(scores.dtype))
    return tt.softmax(scores, dim=-1)


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None
):
    mask = checked_mask(query, key, value, attn_mask, is_causal)
    T, S = query.shape[-2], key.shape[-2]
    mask = causal_mask(T, S) if is_causal else mask
    weights = attention_weights(query, key, mask, scale=scale)
    kept = tt.dropout(weights, dropout_p, training=True)
    return kept @ value


def predict_effects():
    names = "pairs queries values keys shift".split()
    return dict(zip(names, "same order double other same".split()))


def split_heads(x, heads):
    if heads < 1 or x.shape[-1] % heads > 0:
        raise ValueError(f"{heads} heads and {x.shape[-1]} numbers do not go together")
    flat = x.reshape(-1, x.shape[-2], heads, x.shape[-1] // heads).permute(0, 2, 1, 3)
    return flat.reshape(*x.shape[:-2], *flat.shape[1:])


def merge_heads(x):
    flat = x.reshape(-1, *x.shape[-3:]).permute(0, 2, 1, 3)
    return flat.reshape(*x.shape[:-3], x.shape[-2], x.shape[-3] * x.shape[-1])


class MultiHeadAttention:
    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True):
        super().__init__()
        if num_heads <= 0 or embed_dim // num_heads * num_heads != embed_dim:
            raise ValueError(f"{embed_dim} is no multiple of {num_heads}")
        bound = math.sqrt(6 / (4 * embed_dim))
        drawn = generator().uniform(-bound, bound, (3 * embed_dim, embed_dim)).astype(np.float32)
        self.in_proj_weight = Parameter(from_numpy(drawn))
        self.in_proj_bias = Parameter(tt.zeros(3 * embed_dim)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        self.num_heads, self.dropout = num_heads, dropout

    def projected(self, query, key, value):
        size, parts = len(self.in_proj_weight) // 3, []
        for start, x in zip((0, size, 2 * size), (query, key, value)):
            bias = None if self.in_proj_bias is None else self.in_proj_bias[start : start + size]
            parts.append(split_heads(linear(x, self.in_proj_weight[start : start + size], bias), self.num_heads))
        return tt.stack(parts, 0) if query is key and query is value else parts

    def forward(self, query, key, value, mask=None, is_causal=False):
        parts = self.projected(query, key, value)
        probability = self.dropout if self.training else 0.0
        if isinstance(parts, Tensor):
            found = self_attention(parts, mask, probability, is_causal)
        else:
            found = scaled_dot_product_attention(*parts, mask, probability, is_causal)
        return self.out_proj(merge_heads(found))


def attention_cost(batch, heads, length, size):
    products, weights = 0, 0
    for _ in range(batch * heads):
        products += length * length * size * 2
        weights += length * length * 4
    return products, weights


def weights_in_blocks(q, k, is_causal, scale):
    length = q.shape[-2]
    for t in range(0, length, QUERIES):
        rows = slice(t, t + QUERIES)
        queries = q[..., rows, :]
        stop = t + queries.shape[-2]
        seen = k[..., :stop, :] if is_causal else k
        scores = np.einsum("...td,...sd->...ts", queries, seen) * scale
        if is_causal:
            scores = np.where(np.tri(stop, dtype=bool)[t:], scores, -np.inf)
        weights = np.exp(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True))
        yield slice(t, stop), slice(0, seen.shape[-2]), weights


def attention_vjp(g, weights, q, k, v, scale):
    found, nothing = weighted(weights, v), weights * 0
    scores = tt.choose(weights == 0, nothing, weights * (g @ v.mT - tt.sum(g * found, -1, keepdim=True)))
    return weighted(scores, k) * scale, weighted(scores.mT, q * scale), weighted(weights.mT, g)


def window_mask(length, window):
    mask = np.zeros((length, length), bool)
    for t in range(length):
        mask[t, max(0, t - window + 1) : t + 1] = True
    return from_numpy(mask)
