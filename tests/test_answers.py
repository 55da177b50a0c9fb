"""A wrong answer to every exercise: the judge refuses it, and says in the first message what is wrong.

The bank of mistakes (test_mistakes.py) has those that learners make most; tests/mistakes/answers.toml has one for each
exercise that the bank leaves out, as a change of the reference's lines and the words that must name the cause."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from tt_tito import course, exercises
from tt_tito.judge.assessment import assess
from tt_tito.judge.sandbox import Limits

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "site" / "hooks"))

import mistakes  # noqa: E402

ANSWERS = tomllib.loads((ROOT / "tests" / "mistakes" / "answers.toml").read_text(encoding="utf-8"))
CHAPTERS = course.written()
LONGEST = 12  # lines of a message

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.slug)


def lines_of(text, name):
    """The first and the last line of an exercise."""
    node = exercises.functions(ast.parse(text))[name]
    return node.lineno, node.end_lineno


def planted(text, answer):
    """The reference with one exercise answered wrongly."""
    first, last = lines_of(text, answer["exercise"])
    lines = text.splitlines(keepends=True)
    own = "".join(lines[first - 1 : last])
    old, new = answer["change"]
    assert own.count(old) == 1, f"{answer['exercise']}: the text to change occurs {own.count(old)} times: {old}"
    return "".join([*lines[: first - 1], own.replace(old, new), *lines[last:]])


def in_the_bank(chapter, text):
    """The exercises that a mistake of the bank changes."""
    found = set()
    spans = {each.name: lines_of(text, each.name) for each in exercises.exercises(text)}
    for old, _ in (edit for mistake in mistakes.bank(ROOT).get(chapter, []) for edit in mistake.edits):
        if (place := text.find(old)) >= 0:
            first = text.count("\n", 0, place) + 1
            last = first + old.rstrip("\n").count("\n")
            found |= {name for name, (start, end) in spans.items() if first <= end and last >= start}
    return found


@each_chapter
def test_every_exercise_has_a_wrong_answer(chapter):
    text = course.reference(chapter).read_text(encoding="utf-8")
    answered = {answer["exercise"] for answer in ANSWERS.get(chapter.slug, [])}
    asked = {each.name for each in exercises.exercises(text)}
    assert answered <= asked
    assert asked == answered | in_the_bank(chapter, text), asked - answered - in_the_bank(chapter, text)


@pytest.mark.slow
@pytest.mark.parametrize("chapter", [c for c in CHAPTERS if c.slug in ANSWERS], ids=lambda chapter: chapter.slug)
def test_a_wrong_answer_is_refused_and_its_cause_named(chapter, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])  # the judge puts its finder into this process
    text = course.reference(chapter).read_text(encoding="utf-8")

    def judged(answer):
        file = tmp_path / answer["exercise"] / f"{chapter.slug}.py"
        file.parent.mkdir()
        file.write_text(planted(text, answer), encoding="utf-8")
        limits = Limits(seconds=30)
        return assess(chapter, file, only=[answer["exercise"]], alone=False, trusted=True, limits=limits)

    for answer, verdict in zip(ANSWERS[chapter.slug], map(judged, ANSWERS[chapter.slug])):
        what = f"{answer['exercise']} that {answer['mistake']}"
        assert verdict.status == "failed", f"{what}: {verdict.status}"
        said = verdict.message.splitlines()
        assert answer["says"] in " ".join(said), f"{what}: {answer['says']!r} is not in\n{verdict.message}"
        assert len(said) <= LONGEST and said[-1].startswith("See ")


def test_only_one_exercise_is_changed():
    text = "def f(x):  # exercise\n    return x + 1\n\n\ndef g(x):  # exercise\n    return x + 1\n"
    changed = planted(text, {"exercise": "g", "change": ["x + 1", "x"]})
    assert changed == text[: text.rindex("x + 1")] + "x\n"
    with pytest.raises(AssertionError, match="occurs 0 times"):
        planted(text, {"exercise": "g", "change": ["x + 2", "x"]})
