"""The output of the commands: colours in a terminal, plain text in a pipe, 80 columns in both."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tt_tito import course, exercises
from tt_tito.curriculum import Chapter, phases
from tt_tito.curriculum import chapters as all_chapters
from tt_tito.doctor import Problem
from tt_tito.judging import course_exercises
from tt_tito.commands import Outcome
from tt_tito.overview import Example, Overview
from tt_tito.workspace import Workspace

if TYPE_CHECKING:
    from tt_tito.judge.assessment import Assessment
    from tt_tito.judge.grade import Marks

COLOURS = {
    "passed": "green",
    "complete": "green",
    "from the reference": "cyan",
    "not started": "dim",
    "not installed": "dim",
    "changed since it passed": "yellow",
    "to write": "yellow",
    "mine": "green",
    "reference": "cyan",
    "-": "dim",
}
VERDICTS = {"unwritten": "to write", "failed": "FAILED"}
BAD = "bold red"
PRINTED = 10  # lines of what a learner's code has printed


@functools.cache
def console() -> Console:
    """Where everything goes; made when it is first used, so that a test may redirect the output before."""
    return Console(highlight=False, soft_wrap=True)


def say(text: str = "", style: str = "", end: str = "\n") -> None:
    """Print a line, as it is."""
    console().print(Text(text, style=style), end=end)


def command(text: str, label: str = "Next") -> None:
    """Print a command to type next, with a label before it."""
    console().print(Text.assemble((f"{label}: ", "bold"), (text, "bold cyan")))


def table(*columns: str) -> Table:
    """A table without lines, whose last column takes the rest of the width."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, no_wrap=column != columns[-1], justify="right" if column == "#" else "left")
    return made


def coloured(text: str, style: str | None = None) -> Text:
    """A word in the colour that it has everywhere."""
    return Text(text, style=style if style is not None else COLOURS.get(text, ""))


def _print(made: Table | Text, indent: int = 0) -> None:
    """Print a table, or a text in lines; in a pipe or a file without blanks at the ends of lines."""
    padded = Padding(made, (0, 0, 0, indent))
    if console().is_terminal:
        console().print(padded, soft_wrap=False)
        return
    with console().capture() as captured:
        console().print(padded, soft_wrap=False)
    for line in captured.get().splitlines():
        say(line.rstrip())


def _name(chapter: Chapter) -> str:
    return f"{chapter.number:02d}"


def _title(chapter: Chapter, text: str) -> Text:
    return Text.assemble((f"{chapter.number:02d} {chapter.title}", "bold"), text)


# ## Overview


def overview(found: Overview) -> None:
    """Print the table of chapters, capabilities, milestones, and the next step."""
    for number, phase in enumerate(phases(), start=1):
        rows = [row for row in found.rows if row.chapter.phase == number]
        if not any(row.available for row in rows):
            later = [row.chapter for row in found.rows if row.chapter.phase >= number]
            say(f"\nChapters {_name(later[0])}-{_name(later[-1])} are not installed here.", "dim")
            break
        say(f"\nPhase {number}: {phase.title}", "bold")
        made = table("#", "chapter", "how far", "in use", "unlocks")
        for row in rows:
            unlocks = coloured(f"{row.chapter.capability}: {row.chapter.unlocks}", "green" if row.done else "dim")
            state = coloured(row.state)
            made.add_row(_name(row.chapter), row.chapter.title, state, coloured(row.implementation), unlocks)
        _print(made)
    say()
    earned = [r.milestone for r in found.milestones if r.earned]
    own = [row for row in found.rows if row.done and row.implementation == "mine"]
    taken = len(found.capabilities) - len(own)
    borrowed = f" ({len(own)} by your own code, {taken} taken from elsewhere)" if taken else ""
    say(f"Capabilities: {len(found.capabilities)} of {len(found.rows)}{borrowed}. ", end="")
    say(f"Milestones: {len(earned)} of {len(found.milestones)}.")
    if found.kernels != "default":
        say(f"Kernels: {found.kernels}, set by TT_KERNELS. Your code computes where this set has no kernel.")
    for problem in found.problems:
        failure(problem)
    advice(found)


def advice(found: Overview) -> None:
    """Print the next command, and the reason for it."""
    line, why = found.next
    command(line)
    say(f"      {why}", "dim")


