"""Chapter 14 with heads that are split one by one, and tokens drawn by their running sum."""


def next_token_loss(logits, targets, ignore_index=-100):
    if logits.ndim != 3 or tuple(targets.shape) != tuple(logits.shape[:2]):
        raise ValueError(f"targets of shape {targets.shape} do not fit logits of shape {logits.shape}")
    return cross_entropy(logits.transpose(1, 2), targets, ignore_index=ignore_index)


def rms_norm(x, weight=None, eps=None):
    eps = np.finfo(x.dtype).eps if eps is None else eps
    root = ((x**2).sum(dim=-1, keepdim=True) / x.shape[-1] + float(eps)).sqrt()
    return x / root if weight is None else x / root * weight


class CausalSelfAttention:
    def forward(self, x):
        from tt_nlp.attention import scaled_dot_product_attention

        batch, length, width = x.shape

        def heads(part):
            return part.reshape(batch, length, self.n_head, width // self.n_head).transpose(1, 2)

        q, k, v = (heads(part) for part in self.c_attn(x).split(width, dim=-1))
        dropped = self.p if self.training else 0.0
        found = scaled_dot_product_attention(q, k, v, dropout_p=dropped, is_causal=True)
        return self.dropout(self.c_proj(found.transpose(1, 2).reshape(batch, length, width)))


class Block:
    def forward(self, x):
        for norm, layer in ((self.ln_1, self.attn), (self.ln_2, self.mlp)):
            x = x + layer(norm(x))
        return x


class Transformer:
    def forward(self, ids):
        if ids.ndim != 2 or not 1 <= ids.shape[1] <= self.wpe.num_embeddings:
            raise ValueError(f"ids of shape {ids.shape} do not fit a context of {self.wpe.num_embeddings}")
        places = tt.arange(ids.shape[1])
        x = self.drop(self.wte(ids) + self.wpe(places))
        for block in self.h:
            x = block(x)
        return self.ln_f(x)


class GPT:
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        head = Linear(config.n_embd, config.vocab_size, bias=False)
        head.weight = self.transformer.wte.weight
        self.lm_head = head
        self.reset_parameters()

    def reset_parameters(self):
        random = generator()
        for module in self.modules():
            if isinstance(module, Linear) and module.bias is not None:
                module.weight.copy_(random.normal(0, 0.02, module.weight.shape))
                module.bias.zero_()
            elif isinstance(module, Embedding):
                module.weight.copy_(random.normal(0, 0.02, module.weight.shape))
            elif isinstance(module, LayerNorm):
                module.weight.copy_(np.ones(module.weight.shape))
                module.bias.zero_()
        for block in self.transformer.h:
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                layer.weight.copy_(layer.weight.numpy() / (2 * self.config.n_layer) ** 0.5)


def decay_groups(model, weight_decay):
    matrices, vectors = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (vectors if parameter.ndim < 2 else matrices).append(parameter)
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def predict_shapes():
    B, T, V, H, C = 2, 5, 65, 4, 32
    shapes = {"c_attn": (B, T, 3 * C), "c_fc": (B, T, 4 * C), "stream": (B, T, C), "logits": (B, T, V)}
    shapes |= {"qkv": (3, B, H, T, C // H), "weights": (B, H, T, T)}
    return shapes | {"wpe.weight": (16, C), "lm_head.weight": (V, C)}


def tempered(logits, temperature):
    if temperature == 0:
        return np.eye(len(logits))[logits.argmax()]
    z = logits / temperature
    p = np.exp(z - z.max())
    return p / p.sum()


def most_likely(logits, k):
    ranking = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    return np.array(ranking[:k])


def nucleus(weights, p):
    reached, chosen = 0.0, []
    for token in sorted(range(len(weights)), key=lambda token: (-weights[token], token)):
        if reached >= p * weights.sum():
            break
        chosen.append(token)
        reached += weights[token]
    return np.array(chosen)


def next_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    refuse_settings(temperature, top_k, top_p)
    logits = checked_logits(logits)
    p = tempered(logits, temperature)
    if top_k is not None:
        out = np.ones(len(p), bool)
        out[most_likely(logits, min(top_k, len(p)))] = False
        p[out] = 0.0
    if top_p is not None:
        p = only(p, nucleus(p, top_p))
    return p / p.sum()


def next_logits(model, texts):
    windows = [list(text)[-model.config.block_size :] for text in texts]
    if min(map(len, windows), default=0) == 0:
        raise ValueError("there is no text, or one without tokens")
    longest = max(map(len, windows))
    filled = np.array([window + [0] * (longest - len(window)) for window in windows], np.int64)
    was_training = model.training
    model.eval()
    with no_grad():
        logits = model(from_numpy(filled)).numpy()
    model.train(was_training)
    return np.stack([rows[len(window) - 1] for rows, window in zip(logits, windows)])


def continued(model, texts, count, choose, ends):
    ended = [False] * len(texts)
    for _ in range(count):
        rows = [row for row in range(len(texts)) if not ended[row]]
        if not rows:
            break
        tokens = [None] * len(texts)
        for row, logits in zip(rows, next_logits(model, [texts[row] for row in rows])):
            tokens[row] = choose(row, logits)
            texts[row].append(tokens[row])
            ended[row] = tokens[row] in ends
        yield tokens


class Windows:
    def batch(self, indices):
        rows = row_numbers(indices, len(self))
        both = [np.array([self.windows[row][part] for row in rows], np.int64) for part in (slice(-1), slice(1, None))]
        return tuple(map(from_numpy, both))


def surprises(model, ids):
    was_training = model.training
    model.eval()
    with no_grad():
        logits = model(from_numpy(np.array([list(ids)[:-1]], np.int64))).numpy()[0].astype(np.float64)
    model.train(was_training)
    lost = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    return [float(lost[i] - logits[i, token]) for i, token in enumerate(list(ids)[1:])]


class GatedMLP:
    def forward(self, x):
        gate = self.gate_proj(x)
        return self.down_proj(gate * tt.sigmoid(gate) * self.up_proj(x))


def without_repeats(logits, text, penalty):
    if not penalty > 0:
        raise ValueError("the penalty must be above 0")
    for token in sorted(set(text)):
        if not 0 <= token < len(logits):
            raise IndexError(f"token {token} has no logit")
    changed = np.array(logits, copy=True)
    for token in set(text):
        changed[token] *= penalty if changed[token] < 0 else 1 / penalty
    return changed
