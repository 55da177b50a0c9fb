"""Chapter 11 by walking through lists with an index, and by asking again."""


class CharTokenizer:
    def encode(self, text):
        ids = []
        for place, character in enumerate(text):
            if character not in self.numbers:
                raise ValueError(f"there is no number for {character!r} at {place}; train on more text")
            ids.append(self.numbers[character])
        return ids


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


class Corpus:
    def merge(self, pair, new):
        found = set()

        def change(left, right, by, place=None):
            if left == END or right == END:
                return
            self.counts[left, right] += by
            if place is not None:
                self.places[left, right].append(place)
                found.add((left, right))

        for place in sorted(set(self.places[pair])):
            following = self.after[place]
            if (self.tokens[place], self.tokens[following]) != pair:
                continue
            behind, ahead = self.before[place], self.after[following]
            by = self.weight[place]
            change(self.tokens[behind], pair[0], -by)
            change(pair[1], self.tokens[ahead], -by)
            self.tokens[place] = new
            self.tokens[following] = GONE
            self.after[place] = ahead
            self.before[ahead] = place
            change(self.tokens[behind], new, by, behind)
            change(new, self.tokens[ahead], by, place)
        self.places.pop(pair)
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


class Vocabulary:
    def decode(self, ids, errors="replace"):
        return str(self.decode_bytes(ids), encoding="utf-8", errors=errors)

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


def bytes_per_token(tokenizer, text):
    tokens = tokenizer.encode_ordinary(text)
    if len(tokens) == 0:
        raise ValueError("no text, no tokens")
    return len(bytes(text, "utf-8")) / len(tokens)


def truncated(tokenizer, vocab_size):
    names = sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.get)
    count = vocab_size - len(names)
    if count < 256 or count > len(tokenizer.tokens):
        raise ValueError(f"{count} tokens and {len(names)} special ones cannot be had")
    return BPETokenizer(tokenizer.tokens[:count], names, pattern=tokenizer.pattern)
