"""The tests are tested: each mistake is planted in a learner's file, where the chapter's own tests must name its cause.

The judge says so of all of them, and pytest in a copy of the packages of one a chapter."""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tt_tito import course

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "site" / "hooks"))

import mistakes  # noqa: E402

NUMBERS = {"T": 8, "A": 9, "L": 11, "C": 6, "O": 8, "G": 11, "N": 4, "S": 4, "D": 3, "K": 3, "M": 6, "P": 3, "E": 8}
NUMBERS |= {"H": 12, "Q": 12, "X": 16, "B": 15, "F": 13}
ENVIRONMENT = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # now: while tests run, pytest writes into it
LONGEST = 12  # lines of a message
BANK = mistakes.bank(ROOT)
ALL = [(chapter, mistake) for chapter, planted in BANK.items() for mistake in planted]

pytestmark = pytest.mark.slow
each_chapter = pytest.mark.parametrize("chapter", BANK, ids=lambda chapter: chapter.slug)


def run_tests(chapter, *folders):
    """Run a chapter's tests on the packages that are found in `folders`; the exit code and what was printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--noconftest", "-p", "no:cacheprovider", "--tb=short"]
    process = subprocess.run(
        [*command, "-c", ROOT / "pytest.toml", course.unit_tests(chapter)],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    return process.returncode, process.stdout + process.stderr


def names(mistake, said):
    """Whether a message names the cause, which stands between what came out and where to look."""
    return mistake.says[0] in " ".join(said[1:-1]) and all(words in " ".join(said) for words in mistake.says)


@pytest.fixture
def sources(tmp_path):
    """A copy of all packages as they are now."""
    for package in ROOT.glob("packages/*/src/tt_*"):
        shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@each_chapter
def test_an_empty_chapter_fails(chapter, sources):
    (sources / chapter.package.replace("-", "_") / f"{chapter.slug}.py").write_text("__all__ = []\n", encoding="utf-8")
    code, output = run_tests(chapter, sources)
    assert code in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    assert re.search(rf"'{chapter.module}'|module '{chapter.package.replace('-', '_')}' has no", output), output


@each_chapter
def test_pytest_shows_a_mistake_with_its_cause(chapter, sources):
    mistake = BANK[chapter][0]
    for module, text in mistakes.plant(mistake, mistakes.modules()).items():
        (sources / f"{module.replace('.', '/')}.py").write_text(text, encoding="utf-8")
    code, output = run_tests(chapter, sources)
    said = [line[1:].strip() for line in output.splitlines() if line.startswith("E ")]
    assert code == pytest.ExitCode.TESTS_FAILED, f"{mistake.mistake}: {pytest.ExitCode(code).name}\n{output}"
    assert names(mistake, said), f"{mistake.mistake}: {mistake.says} are not in\n{said}"
    assert len(said) <= LONGEST and "See " in said[-1]


@functools.cache
def verdicts(chapter):
    return mistakes.verdicts(chapter, BANK[chapter], ROOT)


@pytest.mark.parametrize(("chapter", "mistake"), ALL, ids=[mistake.id for _, mistake in ALL])
def test_a_mistake_that_is_handed_in_fails_and_its_cause_is_named(chapter, mistake):
    found = verdicts(chapter)[BANK[chapter].index(mistake)]
    said = found.message.splitlines()
    assert found.status == "failed", f"{mistake.mistake}: {found}"
    assert names(mistake, said), f"{mistake.mistake}: {mistake.says} are not in\n{said}"
    assert len(said) <= LONGEST and said[-1].startswith("See ")


def test_the_bank_is_complete():
    numbers = Counter(re.match(r"[A-Z]\d+", mistake.id)[0] for _, mistake in ALL)
    assert set(numbers) == {f"{letter}{i + 1}" for letter, count in NUMBERS.items() for i in range(count)}
    assert len({mistake.id for _, mistake in ALL}) == len(ALL)


def test_an_edit_that_no_longer_applies_is_an_error():
    nowhere = mistakes.Mistake("T0", "none", [["this text is nowhere", ""]], [])
    with pytest.raises(ValueError, match="occurs 0 times"):
        mistakes.plant(nowhere, mistakes.modules())


def test_what_was_said_is_kept_until_something_changes(tmp_path, monkeypatch):
    chapter = next(iter(BANK))
    shutil.copytree(ROOT / "packages", tmp_path / "packages", ignore=shutil.ignore_patterns("__pycache__", "dist"))
    judged = []

    def judge_all(_, planted):
        judged.extend(planted)
        return [mistakes.Verdict("failed", mistake.id) for mistake in planted]

    monkeypatch.setattr(mistakes, "_judge_all", judge_all)
    for _ in range(2):
        said = mistakes.verdicts(chapter, BANK[chapter], tmp_path)
        assert [verdict.message for verdict in said] == [mistake.id for mistake in BANK[chapter]]
    assert len(judged) == len(BANK[chapter])
    file = tmp_path / "packages" / chapter.package / "src" / chapter.package.replace("-", "_") / f"{chapter.slug}.py"
    file.write_text(file.read_text(encoding="utf-8") + "\nchanged = 1\n", encoding="utf-8")
    mistakes.verdicts(chapter, BANK[chapter], tmp_path)
    mistakes.verdicts(chapter, BANK[chapter][1:], tmp_path)
    assert len(judged) == 3 * len(BANK[chapter]) - 1
    assert len(list((tmp_path / "build" / "woven").iterdir())) == 1


def sections_named_in(tests):
    """The values of all `see=` in a file of tests, constants resolved; of a loop's variable, the constants it takes."""
    tree, constants = ast.parse(tests), {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=value):
                constants |= dict(zip([name.id for name in names], ast.literal_eval(value)))
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                constants[name] = value
    seen = [word.value for word in ast.walk(tree) if isinstance(word, ast.keyword) and word.arg == "see"]
    seen = [part for v in seen for part in ((v.body, v.orelse) if isinstance(v, ast.IfExp) else (v,))]
    loops = [loop for loop in ast.walk(tree) if isinstance(loop, ast.For) and "see" in ast.unparse(loop.target)]
    names = {node.id for loop in loops for node in ast.walk(loop.iter) if isinstance(node, ast.Name)}
    names |= {value.id for value in seen if isinstance(value, ast.Name)} - {"see"}
    return {constants[name] for name in names} | {
        ast.literal_eval(value) for value in seen if not isinstance(value, ast.Name)
    }


@pytest.mark.parametrize("chapter", course.written(), ids=lambda chapter: chapter.slug)
def test_messages_point_to_sections_that_exist(chapter):
    path = course.unit_tests(chapter)
    sources = [source.read_text(encoding="utf-8") for source in path.parents[1].glob("src/tt_*/*.py")]
    titles = {title for source in sources for title in re.findall(r"^ *# ## (.+)$", source, re.MULTILINE)}
    named = sections_named_in(path.read_text(encoding="utf-8"))
    assert named and not named - titles
