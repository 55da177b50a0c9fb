# # Shipping
#
# An appendix of chapter 20. At the end of it you have one file with everything that the chat model or your project
# needs, and it runs on a machine that has never heard of this course.

# ## What has to go along
#
# On your machine the program runs because a dozen packages are installed, and perhaps because some of your chapters
# replace ours. A colleague wants to try it and has Python. We could send a list of instructions. Instead we send one
# file, because Python can run an archive: `python chat.pyz` looks for `__main__.py` inside, and imports modules from
# the archive as from a folder.
#
# | what | where it comes from |
# | --- | --- |
# | modules of the course, and yours where they replace them | the file that Python would import here |
# | libraries in plain Python, such as Jinja | the archive |
# | NumPy, regex, safetensors: machine code | `pip install` over there, or a folder made for machines like ours |
# | weights | a file beside it, because they are a hundred times as large and change at other times |

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from tt_capstone.cards import own_chapters, write_text

# ## Following the imports
#
# Which modules does a program need? We could run it and look at `sys.modules`, but then we would miss modules that a
# function imports only when it is called. So we read the source. It may contain an `import` anywhere, and it may import
# a module of the course later by a name in quotes. We collect all such names and let Python decide whether there is
# such a module.


def mentioned(source: bytes | str) -> set[str]:
    """Return the names of all modules that a source may import anywhere, and some names that are not modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and re.fullmatch(r"tt_\w+(\.\w+)*", str(node.value)):
            found.add(str(node.value))
    return found


def check_mentioned():
    source = "import a.b\ndef later():\n    from c import d\nSETS = {'fast': 'tt_opt.fast'}"
    assert mentioned(source) == {"a.b", "c", "c.d", "tt_opt.fast"}


# With `find_spec` we ask Python where it would find a module. The answer takes everything into account, including the
# `tt.toml` that replaces one of our chapters by yours. So we pack exactly the modules that you would import here.


def located(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return where Python finds a module of the course, or None if it is not one."""
    if not name.startswith("tt_") or name.partition(".")[0] == "tt_tito":
        return None
    with suppress(ModuleNotFoundError):
        spec = importlib.util.find_spec(name)
        return spec if spec and spec.origin else None
    return None


def source_of(spec: importlib.machinery.ModuleSpec) -> bytes:
    """Return the source of a module, from a folder or an archive."""
    loader: Any = spec.loader
    return loader.get_data(spec.origin)


# The rest is a walk through a graph. We take a module, look up which modules it mentions, and continue with those that
# are new. With each module we also take the packages around it.


def needed_modules(first: Iterable[str]) -> dict[str, importlib.machinery.ModuleSpec]:
    """Return all modules of the course that some names lead to, by name."""
    found: dict[str, importlib.machinery.ModuleSpec] = {}
    waiting = list(first)
    while waiting:
        name = waiting.pop()
        if name in found or (spec := located(name)) is None:
            continue
        found[name] = spec
        waiting += {*mentioned(source_of(spec)), name.rpartition(".")[0]}
    return dict(sorted(found.items()))


def check_needed_modules():
    found = needed_modules(["tt_optim"])
    assert {"tt_optim.optimizers", "tt_tensor.tensor", "tt_tensor.wording"} <= set(found)
    assert not any(name.startswith(("tt_autograd", "tt_tito")) for name in found)


# A package may also have data, such as the digits of chapter 08 or the page of the server. We pack all files that are
# not Python, and folders without modules, except for tests.

APART = {"__pycache__", "benchmarks", "py.typed", "tests"}


def data_of(package: str) -> Iterator[tuple[str, bytes]]:
    """Yield the data files of a package, by their paths in it."""

    def walk(folder, path):
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.name in APART or entry.name.startswith(".") or entry.joinpath("__init__.py").is_file():
                continue
            if entry.is_dir():
                yield from walk(entry, f"{path}{entry.name}/")
            elif path or not entry.name.endswith((".py", ".pyc")):
                yield path + entry.name, entry.read_bytes()

    yield from walk(resources.files(package), "")


def packed_modules(specs: Mapping[str, importlib.machinery.ModuleSpec]) -> dict[str, bytes]:
    """Return the files of modules and the data of their packages, by their paths in an archive."""
    files = {}
    for name, spec in specs.items():
        path = name.replace(".", "/")
        if spec.submodule_search_locations is None:
            files[f"{path}.py"] = source_of(spec)
        else:
            files[f"{path}/__init__.py"] = source_of(spec)
            files |= {f"{path}/{file}": data for file, data in data_of(name)}
    return files


