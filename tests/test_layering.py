"""Imports obey the course: a package imports what it declares, others use its public names only, nothing runs ahead."""

import ast
import functools
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from tt_tito import course, curriculum, exercises

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
IMPORTED = [folder for folder in FOLDERS if folder.name != "tt-torch"]  # which is installed beside PyTorch only
TEST_TOOLS = {"pytest", "hypothesis", "matplotlib", "torch", "gguf", "scipy", "tiktoken", "tokenizers", "transformers"}
TEST_TOOLS |= {"llama_cpp", "onnxruntime", "openai", "schemathesis", "selenium", "torchvision", "PIL"}
IMPORTED_AS = {"pillow": "PIL"}


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def import_names(requirements):
    names = {re.match(r"[\w-]+", requirement)[0].replace("-", "_") for requirement in requirements}
    return {IMPORTED_AS.get(name, name) for name in names}


def declared(folder):
    """What a package may import: the standard library, itself and its dependencies."""
    own = folder.name.replace("-", "_")
    return {*sys.stdlib_module_names, own, *import_names(project(folder)["dependencies"])}


def optional(folder):
    """What a package may import inside a function only."""
    extras = project(folder).get("optional-dependencies", {}).values()
    return import_names(requirement for extra in extras for requirement in extra)


def imports(source):
    """All absolute imports of a source: (line, module, name taken from it or None, local name, inside a function)."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lazy = {node for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None, alias.asname or alias.name, node in lazy
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield node.lineno, node.module, alias.name, alias.asname or alias.name, node in lazy
        elif isinstance(node, ast.Call) and re.search(r"\b(import_module|importorskip)$", ast.unparse(node.func)):
            if isinstance(node.args[0], ast.Constant):
                yield node.lineno, node.args[0].value, None, None, node in lazy


def foreign(source, allowed, allowed_in_functions=frozenset()):
    """The imports of a source that nothing allows."""
    return [
        f"line {line}: {module}"
        for line, module, _, _, is_lazy in imports(source)
        if (top := module.partition(".")[0]) not in allowed and not (is_lazy and top in allowed_in_functions)
    ]


def private(source, own=None):
    """What a source takes from tt_* packages other than its own without standing in their `__all__`."""
    taken, modules = [], {}
    for line, module, name, local, _ in imports(source):
        if not module.startswith("tt_") or module.partition(".")[0] == own:
            continue
        if name is None:
            modules[local] = module
        elif is_module(module, name):
            modules[local] = f"{module}.{name}"
        else:
            taken.append((line, module, name))
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    for node in nodes:  # tt.losses, a chapter of the package
        if (module := modules.get(ast.unparse(node.value))) and f"{module}.{node.attr}" in sys.modules:
            modules.setdefault(ast.unparse(node), f"{module}.{node.attr}")
    for node in nodes:
        if (module := modules.get(ast.unparse(node.value))) and f"{module}.{node.attr}" not in modules.values():
            taken.append((node.lineno, module, node.attr))
    return [f"line {line}: {module}.{name}" for line, module, name in taken if name not in public_names(module)]


def public_names(module):
    """What a module's `__all__` names, and a learner writes; a package without one offers what it imports from its
    chapters' `__all__`."""
    names = vars(importlib.import_module(module))
    offered = names.get("__all__", [name for name in names if name[0] != "_"])
    return {*offered, *written_in(module), "*", "__all__", "__file__", "__name__"}


@functools.cache
def written_in(module):
    """The functions and classes of a chapter in which exercises are."""
    chapters = [chapter for chapter in course.written() if chapter.module == module]
    texts = [course.reference(chapter).read_text(encoding="utf-8") for chapter in chapters]
    return {each.name.partition(".")[0] for text in texts for each in exercises.exercises(text)}


def is_module(package, name):
    """Whether `from package import name` gives a module; a package may have something else by a submodule's name."""
    found = getattr(importlib.import_module(package), name, None)
    if found is None and hasattr(sys.modules[package], "__path__"):
        return importlib.util.find_spec(f"{package}.{name}") is not None
    return isinstance(found, types.ModuleType)


