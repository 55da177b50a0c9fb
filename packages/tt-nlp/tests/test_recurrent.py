"""Recurrent networks without torch: against loops in NumPy, finite differences, and each text by itself;
test_parity_recurrent compares with torch's."""

import numpy as np
import pytest

import tt_autograd
import tt_nlp as tn
import tt_tensor as tt
from tt_autograd import check_gradients
from tt_optim import Adam

LAYERS = {"RNN": tn.RNN, "LSTM": tn.LSTM, "GRU": tn.GRU}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
LENGTHS = [3, 5, 1, 3]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def sigma(x):
    return 1 / (1 + np.exp(-x))


def by_definition(kind, w, x, state, suffix="_l0"):
    """The states after each step of x (T, B, C), in plain NumPy."""
    states = []
    for row in x:
        a = row @ w["weight_ih" + suffix].T + w["bias_ih" + suffix]
        b = state[0] @ w["weight_hh" + suffix].T + w["bias_hh" + suffix]
        if kind == "RNN":
            state = (np.tanh(a + b),)
        elif kind == "GRU":
            (r, z, n), (s, y, m) = np.split(a, 3, -1), np.split(b, 3, -1)
            z = sigma(z + y)
            state = ((1 - z) * np.tanh(n + sigma(r + s) * m) + z * state[0],)
        else:
            i, f, g, o = np.split(a + b, 4, -1)
            c = sigma(f) * state[1] + sigma(i) * np.tanh(g)
            state = (sigma(o) * np.tanh(c), c)
        states.append(state)
    return states


def arrays(layer):
    return {name: value.numpy() for name, value in layer.state_dict().items()}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_its_definition(kind):
    layer, x = LAYERS[kind](3, 4, dtype=np.float64), numbers(5, 2, 3)
    first = [numbers(2, 4, seed=n) for n in (1, 2)][: 1 + (kind == "LSTM")]
    states = by_definition(kind, arrays(layer), x, first)
    given = tuple(tt.Tensor(part[None]) for part in first)
    output, last = layer(tt.Tensor(x), given if kind == "LSTM" else given[0])
    np.testing.assert_allclose(output.detach(), np.stack([state[0] for state in states]), rtol=1e-9)
    for ours, wanted in zip(last if kind == "LSTM" else (last,), states[-1], strict=True):
        np.testing.assert_allclose(ours[0].detach(), wanted, rtol=1e-9)


@pytest.mark.parametrize("kind", LAYERS)
def test_both_directions_and_two_layers_are_their_definition(kind):
    layer, x = LAYERS[kind](3, 4, num_layers=2, bidirectional=True, dtype=np.float64), numbers(5, 2, 3)
    data, last, zeros = x, [], [np.zeros((2, 4))] * 2
    for suffix in ("_l0", "_l1"):
        ahead = by_definition(kind, arrays(layer), data, zeros, suffix)
        back = by_definition(kind, arrays(layer), data[::-1], zeros, suffix + "_reverse")
        last += [ahead[-1][0], back[-1][0]]
        data = np.concatenate([np.stack([s[0] for s in way]) for way in (ahead, back[::-1])], -1)
    output, state = layer(tt.Tensor(x))
    np.testing.assert_allclose(output.detach(), data, rtol=1e-9)
    np.testing.assert_allclose((state[0] if kind == "LSTM" else state).detach(), np.stack(last), rtol=1e-9)


def test_a_projection_shortens_what_is_shown():
    layer, x = tn.LSTM(3, 4, proj_size=2, dtype=np.float64), numbers(5, 2, 3)
    w, h, c = arrays(layer), np.zeros((2, 2)), np.zeros((2, 4))
    for row in x:
        h, c = by_definition("LSTM", w, row[None], (h, c))[0]
        h = h @ w["weight_hr_l0"].T
    output, (last, cell) = layer(tt.Tensor(x))
    for ours, wanted in ((output[-1], h), (last[0], h), (cell[0], c)):
        np.testing.assert_allclose(ours.detach(), wanted, rtol=1e-9)


# The gradients of every weight and of the input, by finite differences, packed, in two layers and both directions.


@every_layer
def test_gradients(layer):
    layer = layer(2, 2, num_layers=2, bidirectional=True, dtype=np.float64)
    x = tt.Tensor(numbers(3, 2, 2), requires_grad=True)
    weights = tt.Tensor(numbers(3, 2, 4, seed=1))

    def value(x, *parameters):
        packed = tn.pack_padded_sequence(x, [1, 3], enforce_sorted=False)
        return tn.pad_packed_sequence(layer(packed)[0])[0] * weights

    check_gradients(value, x, *layer.parameters(), order=1)


