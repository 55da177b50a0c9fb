# # More recurrent networks
#
# The second appendix on recurrence. A cell makes one step. Here we build PyTorch's layers, which read whole sequences,
# in several layers and in both directions, and batches of texts of different lengths, *packed* so that we compute no
# padding.

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import tt_tensor as tt
from tt_nlp.recurrent import (
    GRUCell, LSTMCell, RNNCell, gru_step, lstm_step, new_parameter, pair, refuse_sizes, rnn_step, unrolled,
)
from tt_tensor import (
    Module, Parameter, Tensor, cat, dropout, from_numpy, linear, refuse_other_device, relu, stack, tanh,
)  # fmt: skip

# ## Cutting time
#
# In the chapter we took the input of step $t$ as `given[t]`. Think of the way back: the gradient of a slice is an array
# as large as *the whole sequence*, zeros except for one step, and for $T$ steps we would add up $T$ such arrays. The
# cost grows with $T^2$. If we cut in halves, and the halves again, there are only $\log_2 T$ levels, and on each level
# the arrays together have the size of the sequence.


def in_steps(x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The rows of x as consecutive pieces of the given sizes."""
    if len(sizes) == 1:
        return [x]
    half = len(sizes) // 2
    rows = sum(sizes[:half])
    return in_steps(x[:rows], sizes[:half]) + in_steps(x[rows:], sizes[half:])


def show_cutting():
    for steps in (16, 64, 256):
        x = tt.randn(steps * 32, 64, requires_grad=True)
        halves = tt.measure(lambda: cat(in_steps(x, [32] * steps)).backward(tt.ones_like(x)))
        slices = tt.measure(lambda: cat([x[32 * t : 32 * t + 32] for t in range(steps)]).backward(tt.ones_like(x)))
        print(f"{steps:3d} steps: slices {slices.seconds * 1e3:7.2f} ms, halves {halves.seconds * 1e3:7.2f} ms")


# For sixteen steps you see no difference. The longer the text, the more the halves are worth.

# ## Texts of different lengths
#
# The rows of a batch must have one length, but texts have many. We can fill up the short ones with padding, and ignore
# what the network makes of it. That is right for the outputs. It is wrong for the last state, which the padding has
# overwritten, and for the direction from right to left, which reads the padding *first*. And we compute things only to
# throw them away.
#
# Instead, we sort the texts by length, the longest first, and look at the batch step by step. At step 0 all texts are
# alive. At each later step those that are still alive are the first rows:
#
# | | step 0 | step 1 | step 2 | step 3 |
# | --- | --- | --- | --- | --- |
# | text 0 | a | b | c | d |
# | text 1 | e | f | g | |
# | text 2 | h | | | |
# | alive | 3 | 2 | 2 | 1 |
#
# Read the columns one after the other, without the gaps: *a e h b f c g d*, with the *batch sizes* 3, 2, 2, 1. That is
# a *packed sequence*. A step takes the next rows, as many as are alive, and the states of just as many rows. PyTorch
# has a type for it, which also remembers how the texts were sorted.


class PackedSequence(NamedTuple):
    """The steps of texts of different lengths without padding, as torch.nn.utils.rnn.PackedSequence: data (N, ...) has
    the rows of step 0, then those of step 1, ...; batch_sizes (T,) says how many each step has. sorted_indices are the
    texts' old numbers in their new order, unsorted_indices the reverse; both None for texts that came sorted."""

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def to(self, *args, **kwargs) -> PackedSequence:
        """The same with `data.to(...)`."""
        return self._replace(data=self.data.to(*args, **kwargs))


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another one; None for None."""
    return None if permutation is None else from_numpy(np.argsort(permutation.numpy()))


# Packing means selecting: which steps of which texts, in which order? We build a table that says which text is alive,
# with a row for each step and a column for each text. The positions of its true elements, row by row, are the answer.


Lengths = Tensor | np.ndarray | Sequence[int]


def pack_padded_sequence(
    input: Tensor, lengths: Lengths, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """A batch (T, B, ...), or (B, T, ...) if batch_first, without what follows the first lengths[b] steps of each text.
    As torch.nn.utils.rnn.pack_padded_sequence.

    With enforce_sorted=True the longest text must come first; otherwise they are sorted here. Raises
    RuntimeError for lengths that do not fit."""
    x, count = input.transpose(0, 1) if batch_first else input, _lengths(lengths)
    _refuse_lengths(count, x.shape[:2], enforce_sorted)
    order = np.arange(len(count)) if enforce_sorted else np.argsort(-count, kind="stable")
    alive = np.arange(count.max())[:, None] < count[order]  # (T, B)
    steps, rows = np.nonzero(alive)
    sorting = None if enforce_sorted else from_numpy(order)
    return PackedSequence(x[steps, order[rows]], from_numpy(alive.sum(1)), sorting, invert_permutation(sorting))


# Most of the mistakes that you can make here are in the lengths. The worst is a length that is larger than the number
# of steps, for example because you have cut a text and not its length. PyTorch 2.13 accepts it, and returns a packed
# sequence whose batch sizes promise more rows than there are. We refuse it.


def _lengths(lengths) -> np.ndarray:
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu"):
        raise TypeError(f"lengths must be integers, one for each text, not {lengths.dtype} of shape {lengths.shape}")
    return lengths.astype(np.int64)


def _refuse_lengths(lengths, shape, sorted_is_demanded) -> None:
    steps, texts = shape
    if len(lengths) != texts or not texts:
        raise RuntimeError(
            f"{len(lengths)} lengths for a batch of {texts} texts of {steps} steps; is batch_first right?"
        )
    if lengths.min() < 1 or lengths.max() > steps:
        raise RuntimeError(f"the lengths must be from 1 to the {steps} steps of the batch, not {lengths.tolist()}")
    if sorted_is_demanded and (np.diff(lengths) > 0).any():
        raise RuntimeError(
            f"the lengths {lengths.tolist()} are not sorted, the longest first; sort them, or pass enforce_sorted=False"
        )


# On the way back we fill a table of the same form with the numbers of the packed rows, and look them up.


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The batch (T, B, ...), or (B, T, ...) if batch_first, with padding_value after the end of each text, in the old
    order; and the lengths (B,). T is the longest length, or total_length. As torch.nn.utils.rnn.pad_packed_sequence.

    Raises ValueError for a total_length that is too short."""
    data, sizes = sequence.data, sequence.batch_sizes.numpy()
    steps = len(sizes) if total_length is None else total_length
    if steps < len(sizes):
        raise ValueError(f"total_length {total_length} is less than the longest text, which has {len(sizes)} steps")
    alive = np.arange(sizes[0]) < np.append(sizes, [0] * (steps - len(sizes)))[:, None]  # (T, B)
    rows = np.zeros(alive.shape, np.int64)
    rows[alive] = np.arange(len(data))
    if sequence.sorted_indices is not None:
        old = np.argsort(sequence.sorted_indices.numpy())
        rows, alive = rows[:, old], alive[:, old]
    x = tt.masked_fill(data[rows], from_numpy(~alive.reshape(*alive.shape, *[1] * (data.ndim - 1))), padding_value)
    return x.transpose(0, 1) if batch_first else x, from_numpy(alive.sum(0))


def check_packing_and_padding():
    x = tt.randn(4, 3, 2)
    packed = pack_padded_sequence(x, [1, 4, 3], enforce_sorted=False)
    assert packed.batch_sizes.tolist() == [3, 2, 2, 1] and packed.sorted_indices.tolist() == [1, 2, 0]
    padded, lengths = pad_packed_sequence(packed, padding_value=-1.0)
    assert lengths.tolist() == [1, 4, 3] and (padded[:, 1] == x[:, 1]).all() and (padded[1:, 0] == -1).all()


# Usually a batch begins as a list of texts. Four small functions turn lists into batches and back.


def pad_sequence(
    sequences: Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Tensors (T_b, ...) as one batch (T, B, ...), or (B, T, ...) if batch_first, with padding_value behind (or before)
    the short ones. As torch.nn.utils.rnn.pad_sequence."""
    sequences = list(sequences)
    if padding_side not in ("left", "right"):
        raise RuntimeError(f'padding_side must be "left" or "right", not {padding_side!r}')
    if not sequences:
        raise RuntimeError("pad_sequence needs at least one sequence")
    longest, padded = max(map(len, sequences)), []
    for x in sequences:
        padding = tt.full((longest - len(x), *x.shape[1:]), padding_value, dtype=x.dtype)
        padded.append(cat([x, padding] if padding_side == "right" else [padding, x]))
    return stack(padded, 0 if batch_first else 1)


# The way back is a slice of each text.


def unpad_sequence(padded_sequences: Tensor, lengths: Lengths, batch_first: bool = False) -> list[Tensor]:
    """The list of tensors (T_b, ...) of which a batch was made. As torch.nn.utils.rnn.unpad_sequence."""
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [x[b, :length] for b, length in enumerate(_lengths(lengths).tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors (T_b, ...) as a packed sequence. As torch.nn.utils.rnn.pack_sequence."""
    lengths = [len(x) for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The list of tensors (T_b, ...) of which a packed sequence was made. As torch.nn.utils.rnn.unpack_sequence."""
    return unpad_sequence(*pad_packed_sequence(packed_sequences))


# ## There and back
#
# Now we write the loop over steps whose batch sizes fall. When a step has fewer rows than the state, the last rows of
# the state belong to texts that have ended. They are *final*: we put them aside and never touch them again. At the end
# we have them in the order in which the texts ended, the shortest first, so we join the pieces in reverse. A state is a
# tuple of tensors here, of one for RNN and GRU and of two for the LSTM.


def forwards(step, given: Sequence[Tensor], state: tuple) -> tuple[list[Tensor], tuple]:
    """What each step shows, and the last state of every row. given[t] has as many rows as are alive at step t."""
    outputs, ended = [], []
    for x in given:
        if len(x) < len(state[0]):
            ended.append(tuple(part[len(x) :] for part in state))
            state = tuple(part[: len(x)] for part in state)
        state = step(x, state)
        outputs.append(state[0])
    return outputs, tuple(cat(parts) for parts in zip(state, *reversed(ended)))


# From right to left, each text begins at its own last token. So we start with the rows that are alive at the last step,
# and when more rows come to life, they begin with their own initial states. The outputs come last step first. Forget to
# reverse them, and every shape is right, the loss falls, and output $t$ belongs to another token.


def backwards(step, given: Sequence[Tensor], first: tuple) -> tuple[list[Tensor], tuple]:
    """As `forwards`, from the last step to the first; what is shown is in the order of the steps all the same."""
    outputs, state = [], tuple(part[: len(given[-1])] for part in first)
    for x in reversed(given):
        if len(x) > len(state[0]):
            state = tuple(cat([part, new[len(part) : len(x)]]) for part, new in zip(state, first))
        state = step(x, state)
        outputs.append(state[0])
    return outputs[::-1], state


# ## The layer
#
# A batch without padding is a packed sequence in which all batch sizes are equal. So our two loops serve both, and the
# rest is bookkeeping: which weights, which states, and which dimension is which.
#
# Layer 0 reads the input, layer 1 the outputs of layer 0, and so on. With `bidirectional=True` each layer reads in both
# directions, with weights for each, and its output at step $t$ is both outputs side by side: what came before $t$, and
# what comes after.
#
# ```mermaid
# flowchart LR
#     X["x (T, B, C)"] --> F0["l0: forwards"] --> J0["(T, B, 2 H)"]
#     X --> B0["l0_reverse: backwards"] --> J0
#     J0 -->|dropout| F1["l1: forwards"] --> J1["output (T, B, 2 H)"]
#     J0 -->|dropout| B1["l1_reverse: backwards"] --> J1
# ```
#
# Dropout acts *between* layers, so not on the output of the last one, and not on the way from step to step, where it
# would wipe out the memory a little at each step.
#
# An LSTM can have *projections* (H. Sak et al., 2014): the state that is shown and that the gates see is made shorter
# by a matrix, `weight_hr`, while the cell keeps its $H$ numbers.

PARTS = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


class RNNBase(Module):
    """What RNN, LSTM and GRU share, as torch.nn.RNNBase; mode is "RNN_TANH", "RNN_RELU", "LSTM" or "GRU"."""

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device=None,
        dtype=None,
    ):
        super().__init__()
        refuse_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        refuse_other_device(device)
        _refuse_options(mode, hidden_size, proj_size, num_layers, dropout)
        self.mode, self.input_size, self.hidden_size, self.num_layers = mode, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                for name, shape in self._shapes(layer).items():
                    setattr(self, name + suffix, new_parameter(*shape, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights and biases anew, uniformly from +-1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            tt.uniform_(parameter, -bound, bound)

    # The names of the weights are PyTorch's: `weight_ih_l0`, `bias_hh_l1_reverse`.

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 1 + self.bidirectional]

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        rows, shown = PARTS[self.mode] * self.hidden_size, self.proj_size or self.hidden_size
        inputs = self.input_size if layer == 0 else shown * (1 + self.bidirectional)
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, shown)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        return shapes | ({"weight_hr": (shown, self.hidden_size)} if self.proj_size else {})

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights of each layer and direction, in the order of `state_dict`."""
        layers = range(self.num_layers)
        return [[getattr(self, n + s) for n in self._shapes(layer)] for layer in layers for s in self._suffixes(layer)]

    def flatten_parameters(self) -> None:
        """Does nothing: PyTorch moves the weights into one block for the GPU here, and we have no use for one."""

    # Next comes one layer in one direction. Here the input's half of the formula is one product for all steps at once;
    # then we cut it into steps, and loop over the state's half.

    def _read(self, data: Tensor, sizes: list[int], suffix: str, state: tuple) -> tuple[list[Tensor], tuple]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        of: dict[str, Any] = {name: getattr(self, name + suffix, None) for name in names}
        given = in_steps(linear(data, of["weight_ih"], of["bias_ih"]), sizes)
        step = partial(self._step, weight=of["weight_hh"], bias=of["bias_hh"], suffix=suffix)
        return (backwards if suffix.endswith("reverse") else forwards)(step, given, state)

    def _step(self, given: Tensor, state: tuple, weight: Tensor, bias: Tensor | None, suffix: str) -> tuple:
        if self.mode == "LSTM":
            h, c = lstm_step(given, state, weight, bias)
            return (linear(h, getattr(self, "weight_hr" + suffix)) if self.proj_size else h), c
        if self.mode == "GRU":
            return (gru_step(given, state[0], weight, bias),)
        return (rnn_step(given, state[0], weight, bias, tanh if self.mode == "RNN_TANH" else relu),)

    # Then we run all layers. We stack the last states as PyTorch does: layer 0 forwards, layer 0 backwards, layer 1
    # forwards, ...

    def _read_all(self, data: Tensor, sizes: list[int], states: tuple) -> tuple[Tensor, tuple]:
        last, place = [], 0
        for layer in range(self.num_layers):
            if layer:
                data = dropout(data, self.dropout, self.training)
            shown = []
            for suffix in self._suffixes(layer):
                outputs, state = self._read(data, sizes, suffix, tuple(part[place] for part in states))
                shown.append(cat(outputs))
                last.append(state)
                place += 1
            data = cat(shown, -1) if self.bidirectional else shown[0]
        return data, tuple(stack(parts) for parts in zip(*last))

    # The initial state is zeros, or the caller's, if it has the right shape.

    def _first(self, data: Tensor, hx, rows: tuple[int, ...]) -> tuple:
        parts = (hx,) if self.mode != "LSTM" else (None, None) if hx is None else pair(hx)
        layers, states = self.num_layers * (1 + self.bidirectional), []
        for part, size in zip(parts, (self.proj_size or self.hidden_size, self.hidden_size)):
            wanted = (layers, *rows, size)
            if part is not None and part.shape != wanted:
                raise RuntimeError(
                    f"{type(self).__name__}: a state of shape {part.shape} does not fit; it must be {wanted}: layers "
                    f"times directions, {'batch, ' if rows else ''}size, also with batch_first"
                )
            states.append(tt.zeros(*wanted, dtype=data.dtype) if part is None else part)
        return tuple(states)

    # You can call the layer with three forms of input: packed, a text without a batch, and a batch.

    def forward(self, input: Tensor | PackedSequence, hx=None) -> tuple:
        """(output, h), or (output, (h, c)) for an LSTM: output (T, B, D * H) are the states of the last layer at every
        step, h (layers * D, B, H) the last states of all layers, with D directions; the batch comes first in input and
        output if batch_first, and everything is without B for an input (T, C). A PackedSequence gives one.

        Raises ValueError for a wrong number of dimensions and RuntimeError for sizes that do not fit."""
        self._refuse_input(input)
        output: Any
        if isinstance(input, PackedSequence):
            output, last = self._read_packed(input, hx)
        elif input.ndim == 2:
            states = tuple(part.unsqueeze(1) for part in self._first(input, hx, ()))
            output, last = self._read_batch(input.unsqueeze(1), states)
            output, last = output.squeeze(1), tuple(part.squeeze(1) for part in last)
        else:
            x = input.transpose(0, 1) if self.batch_first else input
            output, last = self._read_batch(x, self._first(x, hx, (x.shape[1],)))
            output = output.transpose(0, 1) if self.batch_first else output
        return output, last if self.mode == "LSTM" else last[0]

    # A batch (T, B, C) is packed when its first two dimensions are joined.

    def _read_batch(self, x: Tensor, states: tuple) -> tuple[Tensor, tuple]:
        steps, rows, width = x.shape
        if not steps:
            raise RuntimeError(f"{type(self).__name__} needs at least one step; the input has none")
        output, last = self._read_all(x.reshape(steps * rows, width), [rows] * steps, states)
        return output.reshape(steps, rows, output.shape[-1]), last

    # A packed input gives a packed output. The states go in and come out in the old order of the texts, and are sorted
    # in between.

    def _read_packed(self, input: PackedSequence, hx) -> tuple[PackedSequence, tuple]:
        sizes, order = input.batch_sizes.tolist(), input.sorted_indices
        states = self._first(input.data, hx, (sizes[0],))
        if order is not None:
            states = tuple(part[:, order] for part in states)
        output, last = self._read_all(input.data, sizes, states)
        if order is not None:
            old = invert_permutation(order)
            last = tuple(part[:, old] for part in last)
        return input._replace(data=output), last

    # We reject an input that does not fit. The names in the messages are those of the class that you called.

    def _refuse_input(self, input: Tensor | PackedSequence) -> None:
        name, is_packed = type(self).__name__, isinstance(input, PackedSequence)
        shape = input.data.shape if isinstance(input, PackedSequence) else input.shape
        if not is_packed and len(shape) not in (2, 3):
            raise ValueError(f"{name} takes 3 dimensions, or 2 without a batch, not an input of shape {shape}")
        if shape[-1] != self.input_size:
            raise RuntimeError(f"{name} has input_size {self.input_size}; an input of shape {shape} does not fit")

    def extra_repr(self):
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        options = {name: getattr(self, name) for name in (*defaults, "proj_size")}
        given = [f"{name}={value}" for name, value in options.items() if value != defaults.get(name, 0)]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *given])


# We reject impossible options. One that has no effect earns a warning, as in PyTorch.


def _refuse_options(mode, hidden_size, proj_size, num_layers, dropout) -> None:
    if mode not in PARTS:
        raise ValueError(f"mode must be one of {', '.join(PARTS)}, not {mode!r}")
    if isinstance(dropout, bool) or not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be a probability between 0 and 1, not {dropout}")
    if proj_size and (mode != "LSTM" or not 0 < proj_size < hidden_size):
        raise ValueError(f"proj_size must be from 1 to hidden_size - 1, and only an LSTM has one; it is {proj_size}")
    if dropout and num_layers == 1:
        warnings.warn(f"dropout={dropout} acts between layers, and there is only one", stacklevel=4)


# The three layers are names for modes. Watch out for the fourth argument: in `RNN` it is the nonlinearity.


class RNN(RNNBase):
    """An RNN over whole sequences, (input, h) -> (output, h), as torch.nn.RNN: input (T, B, input_size), output (T, B,
    D * hidden_size), h (num_layers * D, B, hidden_size) with D directions. nonlinearity is "tanh" or "relu"."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device=None, dtype=None,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'nonlinearity must be "tanh" or "relu", not {nonlinearity!r}')
        options = {"bidirectional": bidirectional, "device": device, "dtype": dtype}
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, **options)
        self.nonlinearity = nonlinearity


# Only an LSTM has two states and `proj_size`.


class LSTM(RNNBase):
    """An LSTM over whole sequences, (input, (h, c)) -> (output, (h, c)), as torch.nn.LSTM: input (T, B, input_size),
    output (T, B, D * H), h (num_layers * D, B, H), c (num_layers * D, B, hidden_size) with D directions; H is proj_size
    if there is one, and otherwise hidden_size."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device=None, dtype=None,
    ):
        options = {"bidirectional": bidirectional, "proj_size": proj_size, "device": device, "dtype": dtype}
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, **options)


