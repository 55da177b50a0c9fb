"""`python -m tinytorch`: a process in which `torch` is tinytorch. Nothing is installed under that name.

One finder answers `import torch`, `import torch.nn` and `import torchvision` with the modules of tinytorch. It says so
on the error stream, and it refuses to run beside the real torch. Worker processes that Python starts anew get this
process's sys.path, so a folder in it has a module `torch` that installs the finder there."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import runpy
import sys
import traceback
import types

USAGE = """usage: python -m tinytorch [-v] PROGRAM [ARGS]
       python -m tinytorch [-v] -m MODULE [ARGS]
       python -m tinytorch [-v] -c CODE [ARGS]

Runs a program that was written for torch (and torchvision's MNIST and CIFAR10) on tinytorch.

options:
  -v    say which module of torch is answered by which of tinytorch"""

PLACES = {"torch": "tinytorch", "torchvision": "tinytorch.vision"}


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of tinytorch under torch's names."""

    def __init__(self, verbose: bool = False):
        self.verbose = verbose

    def find_spec(self, name, path=None, target=None):
        """The spec of a module of torch's; ModuleNotFoundError for one that tinytorch has not."""
        top, _, rest = name.partition(".")
        if top not in PLACES:
            return None
        place = f"{PLACES[top]}.{rest}" if rest else PLACES[top]
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not place.startswith(error.name):
                raise
            raise ModuleNotFoundError(self._missing(name, place), name=name) from None
        if self.verbose:
            print(f"tinytorch: {name} is {place}", file=sys.stderr)
        spec = importlib.machinery.ModuleSpec(name, self)
        spec.loader_state = module, module.__spec__
        return spec

    def _missing(self, name, place):
        parent, _, last = place.rpartition(".")
        try:
            getattr(importlib.import_module(parent), last)
        except (AttributeError, ImportError) as error:
            return str(error)
        return f"{name} is not a module of its own in tinytorch"

    def create_module(self, spec):
        """The module of tinytorch."""
        return spec.loader_state[0]

    def exec_module(self, module):
        """Nothing: the module has been imported by its own name, which it keeps."""
        spec = module.__spec__.loader_state[1]
        module.__spec__ = spec


def install(verbose: bool = False) -> None:
    """From now on, `import torch` gives tinytorch in this process. Raises RuntimeError beside the real torch."""
    real = sys.modules.get("torch")
    if real is not None and real.__name__ != "tinytorch":
        raise RuntimeError("the real torch has been imported in this process; start the program by python -m tinytorch")
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder(verbose))


def take_the_place_of(name: str) -> None:
    """Install the finder, and import by it what is being imported."""
    del sys.modules[name]
    install()
    importlib.import_module(name)


def main(arguments: list[str] | None = None) -> None:
    """Run the program that the command line names."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verbose = given[:1] == ["-v"]
    given = given[verbose:]
    if not given or given[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if given else 2)
    if given[0] in ("-m", "-c") and len(given) < 2:
        sys.exit(f"tinytorch: {given[0]} needs an argument")
    try:
        install(verbose)
    except RuntimeError as error:
        sys.exit(f"tinytorch: {error}")
    sys.path.insert(1, os.path.join(os.path.dirname(__file__), "_path"))
    print("tinytorch: `torch` is tinytorch in this process", file=sys.stderr)
    sys.excepthook = _plain_traceback
    if given[0] == "-m":
        sys.argv = given[1:]
        runpy.run_module(given[1], run_name="__main__", alter_sys=True)
    elif given[0] == "-c":
        sys.argv = ["-c", *given[2:]]
        _run(given[1], "<string>")
    else:
        _run_file(given)


def _run_file(given: list[str]) -> None:
    path = given[0]
    if os.path.isdir(path):
        sys.argv = given
        sys.path[0] = path
        runpy.run_path(path, run_name="__main__")
        return
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        sys.exit(f"tinytorch: cannot open {path!r}: {error.strerror}")
    sys.argv, sys.path[0] = given, os.path.dirname(os.path.abspath(path))
    _run(source, path)


def _run(source: str | bytes, path: str) -> None:
    """Execute a program as the module __main__."""
    module = types.ModuleType("__main__")
    module.__dict__.update(__builtins__=__builtins__)
    if path != "<string>":
        module.__file__ = path
    sys.modules["__main__"] = module
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)


def _plain_traceback(kind, error, trace) -> None:
    """A traceback that begins in the program, without the lines of runpy and of this file."""
    own = (__file__, runpy.__file__, os.path.join(os.path.dirname(__file__), "__main__.py"), "<frozen runpy>")
    while trace is not None and trace.tb_frame.f_code.co_filename in own:
        trace = trace.tb_next
    traceback.print_exception(kind, error, trace)
