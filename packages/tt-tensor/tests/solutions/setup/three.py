"""Chapter 01 by other means: timeit's timer, a sorted list for the quartiles, one question after the other."""


def manual_seed(seed):
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(1,))  # ValueError for a seed below 0
    state = np.random.Generator(np.random.PCG64(sequence)).bit_generator.state
    generator().bit_generator.state = state


def seeded(seed, function):
    from contextlib import contextmanager

    @contextmanager
    def chance_from(number):
        kept = get_rng_state()
        manual_seed(number)
        try:
            yield
        finally:
            set_rng_state(kept)

    with chance_from(seed):
        return function()


def peak_of(function, *args):
    if not tracemalloc.is_tracing():
        try:
            tracemalloc.start()
            result = function(*args)
            peak = max(tracemalloc.get_traced_memory())
        except BaseException:
            tracemalloc.stop()
            raise
        tracemalloc.stop()
        return peak, result
    return 0, function(*args)


def time_in_bundles(function, *args, span):
    from itertools import repeat
    from timeit import Timer

    timer = Timer(lambda: function(*args))
    once = min(timer.repeat(3, 1))
    number = 1 if once > 2e-5 else round(4e-5 / max(once, 4e-8))
    end = time.monotonic() + span
    times = timer.repeat(3, number)
    for _ in repeat(None):
        if time.monotonic() >= end:
            break
        times.append(timer.timeit(number))
    return [total / number for total in times], number


def measure(function, *args, span=0.2):
    peak, result = peak_of(function, *args)
    times, number = time_in_bundles(function, *args, span=span)
    times, count = sorted(times), len(times)
    median = (times[(count - 1) // 2] + times[count // 2]) / 2
    middle_half = times[3 * (count - 1) // 4] - times[(count - 1) // 4]
    return Measurement(median, middle_half / median, count * number, peak, result)


def check_environment(info=None):
    def version(text):
        return float("{}.{:0>4}".format(*text.split(".")[:2]))

    def python(python, **_):
        if version(python) < 3.0011:
            return f"the course needs Python 3.11, not {python}", "uv python install 3.11"

    def numpy(numpy, **_):
        if version(numpy) < 2:
            return f"the course needs NumPy 2.0, not {numpy}", "pip install --upgrade numpy"

    def threads(blas_threads, cores, **_):
        if (blas_threads or math.inf) < (cores or 0):
            return f"{blas_threads} threads on {cores} cores", "unset MKL_NUM_THREADS OPENBLAS_NUM_THREADS"

    def kernel(blas_kernel, simd, **_):
        if (blas_kernel or "").upper() == "HASWELL" and not set(map(wide, simd)) <= {False}:
            return "AVX-512 is there and not used", "OPENBLAS_CORETYPE=SKYLAKEX python ..."

    def wide(extension):
        return extension[:6] in {"AVX512", "X86_V4"}

    import math

    info = info or system_info()
    return [Problem(*found) for rule in (python, numpy, threads, kernel) if (found := rule(**info))]


def matmul_gflops(size, dtype=np.float32):
    pair = [np.random.default_rng(seed).random((size, size)).astype(dtype) for seed in (1, 2)]
    taken = measure(lambda: np.matmul(*pair))
    return (size**3 + size**3) / taken.seconds / 10**9


def predict_float32():
    found = {"e": 1 / 2 + 1 / 4 == 3 / 4}
    found["b"] = 1 << 24 | 2  # the two ones are added first
    found["a"] = found["b"] - 2
    found["c"], found["d"] = 0, np.inf
    return found


def speedup(slow, fast, rounds=5):
    ratios, last = [], 0.0
    for turn, function in enumerate([fast, slow] * (rounds + 1)):
        now = time_once(function)
        if turn % 2 and turn > 1:
            ratios.append(now / last)
        last = now
    return statistics.median(ratios)


def bandwidth(size):
    source, target = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    seconds = [time_once(ctypes.memmove, target, source, size) for _ in range(400)]
    return 2 * size / sorted(seconds)[200] / 1e9
