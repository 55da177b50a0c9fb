"""Chapter 14, judged by its public names."""

import math
import re
from itertools import chain

import numpy as np
import pytest

import tt_nlp as tn
import tt_tensor as tt
from tt_tensor.teaching import between, expect

HURT, SIZE, MADE_OF, ATTENTION, MLP = "The hurt", "Keeping the size", "What a GPT is made of", "Attention", "The MLP"
BLOCK, TRUNK, GPT, CHOOSING, WRITING = "The block", "The trunk", "GPT", "Choosing a token", "Writing"
EXERCISES, WRITES = "Exercises", "It writes"
PRE_NORM = "Each half reads a normalized copy of the stream and adds to the stream itself: x + layer(norm(x))."
CUT = "The residual path is cut: add what a layer says to the stream, do not replace the stream by it."
POSITIONS = "The logits do not depend on position: add the rows of wpe, one for each place, to those of wte."
FROM_1 = "Positions are counted from 0: the first token gets row 0 of wpe."


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def config(**changes):
    sizes = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}
    return tn.GPTConfig(**(sizes | changes))


def arrays(module, scale=0.5):
    """Weights that depend on nothing but their names and places."""
    found = {}
    for number, (name, tensor) in enumerate(sorted(module.state_dict().items())):
        values = np.sin(np.arange(math.prod(tensor.shape)) * 1.7 + number).reshape(tensor.shape) * scale
        found[name] = 1 + values if "ln_" in name and name.endswith("weight") else values
    return found


def set_weights(module, scale=0.5):
    """The module in float64, with those weights."""
    values = arrays(module, scale)
    if "lm_head.weight" in values:
        values["lm_head.weight"] = values["transformer.wte.weight"]
    module.double().load_state_dict({name: tt.from_numpy(value) for name, value in values.items()})
    return module, values


# The same in NumPy, written a second time


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(x, w, name, heads):
    length, width = x.shape[1:]
    size, found = width // heads, np.zeros_like(x)
    q, k, v = np.split(linear(x, w, f"{name}c_attn"), 3, axis=-1)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[..., part] @ k[..., part].swapaxes(1, 2) / math.sqrt(size)
        scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        found[..., part] = weights / weights.sum(-1, keepdims=True) @ v[..., part]
    return linear(found, w, f"{name}c_proj")


def mlp(x, w, name, bend=None):
    h = linear(x, w, f"{name}c_fc")
    h = h * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) if bend is None else bend(h)
    return linear(h, w, f"{name}c_proj")


def block(x, w, name, heads, order="pre"):
    halves = (("ln_1", lambda y: attention(y, w, f"{name}attn.", heads)), ("ln_2", lambda y: mlp(y, w, f"{name}mlp.")))
    for ln, layer in halves:
        if order == "pre":
            x = x + layer(norm(x, w, f"{name}{ln}"))
        elif order == "post":
            x = norm(x + layer(x), w, f"{name}{ln}")
        else:
            x = layer(norm(x, w, f"{name}{ln}"))
    return x


def trunk(ids, w, layers=2, heads=2, first=0, positions=True):
    x = w["wte.weight"][ids] + positions * w["wpe.weight"][np.arange(first, first + ids.shape[1])]
    for layer in range(layers):
        x = block(x, w, f"h.{layer}.", heads)
    return norm(x, w, "ln_f")


def part(w, prefix):
    return {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}


# The loss


def test_the_loss_counts_every_place():
    random = np.random.default_rng(1)
    logits, targets = random.standard_normal((2, 3, 5)), random.integers(0, 5, (2, 3))

    def wanted(counted):
        lost = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return lost[counted].mean()

    everything = np.ones((2, 3), bool)
    expect(
        "next_token_loss of logits (2, 3, 5) at targets (2, 3)",
        lambda: tn.next_token_loss(tt.from_numpy(logits), tt.from_numpy(targets)).item(),
        wanted(everything),
        (6 * wanted(everything), "This is the sum; the loss is the mean over all places."),
        (wanted(everything) / 5, "Divide by the number of places, not by places times tokens."),
        (ValueError, "cross_entropy wants the classes second: make one long list of rows of logits, (B * T, V)."),
        "Only the first two dimensions become one: each place keeps its row of V logits, (B * T, V).",
        see=HURT,
    )
    padded = everything.copy()
    padded[1, 1:] = False
    expect(
        "the same with the last two targets of the second text set to -100",
        lambda: tn.next_token_loss(tt.from_numpy(logits), tt.from_numpy(np.where(padded, targets, -100))).item(),
        wanted(padded),
        (wanted(padded) * 4 / 6, "Divide by the places that count, not by all of them."),
        "A target of ignore_index counts for nothing: pass it on to cross_entropy.",
        see=HURT,
    )
    expect(
        "the same with targets 0 ignored, ignore_index=0",
        lambda: tn.next_token_loss(
            tt.from_numpy(logits), tt.from_numpy(np.where(padded, targets, 0)), ignore_index=0
        ).item(),
        wanted(padded & (targets != 0)),
        "ignore_index is passed on to cross_entropy.",
        see=HURT,
    )


@pytest.mark.parametrize("logits, targets", [((2, 3, 5), (2, 4)), ((2, 3, 5), (3, 2)), ((6, 5), (6,))])
def test_the_loss_refuses_other_shapes(logits, targets):
    expect(
        f"next_token_loss of logits {logits} at targets {targets}",
        lambda: tn.next_token_loss(tt.zeros(*logits), tt.zeros(*targets).long()),
        ValueError,
        "Shapes that do not fit are a ValueError; (2, 3) and (3, 2) have equally many elements, and do not fit.",
        see=HURT,
    )


# Norm


