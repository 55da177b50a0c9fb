"""What a learner's file of a chapter is worth: a verdict on the whole, points for each exercise, and what to say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock

from tt_tito.curriculum import Chapter
from tt_tito.judge import box
from tt_tito.judge.reading import Reading
from tt_tito.judge.recording import Recording, questions, record
from tt_tito.judge.sandbox import CORES, Job, Limits, Run, run, workers
from tt_tito.judge.verdict import Verdict, clean, judge, spoiled
from tt_tito.reading import Unreadable

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

    The status is passed if everything that is written is right, else failed, error (it does not run, whatever its
    exercises hold), timeout, memory or crashed. The points are those of exercises that are right in this file, all
    together; so only a file that passes has all of them, and one that does not run has none. `right` of `checks`
    values were right when the first was wrong."""

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
    others from the reference, unless that is not wanted. No code of the learner's runs or is parsed in this process."""
    reading = Reading(chapter, Path(file).resolve())
    found = _Judging(reading, dict(swaps or {}), limits).assessment(groups, alone)
    message, *messages = reading.placed([found.message, *(mark.message for mark in found.exercises)])
    marks = tuple(replace(mark, message=text) for mark, text in zip(found.exercises, messages))
    return replace(found, message=message, exercises=marks)


class _Budget:
    """The seconds that are left for runs on one file."""

    def __init__(self, seconds: float):
        self.left, self.lock = seconds, Lock()

    def take(self, seconds: float) -> None:
        """Some are spent."""
        with self.lock:
            self.left -= seconds


SOUND: set[tuple[Chapter, str]] = set()  # chapters and groups whose reference has passed where learners' files run
SPENT = Verdict("timeout", "Not judged: the time for one file was spent.", 0)
SHORT = 4  # what part of the time an exercise has when it is first tried alone


@dataclass(frozen=True)
class _Judging:
    reading: Reading
    swaps: dict[str, Path]
    limits: Limits

    def assessment(self, groups: Sequence[str], alone: bool) -> Assessment:
        """The whole file first; if it fails, the exercises one by one."""
        reading = self.reading
        unwritten = tuple(Mark(name, "unwritten") for name in reading.exercises)
        found = Assessment(reading.chapter.slug, "failed", unwritten, stand_ins=tuple(sorted(self.swaps)))
        try:
            if not reading.written:
                return replace(found, message=f"Nothing is written yet: begin with {reading.exercises[0]}.")
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
                    explained = self._explained(found, recording, group) if alone else found
                    if explained is not None:
                        return explained
                    right = found.right - verdict.right + recording.checks
                    found = replace(found, status="passed", message="", right=right)
        except Unreadable as why:
            failed = tuple(Mark(name, "failed") for name in reading.exercises)
            return replace(found, status="error", message=clean(str(why)), exercises=failed)
        return replace(found, exercises=self._marks(dict.fromkeys(reading.written, Verdict("passed", "", 0))))

    def _whole(self, group: str) -> tuple[Recording, Run, Verdict]:
        """Run the tests on the file while, on another core, they are recorded. It ends with the first that fails."""
        job = self._job(group, self.reading.code(self.reading.written), self.swaps)
        recorded: list[Recording] = []

        def enough(run: Run) -> bool:
            return bool(recorded) and spoiled(recorded[0], run, self.limits)

        with workers(1) as pool:
            running = pool.submit(run, job, self.limits, enough)
            recorded.append(recording := record(self.reading.chapter, group))
            ran = running.result()
        verdict = judge(recording, ran, self.limits, self.reading.file)
        for _ in range(TRIES.get(group, 1) - 1):
            if verdict.status in ("passed", "timeout", "memory", "crashed"):
                break
            ran = run(job, self.limits, enough)
            verdict = judge(recording, ran, self.limits, self.reading.file)
        return recording, ran, verdict

    def _explained(self, found: Assessment, recording: Recording, group: str) -> Assessment | None:
        """Find out which exercises are at fault, or whether none is; None if all is well at the second look."""
        written = self.reading.written
        trial = _Trial(self, recording, group, self.swaps)
        rest, note = trial.of(()), ""
        if rest.status != "passed" and self.swaps:
            trial = _Trial(self, recording, group, {})
            rest_here = trial.of(())
            if rest_here.status == "passed":
                others = ", ".join(sorted(self.swaps))
                note = f"No exercise is at fault, but what stands in for {others}: all passes on the reference."
                found = replace(found, status=rest.status, message=rest.message)
            rest = rest_here
        if rest.status != "passed":
            if (self.reading.chapter, group) not in SOUND:
                self._demand_a_reference_that_passes(recording, group)
            note = "No exercise can be judged in this file: with all of them from the reference, it fails, too."
            marks = self._marks({name: Verdict("error", "", 0) for name in written})
            status = "error" if rest.status == "failed" else rest.status
            return replace(found, status=status, message=_noted(rest.message, note), exercises=marks)
        verdicts = trial.one_by_one(written, found.status)
        passing = [name for name in written if verdicts[name].status == "passed"]
        wrong_together = trial.together(passing)
        if passing == written and not note:
            if not wrong_together:
                return None
            note = "Each exercise passes with the others from the reference: look at how they work together."
        verdicts |= wrong_together
        return replace(found, message=_noted(found.message, note), exercises=self._marks(verdicts))

    def _demand_a_reference_that_passes(self, recording: Recording, group: str) -> None:
        job = self._job(group, self.reading.reference_code(), {})
        verdict = judge(recording, run(job, self.limits), self.limits, self.reading.file)
        if verdict.status != "passed":
            raise RuntimeError(
                f"nothing was judged, since the reference of {self.reading.chapter} does not pass the {group} tests "
                f"where learners' files run: {verdict.message}"
            )
        SOUND.add((self.reading.chapter, group))

    def _job(self, group: str, code: tuple[bytes, list[int]], swaps: Mapping[str, Path]) -> Job:
        chapter = self.reading.chapter
        others = {module: path for module, path in swaps.items() if module != chapter.module}
        hidden = box.hidden_from(chapter, others.values())
        return Job(chapter.module, self.reading.file, *code, *questions(chapter, group), others, hidden=hidden)

    def _marks(self, verdicts: Mapping[str, Verdict]) -> tuple[Mark, ...]:
        def mark(name: str) -> Mark:
            if name not in verdicts:
                return Mark(name, "unwritten")
            passed = verdicts[name].status == "passed"
            return Mark(name, "passed" if passed else "failed", int(passed), verdicts[name].message)

        return tuple(map(mark, self.reading.exercises))


