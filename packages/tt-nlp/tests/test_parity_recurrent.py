"""Torch as the oracle of recurrent networks: cells, layers with every option, and packed sequences. Values, last states
and the gradients of inputs, states and all weights, in float64."""

import itertools
import warnings

import numpy as np
import pytest

import tt_nlp as tn
import tt_tensor as tt

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")
rnn = torch.nn.utils.rnn

torch.set_num_threads(1)

KINDS = {
    "RNN": {}, "RNN with relu": {"nonlinearity": "relu"}, "LSTM": {}, "GRU": {},
    "LSTM with projection": {"proj_size": 2},
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)
LENGTHS = [3, 5, 1, 3]


def pair_of(kind, **options):
    """Our layer or cell and torch's with the same weights, in float64."""
    name, options = kind.split()[0], KINDS[kind.replace("Cell", "")] | options
    name = name + "Cell" if "Cell" in kind and "Cell" not in name else name
    theirs = getattr(torch.nn, name)(3, 4, **options, dtype=torch.float64)
    ours = getattr(tn, name)(3, 4, **options, dtype=np.float64)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def both(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return tt.Tensor(values, requires_grad=True), torch.from_numpy(values).requires_grad_()


def close(ours, theirs, what):
    assert tuple(ours.shape) == tuple(theirs.shape), what
    np.testing.assert_allclose(np.asarray(ours.detach()), theirs.detach().numpy(), rtol=1e-10, atol=1e-10, err_msg=what)


def flat(result):
    """All tensors of a result, however nested; of a packed sequence its data."""
    if isinstance(result, tn.PackedSequence | rnn.PackedSequence):
        return [result.data]
    return [t for part in result for t in flat(part)] if isinstance(result, tuple) else [result]


def compare(ours, theirs, our_inputs, their_inputs, our_result, their_result):
    """Values, and the gradients of a weighted sum of everything that came out."""
    found, wanted = flat(our_result), flat(their_result)
    assert len(found) == len(wanted)
    for n, (a, b) in enumerate(zip(found, wanted)):
        close(a, b, f"result {n}")
    weights = [np.random.default_rng(n).normal(size=tuple(b.shape)) for n, b in enumerate(wanted)]
    sum((a * w).sum() for a, w in zip(found, weights)).backward()
    sum((b * torch.from_numpy(w)).sum() for b, w in zip(wanted, weights)).backward()
    for n, (a, b) in enumerate(zip(our_inputs, their_inputs)):
        close(a.grad, b.grad, f"gradient of input {n}")
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters()):
        close(a.grad, b.grad, f"gradient of {name}")


def states_of(kind, *leading):
    """A state for our layer and for torch's, as each wants it, and the tensors in them."""
    sizes = [2 if "projection" in kind else 4] + ([4] if "LSTM" in kind else [])
    pairs = [both(*leading, size, seed=7 + n) for n, size in enumerate(sizes)]
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    if "LSTM" not in kind:
        return ours[0], theirs[0], ours, theirs
    return tuple(ours), tuple(theirs), ours, theirs


