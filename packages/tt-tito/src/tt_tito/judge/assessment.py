"""The assessment of a learner's file of a chapter: a verdict on the whole, points for each exercise, and messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock

from tt_tito.curriculum import Chapter
from tt_tito.judge import box
from tt_tito.judge.reading import Reading
from tt_tito.judge.recording import Recording, questions, reached, record
from tt_tito.judge.sandbox import CORES, Job, Limits, Run, run, workers
from tt_tito.judge.submission import Submission
from tt_tito.judge.verdict import Verdict, clean, faults, judge, spoiled, stuck_in
from tt_tito.reading import Unreadable

__all__ = ["Assessment", "Mark", "assess"]

DEFAULT = Limits()
TRIES = {"integration": 3}  # its tests compare times, in which a busy machine may interfere


@dataclass(frozen=True)
class Mark:
    """An exercise: passed, failed or unwritten, its points, what is wrong with it if it is judged alone, and whether
    it has a star: such a one may be left out, and has no points."""

    name: str
    status: str
    points: int = 0
    message: str = ""
    starred: bool = False


@dataclass(frozen=True)
class Assessment:
    """A learner's file of a chapter, judged.

    The status is passed if everything that is written is right, else failed, error (it does not run, whatever its
    exercises hold), timeout, memory or crashed. The points are those of exercises that are right in this file, all
    together; so only a file that passes has all of them, and one that does not run has none. `right` of `checks`
    values were right when the first was wrong. A remark says what could not be judged."""

    chapter: str
    status: str
    exercises: tuple[Mark, ...]
    message: str = ""
    right: int = 0
    checks: int = 0
    stand_ins: tuple[str, ...] = ()
    remark: str = ""
    printed: str = field(default="", compare=False)

    @property
    def points(self) -> int:
        """A point for each exercise that is right and has no star."""
        return sum(mark.points for mark in self.exercises)

    @property
    def out_of(self) -> int:
        """The points for everything."""
        return sum(not mark.starred for mark in self.exercises)

    @property
    def passed(self) -> bool:
        """Whether something is written, and everything that is written is right."""
        return self.status == "passed"

    @property
    def full(self) -> bool:
        """Whether every exercise without a star is written, and everything that is written is right."""
        return self.passed and self.points == self.out_of

    def lines(self) -> list[tuple[str, str]]:
        """The exercises with their statuses."""
        return [(mark.name, mark.status) for mark in self.exercises]

    def summary(self) -> str:
        """The whole in a line."""
        left = sum(mark.status == "unwritten" and not mark.starred for mark in self.exercises)
        rest = f", {left} to write" if left else ""
        stars = [mark.status == "passed" for mark in self.exercises if mark.starred]
        starred = f", {sum(stars)} of {len(stars)} with a star" if stars else ""
        if not any(mark.status in ("passed", "failed") for mark in self.exercises):
            return f"0 of {self.out_of} exercises written."
        checks = f"; {self.right} of {self.checks} checks" if self.checks else ""
        return f"{self.points} of {self.out_of} exercises pass{rest}{starred}{checks}."

    def as_data(self) -> dict:
        """Everything as plain data for JSON, except for printed text, which may differ from run to run."""
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
    only: Collection[str] | None = None,
    tell: Callable[[str], None] = lambda message: None,
    trusted: bool = False,
) -> Assessment:
    """Judge a learner's file of a chapter by groups of its tests, `unit` and `integration`, on the reference or on
    what `swaps` puts in the place of other modules. If something is wrong, the exercises that may be at fault are
    judged alone, with all others from the reference, unless `alone` is false; before that, `tell` gets the message.
    With `only`, these exercises are judged, with all others from the reference, and by the tests in which they run. No
    code of the learner's runs in this process, and none is parsed here unless it is `trusted`, which is faster."""
    file = Path(file).resolve()
    reading = Submission.of(chapter, file) if trusted else Reading(chapter, file)

    def tell_placed(message: str) -> None:
        tell(*reading.placed([message]))

    found = _Judging(reading, dict(swaps or {}), limits, only, tell_placed).assessment(groups, alone)
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
SPENT = Verdict("timeout", "Not judged: the time for one file is used up.", 0)
BUSY = "Times could not be judged: this machine is busy, and even the reference takes too long."
SHORT = 4  # what part of the time an exercise has when it is tried alone after a timeout


