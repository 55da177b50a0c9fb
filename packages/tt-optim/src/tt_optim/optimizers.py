# # Optimizers
#
# At the end of this chapter updating is written once, for every network: give the parameters to an optimizer, fill in
# their gradients, call `step()`. And XOR is learned with gradients that we derive ourselves.

# ## The hurt
#
# Chapter 05 left us writing two update lines for each layer, in each program, and showed what a forgotten line does:
# the loss stays near $\ln 2$, where it should fall to 0.01, and nothing warns us. Forgetting is not the only trouble.
# Steps have a length, and one length for all directions is a bad deal.

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from tt_optim.groups import gradient_of, parameter_groups, parameter_list, refuse_negative, refuse_outside_unit
from tt_optim.interface import Interface, with_closure
from tt_optim.states import loaded_state, nothing_remembered, saved_state, wide, write_back
from tt_tensor import (
    Module, Parameter, Sequential, Tensor, binary_cross_entropy_with_logits, manual_seed, sigmoid, slot,
)
from tt_tensor.activations import xor_points
from tt_tensor.losses import slope, xor_network

# Here is a valley, a hundred times steeper across than along:


def valley(x, y):
    """100 times steeper in y than in x; the lowest point is (0, 0)."""
    return 0.5 * (x * x + 100 * y * y)


# In such a valley the slope points almost entirely across, hardly ever along. If we go down the slope, we bounce from
# wall to wall; and the steepest wall dictates how long a step may be, for all directions. We try three step lengths.


def show_hurt():
    print("step length   x after 100 steps   y after 100 steps   (from 1, 1)")
    for rate in (0.0201, 0.0199, 0.001):
        x, y = 1.0, 1.0
        for _ in range(100):
            x, y = x - rate * x, y - rate * 100 * y
        print(f"{rate:11g}   {x:17.3f}   {y:17.3g}")


# With 0.0201 the steep direction overshoots further each time; with 0.0199 it is still swinging after a hundred steps;
# with 0.001 the flat direction has hardly moved. A network has thousands of directions, and we do not know which of
# them are steep.

# ## The smallest thing that could work
#
# Forgetting is easily cured: one object has all parameters and does the same to each of them. If you call its `step`,
# you need not know how many parameters there are, and so you cannot forget one.
#
# Two details deserve attention even in so little code. The object keeps the parameters in a *list*, because an iterator
# would be used up after the first step. And a step must change what each parameter *holds*, its `data`, in place. If it
# said `parameter = parameter - ...`, it would make a new tensor, bind a local name to it, and leave the network's
# weight alone. (`parameter.grad` is the gradient, a tensor of the same shape.)


class SmallestOptimizer:
    def __init__(self, parameters, rate):
        self.parameters, self.rate = list(parameters), rate

    def step(self):  # exercise
        """Change what every parameter holds by -rate times its gradient."""
        for parameter in self.parameters:
            parameter.data -= self.rate * parameter.grad


# It runs, and disappoints in the valley. We let it go from (1, 1) and ask how high above the lowest point it is.


def show_smallest():
    point = Parameter([1.0, 1.0])
    optimizer = SmallestOptimizer([point], rate=0.0199)
    for step in range(301):
        if step in (0, 1, 10, 100, 300):
            print(f"after {step:3d} steps: height {valley(*point.tolist()):7.4f}")
        point.grad = Tensor([1.0, 100.0]) * point.data
        optimizer.step()


# A hundred steps for two numbers, and it is still far up. It knows nothing but the slope here and now.

# ## The idea: remember
#
# Two kinds of memory help. Remember the *direction*: if successive slopes agree, go faster; if they alternate, they
# cancel. That is *momentum*, a heavy ball rolling down the valley. And remember the *size*: divide each parameter's
# slope by how large its slopes usually are; then all directions are equally steep. The first gives SGD with momentum,
# the second RMSprop, and both together Adam.
#
# Such memory is kept for each parameter separately. If two parameters shared a buffer, the slopes of the first would
# push the second.