def test_rms_norm_divides_by_the_root_mean_square():
    x = np.array([[3.0, 4.0, 0.0, 0.0], [1.0, -2.0, 3.0, -4.0]])
    root = np.sqrt((x**2).mean(-1, keepdims=True))
    centred = x - x.mean(-1, keepdims=True)
    expect(
        "rms_norm([[3, 4, 0, 0], [1, -2, 3, -4]])",
        lambda: tn.rms_norm(tt.from_numpy(x)),
        x / root,
        (x / np.sqrt((x**2).sum(-1, keepdims=True)), "Divide by the root of the mean of the squares, not of the sum."),
        (centred / np.sqrt((centred**2).mean(-1, keepdims=True)), "RMSNorm leaves the mean alone."),
        (x / root**2, "Divide by the root of the mean square."),
        (x / np.sqrt((x**2).mean()), "Each row has a root mean square of its own: mean(dim=-1)."),
        see=SIZE,
    )
    texts = np.stack([np.stack([x[0], x[1], x[0] + 1]), np.stack([x[1] * 2, x[0], x[1] - 1])])
    expect(
        "rms_norm of x (2, 3, 4)",
        lambda: tn.rms_norm(tt.from_numpy(texts)),
        texts / np.sqrt((texts**2).mean(-1, keepdims=True)),
        "The numbers of a token are the last dimension, whatever stands in front of it.",
        see=SIZE,
    )
    weight = np.array([1.0, 2.0, 3.0, 4.0])
    expect(
        "the same with weight=[1, 2, 3, 4] and eps=0.5",
        lambda: tn.rms_norm(tt.from_numpy(x), tt.from_numpy(weight), eps=0.5),
        x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.5) * weight,
        (x / (root + 0.5) * weight, "eps is added to the mean square, under the root."),
        (x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.5), "The weight multiplies the normalized numbers."),
        (x / root * weight, "eps is added to the mean square."),
        see=SIZE,
    )
    expect(
        "rms_norm of four zeros, without eps",
        lambda: tn.rms_norm(tt.zeros(1, 4)),
        np.zeros((1, 4)),
        (lambda got: np.isnan(got).any(), "0 / 0: without eps it is the machine precision, np.finfo(x.dtype).eps."),
        see=SIZE,
    )


# The parts


@pytest.mark.parametrize(
    "changes",
    [{"n_embd": 100, "n_head": 12}, {"n_layer": 0}, {"vocab_size": -1}, {"block_size": 1.5}, {"dropout": 1.5}],
    ids=str,
)
def test_a_config_refuses_what_cannot_be(changes):
    expect(f"GPTConfig({changes})", lambda: tn.GPTConfig(**changes), ValueError, see=MADE_OF)


def test_attention_is_causal_and_has_heads():
    x = np.sin(np.arange(80.0)).reshape(2, 5, 8)
    layer, w = set_weights(tn.CausalSelfAttention(config()))
    wanted = attention(x, w, "", 2)

    def other(heads, columns):
        chosen = {name: w[name][columns] for name in ("c_attn.weight", "c_attn.bias")}
        return attention(x, w | chosen, "", heads)

    interleaved = np.arange(24).reshape(8, 3).T.ravel()
    expect(
        "CausalSelfAttention of x (2, 5, 8), with 2 heads",
        lambda: layer(tt.from_numpy(x)),
        wanted,
        (attention(x, w, "", 1), "n_head is not used: cut queries, keys and values into heads."),
        (attention(x, w, "", 4), "There are n_head heads of C / n_head numbers, not the other way round."),
        (other(2, interleaved), "The first C of the 3 C numbers are queries, the next C keys, the last C values."),
        (lambda got: np.shape(got) != (2, 5, 8), "What comes out has the shape of x: (B, T, C)."),
        (lambda got: np.allclose(got[:, -1], wanted[:, -1], 1e-4), "Only the last place is right: is_causal=True."),
        "Put the heads side by side again, (B, n_head, T, C / n_head) -> (B, T, C), before c_proj.",
        see=ATTENTION,
    )
    later = x.copy()
    later[:, 3:] = 7.0
    expect(
        "how far the first 3 places move when places 3 and 4 are changed",
        lambda: float(np.abs(layer(tt.from_numpy(x)).numpy() - layer(tt.from_numpy(later)).numpy())[:, :3].max()),
        0.0,
        "Nobody sees what comes later: is_causal=True.",
        see=ATTENTION,
    )


def test_mlp_bends_by_the_gelu_of_gpt2():
    x = np.sin(np.arange(48.0)).reshape(2, 3, 8) * 2
    layer, w = set_weights(tn.MLP(config()))
    exact = np.vectorize(lambda h: h * 0.5 * (1 + math.erf(h / math.sqrt(2))))
    expect(
        "MLP of x (2, 3, 8)",
        lambda: layer(tt.from_numpy(x)),
        mlp(x, w, ""),
        (mlp(x, w, "", exact), 'This is the exact GELU; GPT-2 has the form with tanh: approximate="tanh".'),
        (mlp(x, w, "", lambda h: np.maximum(h, 0)), "This is ReLU; GPT-2 has GELU."),
        (mlp(x, w, "", lambda h: h), "There is no bend between c_fc and c_proj, so the two are one linear layer."),
        see=MLP,
        tolerance=1e-6,
    )


@pytest.mark.parametrize("name", ["CausalSelfAttention", "MLP"])
def test_dropout_strikes_in_training_only(name):
    x = tt.randn(1, 8, 8)
    dropping, plain = (getattr(tn, name)(config(dropout=p)) for p in (0.5, 0.0))
    plain.load_state_dict(dropping.state_dict())
    expect(f"do two calls of {name} with dropout=0.5 differ in training?",
           lambda: bool((dropping(x) != dropping(x)).any()), True, see=ATTENTION)  # fmt: skip
    dropping.eval()
    expect(
        f"is {name} with dropout=0.5 in eval mode what it is without dropout?",
        lambda: bool(np.allclose(dropping(x).numpy(), plain(x).numpy(), atol=1e-6)),
        True,
        "In eval mode nothing is dropped: neither attention weights nor results.",
        see=ATTENTION,
    )


def test_block_adds_to_the_stream():
    x = np.sin(np.arange(80.0)).reshape(2, 5, 8)
    layer, w = set_weights(tn.Block(config()))
    expect(
        "Block of x (2, 5, 8)",
        lambda: layer(tt.from_numpy(x)),
        block(x, w, "", 2),
        (block(x, w, "", 2, "post"), f"The norm stands after the residual sum. {PRE_NORM}"),
        (block(x, w, "", 2, "none"), CUT),
        PRE_NORM,
        see=BLOCK,
    )


