"""Chapters 15 to 19: kernel sets, caches, small numbers, smaller networks, measurements."""

from tt_opt.acceleration import *
from tt_opt.acceleration import __all__ as _acceleration
from tt_opt.acceleration import use_environment
from tt_opt.benchmarking import *
from tt_opt.benchmarking import __all__ as _benchmarking
from tt_opt.caching import *
from tt_opt.caching import __all__ as _caching
from tt_opt.compression import *
from tt_opt.compression import __all__ as _compression
from tt_opt.gguf import *
from tt_opt.gguf import __all__ as _gguf
from tt_opt.precision import *
from tt_opt.precision import __all__ as _precision
from tt_opt.reports import *
from tt_opt.reports import __all__ as _reports
from tt_opt.speculative import *
from tt_opt.speculative import __all__ as _speculative
from tt_opt.threads import get_num_threads as get_num_threads
from tt_opt.threads import set_num_threads as set_num_threads

# The contract: what other packages may use.
__all__ = [
    *_acceleration, *_caching, *_speculative, *_precision, *_gguf, *_compression, *_benchmarking, *_reports,
    "get_num_threads", "set_num_threads",
]

# `TT_KERNELS=fast python program.py` runs a program that knows nothing of kernel sets on one of them.
use_environment()
