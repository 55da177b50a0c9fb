"""Chapter 15 by other roads: a context for the clock, recursion, formulas in another shape."""


def time_by_primitive(function):
    from collections import defaultdict

    clocks = defaultdict(list)

    def watch(next, primitive, tensors, params):
        try:
            clocks[primitive.name].append(-time.perf_counter())
            return next(primitive, tensors, params)
        finally:
            clocks[primitive.name][-1] += time.perf_counter()

    with interpreting(watch):
        function()
    return Counter({name: math.fsum(times) for name, times in clocks.items()})


def roofline(intensity, peak, bandwidth):
    ridge = peak / bandwidth
    return peak * min(1.0, intensity / ridge)


def in_blocks(work, *arrays, size=BLOCK):
    count = -(-len(arrays[0]) // size)
    for number in range(count):
        work(*(array[number * size :][:size] for array in arrays))


def gelu_block(x, out):
    u = scratch("near", x.shape, x.dtype)
    np.minimum(x, 40, out=u)
    np.maximum(u, -40, out=u)
    np.multiply(u, C0 + C1 * (u * u), out=u)
    np.tanh(u, out=u)
    np.multiply(x, u, out=u)
    np.add(x, u, out=out)
    np.divide(out, 2, out=out)


def gelu_and_slope_block(x, out, slope):
    u = np.clip(x, -40, 40)
    square = u * u
    gate = 1 / (1 + np.exp(np.minimum(-2 * u * (C0 + C1 * square), 80)))
    out[:] = x * gate
    slope[:] = gate * (1 + u * (1 - gate) * (2 * C0 + 6 * C1 * square))


def picked_up(out):
    if _left.out and _left.out() is out:
        _left.out, (back, _left.back) = None, (_left.back, None)
        return back
    return None


def by_table(rules, needed, g, out, *inputs, **params):
    if not isinstance(rules, tuple):
        return rules(needed, g, out, *inputs, **params)
    found = [None] * len(rules)
    for i in range(min(len(rules), len(needed))):
        if needed[i] and rules[i]:
            found[i] = rules[i](g, out, *inputs, **params)
    return found


def amdahl(share, factor):
    saved = share - share / factor
    return (1 - saved) ** -1


def norm_by_definition(x, weight, bias, out):
    rows, width = x.shape
    for i in range(rows):
        mean, squares = 0.0, 0.0
        for j in range(width):  # running mean and squares, in one pass
            step = x[i, j] - mean
            mean += step / (j + 1)
            squares += step * (x[i, j] - mean)
        for j in range(width):
            out[i, j] = bias[j] + weight[j] * ((x[i, j] - mean) / math.sqrt(1e-5 + squares / width))


def utilization(function, operations, peak):
    shortest = operations / peak
    return shortest / tt.measure(function).seconds
