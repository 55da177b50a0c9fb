"""Chapter 01 by other means: bundles that double, the statistics of NumPy, remedies in a table."""


def manual_seed(seed):
    if seed < 0:
        raise ValueError(f"manual_seed({seed}): a seed is 0 or more")
    _generator.bit_generator.state = np.random.PCG64(np.random.SeedSequence(seed)).state


def seeded(seed, function):
    from contextlib import ExitStack

    with ExitStack() as stack:
        stack.callback(set_rng_state, get_rng_state())
        manual_seed(seed)
        return function()


def peak_of(function, *args):
    result, peak = None, 0
    watched = tracemalloc.is_tracing()
    if not watched:
        tracemalloc.start()
    try:
        result = function(*args)
        peak = 0 if watched else tracemalloc.get_traced_memory()[1]
    finally:
        if not watched:
            tracemalloc.stop()
    return peak, result


def time_in_bundles(function, *args, span):
    clock = time.perf_counter_ns

    def stretch(calls):
        start = clock()
        for _ in range(calls):
            function(*args)
        return (clock() - start) / 1e9

    calls, took = 1, stretch(1)
    while took < 5e-5 and calls < 1 << 20:
        calls *= 2
        took = stretch(calls)
    times = [took / calls]
    left = span - took
    while left > 0 or len(times) < 3:
        took = stretch(calls)
        left -= took
        times.append(took / calls)
    return times, calls


def measure(function, *args, span=0.2):
    peak, result = peak_of(function, *args)
    times, calls = time_in_bundles(function, *args, span=span)
    low, middle, high = np.percentile(times, [25, 50, 75])
    return Measurement(float(middle), float((high - low) / middle), calls * len(times), peak, result)


def check_environment(info=None):
    import re

    if info is None:
        info = system_info()

    def older(version, than):
        return [int(number) for number in re.findall(r"\d+", version)[:2]] < than

    def wide():
        return any(re.match("AVX512|X86_V4", name) for name in info["simd"])

    def idle():
        return None not in (info["blas_threads"], info["cores"]) and info["blas_threads"] < info["cores"]

    table = [
        (older(info["python"], [3, 11]), "Python {python} is too old", "get Python 3.11 from https://python.org"),
        (older(info["numpy"], [2, 0]), "NumPy {numpy} is too old", "pip install -U 'numpy>=2'"),
        (idle(), "{blas_threads} BLAS threads for {cores} cores", "unset OPENBLAS_NUM_THREADS"),
        (
            info["blas_kernel"] == "Haswell" and wide(),
            "kernels for AVX2 on a processor with AVX-512",
            "export OPENBLAS_CORETYPE=SkylakeX",
        ),
    ]
    return [Problem(what.format(**info), mend) for wrong, what, mend in table if wrong]


def matmul_gflops(size, dtype=np.float32):
    chance = np.random.default_rng(5)
    left = chance.standard_normal((size, size)).astype(dtype)
    right = chance.standard_normal((size, size)).astype(dtype)
    return 2e-9 * size**3 / measure(np.matmul, left, right).seconds


def predict_float32():
    f = np.float32
    largest = f(2) ** f(24)
    with np.errstate(over="ignore"):
        infinite = float(f(2.0**127) * f(2)) / 2
    return {"a": largest + f(1) + f(1), "b": largest + f(2), "c": f(1e8) + f(3) - f(1e8), "d": infinite, "e": True}


def speedup(slow, fast, rounds=5):
    ratios = []
    for number in range(rounds + 1):
        if number % 2:
            slower, faster = time_once(slow), time_once(fast)
        else:
            faster, slower = time_once(fast), time_once(slow)
        ratios.append(slower / faster)
    return float(np.median(ratios[1:]))


def bandwidth(size):
    source, target = bytearray(size), bytearray(size)

    def copy():
        target[:] = source

    return (size + size) / (1e9 * measure(copy, span=0.04).seconds)
