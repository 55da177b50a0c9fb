"""Chapters as assignments for nbgrader: the notebook is the chapter, and after each exercise comes a cell that tests
it.

Such a cell calls `check`. It takes the exercise from the cells that have been run, puts it into the reference, and lets
the judge judge it in another process, so that changes to NumPy or pytest in the notebook do not count."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tt_tito import course, curriculum, exercises, files, notebooks, swap

__all__ = ["assignment", "check", "export", "submission"]

CONFIG = """\
# TinyTorch as a course of nbgrader, which reads this in the folder of the course:
#
#   nbgrader generate_assignment 03_activations
#   nbgrader autograde 03_activations
#
# tt-tito and the packages of the chapters must be installed where the notebooks run. A notebook can replace the check
# in its test cells, so take the points from `tito grade submitted --csv marks.csv`, which runs none of those cells.

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "tinytorch"
c.Execute.timeout = 120  # seconds for a cell: a wrong answer that never ends takes half of them
"""
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
TEST = """\
# Run your cell above, then this one: it tests {name}. Your instructor also runs the integration tests.
from tt_tito.nbgrader import check

check("{slug}", "{name}")
### BEGIN HIDDEN TESTS
check("{slug}", "{name}", "integration")
### END HIDDEN TESTS"""


# ## The assignments


def export(chapters: Iterable[curriculum.Chapter], out: Path) -> list[Path]:
    """Write an assignment for each chapter into the folder of a course, and its configuration unless it has one; the
    files written. ValueError if an assignment exists: nothing is overwritten."""
    targets = {out / "source" / name / f"{name}.ipynb": chapter for chapter in chapters if (name := _name(chapter))}
    for file in targets:
        if file.exists():
            raise ValueError(f"{file} already exists and was not changed: move it away, or name another with --out")
    contents = {file: notebooks.dumps(assignment(chapter)) for file, chapter in targets.items()}
    config = out / "nbgrader_config.py"
    contents |= {} if config.exists() else {config: CONFIG}
    for file, content in contents.items():
        files.write(file, content)
    return list(contents)


def assignment(chapter: curriculum.Chapter) -> list[dict[str, Any]]:
    """The cells of a chapter's assignment, for the instructor: with solutions and hidden tests."""
    text = course.reference(chapter).read_text(encoding="utf-8")
    names = {exercise.name for exercise in exercises.exercises(text)}
    cells: list[dict[str, Any]] = []
    for cell in notebooks.cells(exercises.framed(text, BEGIN, END)):
        defined = exercises.functions(ast.parse(cell["source"])) if cell["cell_type"] == "code" else {}
        solved = [name for name in defined if name in names]
        if solved:
            cells.append(_with_metadata(cell, f"write-{solved[0]}", solution=True))
            cells += [_test(chapter, name) for name in solved]
        else:
            cells.append(_with_metadata(cell, f"cell-{cell['id']}", locked=True))
    return cells


def _name(chapter: curriculum.Chapter) -> str:
    return f"{chapter.number:02d}_{chapter.slug}"


def _test(chapter: curriculum.Chapter, name: str) -> dict[str, Any]:
    source = TEST.format(slug=chapter.slug, name=name)
    cell: dict[str, Any] = {"cell_type": "code", "source": source, "execution_count": None, "outputs": [], "id": ""}
    return _with_metadata(cell, f"test-{name}", grade=True, locked=True) | {"id": f"test-{name}".replace(".", "-")}


