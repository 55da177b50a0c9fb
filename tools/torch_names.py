"""Writes what torch's modules contain, name by name, into packages/tinytorch/src/tinytorch/names, one file a module.

    hatch run parity:python tools/torch_names.py

A line holds a name; for a function its parameters stand behind it, one line for each of its overloads. tinytorch reads
these files when it says that a name of torch's is missing, and when it translates a call. torch is needed only here."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import types
import warnings
from pathlib import Path

MODULES = """
torch torch.accelerator torch.amp torch.autograd torch.autograd.anomaly_mode torch.autograd.forward_ad
torch.autograd.functional torch.autograd.grad_mode torch.autograd.gradcheck torch.autograd.profiler torch.backends
torch.backends.cuda torch.backends.cudnn torch.backends.mkl torch.backends.mps torch.backends.openmp torch.compiler
torch.cuda torch.cuda.amp torch.distributed torch.distributions torch.fft torch.func torch.hub torch.jit torch.linalg
torch.mps torch.nn torch.nn.functional torch.nn.init torch.nn.modules torch.nn.modules.module torch.nn.modules.utils
torch.nn.parallel torch.nn.parameter torch.nn.utils torch.nn.utils.clip_grad torch.nn.utils.parametrizations
torch.nn.utils.parametrize torch.nn.utils.prune torch.nn.utils.rnn torch.onnx torch.optim torch.optim.lr_scheduler
torch.optim.optimizer torch.optim.swa_utils torch.profiler torch.quantization torch.random torch.serialization
torch.sparse torch.special torch.testing torch.types torch.utils torch.utils.checkpoint torch.utils.data
torch.utils.data.dataloader torch.utils.data.dataset torch.utils.data.distributed torch.utils.data.sampler
torch.version
""".split()

BACKENDS = ("ProcessGroupGloo", "ProcessGroupMPI", "ProcessGroupNCCL", "ProcessGroupUCC")  # some builds have some
FOLDER = Path(__file__).parents[1] / "packages" / "tinytorch" / "src" / "tinytorch" / "names"


def public_names(module: types.ModuleType) -> list[str]:
    """What a module offers: what its `__all__` names, and what else of torch's is in it without an underscore."""
    offered = set(getattr(module, "__all__", ()))
    inner = getattr(module, "m", None)  # of torch.backends.cudnn, which is an object in the place of a module
    every = {*dir(module), *dir(type(module)), *(dir(inner) if isinstance(inner, types.ModuleType) else ())}
    every -= {*dir(types.ModuleType), "m"}
    parts = {part.name for part in pkgutil.iter_modules(getattr(module, "__path__", ())) if part.name[0] != "_"}
    offered |= parts
    every = {name for name in every | parts if not name.startswith(BACKENDS)}
    return sorted(name for name in every if name in offered or (name[0] != "_" and _torchs(module, name)))


def _torchs(module, name):
    value = getattr(module, name)
    if isinstance(value, types.ModuleType):  # a part of it, which has been found, or a module of another place
        return type(value) is not types.ModuleType
    if type(value).__module__.startswith("torch") or isinstance(value, (bool, int, float, str, tuple)):
        return True
    home = getattr(value, "__module__", None)
    return home is None or (home.startswith("torch") and home != "torch.overrides")


def overloads(module: types.ModuleType, name: str) -> list[str]:
    """The parameters of a function, as Python without types, for each overload; nothing for a class or a value."""
    value = getattr(module, name, module)  # a part that is not imported is a module
    if isinstance(value, (type, types.ModuleType)) or not callable(value):
        return []
    try:
        own = _plain(_parsed(inspect.signature(value)))
    except (ValueError, TypeError):
        own = ANYTHING
    if own == ANYTHING or module.__name__ == "torch":
        return _stubs(module).get(name) or [_documented(value, name) if own == ANYTHING else own]
    return [own]


ANYTHING = "(*args, **kwargs)"


def _documented(value, name: str) -> str:
    """What the first lines of a docstring say about the parameters."""
    lines = (value.__doc__ or "").strip().splitlines()[:3]
    for line in (*lines, "".join(lines[:2])):
        try:
            function = ast.parse(f"def {line.rpartition(name + '(')[1]}{line.rpartition(name + '(')[2]}: ...").body[0]
        except SyntaxError:
            continue
        if isinstance(function, ast.FunctionDef) and function.name == name:
            return _plain(function)
    return ANYTHING


def _parsed(signature: inspect.Signature) -> ast.FunctionDef:
    """A signature as a piece of program; a default that cannot be written is `...`."""
    values = signature.parameters.values()
    plain = [p.replace(annotation=p.empty, default=_literal(p.default)) for p in values]
    text = str(signature.replace(parameters=plain, return_annotation=signature.empty)).replace("Ellipsis", "...")
    function = ast.parse(f"def f{text}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    if getattr(signature.return_annotation, "__name__", signature.return_annotation) == "Tensor":
        function.returns = ast.Name("Tensor")
    return function


def _literal(value):
    plain = value is inspect.Parameter.empty or isinstance(value, (bool, int, float, str, tuple, type(None)))
    return value if plain and repr(value) not in ("inf", "nan") else ...


def _stubs(module, cache={}):  # noqa: B006 - it is one
    files = {"torch": "_C/_VariableFunctions.pyi", "torch.nn.functional": "nn/functional.pyi"}
    name = module.__name__
    if name not in cache:
        cache[name] = {}
        if name in files:
            file = Path(str(importlib.import_module("torch").__file__)).parent / files[name]
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef):
                    cache[name].setdefault(node.name, []).append(_plain(node))
    return cache[name]


def _plain(function: ast.FunctionDef) -> str:
    """A function's parameters with their defaults, and `-> Tensor` if it says so."""
    arguments = function.args
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    arguments.defaults = [_default(value) for value in arguments.defaults]
    arguments.kw_defaults = [value and _default(value) for value in arguments.kw_defaults]
    returned = " -> Tensor" if function.returns and ast.unparse(function.returns) == "Tensor" else ""
    return f"({ast.unparse(arguments)}){returned}"


def _default(value):
    try:
        ast.literal_eval(value)
    except ValueError:
        return ast.Constant(...)
    return value


def lines(module: types.ModuleType) -> list[str]:
    """The file of a module, line by line."""
    names = public_names(module)
    return [name + form for name in names for form in dict.fromkeys(overloads(module, name) or [""])]


def files() -> dict[str, list[str]]:
    """The lines of each module's file. All modules are imported first, because a module contains those imported."""
    modules = {name: importlib.import_module(name) for name in MODULES}
    return {name: lines(module) for name, module in modules.items()}


def main() -> None:
    warnings.simplefilter("ignore")  # torch's, about its own old names
    FOLDER.mkdir(exist_ok=True)
    for name, found in files().items():
        (FOLDER / f"{name}.txt").write_text("\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