def test_gradient_comes_through_twelve_blocks():
    def left():
        model = tn.GPT(config(n_layer=12))
        x = top = tt.randn(1, 4, 8).requires_grad_()
        for each in model.transformer.h:
            top = each(top)
        (top * tt.ones(1, 4, 8)).sum().backward()
        return float(np.abs(x.grad.numpy()).mean())

    expect(
        "the mean size of the gradient below 12 fresh blocks, when it is 1 above them",
        left,
        between(0.5, 1.5),
        (lambda size: size < 1e-3, CUT),
        (RuntimeError, "Tie by assignment, lm_head.weight = wte.weight: a copy is another parameter."),
        PRE_NORM,
        see=BLOCK,
    )


def test_transformer_knows_places():
    ids = np.array([[3, 3, 3, 3], [1, 2, 3, 0]])
    model, w = set_weights(tn.Transformer(config()))
    expect(
        "Transformer of ids [[3, 3, 3, 3], [1, 2, 3, 0]]",
        lambda: model(tt.from_numpy(ids)),
        trunk(ids, w),
        (trunk(ids, w, positions=False), POSITIONS),
        (trunk(ids, w, first=1), FROM_1),
        (trunk(ids, w, layers=1), "The stream goes through all blocks of h, one after the other."),
        (lambda got: abs(got.mean()) > 0 and np.allclose(got[0, 0], got[0, 1]), POSITIONS),
        "Embeddings are added, then come the blocks in their order, then ln_f.",
        see=TRUNK,
        tolerance=1e-6,
    )


@pytest.mark.parametrize(
    "shape, error", [((1, 9), ValueError), ((8,), ValueError), ((2, 0), ValueError), ((1, 1, 1), ValueError)], ids=str
)
def test_transformer_refuses_what_does_not_fit(shape, error):
    model = tn.Transformer(config())
    expect(
        f"Transformer with block_size 8 of ids of shape {shape}",
        lambda: model(tt.zeros(*shape).long()),
        error,
        "ids are (B, T) with 1 to block_size tokens; everything else is a ValueError.",
        see=TRUNK,
    )


@pytest.mark.parametrize("token", [11, -1])
def test_transformer_refuses_unknown_tokens(token):
    model = tn.Transformer(config())
    expect(
        f"Transformer with vocab_size 11 of the token {token}",
        lambda: model(tt.from_numpy(np.array([[0, token]]))),
        IndexError,
        see=TRUNK,
    )


# GPT


def test_gpt_is_gpt2():
    ids = np.array([[5, 3, 5, 1, 0, 10], [1, 2, 3, 0, 7, 7]])
    model, w = set_weights(tn.GPT(config()))
    expect(
        "GPT of ids (2, 6): logits",
        lambda: model(tt.from_numpy(ids)),
        trunk(ids, part(w, "transformer.")) @ w["transformer.wte.weight"].T,
        see=GPT,
        tolerance=1e-6,
    )


def test_first_weights_are_those_of_gpt2():
    model = tn.GPT(tn.GPTConfig(vocab_size=200, block_size=64, n_layer=8, n_head=4, n_embd=64))
    model.reset_parameters()
    spreads = {name: float(p.numpy().std()) for name, p in model.named_parameters() if p.ndim == 2}
    for end, wanted in (("c_attn.weight", 0.02), ("c_fc.weight", 0.02), ("wte.weight", 0.02), ("wpe.weight", 0.02)):
        expect(
            f"the standard deviation of ...{end} in a fresh GPT of 8 blocks",
            lambda end=end: float(np.mean([spread for name, spread in spreads.items() if name.endswith(end)])),
            between(wanted * 0.95, wanted * 1.05),
            "Matrices are drawn normally, with a standard deviation of 0.02.",
            see=GPT,
        )
    expect(
        "the standard deviation of ...c_proj.weight in a fresh GPT of 8 blocks",
        lambda: float(np.mean([spread for name, spread in spreads.items() if name.endswith("c_proj.weight")])),
        between(0.02 / 4 * 0.95, 0.02 / 4 * 1.05),
        (between(0.019, 0.021), "c_proj writes to the stream: divide by sqrt(2 n_layer), as there are so many."),
        (between(0.0067, 0.0075), "Each block writes twice: the root is that of 2 n_layer."),
        see=GPT,
    )
    expect(
        "the mean of ...c_attn.weight",
        lambda: float(np.mean([p.numpy().mean() for n, p in model.named_parameters() if n.endswith("c_attn.weight")])),
        between(-1e-3, 1e-3),
        see=GPT,
    )
    others = [(name, p.numpy()) for name, p in model.named_parameters() if p.ndim == 1]
    expect(
        "vectors that do not begin as they should",
        lambda: [name for name, values in others if not (values == name.endswith("weight")).all()],
        [],
        "Biases begin at 0; the weights of norms at 1.",
        see=GPT,
    )


def test_weights_are_tied():
    model = tn.GPT(config())
    expect(
        "is lm_head.weight the same parameter as transformer.wte.weight?",
        lambda: model.lm_head.weight is model.transformer.wte.weight,
        True,
        see=GPT,
    )
    expect(
        "parameters of a GPT with vocab_size 11, block_size 8, n_layer 2, n_embd 8",
        lambda: sum(p.numel() for p in model.parameters()),
        (11 + 8) * 8 + 2 * (12 * 64 + 13 * 8) + 16,
        see=GPT,
    )


def test_a_gpt_keeps_its_config():
    sizes = config()
    model = tn.GPT(sizes)
    expect(
        "the parts of a GPT",
        lambda: [model.config is sizes, *(type(part).__name__ for part in (model.transformer, model.lm_head))],
        [True, "Transformer", "Linear"],
        (AttributeError, "The config is `config`, the trunk `transformer`, and the last layer `lm_head`."),
        see=GPT,
    )
    expect("the bias of lm_head", lambda: model.lm_head.bias is None, True, "GPT-2's last layer has none: bias=False.",
           see=GPT)  # fmt: skip
    expect(
        "the largest spread of a matrix in a new GPT",
        lambda: max(float(p.numpy().std()) for p in model.parameters() if p.ndim == 2),
        between(0, 0.04),
        "The layers draw larger weights than GPT-2's: `reset_parameters` at the end of __init__ draws them anew.",
        see=GPT,
    )


