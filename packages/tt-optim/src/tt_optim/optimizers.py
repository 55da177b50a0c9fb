# # Optimizers
#
# In this chapter we write the update once, for every network: you give the parameters to an optimizer, fill in their
# gradients, and call `step()`. At the end our network learns XOR, with gradients that we derive ourselves.

# ## The hurt
#
# At the end of chapter 05 we wrote two update lines for each layer, in each program, and we saw what a forgotten line
# does: the loss stays near $\ln 2$, where it should fall to 0.01, and nothing warns us. Forgetting is not the only
# trouble. Our method, *gradient descent*, takes steps of a certain length, the *learning rate* times the slope, and one
# learning rate for all directions is a bad deal.

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from tt_optim.groups import (
    gradient_of, parameter_groups, parameter_list, refuse_negative, refuse_nesterov, refuse_outside_unit,
)
from tt_optim.interface import Interface, with_closure
from tt_optim.states import loaded_state, nothing_remembered, saved_state, wide, write_back
from tt_tensor import (
    Module, Parameter, Sequential, Tensor, binary_cross_entropy_with_logits, manual_seed, sigmoid, slot,
)
from tt_tensor.activations import xor_points
from tt_tensor.losses import slope, xor_network

# Here is a valley, a hundred times steeper across than along:


def valley(x, y):
    """Return the height of a valley with its lowest point at (0, 0)."""
    return 0.5 * (x * x + 100 * y * y)


# In such a valley the slope points almost entirely across, hardly ever along. If we go down the slope, we bounce from
# wall to wall, and the steepest wall dictates how long our steps may be, in all directions. We try three learning
# rates.


def show_hurt():
    print("learning rate   x after 100 steps   y after 100 steps   (from 1, 1)")
    for rate in (0.0201, 0.0199, 0.001):
        x, y = 1.0, 1.0
        for _ in range(100):
            x, y = x - rate * x, y - rate * 100 * y
        print(f"{rate:13g}   {x:17.3f}   {y:17.3g}")


# With 0.0201 we overshoot further in the steep direction each time. With 0.0199 we are still swinging after a hundred
# steps. With 0.001 we have hardly moved in the flat direction. A network has thousands of directions, and we do not
# know which of them are steep.

# ## The smallest thing that could work
#
# We can cure forgetting easily: one object has all parameters and does the same to each of them. If you call its
# `step`, you need not know how many parameters there are, and so you cannot forget one.
#
# Even in so little code, two details deserve your attention. We keep the parameters in a *list*, because an iterator
# would be used up after the first step. Moreover, a step must change the array that each parameter holds, its `data`,
# in place. If we wrote `parameter = parameter - ...`, we would make a new tensor, bind a local name to it, and leave
# the weight of the network alone. (`parameter.grad` is the gradient, a tensor of the same shape.)


class SmallestOptimizer:
    """Gradient descent with one learning rate for all parameters."""

    def __init__(self, parameters, rate):
        self.parameters, self.rate = list(parameters), rate

    def step(self):  # exercise
        """Change the data of every parameter in place, by -rate times its gradient."""
        for parameter in self.parameters:
            parameter.data -= self.rate * parameter.grad


# It runs, but it disappoints in the valley. We start it at (1, 1) and print how high above the lowest point it is.


def show_smallest():
    point = Parameter([1.0, 1.0])
    optimizer = SmallestOptimizer([point], rate=0.0199)
    for step in range(301):
        if step in (0, 1, 10, 100, 300):
            print(f"after {step:3d} steps: height {valley(*point.tolist()):7.4f}")
        point.grad = Tensor([1.0, 100.0]) * point.data
        optimizer.step()


# After a hundred steps for two numbers it is still far up, because it knows nothing but the slope here and now.

# ## The idea: remember
#
# Two kinds of memory help us. First, we can remember the *direction*. If successive slopes agree, we go faster; if they
# alternate, they cancel. This is *momentum*, a heavy ball that rolls down the valley. Second, we can remember the
# *size*. If we divide the slope of each parameter by how large its slopes usually are, all directions become equally
# steep. The first memory gives us SGD with momentum, the second gives us RMSprop, and both together give us Adam.
#
# We keep such memory for each parameter separately. If two parameters shared a buffer, the slopes of the first would
# push the second.

