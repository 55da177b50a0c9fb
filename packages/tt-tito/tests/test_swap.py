"""Stand-ins, as somebody meets them: a tt.toml in a folder, and a Python that starts there."""

import ast
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from tt_tito import course, curriculum, finder, swap

LOSSES = course.reference(curriculum.chapter("losses")).read_text(encoding="utf-8")
MINE = LOSSES + "\nWHOSE = 'mine'\n"
ASK = "import tt_tensor.losses as m; print(getattr(m, 'WHOSE', 'reference'))"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("TT_", "PYTEST_"))}


@pytest.fixture
def space(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work/losses.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "tt.toml").write_text('[use]\nlosses = "work/losses.py"\n', encoding="utf-8")
    return tmp_path


def python(folder, code, **environment):
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        encoding="utf-8",
    )
    return process.stdout.strip() if process.returncode == 0 else process.stderr.strip()


def test_a_chapter_is_swapped_for_everybody(space):
    assert python(space, ASK) == "mine"
    assert python(space / "work", ASK) == "mine"  # also in a folder below, where a notebook runs
    code = "import tt_autograd, tt_tensor; print(tt_tensor.cross_entropy.__code__.co_filename)"
    assert python(space, code) == str(space / "work/losses.py")


def test_nothing_is_swapped_without_a_table_or_with_tt_swap_0(space, tmp_path_factory):
    assert python(tmp_path_factory.mktemp("elsewhere"), ASK) == "reference"
    assert python(space, ASK, TT_SWAP="0") == "reference"


def test_without_a_table_nothing_of_the_finder_runs(tmp_path):
    code = "import sys, tt_tensor; print([m for m in sys.modules if m.startswith('tt_tito')], len(sys.meta_path))"
    assert python(tmp_path, code).startswith("['tt_tito', 'tt_tito.finder']")


def test_tt_swap_goes_before_the_table(space):
    (space / "other.py").write_text(LOSSES + "\nWHOSE = 'other'\n", encoding="utf-8")
    (space / "other.toml").write_text('[use]\n05 = "other.py"\n', encoding="utf-8")
    assert python(space, ASK, TT_SWAP="05_losses=other.py") == "other"
    assert python(space, ASK, TT_SWAP="other.toml") == "other"
    assert python(space, ASK, TT_SWAP="07=reference") == "reference"


def test_a_folder_may_have_a_sign_of_the_table_in_its_name(space, tmp_path_factory):
    for name in ("lr=0.1", "05=a.py,b"):
        folder = tmp_path_factory.mktemp("runs") / name
        shutil.copytree(space, folder)
        assert python(folder, ASK) == python(folder / "work", ASK) == "mine"
        assert python(folder.parent, ASK, TT_SWAP=str(folder / "tt.toml")) == "mine"
        assert python(folder.parent, ASK, TT_SWAP=f"{name}/tt.toml") == "mine"
        assert python(space, ASK, TT_SWAP=f"07=reference,05={folder}/work/losses.py, 03=reference") == "mine"


