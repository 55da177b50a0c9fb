"""Chapters as notebooks: nothing is lost on the way there and back, and learners work in them as in text."""

import ast
import json
import sys

import pytest
from click.testing import CliRunner

from tt_tito import cli, console, course, curriculum, exercises, judging, notebooks
from tt_tito.judge import assess
from tt_tito.workspace import Workspace

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")

REFERENCE = {c: course.reference(c).read_text(encoding="utf-8") for c in course.written()}
SKELETON = {c: exercises.skeleton(text, str(c)) for c, text in REFERENCE.items()}
TEXTS = [pytest.param(text, id=f"{c.slug}-reference") for c, text in REFERENCE.items()]
TEXTS += [pytest.param(text, id=f"{c.slug}-skeleton") for c, text in SKELETON.items()]
ACTIVATIONS = curriculum.chapter("activations")


@pytest.fixture
def space(tmp_path, monkeypatch):
    space, _ = Workspace.create(tmp_path / "a folder ü")
    monkeypatch.chdir(space.root)
    monkeypatch.delenv("TT_SWAP", raising=False)
    return space


def change(file, edit):
    """Do something to a notebook as Jupyter would."""
    notebook = json.loads(file.read_text(encoding="utf-8"))
    edit(notebook)
    file.write_text(json.dumps(notebook), encoding="utf-8")


def source_of(notebook, start):
    """The cell whose source has a line that starts so."""
    return next(c for c in notebook["cells"] if any(line.startswith(start) for line in c["source"].splitlines()))


# ## There and back


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_is_lost(text, tmp_path):
    file = tmp_path / "ein Ordner" / "x.ipynb"
    notebooks.write(text, file)
    assert notebooks.read(file) == text
    nbformat.validate(nbformat.reads(file.read_text(encoding="utf-8"), as_version=4))


@pytest.mark.parametrize("text", TEXTS)
def test_a_notebook_is_clean_and_always_the_same(text, tmp_path):
    files = [tmp_path / "one.ipynb", tmp_path / "two.ipynb"]
    for file in files:
        notebooks.write(text, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    notebook = json.loads(files[0].read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and notebook["nbformat_minor"] == 5
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    kinds = {cell["cell_type"] for cell in notebook["cells"]}
    assert kinds == {"code", "markdown"}
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])


def test_prose_and_exercises_have_cells_of_their_own():
    found = [cell["source"] for cell in notebooks.cells(REFERENCE[ACTIVATIONS])]
    assert found[0].startswith("# Activations\n")
    assert [s for s in found if s.startswith("@primitive\ndef sigmoid(x, /):  # exercise") and "np.exp" in s]


@pytest.mark.parametrize("chapter", course.written(), ids=lambda chapter: chapter.slug)
def test_no_prose_becomes_code(chapter):
    """jupytext takes a line of prose for a command if it begins with the name of one, such as `copy` or `cat`."""
    for cell in notebooks.cells(course.reference(chapter).read_text(encoding="utf-8")):
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))


def test_equal_cells_can_be_told_apart():
    found = notebooks.cells("x = 1\n\nx = 1\n\n# x = 1\n")
    assert [cell["source"] for cell in found] == ["x = 1"] * 3
    assert len({cell["id"] for cell in found}) == 3


def test_an_edited_cell_changes_nothing_else(tmp_path):
    file = tmp_path / "activations.ipynb"
    before = SKELETON[ACTIVATIONS]
    notebooks.write(before, file)
    blank = 'raise NotImplementedError("03 activations: relu_slope")'
    body = "slope = (x > 0)\n\n    return slope * 1.0"

    def edit(notebook):
        cell = source_of(notebook, "def relu_slope(")
        cell["source"] = cell["source"].replace(blank, body)

    change(file, edit)
    assert notebooks.read(file) == before.replace(blank, body) != before


