import math

import tt_tensor as tt
from tt_nlp import GPT, GPTConfig
from tt_spatial import Conv2d


def counted(call):
    """The multiply-adds that the meter counts in a call."""
    with tt.meter() as meter:
        call()
    return meter.multiply_adds.total()


def row(part, size, small, large, formula, make):
    """A line of the table: how fast the formula, the count and the time grow."""
    calls = [make(n) for n in (small, large)]
    counts, times = [counted(call) for call in calls], [math.inf, math.inf]
    for _ in range(5):  # in turns, and the best of five: other programs may run
        measured = [tt.measure(call, span=0.03).seconds for call in calls]
        times = [min(pair) for pair in zip(times, measured)]
    pairs = [[formula(small), formula(large)], counts, times]
    powers = [math.log(b / a, large / small) for a, b in pairs]
    growth = "".join(f"{power:9.2f}" for power in powers)
    print(f"{part:16s}{size:10s}{small:5d}{large:6d}{growth}{counts[1] / pairs[0][1]:9.3f}")


def product(n):
    a, b = tt.randn(n, n), tt.randn(n, n)
    return lambda: a @ b


def convolution(side=32, channels=16, kernel=3):
    layer = Conv2d(channels, channels, kernel, padding=kernel // 2)
    x = tt.randn(2, channels, side, side)
    return lambda: layer(x)


def attention(T):
    q, k, v = tt.randn(3, T, 64)
    return lambda: tt.softmax(q @ k.mT / 8, -1) @ v


def gpt(T=64, C=64):
    model = GPT(GPTConfig(65, T, n_layer=2, n_head=2, n_embd=C))
    ids = tt.randint(0, 65, (1, T))
    return lambda: model(ids)


def gpt_formula(T=64, C=64):
    return T * (2 * (12 * C**2 + 2 * T * C) + 65 * C)


tt.manual_seed(0)
print(f"{'part':16s}{'in':10s} from    to  formula  counted     time  counted")
print(f"{'':68s}/ formula")
row("matrix product", "n", 16, 32, lambda n: n**3, product)
row("", "n", 512, 1024, lambda n: n**3, product)
row("convolution", "side", 16, 64, lambda s: 2 * s**2 * 16**2 * 9, convolution)
row("", "channels", 16, 64, lambda c: 2 * 32**2 * c**2 * 9, lambda c: convolution(channels=c))
row("", "kernel", 3, 9, lambda k: 2 * 32**2 * 16**2 * k**2, lambda k: convolution(kernel=k))
row("attention", "T", 256, 1024, lambda T: 2 * T**2 * 64, attention)
row("GPT, forward", "T", 64, 512, gpt_formula, gpt)
row("", "width C", 64, 256, lambda C: gpt_formula(C=C), lambda C: gpt(C=C))