@pytest.mark.parametrize("cell", [tn.RNNCell, tn.LSTMCell, tn.GRUCell])
def test_second_derivatives_of_cells(cell):
    cell, x = cell(2, 2, dtype=np.float64), tt.Tensor(numbers(3, 2), requires_grad=True)

    def value(x, *parameters):
        state = cell(x, cell(x))
        return state[0] * state[0] if isinstance(state, tuple) else state * state

    check_gradients(value, x, *cell.parameters(), order=2)


def test_second_derivatives_of_layers():
    layer, x = tn.GRU(1, 2, bidirectional=True, dtype=np.float64), tt.Tensor(numbers(3, 1, 1), requires_grad=True)
    check_gradients(lambda x, weight: layer(x)[0] ** 2, x, layer.weight_hh_l0, order=2)


# Each text by itself is the oracle of packing.


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_packed_text_does_not_notice_the_others(layer, bidirectional):
    layer = layer(3, 4, num_layers=2, bidirectional=bidirectional, dtype=np.float64)
    texts = [tt.Tensor(numbers(n, 3, seed=n)) for n in LENGTHS]
    first = tt.Tensor(numbers(2 * (1 + bidirectional), len(texts), 4))
    lstm = isinstance(layer, tn.LSTM)
    output, last = layer(tn.pack_sequence(texts, enforce_sorted=False), (first, first * 2) if lstm else first)
    for b, (text, out) in enumerate(zip(texts, tn.unpack_sequence(output), strict=True)):
        alone, state = layer(text, (first[:, b], first[:, b] * 2) if lstm else first[:, b])
        np.testing.assert_allclose(out.detach(), alone.detach(), rtol=1e-9)
        for ours, wanted in zip(last if lstm else (last,), state if lstm else (state,)):
            np.testing.assert_allclose(ours[:, b].detach(), wanted.detach(), rtol=1e-9)


def test_what_stands_in_the_padding_does_not_matter():
    layer, x = tn.LSTM(3, 4, bidirectional=True), numbers(5, 4, 3).astype(np.float32)
    other = np.where(np.arange(5)[:, None, None] < np.array(LENGTHS)[:, None], x, np.nan)
    results = []
    for values in (x, other):
        values = tt.Tensor(values, requires_grad=True)
        output, (h, _) = layer(tn.pack_padded_sequence(values, LENGTHS, enforce_sorted=False))
        (tn.pad_packed_sequence(output)[0].sum() + h.sum()).backward()
        results.append((h.detach().numpy(), values.grad.numpy()))
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)
    assert (results[0][1][1:, 2] == 0).all()


def test_batch_first_changes_the_order_of_dimensions_only():
    layer, other = tn.GRU(3, 4, 2, batch_first=True), tn.GRU(3, 4, 2)
    other.load_state_dict(layer.state_dict())
    x = tt.randn(2, 5, 3)
    (a, h), (b, k) = layer(x), other(x.transpose(0, 1))
    assert h.shape == (2, 2, 4)
    np.testing.assert_array_equal(a.detach(), b.transpose(0, 1).detach())
    np.testing.assert_array_equal(h.detach(), k.detach())


# Dropout acts between layers, in training only.


@every_layer
def test_dropout_acts_between_layers_only(layer):
    kind, layer, x = layer, layer(3, 4, num_layers=2, dropout=1.0), tt.randn(5, 2, 3)
    first, second = kind(3, 4), kind(4, 4)
    for own, name in ((first, "_l0"), (second, "_l1")):
        own.load_state_dict({n.replace(name, "_l0"): v for n, v in layer.state_dict().items() if name in n})
    output, last = layer(x)
    np.testing.assert_allclose(output.detach(), second(tt.zeros(5, 2, 4))[0].detach(), atol=1e-6)
    h = last[0] if isinstance(last, tuple) else last
    np.testing.assert_allclose(h[0].detach(), first(x)[0][-1].detach(), atol=1e-6)
    layer.eval()
    plain = kind(3, 4, num_layers=2)
    plain.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(layer(x)[0].detach(), plain(x)[0].detach())


def test_new_weights():
    tt.manual_seed(0)
    for module in (tn.LSTM(3, 25, 2), tn.GRUCell(3, 25), tn.RNN(3, 25)):
        for name, p in module.named_parameters():
            assert 0.15 < np.abs(p.numpy()).max() <= 0.2, name
    assert list(tn.GRU(3, 4, 2, bias=False, bidirectional=True).state_dict()) == [
        f"weight_{w}_l{n}{way}" for n in (0, 1) for way in ("", "_reverse") for w in ("ih", "hh")
    ]
    assert tn.LSTM(3, 4).flatten_parameters() is None


def test_a_cut_history_ends_at_the_cut():
    layer, x = tn.GRU(3, 4), tt.randn(4, 2, 3, requires_grad=True)
    _, h = layer(x[:2])
    layer(x[2:], h.detach())[0].sum().backward()
    assert (x.grad[:2] == 0).all() and (x.grad[2:] != 0).any()