@dataclass(frozen=True)
class _Judging:
    reading: Reading | Submission
    swaps: dict[str, Path]
    limits: Limits
    only: Collection[str] | None
    tell: Callable[[str], None]

    @property
    def judged(self) -> list[str]:
        """The exercises that are written, of those that are asked for."""
        return [name for name in self.reading.written if self.only is None or name in self.only]

    def assessment(self, groups: Sequence[str], alone: bool) -> Assessment:
        """All exercises together first; if that fails, those that may be at fault."""
        reading = self.reading
        found = Assessment(reading.chapter.slug, "failed", self._marks({}), stand_ins=tuple(sorted(self.swaps)))
        try:
            if not self.judged:
                first = next(name for name in reading.exercises if self.only is None or name in self.only)
                nothing = "Nothing is written yet: begin with" if not reading.written else "Not written yet:"
                return replace(found, message=f"{nothing} {first}.")
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
                    self.tell(verdict.message)
                    explained = self._explained(found, recording, group, run, verdict) if alone else found
                    if isinstance(explained, Assessment):
                        return explained
                    right = found.right - verdict.right + recording.checks
                    found = replace(found, status="passed", message="", right=right, remark=explained)
        except Unreadable as why:
            failed = self._marks(dict.fromkeys(reading.exercises, Verdict("error", "", 0)))
            return replace(found, status="error", message=clean(str(why)), exercises=failed)
        return replace(found, exercises=self._marks(dict.fromkeys(self.judged, Verdict("passed", "", 0))))

    def _whole(self, group: str) -> tuple[Recording, Run, Verdict]:
        """Run the tests on the file while, on another core, they are recorded. If one exercise is judged, the first of
        them that finds it wrong is the last."""
        chapter, alone = self.reading.chapter, len(self.judged) == 1
        tests, recordings = None, list[Recording]()
        if self.only is not None:
            wanted = set(self.judged)
            tests = [name for name, parts in reached(chapter, group).items() if wanted & set().union(*parts)]
        job = self._job(group, self.reading.code(self.judged), self.swaps, tests)

        def enough(run: Run) -> bool:
            return alone and any(spoiled(recording, run, self.limits, timed=False) for recording in recordings)

        with workers(1) as pool:
            running = pool.submit(run, job, self.limits, enough)
            recording = record(chapter, group, tests)
            recordings.append(recording)
            ran = running.result()
        verdict = judge(recording, ran, self.limits, self.reading.file)
        for _ in range(TRIES.get(group, 1) - 1):
            if verdict.status in ("passed", "timeout", "memory", "crashed"):
                break
            ran = run(job, self.limits)
            verdict = judge(recording, ran, self.limits, self.reading.file)
        return recording, ran, verdict

    def _explained(
        self, found: Assessment, recording: Recording, group: str, ran: Run, whole: Verdict
    ) -> Assessment | str:
        """The assessment with the exercises that are at fault; or, if everything passes at the second look, a remark,
        which may be empty."""
        judged = self.judged
        trial = _Trial(self, recording, group, self.swaps)
        wrong, unseen = faults(recording, ran, self.limits)
        guilty = {name: whole for name in judged if name == stuck_in(ran) and whole.status == "timeout"}
        guilty |= {name: whole for name in judged if len(judged) == 1}
        with workers(1) as pool:
            running = pool.submit(trial.of, (), wrong)
            first = {} if guilty else trial.alone(trial.suspects(judged, wrong)[:CORES], wrong, bool(unseen))
            rest, note = running.result(), ""
        if rest.status != "passed" and self.swaps:
            trial = _Trial(self, recording, group, {})
            rest_here = trial.of((), wrong)
            if rest_here.status == "passed":
                others = ", ".join(sorted(self.swaps))
                note = f"No exercise is at fault, but the stand-in for {others}: on the reference everything passes."
                found = replace(found, status=rest.status, message=rest.message)
                wrong, unseen, first, guilty = dict.fromkeys(recording.tests, 0), [], {}, {}
            rest = rest_here
        if rest.status != "passed":
            if self._is_busy(recording, group, ran):
                return BUSY
            if (self.reading.chapter, group) not in SOUND:
                self._demand_a_reference_that_passes(recording, group)
            note = "No exercise can be judged in this file: with all of them from the reference, it still fails."
            marks = self._marks({name: Verdict("error", "", 0) for name in judged})
            status = "error" if rest.status == "failed" else rest.status
            return replace(found, status=status, message=_noted(rest.message, note), exercises=marks)
        verdicts, at_odds = trial.verdicts(judged, wrong, bool(unseen), first | guilty)
        if all(verdict.status == "passed" for verdict in verdicts.values()) and not note:
            if not at_odds:
                return ""
            note = "Each exercise passes with the others from the reference: look at how they work together."
        return replace(found, message=_noted(found.message, note), exercises=self._marks(verdicts | at_odds))

    def _is_busy(self, recording: Recording, group: str, ran: Run) -> bool:
        """Whether only times are wrong, and the reference does not keep them here, either."""
        wrong, unseen = faults(recording, ran, self.limits)
        late = [checks[right].is_timed for test, right in wrong.items() if right < len(checks := recording.tests[test])]
        if unseen or not late or not all(late):
            return False
        job = self._job(group, self.reading.reference_code(), {}, [*wrong])
        only = recording.only(wrong)
        return judge(only, run(job, self.limits), self.limits, self.reading.file).status == "failed"

    def _demand_a_reference_that_passes(self, recording: Recording, group: str) -> None:
        job = self._job(group, self.reading.reference_code(), {})
        verdict = judge(recording, run(job, self.limits), self.limits, self.reading.file)
        if verdict.status != "passed":
            raise RuntimeError(
                f"nothing was judged, because the reference of {self.reading.chapter} does not pass the {group} tests "
                f"where learners' files run: {verdict.message}"
            )
        SOUND.add((self.reading.chapter, group))

    def _job(
        self, group: str, code: tuple[bytes, list[int]], swaps: Mapping[str, Path], only: list[str] | None = None
    ) -> Job:
        chapter = self.reading.chapter
        others = {module: path for module, path in swaps.items() if module != chapter.module}
        hidden = box.hidden_from(chapter, others.values())
        return Job(chapter.module, self.reading.file, *code, *questions(chapter, group), only, others, hidden=hidden)

    def _marks(self, verdicts: Mapping[str, Verdict]) -> tuple[Mark, ...]:
        def mark(name: str) -> Mark:
            starred = name in self.reading.starred
            if name not in verdicts:
                return Mark(name, "unwritten", starred=starred)
            passed = verdicts[name].status == "passed"
            points = int(passed and not starred)
            return Mark(name, "passed" if passed else "failed", points, verdicts[name].message, starred)

        return tuple(map(mark, self.reading.exercises))


