"""Chapters 15 to 19: kernel sets, caches, small numbers, smaller networks, measurements."""

from tt_opt.acceleration import (
    TWINS, accelerate, amdahl, best_set, kernel_set, roofline, time_by_primitive, twin, use_environment, utilization,
)
from tt_opt.benchmarking import (
    Comparison, Event, KEYS, Profile, Timing, benchmark, bootstrap_interval, compare, compared,
    median_interval, profile, roof_points, table,
)
from tt_opt.caching import (
    Batcher, GroupedQueryAttention, KVCache, Request, cache_bytes, generate, look_back, multiply_adds_of_a_token,
    read, stream, write,
)
from tt_opt.compression import (
    CompressedRows, NarrowAttention, Pruning, SIZES, SparseLinear, Taught, Watched, compressed_rows, density,
    distillation_loss, factorize_, factorized, features_last, file_bytes, low_rank, magnitude_mask, prunable,
    prune_, remove_heads_, remove_outputs_, rewind_, slim_, sparse_product, sparse_values_vjp, sparse_x_vjp,
    sparsify_,
)
from tt_opt.gguf import *
from tt_opt.gguf import __all__ as _gguf
from tt_opt.precision import (
    BLOCKS, FORMATS, Format, QUANTIZED, Quantized, QuantizedConv2d, QuantizedEmbedding, QuantizedLinear, ROW,
    affine_scale, dequantize, fake_quantize, fake_vjp, from_bfloat16, model_bytes, observed, packed_product,
    quantize, quantize_, rounding, symmetric_scale, to_bfloat16,
)
from tt_opt.profiles import Row
from tt_opt.reports import *
from tt_opt.reports import __all__ as _reports
from tt_opt.rotary_gpt import *
from tt_opt.rotary_gpt import __all__ as _rotary_gpt
from tt_opt.speculative import *
from tt_opt.speculative import __all__ as _speculative
from tt_opt.threads import get_num_threads as get_num_threads
from tt_opt.threads import set_num_threads as set_num_threads

# The contract: what other packages may use.
__all__ = [
    "TWINS", "accelerate", "amdahl", "best_set", "kernel_set", "roofline", "time_by_primitive", "twin",
    "use_environment", "utilization", "Batcher", "GroupedQueryAttention", "KVCache", "Request", "cache_bytes",
    "generate", "look_back", "multiply_adds_of_a_token", "read", "stream", "write", *_rotary_gpt, *_speculative,
    "BLOCKS", "FORMATS", "Format", "QUANTIZED", "Quantized", "QuantizedConv2d", "QuantizedEmbedding", "QuantizedLinear",
    "ROW", "affine_scale", "dequantize", "fake_quantize", "fake_vjp", "from_bfloat16",
    "model_bytes", "observed", "packed_product", "quantize", "quantize_", "rounding", "symmetric_scale", "to_bfloat16",
    *_gguf, "CompressedRows", "NarrowAttention", "Pruning", "SIZES", "SparseLinear", "Taught", "Watched",
    "compressed_rows", "density", "distillation_loss", "factorize_", "factorized", "features_last", "file_bytes",
    "low_rank", "magnitude_mask", "prunable", "prune_", "remove_heads_", "remove_outputs_", "rewind_", "slim_",
    "sparse_product", "sparse_values_vjp", "sparse_x_vjp", "sparsify_", "Comparison", "Event", "KEYS", "Profile",
    "Row", "Timing", "benchmark", "bootstrap_interval", "compare", "compared", "median_interval", "profile",
    "roof_points", "table", *_reports, "get_num_threads", "set_num_threads",
]

# `TT_KERNELS=fast python program.py` runs a program that knows nothing of kernel sets on one of them.
use_environment()
