"""The functions of chapters 02 to 05 and their appendices under the name that PyTorch's users type:
`import tt_tensor.functional as F`."""

from tt_tensor.activations import elu, gelu, leaky_relu, relu, sigmoid, silu
from tt_tensor.layers import dropout, linear
from tt_tensor.losses import binary_cross_entropy_with_logits, cross_entropy, mse_loss, nll_loss
from tt_tensor.margin_losses import (
    cosine_embedding_loss, gaussian_nll_loss, hinge_embedding_loss, margin_ranking_loss, multi_margin_loss,
    multilabel_margin_loss, multilabel_soft_margin_loss, poisson_nll_loss, soft_margin_loss, triplet_margin_loss,
)
from tt_tensor.more_activations import (
    alpha_dropout, celu, dropout1d, dropout2d, dropout3d, glu, gumbel_softmax, hardshrink, hardsigmoid, hardswish,
    hardtanh, log_softmax, logsigmoid, mish, prelu, relu6, rrelu, selu, softmax, softmin, softplus, softshrink,
    softsign, tanhshrink, threshold,
)
from tt_tensor.more_layers import bilinear
from tt_tensor.more_losses import binary_cross_entropy, huber_loss, kl_div, l1_loss, smooth_l1_loss
from tt_tensor.more_ops import one_hot, tanh
from tt_tensor.products import cosine_similarity, normalize, pairwise_distance

__all__ = [
    "alpha_dropout", "bilinear", "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu",
    "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "elu", "gaussian_nll_loss", "gelu", "glu", "gumbel_softmax", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
    "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "leaky_relu", "linear", "log_softmax", "logsigmoid",
    "margin_ranking_loss", "mish", "mse_loss", "multi_margin_loss", "multilabel_margin_loss",
    "multilabel_soft_margin_loss", "nll_loss", "normalize", "one_hot", "pairwise_distance", "poisson_nll_loss", "prelu",
    "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax", "softmin",
    "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold", "triplet_margin_loss",
]
