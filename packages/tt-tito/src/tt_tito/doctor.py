"""Problems that an environment may have, each with the command that fixes it."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tt_tito import course, curriculum, finder

__all__ = ["Problem", "problems"]


@dataclass(frozen=True)
class Problem:
    """What is wrong, and what fixes it. A problem that is not serious is only a remark."""

    what: str
    fix: str
    serious: bool = True


def problems() -> list[Problem]:
    """All problems of this environment."""
    checks = (_python, _packages, _start_file, _stand_ins, _shadows, _workspace, _command, _machine)
    return [problem for check in checks for problem in check()]


def _python() -> Iterator[Problem]:
    if sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ:
        yield Problem(
            "this Python is not a virtual environment, so other programs share its packages",
            "python -m venv .venv, activate it, and install again",
            serious=False,
        )


def _packages() -> Iterator[Problem]:
    for package in curriculum.packages():
        if course.locate(package.module) is None:
            if package.name == "tt-tensor":
                yield Problem("no package of the course is installed", "pip install tt-autograd")
            return
        if other := course.foreign(package):
            yield Problem(
                f"{other} has the name of the course's package {package.name}, and hides it",
                f"take {other.parent} out of PYTHONPATH, or rename the folder",
            )
        elif not course.tests(package.name).is_dir():
            yield Problem(
                f"{package.name} was installed without its tests, so nothing can be judged",
                f"pip install --force-reinstall --no-deps {package.name}",
            )


def _start_file() -> Iterator[Problem]:
    folders = [sysconfig.get_path("purelib"), site.getusersitepackages(), *sys.path]
    if not any((Path(folder) / "tt_swap.pth").is_file() for folder in folders):
        yield Problem(
            "tt_swap.pth is not in this environment, so tt.toml has no effect",
            "pip install --force-reinstall --no-deps tt-tito",
        )
    if os.environ.get("TT_SWAP") == "0":
        yield Problem("TT_SWAP is 0, so the reference is in use everywhere", "unset TT_SWAP", serious=False)


def _stand_ins() -> Iterator[Problem]:
    from tt_tito import swap

    try:
        table = swap.in_use()
    except swap.SwapError as error:
        yield Problem(str(error), "correct that line of tt.toml, or: tito use NAME reference")
        return
    for module in table.targets:
        process = subprocess.run(
            [sys.executable, "-c", f"import {module}"], capture_output=True, encoding="utf-8", errors="replace"
        )
        if process.returncode:
            last = (process.stderr.strip().splitlines() or ["it ended without a message"])[-1]
            name = module.partition(".")[2] or module.replace("_", "-")
            yield Problem(f"the stand-in for {module} cannot be imported: {last}", f"tito use {name} reference")


def _shadows() -> Iterator[Problem]:
    for package in curriculum.packages():
        for name in (package.module, f"{package.module}.py"):
            if Path(name).exists():
                yield Problem(
                    f"{name} in this folder hides the package {package.name} from Python",
                    f"move it to work/: {'ren' if os.name == 'nt' else 'mv'} {name} my_{name}",
                )


def _workspace() -> Iterator[Problem]:
    found = finder.search(str(Path.cwd()))
    if found is None:
        yield Problem("there is no workspace in this folder or above it", "tito setup", serious=False)
    elif not os.access(Path(found).parent, os.W_OK):
        yield Problem(f"{Path(found).parent} is not writable", "tito setup, in a folder of your own")


def _command() -> Iterator[Problem]:
    scripts = Path(sysconfig.get_path("scripts"))
    found = shutil.which("tito")
    if found and Path(found).resolve().parent != scripts.resolve() and (scripts / Path(found).name).exists():
        yield Problem(
            f"the command tito is {found}, which belongs to another Python", f"{scripts / 'tito'} doctor", serious=False
        )


def _machine() -> Iterator[Problem]:
    """What the reference of chapter 01 finds about the machine."""
    if course.locate("tt_tensor.setup") is None:
        return
    script = "import json, tt_tensor; print(json.dumps([(p.what, p.fix) for p in tt_tensor.check_environment()]))"
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", env={**os.environ, "TT_SWAP": "0"}
    )
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Problem(f"tt_tensor cannot be imported: {last}", "pip install --force-reinstall numpy tt-tensor")
        return
    import json

    for what, fix in json.loads(process.stdout):
        yield Problem(what, fix, serious=False)
