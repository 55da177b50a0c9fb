"""Chapter 08, judged by its public names."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import between, expect

STEP, VALIDATION, AVERAGES, BATCHES = "One step", "Validation", "Averages", "Batches"
RUN, FIT, RUNS = "The run", "fit", "It runs"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


class Weights(tt.Module):
    """Two weights, w and v, whose loss below is 3 w + 4 v: the gradients are always 3 and 4."""

    def __init__(self):
        super().__init__()
        self.w, self.v = tt.Parameter([0.0]), tt.Parameter([0.0])

    def forward(self, x):
        return 3 * x * self.w + 4 * x * self.v


def mean(outputs, targets):
    return outputs.mean()


def fit_weights(steps=1, loss=mean, **options):
    """The weights after some steps of SGD with rate 1 on the loss 3 w + 4 v."""
    model = Weights()
    ta.fit(
        model,
        loss,
        to.SGD(model.parameters(), lr=1.0),
        [(tt.ones(1), tt.ones(1))],
        epochs=steps,
        progress=False,
        **options,
    )
    return [model.w.item(), model.v.item()]


def test_batches_keep_pairs_together():
    x = tt.arange(10)

    def passes(**options):
        data = ta.Batches(x, x * 2, batch_size=4, **options)
        return [[(a.tolist(), b.tolist()) for a, b in data] for _ in range(2)]

    in_order = [([0, 1, 2, 3], [0, 2, 4, 6]), ([4, 5, 6, 7], [8, 10, 12, 14]), ([8, 9], [16, 18])]
    expect(
        "two passes over Batches(0..9, their doubles, batch_size=4)",
        passes,
        [in_order, in_order],
        ([in_order[:2]] * 2, "The last batch has two examples, and is not to be dropped."),
        "Without `shuffle`, each pass goes through the rows as they come.",
        see=BATCHES,
    )
    expect(
        "the sizes of the batches in a shuffled pass",
        lambda: [len(a) for a, _ in passes(shuffle=True)[0]],
        [4, 4, 2],
        ([4, 4], "The last batch has two examples, and is not to be dropped."),
        see=BATCHES,
    )
    expect(
        "all examples of a shuffled pass, sorted",
        lambda: sorted(value for a, _ in passes(shuffle=True)[0] for value in a),
        list(range(10)),
        "Each example comes once in each pass.",
        see=BATCHES,
    )
    expect(
        "is each target the double of its input, in a shuffled pass?",
        lambda: all(b == [2 * value for value in a] for a, b in passes(shuffle=True)[0]),
        True,
        "The pairs are torn: use one permutation for inputs and targets.",
        see=BATCHES,
    )
    expect(
        "is the order of the second shuffled pass another?",
        lambda: (lambda two: two[0] != two[1])(passes(shuffle=True)),
        True,
        "Draw a new permutation in each pass.",
        see=BATCHES,
    )

    def orders():
        data = ta.Batches(x, x, batch_size=4, shuffle=True)
        for _ in range(2):
            tt.manual_seed(5)
            yield [a.tolist() for a, _ in data]

    expect(
        "do two shuffled passes after the same seed have the same order?",
        lambda: len({str(order) for order in orders()}),
        1,
        "The seed alone decides: draw from generator(), and leave the order of x and y themselves as it is.",
        see=BATCHES,
    )
    images = ta.Batches(tt.zeros(5, 2, 3), tt.zeros(5), batch_size=2)
    expect(
        "shapes and dtype of the first batch of (5, 2, 3) inputs, and whether both are tensors",
        lambda: (
            lambda x, y: (x.shape, y.shape, str(x.dtype), isinstance(x, tt.Tensor) and isinstance(y, tt.Tensor))
        )(*next(iter(images))),
        ((2, 2, 3), (2,), "float32", True),
        (((2, 2, 3), (2,), "float32", False), "These are arrays: `from_numpy` makes tensors of them."),
        see=BATCHES,
    )


def test_averages_count_examples():
    def means():
        averages = ta.Averages()
        for value, size in ((1, 4), (0, 4), (6, 2)):
            averages.add({"loss": value, "error": value / 2}, size)
        return averages.means()

    def both(loss):
        return {"loss": loss, "error": loss / 2}

    expect(
        "means of loss and error, of batches of 4, 4 and 2, whose losses are 1, 0 and 6 and errors half of that",
        means,
        both(1.6),
        (both(7 / 3), "The last two examples count double here: weight each batch by its size."),
        (both(0.7), "The means were added up as they are: weight each batch by its size, and multiply with it."),
        (both(0.8), "The count has grown for each name: it counts the examples of a batch once."),
        (both(1.2), "The last batch has replaced the others: add to the totals."),
        (KeyError, "A name may come for the first time: its total begins with 0."),
        see=AVERAGES,
    )


def test_batches_count_by_their_size():
    batches = [(tt.zeros(4, 1), tt.zeros(4)), (tt.zeros(4, 1), tt.zeros(4)), (tt.full((2, 1), 6.0), tt.zeros(2))]
    weight = (2, "The mean of the batches' means counts the last two examples double: weight each batch by its size.")
    expect(
        "mean over 10 samples in batches of 4, 4 and 2, whose means are 0, 0 and 6",
        lambda: ta.evaluate(tt.Identity(), mean, batches)["loss"],
        1.2,
        weight,
        see=AVERAGES,
    )

    def loss_of_an_epoch():
        model = tt.Sequential(tt.Identity(), tt.Linear(1, 1))
        model[1].weight.data, model[1].bias.data = tt.ones(1, 1), tt.zeros(1)
        return ta.fit(model, mean, to.SGD(model.parameters(), lr=0.0), batches, epochs=1, progress=False)["loss"]

    expect(
        "the loss of an epoch with the same batches",
        loss_of_an_epoch,
        [1.2],
        ([2], weight[1]),
        (KeyError, "Nothing was averaged: a step tells `averages` what `_measured` says of each batch."),
        see=AVERAGES,
    )


def test_every_step_starts_without_gradients():
    expect(
        "weights after two steps of SGD(lr=1) with gradients 3 and 4",
        lambda: fit_weights(2),
        [-6, -8],
        ([-9, -12], "The gradients of step 2 contain those of step 1: call zero_grad once, at the start of each step."),
        ([0, 0], "The weights have not moved: the step is made at the end, by the optimizer."),
        see=STEP,
    )


def test_clipping_keeps_the_direction():
    expect(
        "weights after one step with gradients 3 and 4 and clip_norm=1",
        lambda: fit_weights(clip_norm=1.0),
        [-0.6, -0.8],
        ([-1, -1], "The direction has changed: clip by the global norm, with one factor for all parameters."),
        ([-3, -4], "Nothing was clipped."),
        see=STEP,
    )
    expect(
        "weights after one step with gradients 3 and 4 and clip_norm=10",
        lambda: fit_weights(clip_norm=10.0),
        [-3, -4],
        "What is short enough already stays as it is.",
        see=STEP,
    )


def test_a_loss_that_is_no_number_ends_the_run():
    expect(
        "fit with a loss that is nan",
        lambda: fit_weights(loss=lambda outputs, targets: outputs.mean() * float("nan")),
        RuntimeError,
        "Training on a nan only spreads it: raise a RuntimeError that says so.",
        see=STEP,
    )


def test_a_gradient_that_is_no_number_ends_the_run_before_the_step():
    def weights_after():
        model, data = Weights(), [(tt.ones(1), tt.ones(1))]
        broken = lambda outputs, targets: outputs.mean() + (outputs - outputs).mean().sqrt()
        try:
            ta.fit(model, broken, to.SGD(model.parameters(), lr=1.0), data, epochs=1, progress=False)
        except RuntimeError:
            return [model.w.item(), model.v.item()]
        return "no error"

    expect(
        "weights after fit with a loss that is finite and has nan as its gradient",
        weights_after,
        [0, 0],
        ("no error", "One nan in a gradient ruins the weights: call _check_gradients before the step."),
        "Look at the gradients before the optimizer's step.",
        see=STEP,
    )


def test_validation_is_in_evaluation_mode():
    model, data = tt.Sequential(tt.Dropout(0.5)), [(tt.ones(1000), tt.ones(1000))]

    def agree():
        losses = [ta.evaluate(model, mean, data)["loss"] for _ in range(2)]
        return losses[0] == losses[1]

    expect(
        "do two calls of evaluate agree, for a model with dropout?",
        agree,
        True,
        "Validation differs between two calls: dropout is active; go into eval mode first.",
        see=VALIDATION,
    )
    for mode in (True, False):

        def mode_after(mode=mode):
            ta.evaluate(model.train(mode), mean, data)
            return model.training

        expect(
            f"model.training after evaluate(model.train({mode}), ...)",
            mode_after,
            mode,
            (False, "The model stayed in eval mode: go back to the mode that it was in."),
            "Go back to the mode that the model was in.",
            see=VALIDATION,
        )

    def frozen_part_after():
        model.train()[0].eval()
        ta.evaluate(model, mean, data)
        return [part.training for part in model.modules()]

    expect(
        "modes of a model in training mode, and of its part in evaluation mode, after evaluate",
        frozen_part_after,
        [True, False],
        ([True, True], "The part was in evaluation mode before, and has been woken up: give each part its own mode."),
        see=VALIDATION,
    )

    def after_failing():
        try:
            ta.evaluate(model.train(), lambda outputs, targets: 1 / 0, data)
        except ZeroDivisionError:
            return model.training
        return "no error"

    expect(
        "model.training after an evaluate that failed",
        after_failing,
        True,
        "The model stayed in eval mode: go back in any case, with try/finally.",
        see=VALIDATION,
    )
    expect(
        "evaluate on data without a batch",
        lambda: ta.evaluate(model, mean, []),
        ValueError,
        "A mean over nothing is no number: refuse it.",
        see=VALIDATION,
    )


def test_validation_records_nothing():
    def inside():
        model, seen = tt.Sequential(tt.Linear(1, 1)), []
        ta.evaluate(
            model,
            lambda outputs, targets: seen.append(outputs.requires_grad) or outputs.mean(),
            [(tt.ones(2, 1), tt.ones(2, 1))],
        )
        return seen

    expect(
        "outputs.requires_grad inside evaluate",
        inside,
        [False],
        "Validation records its operations: use no_grad().",
        see=VALIDATION,
    )


def test_validation_measures_what_it_is_asked_to():
    data = [(tt.Tensor([[0, 1], [1, 0]]), tt.tensor([1, 1])), (tt.Tensor([[0, 1]]), tt.tensor([1]))]
    expect(
        "evaluate of the identity on 3 examples, with the metric accuracy",
        lambda: ta.evaluate(tt.Identity(), lambda outputs, targets: outputs.mean(), data, [ta.accuracy]),
        {"loss": 0.5, "accuracy": 2 / 3},
        ({"loss": 0.5, "accuracy": 0.75}, "One counts as much as two here: weight each batch by its size."),
        ({"loss": 0.5}, "The metrics are missing: `_measured` gives the loss and them."),
        see=VALIDATION,
    )


def test_training_goes_on_in_training_mode():
    class Modes(tt.Linear):
        def __init__(self, seen):
            super().__init__(1, 1)
            self.seen = seen

        def forward(self, x):
            self.seen.append(self.training)
            return x * self.weight

    def modes():
        model, data = Modes([]), [(tt.ones(2, 1), tt.ones(2, 1))]
        ta.fit(model, tt.mse_loss, to.SGD(model.parameters()), data, epochs=2, validation=data, progress=False)
        return model.seen

    expect(
        "training mode in step, validation, step, validation",
        modes,
        [True, False, True, False],
        "Switch to train mode before each epoch, and to eval mode for validation.",
        see=VALIDATION,
    )


class Stepwise(ta.Callback):
    """Notes after each step which one it was, how many batches have been seen, and the weight w."""

    def __init__(self):
        self.notes = []

    def on_step(self, run):
        self.notes.append((run.steps, run.batch, run.model.w.item()))


def test_an_epoch_goes_through_its_groups():
    def notes():
        model, stepwise = Weights(), Stepwise()
        options = {"epochs": 2, "accumulate": 2, "callbacks": [stepwise], "progress": False}
        ta.fit(model, mean, to.SGD(model.parameters(), lr=1.0), [(tt.ones(1), tt.ones(1))] * 5, **options)
        return stepwise.notes

    seen = [2, 4, 5, 2, 4, 5]
    expect(
        "(step, batches of the epoch seen, weight) after each step of 2 epochs of 5 batches, accumulate=2, if a step "
        "moves the weight by -3",
        notes,
        [(step, batches, -3.0 * step) for step, batches in enumerate(seen, start=1)],
        ([], "The callbacks have heard of no step: call after_step(group) after each."),
        (lambda found: len(found) == 4, "The last group of an epoch is shorter: 2, 2 and 1 batches make three steps."),
        (lambda found: len(found) == 10, "Each batch has made a step of its own: `accumulate` of them make a group."),
        (lambda found: found[0][0] == 0 and found[0][2] == -3, "Count step and batches before after_step."),
        (lambda found: found[0][2] == 0, "Nothing has moved: call step(group) before after_step(group)."),
        (lambda found: [note[1] for note in found] != seen, "run.batch counts batches: add the group's length."),
        (lambda found: found[-1][0] != 6, "run.steps counts the steps of all epochs, one for each group."),
        see=FIT,
    )


def test_accumulated_batches_make_one_step():
    x, y = np.sin(np.arange(30.0)).reshape(10, 3), np.cos(np.arange(10.0)).reshape(10, 1)
    rows = slice(0, 4), slice(4, 8), slice(8, 10)

    def descended(*shares):
        """The weights if the losses of the batches count with these shares."""
        weight = np.zeros((1, 3))
        for _ in range(3):
            slopes = [2 * ((x[at] @ weight.T - y[at]).T @ x[at]) / len(x[at]) for at in rows]
            weight = weight - 0.1 * sum(share * slope for share, slope in zip(shares, slopes))
        return weight

    def trained(batch_size, accumulate):
        model = tt.Linear(3, 1, bias=False).double()
        model.weight.data = np.zeros((1, 3))
        data = ta.Batches(tt.Tensor(x), tt.Tensor(y), batch_size)
        optimizer = to.SGD(model.parameters(), lr=0.1)
        history = ta.fit(model, tt.mse_loss, optimizer, data, epochs=3, accumulate=accumulate, progress=False)
        return model.weight, history["loss"][0]

    wanted = descended(0.4, 0.4, 0.2)
    expect("weights after three steps on all 10 samples", lambda: trained(10, 1)[0], wanted, see=STEP)
    expect(
        "weights after three steps on 10 samples as batches of 4, 4 and 2, accumulated",
        lambda: trained(4, 3)[0],
        wanted,
        (descended(0, 0, 0.2), "Only the last batch has counted: forget the old gradients once, before the first."),
        (descended(0, 0, 1), "Only the last batch has counted: forget the old gradients once, before the first."),
        (descended(1, 1, 1), "The gradients have become a sum: weigh each loss by its share of the examples."),
        (descended(1 / 3, 1 / 3, 1 / 3), "Two examples count like four: weigh each loss by its share of the examples."),
        "Weigh the loss of each batch by its share of the examples.",
        see=STEP,
    )
    expect(
        "loss of the first epoch on these batches, accumulated",
        lambda: trained(4, 3)[1],
        np.mean(y**2),
        "The averages are told the loss of a batch as it is, before it is weighed.",
        see=STEP,
    )


class Volumes:
    """Three batches that are other ones in each pass; the number of passes is all that these data remember."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return iter([(tt.full((1,), 10.0 * self.passes + i), tt.zeros(1)) for i in range(3)])

    def state_dict(self):
        return {"passes": self.passes}

    def load_state_dict(self, state):
        self.passes = state["passes"]