def problems(files, judge):
    """What `judge` finds in the files, each with the file's name."""
    return [f"{file.relative_to(ROOT)}, {found}" for file in files for found in judge(file.read_text(encoding="utf-8"))]


def run(code):
    """Run code in a fresh interpreter and return what it prints."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_package_imports_only_what_it_declares(folder):
    extras = set(project(folder).get("optional-dependencies", {}))
    files = [file for file in folder.glob("src/**/*.py") if file.stem not in extras]
    assert not problems(files, lambda source: foreign(source, declared(folder), optional(folder)))
    own = [file for file in folder.glob("src/**/*.py") if file.stem in extras]  # loaded on demand
    assert not problems(own, lambda source: foreign(source, declared(folder) | optional(folder)))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_packages_tests_import_only_what_it_declares(folder):
    files = [file for kind in ("tests", "benchmarks") for file in folder.glob(f"{kind}/**/*.py")]
    assert not problems(files, lambda source: foreign(source, declared(folder) | optional(folder) | TEST_TOOLS))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_packages_use_each_others_public_names_only(folder):
    files = folder.glob("src/**/*.py")
    assert not problems(files, lambda source: private(source, own=folder.name.replace("-", "_")))


def test_tests_and_examples_use_public_names_only():
    patterns = ("packages/*/tests/**/*.py", "packages/*/benchmarks/**/*.py", "examples/**/*.py")
    files = [file for pattern in patterns for file in ROOT.glob(pattern)]
    judging = [file for file in files if "tt-tito" not in file.parts]  # nobody stands in for the course tool
    assert not problems(judging, private)
    assert not problems(set(files) - set(judging), lambda source: private(source, own="tt_tito"))


@pytest.mark.parametrize("source, found", [
    ("import tt_nlp", "line 1: tt_nlp"),
    ("import numpy\nfrom tt_nlp.attention import heads", "line 2: tt_nlp.attention"),
    ("def later():\n    import tt_nlp", "line 2: tt_nlp"),
    ("def later():\n    importlib.import_module('tt_nlp')", "line 2: tt_nlp"),
    ("import matplotlib.pyplot as plt", "line 1: matplotlib.pyplot"),
])
def test_an_import_that_nothing_allows_is_found(source, found):
    assert foreign(source, {"numpy"}, {"matplotlib"}) == [found]


def test_allowed_imports_are_let_pass():
    source = "import numpy.linalg\nfrom . import tensor\ndef show_it():\n    import matplotlib.pyplot as plt"
    assert foreign(source, {"numpy"}, {"matplotlib"}) == []


@pytest.mark.parametrize("source, found", [
    ("from tt_tito.curriculum import _build", "line 1: tt_tito.curriculum._build"),
    ("from tt_tito import curriculum\ncurriculum._build", "line 2: tt_tito.curriculum._build"),
    ("import tt_tito.curriculum as c\nc.functools", "line 2: tt_tito.curriculum.functools"),
    ("import tt_tito.curriculum\ntt_tito.curriculum._build", "line 2: tt_tito.curriculum._build"),
])
def test_a_private_name_is_found(source, found):
    assert private(source) == [found]
    assert private(source, own="tt_tito") == []


def test_public_names_are_let_pass():
    source = "import tt_tito\nfrom tt_tito import curriculum as c\nfrom tt_tito.curriculum import chapter\nc.chapters()"
    assert private(source) == []


def test_nobody_imports_the_course_tool():
    others = [folder for folder in FOLDERS if folder.name != "tt-tito"]
    assert not [folder.name for folder in others if "tt_tito" in declared(folder) | optional(folder)]


def test_a_package_declares_every_earlier_package():
    earlier = []
    for package in curriculum.packages():
        folder = ROOT / "packages" / package.name
        if folder in FOLDERS:
            assert [name for name in earlier if name.replace("-", "_") not in declared(folder)] == [], package.name
            earlier.append(package.name)


def test_versions_agree():
    versions = {folder.name: project(folder)["version"] for folder in FOLDERS}
    assert len(set(versions.values())) == 1, versions
    pins = [pin for folder in FOLDERS for pin in project(folder)["dependencies"] if pin.startswith("tt-")]
    assert pins, "no package depends on another"
    assert [pin for pin in pins if pin not in {f"{name}=={version}" for name, version in versions.items()}] == []
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\d\S*)", changelog, re.MULTILINE)[1] == versions["tt-tito"]


def test_packages_txt_names_every_package():
    lines = (ROOT / "packages.txt").read_text(encoding="utf-8").splitlines()
    expected = {f"{folder.name} @ file:./packages/{folder.name}" for folder in FOLDERS}
    assert {line for line in lines if not line.startswith("#")} == expected


def test_every_phase_has_an_environment_with_the_packages_up_to_it():
    environments = tomllib.loads((ROOT / "hatch.toml").read_text(encoding="utf-8"))["envs"]
    members = []
    for phase in curriculum.phases():
        written = [f"packages/{name}" for name in phase.packages if ROOT / "packages" / name in FOLDERS]
        members = members + written
        if written:
            assert environments[f"only{phase.number}"]["workspace"]["members"] == members
        assert f"phase{phase.number}" in environments["test"]["scripts"]


def test_no_file_name_carries_a_number_of_a_chapter():
    patterns = [f"{folder}/**/*.{suffix}" for folder in ("packages", "examples", "site") for suffix in ("py", "md")]
    numbered = re.compile(r"^(ch(apter)?_?)?\d+[_-]")
    assert not [str(file) for pattern in patterns for file in ROOT.glob(pattern) if numbered.match(file.name)]
    for name in ("07_autograd.py", "ch07_autograd.md", "chapter_7_autograd.py"):
        assert numbered.match(name)


def test_every_module_is_a_chapter_or_an_appendix_or_says_that_it_is_not():
    known = {entry.source for entry in (*curriculum.chapters(), *curriculum.appendices())}
    helpers = {
        "__init__", "__main__", "arguments", "cody", "common", "conversions", "devices", "functional",
        "generators", "groups", "hard_texts", "history", "in_place", "indexing", "interface", "kernel_sets",
        "methods", "options", "padding", "pictures", "profiles", "prompts", "registry", "shows", "slots",
        "states", "targets", "teaching", "testing", "testing_layers", "text_inputs", "vision", "wording",
    }  # fmt: skip
    for package in curriculum.packages():
        modules = (ROOT / "packages" / package.name / "src" / package.module).glob("*.py")
        unknown = [file.stem for file in modules if file.relative_to(ROOT).as_posix() not in known]
        assert set(unknown) <= helpers, f"{package.name}: a chapter that curriculum.toml does not know"


def test_what_asks_an_oracle_is_run_where_the_oracle_is():
    script = tomllib.loads((ROOT / "hatch.toml").read_text(encoding="utf-8"))["envs"]["parity"]["scripts"]["run"]
    words = re.search(r'-k "([^"]+)"', script)[1].split(" or ")
    files = [file for file in ROOT.glob("packages/*/tests/**/test_*.py") if "tt-tito" not in file.parts]
    asks = re.compile(r'importorskip\("(torch|transformers|tiktoken|tokenizers|gguf|scipy.stats|onnxruntime)"')
    asking = [file.stem for file in files if asks.search(file.read_text(encoding="utf-8"))]
    assert len(asking) > 5 and [stem for stem in asking if not any(word in stem for word in words)] == []


def test_phase_1_leaves_autograd_unloaded():
    code = "import sys, tt_tensor, tt_optim; print([m for m in sys.modules if m.startswith('tt_autograd')])"
    assert run(code) == "[]"
    assert run("import tt_autograd; " + code) != "[]"


@pytest.mark.parametrize("folder", IMPORTED, ids=lambda folder: folder.name)
def test_importing_loads_no_heavy_library(folder):
    heavy = ("matplotlib", "torch", "pytest", "hypothesis")
    module = folder.name.replace("-", "_")
    assert run(f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])") == "[]"


@pytest.mark.parametrize("folder", IMPORTED, ids=lambda folder: folder.name)
def test_importing_prints_nothing(folder):
    assert run(f"import {folder.name.replace('-', '_')}") == ""