def _with_metadata(
    cell: dict[str, Any], identity: str, *, grade: bool = False, locked: bool = False, solution: bool = False
) -> dict[str, Any]:
    """The cell as nbgrader wants it, with all six keys, and the points of one that gives some."""
    metadata = {
        "grade": grade,
        "grade_id": identity.replace(".", "-"),
        "locked": locked,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    points = {"points": 1} if grade else {}
    return cell | {"metadata": {"nbgrader": metadata | points | {"cell_type": cell["cell_type"]}}}


# ## Testing in the notebook


def check(chapter: str, exercise: str, group: str = "unit") -> None:
    """Judge an exercise as the executed cells define it. AssertionError with what is wrong."""
    __tracebackhide__ = True  # IPython shows the message, and not how it came about
    jupyter = sys.modules.get("IPython")
    shell = jupyter and jupyter.get_ipython()
    if shell is None:
        raise RuntimeError("check is called in a cell of a notebook; elsewhere there is `tito grade`")
    text = submission(curriculum.chapter(chapter), shell.history_manager.input_hist_parsed, exercise)
    found = _judged(chapter, group, text)
    (mark,) = (mark for mark in found["exercises"] if mark["name"] == exercise)
    if mark["status"] != "passed":
        raise AssertionError(f"{mark['message'] or found['message']}\nRun again: your cell above, then this one.")
    print(f"{exercise} passes the {group} tests: {found['right']} of {found['checks']} checks.")


def submission(chapter: curriculum.Chapter, cells: Sequence[str], exercise: str) -> str:
    """The chapter as a text in which one exercise is written, as the last cell that defines it has it, together with
    the definitions of that cell's class and of other cells that it needs. AssertionError if it is nowhere, or empty."""
    text = course.reference(chapter).read_text(encoding="utf-8")
    tree = ast.parse(exercises.skeleton(text, str(chapter)))
    trees = list(_parsed(cells))
    donor = next((t for t in reversed(trees) if exercise in exercises.functions(t)), None)
    if donor is None or exercises.unwritten(ast.unparse(donor), [exercise]):
        raise AssertionError(f"{exercise} is still to be written: write it above, and run that cell.")
    exercises.graft_tree(tree, donor, [exercise])
    owner = exercise.partition(".")[0]
    place = max(index for index, node in enumerate(tree.body) if getattr(node, "name", None) == owner)
    if "." in exercise:
        theirs = next(node for node in reversed(donor.body) if getattr(node, "name", None) == owner)
        _complete_class(tree.body[place], theirs)
    known = swap.defined(tree) or set()
    tree.body[place:place] = _helpers(tree.body[place], [node for t in trees for node in t.body], known)
    return ast.unparse(tree) + "\n"


def _parsed(cells: Iterable[str]) -> Iterator[ast.Module]:
    for cell in cells:
        try:
            yield ast.parse(cell)
        except (SyntaxError, ValueError, RecursionError):
            continue  # it has not run either


def _defines(statement: ast.stmt) -> set[str]:
    return swap.defined(ast.Module([statement], [])) or set()


def _complete_class(ours: Any, theirs: Any) -> None:
    """Add to a class everything that only the other class of the same name defines."""
    known = {name for statement in ours.body for name in _defines(statement)}
    ours.body += [statement for statement in theirs.body if _defines(statement) - known]


def _helpers(node: ast.stmt, statements: Sequence[ast.stmt], known: set[str]) -> list[ast.stmt]:
    """The statements that define names which a node needs and the chapter lacks, and names that these need; of several
    with a name, the last."""
    definitions = {name: statement for statement in statements for name in _defines(statement) if name not in known}
    needed: list[ast.stmt] = []
    ahead = [node]
    while ahead:
        names = {inner.id for inner in ast.walk(ahead.pop()) if isinstance(inner, ast.Name)}
        further = [s for name, s in definitions.items() if name in names and s not in needed]
        needed += further
        ahead += further
    return [statement for statement in statements if statement in needed]


def _judged(chapter: str, group: str, text: str) -> dict[str, Any]:
    """The judge's assessment of a text, by a process that shares nothing with this one."""
    with TemporaryDirectory(prefix="tito-") as folder:
        file = Path(folder) / f"{chapter}.py"
        files.write(file, text)
        # -P: nothing is imported from a working directory
        command = [sys.executable, "-P", "-m", "tt_tito.nbgrader", chapter, group, str(file)]
        environment = os.environ | {"TT_SWAP": "0", "PYTHONUTF8": "1"}
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    if ended.returncode:
        said = ended.stderr.strip()
        raise RuntimeError(said.partition("RuntimeError: ")[2] or f"nothing was judged: {said.splitlines()[-1:]}")
    return json.loads(ended.stdout)


def _main(chapter: str, group: str, file: str) -> None:
    """Print an assessment as JSON. Integration tests measure times, and on a busy machine they may fail without a
    mistake of the learner's, so a file that fails them gets two more tries."""
    from tt_tito.judge import assess

    for left in (2, 1, 0) if group == "integration" else (0,):
        try:
            found = assess(curriculum.chapter(chapter), Path(file), groups=(group,))
        except RuntimeError:  # not even the reference has passed
            if not left:
                raise
        else:
            if found.status != "failed" or not left:
                break
    print(found.to_json())


if __name__ == "__main__":
    _main(*sys.argv[1:])