SHAPES = {
    "c_attn": "Each token gets 3 C numbers, for query, key and value.",
    "qkv": "Three times (B, n_head, T, C / n_head), stacked: the 3 stands in front.",
    "weights": "In each head, each of T queries has a weight for each of T keys: (B, n_head, T, T).",
    "c_fc": "The MLP is four times as wide inside.",
    "stream": "Every block gives what it takes: (B, T, C).",
    "logits": "One logit for each token of the vocabulary, at each place.",
    "wpe.weight": "A row for each place of the context, however short the text is.",
    "lm_head.weight": "It is the table of tokens: (vocab_size, C).",
}


def test_predictions():
    model, ids = tn.GPT(tn.GPTConfig(65, 16, 3, 4, 32)), tt.zeros(2, 5).long()
    trunk, first = model.transformer, model.transformer.h[0]
    x = trunk.wte(ids) + trunk.wpe(tt.arange(5))
    parts = first.attn.c_attn(first.ln_1(x))
    qkv = tt.stack([tn.split_heads(part, 4) for part in parts.chunk(3, -1)])
    measured = {
        "c_attn": parts.shape,
        "qkv": qkv.shape,
        "weights": tn.attention_weights(qkv[0], qkv[1], tn.causal_mask(5)).shape,
        "c_fc": first.mlp.c_fc(x).shape,
        "stream": x.shape,
        "logits": (x @ trunk.wte.weight.T).shape,
        "wpe.weight": trunk.wpe.weight.shape,
        "lm_head.weight": trunk.wte.weight.shape,
    }
    expect(
        "predict_shapes()",
        lambda: {name: tuple(shape) for name, shape in tn.transformers.predict_shapes().items()},
        measured,
        (lambda out: set(out) != set(measured), f"A dict with the names {', '.join(measured)}."),
        *((lambda out, name=name: out[name] != measured[name], f'"{name}": {why}') for name, why in SHAPES.items()),
        see=GPT,
    )


def test_decay_is_for_matrices():
    model = tn.GPT(config())
    for frozen in (model.transformer.wpe.weight, model.transformer.ln_f.weight):
        frozen.requires_grad_(False)
    matrices = [p for p in model.parameters() if p.ndim == 2 and p.requires_grad]
    vectors = [p for p in model.parameters() if p.ndim == 1 and p.requires_grad]

    def places(group):
        everything = list(model.parameters())
        return sorted(next(i for i, p in enumerate(everything) if p is q) for q in group["params"])

    def wanted(group):
        return [i for i, p in enumerate(model.parameters()) if any(p is q for q in group)]

    decayed, rest = wanted(matrices), wanted(vectors)
    expect(
        "decay_groups(model, 0.1), as numbers of parameters by decay, wpe and ln_f.weight frozen",
        lambda: {round(group["weight_decay"], 6): places(group) for group in tn.decay_groups(model, 0.1)},
        {0.1: decayed, 0.0: rest},
        (
            lambda got: sorted(chain(*got.values())) != sorted(decayed + rest),
            "Every parameter that is learned is in exactly one group; what is frozen is in none.",
        ),
        "Parameters of two or more dimensions decay; biases and the weights of norms do not.",
        see=GPT,
    )


def test_configure_optimizers_passes_its_settings_on():
    model = tn.GPT(config())

    def settings():
        optimizer = model.configure_optimizers(weight_decay=0.2, learning_rate=0.01, betas=(0.8, 0.9))
        return sorted((g["weight_decay"], g["lr"], tuple(g["betas"])) for g in optimizer.param_groups)

    wanted = [(0.0, 0.01, (0.8, 0.9)), (0.2, 0.01, (0.8, 0.9))]
    expect("decay, rate and betas of both groups", settings, wanted, see=GPT)


# Choosing

FOUR = np.log([0.15, 0.5, 0.05, 0.3])


def test_temperature():
    for temperature in (1.0, 0.5, 2.0):
        powers = np.exp(FOUR / temperature)

        def weights(temperature=temperature):
            found = np.asarray(tn.transformers.tempered(FOUR.copy(), temperature))
            return found / found.sum()

        expect(
            f"tempered(the logarithms of [0.15, 0.5, 0.05, 0.3], {temperature}), divided by its sum",
            weights,
            powers / powers.sum(),
            ((q := np.exp(FOUR * temperature)) / q.sum(), "Divide the logits by the temperature; do not multiply."),
            ((q := np.exp(FOUR)) / q.sum(), "The temperature changed nothing."),
            see=CHOOSING,
        )
    expect(
        "tempered([1, 3, 3, 2], 0)",
        lambda: tn.transformers.tempered(np.array([1.0, 3.0, 3.0, 2.0]), 0),
        [0, 1, 0, 0],
        (lambda out: np.isnan(out).any(), "Temperature 0 cannot divide: the most likely token has weight 1."),
        ([0, 1, 1, 0], "Of equals, the one with the smaller number: argmax finds it."),
        see=CHOOSING,
    )
    expect(
        "tempered([1000, 1000, -1000], 1)",
        lambda: (w := np.asarray(tn.transformers.tempered(np.array([1000.0, 1000.0, -1000.0]), 1))) / w.sum(),
        [0.5, 0.5, 0.0],
        (lambda got: np.isnan(got).any(), "exp(1000) overflows: subtract the largest logit first."),
        see=CHOOSING,
    )
    kept = np.array([1.0, 3.0, 2.0])
    expect("the logits after tempered(logits, 0.5)", lambda: (tn.transformers.tempered(kept, 0.5), kept)[1],
           [1.0, 3.0, 2.0], "Do not write into the input.", see=CHOOSING)  # fmt: skip