def test_what_jupyter_adds_does_not_get_into_the_text(tmp_path):
    file = tmp_path / "activations.ipynb"
    notebooks.write(SKELETON[ACTIVATIONS], file)

    def run_and_save(notebook):
        notebook["metadata"] |= {"language_info": {"version": "3.11.0", "file_extension": ".py"}, "toc": {"x": 1}}
        for cell in notebook["cells"]:
            cell["source"] = cell["source"].splitlines(keepends=True)  # as Jupyter writes it
            cell["metadata"] |= {"scrolled": True, "tags": ["x"], "collapsed": False}
            if cell["cell_type"] == "code":
                cell |= {"execution_count": 3, "outputs": [{"output_type": "stream", "name": "stdout", "text": "7"}]}

    change(file, run_and_save)
    assert notebooks.read(file) == SKELETON[ACTIVATIONS]


def test_magics_do_not_break_the_text(tmp_path):
    file = tmp_path / "activations.ipynb"
    notebooks.write(SKELETON[ACTIVATIONS], file)
    new = {"cell_type": "code", "id": "new", "metadata": {}, "source": "%matplotlib inline\n!pip list\nvalue = 1"}
    change(file, lambda notebook: notebook["cells"].insert(3, new | {"outputs": [], "execution_count": None}))
    text = notebooks.read(file)
    compile(text, "activations.py", "exec")
    assert "\nvalue = 1\n" in text


# ## What cannot be read


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "damaged"),
        ('{"cells": [', "damaged"),
        ("[]", "damaged"),
        ('{"nbformat": 3, "worksheets": []}', "no 'cells'"),
        ('{"cells": 3}', "damaged"),
        ('{"cells": [{"cell_type": "code", "metadata": {}}]}', "no 'source'"),
        ('{"cells": [{"cell_type": "code", "metadata": {}, "source": [1]}]}', "damaged"),
        ('{"cells": [{"cell_type": "film", "metadata": {}, "source": ""}]}', "'film'"),
        ("[" * 100_000, "damaged"),
        (b"\xff\xfe\x00", "damaged"),
    ],
)
def test_a_damaged_notebook_is_named(content, says, tmp_path):
    file = tmp_path / "tensor.ipynb"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=says) as error:
        notebooks.read(file)
    assert "tensor.ipynb" in str(error.value)


def test_without_jupytext_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jupytext", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "tt-tito\[notebook\]"'):
        notebooks.write("x = 1\n", tmp_path / "x.ipynb")
    assert not list(tmp_path.iterdir())


# ## A learner's chapter


def tito(*arguments, status=0):
    console.console.cache_clear()
    result = CliRunner().invoke(cli.tito, arguments)
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def solve(file, names):
    """Write exercises of chapter 03 into a notebook's cells."""

    def edit(notebook):
        solved = {cell["source"].partition(":  # exercise")[0]: cell["source"] for cell in notebooks.cells(text)}
        for cell in notebook["cells"]:
            head = cell["source"].partition(":  # exercise")[0]
            if "# exercise" in cell["source"]:
                cell["source"] = solved[head]

    text = exercises.graft(SKELETON[ACTIVATIONS], REFERENCE[ACTIVATIONS], names)
    change(file, edit)


def test_a_chapter_is_started_tested_and_completed_as_a_notebook(space, monkeypatch):
    names = [e.name for e in exercises.exercises(REFERENCE[ACTIVATIONS])]
    file = space.root / "work/activations.ipynb"
    tito("module", "start", "03", "--notebook")
    assert space.file(ACTIVATIONS) == file and space.left(ACTIVATIONS) == names
    assert "already exists" in repr(CliRunner().invoke(cli.tito, ["module", "start", "03"]).exception)
    solve(file, names[:-1])
    before = file.read_bytes()
    data = json.loads(tito("module", "test", "03", "--json", status=1))
    assert (data["status"], data["points"], data["out_of"]) == ("passed", len(names) - 1, len(names))
    solve(file, names)
    unit_tests_only = lambda space, chapter, groups, tell: assess(chapter, space.source(chapter))
    monkeypatch.setattr(judging, "assess", unit_tests_only)  # the others take longer, and measure times
    tito("module", "complete", "03")
    assert space.implementation(ACTIVATIONS) == "mine"
    assert space.uses()["activations"] == ".tito/notebooks/activations.py"
    title, directions, *rest = (space.root / ".tito/notebooks/activations.py").read_text(encoding="utf-8").splitlines()
    assert "tito watch 03" in directions and [title, *rest] == REFERENCE[ACTIVATIONS].splitlines()
    assert file.read_bytes() != before


