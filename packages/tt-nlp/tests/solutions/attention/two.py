"""Chapter 13 by einsum, masked scores, and transposed views."""


def attention_by_loops(query, key, value):
    out = np.empty((*query.shape[:2], value.shape[2]))
    for h, t in np.ndindex(*query.shape[:2]):
        scores = np.einsum("d,sd->s", query[h, t], key[h]) * query.shape[2] ** -0.5
        weights = np.exp(scores - np.logaddexp.reduce(scores))
        out[h, t] = np.einsum("s,sd->d", weights, value[h])
    return out


def causal_mask(queries, keys=None):
    allowed = np.ones((queries, queries if keys is None else keys), bool)
    return from_numpy(np.tril(allowed))


def attention_weights(query, key, mask=None, scale=None):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ (key * scale).mT
    if mask is None:
        return tt.softmax(scores, dim=-1)
    added = as_added(mask, scores.dtype)
    closed = from_numpy(np.isneginf(added.numpy()))
    alive = from_numpy(np.asarray(~np.isneginf(added.numpy()).all(-1, keepdims=True), scores.dtype))
    return tt.softmax(scores + tt.where(closed, -1e30, added), dim=-1) * alive


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None
):
    attn_mask = checked_mask(query, key, value, attn_mask, is_causal)
    plain = attn_mask is None and dropout_p == 0 and query.shape == key.shape and key.shape == value.shape
    if plain:
        qkv = tt.cat([x.unsqueeze(0) for x in (query, key, value)], 0)
        return attention_in_blocks(qkv, is_causal=is_causal, scale=query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = causal_mask(query.shape[-2], key.shape[-2])
    return tt.dropout(attention_weights(query, key, attn_mask, scale), dropout_p) @ value


def predict_effects():
    effects = dict.fromkeys(("pairs", "shift"), "same")
    effects["queries"] = "order"
    effects["values"] = "double"
    effects["keys"] = "other"
    return effects


def split_heads(x, heads):
    *front, length, width = x.shape
    if heads < 1 or width // heads * heads != width:
        raise ValueError(f"{width} is no multiple of {heads}")
    order = [*range(len(front)), len(front) + 1, len(front), len(front) + 2]
    return x.reshape(*front, length, heads, width // heads).permute(*order)


def merge_heads(x):
    *front, heads, length, size = x.shape
    order = [*range(len(front)), len(front) + 1, len(front), len(front) + 2]
    return x.permute(*order).reshape(*front, length, heads * size)


class MultiHeadAttention:
    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True):
        Module.__init__(self)
        split_heads(tt.zeros(1, embed_dim), num_heads)  # refuses heads that do not divide
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = Parameter(tt.zeros(3 * embed_dim, embed_dim))
        self.in_proj_bias = Parameter(tt.zeros(3 * embed_dim)) if bias else None
        tt.xavier_uniform_(self.in_proj_weight)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias)

    def projected(self, query, key, value):
        width = self.in_proj_weight.shape[1]
        if query is key and key is value:
            out = linear(query, self.in_proj_weight, self.in_proj_bias)
            batch, length, _ = query.shape
            return out.reshape(batch, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        found = []
        for i, x in enumerate((query, key, value)):
            rows = slice(i * width, (i + 1) * width)
            x = x @ self.in_proj_weight[rows].T
            x = x if self.in_proj_bias is None else x + self.in_proj_bias[rows]
            found.append(split_heads(x, self.num_heads))
        return found

    def forward(self, query, key, value, mask=None, is_causal=False):
        q, k, v = self.projected(query, key, value)
        found = scaled_dot_product_attention(q, k, v, mask, self.dropout * self.training, is_causal)
        return self.out_proj(merge_heads(found))


def attention_cost(batch, heads, length, size):
    weights = math.prod([batch, heads, length, length])
    return 2 * size * weights, np.dtype(np.float32).itemsize * weights


def weights_in_blocks(q, k, is_causal, scale):
    start, length = 0, q.shape[-2]
    while start < length:
        stop = min(start + QUERIES, length)
        keys = stop if is_causal else length
        scores = (q[..., start:stop, :] * scale) @ k[..., :keys, :].swapaxes(-1, -2)
        if is_causal:
            late = np.arange(keys)[None] > np.arange(start, stop)[:, None]
            scores = np.where(late, -np.inf, scores)
        scores = np.exp(scores - scores.max(axis=-1)[..., None])
        yield slice(start, stop), slice(0, keys), scores / scores.sum(axis=-1)[..., None]
        start = stop


def attention_vjp(g, weights, q, k, v, scale):
    inner = weights * tt.choose(weights == 0, weights * 0, g @ v.mT)
    scores = (inner - weights * tt.sum(inner, -1, keepdim=True)) * scale
    return [weighted(scores, k), weighted(scores.mT, q), weighted(weights.mT, g)]


def window_mask(length, window):
    return from_numpy(np.tri(length, dtype=bool) & ~np.tri(length, k=-window, dtype=bool))
