"""A learner from `tito setup` to the end of what is written, as typed; then what beginners get wrong."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tt_tito import course, exercises

ROOT = Path(__file__).parents[1]
WRITTEN = course.written()
SOLUTIONS, STUCK = "two", "setup"  # what the learner types, and the chapter that is taken from the course
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("TT_", "PYTEST_"))}

pytestmark = pytest.mark.slow


class Learner:
    """Somebody with a workspace, who types commands and solutions."""

    def __init__(self, root):
        self.root = root
        root.mkdir()
        self.tito("setup")

    def tito(self, *arguments, status=0):
        process = subprocess.run(
            [sys.executable, "-m", "tt_tito", *map(str, arguments)],
            cwd=self.root,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )
        said = process.stdout + process.stderr
        assert process.returncode == status, f"tito {' '.join(map(str, arguments))}:\n{said}"
        return said

    def write(self, chapter, solution, only=None):
        """Type the functions of a solution into the skeleton; what it lacks comes from the first solution."""
        file = self.root / "work" / f"{chapter.slug}.py"
        text = file.read_text(encoding="utf-8")
        names = [e.name for e in exercises.exercises(text)]
        if only:
            text = exercises.graft(text, answer(chapter, "one"), names)
            names = [name for name in names if name in functions_of(solution)]
        file.write_text(exercises.graft(text, solution, names), encoding="utf-8")


def answer(chapter, which):
    return course.solution(chapter, which).read_text(encoding="utf-8")


def functions_of(text):
    return exercises.functions(exercises.parse(text))


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    return Learner(tmp_path_factory.mktemp("learner") / "space")


@pytest.fixture(scope="module")
def said(learner):
    """What `complete` says of each chapter, from the first to the last."""
    said = {}
    for chapter in WRITTEN:
        number = f"{chapter.number:02d}"
        if chapter.slug == STUCK:
            assert "its capability is unlocked" in learner.tito("use", chapter.slug, "reference")
            continue
        assert f"Next: tito module start {number}" in learner.tito("next")
        learner.tito("module", "start", number)
        learner.write(chapter, answer(chapter, SOLUTIONS))
        said[chapter.slug] = learner.tito("module", "complete", f"{number}_{chapter.slug}")
        if chapter.milestone and chapter.number < 9:
            assert "is earned" in learner.tito("examples", "run", chapter.example.split("/")[0])
    return said


def test_a_learner_gets_through(learner, said):
    found = json.loads(learner.tito("status", "--json"))
    chapters = {row["name"]: row for row in found["chapters"]}
    for chapter in WRITTEN:
        assert chapters[chapter.slug]["in_use"] == ("reference" if chapter.slug == STUCK else "mine")
        assert chapters[chapter.slug]["done"]
    assert found["capabilities"] == [c.capability for c in WRITTEN]
    earned = [m for m in found["milestones"] if "earned" in m]
    assert [m["number"] for m in earned] == [1, 2]
    assert earned[1]["implementations"][STUCK] == "reference"
    assert all(row["reached"] for m in earned for row in m["results"])
    assert found["next"]["command"] == "tito examples run lenet_1998"


def test_completing_says_what_was_won_and_what_hurts_next(said):
    for chapter, after in zip(WRITTEN, [*WRITTEN[1:], None]):
        if chapter.slug not in said:
            continue
        assert f"Capability {chapter.capability} is unlocked: {chapter.unlocks}" in said[chapter.slug]
        if after and after.slug != STUCK:
            assert after.says in said[chapter.slug] and f"tito module start {after.number:02d}" in said[chapter.slug]
        if chapter.milestone:
            assert chapter.milestone in said[chapter.slug] and "tito examples run" in said[chapter.slug]


def test_without_its_data_an_example_runs_and_earns_nothing(learner, said):
    found = learner.tito("examples", "run", "lenet_1998", "--epochs", "1", status=1)
    assert "8 x 8 digits" in found and "is earned" not in found


def test_the_last_example_runs_on_the_learners_code(learner, said):
    assert "Milestone 2 is earned" in learner.tito("examples", "run", "xor_1969", "--train")


def test_damaged_progress_is_rebuilt_from_what_can_be_run_again(learner, said, tmp_path):
    copy = Learner(tmp_path / "copy")
    for slug in ("activations", "losses"):
        (copy.root / "work" / f"{slug}.py").write_bytes((learner.root / "work" / f"{slug}.py").read_bytes())
    copy.tito("module", "start", "layers")
    (copy.root / ".tito/progress.json").write_text('{"version": 1, "data"', encoding="utf-8")
    told = copy.tito("next")
    assert "was damaged" in told and "03 activations: passed" in told and "05 losses: passed" in told
    assert "04 layers" not in told  # nothing of it is written
    done = [row["name"] for row in json.loads(copy.tito("status", "--json"))["chapters"] if row["done"]]
    assert done == ["activations", "losses"]
    (kept,) = (copy.root / ".tito/backups").iterdir()
    assert kept.read_text(encoding="utf-8") == '{"version": 1, "data"'


# ## Wrong answers


@pytest.fixture(scope="module")
def beginner(tmp_path_factory):
    return Learner(tmp_path_factory.mktemp("beginner") / "space")


@pytest.mark.parametrize("chapter", WRITTEN[1::8], ids=lambda chapter: chapter.slug)  # test_answers judges more
def test_a_wrong_answer_is_told_why(chapter, beginner):
    wrong = answer(chapter, "wrong")
    words = re.match(r"# says: (.+)", wrong)[1].strip()
    beginner.tito("module", "start", chapter.slug)
    beginner.write(chapter, wrong, only=True)
    said = beginner.tito("module", "test", chapter.slug, status=1)
    _, message, rest = said.split("\n\n", 2)
    assert words in " ".join(said.split()) and "FAILED" in rest, said
    lines = message.splitlines()
    assert len(lines) <= 12 and lines[-1].startswith("See ")
    assert rest.splitlines()[-1] == f"Run again: tito module test {chapter.number:02d}"
    assert not re.search(r"Traceback|AssertionError", said)
    beginner.tito("module", "complete", chapter.slug, status=1)
    assert json.loads(beginner.tito("use", "--json"))[chapter.slug] == "reference"
