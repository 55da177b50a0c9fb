"""Chapter 20 with generators, filters, and one pass for all answers."""


class LlamaBlock:
    def forward(self, x):
        found = self.self_attn(self.input_layernorm(x))
        return (x + found) + self.mlp(self.post_attention_layernorm(x + found))


class LlamaTransformer:
    def through(self, ids, positions, attend):
        x, layer = self.embed_tokens(ids), -1
        for layer, block in enumerate(self.layers, start=0):
            attention = block.self_attn
            q, k, v = (np.asarray(p.numpy()) for p in attention.projected(block.input_layernorm(x), positions))
            h = x + attention.o_proj(attend(layer, q, k, v).reshape(x.shape[0], x.shape[1]))
            x = h + block.mlp(block.post_attention_layernorm(h))
        return self.norm(x)


def llama_parameters(config):
    tables = 1 + (not config.tied)
    share = config.n_kv_head / config.n_head
    block = config.n_embd * (round(config.n_embd * (2 + 2 * share)) + 3 * config.n_hidden + 2)
    return block * config.n_layer + config.n_embd * (tables * config.vocab_size + 1)


def neighbours(rows, heads):
    parts = np.split(rows, 2 * heads)
    pairs = [np.stack([one, other], axis=1) for one, other in zip(parts[0::2], parts[1::2])]
    return np.concatenate([pair.reshape(-1, *rows.shape[1:]) for pair in pairs])


def halves(rows, heads):
    return np.concatenate([part[start::2] for part in np.split(rows, heads) for start in (0, 1)])


class FileTokenizer:
    def encode_ordinary(self, text):
        refuse_surrogates(text)
        gone = frozenset(self.missing)
        if not gone.intersection(text.encode()):
            return list(map(self.numbers.__getitem__, super().encode_ordinary(text)))

        def tokens():
            for word in split(text, self.pattern):
                left = bytes(filter(lambda byte: byte not in gone, word.encode()))
                yield from encode_long_word(left, self.ranks)

        return [*map(self.numbers.__getitem__, tokens())]


def laid_out(messages, template):
    if template is None:
        return "\n".join([*(message["content"] for message in messages), ""])
    try:
        box = ImmutableSandboxedEnvironment(lstrip_blocks=True, trim_blocks=True)
        given = {"messages": list(messages), "add_generation_prompt": True, "raise_exception": refuse_chat}
        return box.from_string(template).render(**given)
    except Exception as why:
        raise ValueError(f"the template says: {why}") from why


class LanguageModel:
    def chat_prompt(self, messages):
        from functools import reduce

        names = getattr(self.tokenizer, "special_tokens", {})

        def apart(text, name):
            return f"{name[0]}\u200b{name[1:]}".join(text.split(name))

        contents = [reduce(apart, names, message["content"]) for message in messages]
        plain = [{"role": message["role"], "content": content} for message, content in zip(messages, contents)]
        return self.prompt(laid_out(plain, self.template), special=True)

    def answer(self, messages, max_new_tokens=512, *, cache=None, **how):
        how = {**how, "cache": cache, "stop": self.stop}
        tokens = iter(stream(self.model, self.chat_prompt(messages), max_new_tokens, **how))
        return self.tokenizer.decode_stream(filter(lambda token: token not in self.stop, tokens))


def bytes_of_a_token(model, length):
    config = model.config
    seen = 8 * length * config.n_layer * config.n_kv_head * config.n_embd // config.n_head
    if config.tied:
        return seen + model_bytes(model)
    looked_up = model.model.embed_tokens
    row = model_bytes(looked_up) // config.vocab_size
    return seen + model_bytes(model) - model_bytes(looked_up) + row


def recent(chat, messages, room):
    def size(kept):
        return len(chat.chat_prompt(kept)) + room

    whole, limit = [*messages], chat.model.config.block_size
    system = [*whole[:1]] if whole and whole[0]["role"] == "system" else []
    talk = whole[len(system) :]
    while size(system + talk) > limit and len(talk) > 1:
        talk = talk[1:]
    if size(system + talk) > limit:
        raise ValueError(f"the shortest prompt takes {size(system + talk)} tokens with the room, of {limit}")
    return system + talk


def least_surprising(chat, messages, answers):
    prompt = chat.chat_prompt(messages)
    texts = [chat.prompt(answer) for answer in answers]
    rows = read(chat.model, [(KVCache.of(chat.model), prompt + text[:-1]) for text in texts], every=True)
    ends = np.cumsum([len(prompt) + len(text) - 1 for text in texts])
    costs = []
    for end, text in zip(ends, texts):
        own = rows[end - len(text) : end].astype(np.float64)
        own -= np.max(own, axis=1, keepdims=True)
        chosen = np.take_along_axis(own, np.array(text)[:, None], axis=1)[:, 0]
        costs.append(float((np.log(np.sum(np.exp(own), axis=1)) - chosen).mean()))
    return costs.index(min(costs))
