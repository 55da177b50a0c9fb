"""Assignments for nbgrader: what is in them, what their tests take from a notebook, and what nbgrader makes of them."""

import ast
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tt_tito import cli, console, course, curriculum, exercises, nbgrader, notebooks
from tt_tito.judge import assess

pytest.importorskip("jupytext")

ACTIVATIONS, LAYERS = curriculum.chapter("activations"), curriculum.chapter("layers")
REFERENCE = {c: course.reference(c).read_text(encoding="utf-8") for c in course.written()}
NAMES = {c: [e.name for e in exercises.exercises(text)] for c, text in REFERENCE.items()}
KEYS = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}

each_chapter = pytest.mark.parametrize("chapter", course.written(), ids=lambda chapter: chapter.slug)


def without(source, begin, end, instead=()):
    """A text without the regions between two marks, as nbgrader takes them out."""
    kept, inside = [], False
    for line in source.splitlines():
        if begin in line:
            inside = True
            kept += [line[: line.index(begin)] + text for text in instead]
        elif end in line:
            inside = False
        elif not inside:
            kept.append(line)
    assert not inside
    return "\n".join(kept)


def released(source):
    stub = ["# YOUR CODE HERE", "raise NotImplementedError()"]
    return without(source, "### BEGIN SOLUTION", "### END SOLUTION", stub)


# ## The assignments


@each_chapter
def test_every_cell_has_what_nbgrader_wants(chapter):
    cells = nbgrader.assignment(chapter)
    for cell in cells:
        found = cell["metadata"]["nbgrader"]
        assert KEYS <= found.keys() and found["schema_version"] == 3 and found["task"] is False
        assert found["cell_type"] == cell["cell_type"]
        assert found["grade"] == ("points" in found)
        assert (found["grade"], found["solution"], found["locked"]) in {
            (False, False, True),  # prose and what is given
            (False, True, False),  # exercises
            (True, False, True),  # tests
        }
        assert cell["cell_type"] == "code" or found["locked"]
    for identities in ([c["metadata"]["nbgrader"]["grade_id"] for c in cells], [c["id"] for c in cells]):
        assert len(set(identities)) == len(identities)
        assert all(set(identity) <= set(map(chr, range(128))) - set(" ./:\\") for identity in identities)
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.reads(notebooks.dumps(cells), as_version=4))