def begun(data, seen):
    """A run in an epoch of which some batches have been seen, and all inputs of that epoch."""
    model = Weights()
    run = ta.Run(model, to.SGD(model.parameters(), lr=1.0), data, [], 1, 1)
    run.begin_epoch()
    whole = [x.tolist() for x, _ in data]
    run.batch = seen
    return run, whole


def test_a_run_finds_its_place_in_an_epoch():
    def shuffled():
        return ta.Batches(tt.arange(10), tt.arange(10), 2, shuffle=True)

    def left(seen):
        """The places in the epoch of what is left, -1 for what does not occur in it."""
        run, whole = begun(shuffled(), seen)
        if not seen:
            tt.set_rng_state(run.start_of_epoch["random"])
        return [whole.index(x.tolist()) if x.tolist() in whole else -1 for x, _ in run.batches()]

    for seen in (0, 2):
        expect(
            f"which of 5 shuffled batches, 0 to 4, run.batches() has left when {seen} have been seen (-1: another one)",
            lambda seen=seen: left(seen),
            list(range(seen, 5)),
            ([0, 1, 2, 3, 4], "These are all of them: skip the first `batch`, which have been seen."),
            (lambda found: -1 in found, "This is another order: rewind before the data draw it, at their first batch."),
            see=RUN,
        )

    def drawn():
        run, _ = begun(shuffled(), 2)
        tt.generator().random()  # as the dropout of a step does
        before = tt.get_rng_state()
        next(iter(run.batches()))
        number = tt.generator().random()
        tt.set_rng_state(before)
        return number == tt.generator().random()

    expect(
        "is the generator's state what it was, after the first batch of run.batches() in the middle of an epoch?",
        drawn,
        True,
        "Set the generator back to its state before the call, after skipping: it decides about the next dropout mask.",
        see=RUN,
    )
    expect(
        "what is left after one batch of [10, 11, 12], of data that count their passes and give [20, 21, 22] next",
        lambda: [x.item() for x, _ in begun(Volumes(), 1)[0].batches()],
        [11, 12],
        ([21, 22], "The data have a state of their own: `rewind` sets that back as well."),
        ([12], "One batch has been seen, and two were skipped."),
        see=RUN,
    )


