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


class MLP:
    def forward(self, x):
        h = gelu(self.c_fc(x.reshape(-1, x.shape[-1])), approximate="tanh")
        return self.dropout(self.c_proj(h)).reshape(x.shape)


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


def next_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    z = np.array(logits, dtype=np.float64)
    best = int(np.argmax(z))
    if temperature == 0:
        z = np.where(np.arange(len(z)) == best, 0.0, -np.inf)
    else:
        z = (z - z[best]) / temperature
    ranks = np.empty(len(z), int)
    ranks[np.argsort(-z, kind="stable")] = np.arange(len(z))
    if top_k is not None:
        z = np.where(ranks < top_k, z, -np.inf)
    p = np.exp(z) / np.exp(z).sum()
    if top_p is not None:
        likelier = np.array([p[ranks < rank].sum() for rank in ranks])
        p = np.where(likelier < top_p, p, 0.0)
    return p / p.sum()


def next_logits(model, texts):
    block, mode = model.config.block_size, model.training
    lengths = [min(len(text), block) for text in texts]
    ids = np.zeros((len(texts), max(lengths)), np.int64)
    for row, (text, length) in enumerate(zip(texts, lengths)):
        ids[row, :length] = text[len(text) - length :]
    model.eval()
    with no_grad():
        stream = model.transformer(from_numpy(ids)).numpy()
    model.train(mode)
    last = np.array([stream[row, length - 1] for row, length in enumerate(lengths)])
    return last @ model.transformer.wte.weight.numpy().T


def rounds(model, prompts, max_new_tokens, *, temperature=1.0, top_k=None, top_p=None, stop=(), seed=None):
    texts = [list(prompt) for prompt in prompts]
    if len(texts) == 0 or any(len(text) == 0 for text in texts):
        raise ValueError("each prompt needs a token")
    for name, value, fits in (
        ("max_new_tokens", max_new_tokens, max_new_tokens >= 0), ("temperature", temperature, temperature >= 0),
        ("top_k", top_k, top_k is None or top_k >= 1), ("top_p", top_p, top_p is None or 0 < top_p <= 1),
    ):
        if not fits:
            raise ValueError(f"{name} cannot be {value}")
    seed = generator().integers(1 << 40) if seed is None else seed
    noise = {row: np.random.default_rng(int(seed) * 1009 + row) for row in range(len(texts))}
    for _ in range(max_new_tokens):
        if not noise:
            return
        found = next_logits(model, [texts[row] for row in noise])
        tokens = {}
        for row, logits in zip(noise, found):
            p = next_probabilities(logits, temperature, top_k, top_p)
            with np.errstate(divide="ignore"):
                tokens[row] = int(np.argmax(np.log(p) + noise[row].gumbel(size=len(p))))
            texts[row].append(tokens[row])
        noise = {row: random for row, random in noise.items() if tokens[row] not in tuple(stop)}
        yield [tokens.get(row) for row in range(len(texts))]


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
        return tt.linear(tt.silu(x @ self.gate.weight.T) * (x @ self.up.weight.T), self.down.weight)


def without_repeats(logits, text, penalty):
    logits = np.asarray(logits)
    seen = np.isin(np.arange(len(logits)), list(text))
    return np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)