@each_chapter
def test_the_notebook_is_the_chapter_with_a_test_behind_each_exercise(chapter):
    cells = nbgrader.assignment(chapter)
    tests = [cell for cell in cells if cell["metadata"]["nbgrader"]["grade"]]
    rest = [cell for cell in cells if not cell["metadata"]["nbgrader"]["grade"]]
    assert [cell["metadata"]["nbgrader"]["grade_id"] for cell in tests] == [
        "test-" + name.replace(".", "-") for name in NAMES[chapter]
    ]
    code = "\n".join(cell["source"] for cell in rest if cell["cell_type"] == "code")
    assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(REFERENCE[chapter]))
    prose = [cell["source"] for cell in notebooks.cells(REFERENCE[chapter]) if cell["cell_type"] == "markdown"]
    assert [cell["source"] for cell in rest if cell["cell_type"] == "markdown"] == prose
    for name, test in zip(NAMES[chapter], tests):
        before = cells[: cells.index(test)]
        written = next(cell for cell in reversed(before) if cell["metadata"]["nbgrader"]["solution"])
        assert name in exercises.functions(ast.parse(written["source"]))
        visible = without(test["source"], "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
        assert f'check("{chapter.slug}", "{name}")' in visible and "integration" not in visible.partition("check(")[2]
        assert f'check("{chapter.slug}", "{name}", "integration")' in test["source"]


@each_chapter
def test_what_is_released_has_no_solution_and_all_the_rest(chapter):
    cells = nbgrader.assignment(chapter)
    text = "\n".join(released(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert exercises.unwritten(text, NAMES[chapter]) == NAMES[chapter]
    skeleton = exercises.skeleton(REFERENCE[chapter], str(chapter))
    found = exercises.functions(ast.parse(text))
    for name, node in exercises.functions(ast.parse(skeleton)).items():
        there = found[name]
        if name in NAMES[chapter]:
            assert ast.get_docstring(there) == ast.get_docstring(node)
            assert ast.dump(there.args) == ast.dump(node.args)
        else:
            assert ast.dump(there) == ast.dump(node)


def test_export_overwrites_nothing(tmp_path):
    out = tmp_path / "Kurs für alle"
    made = nbgrader.export([ACTIVATIONS], out)
    notebook, config = out / "source/03_activations/03_activations.ipynb", out / "nbgrader_config.py"
    assert made == [notebook, config]
    before = notebook.read_bytes()
    config.write_text("# the instructor's own\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"03_activations.ipynb already exists and was not changed"):
        nbgrader.export([LAYERS, ACTIVATIONS], out)
    assert notebook.read_bytes() == before and not (out / "source/04_layers").exists()
    assert nbgrader.export([LAYERS], out) == [out / "source/04_layers/04_layers.ipynb"]
    assert config.read_text(encoding="utf-8") == "# the instructor's own\n"


def test_the_command_exports_the_chapters_that_are_named(tmp_path):
    console.console.cache_clear()
    result = CliRunner().invoke(cli.tito, ["nbgrader", "export", "03", "04", "--out", str(tmp_path / "course")])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "course/source").iterdir()) == ["03_activations", "04_layers"]


# ## What a test cell takes from the notebook


def cells_of(chapter):
    """The code of an assignment as it is handed out, without its tests."""
    cells = nbgrader.assignment(chapter)
    return [released(c["source"]) for c in cells if c["cell_type"] == "code" and not c["metadata"]["nbgrader"]["grade"]]


def verdict(chapter, cells, name, tmp_path):
    file = tmp_path / f"{chapter.slug}.py"
    file.write_text(nbgrader.submission(chapter, cells, name), encoding="utf-8")
    return assess(chapter, file)


def test_the_last_version_counts_and_only_that_exercise(tmp_path):
    wrong, right = (f"def relu_slope(x):\n    return {mask} * 1.0" for mask in ("(x >= 0)", "(x > 0)"))
    other = "def log_sigmoid(x):\n    return 3"
    for cells, status in (([wrong, right], "passed"), ([right, wrong], "failed")):
        cells = [*cells_of(ACTIVATIONS), *cells, other, "this is not Python", "relu_slope(3)"]
        found = verdict(ACTIVATIONS, cells, "relu_slope", tmp_path)
        marks = dict(found.lines())
        assert marks["relu_slope"] == status
        assert {mark for name, mark in marks.items() if name != "relu_slope"} == {"unwritten"}


def test_helpers_of_the_learners_come_along(tmp_path):
    helpers = [
        "import math\nTWO = 2.0",
        "def never_used():\n    return open('/nowhere')\nnever_used",
        "from operator import gt as larger\n\nhalf = lambda mask: mask / TWO",
        "raise RuntimeError('an experiment')",
        "class Doubled:\n    def of(self, x):\n        return TWO * x",
    ]
    answer = "def relu_slope(x):\n    return Doubled().of(half(larger(x, 0) * 1.0))"
    assert verdict(ACTIVATIONS, [*helpers, answer], "relu_slope", tmp_path).points == 1
    text = nbgrader.submission(ACTIVATIONS, [*helpers, answer], "relu_slope")
    assert "never_used" not in text and "an experiment" not in text


def test_methods_that_a_learner_adds_to_a_class_come_along(tmp_path):
    name = "Linear.reset_parameters"
    owner = name.partition(".")[0]
    source = next(cell for cell in cells_of(LAYERS) if f"class {owner}" in cell)
    tree = ast.parse(source)
    node = exercises.functions(tree)[name]
    solution = exercises.functions(ast.parse(REFERENCE[LAYERS]))[name]
    node.body = ast.parse(f"return self._mine({', '.join(a.arg for a in node.args.args[1:])})").body
    inner = ast.FunctionDef("_mine", solution.args, solution.body, [], lineno=1, col_offset=0)
    next(c for c in tree.body if getattr(c, "name", None) == owner).body.append(inner)
    assert verdict(LAYERS, [ast.unparse(ast.fix_missing_locations(tree))], name, tmp_path).points == 1
    assert verdict(LAYERS, [ast.unparse(tree).replace("_mine(self", "_other(self")], name, tmp_path).points == 0


@pytest.mark.parametrize("cells", [[], ["x = 1"], ["def softmax(x, /, dim):\n    raise NotImplementedError()"]])
def test_what_is_not_written_is_said_to_be(cells):
    with pytest.raises(AssertionError, match="softmax is still to be written: write it above"):
        nbgrader.submission(ACTIVATIONS, cells, "softmax")


def test_check_is_for_notebooks(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with pytest.raises(RuntimeError, match="a cell of a notebook; elsewhere there is `tito grade`"):
        nbgrader.check("activations", "elu")


def test_a_failure_of_the_judge_is_none_of_the_learners():
    text = nbgrader.submission(ACTIVATIONS, ["def relu_slope(x):\n    return x"], "relu_slope")
    with pytest.raises(RuntimeError, match="nothing was judged: .*no group"):
        nbgrader._judged("activations", "no group", text)


def test_integration_tests_get_a_second_and_a_third_try(monkeypatch, capsys):
    class Found:
        def __init__(self, status):
            self.status = status

        def to_json(self):
            return self.status

    def judged(group, *ends):
        left = list(ends)

        def assess(chapter, file, groups):
            end = left.pop(0)
            if isinstance(end, Exception):
                raise end
            return Found(end)

        monkeypatch.setattr("tt_tito.judge.assess", assess, raising=False)
        nbgrader._main("activations", group, "x.py")
        return capsys.readouterr().out.strip(), len(left)

    busy = RuntimeError("nothing was judged")
    assert judged("integration", busy, "failed", "passed") == ("passed", 0)
    assert judged("integration", "failed", "failed", "failed", "passed") == ("failed", 1)
    assert judged("integration", "timeout", "passed") == ("timeout", 1)
    assert judged("unit", "failed", "passed") == ("failed", 1)
    with pytest.raises(RuntimeError):
        judged("integration", busy, busy, busy)


# ## In Jupyter, and through nbgrader


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """Runs Python with Jupyter's files in a folder of their own."""
    home = tmp_path_factory.mktemp("home")
    places = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    places["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # nbgrader calls alembic
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "TT_", "JUPYTER"))} | places

    def run(*arguments, folder):
        command = [sys.executable, *map(str, arguments)]
        ended = subprocess.run(command, cwd=folder, env=environ, capture_output=True, encoding="utf-8", timeout=300)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    return run


@pytest.mark.nbgrader
@each_chapter
def test_a_written_chapter_runs_from_top_to_bottom_in_jupyter(chapter, tmp_path, jupyter):
    file = tmp_path / f"{chapter.slug}.ipynb"
    checks = [line.split("(")[0][4:] for line in REFERENCE[chapter].splitlines() if line.startswith("def check_")]
    calls = "\n".join(f"{name}()" for name in checks if name != "check_environment")
    text = REFERENCE[chapter] + (f"\n{calls}\n" if chapter == ACTIVATIONS else "")
    notebooks.write(text, file)
    jupyter("-m", "nbconvert", "--execute", "--to", "notebook", "--output", "ran.ipynb", file, folder=tmp_path)
    ran = json.loads((tmp_path / "ran.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(cell["execution_count"] for cell in ran if cell["cell_type"] == "code" and cell["source"])
    assert notebooks.read(tmp_path / "ran.ipynb") == text


def answer(notebook, answers, extra=()):
    """Type answers into the exercises of a notebook, and cells of one's own before the first of them."""
    cells = notebook["cells"]
    for start, source in answers.items():
        (cell,) = (c for c in cells if "".join(c["source"]).startswith(start) and c["cell_type"] == "code")
        cell["source"] = source
    first = next(i for i, c in enumerate(cells) if c["metadata"]["nbgrader"]["solution"])
    own = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells[first:first] = [own | {"id": f"own-{i}", "source": source} for i, source in enumerate(extra)]


@pytest.mark.nbgrader
def test_nbgrader_generates_and_autogrades_an_assignment(tmp_path, jupyter):
    out, name = tmp_path / "ein Kurs für alle", "03_activations"
    nbgrader.export([ACTIVATIONS], out)
    jupyter("-m", "nbgrader", "generate_assignment", name, folder=out)
    release = json.loads((out / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8"))
    text = json.dumps(release)
    assert "BEGIN SOLUTION" not in text and "HIDDEN" not in text and '\\"integration\\")' not in text
    assert text.count("# YOUR CODE HERE") == len(NAMES[ACTIVATIONS])

    def hand_in(student, notebook):
        folder = out / "submitted" / student / name
        folder.mkdir(parents=True)
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")

    solved = json.loads((out / "source" / name / f"{name}.ipynb").read_text(encoding="utf-8"))
    hand_in("all", solved)
    hand_in("none", release)
    part = json.loads(text)
    answers = {
        "@primitive\ndef elu(": "@primitive\ndef elu(x, /, alpha=1.0):  # exercise\n"
        "    x = as_floats(x)\n    return larger(x, ZERO) + alpha * np.expm1(np.minimum(x, ZERO))",
        "def relu_slope(": "def relu_slope(x):  # exercise\n    return (x >= 0) * 1.0",
        "def log_sigmoid(": "def log_sigmoid(x: Tensor) -> Tensor:  # exercise\n    while True:\n        pass",
        "def softmax_backward(": "def softmax_backward(p, g:  # exercise\n    return p",
    }
    answer(part, answers, ["ZERO = 0\nlarger = np.maximum", "np.testing.assert_allclose = check = print"])
    for cell in part["cells"]:  # whoever rewrites the tests gains nothing
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "test-relu_slope":
            cell["source"] = "print('passed')"
    hand_in("some", part)
    jupyter("-m", "nbgrader", "autograde", name, folder=out)
    jupyter("-m", "nbgrader", "export", folder=out)
    with (out / "grades.csv").open(encoding="utf-8", newline="") as table:
        scores = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(table)}
    assert scores == {"all": (11, 11), "none": (0, 11), "some": (1, 11)}

    graded = json.loads((out / "autograded/some" / name / f"{name}.ipynb").read_text(encoding="utf-8"))
    said = {}
    for cell in graded["cells"]:
        identity = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
        said[identity] = "\n".join(o.get("evalue") or "".join(o.get("text", [])) for o in cell.get("outputs", []))
    assert "The mask is x >= 0 and should be x > 0" in said["test-relu_slope"]
    assert "elu passes the integration tests" in said["test-elu"]
    assert "still to be written" in said["test-softmax"] and "still to be written" in said["test-softmax_backward"]
    assert "did not end within 10 seconds" in said["test-log_sigmoid"]


@pytest.mark.nbgrader
def test_nbgrader_generates_every_assignment(tmp_path, jupyter):
    nbgrader.export(course.written(), tmp_path)
    for chapter in course.written():
        jupyter("-m", "nbgrader", "generate_assignment", f"{chapter.number:02d}_{chapter.slug}", folder=tmp_path)
    assert len(list((tmp_path / "release").rglob("*.ipynb"))) == len(course.written())


# ## What `tito grade` makes of the tree in which nbgrader collects


CHEAT = "import tt_tito.nbgrader\ntt_tito.nbgrader.check = lambda *names: None"


def test_points_come_from_the_notebooks_that_nbgrader_has_collected(tmp_path):
    from tt_tito.judge import grade

    solved = nbgrader.assignment(ACTIVATIONS)
    blank = [cell | {"source": released(cell["source"])} for cell in solved]
    cheat = {"cell_type": "code", "source": CHEAT, "metadata": {}, "execution_count": None, "outputs": []}
    for learner, cells in {"ada": solved, "ben": [cheat | {"id": "cheat"}, *blank]}.items():
        file = tmp_path / "submitted" / learner / "03_activations" / "03_activations.ipynb"
        file.parent.mkdir(parents=True)
        file.write_text(notebooks.dumps(cells), encoding="utf-8")
    rows = grade.grade([tmp_path / "submitted"], ("unit",)).rows
    assert [(row.learner, row.assessment.points) for row in rows] == [("ada", len(NAMES[ACTIVATIONS])), ("ben", 0)]
    assert rows[0].assessment.full
