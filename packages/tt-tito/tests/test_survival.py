"""Nothing that has been reached is lost: by commands that are killed, by two at once, or by damaged files.

TT_KILLS and TT_PAIRS say how many commands are killed and how many pairs run; TT_SEED repeats a run."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tt_tito import cli, console, course, curriculum, files, notebooks
from tt_tito.progress import Progress, milestones
from tt_tito.workspace import Workspace

KILLS, PAIRS = int(os.environ.get("TT_KILLS", "8")), int(os.environ.get("TT_PAIRS", "2"))
SEED = os.environ.get("TT_SEED", str(time.time_ns()))
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("TT_", "PYTEST_"))}
ACTIVATIONS, LOSSES, OPTIMIZERS = (curriculum.chapter(name) for name in ("activations", "losses", "optimizers"))
QUICK = [curriculum.chapter(number) for number in (1, 3, 5, 6)]  # whose tests take the least time


UNJUDGED = """
import time
from tt_tito import cli, commands, judging
from tt_tito.judge import Assessment, Mark

def assess(space, chapter, groups, tell=None):
    time.sleep(0.1)
    return Assessment(chapter.slug, "passed", (Mark("x", "passed", 1),))

commands.assess = judging.assess = assess
cli.main()
"""


def tito(space, *arguments, judged=True, **options):
    """A command that has been started; without the judge, which takes its time and writes nothing, if so wanted."""
    command = [sys.executable, *(["-m", "tt_tito"] if judged else ["-c", UNJUDGED]), *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=space.root, env=ENVIRONMENT, encoding="utf-8", **pipes, **options)


def solved(root):
    """A workspace in which the quick chapters are written."""
    space, _ = Workspace.create(root)
    for chapter in QUICK:
        shutil.copy(course.reference(chapter), space.work)
    return space


def work(space):
    return {file.name: file.read_bytes() for file in space.work.glob("*.*") if file.suffix in (".py", ".ipynb")}


# ## Killed


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_commands_that_are_killed_lose_nothing(tmp_path):
    print(f"TT_SEED={SEED}")
    draw, killed, ended, seconds = random.Random(SEED), 0, 0, 2.0
    space, complete, hints = solved(tmp_path / "0"), set(), 0
    while killed < KILLS:
        if len(complete) == len(QUICK):
            space, complete, hints = solved(tmp_path / str(killed + ended)), set(), 0
        chapter = draw.choice([chapter for chapter in QUICK if chapter.slug not in complete])
        commands = [
            *[("module", "complete", chapter.slug)] * 4,
            ("use", draw.choice(["dataloader", "training"]), "reference"),
            ("use", chapter.slug, "mine"),
            ("module", "hint", "tensor"),
            ("module", "start", draw.choice(["spatial", "embeddings"])),
            ("module", "reset", "spatial"),
            ("status",),
        ]
        command, judged = draw.choice(commands), draw.random() < 0.1
        patience = None if draw.random() < 0.2 else draw.uniform(0.2, 1.2) * seconds * (8 if judged else 1)
        before, uses, start = work(space), space.uses(), time.monotonic()
        process = tito(space, *command, judged=judged, start_new_session=True)
        try:
            said = process.communicate(timeout=patience)[0]
            if not judged and patience is None:
                seconds = time.monotonic() - start  # of a command on this machine, as busy as it is
            ended += 1
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the judge's children, too
            said = process.communicate()[0]
            killed += 1
        found = Progress.read(space)  # raises DamagedProgress if it is damaged
        if "is complete" in said:
            complete.add(chapter.slug)
        assert complete <= found.chapters.keys() <= complete | {chapter.slug}, (command, said)
        assert sum(found.hints.values()) >= hints
        assert uses.items() <= space.uses().items() and found.chapters.keys() <= space.uses().keys(), (command, said)
        assert {name for name, data in before.items() if work(space).get(name) != data} <= {"spatial.py"}, command
        complete, hints = set(found.chapters), sum(found.hints.values())
    print(f"{killed} killed, {ended} came to their end")


COUNT = """
import sys
from pathlib import Path
from tt_tito.progress import Progress
from tt_tito.workspace import Workspace