# ## Libraries of others
#
# Each package declares which libraries it needs, and `importlib.metadata` knows the declarations of all installed
# packages. A library in plain Python goes into the archive, together with those that it needs itself. A library with
# machine code cannot go there, because Python loads machine code only from files, and because it differs between
# systems. MarkupSafe has both, but works without its machine code.

WORKS_WITHOUT = {"markupsafe"}
MACHINE_CODE = (".so", ".pyd", ".dylib", ".dll")


def requirements(name: str) -> dict[str, str]:
    """Return the requirements of an installed distribution, without its extras, by name."""
    try:
        declared = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"{name} is not installed, so its requirements are unknown: pip install {name}") from None
    plain = [line.partition(";")[0].strip() for line in declared if "extra ==" not in line.replace("'", '"')]
    return {key(re.split(r"[^\w.-]", line, maxsplit=1)[0]): line for line in plain}


def key(name: str) -> str:
    """Return the name of a distribution in the form in which indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


# Some requirements hold only for other systems or older versions of Python. If a library is not installed here, we do
# not need it.


def installed(name: str) -> importlib.metadata.Distribution | None:
    """Return a distribution, or None if it is not installed."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def with_machine_code(found: importlib.metadata.Distribution) -> bool:
    """Return whether a distribution runs only with its machine code."""
    compiled = any(file.name.endswith(MACHINE_CODE) for file in found.files or [])
    return compiled and key(found.metadata["Name"]) not in WORKS_WITHOUT


# So we walk through a graph again. This walk ends at libraries with machine code.


def sorted_out(wanted: Mapping[str, str]) -> tuple[dict[str, importlib.metadata.Distribution], dict[str, str]]:
    """Follow requirements by name. Returns distributions to pack, and the requirements of those with machine code."""
    packed: dict[str, importlib.metadata.Distribution] = {}
    compiled: dict[str, str] = {}
    waiting = dict(wanted)
    while waiting:
        name, line = waiting.popitem()
        found = installed(name)
        if found is None or name in packed or name.startswith("tt-"):
            continue
        if with_machine_code(found):
            compiled[name] = line
        else:
            packed[name] = found
            waiting |= requirements(name)
    return dict(sorted(packed.items())), dict(sorted(compiled.items()))


# We pack the files of a distribution, its metadata and its licence, because most licences demand that. We leave out the
# list of its files with their checksums, which is useless in an archive and reveals where you had installed it.

LEFT_OUT = (*MACHINE_CODE, ".pyc", ".pyi", ".typed", ".c", ".h")


def library_files(found: importlib.metadata.Distribution) -> dict[str, bytes]:
    """Return the files of a distribution in plain Python, by their paths in an archive."""
    files = {}
    for file in found.files or []:
        described = file.parts[0].endswith(".dist-info")
        legal = re.match(r"METADATA|LICEN[CS]E|COPYING|NOTICE", file.name)
        kept = legal if described else not file.name.endswith(LEFT_OUT)
        if kept and ".." not in file.parts and not Path(str(file)).is_absolute():
            files[file.as_posix()] = Path(str(file.locate())).read_bytes()
    return files


# You install `typing-extensions` and import `typing_extensions`, and sometimes the two names have nothing in common. We
# find the second name among the files.


def modules_of(found: importlib.metadata.Distribution) -> set[str]:
    """Return the names under which you import a distribution."""
    tops = {file.parts[0] for file in found.files or [] if file.suffix in (".py", *MACHINE_CODE)}
    return {top.partition(".")[0] for top in tops if top.partition(".")[0].isidentifier()}


def imported_as(name: str) -> str:
    """Return the name under which you import an installed distribution."""
    found, alike = importlib.metadata.distribution(name), name.replace("-", "_")
    names = modules_of(found)
    return alike if alike in names or not names else min(names)


def check_imported_as():
    assert imported_as("numpy") == "numpy" and imported_as("safetensors") == "safetensors"


# ## What happens at the start
#
# Before the program runs, a few lines check the machine: is this Python new enough, are the libraries installed that we
# could not pack, and is each file unchanged? These lines become the `__main__.py` of the archive, so they may need
# nothing except for Python. We copy the sources of the functions below into it, so that you can read and test them
# here.


def missing(needed: Mapping[str, str]) -> list[str]:
    """Return the requirements whose modules Python does not find."""
    return [requirement for module, requirement in needed.items() if importlib.util.find_spec(module) is None]


def damaged(files: Mapping[str, str], read: Callable[[str], bytes]) -> list[str]:
    """Return the files whose content, read(name), does not have the given SHA-256."""

    def changed(name):
        try:
            return hashlib.sha256(read(name)).hexdigest() != files[name]
        except (OSError, ImportError):
            return True

    return [name for name in files if changed(name)]


