"""Chapter 13 with NumPy's loops, and everything by the plain products."""


def attention_by_loops(query, key, value):
    results = []
    for q, k, v in zip(query, key, value):
        rows = []
        for one in q:
            scores = k @ one / np.sqrt(len(one))
            powers = np.exp(scores - scores.max())
            rows.append((powers[:, None] * v).sum(0) / powers.sum())
        results.append(rows)
    return np.array(results)


def causal_mask(queries, keys=None):
    return from_numpy(np.tri(queries, keys, dtype=bool))


def attention_weights(query, key, mask=None, scale=None):
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1])
    scores = query @ key.mT * scale
    if mask is None:
        return tt.softmax(scores, dim=-1)
    scores = scores + as_added(mask, scores.dtype)
    largest = scores.detach().max(-1, keepdim=True)[0]
    powers = tt.exp(scores - tt.where(largest == -np.inf, 0.0, largest))
    return powers / powers.sum(-1, keepdim=True).clip(min=1e-30)


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None
):
    mask = checked_mask(query, key, value, attn_mask, is_causal)
    if is_causal:
        mask = causal_mask(query.shape[-2], key.shape[-2])
    weights = attention_weights(query, key, mask, scale)
    if dropout_p:
        weights = tt.dropout(weights, dropout_p)
    return weights @ value


def predict_effects():
    same, order, double, other = "same", "order", "double", "other"
    return {"pairs": same, "queries": order, "values": double, "keys": other, "shift": same}


def split_heads(x, heads):
    if heads <= 0 or x.shape[-1] % heads != 0:
        raise ValueError(f"cannot make {heads} heads of {x.shape[-1]} numbers")
    size = x.shape[-1] // heads
    return tt.stack([x[..., h * size : (h + 1) * size] for h in range(heads)], -3)


def merge_heads(x):
    return tt.cat([x[..., h, :, :] for h in range(x.shape[-3])], -1)


class MultiHeadAttention:
    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True):
        super().__init__()
        if num_heads < 1:
            raise ValueError("at least one head is needed")
        if embed_dim % num_heads != 0:
            raise ValueError(f"cannot cut {embed_dim} numbers into {num_heads} heads")
        weight = tt.zeros(embed_dim * 3, embed_dim)
        tt.xavier_uniform_(weight)
        self.in_proj_weight = Parameter(weight)
        self.in_proj_bias = None
        if bias:
            self.in_proj_bias = Parameter(tt.zeros(embed_dim * 3))
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias)
        self.num_heads = num_heads
        self.dropout = dropout

    def projected(self, query, key, value):
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        parts = [
            split_heads(linear(x, *pair), self.num_heads)
            for x, *pair in zip((query, key, value), self.in_proj_weight.chunk(3), biases)
        ]
        return tt.stack(parts) if query is key is value else parts

    def forward(self, query, key, value, mask=None, is_causal=False):
        parts = self.projected(query, key, value)
        checked_mask(parts[0], parts[1], parts[2], mask, is_causal)
        if is_causal:
            mask = causal_mask(query.shape[-2], key.shape[-2])
        weights = tt.dropout(attention_weights(parts[0], parts[1], mask), self.dropout, self.training)
        return self.out_proj(merge_heads(weights @ parts[2]))


def attention_cost(batch, heads, length, size):
    scores = batch * heads * length * length
    return scores * size + scores * size, scores * 4


def weights_in_blocks(q, k, is_causal, scale):
    length = q.shape[-2]
    for start in range(0, length, QUERIES):
        rows = slice(start, min(start + QUERIES, length))
        keys = slice(0, rows.stop) if is_causal else slice(0, length)
        scores = q[..., rows, :] @ np.swapaxes(k[..., keys, :], -1, -2) * scale
        if is_causal:
            scores[..., np.arange(keys.stop) > np.arange(start, rows.stop)[:, None]] = -np.inf
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        powers /= powers.sum(-1, keepdims=True)
        yield rows, keys, powers


def attention_vjp(g, weights, q, k, v, scale):
    upstream = tt.choose(weights == 0, weights * 0, g @ v.mT)
    s = weights * upstream - weights * tt.sum(weights * upstream, -1, keepdim=True)
    return weighted(s * scale, k), weighted(s.mT * scale, q), weighted(weights.mT, g)


def window_mask(length, window):
    rows = [[0 <= t - s < window for s in range(length)] for t in range(length)]
    return tt.tensor(rows)
