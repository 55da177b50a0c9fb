"""Chapter 19 another way: recursion along the frames, running sums, tables of what is wanted."""


def time_calls(function, calls):
    clock = time.perf_counter
    spent = -clock()
    for _ in range(calls):
        function()
    spent += clock()
    return spent / calls


def calls_for(function, seconds):
    for power in range(-1, 64):
        if power < 0:
            function()
        elif 2**power * time_calls(function, 2**power) >= seconds:
            break
    return 2**power


def bootstrap_interval(x, statistic=np.median, level=0.95, resamples=2000, seed=0):
    samples = np.random.default_rng(seed).choice(np.array(x), size=(resamples, len(x)), replace=True)
    values = np.sort([float(statistic(sample)) for sample in samples])

    def at(share):
        place = share * (len(values) - 1)
        below = math.floor(place)
        above = min(below + 1, len(values) - 1)
        return float(values[below] + (place - below) * (values[above] - values[below]))

    return at(0.5 - level / 2), at(0.5 + level / 2)


def take_turns(contenders, rounds, rng):
    table = []
    for _ in range(rounds):
        times = {int(i): contenders[i]() for i in rng.permutation(len(contenders))}
        table.append([times[i] for i in range(len(contenders))])
    return np.array(table, dtype=float)


def median_interval(x, level=0.95):
    from fractions import Fraction

    n, allowed = len(x), (1 - level) * 2 ** len(x) / 2
    ways, k, term = 0, 0, Fraction(1)
    while ways + term <= allowed:
        ways += term
        k += 1
        term = term * (n - k + 1) / k
    if k == 0:
        raise ValueError(f"with {n} values there is no interval; {least_values(level)} are enough")
    ranked = np.sort(x)
    return float(ranked[k - 1]), float(ranked[::-1][k - 1])


class Comparison:
    def __str__(self):
        a, b = self.names

        def said(fast, slow, ratio, low, high):
            return f"{fast} is {ratio:.2f} times as fast as {slow}, 95 % between {low:.2f} and {high:.2f}"

        if self.low > 1:
            return said(a, b, self.ratio, self.low, self.high)
        if self.high < 1:
            return said(b, a, *(1 / number for number in (self.ratio, self.high, self.low)))
        between = " and ".join(format(end, ".2f") for end in (self.low, self.high))
        return f"no difference can be shown: {a} is between {between} times as fast as {b}"


def compared(times, names=("a", "b")):
    logs = np.log(times)
    ratios = np.exp(logs[:, 1] - logs[:, 0])
    middle = np.sort(ratios)[[(len(ratios) - 1) // 2, len(ratios) // 2]].mean()
    return Comparison(float(middle), *median_interval(ratios), names=names)


def whereabouts(frame, names):
    def walk(frame):
        if frame is None:
            return (), ""
        stack, line = walk(frame.f_back)
        module = frame.f_locals.get("self") if frame.f_code.co_name == "forward" else None
        if not isinstance(module, Module):
            return stack, line
        if has_parts(module):
            line = f"{frame.f_code.co_filename.rpartition(os.sep)[2]}:{frame.f_lineno}"
        return (*stack, names[id(module)] if names.get(id(module)) else type(module).__name__), line

    return walk(frame)


def work_of(primitive, out, arrays, params):
    if sum(np.may_share_memory(out, a) for a in arrays):
        return 0, 0
    count = primitive.cost or (lambda out, *_, **__: out.size)
    return int(count(out, *arrays, **params)), sum((a.nbytes for a in arrays), start=out.nbytes)


class Profile:
    def timed(self, call, name, phase, stack, line, work):
        self.events.append(
            Event(name="Python", phase="outside", stack=stack, line=line, start=self.last,
                  seconds=time.perf_counter() - self.last)
        )  # fmt: skip
        held = 0
        if self.memory:
            tracemalloc.reset_peak()
            held = tracemalloc.get_traced_memory()[0]
        self.last = time.perf_counter()
        result, end = call(), time.perf_counter()
        details = {"start": self.last, "seconds": end - self.last}
        if self.memory:
            details["peak"] = tracemalloc.get_traced_memory()[1] - held
        details |= dict(zip(("multiply_adds", "bytes"), work(result)))
        self.events.append(Event(name, phase, stack, line, **details))
        return result


def rows(events, by):
    try:
        key = KEYS[by]
    except KeyError:
        raise ValueError(f"there is no table by {by}") from None
    found = {}
    for e in events:
        forward, backward = e.seconds * (e.phase == "forward"), e.seconds * (e.phase == "backward")
        inside = int(e.phase != "outside")
        new = Row(inside, e.seconds, forward, backward, e.multiply_adds, e.bytes, e.peak)
        old = found.get(key(e), Row(0, 0.0, 0.0, 0.0, 0, 0, 0))
        found[key(e)] = Row(*(a + b for a, b in zip(old[:-1], new[:-1])), max(old.peak, new.peak))
    return {name: found[name] for name in sorted(found, key=lambda name: found[name].seconds, reverse=True)}


def roof_points(events):
    def point(name, row):
        flops = row.multiply_adds + row.multiply_adds
        return name, flops / row.bytes, flops / row.seconds, row.seconds / whole

    whole = sum(row.seconds for row in rows(events, "primitive").values())
    chosen = filter(lambda event: event.phase == "forward" and event.bytes > 0, events)
    return [point(*item) for item in rows(list(chosen), "primitive").items()]


def pairs_needed(difference, spread, seed=0):
    def enough(pairs):
        logs = np.log1p(difference) + spread * np.random.default_rng(seed).normal(size=(100, pairs))
        missed = [row for row in logs if median_interval(row)[0] <= 0]
        return pairs if len(missed) <= 10 else enough(2 * pairs)

    return enough(10)
