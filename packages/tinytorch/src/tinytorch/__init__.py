"""TinyTorch's packages under PyTorch's names: `import tinytorch as torch`.

Nothing is computed here. A name is taken from the package that has it when it is first asked for; `_sources.py` says
from which. Programs that say `import torch` run unchanged by `python -m tinytorch PROGRAM`."""

import math as _math

import numpy as _np

import tt_autograd as _ta
import tt_tensor as _tt

from tinytorch import _kernels
from tinytorch._constants import (
    bfloat16, cdouble, cfloat, chalf, channels_last, channels_last_3d, complex32, complex64, complex128,
    contiguous_format, float8_e4m3fn, float8_e5m2, layout, memory_format, preserve_format, qint8, qint32, quint8,
    sparse_coo, sparse_csr, strided,
)
from tinytorch._names import offer as _offer
from tinytorch._settings import (
    Tensor,
    are_deterministic_algorithms_enabled, default_generator, get_default_device, get_default_dtype,
    get_float32_matmul_precision, get_num_interop_threads, initial_seed, is_anomaly_enabled, legacy as _legacy,
    manual_seed, seed, set_default_device, set_default_dtype, set_default_tensor_type, set_float32_matmul_precision,
    set_num_interop_threads, set_printoptions, use_deterministic_algorithms,
)
from tinytorch.amp import GradScaler, autocast
from tinytorch.autograd import inference_mode, set_grad_enabled
from tinytorch.serialization import load, save
from tinytorch.version import __version__

__getattr__, __dir__ = _offer(__name__)

inf, nan, pi, e, newaxis = _math.inf, _math.nan, _math.pi, _math.e, None
dtype, finfo, iinfo = _np.dtype, _np.finfo, _np.iinfo
Size = tuple
int8, int16, short, uint16, uint32, uint64 = map(_np.dtype, ("int8", "int16", "int16", "uint16", "uint32", "uint64"))

FloatTensor, DoubleTensor, HalfTensor, LongTensor, IntTensor, ShortTensor, ByteTensor, BoolTensor = (
    _legacy(kind, f"{name}Tensor")
    for name, kind in (
        ("Float", _tt.float32), ("Double", _tt.float64), ("Half", _tt.float16), ("Long", _tt.int64), ("Int", _tt.int32),
        ("Short", int16), ("Byte", _tt.uint8), ("Bool", _tt.bool_),
    )
)

_kernels.use_best()
