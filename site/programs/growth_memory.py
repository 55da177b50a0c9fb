import math

import tt_opt
import tt_tensor as tt
from tt_nlp import GPT, GPTConfig, next_token_loss
from tt_optim import SGD, AdamW


def row(part, size, small, large, formula, held):
    """A line of the table: how fast the formula grows, and how fast the bytes do."""
    pairs = [[f(n) for n in (small, large)] for f in (formula, held)]
    powers = [math.log(b / a, large / small) for a, b in pairs]
    growth = "".join(f"{power:9.2f}" for power in powers)
    (_, expected), (_, found) = pairs
    print(f"{part:20s}{size:8s}{small:5d}{large:6d}{growth}{found:13,d}{found / expected:10.3f}")


def gpt(layers=2, C=64):
    return GPT(GPTConfig(65, 512, n_layer=layers, n_head=2, n_embd=C))


def numbers(model):
    return sum(p.numel() for p in model.parameters())


def tape(batch=4, layers=2, T=64):
    """The most that a forward pass allocates while it is recorded."""
    model, ids = gpt(layers), tt.randint(0, 65, (batch, T))
    return tt.measure(lambda: next_token_loss(model(ids), ids), span=0).peak_bytes


def tape_formula(batch=4, layers=2, T=64, C=64):
    return 4 * batch * T * layers * 19 * C


def state(make, C):
    """What an optimizer holds after a step, beside parameters and gradients."""
    model = gpt(C=C)
    for p in model.parameters():
        p.grad = tt.zeros(*p.shape)
    optimizer = make(model.parameters())
    optimizer.step()
    kept = [value for own in optimizer.state.values() for value in own.values()]
    return sum(getattr(value, "nbytes", 0) for value in kept)


def momentum(parameters):
    return SGD(parameters, momentum=0.9)


def keys_and_values(T):
    model = gpt()
    cache = tt_opt.KVCache.of(model)
    tt_opt.read(model, [(cache, [1] * T)])
    return cache.nbytes


def packed(kind, n):
    layer = tt.Sequential(tt.Linear(n, n, bias=False))
    return tt_opt.model_bytes(tt_opt.quantize_(layer, kind))


tt.manual_seed(0)
print(f"{'bytes of':20s}{'in':8s} from    to  formula measured         held    held /")
print(f"{'':73s}formula")
row("weights of a GPT", "width C", 64, 256, lambda C: 4 * 2 * 12 * C**2, lambda C: 4 * numbers(gpt(C=C)))
row("tape", "batch", 4, 16, lambda n: tape_formula(batch=n), lambda n: tape(batch=n))
row("", "layers", 2, 8, lambda n: tape_formula(layers=n), lambda n: tape(layers=n))
row("", "T", 64, 512, lambda T: tape_formula(T=T), lambda T: tape(T=T))
row("SGD with momentum", "width C", 64, 256, lambda C: 4 * numbers(gpt(C=C)), lambda C: state(momentum, C))
row("AdamW", "width C", 64, 256, lambda C: 2 * 4 * numbers(gpt(C=C)), lambda C: state(AdamW, C))
row("keys and values", "T", 100, 500, lambda T: 2 * 2 * 64 * 4 * T, keys_and_values)
row("int8 matrix", "n", 64, 512, lambda n: n**2, lambda n: packed("int8", n))
row("q4_0 matrix", "n", 64, 512, lambda n: n**2 // 2, lambda n: packed("q4_0", n))
