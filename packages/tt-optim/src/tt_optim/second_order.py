# # Second order
#
# An appendix of chapter 06. We build L-BFGS, an optimizer that learns from its own steps how the valley is curved.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tt_optim.groups import gradient_of
from tt_optim.interface import evaluate
from tt_optim.optimizers import Optimizer, rosenbrock, rosenbrock_gradient
from tt_optim.states import wide
from tt_tensor import Parameter, Tensor, quiet

# ## What L-BFGS remembers
#
# Newton's method divides the gradient by the *curvature*, the matrix of second derivatives (the *Hessian*). In a valley
# whose walls are parabolas it reaches the lowest point in one step. For a million weights, however, that matrix has
# $10^{12}$ elements. But we see curvature whenever we walk: if a step $s$ changed the gradient by $y$, the matrix maps
# $s$ to $y$. L-BFGS (Nocedal, 1980) remembers the last hundred such pairs and nothing else. With two passes over the
# pairs we can multiply a gradient by an inverse matrix that agrees with all of them, without ever writing the matrix
# down.
#
# A step that was longer than the curvature allows would put nonsense into the pairs. So we accept a pair only if $y$
# and $s$ point in similar directions. The noise of mini-batches breaks that, too, because two gradients from different
# batches differ because of the batches. Use L-BFGS for problems that you can compute whole.


def two_passes(gradient: np.ndarray, steps: list, changes: list, inverses: list, scale: float) -> np.ndarray:
    """Return the direction -H g, where H is `scale` times the identity, corrected so that it maps each change y of the
    gradient (newest last) to the step s that made it; `inverses` are the numbers 1 / (y . s)."""
    direction, shares = -gradient, []
    for s, y, inverse in zip(reversed(steps), reversed(changes), reversed(inverses)):
        shares.append(s.dot(direction) * inverse)
        direction -= shares[-1] * y
    direction *= scale
    for s, y, inverse in zip(steps, changes, inverses):
        direction += (shares.pop() - y.dot(direction) * inverse) * s
    return direction


# We check it on a parabola with curvatures 1 and 100, after two steps that have seen both. The direction must lead to
# the lowest point.


def check_two_passes_are_newtons_step():
    curvature, point = np.array([1.0, 100.0]), np.array([3.0, -2.0])
    steps = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    changes = [curvature * s for s in steps]
    direction = two_passes(curvature * point, steps, changes, [1.0, 0.01], 1.0)
    assert np.allclose(point + direction, 0)


# ## How far to go
#
# The direction is good, but its length is only nearly right. With `line_search_fn="strong_wolfe"` we look along the
# direction for a point that satisfies two conditions of Wolfe: the loss has fallen by a fraction of what the slope
# promised, and the slope itself has become much flatter. We describe a point on the line by its distance, its loss, its
# gradient and its slope.


class Point(NamedTuple):
    """A point on the line along which we search."""

    t: float
    loss: float
    gradient: np.ndarray
    slope: float


# These are the two conditions:

ENOUGH, FLAT = 1e-4, 0.9  # of the promised fall; of the first slope


def _fell_too_little(point: Point, start: Point) -> bool:
    return point.loss > start.loss + ENOUGH * point.t * start.slope


def _is_flat(point: Point, start: Point) -> bool:
    return abs(point.slope) <= -FLAT * start.slope


# Two points with their losses and slopes determine a polynomial of degree 3. We try its lowest point next, kept between
# bounds. If the polynomial has none, we take the middle.


def lowest_of_cubic(a: Point, b: Point, lowest: float, highest: float) -> float:
    """Return where the cubic through two points, with their slopes, is lowest between two bounds."""
    a, b = (a, b) if a.t <= b.t else (b, a)
    with quiet():
        d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
        square = d1**2 - a.slope * b.slope
        if not square >= 0:
            return (lowest + highest) / 2
        d2 = np.sqrt(square)
        t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
        return min(max(t, lowest), highest)


# We search in two phases. First we move further out, until the point is good or the lowest point must be between the
# last two. We return the pair, and how many points we have evaluated.


def bracket(at: Callable[[float], Point], start: Point, t: float, most: int) -> tuple[list[Point], int]:
    """Return two points between which there is a good one, or a single good one; and how many were evaluated after the
    first. Ends after `most` of them."""
    before, point = start, at(t)
    for count in range(most):
        if _fell_too_little(point, start) or (count > 1 and point.loss >= before.loss):
            return [before, point], count
        if _is_flat(point, start):
            return [point], count
        if point.slope >= 0:
            return [before, point], count
        further = lowest_of_cubic(before, point, point.t + 0.01 * (point.t - before.t), point.t * 10)
        before, point = point, at(further)
    return [start, point], most