def test_most_likely():
    logits = np.array([2.0, 5.0, -1.0, 5.0, 3.0, 2.0])
    for k, wanted in ((1, [1]), (2, [1, 3]), (3, [1, 3, 4]), (4, [1, 3, 4, 0]), (6, [1, 3, 4, 0, 5, 2])):
        expect(
            f"most_likely([2, 5, -1, 5, 3, 2], {k})",
            lambda k=k: [int(token) for token in tn.transformers.most_likely(logits.copy(), k)],
            wanted,
            (lambda out, k=k: len(out) != k, "There are exactly k of them, also among equals."),
            (lambda out, k=k: sorted(out) == sorted(np.argsort(logits)[:k]), "These are the least likely ones."),
            (lambda out, wanted=wanted: sorted(out) == sorted(wanted),
             "The most likely comes first, and of equals the one with the smaller number."),
            (lambda out: sorted(logits[out]) == sorted(-np.sort(-logits)[: len(out)]),
             "Among equals, the one with the smaller number comes first: a stable sort."),
            see=CHOOSING,
        )  # fmt: skip


def test_nucleus():
    weights = np.array([0.15, 0.5, 0.05, 0.3]) * 4
    for p, wanted in (
        (0.4, [1]), (0.5, [1]), (0.55, [1, 3]), (0.75, [1, 3]), (0.9, [1, 3, 0]), (0.97, [1, 3, 0, 2]),
        (1.0, [1, 3, 0, 2]),
    ):  # fmt: skip
        expect(
            f"nucleus([0.6, 2.0, 0.2, 1.2], {p})",
            lambda p=p: [int(token) for token in tn.transformers.nucleus(weights.copy(), p)],
            wanted,
            (lambda out, wanted=wanted: out == wanted[:-1],
             "The token that crosses top_p belongs to it: it is out only if those before it reach top_p already."),
            (lambda out, wanted=wanted: len(out) > len(wanted), "No more tokens than needed; p is a part of the sum of "
                                                                "the weights, which need not be 1."),
            (lambda out, wanted=wanted: len(out) < len(wanted), "Together they have at least p of the sum of weights."),
            "The most likely tokens first.",
            see=CHOOSING,
        )  # fmt: skip
    equal = np.array([1.0, 2.0, 1.0, 2.0, 1.0, 1.0])
    expect(
        "nucleus([1, 2, 1, 2, 1, 1], 0.6)",
        lambda: [int(token) for token in tn.transformers.nucleus(equal, 0.6)],
        [1, 3, 0],
        "Among equals, the one with the smaller number comes first.",
        see=CHOOSING,
    )
    many = np.exp(-np.arange(1000) / 100)[np.random.default_rng(0).permutation(1000)]
    order = np.argsort(-many)
    for size in (1e-3, 1.0, 1e4):
        expect(
            f"how many of 1,000 tokens nucleus(weights, 0.95) takes, the largest weight being {size:g}",
            lambda size=size: len(tn.transformers.nucleus(many * size, 0.95)),
            int(np.searchsorted(np.cumsum(many[order]), 0.95 * many.sum())) + 1,
            (lambda out: out > 900, "Take tokens only until they have p of the sum."),
            "Do not leave out a token that is needed; only the proportions of the weights count.",
            see=CHOOSING,
        )
    expect(
        "nucleus([1, 1, 1, 1], 1e-20)",
        lambda: [int(token) for token in tn.transformers.nucleus(np.ones(4), 1e-20)],
        [0],
        ([], "There is always one token in it, however small p is."),
        see=CHOOSING,
    )


@pytest.mark.parametrize(
    "how, wanted",
    [
        ({}, [0.15, 0.5, 0.05, 0.3]),
        ({"temperature": 0.5}, np.array([0.0225, 0.25, 0.0025, 0.09]) / 0.365),
        ({"temperature": 2.0}, np.sqrt([0.15, 0.5, 0.05, 0.3]) / np.sqrt([0.15, 0.5, 0.05, 0.3]).sum()),
        ({"temperature": 0}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 0.625, 0, 0.375]),
        ({"top_k": 9}, [0.15, 0.5, 0.05, 0.3]),
        ({"top_p": 0.7}, [0, 0.625, 0, 0.375]),
        ({"top_p": 0.4}, [0, 1, 0, 0]),
        ({"top_p": 1.0}, [0.15, 0.5, 0.05, 0.3]),
        ({"top_k": 3, "top_p": 0.8}, [0, 0.625, 0, 0.375]),
        ({"temperature": 0.5, "top_p": 0.9}, np.array([0, 0.25, 0, 0.09]) / 0.34),
    ],
    ids=str,
)
def test_next_probabilities(how, wanted):
    by_factor = np.exp(FOUR * how.get("temperature", 1))
    expect(
        f"next_probabilities of the logarithms of [0.15, 0.5, 0.05, 0.3], {how}",
        lambda: tn.next_probabilities(FOUR, **how),
        wanted,
        (by_factor / by_factor.sum(), "Divide the logits by the temperature; do not multiply."),
        (lambda got: abs(np.sum(got) - 1) > 1e-6, "What remains is divided by its sum."),
        (np.array([0.15, 0.5, 0.05, 0.3]), f"{', '.join(how)} changed nothing."),
        (
            lambda got: "top_p" in how and np.count_nonzero(got) < np.count_nonzero(wanted),
            "The token that crosses top_p belongs to it: it is out only if those before it reach top_p already.",
        ),
        "Temperature first, then top_k, then top_p of what is left.",
        see=CHOOSING,
    )


@pytest.mark.parametrize(
    "logits, how",
    [
        ([1.0, np.nan], {}), ([-np.inf, -np.inf], {}), ([1.0, np.inf], {}), ([], {}), ([[1.0, 2.0]], {}),
        ([1.0, 2.0], {"temperature": -1}), ([1.0, 2.0], {"top_k": 0}), ([1.0, 2.0], {"top_p": 0}),
    ],
    ids=str,
)  # fmt: skip
def test_next_probabilities_refuses(logits, how):
    expect(f"next_probabilities({logits}, {how})", lambda: tn.next_probabilities(np.array(logits), **how), ValueError,
           "`checked_logits` and `refuse_settings` raise it.", see=CHOOSING)  # fmt: skip