@pytest.mark.parametrize("kind", ["RNNCell", "RNNCell with relu", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("batch", [(), (5,)], ids=["one", "batch"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("given", [True, False], ids=["with a state", "without"])
def test_cells(kind, batch, bias, given):
    ours, theirs = pair_of(kind, bias=bias)
    x, y = both(*batch, 3)
    if not given:
        return compare(ours, theirs, [x], [y], ours(x), theirs(y))
    a, b, our_states, their_states = states_of(kind, *batch)
    compare(ours, theirs, [x, *our_states], [y, *their_states], ours(x, a), theirs(y, b))


OPTIONS = list(itertools.product([1, 2, 3], [False, True], [False, True]))  # layers, both directions, batch_first


@every_kind
@pytest.mark.parametrize(("layers", "bidirectional", "batch_first"), OPTIONS)
@pytest.mark.parametrize("given", [True, False], ids=["with a state", "without"])
def test_layers(kind, layers, bidirectional, batch_first, given):
    ours, theirs = pair_of(kind, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first)
    x, y = both(2, 5, 3)
    if not given:
        return compare(ours, theirs, [x], [y], ours(x), theirs(y))
    batch = 2 if batch_first else 5
    a, b, our_states, their_states = states_of(kind, layers * (1 + bidirectional), batch)
    compare(ours, theirs, [x, *our_states], [y, *their_states], ours(x, a), theirs(y, b))


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("given", [True, False], ids=["with a state", "without"])
def test_a_text_without_a_batch(kind, batch_first, given):
    ours, theirs = pair_of(kind, num_layers=2, bidirectional=True, batch_first=batch_first)
    x, y = both(5, 3)
    a, b, our_states, their_states = states_of(kind, 4)
    if not given:
        return compare(ours, theirs, [x], [y], ours(x), theirs(y))
    compare(ours, theirs, [x, *our_states], [y, *their_states], ours(x, a), theirs(y, b))


@every_kind
def test_without_biases(kind):
    ours, theirs = pair_of(kind, num_layers=2, bias=False)
    x, y = both(4, 2, 3)
    compare(ours, theirs, [x], [y], ours(x), theirs(y))


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("given", [True, False], ids=["with a state", "without"])
@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5, 5], [1, 2, 3, 4]], ids=str)
def test_packed(kind, bidirectional, given, lengths):
    ours, theirs = pair_of(kind, num_layers=2, bidirectional=bidirectional)
    x, y = both(5, 4, 3)
    a, b, our_states, their_states = states_of(kind, 2 * (1 + bidirectional), 4)
    p = tn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    q = rnn.pack_padded_sequence(y, lengths, enforce_sorted=False)
    found, wanted = (ours(p, a), theirs(q, b)) if given else (ours(p), theirs(q))
    same_packing(found[0], wanted[0])
    found = tn.pad_packed_sequence(found[0], padding_value=0.5, total_length=6)[0], found[1]
    wanted = rnn.pad_packed_sequence(wanted[0], padding_value=0.5, total_length=6)[0], wanted[1]
    more = (our_states, their_states) if given else ([], [])
    compare(ours, theirs, [x, *more[0]], [y, *more[1]], found, wanted)


def same_packing(ours, theirs):
    close(ours.data, theirs.data, "data")
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None) and (a is None or a.tolist() == b.tolist()), name
        assert a is None or str(a.dtype) == str(b.dtype).removeprefix("torch.")


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("rest", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("as_tensors", [False, True])
def test_packing_and_padding(batch_first, rest, as_tensors):
    for lengths, is_sorted in ((LENGTHS, False), (sorted(LENGTHS)[::-1], True), ([2, 2], False)):
        shape = (len(lengths), 6) if batch_first else (6, len(lengths))
        x, y = both(*shape, *rest)
        options = {"batch_first": batch_first, "enforce_sorted": is_sorted}
        p = tn.pack_padded_sequence(x, tt.tensor(lengths) if as_tensors else lengths, **options)
        q = rnn.pack_padded_sequence(y, torch.tensor(lengths) if as_tensors else lengths, **options)
        same_packing(p, q)
        for options in ({}, {"padding_value": -1.5}, {"total_length": 7}, {"batch_first": True}):
            (a, n), (b, m) = tn.pad_packed_sequence(p, **options), rnn.pad_packed_sequence(q, **options)
            close(a, b, str(options))
            assert n.tolist() == m.tolist() and n.dtype == np.int64


def test_a_length_beyond_the_steps_is_where_we_differ():
    packed = rnn.pack_padded_sequence(torch.zeros(5, 2, 3), [6, 2])
    assert len(packed.data) < packed.batch_sizes.sum()  # what the text says of torch
    with pytest.raises(RuntimeError, match="from 1 to the 5 steps"):
        tn.pack_padded_sequence(tt.zeros(5, 2, 3), [6, 2])


@pytest.mark.parametrize("batch_first", [False, True])
def test_lists_of_sequences(batch_first):
    texts = [both(n, 2, seed=n) for n in LENGTHS]
    ours, theirs = [a for a, _ in texts], [b for _, b in texts]
    for side in ("left", "right"):
        options = {"batch_first": batch_first, "padding_value": 2.0, "padding_side": side}
        close(tn.pad_sequence(ours, **options), rnn.pad_sequence(theirs, **options), side)
    same_packing(tn.pack_sequence(ours, enforce_sorted=False), rnn.pack_sequence(theirs, enforce_sorted=False))
    a, b = tn.pad_sequence(ours, batch_first), rnn.pad_sequence(theirs, batch_first)
    found = tn.unpad_sequence(a, tt.tensor(LENGTHS), batch_first)
    for one, other in zip(found, rnn.unpad_sequence(b, torch.tensor(LENGTHS), batch_first), strict=True):
        close(one, other, "unpad_sequence")
    p, q = (pack(x, False) for pack, x in ((tn.pack_sequence, ours), (rnn.pack_sequence, theirs)))
    for one, other in zip(tn.unpack_sequence(p), rnn.unpack_sequence(q), strict=True):
        close(one, other, "unpack_sequence")
    assert tn.invert_permutation(tt.tensor([2, 0, 1])).tolist() == [1, 2, 0]


def test_integers_stay_integers():
    ids = [[3, 1, 4], [1]]
    ours, theirs = [tt.tensor(x) for x in ids], [torch.tensor(x) for x in ids]
    assert tn.pad_sequence(ours, True, -1).tolist() == rnn.pad_sequence(theirs, True, -1).tolist()
    p, q = tn.pack_sequence(ours), rnn.pack_sequence(theirs)
    assert p.data.dtype == np.int64 and p.data.tolist() == q.data.tolist()
    a, b = tn.pad_packed_sequence(p)[0], rnn.pad_packed_sequence(q)[0]
    assert a.dtype == np.int64 and a.tolist() == b.tolist()


def test_positions_of_the_arguments():
    for name, arguments in (
        ("RNN", (3, 4, 2, "relu", False, True, 0.0, True)), ("LSTM", (3, 4, 2, False, True, 0.0, True, 2)),
        ("GRU", (3, 4, 2, False, True, 0.0, True)), ("RNNCell", (3, 4, False, "relu")), ("LSTMCell", (3, 4, False)),
        ("GRUCell", (3, 4, False)), ("RNNBase", ("GRU", 3, 4, 2, False, True, 0.0, True)),
    ):
        ours, theirs = getattr(tn, name)(*arguments), getattr(torch.nn, name)(*arguments)
        assert [(n, p.shape) for n, p in ours.named_parameters()] == [
            (n, tuple(p.shape)) for n, p in theirs.named_parameters()
        ], name
        for attribute in ("mode", "batch_first", "bidirectional", "num_layers", "bias", "nonlinearity", "proj_size"):
            assert getattr(ours, attribute, None) == getattr(theirs, attribute, None), (name, attribute)
    assert [[w.shape for w in layer] for layer in tn.LSTM(3, 4, 2, bidirectional=True, proj_size=2).all_weights] == [
        [tuple(w.shape) for w in layer]
        for layer in torch.nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2).all_weights
    ]