def test_accuracy_is_the_share_of_right_answers():
    expect(
        "accuracy([[1, 2], [3, 0], [0, 1]], [1, 0, 0])",
        lambda: ta.accuracy(tt.Tensor([[1, 2], [3, 0], [0, 1]]), tt.tensor([1, 0, 0])),
        2 / 3,
        see=AVERAGES,
    )
    expect(
        "accuracy of the logits [[-1], [2]] for the targets [[0], [1]]",
        lambda: ta.accuracy(tt.Tensor([[-1], [2]]), tt.Tensor([[0], [1]])),
        1,
        see=AVERAGES,
    )


def test_digits_are_learned():
    (x, y), held_out = ta.training.digits()
    histories = []

    def learned():
        model = ta.training.digits_classifier()
        optimizer, data = to.Adam(model.parameters(), lr=3e-3), ta.Batches(x, y, 32, shuffle=True)
        options = {"epochs": 4, "validation": [held_out], "metrics": [ta.accuracy], "progress": False}
        histories.append(ta.fit(model, tt.cross_entropy, optimizer, data, **options))
        return histories[0]["val_accuracy"][-1]

    expect("share of the held-out digits that are right after 4 epochs", learned, between(0.9, 1), see="It runs")
    expect(
        "does the loss fall, and how many epochs does the history hold?",
        lambda: (histories[0]["loss"][-1] < histories[0]["loss"][0], len(histories[0]["seconds"])),
        (True, 4),
        see="It runs",
    )