def test_next_probabilities_in_float64():
    expect(
        "the dtype of next_probabilities of logits in float32",
        lambda: tn.next_probabilities(FOUR.astype(np.float32), top_k=2).dtype,
        np.dtype(np.float64),
        "`checked_logits` gives them in float64.",
        see=CHOOSING,
    )


def test_next_probabilities_of_large_logits():
    expect(
        "next_probabilities([1000, 1000, -1000])",
        lambda: tn.next_probabilities(np.array([1000.0, 1000.0, -1000.0])),
        [0.5, 0.5, 0.0],
        (lambda got: np.isnan(got).any(), "exp(1000) overflows: subtract the largest logit first."),
        see=CHOOSING,
    )
    expect("next_probabilities([2, 2, 1], top_k=1): of equals, the first",
           lambda: tn.next_probabilities(np.array([2.0, 2.0, 1.0]), top_k=1), [1, 0, 0], see=CHOOSING)  # fmt: skip
    kept = np.array([1.0, 3.0, 2.0])

    def untouched():
        tn.next_probabilities(kept, temperature=0.5, top_k=1)
        return kept

    expect("the logits after next_probabilities(logits)", untouched, [1.0, 3.0, 2.0], "Do not write into the input.",
           see=CHOOSING)  # fmt: skip


# Writing


def written_model():
    """A GPT in float64, which needs no seed."""
    return set_weights(tn.GPT(config()))


def last_logits(text, w, length=8):
    return (trunk(np.array([text[-length:]]), part(w, "transformer.")) @ w["transformer.wte.weight"].T)[0, -1]


def test_next_logits_of_texts_of_any_length():
    model, w = written_model()
    texts = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]]
    long = np.array([texts[2][:8]])
    first = (trunk(long, part(w, "transformer.")) @ w["transformer.wte.weight"].T)[0, -1]
    expect(
        "next_logits of texts of 3, 1 and 12 tokens, block_size 8",
        lambda: tn.next_logits(model, texts),
        np.stack([last_logits(text, w) for text in texts]),
        (
            lambda got: np.allclose(got[2], first, atol=1e-4),
            "A text that is too long keeps its end: the last block_size tokens, not the first.",
        ),
        (
            lambda got: not np.allclose(got[0], last_logits(texts[0], w), atol=1e-4),
            "A shorter text is filled up at its end, and its logits are taken at its own last place.",
        ),
        (ValueError, "Texts of different lengths become one array if the shorter ones are filled up at their end."),
        see=WRITING,
        tolerance=1e-5,
    )


@pytest.mark.parametrize("texts", [[], [[1], []]], ids=str)
def test_next_logits_needs_tokens(texts):
    model = tn.GPT(config())
    expect(f"next_logits(model, {texts})", lambda: tn.next_logits(model, texts).shape, ValueError,
           "Nothing comes after a text without tokens: refuse it.", see=WRITING)  # fmt: skip


def test_next_logits_leaves_the_model_as_it_was():
    model = tn.GPT(config(dropout=0.5))
    for mode in (True, False):
        model.train(mode)
        expect(
            f"is every part in the mode it was in, training={mode}, after next_logits?",
            lambda mode=mode: (tn.next_logits(model, [[1, 2]]), {m.training for m in model.modules()})[1] == {mode},
            True,
            "Go back to the mode that was there before, also in the parts: train(mode).",
            see=WRITING,
        )
    expect(
        "do two calls of next_logits differ, with dropout=0.5 and the model in training mode?",
        lambda: bool((tn.next_logits(model.train(), [[1, 2]]) != tn.next_logits(model, [[1, 2]])).any()),
        False,
        "A text is written in eval mode.",
        see=WRITING,
    )


def greedy(prompt, w, count):
    text = list(prompt)
    for _ in range(count):
        text.append(int(np.argmax(last_logits(text, w))))
    return text


def test_generate_takes_the_most_likely():
    model, w = written_model()
    prompts = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5, 8, 9, 7]]
    wanted = [greedy(prompt, w, 9) for prompt in prompts]
    expect(
        "generate(model, [3, 1, 4], 9, temperature=0)",
        lambda: tn.generate(model, prompts[0], 9, temperature=0),
        wanted[0],
        (wanted[0][3:], "The text that comes back begins with the prompt."),
        see=WRITING,
    )
    expect("the same for three prompts of different lengths", lambda: tn.generate(model, prompts, 9, temperature=0),
           wanted, "Each text goes on by itself.", see=WRITING)  # fmt: skip
    expect("list(stream(model, [3, 1, 4], 9, temperature=0))",
           lambda: list(tn.stream(model, [3, 1, 4], 9, temperature=0)), wanted[0][3:], see=WRITING)  # fmt: skip


