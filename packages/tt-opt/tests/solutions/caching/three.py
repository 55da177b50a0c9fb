"""Chapter 16 with tensors, masks of chapter 13, and one token at a time."""


class KVCache:
    def reserve(self, new):
        held = len(self.tokens) - self.first
        if held + new > self.keys.shape[1]:
            kept = held
            if self.window is not None and kept >= self.window:
                kept = self.window - 1
            whole, rest = divmod(kept + new, BLOCK)
            room = (whole + (rest > 0)) * BLOCK
            both = np.stack([self.keys[:, held - kept : held], self.values[:, held - kept : held]])
            empty = np.empty((*both.shape[:2], room - kept, *both.shape[3:]), both.dtype)
            self.keys, self.values = np.concatenate([both, empty], axis=2)
            self.first = len(self.tokens) - kept

    def put(self, layer, keys, values):
        end = len(self.tokens) - self.first + len(keys)
        views = self.keys[layer, :end], self.values[layer, :end]
        for view, rows in zip(views, (keys, values)):
            np.copyto(view[end - len(rows) :], rows)
        return views

    def keep(self, length):
        reaches = length if self.window is None else self.window - 1
        if max(0, length - reaches) < self.first:
            length, self.first = 0, 0
        while len(self.tokens) > length:
            self.tokens.pop()


def look_back(q, keys, values, /, window=None):
    T, H, D = q.shape
    n, G, _ = keys.shape
    k, v = (np.repeat(x, H // G, axis=1).swapaxes(0, 1) for x in (keys, values))
    mask = np.tri(T, n, n - T, dtype=bool)
    if window:
        mask &= ~np.tri(T, n, n - T - window, dtype=bool)
    scores = q.transpose(1, 0, 2) @ k.transpose(0, 2, 1) / np.sqrt(D, dtype=q.dtype)
    scores = np.where(mask, scores, -np.inf)
    scores -= scores.max(-1, keepdims=True)
    e = np.exp(scores)
    return np.ascontiguousarray((e @ v / e.sum(-1, keepdims=True)).transpose(1, 0, 2))


def through(trunk, ids, positions, attend):
    x = tt.cat([trunk.wte(ids[i : i + 1]) + trunk.wpe.weight[int(p)] for i, p in enumerate(positions)])
    for layer, block in enumerate(trunk.h):
        H = block.attn.n_head
        wide = block.attn.c_attn(block.ln_1(x))
        parts = [part.reshape(len(positions), H, part.shape[1] // H).numpy() for part in wide.chunk(3, -1)]
        found = attend(layer, *parts)
        x = x + block.attn.c_proj(found.reshape(len(positions), -1))
        x = x + block.mlp(block.ln_2(x))
    return trunk.ln_f(x)


def read(model, texts, every=False):
    refuse_texts(model, texts)
    logits, before = [], [len(cache) for cache, _ in texts]
    mode = model.training
    try:
        with no_grad():
            model.eval()
            for cache, new in texts:
                cache.reserve(len(new))

                def attend(layer, q, k, v, cache=cache):
                    keys, values = (from_numpy(part) for part in cache.put(layer, k, v))
                    return look_back(from_numpy(q), keys, values, window=cache.window)

                places = len(cache) + np.arange(len(new))
                ids, trunk = from_numpy(np.array(new)), model.transformer
                own = hasattr(trunk, "through")
                out = trunk.through(ids, places, attend) if own else through(trunk, ids, places, attend)
                logits.append(model.lm_head(out if every else out[-1:]).numpy())
    finally:
        model.train(mode)
    for (cache, new), length in zip(texts, before):
        cache.tokens[length:] = new
    return np.concatenate(logits)


def shared_length(one, other):
    for i, pair in enumerate(zip(one, other)):
        if pair[0] != pair[1]:
            return i
    return len(one) if len(one) < len(other) else len(other)


def unread(cache, text, context):
    if len(text) > context:
        text = text[len(text) - context :]
    text = list(text)
    both = shared_length(text, cache.tokens)
    cache.keep(both - (both == len(text)))
    del text[: len(cache)]
    return text


def multiply_adds_of_a_token(config, length):
    C, V, L = config.n_embd, config.vocab_size, config.n_layer
    attention = 4 * C * C + 2 * length * C
    mlp = 8 * C * C
    return L * (attention + mlp) + C * V


def cache_bytes(config, length, kv_heads=None, itemsize=4):
    if kv_heads is None:
        kv_heads = config.n_head
    key = config.n_embd // config.n_head * itemsize
    return (key + key) * kv_heads * config.n_layer * length


class GroupedQueryAttention:
    def projected(self, x, positions):
        parts = []
        for linear, heads in ((self.q_proj, self.heads), (self.k_proj, self.kv_heads), (self.v_proj, self.kv_heads)):
            y = linear(x)
            if linear is self.v_proj:
                parts.append(y.reshape(*y.shape[:-1], heads, self.size))
                continue
            pieces = [rotary(y[..., h * self.size : (h + 1) * self.size], positions, self.base) for h in range(heads)]
            parts.append(tt.stack(pieces, -2))
        return tuple(parts)


class Request:
    def take(self, logits):
        weights = next_probabilities(np.asarray(logits), **self.settings)
        self.text.append(int(self.random.choice(np.arange(len(weights)), p=weights)))
        left = self.max_new_tokens - len(self.tokens)
        if not left:
            self.ended = "length"
        if self.stop & {self.text[-1]}:
            self.ended = "stop"


class Batcher:
    def step(self):
        for request in list(self.waiting):
            if not self.free:
                break
            order = sorted(self.free, key=lambda c: shared_length(c.tokens, request.text), reverse=True)
            request.cache = order[0]
            self.free = [cache for cache in self.free if cache is not order[0]]
            self.waiting.popleft()
            self.active.append(request)
        moved = []
        for request in self.active:
            new = unread(request.cache, request.text, self.model.config.block_size)
            (logits,) = read(self.model, [(request.cache, new[: self.piece])])
            if not new[self.piece :]:
                request.take(logits)
                moved.append(request)
        self._release()
        return moved


def best_of(model, prompt, count, max_new_tokens, *, seed=0, **how):
    caches = [KVCache.of(model)]
    if len(prompt) > 1:
        read(model, [(caches[0], list(prompt)[:-1])])
    while len(caches) < count:
        caches.append(caches[0].copy())
    batcher, found = Batcher(model, caches=caches), []
    for i in range(count):
        request = batcher.submit(prompt, max_new_tokens, seed=(seed, i), **how)
        while request.ended is None:
            batcher.step()
        found.append(request.text)
    return sorted(found, key=lambda text: sum(surprises(model, text)[len(prompt) - 1 :]) / (len(text) - len(prompt)))