# ## SGD
#
# SGD is short for *stochastic gradient descent*: stochastic, because later we will compute the gradient from a few
# examples at a time, a *mini-batch*. With momentum $\mu$ we keep a *velocity* $b$, which the gradient $g$ pushes, and
# the parameter $p$ follows the velocity with the learning rate $\eta$:
#
# $$ b \leftarrow \mu\, b + g, \qquad p \leftarrow p - \eta\, b . $$
#
# Three options belong to it. Nesterov's variant looks one step ahead: it steps by $g + \mu b$ instead of $b$, with the
# new velocity. *Weight decay* adds $\lambda p$ to the gradient and so pulls every weight towards zero, unless the data
# insist. It is a form of *regularization*, which chapter 08 explains. PyTorch's `dampening`, which you will rarely see,
# keeps a fraction of each new gradient out of the velocity; we call the rest `kept`, or $\kappa$. All together:
#
# $$ g \leftarrow g + \lambda p, \qquad b \leftarrow \mu\, b + \kappa\, g, \qquad
#    p \leftarrow p - \eta\, (b \text{ or } g + \mu\, b), $$
#
# and without momentum simply $p \leftarrow p - \eta\, g$.
#
# We write the update as a function on arrays. It is a *slot* (chapter 02), so that we can exchange its kernel. It
# changes `p` and `velocity` in place, because the next step must find the new velocity there. The gradient belongs to
# the caller and must not change: for the first arrow we make a new array, which may have the old name.


@slot
def sgd_update(p, g, velocity, *, lr, momentum, kept, decay, nesterov):  # exercise
    """Change p and its velocity in place, given the gradient g, which must not change, and of which a fraction `kept`
    joins the velocity. The weight decay is added to the gradient first. Without momentum (0) the step goes by the
    gradient, and the velocity does not change."""
    if decay:
        g = g + decay * p
    if momentum:
        velocity *= momentum
        velocity += kept * g
        g = g + momentum * velocity if nesterov else velocity
    p -= lr * g


# How fast does the ball become? Under a constant slope $g$ the velocity after $t$ steps is $g\,(1 + \mu + \dots +
# \mu^{t-1})$, a geometric sum, and it approaches $g / (1 - \mu)$: ten times the slope for $\mu = 0.9$. Alternating
# slopes, in contrast, cancel. So in the long run we move as fast with a learning rate of 0.1 and $\mu = 0.9$ as with a
# learning rate of 1 without momentum. If you switch momentum on, start with a tenth of the learning rate.

# ## The optimizer
#
# Around the formula we need some bookkeeping, which is the same for every optimizer, and for which we follow PyTorch.
# You pass the parameters as a list, or as a list of groups. Each group is a dictionary with options of its own, such as
# a lower learning rate for the first layers. `param_groups` is that list with the defaults filled in; if you change
# `group["lr"]`, you change the next step. Everything that an optimizer remembers about a parameter is in `state`.
#
# Five things may be wrong with the list, and most of them would fail silently. An empty list (an iterator that has been
# used already) updates nothing. A parameter without a list around it would be taken apart into rows. A number or an
# array has no gradient. The *result* of an operation is a tensor, but changing it changes no parameter (`is_leaf`
# distinguishes the two; it begins to matter in chapter 07). A parameter that you pass twice is updated twice.
# `parameter_groups`, in the module `groups`, checks all five, and refuses a negative `lr` or `weight_decay`.
#
# What does a step do? It takes the parameters that have a gradient, since a parameter that played no part has none and
# must not change. For each of them it fetches the memory, counts the step, and updates. So we give `step` to the base
# class, and each optimizer defines in one method what an *update* is. (`nothing_remembered` is an empty dictionary,
# whose keys will be parameters.)