def test_packages_that_go_together_are_used_together(space):
    for name in ("tensor", "optim"):
        (space / f"theirs/{name}").mkdir(parents=True)
        (space / f"theirs/{name}/__init__.py").write_text("from tt_tensor import *\n", encoding="utf-8")
    said = python(space, "import tt_tensor", PYTHONPATH=str(space), TT_SWAP="tt-tensor=theirs.tensor")
    assert said.splitlines()[-1].endswith('the packages beside it must stand in, too: add tt-optim = "theirs.optim"')
    code = "from tt_tito import swap; print(sorted(swap.in_use().targets))"
    both = "tt-tensor=theirs.tensor,tt-optim=theirs.optim"
    assert python(space, code, PYTHONPATH=str(space), TT_SWAP=both) == "['tt_optim', 'tt_tensor']"
    command = "from tt_tito.workspace import Workspace; from tt_tito.commands import choose; s = Workspace.here(); "
    code = command + "choose(s, 'tt-optim', 'theirs.optim'); print(s.uses())"
    families = {"losses": "work/losses.py", "tt-optim": "theirs.optim", "tt-tensor": "theirs.tensor"}
    (space / "theirs/optim/__init__.py").write_text("from tt_optim.optimizers import *\n", encoding="utf-8")
    assert ast.literal_eval(python(space, code, PYTHONPATH=str(space)).splitlines()[-1]) == families
    code = command + "choose(s, 'tt-tensor', 'reference'); print(s.uses())"
    assert python(space, code, PYTHONPATH=str(space)) == "{'losses': 'work/losses.py'}"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("x = 1".encode("utf-16"), "losses.py is encoded in UTF-16"),
        (b"x = 1\0", "losses.py is not text, because it has null bytes"),
        ("# größer".encode("latin-1"), "losses.py, line 1 is not UTF-8"),
    ],
)
def test_a_stand_in_that_is_no_text_is_named(space, content, says):
    (space / "work/losses.py").write_bytes(content)
    said = python(space, "import tt_tensor").splitlines()[-1]
    assert f"SwapError: {says}" in said and "It stands in for tt_tensor.losses (see tt.toml)" in said


def test_children_that_are_spawned_use_it_too(space):
    (space / "script.py").write_text(
        textwrap.dedent("""
        import multiprocessing, os

        def ask():
            import tt_tensor.losses
            return tt_tensor.losses.WHOSE

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.apply(ask))
        """),
        encoding="utf-8",
    )
    assert python(space, "import runpy; runpy.run_path('script.py', run_name='__main__')") == "mine"


@pytest.mark.parametrize("mode", ["importlib", "prepend", "append"])
def test_under_pytest(space, mode):
    test = f"def test():\n    {ASK.replace('print', 'assert ')} == 'mine'\n"
    (space / "test_whose.py").write_text(test, encoding="utf-8")
    code = f"import pytest; print(int(pytest.main(['-q', '--import-mode={mode}', '-p', 'no:cacheprovider'])))"
    assert python(space, code, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1").splitlines()[-1] == "0"


def test_reload_and_tracebacks(space):
    code = """
        import importlib, pathlib, traceback
        import tt_tensor.losses as m
        file = pathlib.Path("work/losses.py")
        file.write_text(file.read_text(encoding="utf-8").replace("'mine'", "1 / 0"), encoding="utf-8")
        try:
            importlib.reload(m)
        except ZeroDivisionError as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            print(last.filename, last.line)
    """
    assert python(space, code) == f"{space / 'work/losses.py'} WHOSE = 1 / 0"


def test_a_package_falls_back_to_the_reference(space):
    (space / "mine").mkdir()
    (space / "work/losses.py").rename(space / "mine/losses.py")
    (space / "tt.toml").write_text('[use]\ntt-tensor = "mine"\n', encoding="utf-8")
    assert python(space, ASK) == "mine"
    assert python(space, "import tt_tensor.layers; print(tt_tensor.Linear(2, 1).weight.shape)") == "(1, 2)"


def test_data_files_come_from_the_stand_in_or_from_the_reference(space):
    (space / "mine").mkdir()
    (space / "mine/notes.txt").write_text("mine", encoding="utf-8")
    (space / "tt.toml").write_text('[use]\ntt-autograd = "mine"\n', encoding="utf-8")
    assert python(space, "import tt_autograd; print(len(tt_autograd.training.digits()[0][0]))") == "1438"
    read = "from importlib import resources; print((resources.files('tt_autograd') / 'notes.txt').read_text())"
    assert python(space, read) == "mine"


def test_a_package_stands_in_by_a_dotted_module(space):
    package = space / "site/stand_in/tensor"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("", encoding="utf-8")
    (package / "losses.py").write_text(MINE, encoding="utf-8")
    reference = course.folder("tt_tensor") / "__init__.py"
    (package / "__init__.py").write_text(reference.read_text(encoding="utf-8") + "\nHERE = True\n", encoding="utf-8")
    environment = {"PYTHONPATH": str(space / "site"), "TT_SWAP": "tt-tensor=stand_in.tensor"}
    code = "import tt_tensor; print(tt_tensor.HERE, tt_tensor.losses.WHOSE)"
    assert python(space, code, **environment) == "True mine"


# ## What is wrong with a table is said at the first import of the course, not at Python's start


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("[use", "tt.toml cannot be read"),
        ("[use]\nlosses = 5", "[use] is a table of names and paths"),
        ("use = 5", "[use] is a table of names and paths"),
        ('[use]\nlossses = "work/losses.py"', "Did you mean 05 losses?"),
        ('[use]\ntt-tensr = "work"', "tt.toml names 'tt-tensr'"),
        ('[use]\nlosses = "work/loss.py"', "work/loss.py stands in for tt_tensor.losses, but there is no such"),
        ('[use]\nlosses = "no.such.module"', "there is no such file or module"),
    ],
)
def test_a_table_that_is_wrong(space, table, says):
    (space / "tt.toml").write_text(table, encoding="utf-8")
    assert python(space, "print('no import, no error')") == "no import, no error"
    last = python(space, "import tt_autograd").splitlines()[-1]
    assert last.startswith("tt_tito.swap.SwapError: ") and says in last


