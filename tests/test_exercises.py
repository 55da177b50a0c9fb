"""What learners get is fair: every starter fails, the reference passes, there are hints, and nothing leaks.

Chapters come from the curriculum; a new one is tested here as soon as it is written."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tt_tito import course, exercises
from tt_tito.judge import assess, recording

ROOT = Path(__file__).parents[1]
CHAPTERS = course.written()
REFERENCE = {c.slug: course.reference(c).read_text(encoding="utf-8") for c in CHAPTERS}
NAMES = {c.slug: [e.name for e in exercises.exercises(REFERENCE[c.slug])] for c in CHAPTERS}
SKELETON = {c.slug: exercises.skeleton(REFERENCE[c.slug], str(c)) for c in CHAPTERS}
EXERCISES = [(c, name) for c in CHAPTERS for name in NAMES[c.slug]]
STARRED = {(c.slug, e.name) for c in CHAPTERS for e in exercises.exercises(REFERENCE[c.slug]) if e.starred}
SETS = ("one", "two", "three")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("TT_SWAP", "PYTEST_"))}
LONGEST = 12  # lines of a message

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.slug)
each_exercise = pytest.mark.parametrize(
    ("chapter", "name"), EXERCISES, ids=[f"{chapter.slug}-{name}" for chapter, name in EXERCISES]
)


def solution(chapter, which):
    return course.solution(chapter, which).read_text(encoding="utf-8")


def statements(function):
    """The statements of a function, at every depth, without its docstring, in one spelling."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    found = [node for top in body for node in ast.walk(top) if isinstance(node, ast.stmt)]
    return [ast.unparse(node) for node in found if not isinstance(node, ast.FunctionDef)]


# ## Every exercise: starter fails, reference passes


