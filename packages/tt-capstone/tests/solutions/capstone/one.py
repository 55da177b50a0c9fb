"""Chapter 20, step by step, with loops."""


class LlamaBlock:
    def forward(self, x):
        normed = self.input_layernorm(x)
        x = self.self_attn(normed) + x
        normed = self.post_attention_layernorm(x)
        return self.mlp(normed) + x


class LlamaTransformer:
    def through(self, ids, positions, attend):
        x = self.embed_tokens(ids)
        number = 0
        for block in self.layers:
            parts = block.self_attn.projected(block.input_layernorm(x), positions)
            arrays = [part.numpy() for part in parts]
            found = attend(number, *arrays)
            x = x + block.self_attn.o_proj(found.reshape(len(ids), -1))
            x = x + block.mlp(block.post_attention_layernorm(x))
            number += 1
        return self.norm(x)


def llama_parameters(config):
    width = config.n_embd
    size = width // config.n_head
    block = width * width  # queries
    block += 2 * width * size * config.n_kv_head  # keys, values
    block += width * width  # the output
    block += 3 * width * config.n_hidden
    block += 2 * width  # norms
    count = config.n_layer * block + width + config.vocab_size * width
    if not config.tied:
        count += config.vocab_size * width
    return count


def neighbours(rows, heads):
    D = len(rows) // heads
    found = np.empty_like(rows)
    for head in range(heads):
        own = slice(head * D, (head + 1) * D)
        found[own][0::2] = rows[own][: D // 2]
        found[own][1::2] = rows[own][D // 2 :]
    return found


def halves(rows, heads):
    D = len(rows) // heads
    found = np.empty_like(rows)
    for head in range(heads):
        own = slice(head * D, (head + 1) * D)
        found[own][: D // 2] = rows[own][0::2]
        found[own][D // 2 :] = rows[own][1::2]
    return found


class FileTokenizer:
    def encode_ordinary(self, text):
        refuse_surrogates(text)
        if any(byte in self.missing for byte in text.encode()):
            ids = []
            for word in split(text, self.pattern):
                left = bytes(byte for byte in word.encode() if byte not in self.missing)
                ids.extend(encode_long_word(left, self.ranks))
        else:
            ids = Encoder.encode_ordinary(self, text)
        return [self.numbers[token] for token in ids]


def laid_out(messages, template):
    if template is None:
        text = ""
        for message in messages:
            text += message["content"] + "\n"
        return text
    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    sandbox.globals.update(raise_exception=refuse_chat)
    try:
        program = sandbox.from_string(template)
        return program.render(messages=list(messages), add_generation_prompt=True)
    except Exception as error:
        raise ValueError(f"this chat does not fit its template: {error}") from error


class LanguageModel:
    def chat_prompt(self, messages):
        names = list(self.tokenizer.special_tokens) if hasattr(self.tokenizer, "special_tokens") else []

        def harmless(text):
            for name in names:
                text = text.replace(name, name[0] + "\u200b" + name[1:])
            return text

        messages = [{**message, "content": harmless(message["content"])} for message in messages]
        return self.prompt(laid_out(messages, self.template), True)

    def answer(self, messages, max_new_tokens=512, *, cache=None, **how):
        prompt = self.chat_prompt(messages)

        def tokens():
            for token in stream(self.model, prompt, max_new_tokens, cache=cache, stop=self.stop, **how):
                if token in self.stop:
                    return
                yield token

        return self.tokenizer.decode_stream(tokens())


def bytes_of_a_token(model, length):
    config = model.config
    total = model_bytes(model)
    numbers_of_a_key = config.n_embd // config.n_head * config.n_kv_head
    for _ in range(config.n_layer):
        total += 2 * length * numbers_of_a_key * 4
    if not config.tied:
        table = model.model.embed_tokens
        whole = table.rows.nbytes if isinstance(table, Quantized) else table.weight.nbytes
        total -= whole - whole // config.vocab_size
    return total


def recent(chat, messages, room):
    messages = list(messages)
    while True:
        size = len(chat.chat_prompt(messages))
        if size + room <= chat.model.config.block_size:
            return messages
        oldest = 1 if messages[0]["role"] == "system" else 0
        if oldest >= len(messages) - 1:
            raise ValueError(f"{size} tokens are too long, with {room} more to come")
        messages.pop(oldest)


def least_surprising(chat, messages, answers):
    prompt = chat.chat_prompt(messages)
    best, least = 0, np.inf
    for number, answer in enumerate(answers):
        tokens = chat.prompt(answer)
        text = prompt + tokens
        logits = read(chat.model, [(KVCache.of(chat.model), text[:-1])], every=True)
        surprise = 0.0
        for place in range(len(prompt), len(text)):
            row = logits[place - 1].astype(np.float64)
            row -= row.max()
            surprise += np.log(np.exp(row).sum()) - row[text[place]]
        if surprise / len(tokens) < least:
            best, least = number, surprise / len(tokens)
    return best
