"""Chapter 14 with attention written out, one_hot for lookups, and Gumbel's way to draw."""


def next_token_loss(logits, targets, ignore_index=-100):
    if logits.ndim != 3 or targets.ndim != 2 or logits.shape[0] != len(targets) or logits.shape[1] != targets.shape[1]:
        raise ValueError(f"{logits.shape} and {targets.shape} do not fit")
    counted = (targets.numpy() != ignore_index).reshape(-1)
    rows = logits.reshape(-1, logits.shape[2])[np.flatnonzero(counted)]
    wanted = targets.numpy().reshape(-1)[counted]
    log_p = tt.log_softmax(rows, dim=1)
    return -log_p[np.arange(len(wanted)), wanted].sum() / len(wanted)


def rms_norm(x, weight=None, eps=None):
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    scale = 1 / tt.sqrt(tt.mean(x * x, -1, keepdim=True) + eps)
    return x * scale * (1 if weight is None else weight)


class CausalSelfAttention:
    def forward(self, x):
        _, T, C = x.shape
        size = C // self.n_head
        qkv, results = self.c_attn(x), []
        hidden = from_numpy(np.where(np.tri(T, dtype=bool), 0, -np.inf).astype(x.dtype))
        for head in range(self.n_head):
            q, k, v = (qkv[:, :, i * C + head * size : i * C + (head + 1) * size] for i in range(3))
            weights = tt.softmax(q @ k.mT * size**-0.5 + hidden, dim=-1)
            results.append(tt.dropout(weights, self.p, self.training) @ v)
        return self.dropout(self.c_proj(tt.cat(results, dim=-1)))


class Block:
    def forward(self, x):
        said = self.attn(self.ln_1(x))
        return x + said + self.mlp(self.ln_2(x + said))


class Transformer:
    def forward(self, ids):
        if ids.ndim != 2:
            raise ValueError(f"ids are (batch, time), not of shape {ids.shape}")
        _, T = ids.shape
        if T == 0 or T > len(self.wpe.weight):
            raise ValueError(f"a text has 1 to {len(self.wpe.weight)} tokens, not {T}")
        tokens = ids.numpy()
        if tokens.min() < 0 or tokens.max() >= len(self.wte.weight):
            raise IndexError(f"tokens go from 0 to {len(self.wte.weight) - 1}")
        looked_up = tt.one_hot(ids, len(self.wte.weight)).to(self.wte.weight.dtype) @ self.wte.weight
        x = self.drop(looked_up + self.wpe.weight[np.arange(T)])
        for i in range(len(self.h)):
            x = self.h[i](x)
        return self.ln_f(x)


class GPT:
    def __init__(self, config):
        Module.__init__(self)
        self.config = config
        self.transformer, self.lm_head = Transformer(config), Linear(config.n_embd, config.vocab_size, False)
        shared = self.transformer.wte.weight
        self.lm_head.weight = shared
        self.reset_parameters()

    def reset_parameters(self):
        shrunk = (2 * self.config.n_layer) ** -0.5
        for name, parameter in self.named_parameters():
            kind = name.rsplit(".", 2)[-2:]
            if kind[-1] == "bias":
                values = np.zeros(parameter.shape)
            elif kind[0].startswith("ln_"):
                values = np.ones(parameter.shape)
            else:
                values = generator().normal(size=parameter.shape) * 0.02 * (shrunk if kind[0] == "c_proj" else 1)
            parameter.copy_(values)


def decay_groups(model, weight_decay):
    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [], "weight_decay": 0.0}, {"params": [], "weight_decay": weight_decay}]
    for parameter in learned:
        groups[int(len(parameter.shape) > 1)]["params"].append(parameter)
    return groups


def predict_shapes():
    stream = (2, 5, 32)
    return {
        "c_attn": (*stream[:2], 96), "c_fc": (*stream[:2], 128), "stream": stream, "logits": (*stream[:2], 65),
        "qkv": (3, 2, 4, 5, 8), "weights": (2, 4, 5, 5), "lm_head.weight": (65, 32), "wpe.weight": (16, 32),
    }


def tempered(logits, temperature):
    if temperature == 0:
        one_hot = np.zeros(len(logits))
        one_hot[np.argmax(logits)] = 1.0
        return one_hot
    return np.exp(logits / temperature - logits.max() / temperature)


def most_likely(logits, k):
    return np.lexsort((np.arange(len(logits)), -logits))[:k]


def nucleus(weights, p):
    order = np.lexsort((np.arange(len(weights)), -weights))
    share = np.cumsum(weights[order]) / weights.sum()
    return order[: min(int(np.searchsorted(share, p - 1e-12)) + 1, len(order))]


def next_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    logits = checked_logits(logits)
    refuse_settings(temperature, top_k, top_p)
    weights = tempered(logits, temperature)
    if top_k:
        weights = weights * np.isin(np.arange(len(weights)), most_likely(logits, min(top_k, len(logits))))
    if top_p:
        weights = weights * np.isin(np.arange(len(weights)), nucleus(weights, top_p))
    return weights * (1 / weights.sum())


def next_logits(model, texts):
    block, mode = model.config.block_size, model.training
    lengths = [min(len(text), block) for text in texts]
    if 0 in lengths or lengths == []:
        raise ValueError(f"texts of {lengths} tokens: each needs one")
    ids = np.zeros((len(texts), max(lengths)), np.int64)
    for row, (text, length) in enumerate(zip(texts, lengths)):
        ids[row, :length] = text[len(text) - length :]
    model.eval()
    with no_grad():
        stream = model.transformer(from_numpy(ids)).numpy()
    model.train(mode)
    last = np.array([stream[row, length - 1] for row, length in enumerate(lengths)])
    return last @ model.transformer.wte.weight.numpy().T


def continued(model, texts, count, choose, ends):
    going = [True] * len(texts)
    for _ in range(count):
        if not any(going):
            return
        rows = [row for row, goes in enumerate(going) if goes]
        all_logits = dict(zip(rows, next_logits(model, [texts[row] for row in rows])))
        tokens = []
        for row in range(len(texts)):
            if not going[row]:
                tokens.append(None)
                continue
            tokens.append(choose(row, all_logits[row]))
            texts[row].append(tokens[-1])
            going[row] = tokens[-1] not in ends
        yield tokens


class Windows:
    def batch(self, indices):
        starts = row_numbers(indices, len(self))
        inputs, targets = (self.windows[starts, first : first + self.length] for first in (0, 1))
        return from_numpy(inputs.astype(np.int64)), from_numpy(targets.astype(np.int64))


def surprises(model, ids):
    mode, found = model.training, []
    model.eval()
    with no_grad():
        for end in range(1, len(ids)):
            logits = model(from_numpy(np.array([ids[:end]])))[0, -1]
            found.append(float(-tt.log_softmax(logits, dim=0)[int(ids[end])].item()))
    model.train(mode)
    return found


class GatedMLP:
    def forward(self, x):
        return tt.linear(tt.silu(x @ self.gate_proj.weight.T) * (x @ self.up_proj.weight.T), self.down_proj.weight)


def without_repeats(logits, text, penalty):
    if not penalty > 0:
        raise ValueError("the penalty must be above 0")
    for token in sorted(set(text)):
        if not 0 <= token < len(logits):
            raise IndexError(f"token {token} has no logit")
    logits = np.asarray(logits)
    seen = np.isin(np.arange(len(logits)), list(text))
    return np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)
