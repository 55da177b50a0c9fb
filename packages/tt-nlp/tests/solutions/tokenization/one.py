"""Chapter 11 by walking through lists with an index, and by asking again."""


def pair_counts(words, counts):
    total = {}
    for i in range(len(words)):
        for j in range(len(words[i]) - 1):
            pair = (words[i][j], words[i][j + 1])
            total[pair] = total.get(pair, 0) + counts[i]
    return total


def merged(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def learn_slowly(words):
    ids = {word: list(word) for word in words}
    tokens = list(BYTES)
    while True:
        found = pair_counts(list(ids.values()), [words[word] for word in ids])
        if not found or max(found.values()) < 2:
            break
        often = max(found.values())
        pair = min(pair for pair in found if found[pair] == often)
        for word in ids:
            ids[word] = merged(ids[word], pair, len(tokens))
        token = tokens[pair[0]] + tokens[pair[1]]
        tokens.append(token)
        yield token


def predict_tokens():
    return [bytes([97, 97]), bytes([97, 98]), bytes([97, 97, 97, 98])]


class Corpus:
    def replace(self, pair, new):
        left, right = {}, {}
        for place in sorted(set(self.places[pair])):
            following = self.after[place]
            if (self.tokens[place], self.tokens[following]) != pair:
                continue
            behind, ahead = self.before[place], self.after[following]
            self.tokens[place] = new
            self.tokens[following] = GONE
            self.after[place] = ahead
            self.before[ahead] = place
            left.setdefault(self.tokens[behind], []).append(behind)
            right.setdefault(self.tokens[ahead], []).append(place)
        self.places.pop(pair)
        return left, right

    def merge(self, pair, new):
        found = set()

        def change(gone, formed, places):
            weight = 0
            for place in places:
                weight += self.weight[place]
            if gone in self.counts:
                self.counts[gone] -= weight
            if weight >= 2:
                self.counts[formed] = weight
                self.places[formed] = list(places)
                found.add(formed)

        left, right = self.replace(pair, new)
        for token, places in right.items():
            if token != END:
                change((pair[1], token), (new, token), places)
        for token, places in left.items():
            if token != END:
                change((token, pair[0]), (token, new), places)
        self.counts.pop(pair)
        return found


def learn(words):
    corpus = Corpus(words)
    tokens = list(BYTES)
    heap = []
    for pair in corpus.counts:
        heapq.heappush(heap, (-corpus.counts[pair], *pair))
    while heap:
        count, a, b = heapq.heappop(heap)
        if -count < 2:
            return
        today = corpus.counts.get((a, b), 0)
        if today != -count:
            if today:
                heapq.heappush(heap, (-today, a, b))
            continue
        tokens.append(tokens[a] + tokens[b])
        for pair in corpus.merge((a, b), len(tokens) - 1):
            heapq.heappush(heap, (-corpus.counts[pair], *pair))
        yield tokens[-1]


def encode_word(word, ranks):
    parts = [bytes([value]) for value in word]
    while len(parts) > 1:
        joined_ranks = [ranks.get(a + b, NEVER) for a, b in zip(parts, parts[1:])]
        best = min(joined_ranks)
        if best == NEVER:
            break
        i = joined_ranks.index(best)
        parts = [*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]]
    return [ranks[part] for part in parts]


class WordCache:
    def __missing__(self, word):
        data = bytes(word, "utf-8")
        long = len(data) > LONG
        number = self.ranks.get(data)
        if number is not None:
            found = (number,)
        elif long:
            found = tuple(encode_long_word(data, self.ranks))
        else:
            found = tuple(encode_word(data, self.ranks))
        if long:
            return found
        if len(self) == REMEMBERED:
            self.clear()
        self[word] = found
        return found


class Vocabulary:
    def decode_stream(self, ids):
        reader = codecs.getincrementaldecoder("utf-8")("replace")
        for number in ids:
            piece = reader.decode(self.token_bytes(number))
            if len(piece) > 0:
                yield piece
        piece = reader.decode(b"", True)
        if len(piece) > 0:
            yield piece


class Encoder:
    def encode_ordinary(self, text):
        refuse_surrogates(text)
        ids = []
        for word in split(text, self.pattern):
            ids += self._words[word]
        return ids

    def encode(self, text, *, allowed_special=(), disallowed_special="all"):
        special = self.special_tokens
        allowed = list(special) if allowed_special == "all" else list(allowed_special)
        for name in allowed:
            if name not in special:
                raise ValueError(f"{name!r} is not one of {list(special)}")
        if disallowed_special == "all":
            disallowed_special = [name for name in special if name not in allowed]
        for name in disallowed_special:
            if name in text:
                raise ValueError(f"{name!r} is in the text, and not allowed")
        ids = []
        for i, part in enumerate(at_special(text, allowed)):
            if i % 2:
                ids.append(special[part])
            else:
                ids.extend(self.encode_ordinary(part))
        return ids


def truncated(tokenizer, vocab_size):
    names = sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.get)
    count = vocab_size - len(names)
    if count < 256 or count > len(tokenizer.tokens):
        raise ValueError(f"{count} tokens and {len(names)} special ones cannot be had")
    return BPETokenizer(tokenizer.tokens[:count], names, pattern=tokenizer.pattern)
