"""Chapter 09: convolution, pooling, normalization."""

from tt_spatial.common import padded
from tt_spatial.pictures import framed_digits
from tt_spatial.spatial import (
    Conv2d, LeNet, conv2d, conv_size, convolution, max_pool, max_pool2d, max_unpool, taps, transposed_convolution,
    weight_convolution, windows, winner,
)
from tt_spatial.more_spatial import *  # isort: skip  (built on the chapter)
from tt_spatial.more_spatial import __all__ as _more_spatial  # isort: skip
from tt_spatial.norms import *  # isort: skip
from tt_spatial.norms import __all__ as _norms  # isort: skip
from tt_spatial.pooling import *  # isort: skip
from tt_spatial.pooling import __all__ as _pooling  # isort: skip
from tt_spatial.upsampling import *  # isort: skip
from tt_spatial.upsampling import __all__ as _upsampling  # isort: skip
from tt_spatial.more_norms import *  # isort: skip
from tt_spatial.more_norms import __all__ as _more_norms  # isort: skip
from tt_spatial.rearranging import *  # isort: skip
from tt_spatial.rearranging import __all__ as _rearranging  # isort: skip
from tt_spatial.lazy_spatial import *  # isort: skip
from tt_spatial.lazy_spatial import __all__ as _lazy_spatial  # isort: skip

# The contract: what other packages may use.
__all__ = [
    "Conv2d", "LeNet", "conv2d", "conv_size", "convolution", "max_pool", "max_pool2d", "max_unpool", "taps",
    "transposed_convolution", "weight_convolution", "windows", "winner", *_more_spatial, *_norms, *_pooling,
    *_upsampling, *_more_norms, *_rearranging, *_lazy_spatial, "framed_digits", "padded",
]
