# # PyTorch's options
#
# An appendix of chapter 06. We give SGD, Adam, AdamW and `clip_grad_norm_` all the options that they have in PyTorch.
# The updates are those of the chapter; the code here runs before them.

from __future__ import annotations

import numpy as np

from tt_optim import optimizers
from tt_optim.groups import add_options, parameter_list, refuse_negative, without_effect
from tt_optim.states import wide
from tt_tensor import Parameter, Tensor

# ## Uphill
#
# If the value is a reward rather than a loss, we want to climb (`maximize=True`). To climb is to descend with the sign
# of the gradient flipped. We flip it before anything else, so weight decay still pulls towards zero.
#
# The options `foreach`, `fused` and `capturable` choose how PyTorch computes a step, and do not change its result. If
# your program sets them, it runs here, and they have no effect. `differentiable=True` would record the steps
# themselves. We refuse it, because our steps change arrays in place.


class SGD(optimizers.SGD):
    """Stochastic gradient descent with momentum, as torch.optim.SGD. Raises ValueError for options outside their
    ranges."""

    def __init__(
        self, params, lr: float = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
        nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None, differentiable: bool = False,
        fused: bool | None = None,
    ):
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov)
        add_options(self, maximize=maximize, **without_effect(differentiable, foreach=foreach, fused=fused))

    def update(self, p, g, state, group):
        super().update(p, -g if group["maximize"] else g, state, group)


# ## AMSGrad
#
# Adam divides by an *average* of squares, which can shrink again. After a rare, large gradient the steps soon grow, and
# on problems constructed for the purpose Adam then walks away from the lowest point. AMSGrad (Reddi, Kale and Kumar,
# 2018) divides by the largest average so far, so the divisor never shrinks. In practice you will rarely see a
# difference.


def amsgrad_update(p, g, m, v, largest, *, t, lr, betas, eps):
    """Change p, the averages m and v and the largest v so far in place in step t, from 1, given the gradient g."""
    beta1, beta2 = betas
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    np.maximum(largest, v, out=largest)
    p -= lr * (m / (1 - beta1**t)) / (np.sqrt(largest / (1 - beta2**t)) + eps)


# For everything else we call the update of the chapter. In PyTorch AdamW is the same class with
# `decoupled_weight_decay`, so our Adam has that option, too.


class Adam(optimizers.Adam):
    """Averages of gradient and square with bias correction, as torch.optim.Adam."""

    optional = ("max_exp_avg_sq",)

    def __init__(
        self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)
        kept = without_effect(differentiable, foreach=foreach, capturable=capturable, fused=fused)
        add_options(self, amsgrad=amsgrad, maximize=maximize, decoupled_weight_decay=decoupled_weight_decay, **kept)

    # AMSGrad needs the weight decay and the sign before its own update, so we repeat those lines of the chapter here.

    def update(self, p, g, state, group):
        self.decoupled, g = group["decoupled_weight_decay"], -g if group["maximize"] else g
        if not group["amsgrad"]:
            return super().update(p, g, state, group)
        decay = group["weight_decay"]
        if decay and self.decoupled:
            p *= 1 - group["lr"] * decay
        elif decay:
            g = g + decay * p
        largest = state.setdefault("max_exp_avg_sq", np.zeros_like(state["exp_avg_sq"]))
        averages = state["exp_avg"], state["exp_avg_sq"], largest
        amsgrad_update(p, g, *averages, t=state["step"], **{name: group[name] for name in ("lr", "betas", "eps")})


# AdamW differs in its defaults.


class AdamW(Adam, optimizers.AdamW):
    """Adam with weight decay taken out of the gradient and applied to the weight itself; as torch.optim.AdamW."""

    def __init__(
        self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
    ):
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=optimizers.AdamW.decoupled,
        )


# We send one gradient of 1 and then many of 0.1. Adam's divisor falls to 0.1 again, so its steps are as long as the
# learning rate. AMSGrad still divides by the old average, so its steps are shorter.


def check_amsgrad_remembers_the_largest():
    lengths = {}
    for amsgrad in (False, True):
        p = Parameter(np.array([0.0]))
        optimizer = Adam([p], lr=1.0, betas=(0.0, 0.9), eps=0.0, amsgrad=amsgrad)
        for g in [1.0, *[0.1] * 200]:
            before, p.grad = p.item(), Tensor(np.array([g]))
            optimizer.step()
        lengths[amsgrad] = before - p.item()
    assert abs(lengths[False] - 1) < 1e-6 and lengths[True] < 0.4


# ## Clipping, in two halves
#
# PyTorch also offers the chapter's `clip_grad_norm_` in two halves: one measures, and the other shortens. A program
# that splits a model over several machines adds up the measurements in between.


def get_total_norm(
    tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """Return the norm of order `norm_type` of all elements of all tensors, as one number. Raises RuntimeError for a
    norm that is not finite if `error_if_nonfinite`."""
    arrays = [np.asarray(t.numpy(), wide(t.dtype)).ravel() for t in parameter_list(tensors)]
    lengths = np.array([np.linalg.norm(array, norm_type) if array.size else 0.0 for array in arrays])
    total = np.linalg.norm(lengths, norm_type) if arrays else np.float32(0.0)
    if error_if_nonfinite and not np.isfinite(total):
        raise RuntimeError(f"the norm of order {norm_type} is {total}; something overflowed before")
    return Tensor(np.asarray(total))


# The second half takes the result of the first.


def clip_grads_with_norm_(parameters, max_norm: float, total_norm: Tensor, foreach: bool | None = None) -> None:
    """Scale all gradients by max_norm / total_norm if that is below 1. Raises ValueError for a negative max_norm."""
    refuse_negative(max_norm=max_norm)
    factor = max_norm / (float(total_norm) + 1e-6)
    for parameter in parameter_list(parameters):
        if parameter.grad is not None and not factor >= 1:
            parameter.grad.writable()[...] *= factor


# The whole is the function of the chapter, with one more option that has no effect.


def clip_grad_norm_(
    parameters, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """Scale all gradients by one factor so that their common length (the norm of order `norm_type`) is at most
    max_norm. Returns the length before. Raises ValueError for a max_norm that is negative or nan, and RuntimeError for
    a length that is not finite if `error_if_nonfinite`. `foreach` has no effect."""
    return optimizers.clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite)


# We clip two pairs of equal gradients, one pair in two halves, and compare.


def check_two_halves_are_the_whole():
    ps = [Parameter([0.0, 0.0]) for _ in range(4)]
    for p, values in zip(ps, ([3.0, 0.0], [0.0, 4.0], [3.0, 0.0], [0.0, 4.0])):
        p.grad = Tensor(values)
    total = get_total_norm([p.grad for p in ps[:2]])
    clip_grads_with_norm_(ps[:2], 1.0, total)
    assert clip_grad_norm_(ps[2:], 1.0).item() == total.item() == 5.0
    assert [p.grad.tolist() for p in ps[:2]] == [p.grad.tolist() for p in ps[2:]]


__all__ = ["Adam", "AdamW", "SGD", "clip_grad_norm_", "clip_grads_with_norm_", "get_total_norm"]