def test_early_stopping_brings_back_the_best_weights():
    validation = [(tt.ones(1), tt.full((1,), target)) for target in (5.0,)]

    def distance(outputs, targets):
        return outputs.mean() * -1 if outputs.requires_grad else (outputs - targets).abs().mean()

    model = Weights()

    def losses():  # the output grows by 2.5 in each epoch: 2.5, 5, 7.5, 10
        stopper = ta.EarlyStopping(patience=2, restore_best=True)
        options = {"validation": validation, "callbacks": [stopper], "progress": False}
        data = [(tt.ones(1), tt.ones(1))]
        return ta.fit(model, distance, to.SGD(model.parameters(), lr=0.1), data, epochs=50, **options)["val_loss"]

    expect(
        "validation losses until EarlyStopping(patience=2)",
        losses,
        [2.5, 0, 2.5, 5],
        "Stop when the best loss is `patience` epochs old.",
        see="Callbacks",
    )
    expect("the model's output after restore_best", lambda: model(tt.ones(1)).item(), 5, see="Callbacks")


class Moody(tt.Module):
    """Always says 1, and 2 while it is trained."""

    def forward(self, x):
        return tt.Tensor(np.eye(3)[[2 if self.training else 1] * len(x)])


def test_confusion():
    expect(
        "confusion of a model that always says 1, and 2 in training mode, in which it is, for classes 0, 1 and 1",
        lambda: ta.confusion(Moody().train(), tt.ones(3, 2), tt.tensor([0, 1, 1]), 3),
        [[0, 1, 0], [0, 2, 0], [0, 0, 0]],
        ([[0, 1, 0], [0, 1, 0], [0, 0, 0]], "A pair that occurs twice was counted once: np.add.at adds for each."),
        ([[0, 0, 0], [1, 2, 0], [0, 0, 0]], "Rows are the true classes, columns the answers."),
        ([[0, 0, 0], [0, 0, 0], [1, 2, 0]], "Rows are the true classes; and ask the model in evaluation mode."),
        (lambda table: np.any(table[:, 2] != 0), "The model was asked in training mode: go into eval mode first."),
        see="Exercises",
    )
    expect(
        "model.training after confusion of a model in training mode, and of one in evaluation mode",
        lambda: [mode_after_confusion(Moody().train(mode)) for mode in (True, False)],
        [True, False],
        "Go back to the mode that the model was in.",
        see="Exercises",
    )