class Optimizer(Interface):
    """The base class of all optimizers. A subclass defines `update`, and names the arrays that it remembers
    (`memory`)."""

    memory: tuple[str, ...] = ()

    def __init__(self, params: Iterable, defaults: dict):
        self.defaults, self.param_groups = defaults, parameter_groups(params, defaults)
        self.state = nothing_remembered(self)

    def update(self, p, g, state: dict, group: dict) -> None:
        """Change p, the array of a parameter, in place: g is its gradient, `state` is its memory (the "step", from 1,
        and the arrays named in `memory`, which change in place), `group` has the options."""
        raise NotImplementedError

    def first_state(self, parameter: Tensor) -> dict:
        """Return the memory before the first step: a count of 0 steps, and zeros in at least 32 bits."""
        return {"step": 0, **{name: np.zeros(parameter.shape, wide(parameter.dtype)) for name in self.memory}}

    # You could easily overlook two details of an update. First, we get the array that is about to change through
    # `writable()`, so that the clock of chapter 02 ticks; chapter 07 will use that to notice that old weights are still
    # needed. Second, floats of 16 bits are too coarse for our sums: in `float16` the square of a gradient of 300 is
    # above the largest number. So memory and gradient have at least 32 bits (`wide` gives the dtype). We update a
    # parameter in `float16` as a copy in `float32`, and `write_back` rounds the result into it.

    def apply_update(self, parameter: Tensor, g: np.ndarray, state: dict, group: dict) -> None:
        """Let `update` change a parameter: its array, or a copy of at least 32 bits that is then written back."""
        p = parameter.writable().astype(wide(parameter.dtype), copy=False)
        self.update(p, g, state, group)
        write_back(parameter, p)

    # A gradient must have the shape of its parameter. If it does not, something went wrong earlier, and broadcasting
    # must not hide it. So we get the gradient by `gradient_of(parameter)`, which compares the shapes and returns an
    # array. (`with_closure`, in the module `interface`, adds PyTorch's other form: `step(closure)` first calls a
    # function that computes the loss and the gradients, and returns the loss.)

    @with_closure
    def step(self) -> None:  # exercise
        """Apply an update to every parameter of every group that has a gradient (one that is not None). The memory of a
        parameter is in `self.state`, made by `first_state` before its own first step; its "step" counts the steps of
        this parameter. Raises ValueError for a gradient of another shape."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    g = gradient_of(parameter)
                    if parameter not in self.state:
                        self.state[parameter] = self.first_state(parameter)
                    self.state[parameter]["step"] += 1
                    self.apply_update(parameter, g, self.state[parameter], group)

    # After the step the gradients have done their work. If we kept them, we would update a parameter that plays no part
    # in the next step by an old gradient. From chapter 07 on, we would even add the new gradients to the old ones.

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set all gradients to None, or to zeros unless `set_to_none`."""
        for group in self.param_groups:
            for parameter in group["params"]:
                keep = parameter.grad is not None and not set_to_none
                parameter.grad = parameter.grad.detach().zero_() if keep else None

    # If a training is interrupted, it must continue with the same memory, so we can save all of it. `state_dict` uses
    # PyTorch's arrangement. It numbers the parameters in the order in which you passed them, and saves the groups with
    # their options, because a scheduler may have changed them. The parameters themselves belong to the model, which
    # saves its own.
    #
    # We load all or nothing. First we compare names and shapes, and only then do we change anything, because half a
    # state is worse than none. We refuse the state of another optimizer, because momentum means nothing to Adam. (The
    # module `states` does the work.)

    def state_dict(self) -> dict:
        """Return copies: the memory of each parameter by its number, and the groups with numbers in place of
        parameters."""
        return saved_state(self.param_groups, self.state)

    def load_state_dict(self, saved: dict) -> None:
        """Load the memory and options that `state_dict` returned. Raises ValueError, before anything is changed, if
        groups or shapes differ, or if the state is that of another kind of optimizer."""
        self.state = loaded_state(self, saved)


