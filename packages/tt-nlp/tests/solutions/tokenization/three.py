"""Chapter 11 with bytes kept by hand, counts taken anew at a pair's places, and regular expressions."""


def pair_counts(words, counts):
    flat = [(pair, count) for word, count in zip(words, counts) for pair in zip(word[:-1], word[1:])]
    total = dict.fromkeys((pair for pair, _ in flat), 0)
    for pair, count in flat:
        total[pair] += count
    return total


def merged(ids, pair, new):
    out = list(ids)
    place = 0
    while place < len(out) - 1:
        if tuple(out[place : place + 2]) == tuple(pair):
            out[place : place + 2] = [new]
        place += 1
    return out


def learn_slowly(words):
    tokens, corpus = BYTES[:], [[list(word), count] for word, count in words.items()]

    def best():
        found = pair_counts([ids for ids, _ in corpus], [count for _, count in corpus])
        heap = [(-count, a, b) for (a, b), count in found.items() if count > 1]
        return heapq.nsmallest(1, heap)

    while chosen := best():
        ((_, a, b),) = chosen
        for entry in corpus:
            entry[0] = merged(entry[0], (a, b), len(tokens))
        tokens += [tokens[a] + tokens[b]]
        yield tokens[-1]


def predict_tokens():
    return [b"aaab"[:2], b"aaab"[2:], b"aaab"]


class Corpus:
    def replace(self, pair, new):
        places = self.places.pop(pair)
        places.sort()
        left, right = defaultdict(list), defaultdict(list)
        for place in places:
            gone = self.after[place]
            if self.tokens[place] != pair[0] or self.tokens[gone] != pair[1]:
                continue
            ends = [self.before[place], self.after[gone]]
            self.tokens[place] = new
            self.tokens[gone] = GONE
            self.after[place] = ends[1]
            self.before[ends[1]] = place
            left[self.tokens[ends[0]]] += [ends[0]]
            right[self.tokens[ends[1]]] += [place]
        return dict(left), dict(right)

    def merge(self, pair, new):
        left, right = self.replace(pair, new)
        left.pop(END, None)
        right.pop(END, None)
        self.counts.pop(pair, None)
        touched = set()
        for token in right:
            weight = sum(self.weight[place] for place in right[token])
            if (pair[1], token) in self.counts:
                self.counts[pair[1], token] -= weight
            if weight > 1:
                touched.add((new, token))
                self.places[new, token] += right[token]
                self.counts[new, token] += weight
        for token in left:
            weight = sum(self.weight[place] for place in left[token])
            if (token, pair[0]) in self.counts:
                self.counts[token, pair[0]] -= weight
            if weight > 1:
                touched.add((token, new))
                self.places[token, new] += left[token]
                self.counts[token, new] += weight
        return touched


def learn(words):
    corpus = Corpus(words)
    tokens = [*BYTES]
    by_count = defaultdict(list)  # one heap of pairs for each count
    top = 0

    def enter(pair):
        nonlocal top
        count = corpus.counts.get(pair, 0)
        if count >= 2:
            heapq.heappush(by_count[count], pair)
            top = max(top, count)

    for pair in list(corpus.counts):
        enter(pair)
    while top >= 2:
        if not by_count.get(top):
            by_count.pop(top, None)
            top = max(by_count, default=0)
            continue
        pair = heapq.heappop(by_count[top])
        if corpus.counts.get(pair, 0) != top:
            enter(pair)
            continue
        left, right = (tokens[part] for part in pair)
        tokens += [left + right]
        for other in corpus.merge(pair, tokens.index(left + right)):
            enter(other)
        yield left + right


def encode_word(word, ranks):
    from functools import reduce

    parts = [word[i : i + 1] for i in range(len(word))]

    def best():
        found = None
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1])
            if rank is not None and (found is None or rank < found[0]):
                found = rank, i
        return found

    while (choice := best()) is not None:
        i = choice[1]
        parts[i] = parts[i] + parts.pop(i + 1)
    return reduce(lambda ids, part: [*ids, ranks[part]], parts, [])


class WordCache:
    def __missing__(self, word):
        size = len(data := word.encode("utf-8"))
        try:
            ids = [self.ranks[data]]
        except KeyError:
            ids = (encode_long_word if size > LONG else encode_word)(data, self.ranks)
        if size > LONG:
            return tuple(ids)
        while len(self) >= REMEMBERED:
            self.clear()
        return self.setdefault(word, tuple(ids))


class Vocabulary:
    def decode_stream(self, ids):
        kept = b""

        def finished(data):
            """The length of what can be read by now: all but the beginning of a character that may still come."""
            for back in range(1, min(4, len(data)) + 1):
                first = data[-back]
                if first >= 0xC0:
                    try:
                        data[-back:].decode()
                    except UnicodeDecodeError as error:
                        return len(data) - back if error.reason == "unexpected end of data" else len(data)
                if first < 0x80 or first >= 0xC0:
                    return len(data)
            return len(data)

        for number in ids:
            kept += self.token_bytes(number)
            size = finished(kept)
            text, kept = kept[:size].decode("utf-8", "replace"), kept[size:]
            if text != "":
                yield text
        if kept:
            yield kept.decode("utf-8", "replace")


class Encoder:
    def encode_ordinary(self, text):
        refuse_surrogates(text)
        words = (word for piece in pieces(text) for word in split(piece, self.pattern))
        return list(chain.from_iterable(self._words[word] for word in words))

    def encode(self, text, *, allowed_special=(), disallowed_special="all"):
        known = dict(self.special_tokens)
        allowed = {*known} if allowed_special == "all" else {*allowed_special}
        strange = sorted(name for name in allowed if name not in known)
        if strange:
            raise ValueError(f"the tokenizer has no special token {strange[0]!r}")
        refused = {*known} - allowed if disallowed_special == "all" else {*disallowed_special}
        if refused and (match := re.search("|".join(map(re.escape, sorted(refused))), text)):
            raise ValueError(f"{match[0]!r} at {match.start()} is a special token, and nobody has allowed it")
        ids, special = [], False
        for part in at_special(text, sorted(allowed)):
            ids += [known[part]] if special else self.encode_ordinary(part)
            special = not special
        return ids


def truncated(tokenizer, vocab_size):
    special = [name for name, _ in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])]
    if vocab_size > tokenizer.vocab_size or vocab_size < 256 + len(special):
        raise ValueError(f"{vocab_size} is too many or too few")
    dropped = tokenizer.vocab_size - vocab_size
    return BPETokenizer(tokenizer.tokens[: len(tokenizer.tokens) - dropped], special, tokenizer.pattern)
