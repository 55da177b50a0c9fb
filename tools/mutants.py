"""Wrong programs by machine: every exercise's reference, changed in one place, judged by the learner's tests.

    hatch run mutants:run layers        one chapter; with exercises behind it, only these
    hatch run mutants:run --write       all chapters, and the counts into tests/mistakes/mutants_by_machine.json

The changes are cosmic-ray's: another operator, another number, a condition turned round, a loop that does not run, a
`break` for a `continue`, a keyword left out. One that passes all tests is printed, to be caught by a new test, or to be
listed in tests/mistakes/equivalent.toml with the reason why it is right, too."""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import multiprocessing
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tt_tito import course, curriculum, exercises
from tt_tito.judge.assessment import assess
from tt_tito.judge.sandbox import CORES, Limits

ROOT = Path(__file__).parents[1]
EQUIVALENT = ROOT / "tests" / "mistakes" / "equivalent.toml"
COUNTS = ROOT / "tests" / "mistakes" / "mutants_by_machine.json"
PAIRS = {  # of all replacements of an operator, those that a tired learner could type
    "ReplaceBinaryOperator": "Add_Sub Sub_Add Mul_Div Div_Mul Pow_Mul FloorDiv_Div Mod_FloorDiv BitAnd_BitOr "
                             "BitOr_BitAnd BitXor_BitOr LShift_RShift RShift_LShift Mul_Add",
    "ReplaceComparisonOperator": "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot "
                                 "IsNot_Is",
}  # fmt: skip
LIMITS = Limits(seconds=5.0)


def chosen_operators() -> list[str]:
    """The names of the changes."""

    def is_chosen(name: str) -> bool:
        family, _, pair = name.rpartition("/")[2].partition("_")
        return not family.startswith("Variable") and (family not in PAIRS or pair in PAIRS[family].split())

    return sorted(name for name in operator_names() if is_chosen(name))


def mutants(function: str) -> Iterator[str]:
    """The text of a function, changed in one place; each text once, and none that is no Python."""
    seen, head = {_shape(function)}, ast.dump(_parsed(function).args)
    for name in chosen_operators():
        operator, occurrence = get_operator(name)(), 0
        while (changed := mutate_code(function, operator, occurrence)) is not None:
            occurrence += 1
            try:
                shape = _shape(changed)
                same_head = ast.dump(_parsed(changed).args) == head
            except SyntaxError:
                continue
            if same_head and shape not in seen:
                seen.add(shape)
                yield changed


def _parsed(function: str) -> ast.FunctionDef:
    node = ast.parse(function).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def _shape(function: str) -> str:
    """The body of a function without its docstring and layout."""
    node = _parsed(function)
    if ast.get_docstring(node) is not None:
        del node.body[0]
    return "\n".join(map(ast.unparse, node.body))


def of_exercise(text: str, name: str) -> Iterator[str]:
    """The chapter with one exercise changed."""
    node = exercises.functions(ast.parse(text))[name]
    lines = text.splitlines(keepends=True)
    own = "".join(lines[node.lineno - 1 : node.end_lineno])
    indent = " " * node.col_offset
    plain = "".join(line.removeprefix(indent) for line in own.splitlines(keepends=True))
    for changed in mutants(plain):
        new = "".join(indent + line if line.strip() else line for line in changed.splitlines(keepends=True))
        yield "".join([*lines[: node.lineno - 1], new.rstrip("\n") + "\n", *lines[node.end_lineno :]])


def passes(chapter: curriculum.Chapter, task: tuple[str, str]) -> tuple[str, str] | None:
    """The exercise and the difference of a mutant that passes all tests."""
    name, changed = task
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{chapter.slug}.py")
        file.write_text(changed, encoding="utf-8")
        found = assess(chapter, file, only=[name], alone=False, trusted=True, limits=LIMITS)
    if found.status != "passed":
        return None
    text = course.reference(chapter).read_text(encoding="utf-8")
    lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), n=0, lineterm="")
    return name, "\n".join(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def survivors(chapter: curriculum.Chapter, names: list[str]) -> tuple[int, list[tuple[str, str]]]:
    """How many mutants the exercises have, and the differences of those that pass all tests, with their exercise.
    Processes judge them, because Python 3.11 cannot parse in two threads at once."""
    text = course.reference(chapter).read_text(encoding="utf-8")
    tasks = [(name, changed) for name in names for changed in of_exercise(text, name)]
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as pool:
        return len(tasks), [found for found in pool.map(partial(passes, chapter), tasks) if found]


def equivalent() -> dict[str, dict[str, str]]:
    """The differences that are right, too, by chapter, with the reason."""
    if not EQUIVALENT.exists():
        return {}
    found = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))
    return {slug: {row["change"].strip(): row["why"] for row in rows} for slug, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapter", nargs="?")
    parser.add_argument("exercise", nargs="*")
    parser.add_argument("--write", action="store_true", help="keep the counts")
    given = parser.parse_args()
    counts = json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.exists() else {}
    left = 0
    for chapter in [curriculum.chapter(given.chapter)] if given.chapter else course.written():
        known = [e.name for e in exercises.exercises(course.reference(chapter).read_text(encoding="utf-8"))]
        names = given.exercise or known
        total, alive = survivors(chapter, names)
        reasons = equivalent().get(chapter.slug, {})
        same = [row for row in alive if row[1].strip() in reasons]
        new = [row for row in alive if row not in same]
        left += len(new)
        killed = total - len(alive)
        print(f"{chapter}: {total} mutants, {killed} killed, {len(same)} equivalent, {len(new)} alive", flush=True)
        for name, change in new:
            print(f"  {name}\n" + "\n".join(f"    {line}" for line in change.splitlines()), flush=True)
        if not given.exercise:
            counts[chapter.slug] = {"mutants": total, "killed": killed, "equivalent": len(same)}
    if given.write:
        COUNTS.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    sys.exit(left > 0)


if __name__ == "__main__":
    main()