# ## SGD
#
# *Stochastic gradient descent*: stochastic, because the gradient will come from a few examples at a time. With momentum
# $\mu$ it keeps a *velocity* $b$,
#
# $$ b \leftarrow \mu\, b + g, \qquad p \leftarrow p - \eta\, b . $$
#
# Nesterov's variant looks one step ahead: it steps by $g + \mu b$ instead of $b$, with the new velocity. *Weight decay*
# adds $\lambda p$ to the gradient and so pulls every weight towards zero, unless the data insist. PyTorch's
# `dampening`, a rare option, keeps a share of each new gradient out of the velocity; `kept`, $\kappa$, is the rest. All
# together:
#
# $$ g \leftarrow g + \lambda p, \qquad b \leftarrow \mu\, b + \kappa\, g, \qquad
#    p \leftarrow p - \eta\, (b \text{ or } g + \mu\, b), $$
#
# and without momentum simply $p \leftarrow p - \eta\, g$.
#
# The update is a function on arrays, and a *slot* (chapter 02), so its kernel can be exchanged. It changes `p` and
# `velocity` in place, because the next step must find the new velocity there. The gradient belongs to the caller and
# stays as it is: the first arrow makes a new array, which may have the old name.


@slot
def sgd_update(p, g, velocity, *, lr, momentum, kept, decay, nesterov):  # exercise
    """Change p and its velocity in place, given the gradient g, which stays as it is, and of which a share `kept` joins
    the velocity. The weight decay is added to the gradient first. Without momentum (0) the step goes by the gradient,
    and the velocity stays as it is."""
    if decay:
        g = g + decay * p
    if momentum:
        velocity *= momentum
        velocity += kept * g
        g = g + momentum * velocity if nesterov else velocity
    p -= lr * g


# Under a constant slope the velocity grows to $g / (1 - \mu)$, ten times the slope for 0.9, while alternating slopes
# cancel. So a rate of 0.1 with $\mu = 0.9$ moves, in the long run, as fast as a rate of 1 without. If you switch
# momentum on, start with a tenth of the rate.

# ## The optimizer
#
# Around the formula there is bookkeeping, and it is the same for every optimizer. PyTorch has settled how it looks.
# Parameters come as a list, or as a list of groups, each a dictionary with options of its own (a lower rate for the
# first layers, say). `param_groups` is that list with the defaults filled in; changing `group["lr"]` changes the next
# step. All that an optimizer remembers about a parameter is in `state`.
#
# Five things may be wrong with the list, and most of them fail silently unless we ask. An empty list (an iterator that
# has been used already) updates nothing. A parameter without a list around it would be taken apart into rows. A number
# or an array has no gradient. The *result* of an operation is a tensor, but changing it changes no parameter (`is_leaf`
# tells the two apart; it begins to matter in chapter 07). And a parameter that is given twice is updated twice.
# `parameter_groups`, in the module `groups`, asks all five questions, and refuses a negative `lr` or `weight_decay`.
#
# What does a step do? It takes the parameters that have a gradient (a parameter that played no part has none, and stays
# as it is), fetches what is remembered about each, counts the step, and updates. So the base class has `step`, and each
# optimizer defines in one method what an *update* is. (At first nothing is remembered: `nothing_remembered` is an empty
# dictionary, whose keys will be parameters.)