OPTIONS = ["-x", "-q", "--noconftest", "-p", "no:cacheprovider", "--tb=short", "-c", str(ROOT / "pytest.toml")]
SETTINGS = {"OPENBLAS_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.fixture(scope="module")
def run_unit_tests():
    """Runs a chapter's tests on a file; what all files of a chapter need is imported once."""
    running = {}

    def run(chapter, file):
        if chapter not in running:
            command = [sys.executable, ROOT / "tests/forking.py", chapter.slug, *OPTIONS, course.unit_tests(chapter)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
            running[chapter] = subprocess.Popen(command, env=ENVIRONMENT | SETTINGS, cwd=ROOT, **pipes)
        print(file, file=running[chapter].stdin, flush=True)
        return json.loads(running[chapter].stdout.readline())

    yield run
    for process in running.values():
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each run is a fork")
@each_exercise
def test_a_starter_fails(chapter, name, tmp_path, run_unit_tests):
    if (chapter.slug, name) in STARRED:
        pytest.skip("what has a star may be left out")
    file = tmp_path / f"{chapter.slug}.py"
    file.write_text(exercises.graft(REFERENCE[chapter.slug], SKELETON[chapter.slug], [name]), encoding="utf-8")
    code, output = run_unit_tests(chapter, file)
    said = [line for line in output.splitlines() if line.startswith("E ")]
    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert 0 < len(said) <= LONGEST


@pytest.mark.slow
@each_chapter
def test_the_reference_passes(chapter):
    found = assess(chapter, course.reference(chapter))
    assert found.full, found.message


@each_exercise
def test_hints_exist(chapter, name):
    hints = course.hints(chapter)[name]
    assert 2 <= len(hints) <= 3 and len(set(hints)) == len(hints) and all(hints)
    code = " ".join(" ".join(hints).split())
    node = exercises.functions(ast.parse(REFERENCE[chapter.slug]))[name]
    assert not [s for s in statements(node) if len(s) > 25 and s.removeprefix("return ") in code]


@each_chapter
def test_no_hint_is_for_nothing(chapter):
    assert list(course.hints(chapter)) and set(course.hints(chapter)) == set(NAMES[chapter.slug])


# ## Skeletons

# What a solution says in the words of functions that are given: the text wants them to be compared, or it is an idiom.
SHARED = {
    "time_in_bundles": ["start = time.perf_counter()"],  # so does every measurement of the chapter
    "operations_of": ["return next(primitive, tensors, params)"],  # whoever stands in the door ends like this
    "record": ["out = next(primitive, tensors, params)"],
    "dropout": ["if not 0 <= p <= 1:", "raise ValueError("],  # the class Dropout refuses the same
    "binary_cross_entropy_with_logits": ["return reduced("],  # as binary_cross_entropy does
    "time_by_primitive": ["start = time.perf_counter()"],
    "Profile.timed": ["self.last = time.perf_counter()"],  # so does the profiler after its own notes
    "convolution": ["return channels_first(out)"],  # every kernel on images ends like this
    "max_pool": ["return channels_first(out)"],
    "max_unpool": ["return channels_first(out)"],
    "next_probabilities": ["refuse_settings("],  # so does `stream_batch`, before it begins
    "through": ["x = x + block.mlp(block.ln_2(x))"],  # the second half of every block
    "flip_kernels": ["filters, channels, kh, kw = weight.shape"],  # the names of a shape
    "LlamaTransformer.through": ["x = self.embed_tokens(ids)"],  # as its forward pass begins
    "bytes_of_a_token": ["table: Any = model.model.embed_tokens"],  # a type for what may be packed
}
LONG = 24  # characters from which a statement is more than an idiom


@each_exercise
def test_nothing_of_a_solution_is_left(chapter, name):
    node = exercises.functions(ast.parse(REFERENCE[chapter.slug]))[name]
    skeleton = ast.parse(SKELETON[chapter.slug])
    code = Counter(ast.unparse(n) for n in ast.walk(skeleton) if isinstance(n, ast.stmt))
    prose = " ".join(re.findall(r"^# ?(.*)$", SKELETON[chapter.slug], re.MULTILINE))
    long = [s for s in statements(node) if len(s) > LONG and not s.startswith(tuple(SHARED.get(name, ())))]
    assert not [s for s in long if s in code or s.removeprefix("return ") in prose]


@each_chapter
def test_a_skeleton_is_the_chapter_but_for_the_bodies(chapter):
    reference, skeleton = REFERENCE[chapter.slug], SKELETON[chapter.slug]
    names = NAMES[chapter.slug]
    assert names and exercises.unwritten(skeleton, names) == names and exercises.unwritten(reference, names) == []
    filled = exercises.graft(skeleton, reference, names)
    assert ast.dump(ast.parse(filled)) == ast.dump(ast.parse(reference))
    kept = Counter(skeleton.splitlines())
    added = kept - Counter(reference.splitlines())
    assert sum(added.values()) == len(names) and all("NotImplementedError" in line for line in added)
    inside = {n for e in exercises.exercises(reference) for n in range(e.line, e.last + 1)}
    outside = [line for n, line in enumerate(reference.splitlines(), start=1) if n not in inside]
    assert not Counter(outside) - kept


@each_chapter
def test_a_skeleton_can_be_imported(chapter, tmp_path):
    file = tmp_path / f"{chapter.slug}.py"
    file.write_text(SKELETON[chapter.slug], encoding="utf-8")
    environment = ENVIRONMENT | {"TT_SWAP": f"{chapter.slug}={file}"}
    process = subprocess.run(
        [sys.executable, "-c", f"import {chapter.module}"], env=environment, capture_output=True, encoding="utf-8"
    )
    assert process.returncode == 0, process.stderr


# ## What is demanded is said


class Refusals(recording._Listener):
    """The exercises through which an exception passes that a test demands, with the exception and the call."""

    def __init__(self, chapter):
        super().__init__(None)
        self.file = course.reference(chapter).name
        known = exercises.exercises(REFERENCE[chapter.slug])
        self.names = {line: each.name for each in known for line in range(each.first, each.last + 1)}
        self.found = []

    def expect(self, call, got, wanted, *causes, **options):
        try:
            got() if callable(got) else None
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if Path(frame.filename).name == self.file]
            passed = {self.names[line] for line in lines if line in self.names}
            if passed and isinstance(wanted, type) and issubclass(wanted, BaseException):
                self.found.append((passed, wanted.__name__, call))


def said_of(text, name):
    """The docstrings of a function and of its class, and the prose above it."""
    owner = name.rpartition(".")[0]
    docs = [ast.get_docstring(n) or "" for n in ast.parse(text).body if getattr(n, "name", None) == owner]
    exercise = next(each for each in exercises.exercises(text) if each.name == name)
    above = itertools.takewhile(
        lambda line: not line.strip() or line.lstrip().startswith(("#", "@", "class ")),
        reversed(text.splitlines()[: exercise.first - 1]),
    )
    return " ".join([exercise.doc, *docs, *above])


@pytest.mark.slow
@each_chapter
def test_what_an_exercise_must_refuse_is_said_before(chapter):
    listener, (text, _) = Refusals(chapter), recording._texts(chapter, "unit")
    with np.errstate(all="ignore"):
        recording._run(course.unit_tests(chapter).name, text, listener)
    unsaid = [
        (call, error, sorted(names)) for names, error, call in listener.found
        if not any(error in said_of(REFERENCE[chapter.slug], name) for name in names)
    ]
    assert not unsaid


# ## Solutions


@pytest.mark.slow
@pytest.mark.parametrize("which", ("one", "three"))  # the second in test_session; integration tests in test_swaps
@each_chapter
def test_a_solution_passes(chapter, which, tmp_path):
    names = NAMES[chapter.slug]
    file = tmp_path / f"{chapter.slug}.py"
    file.write_text(exercises.graft(SKELETON[chapter.slug], solution(chapter, which), names), encoding="utf-8")
    found = assess(chapter, file)
    assert found.full, found.message


@each_chapter
def test_solutions_are_independent(chapter):
    sources = [REFERENCE[chapter.slug], *(solution(chapter, which) for which in SETS)]
    answers = [exercises.functions(ast.parse(source)) for source in sources]
    same = Counter()
    for name in NAMES[chapter.slug]:
        bodies = ["\n".join(statements(functions[name])) for functions in answers]
        same[name] = len(bodies) - len(set(bodies))
    alike = [name for name, count in same.items() if count]
    assert len(alike) <= len(NAMES[chapter.slug]) // 3, f"word for word the same in two sets: {alike}"
    wholes = ["\n".join(ast.unparse(functions[n]) for n in NAMES[chapter.slug]) for functions in answers]
    assert len(set(wholes)) == len(wholes)
