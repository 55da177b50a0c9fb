"""Beside torchvision: every name of tinytorch.vision is one of torchvision's."""

import importlib

import pytest

try:
    import torchvision
except (ImportError, RuntimeError, OSError) as error:  # a torchvision that was built for another torch
    pytest.skip(f"torchvision is the oracle here: {error}", allow_module_level=True)


@pytest.mark.parametrize("name", ["datasets", "transforms", "transforms.functional", "utils"])
def test_every_name_exists_in_torchvision(name):
    ours = importlib.import_module(f"tinytorch.vision.{name}")
    theirs = importlib.import_module(f"{torchvision.__name__}.{name}")
    assert [each for each in dir(ours) if not hasattr(theirs, each)] == []