# With that base class, SGD consists of its options and one call. (`dampening` spares the first gradient, as in
# PyTorch.)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch.optim.SGD. Raises ValueError for options outside their
    ranges."""

    memory = ("momentum_buffer",)

    def __init__(
        self, params, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        refuse_negative(momentum=momentum)
        if nesterov:
            refuse_nesterov(momentum, dampening)
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
# The other memory is a running average of squares. RMSprop (Hinton, in a lecture of 2012) multiplies the old average by
# $\alpha$, 0.99 say, in each step, and divides the gradient by the square root of the new one:
#
# $$ v \leftarrow \alpha\, v + (1 - \alpha)\, g^2, \qquad p \leftarrow p - \eta\, \frac{g}{\sqrt v + \varepsilon} . $$
#
# If you multiply all gradients by a thousand, the steps do not change, because only the size of a slope compared with
# the usual slopes of its parameter counts. The small $\varepsilon = 10^{-8}$ keeps us from dividing by zero. We add it
# *outside* the root. Inside the root, $\sqrt\varepsilon = 10^{-4}$ would compete with tiny gradients.
#
# This is half of Adam, and we can set Adam to this half, so we write it only once. (You find RMSprop with all of
# PyTorch's options in the appendix *More optimizers*, beside Adagrad, from which it comes.)

# ## Adam
#
# Adam (Kingma and Ba, 2014) keeps both averages, of the gradient and of its square:
#
# $$ m \leftarrow \beta_1 m + (1 - \beta_1)\, g,
#    \quad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2,
#    \quad p \leftarrow p - \eta\, \frac{\hat m}{\sqrt{\hat v} + \varepsilon} . $$
#
# The hats are a correction, which we can derive. Both averages start at zero, so they are too small at first. How much
# too small? We insert the formula for $m$ into itself, back to the first step, and find a weighted sum of all
# gradients:
#
# $$ m_t = (1 - \beta_1) \sum_{i=1}^{t} \beta_1^{t-i}\, g_i . $$
#
# In an average the weights must add up to 1. Ours add up to a geometric sum,
#
# $$ (1 - \beta_1) \sum_{i=1}^{t} \beta_1^{t-i} = (1 - \beta_1)\, \frac{1 - \beta_1^t}{1 - \beta_1}
#    = 1 - \beta_1^t , $$
#
# which is too little by $\beta_1^t$, the weight of the zero that we started from. So we divide by it, and do the same
# for $v$:
#
# $$ \hat m_t = \frac{m_t}{1 - \beta_1^t}, \qquad \hat v_t = \frac{v_t}{1 - \beta_2^t} . $$
#
# This is Adam's *bias correction*. It matters most in the first step, where $t = 1$. With $\beta_1 = 0.9$ and $\beta_2
# = 0.999$, $m$ is only a tenth of the gradient and $\sqrt v$ only $\frac{1}{32}$ of its size. Without the correction
# the first step would be $0.1 / \sqrt{0.001} = 3.16$ times too long. With it, the first step is $\eta$ long (up to the
# effect of $\varepsilon$). With $\beta_1 = 0$ there is no memory of the direction, and Adam is RMSprop with bias
# correction.
#
# What about weight decay? If we added it to the gradient, as in SGD, we would divide it by $\sqrt{\hat v}$ as well, and
# weights with large gradients would hardly decay. AdamW (Loshchilov and Hutter, 2017) takes the decay out of the
# gradient and shrinks the weight itself, before the step, by the factor $1 - \eta\lambda$. `decoupled` chooses between
# the two.
#
# Our update is the three formulas, one after the other. It is a slot again, and it changes $p$, $m$ and $v$ in place,
# as in `m *= ...` or `m[...] = ...`. After `m = ...` only a local name would know the new average.


@slot
def adam_update(p, g, m, v, *, t, lr, betas, eps, decay, decoupled):  # exercise
    """Change p and the averages m and v in place in step t, from 1, given the gradient g, which must not change; m and
    v are 0 before the first step. The decay shrinks the weight if `decoupled`, and is added to the gradient
    otherwise."""
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


# It remains to keep the two averages for each parameter, under PyTorch's names, and to pass the options.


class Adam(Optimizer):
    """Averages of gradient and square with bias correction, as torch.optim.Adam; the decay joins the gradient."""

    memory = ("exp_avg", "exp_avg_sq")
    decoupled = False

    def __init__(self, params, lr: float = 1e-3, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0):
        refuse_outside_unit(betas=betas)
        refuse_negative(eps=eps)
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def update(self, p, g, state, group):
        adam_update(
            p, g, state["exp_avg"], state["exp_avg_sq"], t=state["step"], lr=group["lr"], betas=group["betas"],
            eps=group["eps"], decay=group["weight_decay"], decoupled=self.decoupled,
        )


# AdamW differs in one word, and in a weight decay that is on by default. It took the field three years to see the word.


class AdamW(Adam):
    """Adam with weight decay taken out of the gradient and applied to the weight itself; as torch.optim.AdamW."""

    decoupled = True

    def __init__(self, params, lr: float = 1e-3, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2):
        super().__init__(params, lr, betas, eps, weight_decay)


# ## The witness
#
# In the derivation we found a second form of the averages: after $t$ steps $m$ is a sum over all gradients so far, in
# which the $i$-th has the weight $(1 - \beta_1)\,\beta_1^{t-i}$. With it we can compute a step of Adam from the list of
# gradients, without any memory. That makes an independent witness.


def adam_from_all_gradients(gradients: list[float], lr: float = 1e-3) -> float:
    """Return how far the last of len(gradients) steps of Adam, with its default options, moves a weight."""
    t = len(gradients)
    m = sum(0.1 * 0.9 ** (t - i) * g for i, g in enumerate(gradients, 1)) / (1 - 0.9**t)
    v = sum(0.001 * 0.999 ** (t - i) * g * g for i, g in enumerate(gradients, 1)) / (1 - 0.999**t)
    return -lr * m / (math.sqrt(v) + 1e-8)


# Our optimizer, with its memory, must produce the same numbers in each of five steps.


def check_adam_against_all_gradients():
    gradients, expected = [3.0, -1.0, 0.5, 0.0, 1e-3], 1.0
    optimizer = Adam([parameter := Parameter(np.array([1.0]))], lr=0.01)
    for t, g in enumerate(gradients, 1):
        parameter.grad = Tensor(np.array([g]))
        optimizer.step()
        expected += adam_from_all_gradients(gradients[:t], lr=0.01)
        assert math.isclose(parameter.item(), expected, rel_tol=1e-12)


# For a second check we need no formula. Whatever the gradient, 4 or a millionth or $-300$, the first step of Adam is as
# long as the learning rate, because the average of one number, divided by the root of the average of its square, is the
# sign of the number. (If $\varepsilon$ were under the root, the step for the millionth would be a hundred times too
# short.)


def check_first_step_is_the_rate():
    p, g, options = np.zeros(3), np.array([4.0, 1e-6, -300.0]), {"decay": 0.0, "decoupled": False}
    adam_update(p, g, np.zeros(3), np.zeros(3), t=1, lr=0.1, betas=(0.9, 0.999), eps=1e-8, **options)
    assert np.allclose(p, [-0.1, -0.1, 0.1], rtol=0.02)


# ## Paths
#
# How do our optimizers walk? We compare four, in two pairs: SGD without momentum and with it, and Adam without its
# first memory, the average of gradients, and with it.


def four_optimizers(sgd_rate: float, adam_rate: float) -> dict[str, Callable[[Iterable], Optimizer]]:
    """Return functions that make SGD and Adam, each without and with a memory of the direction."""
    return {
        "SGD": lambda p: SGD(p, lr=sgd_rate),
        "SGD, momentum 0.9": lambda p: SGD(p, lr=sgd_rate, momentum=0.9),
        "Adam, beta1 = 0": lambda p: Adam(p, lr=adam_rate, betas=(0.0, 0.99)),
        "Adam": lambda p: Adam(p, lr=adam_rate),
    }


# They walk in the valley of the beginning, and in one that bends. Rosenbrock's function (1960),
# $(1 - x)^2 + 100\,(y - x^2)^2$, has a flat, curved floor, and its lowest point is $(1, 1)$.


def rosenbrock(x, y):
    """Return the height of Rosenbrock's banana, a curved valley with its lowest point at (1, 1)."""
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def rosenbrock_gradient(x: float, y: float) -> np.ndarray:
    """Return the slopes of rosenbrock in x and y."""
    return np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])