# You call a GRU as you call an RNN.


class GRU(RNNBase):
    """A GRU over whole sequences, (input, h) -> (output, h), as torch.nn.GRU: input (T, B, input_size), output (T, B,
    D * hidden_size), h (num_layers * D, B, hidden_size) with D directions."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device=None, dtype=None,
    ):
        options = {"bidirectional": bidirectional, "device": device, "dtype": dtype}
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, **options)


# Our first witness is the cell of the chapter, step by step. The names of the weights differ only by the suffix.


def check_layers_are_cells():
    for layer, cell in ((RNN(3, 4), RNNCell(3, 4)), (LSTM(3, 4), LSTMCell(3, 4)), (GRU(3, 4), GRUCell(3, 4))):
        cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
        x = tt.randn(5, 2, 3)
        wanted = [s[0] if isinstance(s, tuple) else s for s in unrolled(cell, x, None)]
        assert np.allclose(layer(x)[0].detach().numpy(), stack(wanted).detach().numpy(), atol=1e-6)


# Our second witness is each text by itself. In a packed batch, in both directions, a text must not notice its
# neighbours.


def check_a_text_does_not_notice_the_others():
    layer, texts = GRU(3, 4, num_layers=2, bidirectional=True), [tt.randn(n, 3) for n in (2, 5, 3)]
    output, last = layer(pack_sequence(texts, enforce_sorted=False))
    for b, (text, out) in enumerate(zip(texts, unpack_sequence(output))):
        alone, state = layer(text)
        assert np.allclose(out.detach().numpy(), alone.detach().numpy(), atol=1e-6)
        assert np.allclose(last[:, b].detach().numpy(), state.detach().numpy(), atol=1e-6)


# ## The cost
#
# What does packing save? As much as there is padding, less the bookkeeping. We draw lengths as they occur in mixed
# texts, and measure a step of training, forward and back.


def show_cost():
    layer, lengths = LSTM(64, 128), np.sort(np.random.default_rng(0).geometric(0.05, 32).clip(1, 80))[::-1].copy()
    x, full = tt.randn(int(lengths[0]), 32, 64), int(lengths[0]) * 32
    packed = pack_padded_sequence(x, lengths)
    for name, input in (("padded", x), ("packed", packed)):

        def step(input=input):
            out = layer(input)[0]
            (out.data if isinstance(out, PackedSequence) else out).sum().backward()

        print(f"{name}: {tt.measure(step, span=0.5).seconds * 1e3:6.1f} ms")
    print(f"{lengths.sum()} tokens in {full} positions: {1 - lengths.sum() / full:.0%} of the batch is padding")


# Packing saves half of the time, and not three quarters, because a step with few rows is not much faster than a step
# with many: toward the end, the longest texts are alone.

# ## Errors you will meet


def show_errors():
    layer, x = LSTM(3, 4, batch_first=True), tt.zeros(2, 5, 3)
    for attempt in (
        lambda: layer(tt.zeros(2, 5, 4)), lambda: layer(x[0, 0]), lambda: layer(x, (tt.zeros(2, 1, 4),) * 2),
        lambda: pack_padded_sequence(x, [5, 3], batch_first=False), lambda: pack_padded_sequence(x, [3, 5], True),
        lambda: pack_padded_sequence(x, [5, 0], True), lambda: GRU(3, 4, dropout=2.0), lambda: LSTM(3, 4, proj_size=4),
    ):
        try:
            attempt()
        except (RuntimeError, TypeError, ValueError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# Before these, write `forwards` and `backwards` yourself; the checks of the layers are theirs, too. Then:
#
# 1. `last_outputs`: a classifier reads a padded batch with a layer and wants the output at the last token of each text.
#    (Why is `output[-1]` wrong?)
# 2. `flipped`: what does a layer read from right to left, if you have only the other direction? Flip each text
#    within its own length.


def last_outputs(output: Tensor, lengths: Lengths) -> Tensor:
    """Of outputs (T, B, H), that at step lengths[b] - 1 of each text b: (B, H)."""
    return output[_lengths(lengths) - 1, np.arange(len(lengths))]


def check_last_outputs():
    layer, x = GRU(3, 4), tt.randn(5, 3, 3)
    _, last = layer(pack_padded_sequence(x, [2, 5, 3], enforce_sorted=False))
    found = last_outputs(layer(x)[0], [2, 5, 3])
    assert np.allclose(found.detach().numpy(), last[0].detach().numpy(), atol=1e-6)


# The second one is a line of indices: step $t$ of a text of length $n$ comes from step $n - 1 - t$, and padding stays
# where it is.


def flipped(x: Tensor, lengths: Lengths) -> Tensor:
    """A padded batch (T, B, ...) with the first lengths[b] steps of each text b in reverse order."""
    count, steps = _lengths(lengths), np.arange(len(x))[:, None]
    return x[np.where(steps < count, count - 1 - steps, steps), np.arange(len(count))]


def check_flipped():
    layer, there = GRU(3, 4, bidirectional=True), GRU(3, 4)
    there.load_state_dict({n.removesuffix("_reverse"): v for n, v in layer.state_dict().items() if "reverse" in n})
    x, lengths = tt.randn(5, 3, 3), [2, 5, 3]
    both, _ = pad_packed_sequence(layer(pack_padded_sequence(x, lengths, enforce_sorted=False))[0])
    back = flipped(there(flipped(x, lengths))[0], lengths)
    for b, n in enumerate(lengths):
        assert np.allclose(both[:n, b, 4:].detach().numpy(), back[:n, b].detach().numpy(), atol=1e-6)


# ## A road not taken
#
# A mask, as in the exercise `held` of the chapter, is simpler than packing, and in JAX, whose compiler wants arrays of
# fixed shapes, it is the usual way. It computes the padding and throws it away. PyTorch chose packing when kernels for
# it existed. It saves work on a CPU, too, as you have seen, and costs a type that every user stumbles over once.
#
# Ours has no fused kernel for a whole sequence: our layers are made of recorded steps, so second derivatives and all
# interpreters of the book (the meter, the profiler) work on them as on everything else. The price
# is time: PyTorch's kernels are faster.

__all__ = [
    "GRU", "LSTM", "PackedSequence", "RNN", "RNNBase", "invert_permutation", "pack_padded_sequence", "pack_sequence",
    "pad_packed_sequence", "pad_sequence", "unpack_sequence", "unpad_sequence",
]
