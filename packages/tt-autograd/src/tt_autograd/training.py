# # Training
#
# In this chapter we write one function, `fit`, that trains whatever we give it: in mini-batches, with validation, a
# progress bar, early stopping, and checkpoints from which an interrupted training continues as if nothing had happened.

# ## The hurt
#
# Since chapter 07 a training loop is short. Here is the one for XOR, as we all write it the first time.

from __future__ import annotations

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
from tt_autograd.checkpoints import Resumable, load_checkpoint, require_finite, save_checkpoint
from tt_autograd.histories import History, accuracy, progress_bar
from tt_optim import Adam, Optimizer, clip_grad_norm_
from tt_tensor import (
    Dropout, Linear, Module, ReLU, Sequential, Tensor, binary_cross_entropy_with_logits, cross_entropy, float32,
    from_numpy, generator, get_rng_state, manual_seed, set_rng_state,
)
from tt_tensor.activations import xor_points
from tt_tensor.losses import xor_network

# It uses what we built in chapters 04 to 07, a line for each of them.


def train_xor(steps: int = 300) -> float:
    """Train an xor_network with autograd, and return its last loss."""
    network, (x, wanted) = xor_network(), xor_points()
    optimizer = Adam(network.parameters(), lr=0.05)
    for _ in range(steps):
        loss = binary_cross_entropy_with_logits(network(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


# Three hundred steps are enough.


def show_xor():
    print(f"loss after 300 steps: {train_xor():.4f}")


# That is five lines, and in our next program we write them again. There we have more data than fit into one step, so we
# cut them into batches and shuffle, inputs and labels alike. We add validation, with dropout off, without recording,
# and with dropout on again afterwards. We want to stop when the network gets worse, to save the best weights, and to
# continue after a power cut. By the fifth program the loop is forty lines long, and no two of our loops are the same.
# Here is what goes wrong in such loops, each of it silently:
#
# - We forget `zero_grad`: each step contains the gradients of all earlier ones.
# - We validate in training mode: the number is noisy and pessimistic.
# - We do not return to training mode after the first validation: dropout is off from then on.
# - We average the means of the batches, although the last batch is smaller.
# - We clip each gradient alone, although the direction should be kept.

# ## The data: digits
#
# XOR has four examples, so a network can only memorize them. To see whether a network *generalizes*, we need real data:
# 1,797 handwritten digits of 8 by 8 pixels (E. Alpaydin and C. Kaynak, 1998, from the UCI repository), small enough to
# come with this package. We hold out a fifth of them as a *validation set*. We will never train on it.
#
# The pixels are integers from 0 to 16 in the file. We divide them by 16, because we initialized the layers of chapter
# 04 for inputs of about that size. We choose the held-out fifth at random, but always the same one, with a seed of its
# own: if we held out different data each time, we could not compare two accuracies.


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the 8 x 8 digits as ((x, y) for training, (x, y) held out): x (N, 64) float32 in 0 to 1, y (N,) int64.
    1,438 and 359 examples, always the same."""
    with resources.files("tt_autograd").joinpath("digits.npz").open("rb") as file:
        data = np.load(file)
        images, labels = data["images"], data["labels"].astype(np.int64)
    order = np.random.default_rng(1998).permutation(len(images))
    x, y = images.reshape(-1, 64)[order].astype(np.float32) / 16, labels[order]
    held_out = len(x) // 5
    return (from_numpy(x[held_out:]), from_numpy(y[held_out:])), (from_numpy(x[:held_out]), from_numpy(y[:held_out]))


# Here are twenty of them. Some are hard for you as well, because 64 pixels are not many.


def show_digits():
    """Twenty handwritten digits of 8 x 8 pixels with their labels."""
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
# A step on all 1,438 examples is a good step, but a slow one. A step on a single example is quick, but mostly noise. In
# between we take a *mini-batch* of, say, 32 examples. Its noise is less than a fifth of that of one example, and its
# matrix products are large enough to be fast.
#
# Where does the fifth come from? The gradient of a mini-batch is the mean of its examples' gradients. It scatters
# around the true gradient with a standard deviation that falls with the square root of the batch size, and $\sqrt{32}$
# is 5.7. So four times the batch halves the noise, at four times the price. Beyond some size that is a bad bargain, and
# therefore batches of a few dozen are so common.
#
# We call each pass through the data an *epoch*, and we take the mini-batches in a new order each time. In a fixed order
# the same examples would have the last word in every epoch. One permutation must serve inputs and labels, since two
# would tear the pairs apart.


class Batches:
    """(x, y) cut into batches of `batch_size` along the first dimension, in a new random order in each pass if
    `shuffle`. The last batch may be smaller."""

    def __init__(self, x: Tensor, y: Tensor, batch_size: int = 32, shuffle: bool = False):
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise TypeError(f"Batches takes tensors, not {type(x).__name__} and {type(y).__name__}: use from_numpy(x)")
        if len(x) != len(y):
            raise ValueError(f"{len(x)} inputs but {len(y)} targets; each input needs its target")
        if batch_size < 1 or not len(x):
            raise ValueError(f"there are {len(x)} examples, the batch size is {batch_size}; both must be at least 1")
        self.x, self.y, self.batch_size, self.shuffle = x.numpy(), y.numpy(), batch_size, shuffle

    # The number of batches is rounded up, because the last batch may be smaller.

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    # (`generator()` is the random generator of chapter 01, which `manual_seed` seeds.)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # exercise
        """One pass: pairs of tensors, inputs and targets of the same rows. A random order is drawn from `generator()`
        in each pass anew; `x` and `y` themselves do not change."""
        order = generator().permutation(len(self.x)) if self.shuffle else np.arange(len(self.x))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield from_numpy(self.x[rows]), from_numpy(self.y[rows])


# Three things can go wrong here: an example may be missing or come twice, the short last batch may be dropped, or
# inputs may lose their labels. The tests look for each of them.
#
# In place of `Batches` you can pass anything that yields pairs and that can be passed through again and again. In
# chapter 10 we build a far more capable loader, and `fit` will not notice.

# ## Averages
#
# Take 10 examples in batches of 4, 4 and 2. The mean of the three batch means counts the last two examples twice. So we
# weigh each batch by its size. We average losses and metrics (functions of outputs and targets, such as the fraction of
# right answers) in the same way.
#
# Losses and metrics arrive as means over their batch, so we multiply them by the batch size on arrival. At the end a
# single division gives us the mean over all examples, whatever the batches were.


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

    # There is nothing left to do but divide. If no batch arrived, that is a mistake, usually an iterator that was
    # already used up.

    def means(self) -> dict[str, float]:
        """Return the means over all examples so far. Raises ValueError if there was none."""
        if not self.count:
            raise ValueError("the data yielded no batch. An iterator can be used only once; give a list or Batches")
        return {name: total / self.count for name, total in self.totals.items()}


# We need one metric ourselves, `accuracy`, the fraction of right answers. It is in the appendix *Histories*, because it
# consists mostly of care about shapes. In its common case there is a row of logits for each example and a class index
# for each target, and an answer is right if the logit at that index is the largest of its row.

Metrics = Sequence[Callable[[Tensor, Tensor], Any]]

# We must not record while we measure. Otherwise a metric would be one more consumer in the computational graph, and
# would keep all of it alive. We also refuse two metrics with the same name, because we would otherwise average them
# into one number.


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
# To validate correctly we need three things: evaluation mode, no recording, and afterwards the mode that the model was
# in before, even if something fails.
#
# We restore the mode in `finally`, so that an error or Ctrl-C during validation does not leave a model whose dropout is
# off permanently. Each part gets its own mode back. If you have frozen a layer in evaluation mode, it must not wake up
# after the first validation.


@contextmanager
def evaluating(model: Module) -> Iterator[Module]:
    """Within the block the model is in evaluation mode; afterwards each of its parts is in the mode it was in."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        yield model.eval()
    finally:
        for part, mode in modes:
            part.training = mode


# With that block, we can evaluate in a few lines.


def evaluate(model: Module, loss_fn: Callable, data: Iterable, metrics: Metrics = ()) -> dict[str, float]:  # exercise
    """Return the mean loss and metrics of a model on data, in evaluation mode and without recording; afterwards the
    model and each of its parts is in the mode it was in, also after an error. Raises ValueError if the data have no
    batch."""
    averages = Averages()
    with evaluating(model), no_grad():
        for inputs, targets in data:
            outputs = model(inputs)
            averages.add(_measured(loss_fn(outputs, targets), outputs, targets, metrics), len(targets))
    return averages.means()


# ## One step
#
# A step takes a *group* of batches, usually a single one. If your memory is too small for a large batch, you can let
# several small ones count as one (`accumulate`). Their gradients add up, which `backward` does anyway as long as we
# forget the old ones only once, before the first batch. For the sum to be exactly that of the large batch, we multiply
# each loss by its fraction of the group's examples before its `backward`. We report the loss without that factor.
#
# A careful loop does one more thing. If the loss is not a finite number, continuing is pointless: the next step would
# turn all weights into `nan`, and the checkpoint after it would save them. So we stop, and the error says what may
# help. `_finite` does that for the loss. A gradient can be `nan` although the loss is finite (the slope of a square
# root at 0 is enough), so `_check_gradients` checks the gradients as well, before we clip and use them. Both call
# `require_finite` of the appendix *Checkpoints*, which names the first tensor that holds `nan` or infinity.


def _check_gradients(model: Module) -> None:
    require_finite(
        ((f"the gradient of {name}", p.grad) for name, p in model.named_parameters()),
        "the weights were not changed. Lower the learning rate, or look for the operation with detect_anomaly()",
    )


# For the loss, which exists before any gradient, we know more remedies.


def _finite(loss: Tensor) -> Tensor:
    """Return the loss itself. Raises RuntimeError if it is not a finite number."""
    require_finite(
        [("the loss", loss)],
        "lower the learning rate, clip the gradients (clip_norm=1.0), or look for the operation with detect_anomaly()",
    )
    return loss


# Now we can write the step itself: the five lines from the beginning of the chapter, with everything that a careful
# loop adds.


def _step(model, loss_fn, optimizer, group, clip_norm, metrics, averages) -> None:  # exercise
    """Make one step of the optimizer for a list of (inputs, targets) that count as one batch, with all gradients
    clipped to the common length `clip_norm` unless it is None. `averages` gets what `_measured` returns for each batch.
    Raises RuntimeError for a loss or a gradient that is not finite, before the step."""
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
# What must we write down so that a training can be interrupted at any moment and continue *bit for bit* as if it had
# not been? We need the weights, of course. We need the memory of the optimizer, the count of the learning-rate schedule
# and the state of the random generator. We also need the position in the data: which epoch, which batch, *and the order
# of this epoch*, which follows from the state of the generator at the beginning of the epoch.
#
# The rest is care, and the appendix *Checkpoints* describes it. A checksum over everything makes us notice a flipped
# bit instead of training on it. We write the file under another name and rename it when it is complete, so that a
# reader finds the old checkpoint or the new one, never half of one. The format is safetensors, which other programs can
# read and which, unlike a pickle, runs no code when you load it.

# ## Callbacks
#
# We may want to stop when the validation loss rises, to keep the best weights, or to lower the learning rate. Such
# wishes have no end, and not every wish should become an argument of `fit`. So we let `fit` call an object, a
# *callback*, after each step and after each epoch. The callback sees the run and may act on it. The run, in turn, saves
# the callback's state with everything else.


class Callback:
    """The methods that `fit` calls during a run; override those that you need."""

    def on_start(self, run: Run) -> None:
        """Before the first epoch. Forget what an earlier run left; if this run resumes, `load_state_dict` follows."""

    def on_step(self, run: Run) -> None:
        """After each change of the weights."""

    def on_epoch(self, run: Run) -> None:
        """After each epoch, when run.history has its numbers. Set run.stop to end the training."""

    def on_end(self, run: Run) -> None:
        """After the last epoch."""

    # If a callback counts or remembers anything, a checkpoint must contain it.

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved to continue later."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""


# The appendix *Callbacks* has the three that nearly every training needs: `EarlyStopping`, `BestCheckpoint` and
# `Schedule`. They look at the *history*, the record that a training leaves besides the network: for each measure a list
# with one number for each epoch. A `History` is a dictionary of these lists. You can print it as a table, and its
# `plot` draws each measure in a panel of its own. The appendix *Histories* has it, and the progress bar as well.

# ## The run
#
# A `Run` holds the position of a training, and its `state_dict` is the list of everything that a checkpoint must
# contain.


class Run(Resumable):
    """A training in progress: what is trained, its position (epoch, batch, steps), and what has been measured."""

    def __init__(
        self, model: Module, optimizer: Optimizer, data: Iterable, callbacks: Sequence[Callback], epochs: int,
        accumulate: int,
    ):
        self.model, self.optimizer, self.data, self.callbacks = model, optimizer, data, callbacks
        self.epoch, self.batch, self.steps, self.stop = 0, 0, 0, False
        self.total_steps = epochs * -(-len(data) // accumulate) if isinstance(data, Sized) else math.inf
        self.history, self.averages = History(), Averages()
        self.start_of_epoch: dict[str, Any] = {}

    # Two states of the random generator matter. The current state decides about the next dropout mask. The state at the
    # beginning of the epoch decided about the order of the data, so if we set it again, the data produce the same order
    # once more. (Data that remember more than the generator, such as those of chapter 10, have a state of their own.)

    def begin_epoch(self) -> None:
        """Note the state of the generator, from which the order of this epoch follows."""
        self.averages, self.batch = Averages(), 0
        data = self.data.state_dict() if hasattr(self.data, "state_dict") else None
        self.start_of_epoch = {"random": get_rng_state(), "data": data}

    def rewind(self) -> None:
        """Set the generator, and the data if they have a state, to where this epoch began."""
        set_rng_state(self.start_of_epoch["random"])
        if self.start_of_epoch["data"] is not None:
            self.data.load_state_dict(self.start_of_epoch["data"])  # type: ignore[attr-defined]

    # Here is how we return to the middle of an epoch: we rewind, let the data draw their order again, skip the batches
    # that we have seen, and restore the current state. That works for anything that draws its order from the generator
    # of chapter 01. Mind that data such as `Batches` draw it late, when you ask for their first batch.

    def batches(self) -> Iterator:  # exercise
        """Return an iterator over the batches of this epoch that have not been seen yet, which are all but the first
        `batch`, in the order that the epoch began with. The generator is then in the state that it had before the
        call."""
        if not self.batch:
            return iter(self.data)
        now = get_rng_state()
        self.rewind()
        batches = iter(self.data)
        for _ in range(self.batch):
            next(batches, None)
        set_rng_state(now)
        return batches

    # Here is the list. Each entry answers one question: if this were missing, what would differ after the restart?

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the training depends on."""
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

    # When we resume, we load all of it or nothing: if one part does not fit, the others must not change. `Resumable`,
    # in the appendix *Checkpoints*, sees to that. Its `load_state_dict` calls `take_up`, and if that fails, it calls it
    # once more with the state from before.

    def take_up(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the callbacks get their parts back in the order in which we saved."""
        if len(state["callbacks"]) != len(self.callbacks):
            raise ValueError(
                f"the checkpoint was made with {len(state['callbacks'])} callbacks, now there are {len(self.callbacks)}"
            )
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
# An epoch is a loop over groups of batches. Each group makes a step. After a step we inform the callbacks, the progress
# bar and the file, which is the task of `after_step`. `islice(batches, n)` takes the next `n` batches from an iterator,
# fewer at the end, and none when there are no more.


def _train_epoch(run: Run, accumulate: int, step: Callable, after_step: Callable) -> None:  # exercise
    """Go through the batches that this epoch has left, in lists of `accumulate` of them (the last may be shorter): call
    step(group), count the batches in run.batch and the step in run.steps, and call after_step(group)."""
    batches = run.batches()
    while group := list(islice(batches, accumulate)):
        step(group)
        run.batch, run.steps = run.batch + len(group), run.steps + 1
        after_step(group)


# The rest is plumbing. If a model is in training mode already, we leave it alone, because you may have put some of its
# parts into evaluation mode on purpose.


def _begin_epoch(run: Run) -> None:
    if not run.model.training:
        run.model.train()
    if not run.batch:
        run.begin_epoch()


# After each step the callbacks come first, so that the checkpoint contains what they have done.


def _after_step(run: Run, bar, checkpoint, every: int | None, group: list) -> None:
    for callback in run.callbacks:
        callback.on_step(run)
    bar.update(len(group))
    bar.set_postfix(loss=f"{run.averages.means()['loss']:.4f}", refresh=False)
    if checkpoint is not None and every and run.steps % every == 0:
        _save(run, checkpoint)


# An epoch has two kinds of numbers: the means over the batches that we trained on, and, if there are validation data,
# those over the validation set, whose names begin with `val_`.


def _numbers(run: Run, loss_fn: Callable, validation: Iterable | None, metrics: Metrics) -> dict[str, float]:
    numbers = run.averages.means()
    if validation is not None:
        seen = evaluate(run.model, loss_fn, validation, metrics)
        numbers |= {f"val_{name}": value for name, value in seen.items()}
    return numbers


# After an epoch we first add its numbers to the history and then call the callbacks, because they look at the history.


def _end_epoch(run: Run, numbers: dict[str, float], checkpoint) -> None:
    run.history.add(numbers)
    run.epoch, run.batch = run.epoch + 1, 0
    for callback in run.callbacks:
        callback.on_epoch(run)
    if checkpoint is not None:
        _save(run, checkpoint)


# `fit` is a function of four things, and you can exchange each of them without the others noticing: a model, a loss, an
# optimizer over the model's parameters, and data. Except for the number of epochs, everything else is optional and has
# a name. Give it an image network, a language model, or a perceptron on XOR: `fit` sees only inputs that go into the
# model, outputs and targets that go into the loss, and a number that comes out. These are the options:
#
# - `validation`: data for `val_loss` and the `val_` metrics after each epoch.
# - `metrics`: functions of outputs and targets that return a number.
# - `callbacks`: objects that `fit` calls after each step and each epoch.
# - `accumulate`: how many batches make one step.
# - `clip_norm`: the largest common length of all gradients.
# - `checkpoint`: a file to which we save everything after each epoch, and after every `checkpoint_every` steps. With
#   `resume`, we continue from it if it exists.
# - `progress`: whether to show a bar. By default it appears only in a terminal.


def fit(
    model: Module, loss_fn: Callable[[Any, Any], Tensor], optimizer: Optimizer, data: Iterable, *, epochs: int,
    validation: Iterable | None = None, metrics: Metrics = (), callbacks: Sequence[Callback] = (),
    accumulate: int = 1, clip_norm: float | None = None, checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int | None = None, resume: bool = False, progress: bool | None = None,
) -> History:
    """Train `model` for `epochs` passes through `data`, an iterable of (inputs, targets) that can be passed through
    again; returns the history. Its options are described in chapter 08. Raises RuntimeError when the loss is not
    finite, ValueError for impossible arguments."""
    _refuse(epochs, accumulate, checkpoint, resume)
    run = Run(model, optimizer, data, callbacks, epochs, accumulate)
    _start(run, checkpoint if resume else None)

    def step(group: list) -> None:
        _step(model, loss_fn, optimizer, group, clip_norm, metrics, run.averages)

    while run.epoch < epochs and not run.stop:
        began = time.perf_counter()
        with progress_bar(run.data, run.batch, f"epoch {run.epoch + 1}/{epochs}", progress) as bar:
            _begin_epoch(run)
            _train_epoch(run, accumulate, step, partial(_after_step, run, bar, checkpoint, checkpoint_every))
            numbers = _numbers(run, loss_fn, validation, metrics)
            bar.set_postfix({name: f"{value:.4f}" for name, value in numbers.items()})
        numbers |= {"lr": optimizer.param_groups[0]["lr"], "seconds": time.perf_counter() - began}
        _end_epoch(run, numbers, checkpoint)
    for callback in callbacks:
        callback.on_end(run)
    return run.history


# A run that resumes starts like any other. Then we load the position from the file.


def _refuse(epochs: int, accumulate: int, checkpoint, resume: bool) -> None:
    if epochs < 0 or accumulate < 1:
        raise ValueError(f"epochs must be 0 or more and accumulate at least 1; they are {epochs} and {accumulate}")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=, the file to resume from")


# If the file does not exist yet, this is simply the first run. So you can start a program again and again with
# `resume=True`.


def _start(run: Run, checkpoint: str | os.PathLike | None) -> None:
    for callback in run.callbacks:
        callback.on_start(run)
    if checkpoint is not None and Path(checkpoint).exists():
        run.load_state_dict(load_checkpoint(checkpoint))


# A model with broken weights must not replace a good one on the disk, so we look before we save.


def _save(run: Run, path) -> None:
    require_finite(
        run.model.named_parameters(), f"the last step was too long. Lower the learning rate; {path} was not changed"
    )
    save_checkpoint(path, run.state_dict())


# ## It runs
#
# Our network for the digits has 64 pixels, 64 hidden units and 10 logits, which makes 4,810 parameters.


def digits_classifier(dropout: float = 0.0) -> Sequential:
    """Return a new network: 64 pixels, 64 hidden units, 10 logits."""
    return Sequential(Linear(64, 64), ReLU(), Dropout(dropout), Linear(64, 10))


# Nothing in the call to `fit` is about digits.


def train_digits(epochs: int = 30, batch_size: int = 32, **options) -> tuple[Module, History]:
    """Train a digits_classifier; return the model and its history on the held-out fifth."""
    training, held_out = digits()
    model, data = digits_classifier(), Batches(*training, batch_size, shuffle=True)
    history = fit(
        model, cross_entropy, Adam(model.parameters(), lr=3e-3), data, epochs=epochs, validation=[held_out],
        metrics=[accuracy], **options,
    )
    return model, history


# We print some rows of the history and plot all of it.


def show_training():
    """Loss and accuracy of the digits classifier by epoch, on the training data and on the validation set."""
    _, history = train_digits()
    print(repr(history).split("\n")[0])
    for epoch in (1, 2, 5, 10, 20, 30):
        print(repr(history).split("\n")[epoch])
    return history.plot()


# The two losses tell two stories. The training loss continues towards zero. The validation loss flattens out, well
# above it. From then on, the network learns only about its training examples. This is *overfitting*.

# ## Overfitting
#
# Let us see it more clearly, with less data. We train the same network on 50 examples only, for sixty epochs. Then we
# try two remedies: dropout, and twice as many examples.


def learn_from_few(examples: int, dropout: float = 0.0, rate: float = 1e-2, epochs: int = 60) -> History:
    """Train a digits_classifier on the first examples; return its history on the held-out fifth."""
    manual_seed(0)
    (x, y), held_out = digits()
    model, data = digits_classifier(dropout), Batches(x[:examples], y[:examples], 20, shuffle=True)
    optimizer = Adam(model.parameters(), lr=rate)
    return fit(model, cross_entropy, optimizer, data, epochs=epochs, validation=[held_out], progress=False)


# We mark the epoch in which the validation loss was lowest.


def show_overfitting():
    """Training and validation loss by epoch with 50 examples, with 50 examples and dropout, and with 100 examples."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3), sharey=True)
    for axis, (examples, dropout) in zip(axes, ((50, 0.0), (50, 0.5), (100, 0.0))):
        history = learn_from_few(examples, dropout)
        losses, name = history["val_loss"], f"{examples} examples" + (", dropout 0.5" if dropout else "")
        best = int(np.argmin(losses))
        print(f"{name:26s} lowest validation loss {losses[best]:.3f} in epoch {best + 1}, last {losses[-1]:.3f}")
        axis.plot(range(1, 61), history["loss"], label="training loss")
        axis.plot(range(1, 61), losses, "--", label="validation loss")
        axis.plot(best + 1, losses[best], "o", label="lowest")
        axis.set(title=name, xlabel="epoch", ylim=(0, 2.5))
    axes[0].legend()
    figure.tight_layout()
    return figure


# On the left the training loss falls to practically nothing, because the network memorizes 50 examples easily. The
# validation loss turns around at the dot and rises. If we had stopped there and kept those weights, we would have lost
# nothing. This is *early stopping*, and `EarlyStopping(patience=5, restore_best=True)` does it for you.
#
# Anything that keeps a network from fitting its examples too closely is called *regularization*. Early stopping is one
# kind. Dropout (chapter 04) and weight decay (chapter 06) are two others. In the middle, dropout does its work: the
# training loss stays up, and the turning point comes later. But it does not replace data. The lowest validation
# loss of the middle is no better than that of the left, whereas twice as many examples, on the right, cut it in half.
#
# You will stare at such curves for hours, so here is how to read them:
#
# - *Training and validation loss both fall*: continue.
# - *Training falls, validation rises*: the network overfits. Stop, or take more data, a smaller network, or more
#   regularization.
# - *Neither falls*: the learning rate is too small, or a gradient is missing.
# - *The loss jumps up and down, or explodes*: the learning rate is too large.
# - *Validation is better than training*, at the beginning: this is not a mistake. The training loss of an epoch is an
#   average over the whole epoch, during which the network was worse than at its end. Moreover, dropout is on in one and
#   off in the other.
#
# Try it. Here are four training runs that differ in their learning rate and in the number of examples. What is the
# matter with each? (We have shuffled the table, so that you must read the curves.)

_CURVES = [(1e-6, 300), (1e-2, 300), (3e-2, 20), (1.0, 300)]  # learning rate, examples

# All four runs start from the same weights.


def curve(name: str) -> History:
    """Return the history of one of the four trainings "A" to "D"."""
    rate, examples = _CURVES[np.random.default_rng(8).permutation(4)["ABCD".index(name)]]
    return learn_from_few(examples, rate=rate, epochs=8)


# Compare the two losses of each, and both with $\ln 10 = 2.303$, the loss of a network that guesses.


def show_curves():
    for name in "ABCD":
        history = curve(name)
        for which in ("loss", "val_loss"):
            print(f"{name} {which:>8s}", *(f"{history[which][epoch]:8.3f}" for epoch in range(8)))


# Your answer is a dictionary with one word for each run.


def explain_curves() -> dict[str, str]:  # exercise
    """Return what is the matter with each training of `show_curves`, as a dictionary: for each of "A", "B", "C" and "D"
    one of the words "too large" and "too small", about its learning rate, "memorizes", or "fine"."""
    return {"A": "too large", "B": "fine", "C": "memorizes", "D": "too small"}


# ## How large a batch?
#
# Now that training is a single call, we can ask it questions. Numbers that we choose, and that no gradient can find,
# are called *hyperparameters*: the learning rate, the number of hidden units, the batch size. How large should a batch
# be? We train the same network for ten epochs with the same learning rate and four batch sizes.


def show_batch_sizes():
    print("batch   steps   held-out accuracy   seconds")
    for size in (4, 32, 256, 1438):
        manual_seed(0)
        _, history = train_digits(epochs=10, batch_size=size, progress=False)
        steps, right = 10 * math.ceil(1438 / size), history["val_accuracy"][-1]
        print(f"{size:5d} {steps:7d} {right:19.1%} {sum(history['seconds']):9.2f}")


# With small batches an epoch consists of many steps, and every step has a fixed price in time. With very large batches
# we do not get far in ten epochs: ten steps are ten steps, however good each of them is. (With a larger learning rate
# and more epochs they catch up.) For this network 32 is the best of the four. It gets at least as far as the smallest
# size in a fraction of the time, while with 256 the ten epochs are over too soon.
#
# Read the seconds with care. Above a certain size the BLAS library splits a product across threads. If other programs
# compete for the cores, these threads wait for each other longer than they work. If a row with few steps takes many
# seconds on your machine, set `OPENBLAS_NUM_THREADS=1` and look again.

# ## The witness
#
# We promised that an interrupted training continues "as if nothing had happened", and we can check that. We train for
# four epochs. Then we train again, but stop in the middle of the second epoch, throw everything away, and resume from
# the file. Every weight must have the same bits.
#
# The power cut is a callback that raises the exception of Ctrl-C after the seventh step. That is in the middle of the
# second epoch, one step after a checkpoint, so one step is lost and we must repeat it. Dropout is on, so that random
# numbers matter in every step.


class _PowerCut(Callback):
    def on_step(self, run):
        if run.steps == 7:
            raise KeyboardInterrupt


# The seed is the same for both trainings, so they begin alike.


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


# We compare with `array_equal`: not nearly equal, but equal.


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
# In each step `fit` does what our bare loop does not: it measures the loss, checks it, adds it to an average, and
# updates a progress bar. On a network as small as this one you can see that. On a network that takes hours you cannot.
# We make the same number of steps with `fit` and with the five lines from the beginning of the chapter, on the digits.


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

    loop = measure(bare).seconds
    whole = measure(lambda: fit(model, cross_entropy, optimizer, data, epochs=1, progress=False)).seconds
    print(f"45 steps: bare loop {loop * 1e3:.1f} ms, fit {whole * 1e3:.1f} ms ({(whole / loop - 1) * 100:.0f} % more)")


# ## Errors you will meet
#
# The data do not fit together, the loss is not a finite number, or the data are used up.


def show_errors():
    x, y = Tensor(np.zeros((4, 2))), Tensor(np.zeros((4, 1)))
    model = Sequential(Linear(2, 1))
    optimizer = Adam(model.parameters())
    attempts = [
        lambda: Batches(x, y[:3]),
        lambda: fit(model, lambda a, b: (a / 0).sum(), optimizer, [(x.to(float32), y)], epochs=1),
        lambda: fit(model, lambda a, b: a.sum(), optimizer, iter(()), epochs=1),
    ]
    for attempt in attempts:
        try:
            attempt()
        except (ValueError, RuntimeError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# There is one, and it has a star, so you may leave it out. `confusion` is a table of how often the network took class i
# for class j. Which digits does it mix up? Remember `np.add.at` from chapter 02: pairs of (label, answer) occur more
# than once.


def confusion(model: Module, x: Tensor, y: Tensor, classes: int) -> Tensor:  # exercise (starred)
    """Return counts (classes, classes), integers: row i, column j is how often an example of class i was called j. The
    model is called in evaluation mode, and afterwards each of its parts is in the mode it was in."""
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


# ## A road not taken
#
# PyTorch has no `fit`, on principle: you write the loop. The frameworks on top of it (Lightning, Accelerate, Keras)
# disagree about everything. In Keras, `fit` is a method of the model. Lightning wants the model to be a subclass that
# knows how it is trained. Ours is a function of a model, a loss, an optimizer and data, none of which know about it. If
# your program outgrows it, copy the few lines of `_step` and write your own loop.

# ## What hurts next
#
# Our network reads some 98 of 100 unseen digits. Now we move every digit one pixel to the right, and then two. Any
# child reads them as before.
#
# The images are 8 pixels wide, so a shift by two is a quarter of the width. The digits are drawn in the middle,
# however, and only about a sixteenth of the ink is lost at the edge.


def shifted(x: Tensor, pixels: int) -> Tensor:
    """Return 8 x 8 images, as rows of 64, moved to the right; pixels that leave the frame are lost, and zeros come in
    from the left."""
    images = x.numpy().reshape(-1, 8, 8)
    moved = np.zeros_like(images)
    moved[:, :, pixels:] = images[:, :, : 8 - pixels]
    return from_numpy(moved.reshape(-1, 64))


# We train once and shift only the held-out images.


def show_shift():
    model, _ = train_digits()
    _, (x, y) = digits()
    for pixels in (0, 1, 2):
        print(f"moved by {pixels} pixels: {accuracy(model(shifted(x, pixels)), y) * 100:.1f} % right")


# For the network a pixel is a number in a list of 64, and number 19 has nothing to do with number 20. It has not
# learned what a stroke looks like; it has learned which entries of the list tend to be large. The remedy is to look at
# neighbourhoods, everywhere with the same eyes: chapter 09, *Spatial*.

__all__ = [
    "Averages", "Batches", "Callback", "Run", "confusion", "curve", "digits",
    "digits_classifier", "evaluate", "evaluating", "fit", "shifted", "train_digits", "train_xor",
]
