"""Chapter 14 with einsum, tensors in place of arrays, and a choice among sorted tokens."""


def next_token_loss(logits, targets, ignore_index=-100):
    shapes = tuple(logits.shape), tuple(targets.shape)
    if len(shapes[0]) != 3 or shapes[0][:2] != shapes[1]:
        raise ValueError(f"{shapes[0]} does not fit {shapes[1]}")
    losses = cross_entropy(
        logits.reshape(-1, shapes[0][2]), targets.reshape(-1), ignore_index=ignore_index, reduction="none"
    )
    return losses.sum() / int((targets.numpy() != ignore_index).sum())


def rms_norm(x, weight=None, eps=None):
    smallest = np.finfo(x.dtype).eps if eps is None else eps
    normal = x / tt.sqrt((x * x).mean(-1, keepdim=True) + float(smallest))
    if weight is not None:
        normal = normal * weight
    return normal


class CausalSelfAttention:
    def forward(self, x):
        from tt_nlp.attention import scaled_dot_product_attention

        B, T, C = x.shape
        H = self.n_head
        parts = self.c_attn(x).reshape(B, T, 3, H, C // H)
        q, k, v = (parts[:, :, i].permute(0, 2, 1, 3) for i in range(3))
        mask = from_numpy(np.tri(T, dtype=bool))
        p = self.p * self.training
        found = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return self.dropout(self.c_proj(found.permute(0, 2, 1, 3).reshape(B, T, C)))


class Block:
    def forward(self, x):
        middle = self.attn(self.ln_1(x)) + x
        return self.mlp(self.ln_2(middle)) + middle


class Transformer:
    def forward(self, ids):
        longest = len(self.wpe.weight)
        if len(ids.shape) != 2 or not 0 < ids.shape[1] <= longest:
            raise ValueError(f"ids must be (batch, 1 to {longest}), not {ids.shape}")
        places = from_numpy(np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy())
        x = self.drop(self.wpe(places) + self.wte(ids))
        for name in map(str, range(len(self.h))):
            x = self.h._modules[name](x)
        return self.ln_f(x)


class GPT:
    def __init__(self, config):
        super().__init__()
        self.transformer = Transformer(config)
        table = self.transformer.wte.weight
        self.lm_head = Linear(table.shape[1], table.shape[0], bias=False)
        self.lm_head.weight = table
        self.config = config
        self.reset_parameters()

    def reset_parameters(self):
        state = dict(self.named_parameters())
        random = generator()
        for name in state:
            p = state[name]
            if len(p.shape) == 1:
                p.copy_(np.zeros(p.shape) if "bias" in name else np.ones(p.shape))
                continue
            p.copy_(random.standard_normal(p.shape) / 50)
            if "c_proj" in name:
                p.copy_(p.numpy() / math.sqrt(self.config.n_layer * 2))


def decay_groups(model, weight_decay):
    by_decay = {weight_decay: [], 0.0: []}
    for parameter in filter(lambda p: p.requires_grad, model.parameters()):
        by_decay[weight_decay if parameter.ndim > 1 else 0.0].append(parameter)
    return [{"weight_decay": decay, "params": parameters} for decay, parameters in by_decay.items()]


def predict_shapes():
    names = "c_attn qkv weights c_fc stream logits wpe.weight lm_head.weight".split()
    wide = [(2, 5, n * 32) for n in (3, 4, 1)]
    shapes = [wide[0], (3, 2, 4, 5, 8), (2, 4, 5, 5), wide[1], wide[2], (2, 5, 65), (16, 32), (65, 32)]
    return dict(zip(names, shapes))


def tempered(logits, temperature):
    best = int(np.argmax(logits))
    if temperature == 0:
        z = np.where(np.arange(len(logits)) == best, 0.0, -np.inf)
    else:
        z = (logits - logits[best]) / temperature
    return np.exp(z)


def most_likely(logits, k):
    left, chosen = np.array(logits, np.float64), []
    for _ in range(k):
        chosen.append(int(np.argmax(left)))
        left[chosen[-1]] = -np.inf
    return chosen


def nucleus(weights, p):
    order = np.argsort(-weights, kind="stable")
    likelier = np.concatenate([[0.0], np.cumsum(weights[order])[:-1]]) / weights.sum()
    return order[: np.count_nonzero(likelier < p)]


def next_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    z = checked_logits(logits)
    refuse_settings(temperature, top_k, top_p)
    weights = tempered(z, temperature)
    places = np.arange(len(z)) if top_k is None else np.array(most_likely(z, min(len(z), top_k)))
    weights = only(weights / weights[places].sum(), places)
    if top_p is None:
        return weights
    weights = only(weights, nucleus(weights, top_p))
    return weights / weights.sum()


def next_logits(model, texts):
    from contextlib import ExitStack

    if not texts or any(len(text) == 0 for text in texts):
        raise ValueError("every text needs a token, and there must be a text")

    with ExitStack() as stack:
        stack.callback(model.train, model.training)
        stack.enter_context(no_grad())
        model.eval()
        windows = [np.asarray(text[-model.config.block_size :], np.int64) for text in texts]
        width = max(len(window) for window in windows)
        ids = np.stack([np.pad(window, (0, width - len(window))) for window in windows])
        logits = model(from_numpy(ids)).numpy()
        ends = np.array([len(window) - 1 for window in windows])
        return np.take_along_axis(logits, ends[:, None, None], axis=1)[:, 0]


def continued(model, texts, count, choose, ends):
    going = dict(enumerate(texts))
    while going and count > 0:
        found = next_logits(model, list(going.values()))
        tokens = {row: choose(row, logits) for row, logits in zip(going, found)}
        for row, token in tokens.items():
            texts[row].append(token)
        going = {row: text for row, text in going.items() if tokens[row] not in ends}
        count -= 1
        yield [tokens.get(row) for row in range(len(texts))]


class Windows:
    def batch(self, indices):
        chosen = np.take(self.windows, row_numbers(indices, len(self)), axis=0).astype(np.int64)
        return tuple(from_numpy(chosen[:, first : first + self.length].copy()) for first in (0, 1))


def surprises(model, ids):
    ids, mode = np.asarray(ids, np.int64), model.training
    model.eval()
    with no_grad():
        log_p = tt.log_softmax(model(from_numpy(ids[None, :-1])), dim=2).numpy()[0]
    model.train(mode)
    return (-log_p[np.arange(len(ids) - 1), ids[1:]]).tolist()


class GatedMLP:
    def forward(self, x):
        opened = self.gate_proj(x)
        return self.down_proj(self.up_proj(x) * opened / (1 + tt.exp(-opened)))


def without_repeats(logits, text, penalty):
    if not penalty > 0:
        raise ValueError("the penalty must be above 0")
    for token in sorted(set(text)):
        if not 0 <= token < len(logits):
            raise IndexError(f"token {token} has no logit")
    changed = logits.copy()
    for token in range(len(changed)):
        if token in text:
            changed[token] = changed[token] / penalty if changed[token] >= 0 else changed[token] * penalty
    return changed
