"""What a learner's file of a chapter is worth: a verdict on the whole, points for each exercise, and what to say."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import cache_from_source
from pathlib import Path

from tt_tito import course
from tt_tito.curriculum import Chapter
from tt_tito.judge.recording import Recording, questions, record
from tt_tito.judge.sandbox import CORES, Job, Limits, Run, import_path, run, workers
from tt_tito.judge.submission import Submission, Unreadable
from tt_tito.judge.verdict import Verdict, clean, judge

__all__ = ["Assessment", "Mark", "assess"]

DEFAULT = Limits()
TRIES = {"integration": 3}  # its tests compare times, in which a busy machine may interfere


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


@dataclass(frozen=True, eq=False)
class Setting:
    """What surrounds the exercises: stand-ins for other modules, and the rest of the learner's file or of ours."""

    swaps: dict[str, Path]
    own_file: bool = True
    note: str = ""  # what is to be said if all is well only here


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
        job = self._job(group, self.submission.written, Setting(self.swaps))
        with workers(1) as pool:
            running = pool.submit(run, job, self.limits)
            recording = record(self.submission.chapter, group)
            ran = running.result()
        verdict = judge(recording, ran, self.limits, self.submission.file)
        for _ in range(TRIES.get(group, 1) - 1):
            if verdict.status in ("passed", "memory", "crashed"):
                break
            ran = run(job, self.limits)
            verdict = judge(recording, ran, self.limits, self.submission.file)
        return recording, ran, verdict

    def _explained(self, found: Assessment, recording: Recording, group: str) -> Assessment:
        """Find out which exercises are at fault, or whether none is."""

        def tried(setting: Setting) -> Callable[[Sequence[str]], Verdict]:
            def verdict(kept: Sequence[str]) -> Verdict:
                ran = run(self._job(group, kept, setting), self.limits)
                return judge(recording, ran, self.limits, self.submission.file)

            return verdict

        others = ", ".join(sorted(self.swaps))
        settings = [
            Setting(self.swaps),
            Setting({}, note=f"No exercise is at fault, but what stands in for {others}: all passes on the reference."),
            Setting({}, own_file=False, note="No exercise is at fault: with the reference's, the file fails, too."),
        ]
        for setting in settings if self.swaps else settings[::2]:
            verdict = tried(setting)
            rest = verdict(())
            if rest.status == "passed":
                break
            found = replace(found, status=rest.status, message=rest.message)
        else:
            raise RuntimeError(
                f"nothing was judged, since the reference of {self.submission.chapter} does not pass the {group} tests "
                f"where learners' files run: {rest.message}"
            )
        verdicts = _one_by_one(verdict, self.submission.written, found.status)
        note = setting.note
        if not note and all(verdict.status == "passed" for verdict in verdicts.values()):
            note = "Each exercise passes with the others from the reference: look at how they work together."
        return replace(found, message=_noted(found.message, note), exercises=self._marks(verdicts))

    def _job(self, group: str, kept: Collection[str], setting: Setting) -> Job:
        chapter, file = self.submission.chapter, self.submission.file
        code, filled = (self.submission.code if setting.own_file else self.submission.code_in_the_reference)(kept)
        name, text = questions(chapter, group)
        reference = course.reference(chapter)
        hidden = [reference, Path(cache_from_source(str(reference))), course.tests(chapter.package)]
        swaps = {module: path for module, path in setting.swaps.items() if module != chapter.module}
        return Job(chapter.module, file, code, filled, name, text, import_path(), swaps, hidden)

    def _marks(self, verdicts: Mapping[str, Verdict]) -> tuple[Mark, ...]:
        def mark(name: str) -> Mark:
            if name not in verdicts:
                return Mark(name, "unwritten")
            passed = verdicts[name].status == "passed"
            return Mark(name, "passed" if passed else "failed", int(passed), verdicts[name].message)

        return tuple(map(mark, self.submission.exercises))


def _one_by_one(verdict: Callable[[Sequence[str]], Verdict], names: Sequence[str], whole: str) -> dict[str, Verdict]:
    """The verdict on each exercise. `whole` is the status of all together; those that pass together are not tried
    alone, so halves are tried first, then quarters, unless each try may take all the time that there is."""

    def parts(names: Sequence[str], status: str) -> list[Sequence[str]]:
        step = 1 if status == "timeout" else (len(names) + 1) // 2
        return [names[start : start + step] for start in range(0, len(names), step)]

    verdicts: dict[str, Verdict] = {}
    with workers(CORES) as pool:
        trying = parts(names, whole)
        while trying:
            failing = []
            for part, found in zip(trying, pool.map(verdict, trying)):
                if found.status == "passed" or len(part) == 1:
                    verdicts |= dict.fromkeys(part, found)
                else:
                    failing += parts(part, found.status)
            trying = failing
    return verdicts


def _noted(message: str, note: str) -> str:
    """A message with a note, if there is one, in front of the line that says where to look."""
    lines = message.splitlines()
    if not note:
        return message
    return "\n".join([*lines[:-1], note, lines[-1]] if lines[-1].startswith("See ") else [*lines, note])
