"""Chapter 15, step by step: plain names, one operation a line."""


def time_by_primitive(function):
    spent = Counter()

    def watch(proceed, primitive, tensors, params):
        before = time.perf_counter()
        result = proceed(primitive, tensors, params)
        spent.update({primitive.name: time.perf_counter() - before})
        return result

    with interpreting(watch):
        function()
    return spent


def roofline(intensity, peak, bandwidth):
    by_memory = intensity * bandwidth
    return by_memory if by_memory < peak else peak


def in_blocks(work, *arrays, size=BLOCK):
    start, length = 0, len(arrays[0])
    while start < length:
        part = slice(start, start + size)
        work(*[array[part] for array in arrays])
        start += size


def gelu_block(x, out):
    near = np.clip(x, -40, 40, out=scratch("near", x.shape, x.dtype))
    inner = scratch("inner", x.shape, x.dtype)
    np.power(near, 2, out=inner)
    np.multiply(inner, C1, out=inner)
    np.add(inner, C0, out=inner)
    np.multiply(inner, near, out=inner)
    np.tanh(inner, out=inner)
    np.add(inner, 1, out=inner)
    np.multiply(inner, x, out=out)
    np.multiply(out, 0.5, out=out)


def gelu_and_slope_block(x, out, slope):
    gelu_block(x, out)
    near = np.clip(x, -40, 40)
    half = 0.5 + 0.5 * np.tanh(near * (C0 + C1 * near * near))
    slope[...] = half + near * half * (1 - half) * (2 * C0 + 6 * C1 * near * near)


def picked_up(out):
    reference = _left.out
    if reference is None:
        return None
    if reference() is not out:
        return None
    found = _left.back
    _left.back = None
    _left.out = None
    return found


def by_table(rules, needed, g, out, *inputs, **params):
    if callable(rules):
        return rules(needed, g, out, *inputs, **params)
    found = []
    for wanted, rule in zip(needed, rules):
        found.append(rule(g, out, *inputs, **params) if wanted and rule is not None else None)
    return found


def amdahl(share, factor):
    after = (1 - share) + share / factor
    return 1 / after


def norm_by_definition(x, weight, bias, out):
    for i in range(x.shape[0]):
        n, mean, var = x.shape[1], 0.0, 0.0
        for j in range(n):
            mean += x[i, j] / n
        for j in range(n):
            var += (x[i, j] - mean) * (x[i, j] - mean) / n
        for j in range(n):
            out[i, j] = (x[i, j] - mean) / math.sqrt(var + 1e-5) * weight[j] + bias[j]


def utilization(function, operations, peak):
    rate = operations / tt.measure(function).seconds
    return rate / peak