def milestones(found: Overview) -> None:
    """Print each milestone, and on which code it was earned or how it can be."""
    for reached in found.milestones:
        milestone, earned = reached.milestone, reached.earned
        mark = ("earned", "bold green") if earned else ("open", "yellow")
        title = Text.assemble(f"{milestone.number}  ", mark, f"{'' if earned else '  '}  “{milestone.says}”")
        console().print(title)
        if earned:
            used = ", ".join(f"{slug} {what}" for slug, what in earned["implementations"].items())
            say(f"           {earned['earned'][:10]}, on {used}", "dim")
        elif reached.example is None:
            say(f"           after {milestone.chapter}", "dim")
        elif reached.example.can_run:
            command(reached.example.command, "           now")
        else:
            say(f"           after {milestone.chapter}: {reached.example.command}", "dim")


def examples(found: Overview) -> None:
    """Print each example, in the order of the course, and whether it can be run by now."""
    made = table("after", "example", "command")
    first: dict[str, Example] = {}
    for example in found.examples:
        first.setdefault(example.command, example)
    for example in first.values():
        style = "bold cyan" if example.can_run else "dim"
        wait = "" if example.can_run else "  (not yet)"
        made.add_row(str(example.chapter), example.name, coloured(example.command + wait, style))
    _print(made)


def implementations(found: Overview) -> None:
    """Print which implementation of each chapter is in use."""
    made = table("#", "chapter", "in use")
    for row in found.rows:
        if row.available:
            made.add_row(_name(row.chapter), row.chapter.title, coloured(row.implementation))
    _print(made)


def chapters() -> None:
    """Print the chapters of the course."""
    made = table("#", "name", "what hurts")
    for chapter in all_chapters():
        style = "" if chapter in course.written() else "dim"
        text = f"{chapter.says}\n-> {chapter.solved_by}"
        made.add_row(_name(chapter), coloured(chapter.slug, style), coloured(text, style))
    _print(made)


# ## A chapter


def started(space: Workspace, chapter: Chapter, file: Path) -> None:
    """Print what a learner needs after starting a chapter."""
    console().print(_title(chapter, f": “{chapter.says}”"))
    say(f"You will build: {chapter.solved_by}.")
    names = space.left(chapter)
    say()
    say(f"{space.short(file)} is the chapter, with {len(names)} functions for you to write, each marked `# exercise`:")
    _print(Text(", ".join(names)), 2)
    say()
    starred = [exercise.name for exercise in course_exercises(chapter) if exercise.starred]
    if starred:
        say("With a star, and yours to leave out: " + ", ".join(starred))
        say()
    words, lines = course.words(chapter), course.lines_to_write(chapter)
    say(f"{words:,d} words, {words // 200} minutes to read at 200 a minute, and about {lines} lines to write.", "dim")
    say("Read it from the top, and write as you go. Beside your editor, in a terminal:")
    command(f"tito watch {_name(chapter)}", "  whenever you save")
    command(f"tito module test {_name(chapter)}", "  once")
    command(f"tito module hint {_name(chapter)}", "  hint")
    command(f"tito module show {_name(chapter)}", "  see its outputs")


class Report:
    """Prints the verdict on a file: the first failure at once; then, when all is known, a line for each other exercise
    that fails, a table, and the command to run again."""

    def __init__(self, space: Workspace, chapter: Chapter, name: str = "mine"):
        self.chapter, self.shown = chapter, ""
        console().print(_title(chapter, f", {space.short(space.file(chapter)) if name == 'mine' else name}"))
        if name != "mine":
            say(f"This implementation is in use. To test your own file: tito module test {_name(chapter)}", "dim")

    def first(self, message: str) -> None:
        """Print the first failure."""
        self.shown = message
        say()
        failure(message)
        say()

    def rest(self, found: Assessment, again: str) -> None:
        """Print everything else; the command to run again is `tito` and `again`."""
        if found.message and found.message != self.shown:
            self.first(found.message)
        self._others(found)
        _printed(found)
        if found.status != "error":  # nothing could be judged
            _verdicts(found)
        if found.remark:
            say(found.remark, "yellow")
        if found.full:
            return
        if found.passed:
            say("What you have written is right. Continue with the next exercise.", "green")
        command(f"tito {again}", "Run again")

    def _others(self, found: Assessment) -> None:
        """A line for each exercise that fails in another way than the first failure."""
        lines = {mark.name: mark.message.splitlines()[0] for mark in found.exercises if mark.message}
        lines = {name: line for name, line in lines.items() if line != self.shown.partition("\n")[0]}
        for name, line in lines.items():
            console().print(Text.assemble((f"{name}: ", "bold"), line))
        if lines:
            say()


