"""torch.nn.modules: the classes of torch.nn, which torch keeps in many small modules; here all of them are this one."""

import sys as _sys

from tt_tensor import Linear as NonDynamicallyQuantizableLinear  # which programs name to load attention

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)

for _name in (
    "activation", "adaptive", "batchnorm", "channelshuffle", "container", "conv", "distance", "dropout", "flatten",
    "fold", "instancenorm", "lazy", "linear", "loss", "module", "normalization", "padding", "pixelshuffle", "pooling",
    "rnn", "sparse", "transformer", "upsampling",
):
    _sys.modules[f"{__name__}.{_name}"] = _sys.modules[__name__]