class _Trial:
    """Runs of one group of tests on a file with some of its exercises, and the others from the reference."""

    def __init__(self, judging: _Judging, recording: Recording, group: str, swaps: Mapping[str, Path]):
        self.judging, self.recording, self.group, self.swaps = judging, recording, group, swaps
        self.budget = _Budget(judging.limits.budget)

    def of(self, kept: Sequence[str], tests: Collection[str] | None = None, part: int = 1) -> Verdict:
        """The verdict on the file with these exercises of its own by these tests, in a part of the time of a run."""
        return self._ran(kept, tests, part)[0]

    def _ran(self, kept: Sequence[str], tests: Collection[str] | None, part: int = 1) -> tuple[Verdict, Run]:
        limits = self.judging.limits
        limits = replace(limits, seconds=limits.seconds / part, budget=max(self.budget.left, 0.0))
        if limits.budget <= 0:
            return SPENT, Run(end="timeout")
        recording = self.recording if tests is None else self.recording.only(tests)
        job = self.judging._job(self.group, self.judging.reading.code(kept), self.swaps, [*recording.tests])
        alone = len(kept) < 2
        ran = run(job, limits, lambda run: alone and spoiled(recording, run, limits))
        self.budget.take(ran.seconds)
        return judge(recording, ran, limits, self.judging.reading.file), ran

    # An exercise is tried alone if it runs in a test that fails. Those come first of which no test passes, and then
    # those that run in most of them. When some were found wrong, the others are tried together; that shows whether
    # there is more.

    def verdicts(
        self, names: Sequence[str], wrong: dict[str, int], slow: bool, tried: dict[str, Verdict]
    ) -> tuple[dict[str, Verdict], dict[str, Verdict]]:
        """The verdict on each exercise; and on those that pass alone, but not together with the ones before them.
        Together, these tests were wrong, at least one of them because it was `slow`; some were tried alone."""
        news = any(verdict.status != "passed" for verdict in tried.values())
        while True:
            while not news and (suspects := self.suspects(names, wrong, tried)[:CORES]):
                found = self.alone(suspects, wrong, slow)
                tried = tried | found
                news = any(verdict.status != "passed" for verdict in found.values())
            bad = {name: verdict for name, verdict in tried.items() if verdict.status != "passed"}
            good = [name for name in names if name not in bad]
            passed = dict.fromkeys(good, Verdict("passed", "", 0))
            if not news:
                return bad | passed, self._at_odds(good)
            together, ran = self._ran(good, None) if good else (Verdict("passed", "", 0), Run())
            if together.status == "passed":
                return bad | passed, {}
            if together is SPENT:
                return bad | dict.fromkeys(good, SPENT), {}
            wrong, unseen = faults(self.recording, ran, self.judging.limits)
            slow, stuck = slow or bool(unseen), stuck_in(ran)
            if news := together.status == "timeout" and stuck in good:
                tried = tried | {stuck: together}

    def suspects(self, names: Sequence[str], wrong: dict[str, int], tried: Collection[str] = ()) -> list[str]:
        """The exercises that run in tests which fail, the most suspicious first: those which run in most of them just
        before they fail; among these, those without tests that pass."""
        parts = reached(self.judging.reading.chapter, self.group)

        def suspicion(name: str) -> tuple[float, float]:
            near = sum(name in parts[test][min(right, len(parts[test]) - 1)] for test, right in wrong.items())
            tests = [test for test in self.recording.tests if name in set().union(*parts[test])]
            return near / len(wrong), sum(test in wrong for test in tests) / len(tests)

        ran = set().union(*(part for test in wrong for part in parts[test]))
        return sorted((name for name in names if name in ran and name not in tried), key=suspicion, reverse=True)

    def alone(self, names: Sequence[str], wrong: dict[str, int], slow: bool) -> dict[str, Verdict]:
        """The verdicts on exercises, each with all others from the reference. If something was slow, they first get a
        part of the time, and then all of it if they need it."""
        parts, first = reached(self.judging.reading.chapter, self.group), SHORT if slow else 1

        def verdict(name: str, part: int) -> Verdict:
            return self.of([name], [test for test in wrong if name in set().union(*parts[test])], part)

        with workers(CORES) as pool:
            found = dict(zip(names, pool.map(verdict, names, [first] * len(names))))
            again = [name for name in names if slow and found[name].status == "timeout"]
            return found | dict(zip(again, pool.map(verdict, again, [1] * len(again))))

    def _at_odds(self, names: Sequence[str]) -> dict[str, Verdict]:
        """The verdicts on exercises that pass alone: those which fail with the ones before them."""
        kept: list[str] = []
        verdicts: dict[str, Verdict] = {}
        if self.of(names).status == "passed":
            return verdicts
        for name in names:
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