def test_what_is_wrong_in_a_notebook_is_judged_as_in_text(space):
    file = space.start(ACTIVATIONS, notebook=True)
    solve(file, ["elu", "relu_slope"])
    wrong = "def relu_slope(x):  # exercise\n    return x"
    change(file, lambda notebook: source_of(notebook, "def relu_slope(").update(source=wrong))
    found = assess(ACTIVATIONS, space.source(ACTIVATIONS))
    marks = dict(found.lines())
    assert (marks["elu"], marks["relu_slope"], marks["sigmoid"]) == ("passed", "failed", "unwritten")


# ## Where something is wrong in a notebook


def insert(source, **more):
    return lambda notebook: notebook["cells"].insert(
        5, {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None} | more
    )


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("value = 1\n1 / 0", 'ZeroDivisionError: division by zero (activations.ipynb, cell 6 ("value = 1"), line 2)'),
        ("# a note\n\nget_ipython()", 'is not defined (activations.ipynb, cell 6 ("# a note"), line 3)'),
        ("%matplotlib inline\n!pip list\n1 / 0", '(activations.ipynb, cell 6 ("%matplotlib inline"), line 3)'),
        ("display(5)\n1 / 0", 'zero (activations.ipynb, cell 6 ("display(5)"), line 2)'),
        ("def f(:\n    pass", 'activations.ipynb, cell 6 ("def f(:"), line 1 is not Python: invalid syntax.'),
        ("x = [1,\n", "activations.ipynb, cell 6 (\"x = [1,\"), line 1 is not Python: '[' was never closed."),
    ],
)
def test_the_cell_is_named(space, source, says):
    file = space.start(ACTIVATIONS, notebook=True)
    solve(file, ["elu"])
    change(file, insert(source))
    found = judging.assess(space, ACTIVATIONS)
    assert found.status == "error" and says in found.message
    assert "activations.py" not in found.message


def test_an_exercise_that_fails_is_named_by_its_cell(space):
    file = space.start(ACTIVATIONS, notebook=True)
    solve(file, ["elu"])
    change(file, insert("display(1)"))
    wrong = "def relu_slope(x):  # exercise\n    y = x\n    return y + nothing"
    change(file, lambda notebook: source_of(notebook, "def relu_slope(").update(source=wrong))
    found = judging.assess(space, ACTIVATIONS)
    number = 1 + [c["source"] for c in json.loads(file.read_text(encoding="utf-8"))["cells"]].index(wrong)
    where = f'(activations.ipynb, cell {number} ("def relu_slope(x):  # exercise"), line 3)'
    assert dict(found.lines())["elu"] == "passed"
    assert where in next(mark.message for mark in found.exercises if mark.name == "relu_slope")


def test_display_is_what_it_is_in_a_notebook(tmp_path):
    file = tmp_path / "activations.ipynb"
    notebooks.write(SKELETON[ACTIVATIONS], file)
    plain = notebooks.program(file)
    assert plain == notebooks.read(file) == SKELETON[ACTIVATIONS]
    change(file, insert("def shown(x):\n    display(x)"))
    assert "display = print\ndef shown(x):" in notebooks.program(file)
    assert "display = print" not in notebooks.read(file)
    change(file, insert("from IPython.display import display"))
    assert "display = print" not in notebooks.program(file)