# All we need is an optimizer and a parameter with two elements. We have written the gradient by hand.


def walk(make: Callable, start=(-1.2, 1.0), steps: int = 200, gradient: Callable = rosenbrock_gradient) -> np.ndarray:
    """Return the path of an optimizer down the function that has this gradient, shape (steps + 1, 2)."""
    point = Parameter(np.array(start))
    optimizer, path = make([point]), [point.numpy().copy()]
    for _ in range(steps):
        point.grad = Tensor(gradient(*point.tolist()))
        optimizer.step()
        path.append(point.numpy().copy())
    return np.array(path)


# We begin with the straight valley, where our smallest optimizer was still far up after a hundred steps. SGD gets the
# same learning rate.


def show_heights():
    print("height after             1       10      100      300 steps")
    for name, make in four_optimizers(sgd_rate=0.0199, adam_rate=0.1).items():
        path = walk(make, (1.0, 1.0), 300, gradient=lambda x, y: np.array([x, 100 * y]))
        print(f"{name:17s}", " ".join(f"{valley(*path[step]):8.2g}" for step in (1, 10, 100, 300)))


# With momentum the swings across cancel and the small slopes along add up, so after a hundred steps we are thousands of
# times lower. Dividing by the usual size works as well. In a straight valley along the axes it does not even need a
# memory of the direction: the third row ends lowest. What happens in the curved valley?