def test_a_layer_learns_what_an_average_cannot():
    """The first token of the text is the answer; the rest is noise."""
    tt.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, 2, (128, 8))
    x, y = tt.one_hot(tt.from_numpy(ids), 2).float(), tt.from_numpy(ids[:, 0])
    layer, head = tn.LSTM(2, 16, batch_first=True), tt.Linear(16, 2)
    optimizer = Adam([*layer.parameters(), *head.parameters()], lr=0.05)
    for _ in range(60):
        loss = tt.cross_entropy(head(layer(x)[0][:, -1]), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


# Errors name what was wrong.


def test_a_packed_sequence_converts():
    packed = tn.pack_sequence([tt.randn(2, 3), tt.randn(1, 3)])
    assert packed.to(np.float64).data.dtype == np.float64
    assert packed.to(np.float64).batch_sizes is packed.batch_sizes


x = tt.zeros(5, 2, 3)
ERRORS = {
    "width": (RuntimeError, "input_size 4", lambda: tn.LSTM(4, 4)(x)),
    "width, batch first": (RuntimeError, r"\(5, 2, 3\)", lambda: tn.LSTM(4, 4, batch_first=True)(x)),
    "packed width": (RuntimeError, "input_size 4", lambda: tn.LSTM(4, 4)(tn.pack_padded_sequence(x, [5, 2]))),
    "dimensions": (ValueError, "3 dimensions", lambda: tn.GRU(3, 4)(tt.zeros(1, 5, 2, 3))),
    "state": (RuntimeError, r"\(1, 2, 4\)", lambda: tn.GRU(3, 4)(x, tt.zeros(1, 3, 4))),
    "layers": (RuntimeError, r"\(4, 2, 4\)", lambda: tn.GRU(3, 4, 2, bidirectional=True)(x, tt.zeros(2, 2, 4))),
    "cell of a projection": (
        RuntimeError, r"\(1, 2, 4\)", lambda: tn.LSTM(3, 4, proj_size=2)(x, (tt.zeros(1, 2, 2), tt.zeros(1, 2, 2)))
    ),
    "one state for two": (TypeError, "pair", lambda: tn.LSTM(3, 4)(x, tt.zeros(1, 2, 4))),
    "one state for two in a cell": (TypeError, "pair", lambda: tn.LSTMCell(3, 4)(x[0], tt.zeros(2, 4))),
    "no steps": (RuntimeError, "at least one step", lambda: tn.GRU(3, 4)(x[:0])),
    "cell width": (RuntimeError, "input_size 4", lambda: tn.GRUCell(4, 4)(x[0])),
    "cell dimensions": (ValueError, "dimensions", lambda: tn.GRUCell(3, 4)(x)),
    "cell state": (RuntimeError, r"\(2, 4\)", lambda: tn.GRUCell(3, 4)(x[0], tt.zeros(2, 3))),
    "length 0": (RuntimeError, "from 1 to the 5 steps", lambda: tn.pack_padded_sequence(x, [5, 0])),
    "too long": (RuntimeError, "from 1 to the 5 steps", lambda: tn.pack_padded_sequence(x, [6, 2])),
    "number of lengths": (RuntimeError, "batch_first", lambda: tn.pack_padded_sequence(x, [5])),
    "lengths of a half": (TypeError, "integers", lambda: tn.pack_padded_sequence(x, [5.0, 2.5])),
    "unsorted": (RuntimeError, "enforce_sorted=False", lambda: tn.pack_padded_sequence(x, [2, 5])),
    "total_length": (
        ValueError, "longest text", lambda: tn.pad_packed_sequence(tn.pack_padded_sequence(x, [5, 2]), total_length=4)
    ),
    "nonlinearity": (ValueError, "sigmoid", lambda: tn.RNN(3, 4, nonlinearity="sigmoid")),
    "projection of a GRU": (ValueError, "LSTM", lambda: tn.RNNBase("GRU", 3, 4, proj_size=2)),
    "device": (RuntimeError, "cuda", lambda: tn.LSTM(3, 4, device="cuda")),
    "device of a cell": (RuntimeError, "cuda", lambda: tn.LSTMCell(3, 4, device="cuda")),
    "size": (ValueError, "hidden_size", lambda: tn.GRU(3, 0)),
    "no integer": (TypeError, "hidden_size", lambda: tn.GRUCell(3, 4.0)),
}


@pytest.mark.parametrize(("kind", "says", "attempt"), ERRORS.values(), ids=ERRORS)
def test_errors_say_what_is_wrong(kind, says, attempt):
    with pytest.raises(kind, match=says):
        attempt()


def test_evaluation_records_nothing():
    with tt_autograd.no_grad():
        output, _ = tn.LSTM(3, 4)(tt.randn(5, 2, 3))
    assert not output.requires_grad
