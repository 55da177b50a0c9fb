"""Grading files, a learner's folder, or a folder with a folder or a file for each learner.

If something is wrong with one file, or with judging it, its row says so, and the others are judged."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tt_tito import files
from tt_tito.curriculum import chapter as chapter_called
from tt_tito.judge import box
from tt_tito.judge.assessment import Assessment, Mark, assess
from tt_tito.judge.handed_in import Entry, Left, find
from tt_tito.judge.reading import Reading
from tt_tito.judge.recording import GROUPS, record
from tt_tito.judge.sandbox import CORES, workers
from tt_tito.judge.verdict import clean

__all__ = ["ChapterSummary", "Marks", "Row", "as_json", "full", "grade", "summary", "write_csv"]

MISTAKES = 5  # that a summary names of each chapter
NOT_JUDGED = "not judged"  # the status of a file with which the judge itself has failed


@dataclass(frozen=True)
class Row:
    """A learner's file for a chapter, its assessment, and other files of the chapter that were not graded."""

    learner: str
    file: str
    assessment: Assessment
    others: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {"learner": self.learner, "file": self.file, **self.assessment.as_data(), "others": self.others}

    def message(self) -> str:
        """The message about the file, and about files that were not graded."""
        left = f"Not graded: {', '.join(self.others)}." if self.others else ""
        return "\n".join(filter(None, [self.assessment.message, left]))


@dataclass(frozen=True)
class Marks:
    """All rows, by learner and in the order of the course, the learners without files, and the files that were not
    graded."""

    rows: tuple[Row, ...] = ()
    without_files: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()
    is_one_file: bool = False


@dataclass(frozen=True)
class ChapterSummary:
    """A summary of a class for a chapter: for each exercise how many passed, failed or left it, and frequent
    mistakes."""

    chapter: str
    files: int
    full: int
    exercises: dict[str, dict[str, int]]
    mistakes: list[tuple[str, int]]


def grade(
    paths: Iterable[Path],
    groups: Sequence[str] = tuple(GROUPS),
    *,
    tell: Callable[[str], Any] = lambda line: None,
    came: Callable[[Marks], Any] = lambda marks: None,
) -> Marks:
    """Judge everything at some paths, as many files at once as there are cores, each on the reference. At
    first, and after each file, `came` gets the marks so far; `tell` gets a line. ValueError if there is nothing to
    grade."""
    paths = [Path(path) for path in paths]
    found = find(paths)
    is_one_file = len(paths) == 1 and not paths[0].is_dir()
    rows: dict[int, Row] = {}

    def marks() -> Marks:
        known = tuple(rows[index] for index in sorted(rows))
        return Marks(known, tuple(found.without_files), tuple(found.left), is_one_file)

    came(marks())
    _tell_of_the_boundary(tell)
    for chapter in dict.fromkeys(entry.chapter for entry in found.entries):
        for group in groups:
            with suppress(Exception):  # each row will show it
                record(chapter, group)  # before anything else runs
    with workers(CORES) as pool:
        judging = {pool.submit(_row, entry, groups): index for index, entry in enumerate(found.entries)}
        told = 0
        for done in as_completed(judging):
            rows[judging[done]] = done.result()
            came(marks())
            while told in rows and not is_one_file:  # in the order of the rows, so that it is always the same
                told += 1
                tell(f"{told} of {len(judging)}: {_in_short(rows[told - 1])}")
    return marks()


def _in_short(row: Row) -> str:
    found = row.assessment
    return f"{row.learner}, {found.chapter}: {found.status}, {found.points} of {found.out_of}"


def _tell_of_the_boundary(tell: Callable[[str], Any]) -> None:
    held = box.boundary()
    if held not in ("bubblewrap", "Landlock and seccomp"):
        tell(f"tito: here the files are confined by {held} of the kernel: see what \"Teach with it\" says of that")