def show_paths():
    """Rosenbrock's function with the paths of SGD and Adam, each without and with memory of the direction."""
    import matplotlib.pyplot as plt

    x, y = np.meshgrid(np.linspace(-1.6, 1.6, 200), np.linspace(-0.6, 1.8, 200))
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey=True)
    for axis, (name, make) in zip(axes.flat, four_optimizers(sgd_rate=1e-3, adam_rate=0.1).items()):
        path = walk(make)
        axis.contour(x, y, np.log10(rosenbrock(x, y) + 1e-3), levels=12, linewidths=0.6, alpha=0.5)
        axis.plot(path[:, 0], path[:, 1], ".-", markersize=3, linewidth=0.8, color="tab:red")
        axis.plot(1, 1, "*", markersize=10, color="tab:orange")
        axis.set_title(f"{name}: ends at {rosenbrock(*path[-1]):.2g}", fontsize=10)
    axes[0, 0].set_ylim(-0.6, 1.8)
    figure.tight_layout()
    return figure


# Plain SGD creeps along the floor of the valley with the short steps that its walls allow. With momentum it swings from
# wall to wall at first. Then the swings cancel, the small slope of the floor adds up, and we get near the star. Both
# kinds of Adam move at the same pace in both directions, whatever the slopes. Without a memory of the direction each
# step follows a single gradient, and the path jumps. With both memories it is smooth after a few small swings.
#
# Do not read the picture as a ranking, because the order depends on our learning rates, too: give Adam a larger one and
# look again. None of the four knows anything about bananas. The last three only remember one or two numbers for each
# parameter.

# ## Clipping
#
# Now and then a mini-batch gives us a gradient that is a hundred times as long as usual, and one step undoes an hour.
# *Gradient clipping* shortens such a gradient. It shortens *the gradients of all parameters by the same factor*, which
# we compute from their common length, because clipping each alone would change the direction.
#
# The length of all gradients together is the root of the sum of all squares, over all parameters. If it exceeds the
# limit, we multiply all gradients by the same number. We write this as a function of its own, which you call between
# the gradient and the step, because it is the same for every optimizer. (`norm_type` is PyTorch's: 2 for the usual
# length, infinity for the largest element; `np.linalg.norm(array, order)` knows them all.)
#
# A negative limit would reverse all gradients, so we pass it by name to `refuse_negative`, which refuses it.
# If a gradient has overflowed, the length is infinite or nan. By default we do nothing special, and you see it in the
# length that we return. With `error_if_nonfinite` you get an error instead.


