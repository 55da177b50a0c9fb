"""The functions of chapter 09 and its appendices under the name that PyTorch's users type:
`import tt_spatial.functional as F`. max_pool2d is the one with all of PyTorch's options."""

from tt_spatial.more_norms import instance_norm, local_response_norm, rms_norm
from tt_spatial.more_spatial import conv1d, conv_transpose1d, conv_transpose2d, pad
from tt_spatial.norms import batch_norm, group_norm, layer_norm
from tt_spatial.pooling import (
    adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_max_pool1d, adaptive_max_pool2d, avg_pool1d, avg_pool2d,
    max_pool1d, max_pool2d, max_unpool1d, max_unpool2d,
)
from tt_spatial.rearranging import channel_shuffle, fold, pixel_shuffle, pixel_unshuffle, unfold
from tt_spatial.spatial import conv2d
from tt_spatial.upsampling import interpolate

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool1d",
    "avg_pool2d", "batch_norm", "channel_shuffle", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "fold",
    "group_norm", "instance_norm", "interpolate", "layer_norm", "local_response_norm", "max_pool1d", "max_pool2d",
    "max_unpool1d", "max_unpool2d", "pad", "pixel_shuffle", "pixel_unshuffle", "rms_norm", "unfold",
]