def check_damaged():
    files = {"a": hashlib.sha256(b"a").hexdigest(), "b": hashlib.sha256(b"b").hexdigest()}
    assert damaged(files, lambda name: {"a": b"a", "b": b"c"}[name]) == ["b"]


# We read an archive and a folder in the same way, through the loader that has loaded `__main__.py`. The folder may have
# libraries in `lib`, for one system and one version of Python. Because these are many files, we check them only if you
# ask for it, with `--verify`. There is one trap: Numba keeps compiled functions beside the source or in a cache. It
# knows archives only by names that end in `.zip`, and refuses all others. So in a `.pyz` we hide Numba and use the
# kernels of NumPy. If the other machine has Numba, name the archive `chat.zip`, because Python runs that as well.


def begin(place: str, read: Callable[[str], bytes]) -> None:
    """Check whether the packed program can run here. If not, end it with advice."""
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("This program needs Python 3.11 or newer; this is " + sys.version.split()[0])
    if place.endswith(".pyz"):
        sys.modules["numba"] = None  # type: ignore[assignment]
    manifest = json.loads(read("MANIFEST.json"))
    here = sys.implementation.cache_tag + " " + sysconfig.get_platform()
    if manifest["lib"]:
        if manifest["lib"] != here:
            sys.exit(f"This folder was packed for {manifest['lib']}, and this is {here}: pack it on such a machine")
        sys.path.insert(1, os.path.join(os.path.abspath(place), "lib"))
    lacking = missing(manifest["needed"])
    if lacking:
        quoted = " ".join(f'"{requirement}"' for requirement in lacking)
        sys.exit(f"This program needs {', '.join(lacking)}: {sys.executable} -m pip install {quoted}")
    verify = sys.argv[1:] == ["--verify"]
    checked = {name: value for name, value in manifest["files"].items() if verify or not name.startswith("lib/")}
    wrong = damaged(checked, read)
    if wrong:
        sys.exit(f"{len(wrong)} files are damaged, the first is {wrong[0]}: get {place} again")
    if verify:
        print(f"all {len(checked)} files are as they were packed")
        sys.exit(0)


# The rest starts the packed program: `tt_capstone` with its commands, or the `main` of a project.

HEAD = """from __future__ import annotations

import hashlib, importlib.util, json, os, sys, sysconfig
"""
TAIL = """
def read(name):
    return __loader__.get_data(os.path.join(place, *name.split("/")))


place = os.path.dirname(__file__)
begin(place, read)
"""
RUN = {
    "tt_capstone": 'import runpy\n\nrunpy.run_module("tt_capstone", run_name="__main__", alter_sys=True)\n',
    "project": "import project\n\nsys.exit(project.main(sys.argv[1:]))\n",
}


def starter(run: str) -> str:
    """Return the text of __main__.py, which starts "tt_capstone" or "project"."""
    parts = [HEAD, *(inspect.getsource(function) for function in (missing, damaged, begin)), TAIL + RUN[run]]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


# ## Packing
#
# For the chat model we pack all modules of `tt_capstone`, so that the archive has the same commands. For a project we
# pack only the modules that its files import.


def first_names(project: Path | None) -> set[str]:
    """Return the names of the modules at which the walk begins."""
    if project is None:
        package = resources.files("tt_capstone")
        inner = {entry.name.removesuffix(".py") for entry in package.iterdir() if entry.name.endswith(".py")}
        return {"tt_capstone", *(f"tt_capstone.{name}" for name in inner - {"__init__"})}
    if not (project / "project.py").is_file():
        raise ValueError(f"{project} has no project.py: begin a project with `python -m tt_capstone new`")
    return set().union(*(mentioned(file.read_bytes()) for file in project.glob("*.py")))


# Libraries are needed by our packages, by your project, and by your chapters. For chapters we count only imports at the
# top of the file, because nearly every chapter can draw, with a library that a running model does not need. If two
# packages demand different versions of one library, both conditions count.


def joined(lines: Iterable[str]) -> dict[str, str]:
    """Return requirements by name, with all conditions on one library in one line."""
    conditions: dict[str, set[str]] = {}
    for line in lines:
        name, rest = re.fullmatch(r"([\w.-]+)\s*(.*)", line).groups()
        conditions.setdefault(key(name), set()).update(part.strip() for part in rest.split(",") if part.strip())
    return {name: name + ",".join(sorted(found)) for name, found in sorted(conditions.items())}


def check_joined():
    assert joined(["a>=1", "B", "a >=2,<3"]) == {"a": "a<3,>=1,>=2", "b": "b"}