def test_the_loop():
    model, w = written_model()
    prompts = [[3, 1, 4], [2]]
    wanted = [greedy(prompt, w, 6)[len(prompt) :] for prompt in prompts]

    def loop(count, ends=(), asked=None):
        texts = [list(prompt) for prompt in prompts]

        def most_likely(row, logits):
            if asked is not None:
                asked.append((row, np.shape(logits)))
            return int(np.argmax(logits))

        return texts, tn.transformers.continued(model, texts, count, most_likely, set(ends))

    def all_rounds(count, ends=()):
        return [list(tokens) for tokens in loop(count, ends)[1]]

    expect(
        "the rounds of continued(model, [[3, 1, 4], [2]], 6, the most likely, no ends)",
        lambda: all_rounds(6),
        [list(tokens) for tokens in zip(*wanted)],
        (lambda out: len(out) and len(out) != 6, "`count` rounds, one token for each text in each of them."),
        (lambda out: len({tuple(tokens) for tokens in out}) == 1, "Append each token to its text, and ask again."),
        see=WRITING,
    )
    expect("the rounds with count=0", lambda: all_rounds(0), [], see=WRITING)
    stop = next(token for i, token in enumerate(wanted[0]) if token not in wanted[0][:i] and i)
    ends = [(tokens.index(stop) if stop in tokens else 5) for tokens in wanted]
    ended = [
        [tokens[i] if i <= end else None for tokens, end in zip(wanted, ends)] for i in range(max(ends) + 1)
    ]  # fmt: skip
    expect(
        f"the rounds until a text has the token {stop}",
        lambda: all_rounds(6, [stop]),
        ended,
        ([list(tokens) for tokens in zip(*wanted)], "A text ends with the first token that is in `ends`."),
        (lambda out: out[: len(ended)] == ended, "When all texts have ended, there are no more rounds."),
        "A text that has ended gets None; the others go on.",
        see=WRITING,
    )
    expect(
        "the rounds if the first token of each text ends it",
        lambda: all_rounds(6, [tokens[0] for tokens in wanted]),
        [[tokens[0] for tokens in wanted]],
        (lambda out: out[1:] and not any(token is not None for token in out[1]),
         "When all texts have ended, there are no more rounds."),
        "The token that ends a text still belongs to it.",
        see=WRITING,
    )  # fmt: skip

    def after_all():
        texts, rounds = loop(6, [stop])
        list(rounds)
        return texts

    expect(
        f"the texts after all rounds until they have the token {stop}",
        after_all,
        [prompt + tokens[: end + 1] for prompt, tokens, end in zip(prompts, wanted, ends)],
        "The token that ends a text is appended to it, too.",
        see=WRITING,
    )

    def after_one():
        texts, rounds = loop(6)
        next(rounds)
        return texts

    expect(
        "the texts after the first round",
        after_one,
        [prompt + tokens[:1] for prompt, tokens in zip(prompts, wanted)],
        (prompts, "The new tokens are appended to the texts that were given."),
        (lambda out: len(out[0]) > 4, "Yield after each round: the next tokens are not asked for before."),
        see=WRITING,
    )

    def questions():
        asked = []
        list(loop(1, asked=asked)[1])
        return sorted(asked)

    expect("the rows and shapes of logits that `choose` is asked about in a round", questions, [(0, (11,)), (1, (11,))],
           see=WRITING)  # fmt: skip


def test_a_text_ends_where_it_should():
    model, w = written_model()
    texts = [greedy(prompt, w, 9) for prompt in ([3, 1, 4], [2])]
    stop = texts[0][5]
    ended = [text[: text.index(stop, start) + 1] if stop in text[start:] else text
             for text, start in zip(texts, (3, 1))]  # fmt: skip
    expect(
        f"generate of two prompts, temperature=0, stop=[{stop}]",
        lambda: tn.generate(model, [[3, 1, 4], [2]], 9, temperature=0, stop=[stop]),
        ended,
        (texts, "A text ends with the first token of stop that is written."),
        ([text[:-1] if text[-1] == stop else text for text in ended], "The token that stops a text belongs to it."),
        see=WRITING,
    )
    expect(
        "rounds of the same, the tokens of both texts in each round",
        lambda: list(tn.transformers.stream_batch(model, [[3, 1, 4], [2]], 9, temperature=0, stop=[stop])),
        [
            [text[start + i] if start + i < len(text) else None for text, start in zip(ended, (3, 1))]
            for i in range(max(len(ended[0]) - 3, len(ended[1]) - 1))
        ],
        "A text that has ended gets None; when all have ended there are no more rounds.",
        see=WRITING,
    )
    expect("generate(model, [3, 1, 4], 0)", lambda: tn.generate(model, [3, 1, 4], 0), [3, 1, 4], see=WRITING)


def test_a_seed_decides_what_is_written():
    model, _ = written_model()
    one = tn.generate(model, [3, 1, 4], 30, seed=1)
    expect("generate with seed=1, again, the same?", lambda: tn.generate(model, [3, 1, 4], 30, seed=1) == one, True,
           see=WRITING)  # fmt: skip
    expect("generate with seed=2, the same?", lambda: tn.generate(model, [3, 1, 4], 30, seed=2) == one, False,
           "Draw from a generator that the seed makes.", see=WRITING)  # fmt: skip

    def without(seed):
        tt.manual_seed(seed)
        return [tn.generate(model, [3, 1, 4], 30) for _ in range(2)]

    expect("two texts without a seed, the same?", lambda: (t := without(0))[0] == t[1], False, see=WRITING)
    expect("the same two after manual_seed(0) again?", lambda: without(0) == without(0), True,
           "Without a seed, chance comes from the generator of chapter 01.", see=WRITING)  # fmt: skip
    expect(
        "is the first text the same when three are written?",
        lambda: tn.generate(model, [[3, 1, 4], [1], [2, 2]], 30, seed=1)[0] == one,
        True,
        "Each text has a generator of its own, so that its neighbours do not change what is drawn for it.",
        see=WRITING,
    )
    expect(
        "do two equal prompts get the same text?",
        lambda: (t := tn.generate(model, [[3, 1, 4], [3, 1, 4]], 30, seed=1))[0] == t[1],
        False,
        "Each text has chance of its own: the seed alone would give them all the same.",
        see=WRITING,
    )


def test_tokens_are_drawn_as_often_as_they_should():
    model, w = written_model()
    logits = last_logits([3, 1, 4], w) * 2  # temperature 0.5
    wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()

    def furthest():
        drawn = [next(iter(tn.stream(model, [3, 1, 4], 1, temperature=0.5, seed=seed))) for seed in range(200)]
        return float(np.abs(np.bincount(drawn, minlength=11) / 200 - wanted).max())

    expect("how far the frequencies of 200 tokens are from their probabilities, at most", furthest, between(0, 0.12),
           "Draw by next_probabilities, with the temperature that was asked for.", see=WRITING)  # fmt: skip


@pytest.mark.parametrize(
    "prompt, how",
    [([], {}), ([[1], []], {}), ([1], {"temperature": -1}), ([1], {"top_k": 0}), ([1], {"top_p": 0}),
     ([1], {"top_p": 1.5})],
    ids=str,
)  # fmt: skip
def test_generate_refuses_what_cannot_be_meant(prompt, how):
    model = tn.GPT(config())
    call = f"generate(model, {prompt}, 5, {how})"
    expect(call, lambda: tn.generate(model, prompt, 5, **how), ValueError, see=WRITING)


# Windows


