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


class MLP:
    def forward(self, x):
        h = self.c_fc(x)
        u = (h + h * h * h * 0.044715) * math.sqrt(2 / math.pi)
        return self.dropout(self.c_proj(h * tt.sigmoid(u * 2)))


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


def next_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    logits = np.asarray(logits, np.float64)
    order = np.lexsort((np.arange(len(logits)), -logits))
    ranked = logits[order] - logits.max()
    if temperature == 0:
        p = (np.arange(len(ranked)) == 0).astype(float)
    else:
        p = np.exp(ranked / temperature)
    if top_k is not None:
        p = p * (np.arange(len(p)) < top_k)
    p /= p.sum()
    if top_p is not None:
        count = int(np.searchsorted(np.cumsum(p), top_p - 1e-12)) + 1
        p[count:] = 0
        p /= p.sum()
    return p[np.argsort(order)]


def next_logits(model, texts):
    from contextlib import ExitStack

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


def rounds(model, prompts, max_new_tokens, *, temperature=1.0, top_k=None, top_p=None, stop=(), seed=None):
    texts = [[*prompt] for prompt in prompts]
    bad = [
        not texts, any(not text for text in texts), max_new_tokens < 0, temperature < 0,
        top_k is not None and top_k < 1, top_p is not None and not 0 < top_p <= 1,
    ]
    if any(bad):
        raise ValueError("a prompt without tokens, or a setting that cannot be meant")
    root = np.random.SeedSequence(int(generator().integers(2**62)) if seed is None else seed)
    randoms = [np.random.default_rng(child) for child in root.spawn(len(texts))]
    going = [True] * len(texts)
    for _ in range(max_new_tokens):
        if not any(going):
            return
        rows = [row for row, goes in enumerate(going) if goes]
        all_logits = dict(zip(rows, next_logits(model, [texts[row] for row in rows])))
        tokens = []
        for row in range(len(texts)):
            if not going[row]:
                tokens.append(None)
                continue
            p = next_probabilities(all_logits[row], temperature=temperature, top_k=top_k, top_p=top_p)
            tokens.append(int(randoms[row].multinomial(1, p / p.sum()).argmax()))
            texts[row].append(tokens[-1])
            going[row] = tokens[-1] not in set(stop)
        yield tokens


def surprises(model, ids):
    ids, mode = np.asarray(ids, np.int64), model.training
    model.eval()
    with no_grad():
        log_p = tt.log_softmax(model(from_numpy(ids[None, :-1])), dim=2).numpy()[0]
    model.train(mode)
    return (-log_p[np.arange(len(ids) - 1), ids[1:]]).tolist()


class GatedMLP:
    def forward(self, x):
        opened = self.gate(x)
        return self.down(self.up(x) * opened / (1 + tt.exp(-opened)))


def without_repeats(logits, text, penalty):
    changed = logits.copy()
    for token in range(len(changed)):
        if token in text:
            changed[token] = changed[token] / penalty if changed[token] >= 0 else changed[token] * penalty
    return changed
