"""Beside torch: the lists of names are torch's, parameters are a subset of torch's, and calls by them agree."""

import importlib
import importlib.util
import inspect
import pkgutil
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinytorch
import tt_tensor as tt
from tinytorch import _names
from tinytorch._calls import COMMON, Translation, signature
from tt_tensor.testing import OPS, tensors_of

torch = pytest.importorskip("torch")

MODULES = ["tinytorch"] + [
    found.name
    for found in pkgutil.walk_packages(tinytorch.__path__, "tinytorch.")
    if not any(part.startswith("_") for part in found.name.split("."))
    and not found.name.startswith(("tinytorch.vision", "tinytorch.utils.tensorboard"))
]
TOOL = Path(__file__).parents[3] / "tools" / "torch_names.py"

# Where torch's parameters cannot be seen, or ours must have others: a device is a class of C, GELU's is a text ...
OTHER_PARAMETERS = {"Function", "UninitializedBuffer", "UninitializedParameter", "Parameter", "Sequential"}


def theirs(module):
    return importlib.import_module(_names.torch_name(module))


def pairs(kind):
    """Everything of a kind that both have: (module, name)."""
    for module in MODULES:
        loaded, other = importlib.import_module(module), theirs(module)
        for name in _names.offered(module):
            value = getattr(loaded, name)
            if kind(value) and getattr(other, name, None) is not None:
                yield module, name, value, getattr(other, name)


@pytest.mark.skipif(not TOOL.exists(), reason="the tools are in the repository")
def test_the_lists_are_those_of_this_torch():
    spec = importlib.util.spec_from_file_location("torch_names_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, lines in tool.files().items():
            assert (tool.FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines() == lines, name


@pytest.mark.parametrize("module", MODULES)
def test_every_name_exists_in_torch(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = theirs(module)
        missing = [name for name in _names.offered(module) if not hasattr(other, name)]
        assert [name for name in missing if importlib.util.find_spec(f"{other.__name__}.{name}") is None] == []


def parameters(kind):
    try:
        names = [*inspect.signature(kind.__init__).parameters][1:]
    except ValueError:  # a class of C
        return ["args"]
    return [name for name in names if name not in ("kwargs", "options")]


def test_classes_have_parameters_of_torchs_in_its_order():
    wrong = []
    warnings.simplefilter("ignore")  # torch's, about its own old names
    for module, name, ours, other in pairs(inspect.isclass):
        if name in OTHER_PARAMETERS or not inspect.isclass(other) or ours.__new__.__qualname__.startswith("refused."):
            continue
        mine, yours = map(parameters, (ours, other))
        mine = [name for name in mine if name != "args"]
        if "args" not in yours and mine != [name for name in yours if name in mine]:
            wrong.append(f"{module}.{name}{mine} beside {yours}")
    assert wrong == []


def test_functions_have_parameters_of_torchs():
    wrong = []
    for module, name, ours, _ in pairs(lambda value: hasattr(value, "__wrapped__") and not isinstance(value, type)):
        forms = _names.torch_names(_names.torch_name(module)).get(name)
        if not forms or (module, name) in MORE_PARAMETERS:
            continue
        translation = Translation(ours.__wrapped__, name, forms)
        used = {place for form in translation.forms for place in translation._names(form).values()}
        extra = set(translation.ours) - used - set(COMMON)
        if extra and not any("*" in form.split(", ")[0] for form in forms):
            wrong.append(f"{module}.{name} takes {sorted(extra)} beside {forms}")
    assert wrong == []


# torch has these parameters elsewhere: in nn.functional, in nn.functional.interpolate, and in older forms.
MORE_PARAMETERS = {
    ("tinytorch", "max_pool1d"), ("tinytorch.nn.functional", "upsample"),
    ("tinytorch.linalg", "matrix_rank"), ("tinytorch.linalg", "pinv"),
}


def called(op, sample):
    """The name and module of an operation, and the names of torch's parameters for its operands."""
    module, _, name = f"tinytorch.{op.torch}".rpartition(".")
    forms = _names.torch_names(_names.torch_name(module)).get(name, [])
    for form in forms:
        places = [p.name for p in signature(form).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        if len(places) >= len(sample.arrays) and set(sample.options) <= set(signature(form).parameters):
            return module, name, places[: len(sample.arrays)]
    return module, name, None


NAMED = [op for op in OPS if isinstance(op.torch, str) and not op.torch.startswith("Tensor")]


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("op", NAMED, ids=lambda op: op.name)
def test_calls_by_torchs_names_agree(op):
    for sample in op.samples(4):
        module, name, places = called(op, sample)
        ours = getattr(importlib.import_module(module), name, None)
        if ours is None:
            pytest.skip(f"{module} leaves out {name}")
        expected = op.in_torch(torch)(*map(torch.from_numpy, sample.arrays), **sample.options)
        results = [ours(*op.tensors(sample), **sample.options)]
        if places:
            results.append(ours(**dict(zip(places, op.tensors(sample))), **sample.options))
        for result in results:
            for one, other in zip(tensors_of(result), [expected] if isinstance(expected, torch.Tensor) else expected):
                np.testing.assert_allclose(one.detach().numpy(), other.numpy(), rtol=1e-10, atol=1e-12)


def test_a_name_of_ours_that_torch_does_not_have_would_be_noticed():
    assert _names.find("tinytorch", "surprise") is None and "surprise" in tt.PRIMITIVES
