"""Chapter 19, step by step: plain loops, one operation a line."""


def time_calls(function, calls):
    before = time.perf_counter()
    done = 0
    while done < calls:
        function()
        done += 1
    after = time.perf_counter()
    return (after - before) / calls


def calls_for(function, seconds):
    function()
    calls = 1
    turn = time_calls(function, 1)
    while turn < seconds:
        calls = 2 * calls
        turn = calls * time_calls(function, calls)
    return calls


def bootstrap_interval(x, statistic=np.median, level=0.95, resamples=2000, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for sample in rng.choice(x, (resamples, len(x)), replace=True):
        found.append(statistic(sample))
    outside = (1 - level) / 2
    return float(np.quantile(found, outside)), float(np.quantile(found, 1 - outside))


def take_turns(contenders, rounds, rng):
    found = np.zeros((rounds, len(contenders)))
    for i in range(rounds):
        order = rng.permutation(len(contenders))
        for j in order:
            contender = contenders[j]
            found[i, j] = contender()
    return found


def median_interval(x, level=0.95):
    ordered = sorted(x)
    n = len(ordered)
    best = 0
    for k in range(1, n + 1):
        fewer = 0
        for i in range(k):
            fewer += math.comb(n, i)
        if 2 * fewer / 2**n <= 1 - level:
            best = k
        else:
            break
    if best == 0:
        raise ValueError(f"there are too few values ({n}), take {least_values(level)}")
    return float(ordered[best - 1]), float(ordered[n - best])


class Comparison:
    def __str__(self):
        first, second = self.names
        if self.low <= 1 and self.high >= 1:
            text = f"no difference can be shown: {first} is between {self.low:.2f} and {self.high:.2f}"
            return text + f" times as fast as {second}"
        ratio, low, high = self.ratio, self.low, self.high
        if ratio < 1:
            first, second = second, first
            ratio = 1 / self.ratio
            low = 1 / self.high
            high = 1 / self.low
        return f"{first} is {ratio:.2f} times as fast as {second}, 95 % between {low:.2f} and {high:.2f}"


def compared(times, names=("a", "b")):
    ratios = []
    for a, b in times:
        ratios.append(b / a)
    low, high = median_interval(np.array(ratios))
    return Comparison(float(np.median(ratios)), low, high, names)


def whereabouts(frame, names):
    modules, line = [], ""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "forward":
            module = frame.f_locals.get("self")
            if isinstance(module, Module):
                name = names.get(id(module), "")
                if name == "":
                    name = type(module).__name__
                modules.insert(0, name)
                if line == "" and has_parts(module):
                    line = os.path.basename(code.co_filename) + ":" + str(frame.f_lineno)
        frame = frame.f_back
    return tuple(modules), line


def work_of(primitive, out, arrays, params):
    moved = out.nbytes
    for array in arrays:
        if np.may_share_memory(array, out):
            return 0, 0
        moved += array.nbytes
    if primitive.cost is None:
        return out.size, moved
    return int(primitive.cost(out, *arrays, **params)), moved


class Profile:
    def timed(self, call, name, phase, stack, line, work):
        outside = time.perf_counter() - self.last
        self.events.append(Event("Python", "outside", stack, line, self.last, outside))
        before = 0
        if self.memory:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
        self.last = time.perf_counter()
        result = call()
        end = time.perf_counter()
        start = self.last
        peak = 0
        if self.memory:
            _, highest = tracemalloc.get_traced_memory()
            peak = highest - before
        multiply_adds, moved = work(result)
        event = Event(name, phase, stack, line, start, end - start, multiply_adds, moved, peak)
        self.events.append(event)
        return result


def rows(events, by):
    if by not in KEYS:
        raise ValueError(f"{by}?")
    sums = {}
    for event in events:
        key = KEYS[by](event)
        if key not in sums:
            sums[key] = [0, 0.0, 0.0, 0.0, 0, 0, 0]
        row = sums[key]
        if event.phase != "outside":
            row[0] += 1
        row[1] += event.seconds
        if event.phase == "forward":
            row[2] += event.seconds
        if event.phase == "backward":
            row[3] += event.seconds
        row[4] += event.multiply_adds
        row[5] += event.bytes
        if event.peak > row[6]:
            row[6] = event.peak
    found = {}
    for key in sorted(sums, key=lambda key: -sums[key][1]):
        found[key] = Row(*sums[key])
    return found


def roof_points(events):
    whole = 0.0
    for event in events:
        whole += event.seconds
    forward = []
    for event in events:
        if event.phase == "forward" and event.bytes > 0:
            forward.append(event)
    points = []
    for name, row in rows(forward, "primitive").items():
        operations = 2 * row.multiply_adds
        points.append((name, operations / row.bytes, operations / row.seconds, row.seconds / whole))
    return points


def pairs_needed(difference, spread, seed=0):
    pairs = 10
    found = 0
    while found < 90:
        z = np.random.default_rng(seed).normal(size=(100, pairs))
        found = 0
        for row in z:
            low, _ = median_interval((1 + difference) * np.exp(spread * row))
            if low > 1:
                found += 1
        pairs *= 2
    return pairs // 2
