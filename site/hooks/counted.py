"""Numbers about the course on hand-written pages, counted in its files: `<!-- tt:count words -->`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from experiments import read_curriculum
from mistakes import BANK
from reading import Prose, WeaveError, outside_fences, read_chapter

from tt_tito import exercises
from tt_tito.curriculum import Appendix, Chapter

WORDS_A_MINUTE = 220  # of technical prose


def words(entry: Chapter | Appendix, root: Path) -> int:
    """How many words of prose a chapter has."""
    blocks = read_chapter((root / entry.source).read_text(encoding="utf-8"), entry.source).blocks
    text = " ".join(line for block in blocks if isinstance(block, Prose) for line in outside_fences(block.text))
    return sum(any(sign.isalnum() for sign in word) for word in text.split())


def minutes(entry: Chapter | Appendix, root: Path) -> int:
    """How many minutes it takes to read, in fives."""
    return max(5, 5 * round(words(entry, root) / WORDS_A_MINUTE / 5))


def exercises_of(entry: Chapter | Appendix, root: Path) -> int:
    return len(exercises.exercises((root / entry.source).read_text(encoding="utf-8")))


def count(name: str, root: Path) -> str:
    """One of the numbers, as a page shows it. WeaveError for a name that is none."""
    course = read_curriculum(root)
    chapters = [chapter for chapter in course.chapters if (root / chapter.source).exists()]
    mutants = tomllib.loads((root / BANK).read_text(encoding="utf-8"))["mutant"] if (root / BANK).exists() else []
    match name:
        case "chapters":
            found: float = len(chapters)
        case "appendices":
            found = len(course.appendices)
        case "words":
            found = round(sum(words(chapter, root) for chapter in chapters), -3)
        case "hours":
            found = round(sum(words(chapter, root) for chapter in chapters) / WORDS_A_MINUTE / 60)
        case "exercises":
            found = sum(exercises_of(chapter, root) for chapter in chapters)
        case "mistakes":
            found = len(mutants)
        case "milestones":
            found = sum(bool(chapter.milestone) for chapter in chapters)
        case _:
            raise WeaveError(f"a page asks for the number of {name!r}, which nothing counts")
    return f"{found:,}"
