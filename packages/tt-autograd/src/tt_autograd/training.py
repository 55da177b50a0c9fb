# # Training
#
# At the end of this chapter there is one function, `fit`, that trains whatever we give it: with batches, validation, a
# progress bar, early stopping, and checkpoints from which an interrupted training goes on as if nothing had happened.

# ## The hurt
#
# With chapter 07 a training loop became short. Here is the one for XOR, as everybody writes it first.

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tt_autograd.autograd import no_grad
from tt_autograd.callbacks import Callback, History
from tt_autograd.checkpoints import load_checkpoint, save_checkpoint
from tt_optim import Adam, Optimizer, clip_grad_norm_
from tt_tensor import (
    Dropout, Linear, Module, ReLU, Sequential, Tensor, binary_cross_entropy_with_logits, cross_entropy, float32,
    from_numpy, generator, get_rng_state, manual_seed, set_rng_state,
)
from tt_tensor.activations import xor_points
from tt_tensor.losses import xor_network


# It uses what chapters 04 to 07 brought, a line for each of them.


def train_xor(steps: int = 300) -> float:
    """Train an xor_network with autograd; its last loss."""
    network, (x, wanted) = xor_network(), xor_points()
    optimizer = Adam(network.parameters(), lr=0.05)
    for _ in range(steps):
        loss = binary_cross_entropy_with_logits(network(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def show_xor():
    print(f"loss after 300 steps: {train_xor():.4f}")


# Five lines, and in the next program we write them again. Then come more data than fit into one step, so we cut them
# into batches, and shuffle, and shuffle inputs and labels alike. Then validation, with dropout off, without recording,
# and dropout on again afterwards. Then the wish to stop when it gets worse; to save the best; to go on after a power
# cut. By the fifth program the loop is forty lines long, and no two are the same. Here is a list of what goes wrong in
# such loops, each of it silently:
#
# - `zero_grad` forgotten: each step contains the gradients of all the earlier ones;
# - validation in training mode: the number is noisy, and pessimistic;
# - no way back into training mode after the first validation: dropout never again;
# - the mean of the batches' means, though the last batch is smaller;
# - each gradient clipped alone, where the direction should be kept.

# ## The data: digits
#
# XOR has four examples and nothing to generalise to. So let us have real ones: 1,797 handwritten digits of 8 by 8
# pixels (E. Alpaydin and C. Kaynak, 1998, from the UCI repository), small enough to come with the package. A fifth is
# held out: the network will never be trained on it.
#
# The pixels are numbers from 0 to 16 in the file; divided by 16 they lie between 0 and 1, the size for which the layers
# of chapter 04 are initialised. The fifth that is held out is chosen at random, once and for all, with a seed of its
# own: an accuracy on held-out data means nothing if the data are held out differently each time.


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The 8 x 8 digits as ((x, y) for training, (x, y) held out): x (N, 64) float32 in 0 to 1, y (N,) int64. 1,438
    and 359 examples, always the same."""
    with resources.files("tt_autograd").joinpath("digits.npz").open("rb") as file:
        data = np.load(file)
        images, labels = data["images"], data["labels"].astype(np.int64)
    order = np.random.default_rng(1998).permutation(len(images))
    x, y = images.reshape(-1, 64)[order].astype(np.float32) / 16, labels[order]
    held_out = len(x) // 5
    return (from_numpy(x[held_out:]), from_numpy(y[held_out:])), (from_numpy(x[:held_out]), from_numpy(y[:held_out]))


# Twenty of them. Some are hard for us as well: 64 pixels is not much.


def show_digits():
    import matplotlib.pyplot as plt

    (x, y), _ = digits()
    figure, axes = plt.subplots(2, 10, figsize=(9, 2.2))
    for axis, image, label in zip(axes.flat, x.numpy().reshape(-1, 8, 8), y.tolist()):
        axis.imshow(image, cmap="gray_r")
        axis.set_title(str(label), fontsize=9)
        axis.axis("off")
    figure.tight_layout()
    return figure


# ## Batches
#
# A step on all 1,438 examples is a good step, and slow. A step on one example is quick, and mostly noise. In between,
# on 32 or so, the noise is less than a fifth of what it is with one, and the matrix products are large enough to be
# fast.
#
# Where does the fifth come from? The gradient of a batch is the mean of its examples' gradients, so it scatters around
# the true one with a standard deviation that falls with the root of the size, and the root of 32 is 5.7. Four times the
# batch halves the noise, at four times the price. That is a bad bargain from some point on, and the reason why batches
# of a few dozen are so common.
#
# So each pass through the data (an *epoch*) goes in batches, in a new order each time: a fixed order would let the same
# last batches have the last word in every epoch. One permutation serves inputs and labels; two would tear the pairs
# apart.


class Batches:
    """(x, y) cut into batches of `batch_size` along the first dimension, in a new random order in each pass if
    `shuffle`. The last batch may be smaller."""

    def __init__(self, x: Tensor, y: Tensor, batch_size: int = 32, shuffle: bool = False):
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise TypeError(f"Batches takes tensors, not {type(x).__name__} and {type(y).__name__}: use from_numpy(x)")
        if len(x) != len(y):
            raise ValueError(f"{len(x)} inputs but {len(y)} targets")
        if batch_size < 1 or not len(x):
            raise ValueError(
                f"batches need at least one example and a size of at least 1; there are {len(x)} examples, the "
                f"size is {batch_size}"
            )
        self.x, self.y, self.batch_size, self.shuffle = x.numpy(), y.numpy(), batch_size, shuffle

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # exercise
        """One pass: pairs of tensors, inputs and targets of the same rows. A random order is drawn from `generator()`
        in each pass anew; `x` and `y` themselves stay as they are."""
        order = generator().permutation(len(self.x)) if self.shuffle else np.arange(len(self.x))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield from_numpy(self.x[rows]), from_numpy(self.y[rows])


# What can go wrong, and must not: an example is missing or comes twice; the last, short batch is dropped; inputs lose
# their labels.


def check_batches():
    x, y = Tensor(np.arange(10.0)), Tensor(np.arange(10.0) * 2)
    seen = [(a.tolist(), b.tolist()) for a, b in Batches(x, y, 4, shuffle=True)]
    assert [len(a) for a, _ in seen] == [4, 4, 2] and sorted(v for a, _ in seen for v in a) == x.tolist()
    assert all([2 * v for v in a] == b for a, b in seen)


# Anything that can be passed through again and again and yields pairs will do in place of `Batches`; chapter 10 brings
# a far more capable one, and `fit` will not notice.

# ## Averages
#
# With 10 examples in batches of 4, 4 and 2, the mean of three batch means counts the last two examples double. So an
# average weighs each batch by its size. Losses and metrics (functions of outputs and targets, such as the share of
# right answers) are averaged alike.
#
# The numbers are taken as the mean over their batch, which is what losses and metrics return, and multiplied by the
# batch's size on arrival. At the end one division gives the mean over all examples, whatever the batches were.


class Averages:
    """Means of several named numbers, each batch weighted by its size."""

    def __init__(self):
        self.totals: dict[str, float] = {}
        self.count = 0

    def add(self, values: dict[str, float], size: int) -> None:  # exercise
        """Take in the means of a batch of `size` examples. A name may come for the first time."""
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + float(value) * size
        self.count += size

    def means(self) -> dict[str, float]:
        """The means over all examples so far."""
        return {name: total / self.count for name, total in self.totals.items()}


# One metric comes along. It knows the two common cases: a row of logits per example with a class number, and a single
# logit with a truth value, where the sign decides.


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The fraction of right answers: the largest of the logits (N, C) is that of the class number (N,); or, for one
    logit each, its sign agrees with a target of 0 or 1. Raises ValueError for other shapes."""
    logits, truth = outputs.detach().numpy(), targets.detach().numpy()
    if logits.shape == truth.shape:
        return float(np.mean((logits > 0) == (truth > 0.5)))
    if logits.ndim < 2 or logits.shape[1] < 2 or logits.shape[:1] + logits.shape[2:] != truth.shape:
        raise ValueError(
            "accuracy needs logits (N, C) of at least two classes with class numbers (N,), or logits and targets of "
            f"one shape; it got {logits.shape} and {truth.shape}. squeeze(1) removes a dimension of size 1"
        )
    return float(np.mean(logits.argmax(axis=1) == truth))


Metrics = Sequence[Callable[[Tensor, Tensor], Any]]


# Measuring must not leave a record. A metric that is computed from the outputs would otherwise be one more consumer in
# the graph, and keep all of it alive. And two metrics of one name would be averaged into one number.


def _measured(loss: Tensor, outputs: Tensor, targets: Tensor, metrics: Metrics) -> dict[str, float]:
    values = {"loss": loss.item()}
    with no_grad():
        for metric in metrics:
            name = getattr(metric, "__name__", type(metric).__name__)
            if name in values or name in ("lr", "seconds") or name.startswith("val_"):
                raise ValueError(f"a metric cannot be called {name!r}: the name is taken; define it under another name")
            values[name] = float(metric(outputs, targets))
    return values


# ## Validation
#
# Three things have to be right: evaluation mode, nothing recorded, and the mode that was there before restored, even if
# something fails.
#
# The mode is restored in `finally`, so that an interrupted validation, by an error or by Ctrl-C, does not leave a model
# that never drops anything again. Each part gets its own mode back: if you have frozen a layer in evaluation mode, it
# must not wake up after the first validation.


@contextmanager
def evaluating(model: Module) -> Iterator[Module]:
    """Within the block the model is in evaluation mode; afterwards each of its parts is in the mode it was in."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        yield model.eval()
    finally:
        for part, mode in modes:
            part.training = mode


def evaluate(model: Module, loss_fn: Callable, data: Iterable, metrics: Metrics = ()) -> dict[str, float]:  # exercise
    """Mean loss and metrics of a model on data, in evaluation mode and without recording; afterwards the model and each
    of its parts is in the mode it was in, also after an error. Raises ValueError if the data have no batch."""
    averages = Averages()
    with evaluating(model), no_grad():
        for inputs, targets in data:
            outputs = model(inputs)
            averages.add(_measured(loss_fn(outputs, targets), outputs, targets, metrics), len(targets))
    if not averages.count:
        raise ValueError("there was nothing to evaluate: the data yielded no batch")
    return averages.means()


# ## One step
#
# A step takes a *group* of batches, usually a single one. If memory is too small for a large batch, several small ones
# can be made to count as one (`accumulate`): their gradients add up, which is what gradients do anyway, as long as the
# old ones are forgotten once, before the first batch. For the sum to be exactly that of the large batch, each loss is
# multiplied by its share of the group's examples before its `backward`. What is measured is the loss as it was.
#
# There is one more thing that a careful loop does. If the loss is not a finite number, going on is pointless: the next
# step would make all weights `nan`, and the checkpoint after it would save them. So the training stops and says what
# may help. `_finite` does that for the loss. A gradient can be `nan` although the loss is finite (the slope of a root
# at 0 is enough), so `_check_gradients` looks at the gradients as well, before they are clipped and used.


def require_finite(named: Iterable[tuple[str, Tensor | None]], advice: str) -> None:
    """Raises RuntimeError that names the first tensor that holds nan or inf."""
    for name, tensor in named:
        if tensor is not None and not np.isfinite(tensor.detach().numpy()).all():
            raise RuntimeError(f"{name}, of shape {tensor.shape}, holds nan or inf; {advice}")


def _check_gradients(model: Module) -> None:
    require_finite(
        ((f"the gradient of {name}", p.grad) for name, p in model.named_parameters()),
        "the weights were not changed. Lower the learning rate, or look for the operation with detect_anomaly()",
    )


def _finite(loss: Tensor) -> Tensor:
    """The loss itself. Raises RuntimeError if it is not a finite number."""
    if not math.isfinite(value := loss.item()):
        raise RuntimeError(
            f"the loss became {value}; lower the learning rate, clip the gradients (clip_norm=1.0), "
            "or look for the operation with detect_anomaly()"
        )
    return loss


# Now the step itself, the five lines from the beginning of the chapter with everything that a careful loop adds.


def _step(model, loss_fn, optimizer, group, clip_norm, metrics, averages) -> None:  # exercise
    """Make one step of the optimizer for a list of (inputs, targets) that count as one batch, with all gradients
    clipped to the common length `clip_norm` unless it is None. `averages` gets what `_measured` says of each batch.
    RuntimeError for a loss or a gradient that is not finite, before the step."""
    optimizer.zero_grad()
    total = sum(len(targets) for _, targets in group)
    for inputs, targets in group:
        outputs = model(inputs)
        loss = _finite(loss_fn(outputs, targets))
        averages.add(_measured(loss, outputs, targets, metrics), len(targets))
        (loss * (len(targets) / total)).backward()
    _check_gradients(model)
    if clip_norm is not None:
        clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()


# ## Checkpoints
#
# What has to be written down so that a training can be interrupted at any moment and go on *bit for bit* as if it had
# not been? The weights, of course. The optimizer's memory, and the schedule's count. The state of the random generator.
# And the position in the data: which epoch, which batch, *and the order of this epoch*, which is given by the state the
# generator had when the epoch began.
#
# The rest is care, and it is told in the appendix `checkpoints`: a checksum over everything, so that a flipped bit is
# noticed and not trained on, and a file that is written under another name and renamed when it is complete, so that
# whoever looks finds the old checkpoint or the new one, never half of one. The format is safetensors, which other
# programs can read and which, unlike a pickle, runs no code when it is loaded.
#
# What goes in comes out, with types and nesting.


def check_checkpoint_round_trip():
    with tempfile.TemporaryDirectory() as folder:
        state = {"weights": {"0.weight": Tensor([[1.5, 2.5]])}, "betas": (0.9, 0.999), "epoch": 3}
        save_checkpoint(Path(folder) / "run.safetensors", state)
        assert repr(load_checkpoint(Path(folder) / "run.safetensors")) == repr(state)


# ## Callbacks
#
# Stop when it gets worse; keep the best weights; lower the rate. Such wishes have no end, and not every wish should
# become an argument of `fit`. A *callback* is an object that is told when something has happened, after each step and
# after each epoch, and may act: it sees the run, and the run sees to it that the callback's own state is saved with
# everything else. The appendix `callbacks` has the three that nearly everybody needs, `EarlyStopping`, `BestCheckpoint`
# and `Schedule`, and the `History` that keeps one number per epoch for everything that is measured.

# ## The run
#
# A `Run` is where a training stands, and its `state_dict` is the list of things that a checkpoint must hold.


class Run:
    """A training in progress: what is trained, where it stands (epoch, batch, steps), and what has been measured."""

    def __init__(
        self, model: Module, optimizer: Optimizer, data: Iterable, callbacks: Sequence[Callback], epochs: int,
        accumulate: int,
    ):
        self.model, self.optimizer, self.data, self.callbacks = model, optimizer, data, callbacks
        self.epoch, self.batch, self.steps, self.stop = 0, 0, 0, False
        self.total_steps = epochs * -(-len(data) // accumulate) if isinstance(data, Sized) else math.inf
        self.history, self.averages = History(), Averages()
        self.start_of_epoch: dict[str, Any] = {}

    # Two states of chance matter. One is where chance stands now; it decides about the next dropout mask. The other is
    # where it stood when the order of this epoch was drawn. If that one is set again, the data make the same order once
    # more. (Data that remember more than the generator, such as those of chapter 10, have a state of their own.)

    def begin_epoch(self) -> None:
        """Note the state of chance, from which the order of this epoch follows."""
        self.averages, self.batch = Averages(), 0
        data = self.data.state_dict() if hasattr(self.data, "state_dict") else None
        self.start_of_epoch = {"random": get_rng_state(), "data": data}

    def rewind(self) -> None:
        """Set chance, and the data if they have a state, to where this epoch began."""
        set_rng_state(self.start_of_epoch["random"])
        if self.start_of_epoch["data"] is not None:
            self.data.load_state_dict(self.start_of_epoch["data"])  # type: ignore[attr-defined]

    # Here is the way back to a place in the middle of an epoch: rewind, let the data make their order again, skip what
    # has been seen, and restore chance. That works for anything that draws its order from the generator of chapter 01.
    # Mind that data such as `Batches` draw it late, when their first batch is asked for.

    def batches(self) -> Iterator:  # exercise
        """An iterator over the batches of this epoch that have not been seen yet, which are all but the first `batch`,
        in the order that the epoch began with. Chance then stands where it stood before the call."""
        if not self.batch:
            return iter(self.data)
        now = get_rng_state()
        self.rewind()
        batches = iter(self.data)
        for _ in range(self.batch):
            next(batches, None)
        set_rng_state(now)
        return batches

    # And the list. Each entry answers the question: if this were missing, what would be different after the restart?

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "callbacks": [c.state_dict() for c in self.callbacks],
            "random": get_rng_state(),
            "start_of_epoch": self.start_of_epoch,
            "epoch": self.epoch,
            "batch": self.batch,
            "steps": self.steps,
            "stop": self.stop,
            "history": dict(self.history),
            "totals": self.averages.totals,
            "count": self.averages.count,
        }

    # To resume is to take all of it up again, or nothing: if one part does not fit, the others must not be changed.

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a training where `state_dict` was taken. Model, optimizer, data and callbacks must be made as they
        were made then; if anything does not fit, all of it stays as it was."""
        before = copy.deepcopy(self.state_dict())
        if missing := before.keys() - state.keys():
            raise ValueError(f"this is no checkpoint of a training: it lacks {', '.join(sorted(missing))}")
        if len(state["callbacks"]) != len(self.callbacks):
            raise ValueError(
                f"the checkpoint was made with {len(state['callbacks'])} callbacks, now there are {len(self.callbacks)}"
            )
        try:
            self._take_up(state)
        except Exception:
            self._take_up(before)
            raise

    # One callback after the other gets its own part back, in the order in which they were saved.

    def _take_up(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for callback, saved in zip(self.callbacks, state["callbacks"]):
            try:
                callback.load_state_dict(saved)
            except KeyError as error:
                raise ValueError(
                    f"the saved state of {type(callback).__name__} lacks {error}; pass the callbacks of the first run"
                ) from None
        self.epoch, self.batch, self.steps, self.stop = (state[name] for name in ("epoch", "batch", "steps", "stop"))
        self.history, self.start_of_epoch = History(state["history"]), state["start_of_epoch"]
        self.averages.totals, self.averages.count = state["totals"], state["count"]
        set_rng_state(state["random"])


# ## fit
#
# All that is left is to put the pieces in order.
#
# An epoch is a loop over groups of batches. Each group makes a step. Then the run is one step further, and the
# callbacks, the bar and the file are told, which is the business of `after_step`. `islice(batches, n)` takes the next
# `n` batches from an iterator, fewer at the end, and none when there are no more.


def _train_epoch(run: Run, accumulate: int, step: Callable, after_step: Callable) -> None:  # exercise
    """Go through the batches that this epoch has left, in lists of `accumulate` of them (the last may be shorter): call
    step(group), count the batches in run.batch and the step in run.steps, and call after_step(group)."""
    batches = run.batches()
    while group := list(islice(batches, accumulate)):
        step(group)
        run.batch, run.steps = run.batch + len(group), run.steps + 1
        after_step(group)


# What stands around it is plumbing. A model that is in training mode already is left alone, because some of its parts
# may be in evaluation mode on purpose.


def _begin_epoch(run: Run) -> None:
    if not run.model.training:
        run.model.train()
    if not run.batch:
        run.begin_epoch()


def _after_step(run: Run, bar, checkpoint, every: int | None, group: list) -> None:
    for callback in run.callbacks:
        callback.on_step(run)
    bar.update(len(group))
    bar.set_postfix(loss=f"{run.averages.means()['loss']:.4f}", refresh=False)
    if checkpoint is not None and every and run.steps % every == 0:
        _save(run, checkpoint)


# After an epoch the history gets its numbers, and only then the callbacks are told, because they look at the history.


def _end_epoch(run: Run, numbers: dict[str, float], checkpoint) -> None:
    run.history.add(numbers)
    run.epoch, run.batch = run.epoch + 1, 0
    for callback in run.callbacks:
        callback.on_epoch(run)
    if checkpoint is not None:
        _save(run, checkpoint)


def _means(run: Run) -> dict[str, float]:
    if not run.averages.count:
        raise ValueError(
            "there was nothing to train on: the data yielded no batch. An iterator can be used only once; give a "
            "list or a Batches object"
        )
    return run.averages.means()


# `fit` is a function of four things, each of which can be exchanged without the others noticing: a model, a loss, an
# optimizer over the model's parameters, data. Everything else is optional and has a name, except for the number of
# epochs. An image network, a language model, a perceptron on XOR: `fit` sees inputs that go into the model, outputs and
# targets that go into the loss, and a number that comes out.


def fit(
    model: Module, loss_fn: Callable[[Any, Any], Tensor], optimizer: Optimizer, data: Iterable, *, epochs: int,
    validation: Iterable | None = None, metrics: Metrics = (), callbacks: Sequence[Callback] = (),
    accumulate: int = 1, clip_norm: float | None = None, checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int | None = None, resume: bool = False, progress: bool | None = None,
) -> History:
    """Train `model` for `epochs` passes through `data`, an iterable of (inputs, targets) that can be passed through
    again; returns the history.

    validation: data for val_loss and val_ metrics after each epoch. metrics: functions (outputs, targets) -> number.
    accumulate: how many batches make one step. clip_norm: the largest common length of all gradients.
    checkpoint: a file to which everything is saved after each epoch, and after every `checkpoint_every` steps; with
    `resume`, go on from it if it exists.
    progress: show a bar; None means only in a terminal. Raises RuntimeError when the loss is not finite, ValueError
    for what cannot be meant."""
    _refuse(epochs, accumulate, checkpoint, resume)
    run = Run(model, optimizer, data, callbacks, epochs, accumulate)
    _start(run, checkpoint if resume else None)

    def step(group: list) -> None:
        _step(model, loss_fn, optimizer, group, clip_norm, metrics, run.averages)

    while run.epoch < epochs and not run.stop:
        began = time.perf_counter()
        with _bar(run, epochs, progress) as bar:
            _begin_epoch(run)
            _train_epoch(run, accumulate, step, partial(_after_step, run, bar, checkpoint, checkpoint_every))
            numbers = _means(run)
            if validation is not None:
                seen = evaluate(model, loss_fn, validation, metrics)
                numbers |= {f"val_{name}": value for name, value in seen.items()}
            bar.set_postfix({name: f"{value:.4f}" for name, value in numbers.items()})
        numbers |= {"lr": optimizer.param_groups[0]["lr"], "seconds": time.perf_counter() - began}
        _end_epoch(run, numbers, checkpoint)
    for callback in callbacks:
        callback.on_end(run)
    return run.history


# A run that resumes starts like any other, and is then set to where the file says.


def _refuse(epochs: int, accumulate: int, checkpoint, resume: bool) -> None:
    if epochs < 0 or accumulate < 1:
        raise ValueError(f"epochs must be 0 or more and accumulate at least 1; they are {epochs} and {accumulate}")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=, the file to resume from")


def _start(run: Run, checkpoint: str | os.PathLike | None) -> None:
    for callback in run.callbacks:
        callback.on_start(run)
    if checkpoint is not None and Path(checkpoint).exists():
        run.load_state_dict(load_checkpoint(checkpoint))


# A model with broken weights must not replace a good one on the disk.


def _save(run: Run, path) -> None:
    require_finite(
        run.model.named_parameters(), f"the last step was too long. Lower the learning rate; {path} was not changed"
    )
    save_checkpoint(path, run.state_dict())


# The bar is tqdm's. It draws itself in a terminal and stays silent in a pipe, a log file, or while this page is built.


def _bar(run: Run, epochs: int, progress: bool | None):
    from tqdm import tqdm

    total = len(run.data) if isinstance(run.data, Sized) else None
    return tqdm(
        total=total, initial=run.batch, desc=f"epoch {run.epoch + 1}/{epochs}",
        disable=None if progress is None else not progress, unit="batch", leave=True,
    )


# ## It runs
#
# A network for the digits: 64 pixels, 64 units in the middle, 10 logits; 4,810 numbers in all.


def digits_classifier(dropout: float = 0.0) -> Sequential:
    """64 pixels, 64 hidden units, 10 logits."""
    return Sequential(Linear(64, 64), ReLU(), Dropout(dropout), Linear(64, 10))


# Nothing in the call to `fit` is about digits.


def train_digits(epochs: int = 30, **options) -> tuple[Module, History]:
    """Train a digits_classifier; the model and its history on the held-out fifth."""
    training, held_out = digits()
    model = digits_classifier()
    history = fit(
        model, cross_entropy, Adam(model.parameters(), lr=3e-3), Batches(*training, batch_size=32, shuffle=True),
        epochs=epochs, validation=Batches(*held_out, batch_size=359), metrics=[accuracy], **options,
    )
    return model, history


def show_training():
    _, history = train_digits()
    print(repr(history).split("\n")[0])
    for epoch in (1, 2, 5, 10, 20, 30):
        print(repr(history).split("\n")[epoch])
    return history.plot()


# The two losses tell two stories. The training loss goes on towards zero; the validation loss flattens out, well above
# it. What the network still learns then, it learns about its examples only. To stop at that point, and go back to the
# best epoch, is what `EarlyStopping(patience=5, restore_best=True)` is for.
#
# A few words on reading such curves, since everybody will stare at them for hours. *Training loss falls, validation
# loss falls*: go on. *Training falls, validation rises*: the network is learning examples by heart; stop, or take more
# data, or a smaller network, or dropout. *Neither falls*: the rate is too small, or a gradient is missing. *The loss
# jumps up and down, or explodes*: the rate is too large. *Validation is better than training*, at the beginning: that
# is no mistake. The training loss of an epoch is an average over the whole epoch, during which the network was worse
# than it is at the end; and dropout is on in one and off in the other.
#
# Try it. Here are four trainings that differ in their learning rate and in the number of examples. What is the matter
# with each? (The table is shuffled, so that you have to read the curves.)

_CURVES = [(1e-6, 300), (1e-2, 300), (3e-2, 20), (1.0, 300)]  # learning rate, examples


def curve(name: str) -> History:
    """The history of one of the four trainings "A" to "D"."""
    rate, examples = _CURVES[np.random.default_rng(8).permutation(4)["ABCD".index(name)]]
    manual_seed(0)
    (x, y), held_out = digits()
    model, data = digits_classifier(), Batches(x[:examples], y[:examples], 20, shuffle=True)
    optimizer = Adam(model.parameters(), lr=rate)
    return fit(model, cross_entropy, optimizer, data, epochs=8, validation=[held_out], progress=False)


def show_curves():
    for name in "ABCD":
        history = curve(name)
        for which in ("loss", "val_loss"):
            print(f"{name} {which:>8s}", *(f"{history[which][epoch]:8.3f}" for epoch in range(8)))


def explain_curves() -> dict[str, str]:  # exercise
    """What is the matter with each training of `show_curves`, as a dictionary: for each of "A", "B", "C" and "D" one of
    the words "too large" and "too small", about its rate, "memorizes", or "fine"."""
    return {"A": "too large", "B": "fine", "C": "memorizes", "D": "too small"}


# ## How large a batch?
#
# Now that a training is one call, questions can be put to it. How large should a batch be? Here is the same network,
# trained for ten epochs with the same rate and four sizes.


def show_batch_sizes():
    training, held_out = digits()
    print("batch   steps   held-out accuracy   seconds")
    for size in (4, 32, 256, 1438):
        manual_seed(0)
        model = digits_classifier()
        data, began = Batches(*training, batch_size=size, shuffle=True), time.perf_counter()
        history = fit(
            model, cross_entropy, Adam(model.parameters(), lr=3e-3), data, epochs=10,
            validation=Batches(*held_out, batch_size=359), metrics=[accuracy], progress=False,
        )
        seconds = time.perf_counter() - began
        print(f"{size:5d} {10 * len(data):7d} {history['val_accuracy'][-1]:19.1%} {seconds:9.2f}")


# Small batches make many steps out of an epoch, and every step has a fixed price in time. Very large ones do not get
# far in ten epochs: ten steps are ten steps, however good each of them is. (With a larger rate and more epochs they
# catch up.) For a network like this one, 32 is the best of the four: it gets about as far as the smallest size in a
# fraction of the time, while with 256 the ten epochs are over too soon.
#
# The seconds have to be read with care. From some size on the BLAS library sets several threads to one product, and if
# other programs want the cores as well, these threads wait for each other longer than they work. If a row with few
# steps has many seconds here, set `OPENBLAS_NUM_THREADS=1` and look again.

# ## The witness
#
# "As if nothing had happened" is a claim that can be checked: train for four epochs; and train again, but stop in the
# middle of the second epoch, throw everything away, and resume from the file. Every weight must have the same bits.
#
# The power cut is a callback that raises the exception that Ctrl-C raises, after the seventh step: that is in the
# middle of the second epoch, one step after a checkpoint, so that one step is lost and has to be repeated. Dropout is
# on, so that chance matters in every step.


class _PowerCut(Callback):
    def on_step(self, run):
        if run.steps == 7:
            raise KeyboardInterrupt


def _short_training(path, callbacks=(), resume=False) -> Module:
    manual_seed(5)
    (x, y), _ = digits()
    model = digits_classifier(dropout=0.2)
    data = Batches(x[:160], y[:160], 32, shuffle=True)
    fit(
        model, cross_entropy, Adam(model.parameters()), data, epochs=4, callbacks=callbacks, checkpoint=path,
        checkpoint_every=3, resume=resume, progress=False,
    )
    return model


# The comparison is `array_equal`. Not nearly equal: equal.


def check_resume_bit_for_bit():
    with tempfile.TemporaryDirectory() as folder:
        whole = _short_training(Path(folder) / "whole")
        try:
            _short_training(Path(folder) / "cut", [_PowerCut()])
        except KeyboardInterrupt:
            resumed = _short_training(Path(folder) / "cut", [Callback()], resume=True)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(whole.parameters(), resumed.parameters()))


# ## The cost
#
# In each step `fit` does what the bare loop does not: it measures the loss, checks it, adds it to an average, updates a
# bar. On a network as small as this one can see that; on any network worth waiting for one cannot. Here is the same
# number of steps with `fit` and with the five lines from the beginning of the chapter, on the digits.


def show_cost():
    from tt_tensor import measure

    training, _ = digits()
    model, data = digits_classifier(), Batches(*training, batch_size=32, shuffle=True)
    optimizer = Adam(model.parameters())

    def bare():
        for x, y in data:
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    loop, whole = (
        measure(bare).seconds,
        measure(lambda: fit(model, cross_entropy, optimizer, data, epochs=1, progress=False)).seconds,
    )
    print(f"45 steps: bare loop {loop * 1e3:.1f} ms, fit {whole * 1e3:.1f} ms ({(whole / loop - 1) * 100:.0f} % more)")


# ## Errors you will meet


def show_errors():
    x, y = Tensor(np.zeros((4, 2))), Tensor(np.zeros((4, 1)))
    model = Sequential(Linear(2, 1))
    optimizer = Adam(model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(folder) / "run.safetensors"
        save_checkpoint(damaged, {"weights": x})
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
        os.chdir(folder)
        attempts = [
            lambda: Batches(x, y[:3]),
            lambda: fit(model, lambda a, b: (a / 0).sum(), optimizer, [(x.to(float32), y)], epochs=1),
            lambda: fit(model, lambda a, b: a.sum(), optimizer, iter(()), epochs=1),
            lambda: load_checkpoint("run.safetensors"),
        ]
        for attempt in attempts:
            try:
                attempt()
            except (ValueError, RuntimeError) as error:
                print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# All three have a star: leave out what you like.
#
# 1. `confusion`: a table of how often class i was taken for class j. Which digits does the network mix up?
# 2. `WeightAverage`: a callback that keeps a running average of the weights (an *exponential moving average*), which is
#    often better than the weights themselves.
# 3. `find_rate`: train for some steps while the rate grows from tiny to huge, and return rates and losses; the best
#    rate lies a little before the loss explodes (Smith, 2015).
#
# For the first of them, remember `np.add.at` from chapter 02: pairs of (label, answer) occur more than once.


def confusion(model: Module, x: Tensor, y: Tensor, classes: int) -> Tensor:  # exercise (starred)
    """Counts (classes, classes), integers: row i, column j is how often an example of class i was called j. The model
    is asked in evaluation mode, and each of its parts is in the mode it was in afterwards."""
    table = np.zeros((classes, classes), np.int64)
    with evaluating(model), no_grad():
        np.add.at(table, (y.numpy(), model(x).argmax(dim=1).numpy()), 1)
    return from_numpy(table)


def check_confusion():
    always_one = Sequential(Linear(2, 3))
    always_one[0].weight.data, always_one[0].bias.data = np.zeros((3, 2)), np.array([0.0, 1.0, 0.0])
    assert confusion(always_one, Tensor(np.ones((3, 2), np.float32)), from_numpy(np.array([0, 1, 1])), 3).tolist() == [
        [0, 1, 0], [0, 2, 0], [0, 0, 0],
    ]


# The second is a callback like those of the appendix: it looks at the run after each step, and keeps what it has seen
# in its own state, so that a checkpoint holds it.


class WeightAverage(Callback):
    """After each step, average <- decay * average + (1 - decay) * weights; `average` is a state dictionary."""

    def __init__(self, decay: float = 0.99):
        self.decay = decay
        self.average: dict[str, Tensor] | None = None

    def on_start(self, run):
        self.average = None

    def on_step(self, run):  # exercise (starred)
        """Take in the weights of run.model, as copies; the first time, they are the average."""
        weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        if self.average is None:
            self.average = weights
        else:
            self.average = {
                name: self.decay * old + (1 - self.decay) * weights[name] for name, old in self.average.items()
            }

    def state_dict(self):
        return {"average": self.average}

    def load_state_dict(self, state):
        self.average = state["average"]


def check_weight_average():
    model, average = Sequential(Linear(1, 1, bias=False)), WeightAverage(0.5)
    for value in (0.0, 4.0):
        model[0].weight.data = np.full((1, 1), value)
        average.on_step(Run(model, Adam(model.parameters()), [], (), 1, 1))
    assert average.state_dict()["average"]["0.weight"].item() == 2.0


# The third needs no callback and no `fit`, only `_step`.


def find_rate(  # exercise (starred)
    model: Module, loss_fn: Callable, optimizer: Optimizer, data: Iterable, lowest: float = 1e-6, highest: float = 1.0,
    steps: int = 50,
) -> tuple[list[float], list[float]]:
    """Rates from `lowest` to `highest` in equal ratios, and the loss before the step that was made with each. Goes
    round the data as often as the steps need, one batch for each, and sets the rate of the first parameter group."""
    rates, losses = list(np.geomspace(lowest, highest, steps)), []
    batches = iter(data)
    for rate in rates:
        batch = next(batches, None)
        if batch is None:
            batches = iter(data)
            batch = next(batches)
        optimizer.param_groups[0]["lr"] = float(rate)
        averages = Averages()
        _step(model, loss_fn, optimizer, [batch], None, (), averages)
        losses.append(averages.means()["loss"])
    return rates, losses


def check_find_rate():
    training, _ = digits()
    model = digits_classifier()
    rates, losses = find_rate(
        model, cross_entropy, Adam(model.parameters()), Batches(*training, batch_size=64), highest=1e-2
    )
    assert len(rates) == len(losses) == 50 and losses[-1] < losses[0]


# ## A road not taken
#
# PyTorch has no `fit`, on principle: the loop is yours, and frameworks on top of it (Lightning, Accelerate, Keras)
# disagree about everything. Keras calls a method of the model; Lightning wants the model to be a subclass that knows
# how it is trained. Ours is a function of a model, a loss, an optimizer and data, which know nothing of it, and a
# program that outgrows it can copy the few lines of `_step` and go its own way.

# ## What hurts next
#
# The network reads some 98 of 100 unseen digits. Now move every digit one pixel to the right, and then two; any child
# reads them as before.
#
# The pictures are 8 pixels wide, so a shift by two is a quarter of the width; but the digits are drawn in the middle,
# and only about a sixteenth of the ink is lost at the edge.


def shifted(x: Tensor, pixels: int) -> Tensor:
    """8 x 8 images, as rows of 64, moved to the right; what leaves the frame is lost, and zeros come in from the
    left."""
    images = x.numpy().reshape(-1, 8, 8)
    moved = np.zeros_like(images)
    moved[:, :, pixels:] = images[:, :, : 8 - pixels]
    return from_numpy(moved.reshape(-1, 64))


def show_shift():
    model, _ = train_digits()
    _, (x, y) = digits()
    for pixels in (0, 1, 2):
        print(f"moved by {pixels} pixels: {accuracy(model(shifted(x, pixels)), y) * 100:.1f} % right")


# For the network a pixel is a number in a list of 64, and number 19 has nothing to do with number 20. It has not
# learned what a stroke looks like; it has learned which entries of the list tend to be large. The remedy is to look at
# neighbourhoods, everywhere with the same eyes: chapter 09, *Spatial*.

__all__ = [
    "Averages", "Batches", "Run", "WeightAverage", "accuracy", "confusion", "curve", "digits", "digits_classifier",
    "evaluate", "evaluating", "find_rate", "fit", "require_finite", "shifted", "train_digits", "train_xor",
]