def _printed(found: Assessment) -> None:
    if found.printed.strip():
        say("It printed:", "dim")
        for line in found.printed.strip().splitlines()[-PRINTED:]:
            say(f"  {line}", "dim")
        say()


def _verdicts(found: Assessment) -> None:
    made = table("what", "verdict")
    made.show_header = False
    for mark in found.exercises:
        style = BAD if mark.status == "failed" else None
        name = f"{mark.name} *" if mark.starred else mark.name
        made.add_row(name, coloured(VERDICTS.get(mark.status, mark.status), style))
    _print(made, 2)
    say(found.summary(), "green" if found.full else "")


def failure(message: str) -> None:
    """Print a message of the judge: the first line in bold, the cause and the place below it."""
    first, *rest = message.splitlines()
    say(first, BAD)
    for line in rest:
        say(line)


def completed(space: Workspace, chapter: Chapter, found: Assessment, now: Overview) -> None:
    """Print what a learner has reached by completing a chapter."""
    console().print(_title(chapter, f" is complete: {found.summary()}"), style="green")
    say(f"Capability {chapter.capability} is unlocked: {chapter.unlocks}.")
    say(f"From now on everything in this workspace runs on your {space.short(space.file(chapter))}.")
    if found.remark:
        say(found.remark, "yellow")
    left = [mark.name for mark in found.exercises if mark.starred and mark.status == "unwritten"]
    if left:
        say(f"What you left out comes from the course: {', '.join(left)}.", "dim")
    command(f"tito module diff {_name(chapter)}", "Compare with the course's answers")
    command(f"tito module diff {_name(chapter)} --other", "See another way to write them")
    for example in now.examples:
        if example.chapter == chapter and example.can_run:
            say()
            command(example.command, "You can now run")
    for reached in now.milestones:
        if reached.milestone.chapter == chapter and not reached.earned:
            say(f"      It earns milestone {reached.milestone.number}: “{reached.milestone.says}”.", "dim")
    say()
    advice(now)


# ## Watching


def watching(space: Workspace, chapter: Chapter) -> None:
    """Print the heading of a watch, and its keys."""
    console().print(_title(chapter, f", {space.short(space.file(chapter))}: judged whenever you save it."))
    say("Keys: h hint, n next exercise, s show, d diff, q quit.", "dim")


def watched_failure(message: str, seconds: float) -> None:
    """Print the first failure after the file was saved."""
    say()
    failure(message)
    say(f"({seconds:.1f} s)", "dim")


def watched(chapter: Chapter, found: Assessment, new: set[str], possible: list[str], now: str) -> None:
    """Print the result of a look at a saved file: what passes now, what that makes possible, and the next exercise."""
    say()
    for mark in found.exercises:
        if mark.name in new:
            say(f"{mark.name} passed.", "green")
    if possible:
        command(f"tito module show {_name(chapter)} {' '.join(possible)}", "You can now see on your code (key s)")
    failing = [mark.name for mark in found.exercises if mark.status == "failed"]
    if failing:
        say(f"To fix: {', '.join(failing)}", BAD)
    say(found.summary(), "green" if found.full else "")
    if found.full:
        command(f"tito module complete {_name(chapter)}")
        say(f"      {chapter.unlocks}", "dim")
    elif now and now not in failing:
        exercise(chapter, now)


def exercise(chapter: Chapter, name: str) -> None:
    """Print the next exercise, and the first sentence of its docstring."""
    if not name:
        say("Every exercise is written.")
        return
    doc = next(each.doc for each in course_exercises(chapter) if each.name == name)
    sentence = " ".join(doc.split()).partition(". ")[0].rstrip(".")
    console().print(Text.assemble(("Next: ", "bold"), (name, "bold cyan"), f": {sentence}."))