space = Workspace(Path(sys.argv[1]))
for number in range(1, 1_000_000):
    Progress.update(space, lambda progress: progress.show_hint(sys.argv[2], 10**9))
    print(number, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_writers_that_are_killed_while_they_write_block_nobody(tmp_path):
    space = Workspace.create(tmp_path)[0]
    draw, counts = random.Random(SEED), dict.fromkeys("ab", 0)
    for _ in range(max(4, KILLS // 4)):
        command = [sys.executable, "-c", COUNT, str(space.root)]
        writers = {
            name: subprocess.Popen([*command, name], stdout=subprocess.PIPE, encoding="utf-8") for name in counts
        }
        for process in writers.values():
            process.stdout.readline()
        time.sleep(draw.uniform(0, 0.1))
        for process in writers.values():
            process.kill()
        for name, process in writers.items():
            said = 1 + len(process.communicate()[0].split())  # the last line is whole, or was not flushed
            found = Progress.read(space).hints[name]
            assert counts[name] + said <= found <= counts[name] + said + 1, f"TT_SEED={SEED}"
            counts[name] = found
    Progress.update(space, lambda progress: progress.show_hint("c", 3))
    assert Progress.read(space).hints == counts | {"c": 1}


# ## Two at once


@pytest.mark.slow
def test_two_commands_at_once_lose_nothing(tmp_path):
    print(f"TT_SEED={SEED}")
    draw, completed = random.Random(SEED), 0
    for number in range(PAIRS):
        space = solved(tmp_path / str(number))
        first, second = draw.sample(QUICK, 2)
        other = [
            ("module", "complete", second.slug),
            ("use", second.slug, "mine"),
            ("module", "hint", "tensor"),
            ("module", "start", "spatial"),
        ][number % 4 if number % 8 < 4 else 0]  # more often than the others, two completions
        commands = [("module", "complete", first.slug), other]
        said = [process.communicate()[0] for process in [tito(space, *command) for command in commands]]
        found, uses = Progress.read(space), space.uses()
        done = {command[2] for command, text in zip(commands, said) if "is complete" in text}
        completed += len(done)  # a busy machine can make a test of times fail, which loses nothing
        assert found.chapters.keys() == done, (commands, said)
        chosen = done | ({second.slug} if "use" in other else set())
        assert uses == {slug: f"work/{slug}.py" for slug in chosen}, (commands, said)
        assert sum(found.hints.values()) == ("hint" in other)
        assert space.started(curriculum.chapter("spatial")) == ("start" in other)
    print(f"{PAIRS} pairs, {completed} completions")
    assert completed >= PAIRS


def test_the_same_command_twice_at_once(tmp_path):
    space = Workspace.create(tmp_path)[0]
    started = [tito(space, "module", "start", "03") for _ in range(3)]
    said = [process.communicate()[0] for process in started]
    assert sorted(process.returncode for process in started) == [0, 1, 1], said
    assert sum("already exists and was not changed" in text for text in said) == 2
    hinting = [tito(space, "module", "hint", "03", "softmax") for _ in range(3)]
    said = [process.communicate()[0] for process in hinting]
    assert {text.split("hint ")[1][0] for text in said} == {"1", "2", "3"}, said
    chapters = ["setup", "tensor", "losses"]
    using = [tito(space, "use", name, "reference") for name in chapters]
    said = [process.communicate()[0] for process in using]
    assert space.uses() == dict.fromkeys(chapters, "reference"), said


def test_a_lock_that_is_never_given_back_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    with files.locked(tmp_path / "lock"):
        with pytest.raises(RuntimeError, match="another tito has held .*lock for 0.1 seconds"):
            files.locked(tmp_path / "lock").__enter__()
    with files.locked(tmp_path / "lock"):
        pass


# ## Damaged


def folder(file):
    file.unlink()
    file.mkdir()


def pipe(file):
    file.unlink()
    os.mkfifo(file)


def huge(file):
    with file.open("ab") as stream:
        stream.truncate(300_000_000)


def forbidden(file):
    file.chmod(0)


def written(edit):
    return lambda file: file.write_bytes(edit(file.read_bytes()))


PLAIN = {
    "empty": written(lambda data: b""),
    "half of it": written(lambda data: data[: len(data) // 2]),
    "UTF-16": written(lambda data: data.decode().encode("utf-16")),
    "UTF-16 without a mark": written(lambda data: data.decode().encode("utf-16-le")),
    "latin-1": written(lambda data: data + "# größer".encode("latin-1")),
    "null bytes": written(lambda data: data[:100] + bytes(50) + data[100:]),
    "noise": written(lambda data: random.Random(0).randbytes(len(data))),
    "a folder": folder,
    "a pipe": pipe,
    "huge": huge,
    "forbidden": forbidden,
}
MARKED = {"a byte order mark": written(lambda data: b"\xef\xbb\xbf" + data)}
LINES = {"lines of Windows": written(lambda data: data.replace(b"\n", b"\r\n"))}


def text(new):
    return written(lambda data: new.encode())


def sealed(data):
    """A progress file with the right checksum over data of the wrong types."""
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    return text(json.dumps({"version": 1, "sha256": digest, "data": data}))


DAMAGE = {
    "work/activations.py": {
        **{name: damage for name, damage in PLAIN.items() if name not in ("empty", "half of it")},  # both are Python
        "half a function": written(lambda data: data + b"\ndef f(:\n"),
        "deep": text("(" * 100_000),
    },
    "work/losses.ipynb": {
        **PLAIN,
        "a list": text("[]"),
        "cells that are a number": text('{"cells": 3}'),
        "a cell without source": text('{"cells": [{"cell_type": "code", "metadata": {}}]}'),
        "deep": text("[" * 100_000),
    },
    "tt.toml": {
        **{name: damage for name, damage in PLAIN.items() if name not in ("empty", "half of it")},
        "half a line": written(lambda data: data + b"\n[use"),
        "use is a number": text("use = 3\n"),
        "use is a list": text("[[use]]\nlosses = 'x'\n"),
        "a number for a path": text("[use]\nlosses = 3\n"),
        "a table for a path": text("[use.losses]\nx = 'y'\n"),
        "a name twice": text("[use]\nlosses = 'x'\nlosses = 'y'\n"),
        "deep": text("x = " + "[" * 100_000),
        "no such chapter": text("[use]\nloses = 'reference'\n"),
        "no such file": text("[use]\noptimizers = 'work/nothing.py'\n"),
    },
    ".tito/progress.json": {
        **PLAIN,
        "a list": text("[]"),
        "a number for a chapter": sealed({"chapters": {"losses": 3}, "milestones": {}, "hints": {}}),
        "a list of chapters": sealed({"chapters": [], "milestones": {}, "hints": {}}),
        "a text for a hint": sealed({"chapters": {}, "milestones": {}, "hints": {"losses.slope": "x"}}),
        "no hints": sealed({"chapters": {}, "milestones": {}}),
        "a version without end": text('{"version": Infinity, "data": {}}'),
        "another checksum": written(lambda data: data.replace(b'"exercises": 11', b'"exercises": 12')),
        "deep": text("[" * 100_000),
        "nothing": lambda file: file.unlink(),
    },
    "work": {"a file": lambda file: (shutil.rmtree(file), file.write_text("x", encoding="utf-8"))},
}
CASES = [pytest.param(name, damage, id=f"{name}: {what}") for name in DAMAGE for what, damage in DAMAGE[name].items()]
HARMLESS = [
    pytest.param(name, damage, id=f"{name}: {what}")
    for name in DAMAGE
    if name not in ("work", ".tito/progress.json")
    for what, damage in (MARKED | LINES).items()
]


@pytest.fixture
def space(tmp_path, monkeypatch):
    """A workspace with three chapters complete, one of them a notebook, a milestone and a hint."""
    pytest.importorskip("jupytext")
    monkeypatch.delenv("TT_SWAP", raising=False)
    space, _ = Workspace.create(tmp_path / "space")
    monkeypatch.chdir(space.root)
    for chapter in (ACTIVATIONS, OPTIMIZERS):
        shutil.copy(course.reference(chapter), space.work)
    notebooks.write(course.reference(LOSSES).read_text(encoding="utf-8"), space.work / "losses.ipynb")

    def reached(progress):
        for chapter in (ACTIVATIONS, LOSSES, OPTIMIZERS):
            progress.complete(space, chapter, 11)
        progress.earn(milestones()[0], [{"claim": "c", "reached": True}], {"losses": "mine"})
        progress.show_hint("losses.slope", 3)

    Progress.update(space, reached)
    space.use("activations", "work/activations.py")
    return space


@pytest.fixture
def typed(monkeypatch, capfd):
    def type(*arguments):
        """What a command prints, and its exit status; an exception that it lets through fails the test."""
        console.console.cache_clear()
        monkeypatch.setattr(sys, "argv", ["tito", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return out + err, ended.value.code or 0

    return type


def everything(space):
    found = [file for file in space.root.rglob("*") if file.is_file() and os.access(file, os.R_OK)]
    found = [file for file in found if file.stat().st_size < 10_000_000 and file.name != "lock"]
    return {file.relative_to(space.root).as_posix(): file.read_bytes() for file in found}


READING = {
    "work/activations.py": [("module", "diff", "03"), ("use", "03", "mine"), ("module", "test", "03")],
    "work/losses.ipynb": [("module", "diff", "05"), ("use", "05", "mine"), ("module", "hint", "05"), ("export", "05")],
    "tt.toml": [("use",), ("use", "05", "reference")],
    ".tito/progress.json": [("milestones",), ("module", "hint", "05", "slope")],
    "work": [("module", "start", "03")],
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage"), CASES)
def test_a_damaged_file_is_named_and_nothing_else_is_lost(space, typed, name, damage, request):
    what = request.node.callspec.id.partition(": ")[2]
    if what == "a pipe" and not hasattr(os, "mkfifo"):
        pytest.skip("there are no pipes here")
    if what == "forbidden" and (os.name == "nt" or os.geteuid() == 0):
        pytest.skip("nothing is forbidden to this user")
    file, reached, before = space.root / name, Progress.read(space), everything(space)
    damage(file)
    damaged = everything(space).get(name)
    said, _ = typed("status")
    assert file.name in said, said
    if name == ".tito/progress.json":
        assert "was damaged" in said and "Its copy takes its place" in said
        assert Progress.read(space) == reached
        assert [path.is_dir() or path.name for path in (space.state / "backups").glob("*")] or what == "nothing"
    for command in READING[name]:
        said, status = typed(*command)
        if name != ".tito/progress.json" and what not in ("no such chapter", "no such file"):  # choose again
            assert status and file.name in said, (command, said)
    after = everything(space)
    changed = {path for path in before if after.get(path) != before[path]} - {name, ".tito/progress.copy.json"}
    assert changed <= {"tt.toml", ".tito/notebooks/losses.py"} or name == "work"
    assert after.get(name) == damaged or name in (".tito/progress.json", "tt.toml")
    assert name != "work" or (space.root / "work").is_file()
    found = Progress.read(space)
    assert (found.chapters, found.milestones) == (reached.chapters, reached.milestones)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage"), HARMLESS)
def test_what_editors_do_to_a_file_does_no_harm(space, typed, name, damage):
    damage(space.root / name)
    said, status = typed("status")
    assert status == 0 and "does not parse" not in said
    for command in (("module", "diff", "03"), ("use", "03", "mine"), ("use", "05", "mine"), ("export", "05")):
        said, status = typed(*command)
        assert status == 0, said
    assert space.implementation(ACTIVATIONS) == space.implementation(LOSSES) == "mine"
