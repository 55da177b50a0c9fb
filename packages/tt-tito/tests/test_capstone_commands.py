"""The commands that lead to chapter 20. A small package has its name here: it says what it was asked, and waits for
signals."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from tt_tito import cli, commands, course, curriculum
from tt_tito.workspace import Workspace

PROGRAM = """
import json, os, signal, sys, time
from tt_tito import swap

counted = []
if "--wait" in sys.argv:
    signal.signal(signal.SIGINT, lambda *_: counted.append("INT"))
    signal.signal(signal.SIGTERM, lambda *_: counted.append("TERM"))
    print("waiting", flush=True)
    deadline = time.monotonic() + 30
    while not counted and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)  # a second signal would come now
    print(counted, flush=True)
in_use = {name: str(path) for name, path in swap.in_use().targets.items()}
print(json.dumps({"arguments": sys.argv[1:], "folder": os.getcwd(), "in_use": in_use}))
sys.exit(7)
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment in which tt_capstone is the program above, and a folder to work in; the variables."""
    package = tmp_path / "packages" / "tt_capstone"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "__main__.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("TT_SWAP", raising=False)
    before = [path for path in sys.path if path]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(package.parent), *before])}


def run(environment, *arguments):
    """The exit status of tito, and what the program said."""
    command = [sys.executable, "-m", "tt_tito", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=120)
    assert done.stderr == "", done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("typed, passed", [
    ("chat", ["chat"]),
    ("chat my.gguf --system=Hallo --once --seed 1", ["chat", "my.gguf", "--system=Hallo", "--once", "--seed", "1"]),
    ("chat -- --help", ["chat", "--help"]),
    ("serve --port 0 -x", ["serve", "--port", "0", "-x"]),
    ("capstone fetch --from a.whl", ["fetch", "--from", "a.whl"]),
    ("capstone new folder --name N", ["new", "folder", "--name", "N"]),
    ("capstone check folder", ["check", "folder"]),
    ("capstone report folder", ["report", "folder"]),
    ("capstone ship chat.pyz --serve", ["ship", "chat.pyz", "--serve"]),
    ("capstone onnx a.gguf b.onnx --cache", ["onnx", "a.gguf", "b.onnx", "--cache"]),
])
def test_arguments_and_the_status_pass_through(environment, typed, passed):
    status, said = run(environment, *typed.split())
    assert (status, said["arguments"]) == (7, passed) and said["in_use"] == {}, "it works without a workspace"


def test_what_is_in_use_takes_part(environment, tmp_path):
    space, _ = Workspace.create(tmp_path / "here")
    file = space.work / "losses.py"
    file.write_bytes(course.reference(curriculum.chapter("losses")).read_bytes())
    space.use("losses", "work/losses.py")
    (tmp_path / "here" / "below").mkdir()
    os.chdir(tmp_path / "here" / "below")
    _, said = run(environment, "chat")
    assert said["in_use"] == {"tt_tensor.losses": str(file)}
    assert said["folder"] == str(tmp_path / "here" / "below"), "paths among the arguments are meant from here"


def test_notebooks_become_files_again(environment, tmp_path):
    pytest.importorskip("jupytext", reason="notebooks need jupytext: pip install 'tt-tito[notebook]'")
    space, _ = Workspace.create(tmp_path / "here")
    space.start(curriculum.chapter("losses"), notebook=True)
    space.use("losses", ".tito/notebooks/losses.py")
    made = space.state / "notebooks" / "losses.py"
    made.unlink(missing_ok=True)
    run(environment, "chat")
    assert made.is_file()


def test_without_chapter_20_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(course, "locate", lambda name: None)
    result = CliRunner().invoke(cli.tito, ["chat"])
    assert result.exit_code == 1 and str(result.exception) == "tt-capstone is not installed: pip install tt-capstone"


def test_tito_itself_does_not_import_chapter_20():
    code = "import sys; from tt_tito import cli, commands; print([m for m in sys.modules if 'capstone' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# Signals

LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
WAITED = (
    "import sys; from tt_tito import commands\n"
    "sys.exit(commands._waited_for([sys.executable, '-m', 'tt_capstone', '--wait']))"
)
HOW = {"in its place": ["-m", "tt_tito", "chat", "--wait"], "beside it": ["-c", WAITED]}
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals and no such signals")


@posix
@pytest.mark.parametrize("how", HOW)
def test_ctrl_c_reaches_the_program_once(environment, how):
    import pty

    master, slave = pty.openpty()
    command = [sys.executable, "-c", LAUNCH, sys.executable, *HOW[how]]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment
    )
    os.close(slave)
    try:
        shown = shown_until(master, "waiting")
        os.write(master, b"\x03")
        shown = shown_until(master, "in_use", shown)
        assert process.wait(60) == 7 and "['INT']" in shown and "Traceback" not in shown
    finally:
        process.kill()
        process.wait()
        os.close(master)


def shown_until(master, text, shown=""):
    """What a terminal has shown when a text has come."""
    deadline = time.monotonic() + 60
    while text not in shown:
        assert select.select([master], [], [], max(deadline - time.monotonic(), 0))[0], shown
        shown += os.read(master, 65_536).decode(errors="replace")
    return shown


@posix
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_signals_reach_the_program(environment, number):
    command = [sys.executable, "-m", "tt_tito", "serve", "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, encoding="utf-8") as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(getattr(signal, number))
        assert process.stdout.readline() == f"{[number.removeprefix('SIG')]}\n" and process.wait(60) == 7


def test_afterwards_ctrl_c_means_what_it_did():
    before = signal.getsignal(signal.SIGINT)
    assert commands._waited_for([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert signal.getsignal(signal.SIGINT) is before
