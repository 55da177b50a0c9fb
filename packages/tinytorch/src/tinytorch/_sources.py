"""Where the names of a module of tinytorch come from, which we leave out, and what we advise instead."""

from __future__ import annotations

# The packages that may have a name, in the order in which they are asked. One that is not asked is not imported.

SOURCES: dict[str, tuple[str, ...]] = {
    "tinytorch": ("tt_tensor", "tt_autograd", "tt_spatial", "tt_nlp", "tt_tensor.linalg", "tt_opt.threads"),
    "tinytorch.autograd": ("tt_autograd",),
    "tinytorch.autograd.functional": ("tt_autograd",),
    "tinytorch.distributions": ("tt_tensor.distributions",),
    "tinytorch.linalg": ("tt_tensor.linalg", "tt_tensor"),
    "tinytorch.nn": ("tt_tensor", "tt_spatial", "tt_nlp.torch_transformer", "tt_nlp.more_embeddings", "tt_nlp"),
    "tinytorch.nn.functional": (
        "tt_tensor.functional", "tt_tensor", "tt_spatial.functional", "tt_spatial", "tt_nlp.functional", "tt_nlp",
    ),
    "tinytorch.nn.init": ("tt_tensor.init", "tt_tensor"),
    "tinytorch.nn.parameter": ("tt_tensor",),
    "tinytorch.nn.utils": ("tt_optim", "tt_tensor", "tt_nlp"),
    "tinytorch.nn.utils.clip_grad": ("tt_optim",),
    "tinytorch.nn.utils.rnn": ("tt_nlp",),
    "tinytorch.optim": ("tt_optim",),
    "tinytorch.optim.lr_scheduler": ("tt_optim",),
    "tinytorch.optim.swa_utils": ("tt_optim",),
    "tinytorch.random": ("tt_tensor",),
    "tinytorch.special": ("tt_tensor",),
    "tinytorch.testing": ("tt_tensor",),
    "tinytorch.utils.data": ("tt_data",),
}
for _short in ("dataloader", "dataset", "distributed", "sampler"):
    SOURCES[f"tinytorch.utils.data.{_short}"] = SOURCES["tinytorch.utils.data"]
SOURCES["tinytorch.optim.optimizer"] = SOURCES["tinytorch.optim"]
SOURCES["tinytorch.nn.modules"] = SOURCES["tinytorch.nn.modules.module"] = SOURCES["tinytorch.nn"]

# Names of ours which torch uses for something else, or with other parameters.

_NOT_MODULES = {"Block", "Tensor", "grad"}
OTHERS: dict[str, set[str]] = {
    "tinytorch": {
        "Block", "adaptive_max_pool1d", "batch_norm", "binary_cross_entropy_with_logits", "cast", "convolution",
        "dropout", "embedding", "embedding_bag", "graph", "kl_div", "lstsq", "matrix_norm", "qr", "solve", "svd",
        "windows",
    },
    "tinytorch.autograd": {"graph"},
    "tinytorch.nn": _NOT_MODULES,
    "tinytorch.nn.functional": {"Tensor", "grad"},
    "tinytorch.nn.init": {"Tensor"},
    "tinytorch.nn.modules": _NOT_MODULES,
    "tinytorch.nn.modules.module": _NOT_MODULES,
    "tinytorch.nn.utils": {"Tensor"},
    "tinytorch.nn.utils.rnn": {"Tensor"},
    "tinytorch.optim.lr_scheduler": {"Optimizer", "Tensor"},
    "tinytorch.optim.swa_utils": {"Optimizer", "Tensor"},
    "tinytorch.special": {"Tensor"},
    "tinytorch.utils.data": {"graph"},
}

# The same thing under another of torch's names.

_OLDER = ("constant", "dirac", "eye", "kaiming_normal", "kaiming_uniform", "normal", "orthogonal", "sparse", "uniform",
          "xavier_normal", "xavier_uniform")
OTHER_NAMES: dict[str, dict[str, str]] = {
    "tinytorch": {
        "float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32", "bool": "bool_",
        "concat": "cat", "concatenate": "cat", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
        "not_equal": "ne", "pinverse": "pinv", "add": "add_scaled", "sub": "subtract", "div": "divide",
    },
    "tinytorch.nn.functional": {"upsample": "interpolate"},
    "tinytorch.nn.init": {name: f"{name}_" for name in _OLDER},
    "tinytorch.nn.utils": {"clip_grad_norm": "clip_grad_norm_"},
    "tinytorch.special": {"expit": "sigmoid"},
}

# What can be imported, and is refused when it is called.

REFUSED: dict[str, str] = {
    "torch.compile": "the compiled kernels are on by themselves where Numba is installed. Leave the call out",
    "torch.jit": "tinytorch runs Python. Use the module or the function as it is, and save its state_dict()",
    "torch.distributed": "there is one process; tt_opt.DataParallel trains on several of them over MPI",
    "torch.compiler": "nothing is compiled but the kernels, by themselves where Numba is installed",
    "torch.onnx": "tt_capstone.export_onnx(model, example, path) writes ONNX files",
    "torch.nn.parallel.DistributedDataParallel": "tt_opt.DataParallel trains on several processes over MPI",
    "torch.nn.DataParallel": "there is one CPU; use the module itself",
    "torch.nn.parallel.DataParallel": "there is one CPU; use the module itself",
}

# What cannot be imported, and what comes nearest.

ADVICE: dict[str, str] = {
    "torch.fft": "numpy.fft computes transforms, without gradients",
    "torch.sparse": "tensors are dense; to_dense() is the tensor itself",
    "torch.hub": "models are built from their classes, and torch.load reads files of plain tensors",
    "torch.func": "autograd.functional has jacobian; grad(create_graph=True) gives second derivatives",
    "torch.quantization": "tt_opt has quantization (chapter 17)",
    "torch.profiler": "tt_opt.Profiler measures operations (chapter 19)",
    "torch.autograd.profiler": "tt_opt.Profiler measures operations (chapter 19)",
    "torch.vmap": "write the batch as a dimension, or as a loop",
}
