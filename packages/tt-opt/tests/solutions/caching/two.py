"""Chapter 16 with NumPy's functions: pad, take, einsum, cumsum."""


class KVCache:
    def reserve(self, new):
        held = len(self) - self.first
        short = held + new - self.keys.shape[1]
        if short > 0:
            behind = 0 if self.window is None else max(0, held + 1 - self.window)
            room = -(-(held - behind + new) // 64) * 64
            parts = [part[:, behind:held] for part in (self.keys, self.values)]
            wide = [(0, 0), (0, room - held + behind), (0, 0), (0, 0)]
            self.keys, self.values = (np.pad(part, wide) for part in parts)
            self.first = self.first + behind

    def put(self, layer, keys, values):
        place = np.s_[layer, len(self) - self.first : len(self) - self.first + keys.shape[0]]
        self.keys[place], self.values[place] = keys, values
        everything = np.s_[layer, : place[1].stop]
        return self.keys[everything], self.values[everything]

    def keep(self, length):
        if self.first and length < self.first + self.window - 1:
            self.first = length = 0
        self.tokens = self.tokens[: int(length)]


def look_back(q, keys, values, /, window=None):
    (T, H, D), (n, G) = q.shape, keys.shape[:2]
    grouped = q.reshape(T, G, H // G, D)
    scores = np.einsum("tghd,ngd->ghtn", grouped, keys) / D**0.5
    place = np.arange(n)
    own = place[n - T :, None]
    hidden = place > own
    if window is not None:
        hidden |= place <= own - window
    scores[:, :, hidden] = -np.inf
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    out = np.einsum("ghtn,ngd->tghd", powers / powers.sum(axis=-1, keepdims=True), values)
    return out.reshape(q.shape).astype(q.dtype)


def through(trunk, ids, positions, attend):
    tokens, places = trunk.wte.weight.numpy(), trunk.wpe.weight.numpy()
    x = from_numpy(tokens[ids.numpy()] + places[positions])
    for layer in range(len(trunk.h)):
        block = trunk.h[layer]
        parts = block.attn.c_attn(block.ln_1(x)).numpy()
        qkv = parts.reshape(parts.shape[0], 3, block.attn.n_head, -1).swapaxes(0, 1)
        x = block.attn.c_proj(attend(layer, *qkv).reshape(len(x), -1)) + x
        x = block.mlp(block.ln_2(x)) + x
    return trunk.ln_f(x)


def read(model, texts, every=False):
    refuse_texts(model, texts)
    counts = [len(new) for _, new in texts]
    bounds = [0, *np.cumsum(counts).tolist()]
    for (cache, _), count in zip(texts, counts):
        cache.reserve(count)

    def attend(layer, q, k, v):
        parts = []
        for i, (cache, _) in enumerate(texts):
            own = slice(bounds[i], bounds[i + 1])
            keys, values = cache.put(layer, k[own], v[own])
            parts.append(look_back(from_numpy(q[own]), from_numpy(keys), from_numpy(values), window=cache.window))
        return tt.cat(parts)

    ids = from_numpy(np.array([token for _, new in texts for token in new]))
    places = np.array([len(cache) + i for cache, new in texts for i in range(len(new))])
    mode = model.training
    model.train(False)
    try:
        with no_grad():
            own = getattr(model.transformer, "through", None)
            out = own(ids, places, attend) if own else through(model.transformer, ids, places, attend)
            if not every:
                out = out[np.array(bounds[1:]) - 1]
            out = model.lm_head(out).numpy()
    finally:
        model.train(mode)
    for cache, new in texts:
        cache.tokens = [*cache.tokens, *new]
    return out


def shared_length(one, other):
    length = min(len(one), len(other))
    differ = np.flatnonzero(np.asarray(one[:length]) != np.asarray(other[:length]))
    return int(differ[0]) if len(differ) else length


def unread(cache, text, context):
    end = list(text)[max(0, len(text) - context) :]
    length = shared_length(cache.tokens, end[:-1])
    cache.keep(length)
    return end[len(cache) :]


def multiply_adds_of_a_token(config, length):
    C = config.n_embd
    return C * (config.vocab_size + config.n_layer * (12 * C + 2 * length))


def cache_bytes(config, length, kv_heads=None, itemsize=4):
    share = 1 if kv_heads is None else kv_heads / config.n_head
    return round(share * config.n_embd) * config.n_layer * length * itemsize * 2


class GroupedQueryAttention:
    def projected(self, x, positions):
        def heads(linear):
            out = linear(x)
            return out.reshape(*out.shape[:-1], out.shape[-1] // self.size, self.size)

        def turn(part):
            return rotary(part.transpose(-3, -2), positions, self.base).transpose(-3, -2)

        return turn(heads(self.q_proj)), turn(heads(self.k_proj)), heads(self.v_proj)


class Request:
    def take(self, logits):
        chances = next_probabilities(logits, **self.settings)
        self.text += [int(self.random.choice(chances.size, p=chances))]
        full = len(self.text) == self.prompt_length + self.max_new_tokens
        self.ended = "stop" if self.text[-1] in self.stop else "length" if full else None


class Batcher:
    def step(self):
        for _ in range(min(len(self.free), len(self.waiting))):
            new = self.waiting.popleft()
            fits = [shared_length(cache.tokens, new.text) for cache in self.free]
            new.cache = self.free.pop(int(np.argmax(fits)))
            self.active.append(new)
        todo = [unread(r.cache, r.text, self.model.config.block_size) for r in self.active]
        if not todo:
            return []
        logits = read(self.model, [(r.cache, part[: self.piece]) for r, part in zip(self.active, todo)])
        done = [i for i, part in enumerate(todo) if len(part) <= self.piece]
        moved = [self.active[i] for i in done]
        for i, request in zip(done, moved):
            request.take(logits[i])
        self._release()
        return moved


def best_of(model, prompt, count, max_new_tokens, *, seed=0, **how):
    prompt = list(prompt)
    begun = KVCache.of(model)
    if prompt[1:]:
        read(model, [(begun, prompt[-model.config.block_size :][:-1])])
    batcher = Batcher(model, count, caches=(begun.copy() for _ in range(count)))
    running = [batcher.submit(prompt, max_new_tokens, seed=(seed, i), **how) for i in range(count)]
    while any(request.ended is None for request in running):
        batcher.step()
    costs = [np.mean(surprises(model, request.text)[-len(request.tokens) :]) for request in running]
    return [running[i].text for i in np.argsort(costs, kind="stable")]