class Optimizer(Interface):
    """The base class. A subclass defines `update`, and names the arrays that it remembers (`memory`)."""

    memory: tuple[str, ...] = ()

    def __init__(self, params: Iterable, defaults: dict):
        self.defaults, self.param_groups = defaults, parameter_groups(params, defaults)
        self.state = nothing_remembered(self)

    def update(self, p, g, state: dict, group: dict) -> None:
        """Change p, the array of a parameter, in place: g is its gradient, `state` what is remembered about it (the
        "step", from 1, and the arrays named in `memory`, which change in place), `group` has the options."""
        raise NotImplementedError

    def first_state(self, parameter: Tensor) -> dict:
        """What is remembered before the first step: a count of 0 steps, and zeros in at least 32 bits."""
        return {"step": 0, **{name: np.zeros(parameter.shape, wide(parameter.dtype)) for name in self.memory}}

    # Two details of an update are easily overlooked. It gets the array that is about to change through `writable()`, so
    # the clock of chapter 02 ticks, and code that still relies on the old weights can notice. And floats of 16 bits are
    # too coarse to compute with: in `float16`, the square of a gradient of 300 is above the largest number. So memory
    # and gradient have at least 32 bits (`wide` gives the dtype), and a parameter in `float16` is updated in `float32`;
    # `write_back` then rounds the result into it.

    def apply_update(self, parameter: Tensor, g: np.ndarray, state: dict, group: dict) -> None:
        """Let `update` change a parameter: its array, or a copy of at least 32 bits that is then written back."""
        p = parameter.writable().astype(wide(parameter.dtype), copy=False)
        self.update(p, g, state, group)
        write_back(parameter, p)

    # A gradient must have the shape of its parameter. If it does not, something went wrong earlier, and broadcasting
    # must not hide it. So a step asks for the gradient by `gradient_of(parameter)`, which compares the shapes, and
    # returns an array. (`with_closure`, in the module `interface`, adds PyTorch's other form: `step(closure)` first
    # calls a function that computes loss and gradients, and returns the loss.)

    @with_closure
    def step(self) -> None:  # exercise
        """Apply an update to every parameter of every group that has a gradient (one that is not None). What is
        remembered about a parameter is in `self.state`, made by `first_state` before its own first step; its "step"
        counts the steps of this parameter. Raises ValueError for a gradient of another shape."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    g = gradient_of(parameter)
                    if parameter not in self.state:
                        self.state[parameter] = self.first_state(parameter)
                    self.state[parameter]["step"] += 1
                    self.apply_update(parameter, g, self.state[parameter], group)

    # After the step the gradients have done their work. If they stayed, a parameter that plays no part in the next step
    # would be updated by an old gradient, and from chapter 07 on new gradients are added to what is there.

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients: they become None, or zeros unless `set_to_none`."""
        for group in self.param_groups:
            for parameter in group["params"]:
                keep = parameter.grad is not None and not set_to_none
                parameter.grad = parameter.grad.detach().zero_() if keep else None

    # If a training is interrupted, it has to continue with the same memory, so all of it can be saved. `state_dict`
    # uses PyTorch's arrangement: parameters are numbered in the order in which they were given, and the groups are
    # saved with their options, because a scheduler may have changed them. The parameters themselves belong to the
    # model, which saves its own.
    #
    # Loading is all or nothing. Names and shapes are compared first, and only then is anything changed: half a state is
    # worse than none. Another optimizer's state is refused, because momentum means nothing to Adam. (The work is done
    # in the module `states`.)

    def state_dict(self) -> dict:
        """Copies: the memory of each parameter by its number, and the groups with numbers in place of parameters."""
        return saved_state(self.param_groups, self.state)

    def load_state_dict(self, saved: dict) -> None:
        """Take over what `state_dict` gave. Raises ValueError, before anything is changed, if groups or shapes
        differ, or if the state is that of another kind of optimizer."""
        self.state = loaded_state(self, saved)


# With that, SGD is its options and one call. (`dampening` spares the first gradient, as in PyTorch.)


class SGD(Optimizer):
    """Gradient descent with momentum, as torch.optim.SGD. Raises ValueError for options outside their ranges."""

    memory = ("momentum_buffer",)

    def __init__(
        self, params, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        refuse_negative(momentum=momentum)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"nesterov needs a momentum and no dampening; momentum is {momentum}, dampening {dampening}"
            )
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**defaults, "weight_decay": weight_decay, "nesterov": nesterov})

    def update(self, p, g, state, group):
        kept = 1.0 if state["step"] == 1 else 1 - group["dampening"]
        sgd_update(
            p, g, state["momentum_buffer"], lr=group["lr"], momentum=group["momentum"], kept=kept,
            decay=group["weight_decay"], nesterov=group["nesterov"],
        )


# ## Dividing by the usual size
#
# The other memory is a running average of squares. RMSprop (Hinton, in a lecture of 2012) forgets old squares at the
# rate $\alpha$, 0.99 say, and divides by the root:
#
# $$ v \leftarrow \alpha\, v + (1 - \alpha)\, g^2, \qquad p \leftarrow p - \eta\, \frac{g}{\sqrt v + \varepsilon} . $$
#
# Multiply all gradients by a thousand, and the steps stay the same: what counts is how large a slope is compared with
# what is usual for its parameter. The small $\varepsilon$ keeps us from dividing by zero. It is added *outside* the
# root; inside, it would be $\sqrt\varepsilon = 10^{-4}$ that competes with tiny gradients.
#
# That is half of Adam, and Adam can be set to this half, so we write it only once. (RMSprop with all of PyTorch's
# options is in the appendix *More optimizers*, beside Adagrad, from which it comes.)

