"""Chapter 20 by index tables and what earlier chapters have."""


class LlamaBlock:
    def forward(self, x):
        for norm, part in ((self.input_layernorm, self.self_attn), (self.post_attention_layernorm, self.mlp)):
            x = x + part(norm(x))
        return x


class LlamaTransformer:
    def through(self, ids, positions, attend):
        stream = self.embed_tokens(ids)
        for layer in range(len(self.layers)):
            block = self.layers[layer]
            q, k, v = block.self_attn.projected(block.input_layernorm(stream), positions)
            heads = attend(layer, q.numpy(), k.numpy(), v.numpy())
            stream = block.self_attn.o_proj(heads.flatten(start_dim=1)) + stream
            stream = block.mlp(block.post_attention_layernorm(stream)) + stream
        return self.norm(stream)


def llama_parameters(config):
    V, C, M = config.vocab_size, config.n_embd, config.n_hidden
    keys = C // config.n_head * config.n_kv_head
    rows_and_columns = [(C, C), (keys, C), (keys, C), (C, C), (M, C), (M, C), (C, M), (2, C)]
    tables = [(V, C)] if config.tied else [(V, C)] * 2
    return sum(a * b for a, b in rows_and_columns * config.n_layer + tables) + C


def neighbours(rows, heads):
    D = len(rows) // heads
    order = np.stack([np.arange(D // 2), np.arange(D // 2) + D // 2], axis=1).ravel()
    return rows[(np.arange(heads)[:, None] * D + order).ravel()]


def halves(rows, heads):
    D = len(rows) // heads
    order = np.concatenate([np.arange(0, D, 2), np.arange(1, D, 2)])
    return rows[(D * np.arange(heads)[:, None] + order).ravel()]


class FileTokenizer:
    def encode_ordinary(self, text):
        refuse_surrogates(text)
        numbers = np.array(self.numbers, int)
        if set(text.encode()).isdisjoint(self.missing):
            return numbers[super().encode_ordinary(text)].tolist() if text else []
        found = []
        for word in split(text, self.pattern):
            found += encode_long_word(word.encode().translate(None, delete=self.missing), self.ranks)
        return numbers[np.array(found, int)].tolist()


def laid_out(messages, template):
    lines = "{% for message in messages %}{{ message.content + '\\n' }}{% endfor %}"
    options = {"trim_blocks": True, "lstrip_blocks": True}
    environment = ImmutableSandboxedEnvironment(**options)
    try:
        made = environment.from_string(lines if template is None else template, {"raise_exception": refuse_chat})
        return made.render({"messages": [*messages], "add_generation_prompt": True})
    except Exception as problem:
        raise ValueError(f"{type(problem).__name__} in the chat template: {problem}") from None


class LanguageModel:
    def chat_prompt(self, messages):
        import re

        names = sorted(getattr(self.tokenizer, "special_tokens", ()), key=len, reverse=True)

        def apart(content):
            if not names:
                return content
            return re.sub("|".join(map(re.escape, names)), lambda found: found[0][0] + "\u200b" + found[0][1:], content)

        shown = [{"role": message["role"], "content": apart(message["content"])} for message in messages]
        return self.prompt(laid_out(shown, self.template), special=True)

    def answer(self, messages, max_new_tokens=512, *, cache=None, **how):
        from itertools import takewhile

        written = stream(self.model, self.chat_prompt(messages), max_new_tokens, stop=self.stop, cache=cache, **how)
        return self.tokenizer.decode_stream(takewhile(lambda token: token not in self.stop, written))


def bytes_of_a_token(model, length):
    one = KVCache.of(model)
    one.reserve(1)
    room = one.keys.shape[1]
    cache = one.nbytes * length // room
    table = model.model.embed_tokens
    numbers = table.rows if isinstance(table, Quantized) else table.weight
    unused = 0 if model.config.tied else (len(numbers) - 1) * numbers[0].nbytes
    return model_bytes(model) + cache - unused


def recent(chat, messages, room):
    messages = list(messages)
    first = [m for m in messages[:1] if m["role"] == "system"]
    rest = messages[len(first) :]
    for start in range(max(len(rest), 1)):
        kept = first + rest[start:]
        if len(chat.chat_prompt(kept)) + room <= chat.model.config.block_size:
            return kept
    raise ValueError(f"not even the last message leaves room for {room} tokens in {chat.model.config.block_size}")


def least_surprising(chat, messages, answers):
    prompt = chat.chat_prompt(messages)
    start = KVCache.of(chat.model)
    (first,) = read(chat.model, [(start, prompt)])

    def cost(answer):
        tokens, rows = chat.prompt(answer), first[None]
        if len(tokens) > 1:
            more = read(chat.model, [(start.copy(), tokens[:-1])], every=True)
            rows = np.concatenate([rows, more])
        chances = tt.log_softmax(from_numpy(rows.astype(np.float64)), dim=-1).numpy()
        return -np.mean([row[token] for row, token in zip(chances, tokens)])

    return min(range(len(answers)), key=lambda number: cost(answers[number]))