def loaded_with(source: bytes | str) -> set[str]:
    """Return the names of modules that a source imports outside its functions and classes."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return mentioned(ast.unparse(tree))


def wanted_libraries(specs: Mapping[str, importlib.machinery.ModuleSpec], names: set[str]) -> dict[str, str]:
    """Return the requirements, by name, of modules of the course, and of a project that mentions names."""
    lines = [line for name in specs if "." not in name for line in requirements(name.replace("_", "-")).values()]
    own = [loaded_with(source_of(specs[name])) for name in own_chapters() if name in specs]
    known = {name.replace("-", "_") for name in joined(lines)} | set(sys.stdlib_module_names)
    foreign = {name.partition(".")[0] for name in names.union(*own)} - known
    foreign = {name for name in foreign if importlib.util.find_spec(name) and not name.startswith("tt_")}
    for found in importlib.metadata.distributions() if foreign else ():
        lines += [found.metadata["Name"]] if foreign & modules_of(found) else []
    return {name: line for name, line in joined(lines).items() if not name.startswith("tt-")}


# From a project we pack the Python files and the card. (The card of a checked project says what it must not be used
# for, and this warning should travel with it.)


def project_files(project: Path) -> dict[str, bytes]:
    """Return the files of a project that we pack, by name."""
    cards = [project / name for name in ("CARD.md", "card.json") if (project / name).is_file()]
    return {file.name: file.read_bytes() for file in [*project.glob("*.py"), *cards]}


# The *manifest* lists each file with its checksum, and the libraries that must be there at the start.


def manifest(files: Mapping[str, bytes], needed: Mapping[str, str], lib: str | None) -> bytes:
    """Return the content of MANIFEST.json."""
    content = {
        "schema": 1, "needed": dict(needed), "lib": lib, "own_chapters": own_chapters(),
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
    }  # fmt: skip
    return (json.dumps(content, indent=1) + "\n").encode()


# The same files should give the same bytes (a *reproducible build*), so that you can tell by a checksum whether two
# archives are equal. So we sort the files by name, set their times to the beginning of the format's calendar, and
# compress nothing, because compressors differ from version to version.


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a zip file of files, with the same bytes for the same files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # as on Unix, also on Windows
            packed.writestr(entry, files[name], zipfile.ZIP_STORED)
    return data.getvalue()


def check_archive():
    data = archive({"b": b"2", "a": b"1"})
    assert data == archive({"a": b"1", "b": b"2"})
    assert zipfile.ZipFile(io.BytesIO(data)).namelist() == ["a", "b"]


# ## A folder that needs no network
#
# If even `pip install` is impossible over there, we can put the libraries into a folder. We fill it with `pip` (or with
# `uv`, in an environment without pip), in the versions that are installed here. The folder then works on machines with
# the same system and the same version of Python. We demand copies of all files, because uv would link them to its
# cache, and an edit in the folder would reach every environment of the machine.


def installer() -> list[str]:
    """Return the command that installs packages for this Python."""
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        return ["uv", "pip", "install", "--link-mode", "copy", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]


def fill(lib: Path, wanted: Iterable[str]) -> None:
    """Install libraries into a folder, in the versions that are installed here. Raises OSError if that fails."""
    every = {key(found.metadata["Name"]): found.version for found in importlib.metadata.distributions()}
    pins = [f"{name}=={version}" for name, version in sorted(every.items()) if not name.startswith("tt-")]
    constraints = lib.with_name("constraints.txt")
    constraints.write_text("\n".join(pins), encoding="utf-8")
    options = ["--quiet", "--target", str(lib), "-c", str(constraints), *sorted(wanted)]
    done = subprocess.run([*installer(), *options], capture_output=True, encoding="utf-8", check=False)
    constraints.unlink()
    if done.returncode:
        raise OSError(f"the libraries could not be downloaded: {done.stderr.strip()}")
    for scripts in ("bin", "Scripts"):  # which name this Python
        shutil.rmtree(lib / scripts, ignore_errors=True)


# The folder gets its name only when it is complete.


def write_folder(folder: Path, files: dict[str, bytes], wanted: Iterable[str]) -> None:
    """Write files into a new folder, with libraries in `lib`. The folder appears only when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        fill(made / "lib", wanted)
        libraries = sorted(file for file in (made / "lib").rglob("*") if file.is_file())
        lib = {file.relative_to(made).as_posix(): file.read_bytes() for file in libraries}
        tag = f"{sys.implementation.cache_tag} {sysconfig.get_platform()}"
        files["MANIFEST.json"] = manifest(files | lib, {}, tag)
        for name, data in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(data)
        made.chmod(0o755)
        os.replace(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


# We refuse impossible requests before we do any work.


def refuse(path: Path, folder: bool, include: Sequence[str]) -> None:
    """Raise ValueError for a path that we cannot write to, or a library that is not installed."""
    if not folder and path.suffix not in (".pyz", ".zip"):
        raise ValueError(f"{path.name} is not a name for an archive: let it end in .pyz or .zip")
    if folder and path.exists():
        raise ValueError(f"{path} exists already: choose a new folder, because nothing is overwritten")
    for name in include:
        if installed(name) is None:
            raise ValueError(f"{name} cannot be packed, because it is not installed here: pip install {name}")


# We put it all together:

SERVE = ("starlette", "uvicorn", "prometheus-client")


def ship(
    path: str | os.PathLike, *, project: str | os.PathLike | None = None, include: Sequence[str] = (),
    folder: bool = False,
) -> Path:
    """Write everything that `python -m tt_capstone` needs, or a project, into an archive or a folder; returns its path.

    `include` names libraries to pack besides the required ones, such as those in SERVE. With folder=True, libraries
    with machine code are packed, too, for this system. Raises ValueError for an archive whose name does not end in .pyz
    or .zip, a folder that exists already, or a library that is not installed."""
    path, home = Path(path), None if project is None else Path(project)
    refuse(path, folder, include)
    names = first_names(home)
    specs = needed_modules(names)
    wanted = wanted_libraries(specs, names if home else set()) | {key(name): name for name in include}
    files = packed_modules(specs) | (project_files(home) if home else {})
    files["__main__.py"] = starter("project" if home else "tt_capstone").encode()
    if folder:
        write_folder(path, files, wanted.values())
        return path
    libraries, compiled = sorted_out(wanted)
    for found in libraries.values():
        files |= library_files(found)
    needed = {imported_as(name): line for name, line in compiled.items()}
    files["MANIFEST.json"] = manifest(files, needed, None)
    write_text(path, archive(files))
    return path


# How large is the archive, and what is in it?


def show_archive():
    with tempfile.TemporaryDirectory() as folder:
        file = ship(Path(folder) / "chat.pyz")
        with zipfile.ZipFile(file) as packed:
            sizes: dict[str, int] = {}
            for entry in packed.infolist():
                top = entry.filename.partition("/")[0]
                sizes[top] = sizes.get(top, 0) + entry.file_size
            needed = json.loads(packed.read("MANIFEST.json"))["needed"]
        for top, size in sorted(sizes.items(), key=lambda item: -item[1])[:12]:
            print(f"{top:28s} {size / 1e3:8.1f} KB")
        print(f"{len(sizes) - 12} others; in all {file.stat().st_size / 1e6:.1f} MB")
        print("needs", ", ".join(needed.values()))


# ## The command
#
# You call it as `tito capstone ship`, or as `python -m tt_capstone ship`.


def main(arguments: list[str]) -> int:
    """Run the command `ship`, which writes an archive or a folder. Returns the exit status."""
    parser = argparse.ArgumentParser(
        "ship", description="Pack the chat model's program, or a project, for machines with Python and without this "
        "course. Weights are not packed.",
    )  # fmt: skip
    parser.add_argument("path", type=Path, help="the archive, NAME.pyz or NAME.zip, or with --folder a new folder")
    parser.add_argument("--project", type=Path, help="the folder of a project (default: the chat model's program)")
    parser.add_argument("--serve", action="store_true", help="pack the libraries of the server, too")
    parser.add_argument("--folder", action="store_true", help="a folder with all libraries, for machines like this one")
    given = parser.parse_args(arguments)
    try:
        made = ship(given.path, project=given.project, include=SERVE if given.serve else (), folder=given.folder)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if given.folder:
        print(f"wrote {made}: copy it, and run `python {made.name}`")
    else:
        print(f"wrote {made}, {made.stat().st_size / 1e6:.1f} MB: copy it, and run `python {made.name}`")
        print(f"SHA-256 {hashlib.sha256(made.read_bytes()).hexdigest()}")
    return 0


# ## A road not taken
#
# PyInstaller and Nuitka put Python itself into the file, so that the other machine needs nothing at all. But you must
# run them on each system, and you cannot read the result. A container holds a whole system. PyTorch exports a
# *program*, the computational graph of a model without Python (`torch.export`, and ONNX in another appendix of this
# chapter), for machines on which Python is too slow or too large. We chose our road because the point of this framework
# is that you can open the file and read it.

__all__ = ["SERVE", "archive", "joined", "mentioned", "needed_modules", "ship", "starter"]
