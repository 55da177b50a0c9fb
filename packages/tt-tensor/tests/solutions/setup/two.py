"""Chapter 01 by other means: a deadline, a generator of stretches, a function for each rule, a context for chance."""


def manual_seed(seed):
    if not seed >= 0:
        raise ValueError(f"{seed} is below 0, and a seed must not be")
    fresh = type(_generator.bit_generator)(seed)
    set_rng_state(fresh.state)


def seeded(seed, function):
    state = get_rng_state()
    manual_seed(seed)
    try:
        result = function()
    except BaseException:
        set_rng_state(state)
        raise
    set_rng_state(state)
    return result


def peak_of(function, *args):
    from contextlib import ExitStack

    if tracemalloc.is_tracing():
        return 0, function(*args)
    with ExitStack() as stack:
        stack.callback(tracemalloc.stop)
        tracemalloc.start()
        result = function(*args)
        _, peak = tracemalloc.get_traced_memory()
    return peak, result


def time_in_bundles(function, *args, span):
    def stretches():
        deadline, given = time.perf_counter() + span, 0
        while given < 5 or time.perf_counter() < deadline:
            start = time.perf_counter()
            for call in bundle:
                call(*args)
            yield time.perf_counter() - start
            given += 1

    estimate = statistics.median(time_once(function, *args) for _ in range(3))
    bundle = [function] * max(1, min(100_000, int(1e-4 / max(estimate, 2e-8))))
    return [took / len(bundle) for took in stretches()], len(bundle)


def measure(function, *args, span=0.2):
    function(*args)
    times, bundle = time_in_bundles(function, *args, span=span)
    peak, result = peak_of(function, *args)
    half, middle = np.subtract(*np.quantile(times, [0.75, 0.25])), statistics.median(times)
    return Measurement(middle, float(half / middle), bundle * len(times), peak, result)


def check_environment(info=None):
    machine = {**(info if info is not None else system_info())}
    found = []

    def complain(what, mend):
        found.append(Problem(what, mend))

    major, minor, *_ = machine["python"].split(".")
    if int(major) < 3 or (int(major) == 3 and int(minor) < 11):
        complain(f"this is Python {machine['python']}", "conda install python=3.11")
    if int(machine["numpy"].split(".")[0]) < 2:
        complain(f"this is NumPy {machine['numpy']}", "python -m pip install 'numpy>=2.0'")
    threads, cores = machine["blas_threads"], machine["cores"]
    if threads is not None and cores is not None and cores > threads:
        complain(f"{cores - threads} of {cores} cores idle in products ({threads} threads)", "unset OMP_NUM_THREADS")
    has_avx512 = [name for name in machine["simd"] if name[:6] in ("AVX512", "X86_V4")]
    if has_avx512 and machine["blas_kernel"] == "Haswell":
        complain(f"OpenBLAS overlooks {has_avx512[0]}, wider than AVX2", "export OPENBLAS_CORETYPE=SkylakeX")
    return found


def matmul_gflops(size, dtype=np.float32):
    matrices = np.random.RandomState(2).uniform(-1, 1, (2, size, size)).astype(dtype)
    flop = size * size * (size + size)  # for each of the results, as many multiplications and additions
    return flop / (1e9 * measure(np.matmul, *matrices).seconds)


def predict_float32():
    return dict(zip("abcde", (16_777_216, 16_777_218, 0.0, float("inf"), True), strict=True))


def speedup(slow, fast, rounds=5):
    def seconds(function):
        start = time.perf_counter_ns()
        function()
        return time.perf_counter_ns() - start

    seconds(fast), seconds(slow)
    pairs = [(seconds(slow), seconds(fast)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    return (ratios[(rounds - 1) // 2] + ratios[rounds // 2]) / 2


def bandwidth(size):
    source, target = np.zeros(size, np.int8), np.zeros(size, np.int8)
    times = []
    end = time.perf_counter() + 0.03
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        target[:] = source
        times.append(time.perf_counter() - start)
    return source.nbytes / statistics.median(times) * 2e-9
