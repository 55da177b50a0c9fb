"""What `import tinytorch as torch` offers: torch's names in torch's places, and words for what is missing."""

import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

import tinytorch as torch
import tt_nlp
import tt_optim
import tt_tensor as tt
from tinytorch import _names, nn, optim

MODULES = ["tinytorch"] + [
    found.name
    for found in pkgutil.walk_packages(torch.__path__, "tinytorch.")
    if not any(part.startswith("_") for part in found.name.split(".")) and not found.name.startswith("tinytorch.vision")
]
MISSING = object()
NOT_TORCHS = {
    "tinytorch": {"vision"}, "tinytorch.utils": {"tensorboard"}, "tinytorch.utils.tensorboard": {"SummaryWriter"},
    "tinytorch.nn.modules": {"NonDynamicallyQuantizableLinear"},  # torch has it in nn.modules.linear
}


def run(code, **options):
    """What a fresh interpreter prints."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", **options)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.mark.parametrize("module", MODULES)
def test_only_names_that_torch_has(module):
    names = {name for name in vars(importlib.import_module(module)) if name[0] != "_"}
    theirs = _names.torch_names(_names.torch_name(module))
    assert names - set(theirs) - NOT_TORCHS.get(module, set()) == set()


@pytest.mark.parametrize("module", [module for module in MODULES if not module.endswith(("tensorboard", "cudnn"))])
def test_dir_gives_what_is_offered_and_each_can_be_taken(module):
    loaded = importlib.import_module(module)
    names = [name for name in dir(loaded) if name[0] != "_"]
    assert [name for name in names if getattr(loaded, name, MISSING) is MISSING] == []


def test_names_are_those_of_the_packages():
    assert nn.Linear is tt.Linear and optim.Adam is tt_optim.Adam and nn.RNN is tt_nlp.RNN
    assert nn.Embedding is tt_nlp.more_embeddings.Embedding and nn.EmbeddingBag is tt_nlp.EmbeddingBag
    assert isinstance(tt.ones(2), torch.Tensor)
    assert torch.float is torch.float32 is tt.float32 and torch.long is tt.int64
    assert nn.modules.Linear is nn.Linear and importlib.import_module("tinytorch.nn.modules.linear").Linear is nn.Linear


def test_places_are_reached_without_an_import_of_their_own():
    assert torch.nn.functional.relu(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
    assert isinstance(torch.optim.lr_scheduler, types.ModuleType) and torch.utils.data.DataLoader


def test_a_star_import_gives_all():
    names: dict = {}
    exec("from tinytorch.nn import *", names)
    assert {"Linear", "Sequential", "functional"} <= set(names)


def test_pictures_are_in_torchvisions_places():
    from tinytorch.vision import datasets, transforms, utils

    assert dir(utils) == ["make_grid", "save_image"] and "split" not in dir(transforms)
    assert {"CIFAR10", "MNIST"} <= set(dir(datasets)) and transforms.functional.__name__.startswith("tinytorch.")
    with pytest.raises(AttributeError, match=r"'tinytorch.vision.datasets' has no attribute 'CIFAR100'.*: CIFAR10"):
        datasets.CIFAR100
    with pytest.raises(AttributeError, match="'tinytorch.vision' has no attribute 'ops'"):
        torch.vision.ops


def test_networks_of_torchvision_can_be_imported_and_say_that_they_are_not_here():
    from tinytorch.vision import models
    from tinytorch.vision.models import ResNet18_Weights, resnet18

    assert resnet18.__name__ in dir(models) and "detection" in dir(models)
    weights = ResNet18_Weights.DEFAULT
    for call in (lambda: resnet18(weights=None), lambda: weights.transforms(), lambda: models.detection.ssd300_vgg16()):
        with pytest.raises(RuntimeError, match=r"torchvision.models.\w+ is not available: pretrained networks"):
            call()
    with pytest.raises(AttributeError, match="the nearest here: resnet18"):
        models.resnet_18


def test_a_sampler_for_one_of_several_processes():
    from tinytorch.utils.data.distributed import DistributedSampler

    assert list(DistributedSampler(range(5), num_replicas=2, rank=1, shuffle=False)) == [1, 3, 0]


def test_functions_can_be_pickled():
    import pickle

    assert pickle.loads(pickle.dumps(torch.nn.functional.relu)) is torch.nn.functional.relu


@pytest.mark.parametrize("module, name", [
    ("tinytorch", "embedding"), ("tinytorch", "adaptive_max_pool1d"), ("tinytorch.utils.data", "graph"),
])
def test_what_torch_means_otherwise_is_left_out(module, name):
    loaded = importlib.import_module(module)
    assert name in _names.torch_names(_names.torch_name(module))
    with pytest.raises(AttributeError, match=f"has `{name}`; {module} does not"):
        getattr(loaded, name)


@pytest.mark.parametrize("name, words", [
    ("fft", "torch has `fft`; tinytorch does not: numpy.fft"),
    ("zeros_lik", "has no attribute 'zeros_lik', and torch has none either; the nearest here: zeros_like"),
    ("cholesky_inverse", "torch has `cholesky_inverse`; tinytorch does not"),
])
def test_a_missing_name_is_explained(name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(torch, name)
    assert not hasattr(torch, name)
    with pytest.raises(ImportError):
        exec(f"from tinytorch import {name}")


def test_a_missing_name_of_a_submodule_is_explained():
    with pytest.raises(AttributeError, match="torch.nn has `AdaptiveLogSoftmaxWithLoss`; tinytorch.nn does not"):
        nn.AdaptiveLogSoftmaxWithLoss
    with pytest.raises(AttributeError, match="module 'tinytorch.nn' has no attribute 'Linearr'.*: Linear"):
        nn.Linearr


def test_dunder_names_are_no_names_of_torchs():
    assert not hasattr(torch, "__wrapped__") and not hasattr(nn.functional, "__path__")


@pytest.mark.parametrize("call", [
    lambda: torch.compile(nn.Linear(1, 1)),
    lambda: torch.jit.script(nn.Linear(1, 1)),
    lambda: torch.onnx.export(nn.Linear(1, 1), torch.zeros(1), "x"),
    lambda: torch.distributed.init_process_group("gloo"),
    lambda: nn.parallel.DistributedDataParallel(nn.Linear(1, 1)),
    lambda: nn.DataParallel(nn.Linear(1, 1)),
])
def test_what_cannot_be_done_is_refused_when_it_is_called(call):
    with pytest.raises(RuntimeError, match=r"torch\.\S+ is not available: "):
        call()


def test_importing_leaves_the_heavy_packages_unloaded():
    code = "import sys, tinytorch; tinytorch.zeros(2).sum(); print(*[m for m in {} if m in sys.modules])"
    assert run(code.format(("numba", "tt_nlp", "tt_opt", "tt_data", "tt_spatial", "tinytorch.nn"))) == ""


def test_a_network_does_not_load_what_it_does_not_use():
    code = "import sys, tinytorch as t; t.nn.Linear(2, 2); t.optim.SGD; print(*[m for m in {} if m in sys.modules])"
    assert run(code.format(("tt_nlp", "tt_data", "numba"))) == ""
