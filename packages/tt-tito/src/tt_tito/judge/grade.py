"""Grading what learners hand in: files, a learner's folder, or a folder with a folder for each learner."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from tt_tito import course, files
from tt_tito.curriculum import Chapter
from tt_tito.curriculum import chapter as chapter_called
from tt_tito.exercises import PARSING
from tt_tito.judge.assessment import Assessment, Mark, assess
from tt_tito.judge.recording import GROUPS, record
from tt_tito.judge.sandbox import CORES, workers
from tt_tito.judge.submission import Submission

__all__ = ["ChapterSummary", "Marks", "Row", "as_json", "full", "grade", "summary", "write_csv"]

MISTAKES = 5  # that a summary names of each chapter


@dataclass(frozen=True)
class Row:
    """What one learner has handed in for one chapter, and what it is worth."""

    learner: str
    file: str
    assessment: Assessment

    def as_data(self) -> dict[str, Any]:
        """Everything as JSON can write it."""
        return {"learner": self.learner, "file": self.file, **self.assessment.as_data()}


@dataclass(frozen=True)
class Marks:
    """All rows, by learner and in the order of the course, and the learners who have handed in nothing."""

    rows: tuple[Row, ...]
    without_files: tuple[str, ...] = ()
    is_one_file: bool = False


@dataclass(frozen=True)
class ChapterSummary:
    """How a class fares with a chapter: for each exercise how many passed it, failed it or left it, and what is often
    wrong."""

    chapter: str
    files: int
    full: int
    exercises: dict[str, dict[str, int]]
    mistakes: list[tuple[str, int]]


def grade(paths: Iterable[Path], groups: Sequence[str] = tuple(GROUPS)) -> Marks:
    """Judge everything that lies at some paths, as many files at once as there are cores, each on the reference.
    ValueError for a path at which there is nothing to grade."""
    paths = [Path(path).resolve() for path in paths]
    found = [_handed_in(path) for path in paths]
    handed_in = [entry for entries, _ in found for entry in entries]
    for chapter in dict.fromkeys(chapter for _, _, chapter in handed_in):
        for group in groups:
            record(chapter, group)  # changes the working directory for a moment, so before anything else runs
    with TemporaryDirectory(prefix="tito-") as folder, workers(CORES) as pool:
        assessments = pool.map(lambda entry: _assess(entry[1], entry[2], groups, Path(folder)), handed_in)
        rows = tuple(Row(entry[0], entry[1].name, assessment) for entry, assessment in zip(handed_in, assessments))
    nothing = tuple(learner for _, learners in found for learner in learners)
    return Marks(rows, nothing, len(paths) == 1 and paths[0].is_file())


def full(marks: Marks) -> bool:
    """Has everybody full marks for everything?"""
    return bool(marks.rows) and not marks.without_files and all(row.assessment.full for row in marks.rows)


def as_json(marks: Marks) -> str:
    """One object for one file, else the marks and the summary of the class."""
    if marks.is_one_file:
        data: Any = marks.rows[0].as_data()
    else:
        data = {
            "marks": [row.as_data() for row in marks.rows],
            "without_files": marks.without_files,
            "summary": [asdict(chapter) for chapter in summary(marks)],
        }
    return json.dumps(data, indent=2, ensure_ascii=False)


def write_csv(marks: Marks, file: Path) -> None:
    """Write a table with a line for each learner and chapter."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["learner", "chapter", "file", "status", "points", "out of", *STATUSES, "message"])
    for row in marks.rows:
        found = row.assessment
        names = [" ".join(mark.name for mark in found.exercises if mark.status == status) for status in STATUSES]
        cells = [row.learner, found.chapter, row.file, found.status, found.points, found.out_of, *names, found.message]
        table.writerow([_cell(cell) for cell in cells])
    for learner in marks.without_files:
        table.writerow([_cell(learner), "", "", "nothing handed in"])
    files.write(file, text.getvalue())


STATUSES = ("passed", "failed", "unwritten")


def summary(marks: Marks) -> list[ChapterSummary]:
    """How the class fares, chapter by chapter."""
    chapters = dict.fromkeys(row.assessment.chapter for row in marks.rows)
    return [
        _summary(chapter, [row.assessment for row in marks.rows if row.assessment.chapter == chapter])
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
    """What is wrong with a file: the cause if it is known, else what came out."""
    messages = {mark.message for mark in assessment.exercises if mark.message} or {assessment.message} - {""}
    return {_cause(message) for message in messages}


def _cause(message: str) -> str:
    lines = [line for line in message.splitlines() if not line.startswith(("See ", " "))]
    return " ".join(lines[1:] or lines).removeprefix("Likely: ")


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


Entry = tuple[str, Path, Chapter]


def _handed_in(path: Path) -> tuple[list[Entry], list[str]]:
    """The learners' names, files and chapters at a path, and the names of learners without files."""
    if path.is_file():
        return [(path.parent.name, path, _chapter(path))], []
    if not path.is_dir():
        raise ValueError(f"{path} is neither a file nor a folder")
    own = [(path.name, file, chapter) for file, chapter in _files(path)]
    if own:
        return own, []
    learners = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and folder.name[0] not in "._"]
    entries = [(folder.name, file, chapter) for folder in learners for file, chapter in _files(folder)]
    if not entries:
        names = ", ".join(f"{chapter.slug}.py" for chapter in course.written()[:2])
        raise ValueError(f"{path} holds no chapters, neither itself nor in a folder for each learner: {names}, ...")
    return entries, [folder.name for folder in learners if not _files(folder)]


def _files(folder: Path) -> list[tuple[Path, Chapter]]:
    """The chapters in a learner's folder, or in `work` in it, in the order of the course."""
    for place in (folder, folder / "work"):
        found = []
        for file in sorted(place.iterdir()) if place.is_dir() else ():
            if file.suffix in (".py", ".ipynb") and file.is_file():
                try:
                    found.append((file, _chapter(file)))
                except ValueError:
                    continue  # a file of another kind
        if found:
            return sorted(found, key=lambda entry: entry[1].number)
    return []


def _chapter(file: Path) -> Chapter:
    """The chapter that a file's name means. ValueError if there is none, or none is written."""
    if file.suffix not in (".py", ".ipynb"):
        raise ValueError(f"{file.name} is neither a Python file nor a notebook")
    found = chapter_called(file.stem)
    if found not in course.written():
        raise ValueError(f"{file.name} is to be {found}, which is not installed: pip install {found.package}")
    return found


def _assess(file: Path, chapter: Chapter, groups: Sequence[str], folder: Path) -> Assessment:
    if file.suffix == ".ipynb":
        from tt_tito import notebooks

        made = Path(mkdtemp(dir=folder)) / f"{chapter.slug}.py"
        try:
            with PARSING:
                files.write(made, notebooks.read(file))
        except ImportError:
            raise
        except Exception as error:  # whatever is in it, the others are graded
            blank = tuple(Mark(name, "failed") for name in Submission(chapter, file).exercises)
            return Assessment(chapter.slug, "error", blank, f"{file.name} cannot be read: {error}")
        file = made
    return assess(chapter, file, groups=groups)
