# # Lazy layers for images
#
# An appendix of chapter 09: convolutions and norms that find out the number of channels from their first input, as
# `LazyLinear` of chapter 04's appendix *Lazy modules* finds out its number of features.

from __future__ import annotations

from typing import Any

import tt_tensor as tt
from tt_spatial.common import refuse_groups
from tt_spatial.more_norms import BatchNorm3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from tt_spatial.more_spatial import Conv1d, ConvTranspose1d, ConvTranspose2d
from tt_spatial.norms import BatchNorm1d, BatchNorm2d
from tt_spatial.spatial import Conv2d
from tt_tensor import LazyModuleMixin, Tensor, UninitializedBuffer, UninitializedParameter

# ## Convolutions
#
# We build a lazy convolution with as few input channels as its groups allow. Then we replace its weight by one without
# a shape, which gets its shape from the first input.


class _LazyConvolution(LazyModuleMixin):
    weight: Any

    def _wait(self: Any, dtype):
        self.in_channels = 0
        self.weight = UninitializedParameter(dtype=dtype)

    def initialize_parameters(self: Any, x: Tensor, output_size=None) -> None:
        """Make the weight for the channels of x, and draw weight and bias, unless a state was loaded."""
        self.in_channels = x.shape[-len(self.kernel_size) - 1]
        if self.has_uninitialized_params():
            refuse_groups(self.in_channels, self.out_channels, self.groups)
            self.weight.materialize(self._weight_shape())
            self.reset_parameters()

    def _weight_shape(self: Any):
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size


class _LazyConv(_LazyConvolution):
    def __init__(
        self, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device=None, dtype=None,
    ):
        options = (kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype)
        super().__init__(groups, out_channels, *options)  # type: ignore[call-arg]
        self._wait(dtype)


class LazyConv1d(_LazyConv, Conv1d):
    """A Conv1d whose in_channels are those of its first input."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyConv, Conv2d):
    """A Conv2d whose in_channels are those of its first input."""

    cls_to_become = Conv2d


# The weight of a transposed convolution begins with the input channels, so we compute its shape differently.


class _LazyConvTranspose(_LazyConvolution):
    def __init__(
        self, out_channels: int, kernel_size, stride=1, padding=0, output_padding=0, groups: int = 1, bias: bool = True,
        dilation=1, padding_mode: str = "zeros", device=None, dtype=None,
    ):
        options = (kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, device, dtype)
        super().__init__(groups, out_channels, *options)  # type: ignore[call-arg]
        self._wait(dtype)

    def _weight_shape(self: Any):
        return self.in_channels, self.out_channels // self.groups, *self.kernel_size


class LazyConvTranspose1d(_LazyConvTranspose, ConvTranspose1d):
    """A ConvTranspose1d whose in_channels are those of its first input."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyConvTranspose, ConvTranspose2d):
    """A ConvTranspose2d whose in_channels are those of its first input."""

    cls_to_become = ConvTranspose2d


# ## Norms
#
# All vectors of a norm have the number of channels as their size, including the running moments. So we replace all of
# them.


class _LazyNorm(LazyModuleMixin):
    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True,
        device=None, dtype=None, *, bias: bool = True,
    ):
        super().__init__(1, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)  # type: ignore
        self._wait(dtype)

    def _wait(self: Any, dtype):
        self.num_features = 0
        for name, _ in list(self.named_parameters()):
            setattr(self, name, UninitializedParameter(dtype=dtype))
        for name in ("running_mean", "running_var") if self.track_running_stats else ():
            self.register_buffer(name, UninitializedBuffer(dtype=dtype))

    def initialize_parameters(self: Any, x: Tensor) -> None:
        """Make the vectors for the channels of x, unless a state was loaded."""
        self.num_features = x.shape[1]
        if self.has_uninitialized_params():
            for tensor in (*self.parameters(), *self.buffers()):
                if isinstance(tensor, tt.Uninitialized):
                    tensor.materialize((self.num_features,))
            self.reset_parameters()


# After its first input, each becomes an ordinary norm (`cls_to_become`).


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """A BatchNorm1d whose num_features are the channels of its first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """A BatchNorm2d whose num_features are the channels of its first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """A BatchNorm3d whose num_features are the channels of its first input."""

    cls_to_become = BatchNorm3d


# Instance norms are lazy in the same way. A lazy one comes with weights and running moments unless you say otherwise.


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """An InstanceNorm1d whose num_features are the channels of its first input."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """An InstanceNorm2d whose num_features are the channels of its first input."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """An InstanceNorm3d whose num_features are the channels of its first input."""

    cls_to_become = InstanceNorm3d


def check_lazy_layers():
    network = tt.Sequential(LazyConv2d(4, 3, padding=1), LazyBatchNorm2d(), tt.ReLU(), LazyConvTranspose2d(2, 2))
    weight = network[0].weight
    assert network(tt.randn(2, 3, 5, 5)).shape == (2, 2, 6, 6) and type(network[0]) is Conv2d
    assert network[0].weight is weight and weight.shape == (4, 3, 3, 3) and network[1].running_var.shape == (4,)


__all__ = [
    "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d", "LazyConvTranspose1d",
    "LazyConvTranspose2d", "LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d",
]
