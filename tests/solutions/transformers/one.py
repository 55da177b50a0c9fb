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


class MLP:
    def forward(self, x):
        h = self.c_fc(x)
        bent = h * 0.5 * (1 + tt.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h * h * h)))
        return self.dropout(self.c_proj(bent))


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


def next_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    z = np.array(logits, np.float64)
    if temperature == 0:
        return np.eye(len(z))[z.argmax()]
    z = z / temperature
    p = np.exp(z - z.max())
    ranking = sorted(range(len(z)), key=lambda token: (-z[token], token))
    if top_k is not None:
        p[ranking[top_k:]] = 0.0
    p = p / p.sum()
    if top_p is not None:
        reached = 0.0
        for token in ranking:
            if reached >= top_p:
                p[token] = 0.0
            reached += p[token]
    return p / p.sum()


def next_logits(model, texts):
    windows = [list(text)[-model.config.block_size :] for text in texts]
    longest = max(map(len, windows))
    filled = np.array([window + [0] * (longest - len(window)) for window in windows], np.int64)
    was_training = model.training
    model.eval()
    with no_grad():
        logits = model(from_numpy(filled)).numpy()
    model.train(was_training)
    return np.stack([rows[len(window) - 1] for rows, window in zip(logits, windows)])


def rounds(model, prompts, max_new_tokens, *, temperature=1.0, top_k=None, top_p=None, stop=(), seed=None):
    texts = [list(map(int, prompt)) for prompt in prompts]
    if not texts or min(map(len, texts)) == 0 or max_new_tokens < 0 or temperature < 0:
        raise ValueError("prompts need tokens, and max_new_tokens and temperature must not be negative")
    if (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError("top_k is at least 1, top_p above 0 and at most 1")
    if seed is None:
        seed = int(generator().integers(2**31))
    randoms = [np.random.default_rng([seed, 17, row]) for row in range(len(texts))]
    ended = [False] * len(texts)
    for _ in range(max_new_tokens):
        rows = [row for row in range(len(texts)) if not ended[row]]
        if not rows:
            break
        tokens = [None] * len(texts)
        for row, logits in zip(rows, next_logits(model, [texts[row] for row in rows])):
            p = next_probabilities(logits, temperature, top_k, top_p)
            token = min(int(np.searchsorted(np.cumsum(p), randoms[row].random(), side="right")), len(p) - 1)
            tokens[row] = token
            texts[row].append(token)
            ended[row] = token in list(stop)
        yield tokens


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
        gate = self.gate(x)
        return self.down(gate * tt.sigmoid(gate) * self.up(x))


def without_repeats(logits, text, penalty):
    changed = np.array(logits, copy=True)
    for token in set(text):
        changed[token] *= penalty if changed[token] < 0 else 1 / penalty
    return changed
