"""What a learner's file of a chapter is worth: a verdict on the whole, points for each exercise, and what to say."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.util import cache_from_source
from pathlib import Path

from tt_tito import course
from tt_tito.curriculum import Chapter
from tt_tito.judge.recording import Recording, questions, record
from tt_tito.judge.sandbox import CORES, Job, Limits, Run, run
from tt_tito.judge.submission import Submission, Unreadable
from tt_tito.judge.verdict import Verdict, clean, judge

__all__ = ["Assessment", "Mark", "assess"]

DEFAULT = Limits()


@dataclass(frozen=True)
class Mark:
    """An exercise: passed, failed or unwritten, its points, and what is wrong with it if it is judged alone."""

    name: str
    status: str
    points: int = 0
    message: str = ""


@dataclass(frozen=True)
class Assessment:
    """A learner's file of a chapter, judged.

    The status is passed if everything that is written is right, else failed, error (it cannot be imported), timeout,
    memory or crashed. `right` of `checks` values were right when the first was wrong."""

    chapter: str
    status: str
    exercises: tuple[Mark, ...]
    message: str = ""
    right: int = 0
    checks: int = 0
    stand_ins: tuple[str, ...] = ()
    printed: str = field(default="", compare=False)

    @property
    def points(self) -> int:
        """A point for each exercise that is right."""
        return sum(mark.points for mark in self.exercises)

    @property
    def out_of(self) -> int:
        """The points for everything."""
        return len(self.exercises)

    @property
    def passed(self) -> bool:
        """Is everything right that is written? (Something is.)"""
        return self.status == "passed"

    @property
    def full(self) -> bool:
        """Is everything written, and right?"""
        return self.passed and self.points == self.out_of

    def lines(self) -> list[tuple[str, str]]:
        """The exercises with their statuses."""
        return [(mark.name, mark.status) for mark in self.exercises]

    def summary(self) -> str:
        """The whole in a line."""
        left = sum(mark.status == "unwritten" for mark in self.exercises)
        rest = f", {left} to be written" if left else ""
        return f"{self.points} of {self.out_of} exercises{rest}; {self.right} of {self.checks} checks."

    def as_data(self) -> dict:
        """Everything as JSON can write it, but for what was printed, which may be another text each time."""
        data = asdict(self)
        del data["printed"]
        return {"chapter": data.pop("chapter"), "status": data.pop("status"), "points": self.points} | {
            "out_of": self.out_of,
            "full": self.full,
            **data,
        }

    def to_json(self) -> str:
        """Everything, in JSON."""
        return json.dumps(self.as_data(), indent=2, ensure_ascii=False)


def assess(
    chapter: Chapter,
    file: Path,
    *,
    groups: Sequence[str] = ("unit",),
    swaps: Mapping[str, Path] | None = None,
    limits: Limits = DEFAULT,
    alone: bool = True,
) -> Assessment:
    """Judge a learner's file of a chapter by groups of its tests, `unit` and `integration`, on the reference or on
    what `swaps` puts in the place of other modules. If something is wrong, each exercise is judged alone, with all
    others from the reference, unless that is not wanted. No code of the learner's runs in this process."""
    judging = _Judging(Submission(chapter, Path(file).resolve()), dict(swaps or {}), limits)
    return judging.assessment(groups, alone)


@dataclass(frozen=True)
class _Judging:
    submission: Submission
    swaps: dict[str, Path]
    limits: Limits

    def assessment(self, groups: Sequence[str], alone: bool) -> Assessment:
        """The whole file first; if it fails, the exercises one by one."""
        submission = self.submission
        unwritten = tuple(Mark(name, "unwritten") for name in submission.exercises)
        found = Assessment(submission.chapter.slug, "failed", unwritten, stand_ins=tuple(sorted(self.swaps)))
        try:
            if not submission.written:
                return replace(found, message=f"Nothing is written yet: begin with {submission.exercises[0]}.")
            for group in groups:
                recording, run, verdict = self._whole(group)
                found = replace(
                    found,
                    status=verdict.status,
                    right=found.right + verdict.right,
                    checks=found.checks + recording.checks,
                    printed=clean(run.printed),
                    message=verdict.message,
                )
                if verdict.status != "passed":
                    return self._explained(found, recording, group) if alone else found
        except Unreadable as why:
            failed = tuple(Mark(name, "failed") for name in submission.exercises)
            return replace(found, status="error", message=str(why), exercises=failed)
        return replace(found, exercises=self._marks(dict.fromkeys(submission.written, Verdict("passed", "", 0))))

    def _whole(self, group: str) -> tuple[Recording, Run, Verdict]:
        """Run the tests on the file while, on another core, they are recorded."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run, self._job(group, self.submission.written), self.limits)
            recording = record(self.submission.chapter, group)
            ran = running.result()
        return recording, ran, judge(recording, ran, self.limits, self.submission.file)

    def _explained(self, found: Assessment, recording: Recording, group: str) -> Assessment:
        """Find out which exercises are at fault, or whether none is."""

        def verdict(*kept: str, base: bool = True) -> Verdict:
            ran = run(self._job(group, kept, base), self.limits)
            return judge(recording, ran, self.limits, self.submission.file)

        rest = verdict()
        is_sound = rest.status == "passed"
        with ThreadPoolExecutor(CORES) as pool:
            names = self.submission.written
            verdicts = dict(zip(names, pool.map(lambda name: verdict(name, base=is_sound), names)))
        if not is_sound:
            if verdict(base=False).status != "passed":
                raise RuntimeError(
                    f"nothing was judged, since the reference of {self.submission.chapter} fails its own {group} tests "
                    f"where learners' files run: {verdict(base=False).message}"
                )
            note = "No exercise is at fault: with all of them from the reference, the file fails just so."
            found = replace(found, status=rest.status, message=_noted(rest.message, note))
        elif all(verdict.status == "passed" for verdict in verdicts.values()):
            note = "Each exercise passes with the others from the reference: look at how they work together."
            found = replace(found, message=_noted(found.message, note))
        return replace(found, exercises=self._marks(verdicts))

    def _job(self, group: str, kept: Collection[str], base: bool = True) -> Job:
        chapter, file = self.submission.chapter, self.submission.file
        code, filled = self.submission.code(kept) if base else self.submission.code_in_the_reference(kept)
        name, text = questions(chapter, group)
        reference = course.reference(chapter)
        hidden = [reference, Path(cache_from_source(str(reference))), course.tests(chapter.package)]
        swaps = {module: path for module, path in self.swaps.items() if module != chapter.module}
        return Job(chapter.module, file, code, filled, name, text, swaps, hidden)

    def _marks(self, verdicts: Mapping[str, Verdict]) -> tuple[Mark, ...]:
        def mark(name: str) -> Mark:
            if name not in verdicts:
                return Mark(name, "unwritten")
            passed = verdicts[name].status == "passed"
            return Mark(name, "passed" if passed else "failed", int(passed), verdicts[name].message)

        return tuple(map(mark, self.submission.exercises))


def _noted(message: str, note: str) -> str:
    """A message with a note in front of the line that says where to look."""
    lines = message.splitlines()
    return "\n".join([*lines[:-1], note, lines[-1]] if lines[-1].startswith("See ") else [*lines, note])
