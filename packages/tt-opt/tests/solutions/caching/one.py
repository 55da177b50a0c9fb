"""Chapter 16, step by step: plain names, one operation a line."""


class KVCache:
    def reserve(self, new):
        held = len(self.tokens) - self.first
        if self.keys.shape[1] >= held + new:
            return
        dropped = 0
        if self.window is not None:
            dropped = max(held - (self.window - 1), 0)
        blocks = (held - dropped + new + BLOCK - 1) // BLOCK
        layers, _, heads, size = self.keys.shape
        keys = np.zeros((layers, blocks * BLOCK, heads, size), self.keys.dtype)
        values = np.zeros_like(keys)
        keys[:, : held - dropped] = self.keys[:, dropped:held]
        values[:, : held - dropped] = self.values[:, dropped:held]
        self.keys, self.values = keys, values
        self.first += dropped

    def put(self, layer, keys, values):
        start = len(self.tokens) - self.first
        for i in range(len(keys)):
            self.keys[layer, start + i] = keys[i]
            self.values[layer, start + i] = values[i]
        stop = start + len(keys)
        return self.keys[layer][:stop], self.values[layer][:stop]

    def keep(self, length):
        if self.window is not None and self.first > 0:
            needed = length - (self.window - 1)
            if needed < self.first:
                self.tokens, self.first = [], 0
                return
        self.tokens = self.tokens[:length]


def look_back(q, keys, values, /, window=None):
    count, heads, size = q.shape
    length, groups, _ = keys.shape
    out = np.empty_like(q)
    for head in range(heads):
        group = head // (heads // groups)
        for i in range(count):
            last = length - count + i
            first = 0 if window is None else max(0, last - window + 1)
            scores = keys[first : last + 1, group] @ q[i, head] / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            out[i, head] = weights / weights.sum() @ values[first : last + 1, group]
    return out


def through(trunk, ids, positions, attend):
    x = trunk.wte(ids) + trunk.wpe(from_numpy(np.asarray(positions)))
    number = 0
    for block in trunk.h:
        both = block.attn.c_attn(block.ln_1(x)).numpy()
        queries, keys, values = np.split(both, 3, axis=1)
        shape = (len(both), block.attn.n_head, queries.shape[1] // block.attn.n_head)
        found = attend(number, queries.reshape(shape), keys.reshape(shape), values.reshape(shape))
        x = x + block.attn.c_proj(found.reshape(len(both), -1))
        x = x + block.mlp(block.ln_2(x))
        number += 1
    return trunk.ln_f(x)


def read(model, texts, every=False):
    refuse_texts(model, texts)
    positions, ids, places, ends = [], [], [], []
    for cache, new in texts:
        cache.reserve(len(new))
        places.append(slice(len(ids), len(ids) + len(new)))
        positions += range(len(cache), len(cache) + len(new))
        ids += list(new)
        ends.append(len(ids) - 1)

    def attend(layer, q, k, v):
        out = np.empty_like(q)
        for (cache, _), place in zip(texts, places):
            keys, values = cache.put(layer, k[place], v[place])
            found = look_back(from_numpy(q[place]), from_numpy(keys), from_numpy(values), window=cache.window)
            out[place] = found.numpy()
        return from_numpy(out)

    training = model.training
    model.eval()
    try:
        with no_grad():
            trunk = model.transformer
            if hasattr(trunk, "through"):
                stream = trunk.through(from_numpy(np.array(ids)), np.array(positions), attend)
            else:
                stream = through(trunk, from_numpy(np.array(ids)), np.array(positions), attend)
            logits = model.lm_head(stream).numpy()
    finally:
        model.train(training)
    for cache, new in texts:
        cache.tokens += [int(token) for token in new]
    return logits if every else logits[ends]


def shared_length(one, other):
    count = 0
    while count < len(one) and count < len(other) and one[count] == other[count]:
        count += 1
    return count


def unread(cache, text, context):
    wanted = [int(token) for token in text][-context:]
    common = shared_length(cache.tokens, wanted)
    if common == len(wanted):
        common -= 1
    cache.keep(common)
    return wanted[len(cache.tokens) :]


def multiply_adds_of_a_token(config, length):
    weights = 12 * config.n_embd**2
    attention = 2 * config.n_embd * length
    return config.n_layer * (weights + attention) + config.n_embd * config.vocab_size


def cache_bytes(config, length, kv_heads=None, itemsize=4):
    heads = config.n_head if kv_heads is None else kv_heads
    numbers = heads * (config.n_embd // config.n_head)
    return config.n_layer * length * numbers * 2 * itemsize


class GroupedQueryAttention:
    def projected(self, x, positions):
        shape = tuple(x.shape[:-1])
        q = self.q_proj(x).reshape(*shape, self.heads, self.size)
        k = self.k_proj(x).reshape(*shape, self.kv_heads, self.size)
        v = self.v_proj(x).reshape(*shape, self.kv_heads, self.size)
        q, k = (self.rotated(part, positions) for part in (q, k))
        return q, k, v


class Request:
    def take(self, logits):
        p = next_probabilities(logits, **self.settings)
        token = int(self.random.choice(len(p), p=p))
        self.text.append(token)
        if len(self.tokens) >= self.max_new_tokens:
            self.ended = "length"
        if token in self.stop:
            self.ended = "stop"


class Batcher:
    def step(self):
        while self.free and self.waiting:
            request = self.waiting.popleft()
            best = 0
            for i, cache in enumerate(self.free):
                if shared_length(cache.tokens, request.text) > shared_length(self.free[best].tokens, request.text):
                    best = i
            request.cache = self.free.pop(best)
            self.active.append(request)
        if not self.active:
            return []
        texts, last = [], []
        for request in self.active:
            new = unread(request.cache, request.text, self.model.config.block_size)
            texts.append((request.cache, new[: self.piece]))
            last.append(len(new) <= self.piece)
        moved = []
        for request, logits, complete in zip(self.active, read(self.model, texts), last):
            if complete:
                request.take(logits)
                moved.append(request)
        self._release()
        return moved


def best_of(model, prompt, count, max_new_tokens, *, seed=0, **how):
    shared = KVCache.of(model)
    beginning = unread(shared, prompt, model.config.block_size)[:-1]
    if beginning:
        read(model, [(shared, beginning)])
    batcher = Batcher(model, caches=[shared.copy() for _ in range(count)])
    requests = []
    for i in range(count):
        requests.append(batcher.submit(prompt, max_new_tokens, seed=(seed, i), **how))
    batcher.run()
    scored = []
    for request in requests:
        new = surprises(model, request.text)[len(prompt) - 1 :]
        scored.append((sum(new) / len(new), request.text))
    scored.sort(key=lambda pair: pair[0])
    return [text for _, text in scored]
