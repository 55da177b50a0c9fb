"""Chapter 01 by other means: a deadline, a generator of stretches, a function for each rule, a context for chance."""


def measure(function, *args, span=0.2):
    def stretches():
        deadline, given = time.perf_counter() + span, 0
        while given < 5 or time.perf_counter() < deadline:
            start = time.perf_counter()
            for call in bundle:
                call(*args)
            yield time.perf_counter() - start
            given += 1

    function(*args)
    estimate = statistics.median(time_once(function, *args) for _ in range(3))
    bundle = [function] * max(1, min(100_000, int(1e-4 / max(estimate, 2e-8))))
    if estimate > 1e-4:
        bundle = [function]
    times = np.fromiter(stretches(), float) / len(bundle)
    peak, result = _peak_of(function, args)
    half = np.subtract(*np.quantile(times, [0.75, 0.25]))
    return Measurement(float(np.median(times)), float(half / np.median(times)), times.size * len(bundle), peak, result)


def system_info():
    library = _openblas()
    built = np.show_config("dicts")
    extensions = built["SIMD Extensions"]
    questions = {
        "python": platform.python_version,
        "numpy": lambda: np.__version__,
        "system": lambda: f"{sys.platform} on {platform.machine()}",
        "processor": lambda: platform.processor() or _processor_name(),
        "cores": lambda: os.cpu_count() or 1,
        "simd": lambda: [name for kind in extensions if kind != "not found" for name in extensions[kind]],
        "blas": lambda: " ".join(built["Build Dependencies"]["blas"][part] for part in ("name", "version")),
        "blas_kernel": lambda: (_ask(library, "get_corename", ctypes.c_char_p) or b"").decode() or None,
        "blas_threads": lambda: _ask(library, "get_num_threads", ctypes.c_int),
    }
    return {name: question() for name, question in questions.items()}


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


def manual_seed(seed):
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(1,))  # ValueError for a seed below 0
    state = np.random.Generator(np.random.PCG64(sequence)).bit_generator.state
    generator().bit_generator.state = state


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
