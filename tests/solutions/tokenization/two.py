"""Chapter 11 by comprehensions, iterators and a linked list."""


class CharTokenizer:
    def encode(self, text):
        unknown = [(place, c) for place, c in enumerate(text) if c not in self.numbers]
        if unknown:
            place, character = unknown[0]
            raise ValueError(f"{len(unknown)} characters have no number, the first is {character!r} at place {place}")
        return list(map(self.numbers.get, text))


def pair_counts(words, counts):
    total = Counter()
    for word, count in zip(words, counts):
        total.update({pair: count * n for pair, n in Counter(pairwise(word)).items()})
    return dict(total)


def merged(ids, pair, new):
    out, waiting = [], []
    for number in ids:
        if waiting and number == pair[1]:
            out.append(new)
            waiting = []
            continue
        out += waiting
        waiting = []
        if number == pair[0]:
            waiting = [number]
        else:
            out.append(number)
    return out + waiting


class Corpus:
    def merge(self, pair, new):
        a, b = pair
        fresh = defaultdict(list)
        for i in sorted(self.places.pop(pair)):
            j = self.after[i]
            if self.tokens[i] == a and self.tokens[j] == b:
                h, k = self.before[i], self.after[j]
                for gone, formed, place in (
                    ((self.tokens[h], a), (self.tokens[h], new), h),
                    ((b, self.tokens[k]), (new, self.tokens[k]), i),
                ):
                    if END not in gone:
                        self.counts[gone] -= self.weight[i]
                        self.counts[formed] += self.weight[i]
                        fresh[formed].append(place)
                self.tokens[i] = new
                self.tokens[j] = GONE
                self.after[i], self.before[k] = k, i
        self.counts.pop(pair)
        for formed, where in fresh.items():
            self.places[formed].extend(where)
        return set(fresh)


def learn(words):
    corpus = Corpus(words)
    tokens = dict(enumerate(BYTES))
    heap = sorted((-count, pair) for pair, count in corpus.counts.items())
    while heap:
        count, pair = heap[0]
        now = corpus.counts.get(pair, 0)
        if -count != now:
            heapq.heapreplace(heap, (-now, pair)) if now > 1 else heapq.heappop(heap)
            continue
        heapq.heappop(heap)
        if now < 2:
            continue
        new = max(tokens) + 1
        tokens[new] = tokens[pair[0]] + tokens[pair[1]]
        yield tokens[new]
        for other in sorted(corpus.merge(pair, new)):
            heapq.heappush(heap, (-corpus.counts[other], other))


def encode_word(word, ranks):
    ids = [ranks[word[i : i + 1]] for i in range(len(word))]
    names = {number: token for token, number in ranks.items()} if len(word) > 1 else {}
    while True:
        options = [
            (ranks[names[a] + names[b]], i) for i, (a, b) in enumerate(pairwise(ids)) if names[a] + names[b] in ranks
        ]
        if not options:
            return ids
        number, i = min(options)
        ids[i : i + 2] = [number]


class Vocabulary:
    def decode(self, ids, errors="replace"):
        import io

        return io.TextIOWrapper(io.BytesIO(self.decode_bytes(ids)), encoding="utf-8", errors=errors, newline="").read()

    def decode_stream(self, ids):
        arriving = (self.token_bytes(number) for number in ids)
        yield from filter(None, codecs.iterdecode(arriving, "utf-8", errors="replace"))


class Encoder:
    def encode(self, text, *, allowed_special=(), disallowed_special="all"):
        names = set(self.special_tokens)
        allowed = names if isinstance(allowed_special, str) else set(allowed_special)
        if not allowed <= names:
            raise ValueError(f"unknown special tokens: {allowed - names}")
        forbidden = names - allowed if isinstance(disallowed_special, str) else disallowed_special
        if any(map(text.__contains__, forbidden)):
            raise ValueError(f"the text has one of the special tokens {set(forbidden)}; allow it, or disallow none")
        parts = at_special(text, allowed)
        pieces_of_ids = [self.encode_ordinary(part) for part in parts[0::2]]
        numbers = [[self.special_tokens[name]] for name in parts[1::2]] + [[]]
        return list(chain.from_iterable(a + b for a, b in zip(pieces_of_ids, numbers)))


def bytes_per_token(tokenizer, text):
    try:
        return len(text.encode("utf-8")) / len(tokenizer.encode(text, disallowed_special=()))
    except ZeroDivisionError:
        raise ValueError("give a text that is not empty") from None


def truncated(tokenizer, vocab_size):
    names = tuple(tokenizer.special_tokens)
    kept = list(islice(tokenizer.tokens, max(0, vocab_size - len(names))))
    if len(kept) < 256 or len(kept) + len(names) != vocab_size:
        raise ValueError(f"a tokenizer of {tokenizer.vocab_size} cannot be cut to {vocab_size}")
    return type(tokenizer)(kept, names, tokenizer.pattern)