# What torch refuses, we refuse, with an error of the same kind.

x = np.zeros((5, 2, 3), np.float32)
REFUSED = {
    "wrong width": lambda nn, t, r: nn.LSTM(4, 4)(t(x)),
    "one dimension": lambda nn, t, r: nn.GRU(3, 4)(t(x[0, 0])),
    "four dimensions": lambda nn, t, r: nn.GRU(3, 4)(t(x[None])),
    "state of a wrong batch": lambda nn, t, r: nn.GRU(3, 4)(t(x), t(np.zeros((1, 3, 4), np.float32))),
    "state of wrong layers": lambda nn, t, r: nn.RNN(3, 4, 2)(t(x), t(np.zeros((1, 2, 4), np.float32))),
    "state of a batch for a text": lambda nn, t, r: nn.GRU(3, 4)(t(x[:, 0]), t(np.zeros((1, 1, 4), np.float32))),
    "cell state of a wrong size": lambda nn, t, r: nn.LSTM(3, 4)(
        t(x), (t(np.zeros((1, 2, 4), np.float32)), t(np.zeros((1, 2, 5), np.float32)))
    ),
    "no steps": lambda nn, t, r: nn.GRU(3, 4)(t(x[:0])),
    "cell: wrong width": lambda nn, t, r: nn.GRUCell(4, 4)(t(x[0])),
    "cell: three dimensions": lambda nn, t, r: nn.GRUCell(3, 4)(t(x)),
    "cell: wrong state": lambda nn, t, r: nn.RNNCell(3, 4)(t(x[0]), t(np.zeros((2, 3), np.float32))),
    "hidden size": lambda nn, t, r: nn.GRU(3, 0),
    "no layers": lambda nn, t, r: nn.GRU(3, 4, 0),
    "hidden size of a kind": lambda nn, t, r: nn.GRU(3, 4.0),
    "dropout": lambda nn, t, r: nn.GRU(3, 4, dropout=1.5),
    "dropout True": lambda nn, t, r: nn.GRU(3, 4, dropout=True),
    "projection too large": lambda nn, t, r: nn.LSTM(3, 4, proj_size=4),
    "projection negative": lambda nn, t, r: nn.LSTM(3, 4, proj_size=-1),
    "nonlinearity": lambda nn, t, r: nn.RNN(3, 4, nonlinearity="sigmoid"),
    "mode": lambda nn, t, r: nn.RNNBase("MGU", 3, 4),
    "length 0": lambda nn, t, r: r.pack_padded_sequence(t(x), [5, 0]),
    "too few lengths": lambda nn, t, r: r.pack_padded_sequence(t(x), [5]),
    "not sorted": lambda nn, t, r: r.pack_padded_sequence(t(x), [3, 5]),
    "total_length": lambda nn, t, r: r.pad_packed_sequence(r.pack_padded_sequence(t(x), [5, 2]), total_length=4),
    "padding_side": lambda nn, t, r: r.pad_sequence([t(x[0])], padding_side="middle"),
    "no sequences": lambda nn, t, r: r.pad_sequence([]),
}


@pytest.mark.parametrize("attempt", REFUSED.values(), ids=REFUSED)
def test_what_torch_refuses_is_refused(attempt):
    with pytest.raises((ValueError, TypeError, RuntimeError)) as theirs:
        attempt(torch.nn, torch.from_numpy, rnn)
    with pytest.raises((ValueError, TypeError, RuntimeError)) as ours:
        attempt(tn, tt.from_numpy, tn)
    assert ours.type is theirs.type, theirs.value


def test_dropout_that_has_no_effect_is_a_warning():
    for nn in (torch.nn, tn):
        with pytest.warns(UserWarning, match="dropout"):
            nn.LSTM(3, 4, dropout=0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            nn.LSTM(3, 4, num_layers=2, dropout=0.5)
