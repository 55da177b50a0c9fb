"""Chapter 11 by comprehensions, iterators and a linked list."""


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


def learn_slowly(words):
    tokens = dict(enumerate(BYTES))
    ids = [tuple(word) for word in words]
    for new in range(256, 1 << 30):
        found = sorted(pair_counts(ids, [*words.values()]).items(), key=lambda item: (-item[1], item[0]))
        if not found or found[0][1] == 1:
            return
        (a, b), _ = found[0]
        tokens[new] = tokens[a] + tokens[b]
        yield tokens[new]
        ids = [tuple(merged(word, (a, b), new)) for word in ids]


def predict_tokens():
    first, second = b"a" + b"a", b"a" + b"b"
    return [first, second, first + second]


class Corpus:
    def replace(self, pair, new):
        sides = defaultdict(list), defaultdict(list)
        a, b = pair
        for i in sorted(self.places.pop(pair)):
            j = self.after[i]
            if self.tokens[i] == a and self.tokens[j] == b:
                h, k = self.before[i], self.after[j]
                for side, neighbour, place in zip(sides, (h, k), (h, i)):
                    side[self.tokens[neighbour]].append(place)
                self.tokens[i] = new
                self.tokens[j] = GONE
                self.after[i], self.before[k] = k, i
        return sides

    def merge(self, pair, new):
        left, right = self.replace(pair, new)
        fresh = {}
        for y, where in right.items():
            fresh[new, y] = ((pair[1], y), where)
        for x, where in left.items():
            fresh[x, new] = ((x, pair[0]), where)
        for formed, (gone, where) in fresh.items():
            if END in formed:
                continue
            weight = sum(self.weight[place] for place in where)
            self.counts.update({gone: self.counts[gone] - weight} if gone in self.counts else {})
            if weight != 1:
                self.counts[formed] = weight
                self.places[formed].extend(where)
        self.counts.pop(pair)
        return {formed for formed in fresh if formed in self.counts}


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


class WordCache:
    def __missing__(self, word):
        data = word.encode()
        how = encode_long_word if len(data) > LONG else encode_word
        ids = (self.ranks[data],) if data in self.ranks else (*how(data, self.ranks),)
        if len(data) <= LONG:
            if not len(self) < REMEMBERED:
                for known in list(self):
                    del self[known]
            self.update({word: ids})
        return ids


class Vocabulary:
    def decode_stream(self, ids):
        arriving = (self.token_bytes(number) for number in ids)
        yield from filter(None, codecs.iterdecode(arriving, "utf-8", errors="replace"))


class Encoder:
    def encode_ordinary(self, text):
        refuse_surrogates(text)
        return [number for piece in pieces(text) for word in split(piece, self.pattern) for number in self._words[word]]

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


def truncated(tokenizer, vocab_size):
    names = tuple(tokenizer.special_tokens)
    kept = list(islice(tokenizer.tokens, max(0, vocab_size - len(names))))
    if len(kept) < 256 or len(kept) + len(names) != vocab_size:
        raise ValueError(f"a tokenizer of {tokenizer.vocab_size} cannot be cut to {vocab_size}")
    return type(tokenizer)(kept, names, tokenizer.pattern)