def mode_after_confusion(model):
    ta.confusion(model, tt.ones(3, 2), tt.tensor([0, 1, 1]), 3)
    return model.training


def look_of(history):
    """What is the matter with a training, seen from its numbers."""
    loss, unseen = history["loss"], history["val_loss"]
    if max(loss) > 10:
        return "too large"
    if loss[0] - loss[-1] < 0.1:
        return "too small"
    return "memorizes" if unseen[-1] > min(unseen) + 0.3 else "fine"


LOOKS = {"A": "too large", "B": "fine", "C": "memorizes", "D": "too small"}


def test_curves_look_as_they_should():
    expect(
        "how the curves of the four trainings look, by their numbers",
        lambda: {name: look_of(ta.training.curve(name)) for name in "ABCD"},
        LOOKS,
        "A training with another rate, or with fewer examples, has come out otherwise.",
        see=RUNS,
    )


def test_curves_are_explained():
    expect(
        "explain_curves()",
        lambda: ta.training.explain_curves(),
        LOOKS,
        (lambda said: set(said) != set("ABCD"), 'The keys are "A", "B", "C" and "D".'),
        (lambda said: set(said.values()) - set(LOOKS.values()), "Use the words that the docstring lists, as they are."),
        (lambda said: said["A"] != LOOKS["A"], "A leaps far above ln 10, the loss of guessing: its steps are too big."),
        (lambda said: said["D"] != LOOKS["D"], "D starts near ln 10, the loss of guessing, and has hardly moved."),
        (lambda said: said["C"] != LOOKS["C"], "C gets better and better on its examples, and worse on all others."),
        (lambda said: said["B"] != LOOKS["B"], "In B both losses fall, and stay near each other."),
        see=RUNS,
    )