# Then we narrow the pair. We keep the lower of the two points until we find a lower one. If a point is too near to one
# end twice in a row, we make no progress, so we move it inside by a tenth.


def _next_between(a: Point, b: Point, was_near: bool) -> tuple[float, bool]:
    left, right = sorted((a.t, b.t))
    t, margin = lowest_of_cubic(a, b, left, right), 0.1 * (right - left)
    if min(right - t, t - left) >= margin:
        return t, False
    if was_near or t >= right or t <= left:
        return (right - margin if abs(t - right) < abs(t - left) else left + margin), False
    return t, True


# The second phase ends at a good point, after too many points, or when the pair is so narrow that moving on is
# pointless.


def strong_wolfe(
    at: Callable[[float], Point], start: Point, t: float, reach: float, tolerance: float, most: int
) -> tuple[Point, int]:
    """Return a point on a line with a much lower loss and a much flatter slope than `start`, and how many points were
    evaluated: at(t) is the point at distance t, `reach` the largest element of the direction. Ends after `most`."""
    pair, count = bracket(at, start, t, most)
    done, near, low = len(pair) == 1, False, int(pair[-1].loss < pair[0].loss)
    while not done and count < most and abs(pair[1].t - pair[0].t) * reach >= tolerance:
        t, near = _next_between(pair[0], pair[1], near)
        point, count = at(t), count + 1
        if _fell_too_little(point, start) or point.loss >= pair[low].loss:
            pair[1 - low] = point
            low = int(pair[1].loss < pair[0].loss)
        else:
            done = _is_flat(point, start)
            if not done and point.slope * (pair[1 - low].t - pair[low].t) >= 0:
                pair[1 - low] = pair[low]
            pair[low] = point
    return pair[0 if len(pair) == 1 else low], count + 1


# ## The optimizer
#
# One step of L-BFGS makes up to `max_iter` moves, each of which needs new losses and gradients. So you must pass a
# *closure* to `step`: a function that forgets the gradients, computes the loss, calls `backward`, and returns the loss.
# We treat all parameters together as one long vector. Its memory has PyTorch's names and belongs to the first
# parameter.