# ## Adam
#
# Adam (Kingma and Ba, 2014) keeps both averages, of the gradient and of its square:
#
# $$ m \leftarrow \beta_1 m + (1 - \beta_1)\, g,
#    \quad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2,
#    \quad p \leftarrow p - \eta\, \frac{\hat m}{\sqrt{\hat v} + \varepsilon} . $$
#
# The hats are a correction. Both averages start at zero, so in the first step $m$ is only a tenth of the gradient, and
# $\sqrt v$ only $\frac{1}{32}$ of its size; their quotient would make the first step $3.16$ times too long. Dividing by
# what is missing, $\hat m = m / (1 - \beta_1^t)$ and $\hat v = v / (1 - \beta_2^t)$, makes it exactly $\eta$. The count
# $t$ starts at 1. With $\beta_1 = 0$ there is no memory of the direction, and Adam is RMSprop with the correction.
#
# Weight decay, added to the gradient as in SGD, would be divided by $\sqrt{\hat v}$ along with it, so weights with
# large gradients would hardly decay. AdamW (Loshchilov and Hutter, 2017) takes the decay out of the gradient and
# shrinks the weight itself, before the step, by the factor $1 - \eta\lambda$. `decoupled` chooses between the two.
#
# The update is the three formulas, one after the other. It is a slot again, and it changes $p$, $m$ and $v$ in place,
# as in `m *= ...` or `m[...] = ...`. After `m = ...` only a local name would know the new average.


@slot
def adam_update(p, g, m, v, *, t, lr, betas, eps, decay, decoupled):  # exercise
    """Change p and the averages m and v in place in step t, from 1, given the gradient g, which stays as it is; m and v
    are 0 before the first step. The decay shrinks the weight if `decoupled`, and is added to the gradient otherwise."""
    beta1, beta2 = betas
    if decoupled:
        p *= 1 - lr * decay
    elif decay:
        g = g + decay * p
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    p -= lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)


# What remains is to keep the two averages for each parameter, under PyTorch's names, and to hand over the options.


class Adam(Optimizer):
    """Averages of gradient and square with bias correction, as torch.optim.Adam; the decay joins the gradient."""

    memory = ("exp_avg", "exp_avg_sq")
    decoupled = False

    def __init__(
        self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        refuse_outside_unit(betas=betas)
        refuse_negative(eps=eps)
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def update(self, p, g, state, group):
        adam_update(
            p, g, state["exp_avg"], state["exp_avg_sq"], t=state["step"], lr=group["lr"], betas=group["betas"],
            eps=group["eps"], decay=group["weight_decay"], decoupled=self.decoupled,
        )


# AdamW differs in one word, and in a decay that is on by default. It took the field three years to see the word.


class AdamW(Adam):
    """Adam with weight decay taken out of the gradient and applied to the weight itself; as torch.optim.AdamW."""

    decoupled = True

    def __init__(
        self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)


# ## The witness
#
# The averages have a second form that we can compute independently: after $t$ steps $m$ is a weighted sum of all
# gradients so far, in which the $i$-th has the weight $(1 - \beta_1)\,\beta_1^{t-i}$. So a step of Adam can be written
# down without any memory, from the list of gradients.


def adam_from_all_gradients(gradients: list[float], lr: float = 1e-3) -> float:
    """How far the last of len(gradients) steps of Adam, with betas 0.9 and 0.999 and eps 1e-8, moves a weight."""
    t = len(gradients)
    m = sum(0.1 * 0.9 ** (t - i) * g for i, g in enumerate(gradients, 1)) / (1 - 0.9**t)
    v = sum(0.001 * 0.999 ** (t - i) * g * g for i, g in enumerate(gradients, 1)) / (1 - 0.999**t)
    return -lr * m / (math.sqrt(v) + 1e-8)


# The optimizer, with its memory, must come to the same numbers in each of five steps.


def check_adam_against_all_gradients():
    gradients, expected = [3.0, -1.0, 0.5, 0.0, 1e-3], 1.0
    optimizer = Adam([parameter := Parameter(np.array([1.0]))], lr=0.01)
    for t, g in enumerate(gradients, 1):
        parameter.grad = Tensor(np.array([g]))
        optimizer.step()
        expected += adam_from_all_gradients(gradients[:t], lr=0.01)
        assert math.isclose(parameter.item(), expected, rel_tol=1e-12)


# A second check needs no formula. Whatever the gradient, 4 or a millionth or $-300$, the first step of Adam has the
# length of the rate: the average of one number, divided by the root of the average of its square, is its sign. (If
# $\varepsilon$ were under the root, the millionth would come out a hundred times too short.)


def check_first_step_is_the_rate():
    p, g, options = np.zeros(3), np.array([4.0, 1e-6, -300.0]), {"decay": 0.0, "decoupled": False}
    adam_update(p, g, np.zeros(3), np.zeros(3), t=1, lr=0.1, betas=(0.9, 0.999), eps=1e-8, **options)
    assert np.allclose(p, [-0.1, -0.1, 0.1], rtol=0.02)


# ## Paths
#
# How do they walk? We take four, in pairs: SGD without momentum and with it, Adam without its first memory, the average
# of gradients, and with it.


def four_optimizers(sgd_rate: float, adam_rate: float) -> dict[str, Callable[[Iterable], Optimizer]]:
    """Makers of SGD and Adam, each without and with a memory of the direction."""
    return {
        "SGD": lambda p: SGD(p, lr=sgd_rate),
        "SGD, momentum 0.9": lambda p: SGD(p, lr=sgd_rate, momentum=0.9),
        "Adam, beta1 = 0": lambda p: Adam(p, lr=adam_rate, betas=(0.0, 0.99)),
        "Adam": lambda p: Adam(p, lr=adam_rate),
    }


# They walk in the valley of the beginning, and in one that bends: Rosenbrock's function (1960),
# $(1 - x)^2 + 100\,(y - x^2)^2$, has a flat, curved floor, and its lowest point is $(1, 1)$.


def rosenbrock(x, y):
    """Rosenbrock's banana: a curved valley with its lowest point at (1, 1)."""
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def rosenbrock_gradient(x: float, y: float) -> np.ndarray:
    """The slopes of rosenbrock in x and y."""
    return np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])


