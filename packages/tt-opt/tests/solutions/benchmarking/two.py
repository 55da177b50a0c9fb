"""Chapter 19 with NumPy and the standard library: cumulative sums, Counter, itertools."""


def time_calls(function, calls):
    repeated = [function] * calls
    begun = time.perf_counter()
    for each in repeated:
        each()
    return (time.perf_counter() - begun) / len(repeated)


def calls_for(function, seconds):
    function()
    powers = (1 << i for i in range(60))
    return next(calls for calls in powers if calls * time_calls(function, calls) >= seconds)


def bootstrap_interval(x, statistic=np.median, level=0.95, resamples=2000, seed=0):
    places = np.random.default_rng(seed).choice(len(x), size=(resamples, len(x)))
    values = np.apply_along_axis(statistic, 1, np.asarray(x)[places])
    ends = np.percentile(values, [50 - 50 * level, 50 + 50 * level])
    return tuple(ends.tolist())


def take_turns(contenders, rounds, rng):
    orders = [rng.permutation(len(contenders)) for _ in range(rounds)]
    taken = np.array([[contenders[i]() for i in order] for order in orders])
    return np.take_along_axis(taken, np.argsort(orders, axis=1), axis=1)


def median_interval(x, level=0.95):
    n = len(x)
    chances = np.array([math.comb(n, i) / 2 ** (n - 1) for i in range(n)])
    k = int(np.count_nonzero(np.cumsum(chances) <= 1 - level))
    if k < 1:
        raise ValueError(f"{n} < {least_values(level)}")
    low, high = np.partition(x, [k - 1, n - k])[[k - 1, n - k]]
    return float(low), float(high)


class Comparison:
    def __str__(self):
        names, values = list(self.names), np.array([self.ratio, self.low, self.high])
        if not self.differ:
            head = "no difference can be shown: {} is between {:.2f} and {:.2f} times as fast as {}"
            return head.format(names[0], *values[1:], names[1])
        if self.ratio < 1:
            names, values = names[::-1], (1 / values)[[0, 2, 1]]
        return "{} is {:.2f} times as fast as {}, 95 % between {:.2f} and {:.2f}".format(
            names[0], values[0], names[1], *values[1:]
        )


def compared(times, names=("a", "b")):
    a, b = np.transpose(times)
    ratio = np.divide(b, a)
    low, high = median_interval(ratio)
    return Comparison(ratio=float(np.quantile(ratio, 0.5)), low=low, high=high, names=names)


def whereabouts(frame, names):
    import traceback

    running = []
    for each, number in traceback.walk_stack(frame):
        module = each.f_locals.get("self") if each.f_code.co_name == "forward" else None
        if isinstance(module, Module):
            running.append((module, os.path.split(each.f_code.co_filename)[1], number))
    lines = [f"{file}:{number}" for module, file, number in running if has_parts(module)]
    stack = [names.get(id(module), "") or module.__class__.__name__ for module, _, _ in running]
    return tuple(stack[::-1]), (lines or [""])[0]


def work_of(primitive, out, arrays, params):
    shared = [np.may_share_memory(out, a) for a in arrays]
    if True in shared:
        return 0, 0
    moved = np.sum([a.nbytes for a in (out, *arrays)])
    count = math.prod(out.shape) if not primitive.cost else primitive.cost(out, *arrays, **params)
    return int(count), int(moved)


class Profile:
    def timed(self, call, name, phase, stack, line, work):
        def moment():
            return time.perf_counter()

        def memory(which):
            return tracemalloc.get_traced_memory()[which] if self.memory else 0

        self.events += [Event("Python", "outside", stack, line, self.last, moment() - self.last)]
        if self.memory:
            tracemalloc.reset_peak()
        held = memory(0)
        self.last = moment()
        result = call()
        seconds, peak = moment() - self.last, memory(1) - held
        own = Event(name, phase, stack, line, self.last, seconds, peak=peak)
        multiply_adds, moved = work(result)
        self.events += [own._replace(multiply_adds=multiply_adds, bytes=moved)]
        return result


def rows(events, by):
    import itertools

    key = KEYS.get(by)
    if key is None:
        raise ValueError(f"{by!r} is not one of {list(KEYS)}")

    def column(group, field, *phases):
        return sum(getattr(event, field) for event in group if not phases or event.phase in phases)

    found = []
    for name, together in itertools.groupby(sorted(events, key=key), key):
        group = list(together)
        calls = len([event for event in group if event.phase in ("forward", "backward")])
        times = column(group, "seconds"), column(group, "seconds", "forward"), column(group, "seconds", "backward")
        work = column(group, "multiply_adds"), column(group, "bytes")
        found.append((name, Row(calls, *times, *work, max(event.peak for event in group))))
    return dict(sorted(found, key=lambda pair: pair[1].seconds)[::-1])


def roof_points(events):
    moving = [event for event in events if event.phase == "forward" and event.bytes]
    table = rows(moving, "primitive")
    numbers = np.array([[row.multiply_adds, row.bytes, row.seconds] for row in table.values()], float).reshape(-1, 3)
    operations, moved, seconds = 2 * numbers[:, 0], numbers[:, 1], numbers[:, 2]
    shares = seconds / math.fsum(event.seconds for event in events)
    columns = (operations / moved, operations / seconds, shares)
    return list(zip(table, *(column.tolist() for column in columns)))


def pairs_needed(difference, spread, seed=0):
    import itertools

    def found(pairs):
        rng = np.random.default_rng(seed)
        ratios = np.exp(spread * rng.normal(size=(100, pairs))) * (1 + difference)
        return np.mean([median_interval(ratio)[0] > 1 for ratio in ratios])

    return next(pairs for pairs in (10 * 2**i for i in itertools.count()) if found(pairs) >= 0.9)