class LBFGS(Optimizer):
    """Makes quasi-Newton steps from the last `history_size` changes of the gradient, as torch.optim.LBFGS: for one
    group of parameters, with `step(closure)`."""

    def __init__(
        self, params, lr: float = 1, max_iter: int = 20, max_eval: int | None = None, tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9, history_size: int = 100, line_search_fn: str | None = None,
    ):
        defaults = {"lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval}
        defaults |= {"tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change}
        super().__init__(params, {**defaults, "history_size": history_size, "line_search_fn": line_search_fn})
        if len(self.param_groups) != 1:
            raise ValueError(f"LBFGS takes one group of parameters, not {len(self.param_groups)}")
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(f'line_search_fn is None or "strong_wolfe", not {line_search_fn!r}')

    # These three turn parameters into the vector and back.

    def _gradient(self) -> np.ndarray:
        parts = [
            np.zeros(p.numel(), wide(p.dtype)) if p.grad is None else gradient_of(p).ravel()
            for p in self.param_groups[0]["params"]
        ]
        return np.concatenate(parts)

    def _weights(self) -> np.ndarray:
        return np.concatenate([np.array(p.numpy(), wide(p.dtype)).ravel() for p in self.param_groups[0]["params"]])

    def _move_to(self, weights: np.ndarray) -> None:
        for p in self.param_groups[0]["params"]:
            with quiet():
                p.writable()[...] = weights[: p.numel()].reshape(p.shape)
            weights = weights[p.numel() :]

    # The first move follows the gradient, since we remember nothing yet. Before each later one we remember the last.

    def _direction(self, state: dict, gradient: np.ndarray, group: dict) -> np.ndarray:
        if state["n_iter"] == 1:
            state.update({"old_dirs": [], "old_stps": [], "ro": [], "H_diag": 1.0})
            return -gradient
        changes, steps, inverses = (state[name] for name in ("old_dirs", "old_stps", "ro"))
        y, s = gradient - state["prev_flat_grad"], state["d"] * state["t"]
        if (product := y.dot(s)) > 1e-10:
            for remembered, new in ((changes, y), (steps, s), (inverses, 1.0 / product)):
                del remembered[: len(remembered) + 1 - group["history_size"]]
                remembered.append(new)
            state["H_diag"] = product / y.dot(y)
        return two_passes(gradient, steps, changes, inverses, state["H_diag"])

    # A move is a direction and a distance. Without a line search the distance is the learning rate, except for the
    # first move, which we make short because we know nothing about the curvature.

    def step(self, closure: Callable[[], Any]) -> Any:
        """Make up to `max_iter` moves, and return the first loss. `closure` computes the loss and its gradients anew,
        and returns the loss."""
        group = self.param_groups[0]
        state = self.state[group["params"][0]]
        first = evaluate(closure)
        loss, gradient, evaluations = float(first), self._gradient(), 1
        state["func_evals"], state["n_iter"] = state.get("func_evals", 0) + 1, state.get("n_iter", 0)
        for number in range(1, group["max_iter"] + 1):
            if abs(gradient).max() <= group["tolerance_grad"]:
                break
            state["n_iter"] += 1
            state["d"] = direction = self._direction(state, gradient, group)
            state["t"] = group["lr"] * (min(1.0, 1.0 / abs(gradient).sum()) if state["n_iter"] == 1 else 1)
            state["prev_flat_grad"], state["prev_loss"], slope = gradient.copy(), loss, gradient.dot(direction)
            if slope > -group["tolerance_change"]:
                break
            start, most = Point(0.0, loss, gradient, slope), group["max_eval"] - evaluations
            point, count = self._moved(closure, state, start, most, last=number == group["max_iter"])
            evaluations, state["func_evals"] = evaluations + count, state["func_evals"] + count
            small = abs(direction * state["t"]).max() <= group["tolerance_change"]
            if small or abs(point.loss - loss) < group["tolerance_change"] or evaluations >= group["max_eval"]:
                break
            loss, gradient = point.loss, point.gradient
        return first

    # After the last move of a step we need not evaluate anything, because the next step begins with that.

    def _moved(self, closure, state, start: Point, most: int, last: bool) -> tuple[Point, int]:
        group, direction, weights = self.param_groups[0], state["d"], self._weights()

        def at(t):
            self._move_to(weights + t * direction)
            loss = float(evaluate(closure))
            return Point(t, loss, gradient := self._gradient(), gradient.dot(direction))

        if group["line_search_fn"] is None:
            self._move_to(weights + state["t"] * direction)
            return (start, 0) if last else (at(state["t"]), 1)
        reach, tolerance = abs(direction).max(), group["tolerance_change"]
        point, count = strong_wolfe(at, start, state["t"], reach, tolerance, most)
        state["t"] = point.t
        self._move_to(weights + point.t * direction)
        return point, count

    # Our arrays come back from a file as tensors, so we turn them into arrays again.

    def load_state_dict(self, saved: dict) -> None:
        """Load the memory and options that `state_dict` returned."""
        super().load_state_dict(saved)
        for memory in self.state.values():
            for name in ("old_dirs", "old_stps"):
                memory[name] = [np.array(one) for one in memory.get(name, ())]
            memory.update({name: np.array(memory[name]) for name in ("d", "prev_flat_grad") if name in memory})


# ## The curved valley
#
# In chapter 06 Adam needed some two hundred steps to get near the lowest point of Rosenbrock's valley. How many
# gradients does L-BFGS need, if we include the evaluations of the line search?


def descend(evaluations: int) -> float:
    """Return how high L-BFGS is in Rosenbrock's valley after a step of at most so many evaluations."""
    point = Parameter(np.array([-1.2, 1.0]))

    def closure():
        point.grad = Tensor(rosenbrock_gradient(*point.tolist()))
        return rosenbrock(*point.tolist())

    LBFGS([point], max_iter=1000, max_eval=evaluations, line_search_fn="strong_wolfe").step(closure)
    return rosenbrock(*point.tolist())


# We start anew for each row.


def show_descent():
    for evaluations in (1, 10, 20, 30, 40, 50):
        print(f"{evaluations:3d} gradients: height {descend(evaluations):8.2g}")


# It walks along the curved floor first, where each pair that it remembers is soon out of date. Once it is near the
# lowest point, where the valley hardly bends, each move gives us more right digits than the one before.


def check_lowest_point_is_found():
    assert descend(40) < 1e-3 and descend(50) < 1e-8


__all__ = ["LBFGS"]