# All we need is an optimizer and a parameter with two numbers; the gradient is written by hand.


def walk(make: Callable, start=(-1.2, 1.0), steps: int = 200, gradient: Callable = rosenbrock_gradient) -> np.ndarray:
    """The path of an optimizer down the function that has this gradient, shape (steps + 1, 2)."""
    point = Parameter(np.array(start))
    optimizer, path = make([point]), [point.numpy().copy()]
    for _ in range(steps):
        point.grad = Tensor(gradient(*point.tolist()))
        optimizer.step()
        path.append(point.numpy().copy())
    return np.array(path)


# First the straight valley, where the smallest optimizer was still far up after a hundred steps. SGD has its rate.


def show_heights():
    print("height after             1       10      100      300 steps")
    for name, make in four_optimizers(sgd_rate=0.0199, adam_rate=0.1).items():
        path = walk(make, (1.0, 1.0), 300, gradient=lambda x, y: np.array([x, 100 * y]))
        print(f"{name:17s}", " ".join(f"{valley(*path[step]):8.2g}" for step in (1, 10, 100, 300)))


# With momentum the swings across cancel and the small slopes along add up, and a hundred steps end thousands of times
# lower. Dividing by the usual size works as well. In a valley that is straight and lies along the axes, it even needs
# no memory of the direction: the third row ends lowest. And the curved valley?


def show_paths():
    import matplotlib.pyplot as plt

    x, y = np.meshgrid(np.linspace(-1.6, 1.6, 200), np.linspace(-0.6, 1.8, 200))
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey=True)
    for axis, (name, make) in zip(axes.flat, four_optimizers(sgd_rate=1e-3, adam_rate=0.1).items()):
        path = walk(make)
        axis.contour(x, y, np.log10(rosenbrock(x, y) + 1e-3), levels=12, linewidths=0.6, alpha=0.5)
        axis.plot(path[:, 0], path[:, 1], ".-", markersize=3, linewidth=0.8, color="tab:red")
        axis.plot(1, 1, "*", markersize=10, color="tab:orange")
        axis.set_title(f"{name}: ends at {rosenbrock(*path[-1]):.2g}", fontsize=10)
        axis.set_ylim(-0.6, 1.8)
    figure.tight_layout()
    return figure


# Plain SGD creeps along the floor of the valley with the step that its walls allow. Momentum swings from wall to wall
# at first; then the swings cancel, the floor's small slope adds up, and it gets near the star. Both kinds of Adam go at
# the same pace in both directions, whatever the slopes. Without a memory of the direction each step follows a single
# gradient, and the path jumps; with both memories it is smooth after a few small swings. (The order of the four is an
# order of these rates, too: give Adam a larger one and look again.) None of them knows anything about bananas; the last
# three have one or two numbers of memory for each parameter.

# ## Clipping
#
# Now and then one batch gives a gradient that is a hundred times as long as usual, and one step undoes an hour.
# Clipping shortens such a gradient. It shortens *all parameters' gradients by the same factor*, computed from their
# common length; clipping each alone would change the direction.
#
# The length of all gradients together is the root of the sum of all squares, over all parameters. If it exceeds the
# limit, all are multiplied by the same number. This is a function of its own, called between the gradient and the step,
# because it is the same for every optimizer. (`norm_type` is PyTorch's: 2 for the usual length, infinity for the
# largest element; `np.linalg.norm(array, order)` knows them all.) A negative limit would turn all gradients around, and
# is refused, by `refuse_negative`, which takes numbers by name. What should happen if a gradient has overflowed, and
# the length is infinite or nan? By default nothing special, and the caller sees it in the length that is returned;
# `error_if_nonfinite` asks for an error.