def test_windows_ask_for_the_next_token():
    ids = np.array([7, 3, 9, 1, 8, 2, 5, 6])
    data = tn.Windows(ids.astype(np.int32), 4)
    inputs = np.array([[7, 3, 9, 1], [9, 1, 8, 2], [1, 8, 2, 5]])
    targets = np.array([[3, 9, 1, 8], [1, 8, 2, 5], [8, 2, 5, 6]])
    expect(
        "Windows([7, 3, 9, 1, 8, 2, 5, 6], 4).batch([0, 2, 3])",
        lambda: tuple(np.asarray(part) for part in data.batch([0, 2, 3])),
        (inputs, targets),
        ((inputs, inputs), "What is to be predicted is the same window one token later."),
        ((targets, inputs), "First the inputs, then the targets, which are one token later."),
        (lambda out: [part.shape for part in out] == [(3, 5), (3, 5)],
         "A row of windows has one token more than a sample: the inputs leave out the last, the targets the first."),
        (lambda out: [part.shape for part in out] == [(3, 3), (3, 3)],
         "Inputs and targets have `length` tokens each: a row of windows has one more."),
        see=WRITES,
    )  # fmt: skip
    expect(
        "the types of inputs and targets, of ids in int32",
        lambda: [f"{type(part).__name__} of {part.dtype}" for part in data.batch([0, 1])],
        ["Tensor of int64"] * 2,
        "Tensors of int64: astype, and from_numpy.",
        see=WRITES,
    )
    expect(
        "the inputs of sample -1 of 4",
        lambda: data.batch([-1])[0],
        [[1, 8, 2, 5]],
        "`row_numbers` turns indices into rows.",
        see=WRITES,
    )
    expect("Windows of 4 samples, .batch([4])", lambda: data.batch([4])[0], IndexError, "`row_numbers` refuses it.",
           see=WRITES)  # fmt: skip


# Exercises


def test_surprises():
    model, w = written_model()
    text = [3, 1, 4, 1, 5]
    logits = (trunk(np.array([text[:-1]]), part(w, "transformer.")) @ w["transformer.wte.weight"].T)[0]
    lost = np.log(np.exp(logits).sum(-1)) - logits[np.arange(4), text[1:]]
    expect(
        "surprises(model, [3, 1, 4, 1, 5])",
        lambda: tn.transformers.surprises(model, text),
        [float(value) for value in lost],
        (lambda got: len(got) == 5, "Nothing predicts the first token: one number for each of the others."),
        "Logits at place i are about token i + 1.",
        see=EXERCISES,
    )
    dropping = tn.GPT(config(dropout=0.5)).train()
    expect(
        "do two calls differ with dropout=0.5, in training mode?",
        lambda: tn.transformers.surprises(dropping, text) != tn.transformers.surprises(dropping, text),
        False,
        see=EXERCISES,
    )
    expect("the model's mode afterwards", lambda: dropping.training, True, see=EXERCISES)


def test_gated_mlp():
    x = np.sin(np.arange(12.0)).reshape(1, 3, 4)
    layer, w = set_weights(tn.GatedMLP(4, 6))
    gate, up = x @ w["gate_proj.weight"].T, x @ w["up_proj.weight"].T
    expect(
        "GatedMLP(4, 6) of x (1, 3, 4)",
        lambda: layer(tt.from_numpy(x)),
        gate / (1 + np.exp(-gate)) * up @ w["down_proj.weight"].T,
        (up / (1 + np.exp(-up)) * gate @ w["down_proj.weight"].T, "silu is for the gate, not for what goes through."),
        (up / (1 + np.exp(-gate)) @ w["down_proj.weight"].T, "silu(x) is x times sigmoid(x)."),
        (gate * up @ w["down_proj.weight"].T, "The gate goes through silu before it meets the other half."),
        see=EXERCISES,
    )


def test_without_repeats():
    logits = np.array([2.0, -2.0, 3.0, -1.0])
    expect(
        "without_repeats([2, -2, 3, -1], [0, 1, 1], 2)",
        lambda: tn.transformers.without_repeats(logits, [0, 1, 1], 2.0),
        [1.0, -4.0, 3.0, -1.0],
        ([1.0, -1.0, 3.0, -1.0], "Dividing a negative logit makes it larger: multiply it."),
        ([1.0, -8.0, 3.0, -1.0], "A token that occurs twice is punished once."),
        see=EXERCISES,
    )
    expect("logits after without_repeats(logits, ...)", lambda: logits, [2.0, -2.0, 3.0, -1.0],
           "The result is a copy.", see=EXERCISES)  # fmt: skip
    expect(
        "without_repeats(logits, [], 2)",
        lambda: tn.transformers.without_repeats(logits, [], 2.0),
        [2.0, -2.0, 3.0, -1.0],
        see=EXERCISES,
    )
    expect(
        "without_repeats([0.5, -0.5, 3], [0, 1], 0.5), which makes repeats likelier",
        lambda: tn.transformers.without_repeats(np.array([0.5, -0.5, 3.0]), [0, 1], 0.5),
        [1.0, -0.25, 3.0],
        (ValueError, "Every penalty above 0 is allowed."),
        "The sign of the logit decides: divide above 0, multiply below.",
        see=EXERCISES,
    )
    for penalty in (0.0, -0.5, np.nan):
        expect(
            f"without_repeats(logits, [0], {penalty})",
            lambda penalty=penalty: tn.transformers.without_repeats(logits, [0], penalty),
            ValueError,
            "A penalty is above 0.",
            see=EXERCISES,
        )
    for text, first in (([-1], "-1"), ([2, -1], "-1"), ([-1, -3, 0], "-3"), ([0, 4], "4")):

        def said(text=text):
            try:
                return tn.transformers.without_repeats(logits, text, 2.0)
            except IndexError as error:
                return sorted(re.findall(r"-?\d+", str(error))), str(error)

        expect(
            f"does without_repeats of 4 logits refuse the text {text} with an IndexError that names {first}?",
            lambda said=said, first=first: isinstance(said(), tuple) and first in said()[0],
            True,
            "There are logits of tokens 0 to 3, and none below 0.",
            see=EXERCISES,
        )