def _row(entry: Entry, groups: Sequence[str]) -> Row:
    """The row of a file, whatever happens while it is judged."""
    try:
        found = assess(entry.chapter, entry.file, groups=groups)
    except Exception as error:
        names: list[str] = []
        with suppress(Exception):
            names = Reading(entry.chapter, entry.file).exercises
        marks = tuple(Mark(name, NOT_JUDGED) for name in names)
        why = clean((str(error) or type(error).__name__)[:1000])
        found = Assessment(entry.chapter.slug, NOT_JUDGED, marks, f"This is not the learner's fault: {why}")
    return Row(entry.learner, entry.name, found, entry.others)


def full(marks: Marks) -> bool:
    """Whether every submission has full marks for everything. (Files that were not graded do not count.)"""
    return bool(marks.rows) and not marks.without_files and all(row.assessment.full for row in marks.rows)


def as_json(marks: Marks) -> str:
    """For one file one object, otherwise the marks and the summary of the class."""
    if marks.is_one_file:
        data: Any = marks.rows[0].as_data()
    else:
        data = {
            "marks": [row.as_data() for row in marks.rows],
            "without_files": marks.without_files,
            "left": [asdict(left) for left in marks.left],
            "boundary": box.boundary(),
            "summary": [asdict(chapter) for chapter in summary(marks)],
        }
    return json.dumps(data, indent=2, ensure_ascii=False)


def write_csv(marks: Marks, file: Path) -> None:
    """Write a table with a line for each learner and chapter, and for each file that was not graded."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["learner", "chapter", "file", "status", "points", "out of", *STATUSES, "message", "exercises"])
    for row in marks.rows:
        found = row.assessment
        names = [" ".join(mark.name for mark in found.exercises if mark.status == status) for status in STATUSES]
        points = "" if found.status == NOT_JUDGED else found.points
        said = "\n".join(f"{mark.name}: {mark.message}" for mark in found.exercises if mark.message)
        cells = [row.learner, found.chapter, row.file, found.status, points, found.out_of, *names, row.message(), said]
        table.writerow([_cell(cell) for cell in cells])
    for learner in marks.without_files:
        table.writerow([_cell(learner), "", "", "nothing handed in"])
    for left in marks.left:
        cells = [left.learner, "", left.file, "left", "", "", *("" for _ in STATUSES), left.reason]
        table.writerow([_cell(cell) for cell in cells])
    files.write(file, text.getvalue())


STATUSES = ("passed", "failed", "unwritten")


def summary(marks: Marks) -> list[ChapterSummary]:
    """A summary of the class, chapter by chapter."""
    judged = [row.assessment for row in marks.rows if row.assessment.status != NOT_JUDGED]
    chapters = dict.fromkeys(found.chapter for found in judged)
    return [
        _summary(chapter, [found for found in judged if found.chapter == chapter])
        for chapter in sorted(chapters, key=lambda name: chapter_called(name).number)
    ]


def _summary(chapter: str, found: list[Assessment]) -> ChapterSummary:
    counts: dict[str, Counter[str]] = {mark.name: Counter() for mark in found[0].exercises}
    for assessment in found:
        for mark in assessment.exercises:
            counts[mark.name][mark.status] += 1
    mistakes = Counter(mistake for assessment in found for mistake in sorted(_mistakes(assessment)))
    return ChapterSummary(
        chapter,
        len(found),
        sum(assessment.full for assessment in found),
        {name: {status: count[status] for status in STATUSES} for name, count in counts.items()},
        mistakes.most_common(MISTAKES),
    )


def _mistakes(assessment: Assessment) -> set[str]:
    """The mistakes in a file: the cause if it is known, otherwise the outcome."""
    messages = {mark.message for mark in assessment.exercises if mark.message} or {assessment.message} - {""}
    return {_cause(message) for message in messages}


def _cause(message: str) -> str:
    lines = [line for line in message.splitlines() if not line.startswith(("See ", " ", "No exercise can be"))]
    return " ".join(lines[1:] or lines).removeprefix("Likely: ")


def _cell(value: Any) -> Any:
    """A cell that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