def clip_grad_norm_(  # exercise
    parameters, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients in place by one factor so that their common length (the norm of order `norm_type`) is at
    most max_norm; shorter ones do not change. `parameters` are several, or a single tensor (`parameter_list` makes a
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
# Now we combine all that we have in one program: tensors, an activation, layers, a loss, an optimizer. Only the
# gradients are missing, and we derive those on paper, from the loss backwards. With $h = \tanh(xW_1^T + b_1)$, $z =
# hW_2^T + b_2$ and $p = \sigma(z)$:
#
# $$ \bar z = \frac{p - t}{N}, \quad \bar W_2 = \bar z^T h, \quad \bar b_2 = \textstyle\sum_n \bar z_n,
#    \quad \bar a = (\bar z\, W_2)\,(1 - h^2),
#    \quad \bar W_1 = \bar a^T x, \quad \bar b_1 = \textstyle\sum_n \bar a_n . $$
#
# A bar means *the gradient with respect to*, $a$ is the input of $\tanh$, $N$ is the number of examples, and the sums
# run over the examples, which are rows: `sum(0)`. Compare the shapes when you write the formulas as code: $\bar z$ is
# (4, 1) and $h$ is (4, 4), so $\bar z^T h$ is (1, 4), which is the shape of the second weight. Shapes are the best
# proof-reader a derivation has, although they do not see a sign.
#
# You need not record these computations. At the moment nothing records them anyway. Chapter 07 will, unless you call
# `detach()` on a tensor or take the `data` of a parameter.


def xor_gradients_by_hand(network: Sequential, x: Tensor, wanted: Tensor) -> float:  # exercise
    """Fill `.grad` of the four parameters of an xor_network with the gradients of its loss, replacing any earlier
    gradients; the weights do not change. The layers are `network[0]` and `network[2]`. Returns the loss,
    `binary_cross_entropy_with_logits` of z at `wanted`, as a number."""
    first, _, second = network
    h = (x @ first.weight.T + first.bias).detach().tanh()
    z = (h @ second.weight.T + second.bias).detach()
    g_z = (sigmoid(z) - wanted) / len(x)
    second.weight.grad, second.bias.grad = g_z.T @ h, g_z.sum(0)
    g_a = (g_z @ second.weight.data) * (1 - h * h)
    first.weight.grad, first.bias.grad = g_a.T @ x, g_a.sum(0)
    return binary_cross_entropy_with_logits(z, wanted).item()


# The referee judges our gradients, at weights that we fix permanently, because we will measure chapter 07 against the
# same numbers. They are values of a sine, so you can reproduce them. Nothing in them is random, and none of them is
# zero.


def xor_case() -> tuple[Sequential, Tensor, Tensor]:
    """Return an xor_network with fixed float64 weights, inputs and answers: the case on which we compare gradients."""
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


# Now we let the network learn, on the four points and answers that `xor_points()` returns. We compute the loss and the
# gradients, make a step, forget the gradients, and repeat. Everything from here on happens in this loop.


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


# We give the four optimizers the same task and the same initial weights, with learning rates that suit each.


def show_xor():
    print("loss after        0      50     100     200     499 steps")
    for name, make in four_optimizers(sgd_rate=0.5, adam_rate=0.05).items():
        manual_seed(0)
        _, losses = train_xor_by_hand(make)
        print(f"{name:17s}", "  ".join(f"{losses[i]:.4f}" for i in (0, 50, 100, 200, 499)))


# All four arrive, some much sooner than others. With seventeen parameters and four examples momentum is far ahead, and
# Adam gains little by its average of gradients. Another task has another order: try one, and make such a table.

# ## Predict, then measure
#
# Before you run anything, predict six numbers that follow from our formulas. Work them out on paper; the tests measure
# them.


def predict_steps() -> dict[str, float]:  # exercise
    """Return six predictions, each a number that is right to three digits, by name:

    "longest": the step length of plain descent above which y grows in `valley`, instead of shrinking
    "long run": how far one step of SGD(lr=1, momentum=0.9) moves a weight after very many steps with the gradient 1
    "coasting": how far the second step of SGD(lr=1, momentum=0.5) moves a weight, with the gradients 1 and then 0
    "thousand": how many times as long the first step of Adam is if the gradient is 2000 instead of 2
    "clipped": what the gradient 4 of a parameter becomes under clip_grad_norm_ with max_norm=1, beside one with
        gradient 3
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
# An optimizer does next to no arithmetic. A step of Adam reads the parameter, the gradient and two averages, and writes
# three of them back: seven numbers of four bytes for each weight. How near do we come to that? We take ten million
# weights, and compare with a plain copy of an array of that size, which reads four bytes a weight and writes four.


def show_cost():
    from tt_tensor import measure

    parameter = Parameter(np.zeros(10_000_000, np.float32))
    parameter.grad = Tensor(np.full(10_000_000, 1e-3, np.float32))
    source, target, optimizer = parameter.numpy(), np.ones(10_000_000, np.float32), Adam([parameter])
    for name, job, moved in (("copy", lambda: np.copyto(target, source), 8), ("Adam", optimizer.step, 28)):
        seconds = measure(job).seconds
        rate = 10e6 * moved / seconds / 1e9
        print(f"{name}: {seconds * 1e3:6.1f} ms for {moved:2d} bytes a weight, {rate:5.1f} GB/s")


# Our Adam falls far short of what the memory delivers to a copy. Each operation of the formula is a trip of its own
# through memory and leaves a temporary array behind, so that far more than 28 bytes move for each weight. The formula
# is the wrong place to repair that. In chapter 15 we fill the slot `adam_update` with a kernel that makes the trip
# once.

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
# 1. `Lion`, with a star. A program search found this optimizer (Chen et al., 2023). It steps by the *sign* of a mixture
#    of momentum and gradient.
# 2. `average_weights`, with a star: the element-by-element mean of several state dictionaries.
#
# The update of Lion is $p \leftarrow p - \eta \operatorname{sign}(\beta_1 m + (1 - \beta_1) g)$, then $m \leftarrow
# \beta_2 m + (1 - \beta_2) g$. Weight decay comes before both, as in AdamW: $p \leftarrow (1 - \eta\lambda)\, p$. Lion
# has one memory less than Adam.


class Lion(Optimizer):
    """Steps by the sign of a mixture of momentum and gradient; weight decay as in AdamW."""

    memory = ("momentum",)

    def __init__(self, params, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    def update(self, p, g, state, group):  # exercise (starred)
        """Change the array p in place, and its momentum, the array `state["momentum"]`, given the gradient g, which
        must not change; `group` has the options "lr", "betas", "weight_decay". The sign of 0 is 0."""
        lr, (beta1, beta2), momentum = group["lr"], group["betas"], state["momentum"]
        p *= 1 - lr * group["weight_decay"]
        p -= lr * np.sign(beta1 * momentum + (1 - beta1) * g)
        momentum += (1 - beta2) * (g - momentum)


def check_lion():
    parameter = Parameter([1.0, 1.0])
    parameter.grad = Tensor([3.0, -0.001])
    Lion([parameter], lr=0.25).step()
    assert parameter.tolist() == [0.75, 1.25]


# Why would we average the weights of several steps? Because the steps scatter around the lowest point, their average is
# often nearer to it than the last step.


def average_weights(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:  # exercise (starred)
    """Return the mean of several state dictionaries with the same names; their tensors do not change. Raises ValueError
    if the names differ."""
    if len({tuple(s) for s in states}) != 1:
        raise ValueError("the state dictionaries have different names, or there are none")
    return {name: sum((s[name] for s in states[1:]), states[0][name]) / len(states) for name in states[0]}


def check_average_weights():
    assert average_weights([{"w": Tensor([1.0, 2.0])}, {"w": Tensor([3.0, 6.0])}])["w"].tolist() == [2.0, 4.0]


# ## A road not taken
#
# JAX's optax writes an optimizer as a pair of pure functions that map gradients and state to updates and state.
# Clipping, momentum and decay are links of a chain that you can compose at will, which is lovely. PyTorch has
# `fused=True`, one compiled kernel for the whole update, which takes a fraction of the time of its default; our slot is
# the place for such a kernel. Second-order methods (Newton's, L-BFGS, Shampoo) use more than slopes, but on networks
# they rarely pay for themselves.

# ## What hurts next
#
# For the gradients of XOR, two layers and a loss, we needed six formulas, each derived on paper. They fit one network
# only. If you add a layer, there are more to derive. What if one of them is wrong? We flip the sign of the gradient of
# the first bias. Nothing about it looks wrong: it has the right shape, and the other three gradients are right. Does
# anything warn us? One run could be luck, so we train twenty times, with the right and with the flipped sign, each time
# from the same weights. (A *hook* is a function that the optimizer calls before each step.)


def losses_with_sign(sign: int, seed: int) -> list[float]:
    """Train XOR for 100 steps with the gradient of the first bias times `sign`; return the loss before each step."""

    def make(parameters):
        optimizer = Adam(parameters, lr=0.05)
        bias = optimizer.param_groups[0]["params"][1]
        optimizer.register_step_pre_hook(lambda *_: setattr(bias, "grad", sign * bias.grad))
        return optimizer

    manual_seed(seed)
    return train_xor_by_hand(make, steps=100)[1]


# We count how often the loss falls, and print the median of the losses before and after.


def show_flipped_sign():
    for name, sign in (("right", 1), ("flipped sign", -1)):
        first, last = np.array([losses_with_sign(sign, seed) for seed in range(20)])[:, [0, -1]].T
        print(f"{name:12s} falls in {(last < first).sum()} of 20 runs, from {np.median(first):.3f} (median)", end=" ")
        print(f"to {np.median(last):.3f}; the runs end between {last.min():.3f} and {last.max():.3f}")


# With the flipped sign, too, the network trains: in nearly every run the loss falls, and nothing complains. It only
# stops short. The median run ends twenty times as high as with the right gradients. But you cannot see that in a single
# run, because the two ranges overlap: the worst run with the right sign ends higher than most runs with the wrong one.


def check_a_flipped_sign_trains():
    assert sum(losses[-1] < losses[0] for losses in (losses_with_sign(-1, seed) for seed in range(5))) >= 3


# Only the referee would have noticed, and it is too slow for every step. Derivatives are mechanical, so a machine
# should compute them: chapter 07, *Autograd*.

__all__ = [
    "Adam", "AdamW", "Lion", "Optimizer", "SGD", "adam_from_all_gradients", "adam_update", "average_weights",
    "clip_grad_norm_", "rosenbrock", "rosenbrock_gradient", "sgd_update", "train_xor_by_hand", "valley", "walk",
    "xor_case", "xor_gradients_by_hand",
]