def test_a_stand_in_that_lacks_names(space):
    (space / "work/losses.py").write_text(MINE.replace("def slope(", "def slop("), encoding="utf-8")
    said = python(space, "import tt_tensor").splitlines()[-1]
    assert said.endswith(
        "work/losses.py stands in for tt_tensor.losses (see tt.toml), but does not define: slope. "
        "slope is needed by code that imports tt_tensor."
    )


def test_a_stand_in_that_lacks_a_name_of_a_sibling(space):
    tensor = course.reference(curriculum.chapter("tensor")).read_text(encoding="utf-8")
    (space / "work/tensor.py").write_text(tensor.replace("def as_rows(", "def in_rows("), encoding="utf-8")
    said = python(space, "import tt_tensor", TT_SWAP="02=work/tensor.py").splitlines()[-1]
    assert "does not define: as_rows. as_rows is needed by " in said


def test_names_that_only_running_can_tell(space):
    (space / "work/all.py").write_text("from tt_tensor.setup import *\n", encoding="utf-8")
    said = python(space, "import tt_tensor", TT_SWAP="05=work/all.py")
    missing = "does not define: BCEWithLogitsLoss"
    assert f"SwapError: work/all.py stands in for tt_tensor.losses (see TT_SWAP), but {missing}" in said
    assert " more. BCEWithLogitsLoss is needed" in said


def test_a_syntax_error_is_one_in_the_learners_file(space):
    (space / "work/losses.py").write_text("def f(:\n", encoding="utf-8")
    said = python(space, "import tt_tensor")
    assert f'File "{space / "work/losses.py"}", line 1' in said and "SyntaxError" in said


def test_the_table_can_be_set_from_inside(space):
    code = """
        import json, sys
        from tt_tito import swap
        swap.install(swap.Table())
        import tt_tensor.losses as m
        print(json.dumps([hasattr(m, "WHOSE"), len([f for f in sys.meta_path if type(f).__name__ == "Finder"])]))
    """
    assert json.loads(python(space, code)) == [False, 1]


def test_the_search_ends_at_the_root(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/tt.toml").write_text("", encoding="utf-8")
    assert finder.search(str(tmp_path / "a/b")) == str(tmp_path / "a/tt.toml")
    assert finder.search(tmp_path.anchor) is None


def test_what_is_in_use_here(space, monkeypatch):
    monkeypatch.chdir(space)
    monkeypatch.delenv("TT_SWAP", raising=False)
    assert swap.in_use().targets == {"tt_tensor.losses": space / "work/losses.py"}
    monkeypatch.setenv("TT_SWAP", "0")
    assert swap.in_use().targets == {}