class _Trial:
    """Runs of one group of tests on a file with some of its exercises, and the others from the reference."""

    def __init__(self, judging: _Judging, recording: Recording, group: str, swaps: Mapping[str, Path]):
        self.judging, self.recording, self.group, self.swaps = judging, recording, group, swaps
        self.budget = _Budget(judging.limits.budget)

    def of(self, kept: Sequence[str], part: int = 1) -> Verdict:
        """The verdict on the file with these exercises of its own, in a part of the time that a run may take."""
        limits = self.judging.limits
        limits = replace(limits, seconds=limits.seconds / part, budget=max(self.budget.left, 0.0))
        if limits.budget <= 0:
            return SPENT
        job = self.judging._job(self.group, self.judging.reading.code(kept), self.swaps)
        ran = run(job, limits, lambda run: spoiled(self.recording, run, limits))
        self.budget.take(ran.seconds)
        return judge(self.recording, ran, limits, self.judging.reading.file)

    def one_by_one(self, names: Sequence[str], whole: str) -> dict[str, Verdict]:
        """The verdict on each exercise. `whole` is the status of all together; those that pass together are not tried
        alone, so halves are tried first, then quarters. After a timeout each is tried alone, first in a part of the
        time, so that those which wait leave some to the others."""
        if whole == "timeout":
            verdicts = self._alone(names, SHORT)
            slow = [name for name, verdict in verdicts.items() if verdict.status == "timeout"]
            return verdicts | self._alone(slow, 1)
        return self._in_parts(names, whole)

    def _alone(self, names: Sequence[str], part: int) -> dict[str, Verdict]:
        with workers(CORES) as pool:
            return dict(zip(names, pool.map(lambda name: self.of([name], part), names)))

    def _in_parts(self, names: Sequence[str], whole: str) -> dict[str, Verdict]:
        def parts(names: Sequence[str]) -> list[Sequence[str]]:
            step = (len(names) + 1) // 2
            return [names[start : start + step] for start in range(0, len(names), step)]

        verdicts: dict[str, Verdict] = {}
        trying = parts(names)
        while trying:
            failing: list[Sequence[str]] = []
            slow: list[str] = []
            with workers(CORES) as pool:
                found = list(pool.map(self.of, trying))
            for part, verdict in zip(trying, found):
                if verdict.status == "passed" or len(part) == 1:
                    verdicts |= dict.fromkeys(part, verdict)
                elif verdict.status == "timeout":
                    slow += part
                else:
                    failing += parts(part)
            verdicts |= self.one_by_one(slow, "timeout") if slow else {}
            trying = failing
        return verdicts

    def together(self, passing: Sequence[str]) -> dict[str, Verdict]:
        """The verdicts on exercises that pass alone: those which fail with the ones before them are wrong."""
        if len(passing) < 2 or self.of(passing).status == "passed":
            return {}
        kept: list[str] = []
        verdicts: dict[str, Verdict] = {}
        for name in passing:
            verdict = self.of([*kept, name])
            if verdict.status == "passed":
                kept.append(name)
            else:
                verdicts[name] = verdict
        return verdicts


def _noted(message: str, note: str) -> str:
    """A message with a note, if there is one, in front of the line that says where to look."""
    lines = message.splitlines()
    if not note:
        return message
    return "\n".join([*lines[:-1], note, lines[-1]] if lines[-1].startswith("See ") else [*lines, note])
