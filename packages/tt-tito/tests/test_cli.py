"""The command, as it is typed. What the judge does to a file is tested in test_judge.py."""

import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from tt_tito import cli, course, curriculum, show
from tt_tito.workspace import Workspace


def commands(group=cli.tito, names=("tito",)):
    """All commands below a group, as (what is typed, command)."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*names, name))
        yield " ".join((*names, name)), command


@pytest.fixture
def space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TT_SWAP", raising=False)
    return Workspace.create(tmp_path)[0]


def tito(*arguments, fails=None):
    """What the command prints; `fails` is what it must say when it must fail."""
    show.console.cache_clear()
    result = CliRunner().invoke(cli.tito, arguments)
    if fails is not None:
        said = result.output + (str(result.exception) if result.exception else "")
        assert result.exit_code and fails in said, said
    else:
        assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


# ## Help


@pytest.mark.parametrize(("typed", "command"), list(commands()), ids=[typed for typed, _ in commands()])
def test_every_command_has_help_with_an_example(typed, command):
    said = CliRunner().invoke(cli.tito, [*typed.split()[1:], "--help"]).output
    example = " ".join(said.partition("Example: ")[2].split())
    assert "tito " in example
    assert command.help and command.help.strip()[0].isupper()
    words = example.replace('"', "").replace("eval $(", "").split()
    assert words[: len(typed.split())] == typed.split() or isinstance(command, click.Group)


@pytest.mark.parametrize("typed", ["module list", "status", "milestones", "examples available", "use"])
def test_json_is_json(space, typed):
    json.loads(tito(*typed.split(), "--json"))


def test_what_the_issue_names_is_there():
    typed = {line for line, _ in commands()}
    module = {"list", "start", "test", "complete", "hint", "diff", "reset"}
    wanted = {*(f"module {name}" for name in module), "setup", "doctor", "status", "next", "use", "test unit", "export"}
    wanted |= {"test integration", "examples available", "examples run", "milestones", "grade", "nbgrader export"}
    assert {f"tito {line}" for line in wanted} <= typed


def test_a_typo_is_told_the_nearest():
    assert "Did you mean 'status'?" in tito("statsu", fails="statsu")
    assert "did you mean 07 autograd?" in tito("module", "test", "autogard", fails="autogard")
    assert "did you mean 07 autograd?" in tito("module", "test", "07_autogard", fails="autogard")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(shell):
    assert "_TITO_COMPLETE" in tito("completion", shell)


def test_it_completes_chapters():
    environment = os.environ | {
        "_TITO_COMPLETE": "bash_complete",
        "COMP_WORDS": "tito module start act",
        "COMP_CWORD": "3",
    }
    said = subprocess.run([sys.executable, "-m", "tt_tito"], env=environment, capture_output=True, encoding="utf-8")
    assert said.stdout.split() == ["plain,activations"]


def test_starting_loads_nothing_heavy():
    code = (
        "import sys; from tt_tito import cli\n"
        "try: cli.tito(['--help'], standalone_mode=True)\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'rich', 'pytest', 'tt_tensor', 'psutil') if m in sys.modules], file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert said.stderr.strip() == "[]"


# ## A learner's way, up to where the judge comes in


def test_without_a_workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tito("status", fails="tito setup")


def test_setup_and_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Next: cd my" in tito("setup", "my")
    monkeypatch.chdir(tmp_path / "my")
    said = tito("module", "start", "07_autograd")
    assert "work/autograd.py is the chapter" in said and "unbroadcast" in said
    tito("module", "start", "autograd", fails="exists and stays as it is")
    assert "Next: tito module start 01" in tito("status")
    assert "everything is there already" in tito("setup")


def test_next_follows_the_course(space):
    assert tito("next").startswith("Next: tito module start 01")
    tito("module", "start", "01")
    assert "tito module test 01" in tito("next")
    reference = course.reference(curriculum.chapter("setup"))
    space.file(curriculum.chapter("setup")).write_bytes(reference.read_bytes())
    assert "tito module complete 01" in tito("next")
    tito("use", "01", "reference")
    assert "tito module start 02" in tito("next")


def test_use(space):
    tito("use", "05", "mine", fails="not started")
    tito("module", "start", "05")
    tito("use", "05", "mine", fails="still has exercises to write: mse_loss")
    said = tito("use", "05", "reference")
    assert "capability is unlocked: objectives" in said and "work/losses.py stays as it is" in said
    space.file(curriculum.chapter("losses")).write_bytes(course.reference(curriculum.chapter("losses")).read_bytes())
    assert "work/losses.py is in use" in tito("use", "05", "mine")
    assert json.loads(tito("use", "--json"))["losses"] == "mine"
    tito("use", "05", "nowhere.py", fails="there is no such file or module")
    (space.root / "short.py").write_text("x = 1\n", encoding="utf-8")
    tito("use", "05", "short.py", fails="does not define: BCELoss")
    assert space.uses() == {"losses": "work/losses.py"}  # what failed has changed nothing
    tito("use", "tt-tensor", "mine", fails="setup, tensor, activations")
    tito("use", "05", fails="say what 05 is to be")
    tito("use", "capstone", "reference", fails="not installed")


def test_hints_go_on_and_stop_at_the_last(space):
    first = tito("module", "hint", "03", "relu")
    second = tito("module", "hint", "03", "relu")
    assert "hint 1 of" in first and "hint 2 of" in second and first != second
    for _ in range(3):
        last = tito("module", "hint", "03", "relu")
    assert last == tito("module", "hint", "03", "relu") and "More" not in last
    tito("module", "hint", "03", "rleu", fails="did you mean relu?")


def test_diff_shows_what_is_written_and_hides_what_is_not(space):
    chapter = curriculum.chapter("activations")
    tito("module", "start", "03")
    tito("module", "diff", "03", fails="nothing to compare")
    file = space.file(chapter)
    text = file.read_text(encoding="utf-8").replace(
        'raise NotImplementedError("03 activations: relu")', "return x * (x > 0)"
    )
    file.write_text(text, encoding="utf-8")
    said = tito("module", "diff", "03")
    assert "+    return x * (x > 0)" in said and "-    return np.maximum(x, 0)" in said
    assert "softmax" not in said


def test_reset(space):
    tito("module", "start", "03")
    file = space.file(curriculum.chapter("activations"))
    file.write_text("mine\n", encoding="utf-8")
    said = tito("module", "reset", "03", "--keep-backup")
    assert "kept as .tito/backups/activations-" in said
    assert "NotImplementedError" in file.read_text(encoding="utf-8")
    assert [f.read_text(encoding="utf-8") for f in (space.state / "backups").iterdir()] == ["mine\n"]
    file.write_text("mine\n", encoding="utf-8")
    tito("module", "reset", "03", "--no-backup", fails="for good")  # nobody has said yes
    assert file.read_text(encoding="utf-8") == "mine\n"


def test_an_example_waits_for_its_chapters(space):
    tito("examples", "run", "perceptron_1957", fails="needs 01 setup, 02 tensor, 03 activations, 04 layers")
    tito("examples", "run", "perceptron", fails="did you mean perceptron_1957?")
    assert "(not yet)" in tito("examples", "available")


def test_a_file_that_does_not_parse_is_a_state_and_no_crash(space):
    tito("module", "start", "03")
    space.file(curriculum.chapter("activations")).write_text("def f(:\n", encoding="utf-8")
    assert "does not parse" in tito("status")


def test_damaged_progress_is_said_and_kept(space):
    tito("use", "01", "reference")
    (space.state / "progress.json").write_text("{", encoding="utf-8")
    show.console.cache_clear()
    result = CliRunner().invoke(cli.tito, ["status"])
    assert result.exit_code == 0 and "was damaged" in result.stderr
    assert len(list((space.state / "backups").iterdir())) == 1


# ## The doctor


def test_the_doctor_names_commands(space, monkeypatch):
    from tt_tito import doctor

    (space.root / "tt_tensor").mkdir()
    space.config.write_text('[use]\nlosses = "work/none.py"\n', encoding="utf-8")
    found = {problem.what: problem for problem in doctor.problems()}
    shadow = next(p for what, p in found.items() if "hides the package tt-tensor" in what)
    assert shadow.serious and "my_tt_tensor" in shadow.mend
    broken = next(p for what, p in found.items() if "there is no such file or module" in what)
    assert broken.serious and "tito use NAME reference" in broken.mend
    assert all(problem.mend for problem in found.values())


def test_the_doctor_tries_what_stands_in(space):
    from tt_tito import doctor

    text = course.reference(curriculum.chapter("losses")).read_text(encoding="utf-8")
    (space.work / "losses.py").write_text(text + "\n1 / 0\n", encoding="utf-8")
    space.use("losses", "work/losses.py")
    (problem,) = [p for p in doctor.problems() if p.serious]
    assert "cannot be imported: ZeroDivisionError" in problem.what and problem.mend == "tito use losses reference"