def clip_grad_norm_(  # exercise
    parameters, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients in place by one factor so that their common length (the norm of order `norm_type`) is at
    most max_norm; shorter ones stay as they are. `parameters` are several, or a single tensor (`parameter_list` makes a
    list); those whose grad is None are skipped. Returns the length before, as a Tensor, which is 0 without gradients.
    Raises ValueError for a max_norm that is negative or nan, and, with `error_if_nonfinite`, RuntimeError for a length
    that is infinite or nan."""
    refuse_negative(max_norm=max_norm)
    gradients = [p.grad for p in parameter_list(parameters) if p.grad is not None]
    lengths = [np.linalg.norm(np.asarray(g.numpy(), wide(g.dtype)).ravel(), norm_type) for g in gradients]
    total = float(np.linalg.norm(np.array(lengths, np.float64), norm_type)) if lengths else 0.0
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"the gradients have length {total}; something overflowed before this step")
    factor = max_norm / (total + 1e-6)
    if not factor >= 1:
        for gradient in gradients:
            gradient.writable()[...] *= factor
    return Tensor(total)


# ## XOR, with gradients by hand
#
# Now all that we have in one program: tensors, an activation, layers, a loss, an optimizer. Only the gradients are
# missing, and those we derive on paper, from the loss backwards. With $h = \tanh(xW_1^T + b_1)$, $z = hW_2^T + b_2$ and
# $p = \sigma(z)$:
#
# $$ \bar z = \frac{p - t}{N}, \quad \bar W_2 = \bar z^T h, \quad \bar b_2 = \textstyle\sum_n \bar z_n,
#    \quad \bar a = (\bar z\, W_2)\,(1 - h^2),
#    \quad \bar W_1 = \bar a^T x, \quad \bar b_1 = \textstyle\sum_n \bar a_n . $$
#
# A bar means *the gradient with respect to*, $a$ is what goes into $\tanh$, $N$ is the number of examples, and the sums
# run over the examples, which are rows: `sum(0)`. Compare the shapes when you write the formulas as code: $\bar z$ is
# (4, 1), $h$ is (4, 4), so $\bar z^T h$ is (1, 4), which is the shape of the second weight. Shapes are the best
# proof-reader a derivation has; they do not see a sign, though.
#
# What is computed here needs no record. At the moment none is kept; a later chapter will keep one, unless the code says
# `detach()` to a tensor, or takes the `data` of a parameter.


def xor_gradients_by_hand(network: Sequential, x: Tensor, wanted: Tensor) -> float:  # exercise
    """Fill `.grad` of the four parameters of an xor_network with the gradients of its loss, in place of what was there
    before; the weights stay as they are. The layers are `network[0]` and `network[2]`. Returns the loss,
    `binary_cross_entropy_with_logits` of z at `wanted`, as a number."""
    first, _, second = network
    h = (x @ first.weight.T + first.bias).detach().tanh()
    z = (h @ second.weight.T + second.bias).detach()
    g_z = (sigmoid(z) - wanted) / len(x)
    second.weight.grad, second.bias.grad = g_z.T @ h, g_z.sum(0)
    g_a = (g_z @ second.weight.data) * (1 - h * h)
    first.weight.grad, first.bias.grad = g_a.T @ x, g_a.sum(0)
    return binary_cross_entropy_with_logits(z, wanted).item()


# The referee judges the gradients, at weights that we fix permanently, because chapter 07 will be measured against the
# same numbers. They are values of a sine, so you can write them down again; nothing in them is random, and none of them
# is zero.


def xor_case() -> tuple[Sequential, Tensor, Tensor]:
    """An xor_network with fixed float64 weights, inputs and answers: the saved case by which gradients are compared."""
    network = xor_network().double()
    for number, parameter in enumerate(network.parameters()):
        parameter.data = np.sin(np.arange(parameter.numel()) + 2.0 * number + 1).reshape(parameter.shape)
    x, wanted = xor_points()
    return network, x.double(), wanted.double()


# We compare each of the four gradients with its slope.


def check_gradients_by_hand():
    network, x, wanted = xor_case()
    xor_gradients_by_hand(network, x, wanted)
    for parameter in network.parameters():
        expected = slope(lambda: binary_cross_entropy_with_logits(network(x), wanted), parameter)
        assert np.allclose(parameter.grad.numpy(), expected, rtol=0, atol=1e-8)


# And now we let it learn, on the four points and answers that `xor_points()` returns. Loss and gradients, a step,
# forget, and again: this is the loop in which everything from here on happens.


def train_xor_by_hand(  # exercise
    make: Callable[[Iterable], Optimizer], steps: int = 500
) -> tuple[Module, list[float]]:
    """Train a new xor_network by hand-made gradients with the optimizer `make(parameters)`: `steps` times loss and
    gradients, a step, and `zero_grad`. Returns the network and the losses before each step, as a list of numbers."""
    network, (x, wanted) = xor_network(), xor_points()
    optimizer, losses = make(network.parameters()), []
    for _ in range(steps):
        losses.append(xor_gradients_by_hand(network, x, wanted))
        optimizer.step()
        optimizer.zero_grad()
    return network, losses


# We give the four optimizers the same task and the same weights to begin with, at rates that suit each.


def show_xor():
    print("loss after        0      50     100     200     499 steps")
    for name, make in four_optimizers(sgd_rate=0.5, adam_rate=0.05).items():
        manual_seed(0)
        _, losses = train_xor_by_hand(make)
        print(f"{name:17s}", "  ".join(f"{losses[i]:.4f}" for i in (0, 50, 100, 200, 499)))


# All arrive, some much sooner than others. With seventeen weights and four examples momentum is far ahead, and Adam
# gains little by its average of gradients. Another task has another order: try, and make such a table.

# ## Predict, then measure
#
# Before you run anything: six numbers that follow from the formulas. Work them out on paper; the tests measure them.


def predict_steps() -> dict[str, float]:  # exercise
    """Six predictions, each a number that is right to three digits, by name:

    "longest": the step length of plain descent above which y grows in `valley`, instead of shrinking
    "long run": how far one step of SGD(lr=1, momentum=0.9) moves a weight after very many steps with the gradient 1
    "coasting": how far the second step of SGD(lr=1, momentum=0.5) moves a weight, with the gradients 1 and then 0
    "thousand": how many times as long the first step of Adam is if the gradient is 2000 instead of 2
    "clipped": what clip_grad_norm_ with max_norm=1 makes of the gradient 4 of a parameter, beside one with gradient 3
    "memory": how many elements the arrays have in which Adam remembers something about an xor_network's 17 numbers"""
    return {
        "longest": 2 / 100,
        "long run": 1 / (1 - 0.9),
        "coasting": 0.5,
        "thousand": 1.0,
        "clipped": 4 / math.hypot(3, 4),
        "memory": 2.0 * 17,
    }


# ## The cost
#
# An optimizer does next to no arithmetic. A step of Adam reads parameter, gradient and two memories and writes three of
# them back: seven numbers of four bytes for each weight. How near do we come to that? We take ten million weights,
# beside a plain copy of an array of that size, which reads four bytes a weight and writes four.


def show_cost():
    from tt_tensor import measure

    parameter = Parameter(np.zeros(10_000_000, np.float32))
    parameter.grad = Tensor(np.full(10_000_000, 1e-3, np.float32))
    source, target, optimizer = parameter.numpy(), np.ones(10_000_000, np.float32), Adam([parameter])
    for name, job, moved in (("copy", lambda: np.copyto(target, source), 8), ("Adam", optimizer.step, 28)):
        seconds = measure(job).seconds
        rate = 10e6 * moved / seconds / 1e9
        print(f"{name}: {seconds * 1e3:6.1f} ms for {moved:2d} bytes a weight, {rate:5.1f} GB/s")


# Adam falls far short of what the memory delivers to a copy. Each operation of the formula is a trip of its own through
# memory and leaves a temporary array behind, so that far more than 28 bytes move for each weight. A formula is the
# wrong place to repair that. Chapter 15 fills the slot `adam_update` with a kernel that makes the trip once.

# ## Errors you will meet


def show_errors():
    weight = Parameter([1.0, 2.0])
    for attempt in (
        lambda: SGD([], lr=0.1), lambda: SGD([weight], lr=-0.1), lambda: Adam([weight, weight]),
        lambda: SGD([weight], nesterov=True), lambda: Adam([3.0]),
    ):
        try:
            attempt()
        except (ValueError, TypeError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# `Lion` is an optimizer found by a program search (Chen et al., 2023). It steps by the *sign* of a mixture of momentum
# and gradient: $p \leftarrow p - \eta \operatorname{sign}(\beta_1 m + (1 - \beta_1) g)$, then $m \leftarrow \beta_2 m +
# (1 - \beta_2) g$. Weight decay comes before both, as in AdamW: $p \leftarrow (1 - \eta\lambda)\, p$. It has one memory
# less than Adam.


class Lion(Optimizer):
    """Steps by the sign of a mixture of momentum and gradient; weight decay as in AdamW."""

    memory = ("momentum",)

    def __init__(self, params, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    def update(self, p, g, state, group):  # exercise (starred)
        """Change the array p in place, and its momentum, the array `state["momentum"]`, given the gradient g, which
        stays as it is; `group` has the options "lr", "betas", "weight_decay". The sign of 0 is 0."""
        lr, (beta1, beta2), momentum = group["lr"], group["betas"], state["momentum"]
        p *= 1 - lr * group["weight_decay"]
        p -= lr * np.sign(beta1 * momentum + (1 - beta1) * g)
        momentum += (1 - beta2) * (g - momentum)


def check_lion():
    parameter = Parameter([1.0, 1.0])
    parameter.grad = Tensor([3.0, -0.001])
    Lion([parameter], lr=0.25).step()
    assert parameter.tolist() == [0.75, 1.25]


# `average_weights` takes the element-by-element mean of several state dictionaries. The average of the last few steps
# often does better than the last step.


def average_weights(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:  # exercise (starred)
    """The mean of several state dictionaries with the same names; their tensors stay as they are. Raises ValueError if
    the names differ."""
    if len({tuple(s) for s in states}) != 1:
        raise ValueError("the state dictionaries have different names, or there are none")
    return {name: sum((s[name] for s in states[1:]), states[0][name]) / len(states) for name in states[0]}


def check_average_weights():
    assert average_weights([{"w": Tensor([1.0, 2.0])}, {"w": Tensor([3.0, 6.0])}])["w"].tolist() == [2.0, 4.0]


# ## A road not taken
#
# JAX's optax writes an optimizer as a pair of pure functions that map gradients and state to updates and state;
# clipping, momentum and decay are links of a chain that can be composed at will, which is lovely. PyTorch has
# `fused=True`, one compiled kernel for the whole update, which takes a fraction of the time of its default; our slot is
# the place for such a kernel. Second-order methods (Newton's, L-BFGS, Shampoo) use more than slopes; on networks they
# rarely pay for themselves.

# ## What hurts next
#
# The gradients of XOR, two layers and a loss, took six formulas, each derived on paper. They fit one network only. Add
# a layer, and there are more to derive. And if one of them is wrong? We flip the sign of the first bias's gradient.
# Nothing about it looks wrong: it has the right shape, and the other three gradients are right. Both rows start from
# the same weights, for each of five seeds. (A *hook* is a function that the optimizer calls before each step.)


def losses_with_sign(sign: int, seed: int) -> list[float]:
    """Train XOR for 100 steps with the first bias's gradient times `sign`; the loss before each step."""

    def make(parameters):
        optimizer = Adam(parameters, lr=0.05)
        bias = optimizer.param_groups[0]["params"][1]
        optimizer.register_step_pre_hook(lambda *_: setattr(bias, "grad", sign * bias.grad))
        return optimizer

    manual_seed(seed)
    return train_xor_by_hand(make, steps=100)[1]


# How do the losses of the two signs compare, at the start and after a hundred steps?


def show_flipped_sign():
    for name, sign in (("right", 1), ("flipped sign", -1)):
        runs = (losses_with_sign(sign, seed) for seed in range(5))
        print(f"{name:12s} loss", *(f" {losses[0]:.3f} -> {losses[-1]:.3f}" for losses in runs))


def check_a_flipped_sign_trains():
    assert sum(losses[-1] < losses[0] for losses in (losses_with_sign(-1, seed) for seed in range(5))) >= 3


# With the flipped sign, too, it trains for a hundred steps, the loss goes down for most seeds, and nothing complains.
# It usually just stops short, as the right gradients sometimes do. Only the referee would have noticed, and the referee
# is too slow to be asked each time. Derivatives are mechanical. A machine should do them: chapter 07, *Autograd*.

__all__ = [
    "Adam", "AdamW", "Lion", "Optimizer", "SGD", "adam_from_all_gradients", "adam_update", "average_weights",
    "clip_grad_norm_", "rosenbrock", "rosenbrock_gradient", "sgd_update", "train_xor_by_hand", "valley", "walk",
    "xor_case", "xor_gradients_by_hand",
]