def experiments(space: Workspace, chapter: Chapter) -> None:
    """Print the experiments of a chapter, by section, and which exercises they still take from the course."""
    from tt_tito.experiments import experiments

    names = [exercise.name for exercise in course_exercises(chapter)]
    left = set(exercises.unwritten(space.text(chapter), names) if space.started(chapter) else names)
    made = table("section", "what", "runs on")
    for each in experiments(chapter):
        missing = sorted(each.needs & left)
        runs_on = f"the course's {', '.join(missing)}" if missing else "your code" if each.needs else "given code"
        made.add_row(each.section, coloured(each.name, "bold cyan"), coloured(runs_on, "" if missing else "green"))
    _print(made)
    say()
    command(f"tito module show {_name(chapter)} {experiments(chapter)[0].name}", "See one")


def hint(chapter: Chapter, name: str, number: int, hints: list[str]) -> None:
    """Print one hint, and the command for the next one."""
    console().print(Text.assemble((name, "bold"), f", hint {number} of {len(hints)}"))
    _print(Text(hints[number - 1]), 2)
    if number < len(hints):
        command(f"tito module hint {_name(chapter)} {name}", "More")
    else:
        command(f"tito module diff {_name(chapter)}", "When you have written it, compare")


def difference(lines: Iterable[str]) -> None:
    """Print a unified diff in its colours."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    empty = True
    for line in lines:
        empty = False
        say(line, "bold" if line[:3] in ("+++", "---") else styles.get(line[:1], ""))
    if empty:
        say("Your code is identical.")


# ## Examples, problems, marks


def example(outcome: Outcome) -> None:
    """Print the outcome of an example."""
    say()
    if not outcome.results:
        say(f"{outcome.example.name} ended (exit status {outcome.status}) before it measured anything.", BAD)
    elif not outcome.reached:
        missed = [str(row.get("claim")) for row in outcome.results if row.get("reached") is not True]
        say(f"{outcome.example.name} missed: {', '.join(missed) or 'its own check'}.", BAD)
    elif outcome.lacking:
        say(f"{outcome.example.name} reached every threshold, but its milestone needs {outcome.lacking}.", "green")
    elif outcome.milestone:
        say(f"Milestone {outcome.milestone.number} is earned: “{outcome.milestone.says}”.", "bold green")
    else:
        say(f"{outcome.example.name} reached every threshold.", "green")
    if not outcome.reached:
        command(outcome.example.command, "Run again")


def problems(found: list[Problem]) -> None:
    """Print the problems of an environment, each with the command that fixes it."""
    for problem in found:
        say(("problem: " if problem.serious else "remark:  ") + problem.what, "red" if problem.serious else "yellow")
        command(problem.fix, "     fix")
    if not any(problem.serious for problem in found):
        say("No serious problem found." if found else "All is well.", "green")


def marks(found: Marks) -> None:
    """Print the points of each file, what is wrong with it, and a summary of the class."""
    from tt_tito.judge import grade

    made = table("learner", "chapter", "status", "points", "to write")
    for row in found.rows:
        assessment = row.assessment
        points = f"{assessment.points}/{assessment.out_of}"
        status = coloured(assessment.status, None if assessment.passed else BAD)
        left = sum(mark.status == "unwritten" and not mark.starred for mark in assessment.exercises)
        made.add_row(Text(row.learner), assessment.chapter, status, points, str(left or ""))
    for learner in found.without_files:
        made.add_row(Text(learner), "", coloured("nothing", BAD), "", "")
    _print(made)
    for file in found.left:
        say(f"not graded: {file.learner}{'/' if file.learner else ''}{file.file} {file.reason}")
    if found.is_one_file:
        _faults(found.rows[0].assessment)
        return
    for chapter in grade.summary(found):
        say()
        say(f"{chapter.chapter}: {chapter.full} of {chapter.files} with full marks", "bold")
        for mistake, count in chapter.mistakes:
            say(f"  {count:3d} x {mistake}")


def _faults(assessment: Assessment) -> None:
    """Print what is wrong with each exercise of a file, or with the file."""
    messages = {mark.name: mark.message for mark in assessment.exercises if mark.message}
    for name, message in messages.items():
        say()
        say(name, "bold")
        failure(message)
    if assessment.message and assessment.message not in messages.values():
        say()
        failure(assessment.message)
