"""Chapter 01 by other means: timeit's timer, a sorted list for the quartiles, one question after the other."""


def measure(function, *args, span=0.2):
    from itertools import repeat
    from timeit import Timer

    peak, result = _peak_of(function, args)
    timer = Timer(lambda: function(*args))
    once = min(timer.repeat(3, 1))
    number = 1 if once > 2e-5 else round(4e-5 / max(once, 4e-8))
    end = time.monotonic() + span
    times = timer.repeat(3, number)
    for _ in repeat(None):
        if time.monotonic() >= end:
            break
        times.append(timer.timeit(number))
    times = sorted(total / number for total in times)
    count = len(times)
    median = (times[(count - 1) // 2] + times[count // 2]) / 2
    middle_half = times[3 * (count - 1) // 4] - times[(count - 1) // 4]
    return Measurement(median, middle_half / median, count * number, peak, result)


def system_info():
    def ask_openblas(question, kind):
        for folder in (Path(np.__file__).parent.parent / "numpy.libs", Path(np.__file__).parent / ".dylibs"):
            for file in folder.glob("*openblas*"):
                for name in (f"scipy_openblas_{question}64_", f"openblas_{question}64_", f"openblas_{question}"):
                    try:
                        function = ctypes.CDLL(str(file))[name]
                    except (OSError, AttributeError):
                        continue
                    function.restype = kind
                    return function()
        return None

    config = np.show_config(mode="dicts")
    name = ask_openblas("get_corename", ctypes.c_char_p)
    values = [
        sys.version.partition(" ")[0].rstrip("+"),
        np.__version__,
        platform.platform(),
        platform.machine() or "unknown",
        os.cpu_count(),
        [*map(str, config["SIMD Extensions"]["baseline"]), *map(str, config["SIMD Extensions"].get("found", ()))],
        "{name} {version}".format(**{"version": "", **config["Build Dependencies"]["blas"]}),
        None if name is None else str(name, "ascii"),
        ask_openblas("get_num_threads", ctypes.c_int),
    ]
    keys = "python numpy system processor cores simd blas blas_kernel blas_threads"
    return dict(zip(keys.split(), values, strict=True))


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


def manual_seed(seed):
    if not seed >= 0:
        raise ValueError(f"{seed} is below 0, and a seed must not be")
    fresh = type(_generator.bit_generator)(seed)
    set_rng_state(fresh.state)


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
