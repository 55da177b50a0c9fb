"""PyTorch's options on PyTorch: torch.optim has them."""

from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from .optimizers import SGD, Adam, AdamW

__all__ = ["Adam", "AdamW", "SGD", "clip_grad_norm_", "clip_grads_with_norm_", "get_total_norm"]
