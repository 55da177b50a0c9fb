"""The functions of chapters 02 to 05 under the name that PyTorch's users type: `import tt_tensor.functional as F`."""

from tt_tensor.activations import (
    elu, gelu, leaky_relu, log_softmax, relu, sigmoid, silu, softmax, softplus, tanh,
)
from tt_tensor.layers import dropout, linear
from tt_tensor.losses import binary_cross_entropy_with_logits, cross_entropy, mse_loss, nll_loss
from tt_tensor.more_losses import binary_cross_entropy, huber_loss, kl_div, l1_loss, smooth_l1_loss
from tt_tensor.more_ops import one_hot

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "dropout", "elu", "gelu", "huber_loss",
    "kl_div", "l1_loss", "leaky_relu", "linear", "log_softmax", "mse_loss", "nll_loss", "one_hot", "relu", "sigmoid",
    "silu", "smooth_l1_loss", "softmax", "softplus", "tanh",
]
