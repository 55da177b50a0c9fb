"""The command, as it is typed. What the judge does to a file is tested in test_judge.py."""

import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from tt_tito import cli, console, course, curriculum, exercises
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
    console.console.cache_clear()
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


@pytest.mark.parametrize("typed", ["module list", "status", "milestones", "examples list", "use"])
def test_json_is_json(space, typed):
    json.loads(tito(*typed.split(), "--json"))


def test_what_the_issue_names_is_there():
    typed = {line for line, _ in commands()}
    module = {"list", "start", "test", "complete", "hint", "diff", "reset"}
    wanted = {*(f"module {name}" for name in module), "setup", "doctor", "status", "next", "use", "test unit", "export"}
    wanted |= {"test integration", "examples list", "examples run", "milestones", "grade", "nbgrader export"}
    assert {f"tito {line}" for line in wanted} <= typed


def test_a_typo_is_told_the_nearest():
    assert "Did you mean 'status'?" in tito("statsu", fails="statsu")
    assert "Did you mean 07 autograd?" in tito("module", "test", "autogard", fails="autogard")
    assert "Did you mean 07 autograd?" in tito("module", "test", "07_autogard", fails="autogard")


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
    tito("module", "start", "autograd", fails="already exists and was not changed")
    assert "Next: tito module start 01" in tito("status")
    assert "everything already exists" in tito("setup")


def test_status_tells_the_kernels(space, monkeypatch):
    monkeypatch.delenv("TT_KERNELS", raising=False)
    assert "Kernels" not in tito("status") and json.loads(tito("status", "--json"))["kernels"] == "default"
    monkeypatch.setenv("TT_KERNELS", "fast")
    assert "Kernels: fast" in tito("status") and json.loads(tito("status", "--json"))["kernels"] == "fast"


def test_next_follows_the_course(space):
    assert tito("next").startswith("Next: tito module start 01")
    tito("module", "start", "01")
    assert "tito module test 01" in tito("next")
    reference = course.reference(curriculum.chapter("setup"))
    space.file(curriculum.chapter("setup")).write_bytes(reference.read_bytes())
    assert "tito module complete 01" in tito("next")
    tito("use", "01", "reference")
    assert "tito module start 02" in tito("next")


def test_use(space, monkeypatch):
    tito("use", "05", "mine", fails="not started")
    tito("module", "start", "05")
    tito("use", "05", "mine", fails="still has exercises to write: mse_loss")
    said = tito("use", "05", "reference")
    assert "capability is unlocked: objectives" in said and "work/losses.py was not changed" in said
    space.file(curriculum.chapter("losses")).write_bytes(course.reference(curriculum.chapter("losses")).read_bytes())
    assert "work/losses.py is in use" in tito("use", "05", "mine")
    assert json.loads(tito("use", "--json"))["losses"] == "mine"
    tito("use", "05", "nowhere.py", fails="there is no such file or module")
    (space.root / "short.py").write_text("x = 1\n", encoding="utf-8")
    tito("use", "05", "short.py", fails="does not define: BCEWithLogitsLoss")
    assert space.uses() == {"losses": "work/losses.py"}  # what failed has changed nothing
    tito("use", "tt-tensor", "mine", fails="setup, tensor, activations")
    tito("use", "05", fails="Which implementation of 05 should be used")
    written = tuple(chapter for chapter in course.written() if chapter.slug != "capstone")
    monkeypatch.setattr(course, "written", lambda: written)
    tito("use", "capstone", "reference", fails="not installed: pip install tt-capstone")


def test_hints_go_on_and_stop_at_the_last(space):
    first = tito("module", "hint", "03", "elu")
    second = tito("module", "hint", "03", "elu")
    assert "hint 1 of" in first and "hint 2 of" in second and first != second
    for _ in range(3):
        last = tito("module", "hint", "03", "elu")
    assert last == tito("module", "hint", "03", "elu") and "More" not in last
    tito("module", "hint", "03", "eul", fails="did you mean elu?")


def test_diff_shows_what_is_written_and_hides_what_is_not(space):
    chapter = curriculum.chapter("activations")
    tito("module", "start", "03")
    tito("module", "diff", "03", fails="nothing to compare")
    file = space.file(chapter)
    text = file.read_text(encoding="utf-8").replace(
        'raise NotImplementedError("03 activations: elu")', "return x * (x > 0)"
    )
    file.write_text(text, encoding="utf-8")
    said = tito("module", "diff", "03")
    assert "+    return x * (x > 0)" in said and "-    return np.maximum(x, 0) + alpha" in said
    assert "softmax" not in said


def test_diff_shows_another_right_answer(space):
    chapter = curriculum.chapter("activations")
    tito("module", "start", "03")
    tito("module", "diff", "03", "--other", fails="nothing to compare")
    text, other = space.file(chapter).read_text(encoding="utf-8"), course.solution(chapter, "two")
    answers = exercises.graft(text, other.read_text(encoding="utf-8"), ["elu", "softmax"])
    space.file(chapter).write_text(answers, encoding="utf-8")
    assert "-" not in {line[:1] for line in tito("module", "diff", "03", "--other").splitlines()}
    assert "--- reference: elu" in tito("module", "diff", "03")


def test_reset(space):
    tito("module", "start", "03")
    file = space.file(curriculum.chapter("activations"))
    file.write_text("mine\n", encoding="utf-8")
    said = tito("module", "reset", "03", "--keep-backup")
    assert "kept as .tito/backups/activations-" in said
    assert "NotImplementedError" in file.read_text(encoding="utf-8")
    assert [f.read_text(encoding="utf-8") for f in (space.state / "backups").iterdir()] == ["mine\n"]
    file.write_text("mine\n", encoding="utf-8")
    tito("module", "reset", "03", "--no-backup", fails="permanently")  # the question was not answered with yes
    assert file.read_text(encoding="utf-8") == "mine\n"


def test_an_example_waits_for_its_chapters(space):
    tito("examples", "run", "perceptron_1957", fails="needs 01 setup, 02 tensor, 03 activations, 04 layers")
    tito("examples", "run", "perceptron", fails="did you mean perceptron_1957?")
    assert "(not yet)" in tito("examples", "list")


def test_a_file_that_does_not_parse_is_a_state_and_no_crash(space):
    tito("module", "start", "03")
    space.file(curriculum.chapter("activations")).write_text("def f(:\n", encoding="utf-8")
    assert "does not parse" in tito("status")


def test_damaged_progress_is_said_and_kept(space):
    tito("use", "01", "reference")
    (space.state / "progress.json").write_text("{", encoding="utf-8")
    console.console.cache_clear()
    result = CliRunner().invoke(cli.tito, ["status"])
    assert result.exit_code == 0 and "was damaged" in result.stderr
    assert len(list((space.state / "backups").iterdir())) == 1


BROKEN = "import numpy\n\n\ndef f(:\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BROKEN.encode(), "activations.py, line 4 is not Python: invalid syntax."),
        (b"\xef\xbb\xbf" + BROKEN.encode(), "activations.py, line 4 is not Python: invalid syntax."),
        (BROKEN.encode("utf-16"), "activations.py is encoded in UTF-16: save it as UTF-8."),
        ("x = 1\n# größer".encode("latin-1"), "activations.py, line 2 is not UTF-8 (byte 0xf6): save it as UTF-8."),
        (b"x = 1\0\n", "activations.py is not text, because it has null bytes"),
        (b"x = 1\n" * 200_000, "activations.py has 1,200,000 bytes, and at most 1,048,576 are allowed."),
        (None, "activations.py is a folder, but a file is needed there: move it away."),
    ],
)
def test_every_command_says_the_same_of_a_file(space, content, says):
    file = space.file(curriculum.chapter("activations"))
    file.write_bytes(content) if content is not None else file.mkdir()
    for typed in ("module diff 03", "module hint 03", "use 03 mine", "use 03 work/activations.py", "export 03"):
        tito(*typed.split(), fails=says)
    assert says in tito("status") and says in json.loads(tito("status", "--json"))["problems"][0]
    if content is not None:
        assert json.loads(tito("module", "test", "03", "--json", fails=""))["message"].startswith(says)
        assert tito("module", "reset", "03") and says not in tito("status")


def test_a_byte_order_mark_is_no_matter(space):
    chapter = curriculum.chapter("activations")
    space.file(chapter).write_bytes(b"\xef\xbb\xbf" + course.reference(chapter).read_bytes())
    assert "11 of 11 written" in tito("status")
    assert "Your code is identical" in tito("module", "diff", "03")
    assert "is in use" in tito("use", "03", "mine")


@pytest.mark.parametrize("path", ["./work/autograd.py", "work/../work/autograd.py", "{}/work/autograd.py", "link.py"])
def test_your_own_file_is_yours_by_any_path(space, path):
    chapter = curriculum.chapter("autograd")
    path = path.format(space.root)
    tito("module", "start", "07")
    if path == "link.py":
        (space.root / path).symlink_to(space.file(chapter))
    tito("use", "07", path, fails="work/autograd.py still has exercises to write: Value.backward")
    space.config.write_text(f"[use]\n07 = '{path}'\n", encoding="utf-8")
    assert space.implementation(chapter) == "mine" and not space.taken(chapter)
    assert "Capabilities: 0 of" in tito("status")
    space.file(chapter).write_bytes(course.reference(chapter).read_bytes())
    tito("use", "07", path)
    assert space.uses() == {"autograd": "work/autograd.py"}


def test_nobodys_skeleton_is_used(space):
    text = tito("module", "start", "07") and space.file(curriculum.chapter("autograd")).read_bytes()
    (space.root / "copy.py").write_bytes(text)
    tito("use", "07", "copy.py", fails="copy.py still has exercises to write")
    tito("use", "tt-autograd", "work", fails="`mine` is for a chapter: autograd, training")
    space.use("tt-autograd", "work")
    assert not space.taken(curriculum.chapter("autograd"))
    for name, used in (("autograd", "mine"), ("training", "reference")):
        assert space.implementation(curriculum.chapter(name)) == used


def test_two_files_for_a_chapter_are_named(space):
    tito("module", "start", "03")
    (space.work / "activations.ipynb").write_text("{}", encoding="utf-8")
    says = "work/activations.py and work/activations.ipynb both exist"
    for typed in ("test", "complete", "diff", "hint", "reset", "start"):
        tito("module", typed, "03", fails=says)
    tito("use", "03", "mine", fails=says)
    assert says in tito("status")
    assert "was not changed" in tito("use", "03", "reference")
    (space.work / "activations.ipynb").unlink()
    tito("export", "03", "--out", "work", fails="name another folder with --out")
    assert not (space.work / "activations.ipynb").exists()


def test_a_workspace_inside_another_is_refused(space, monkeypatch):
    tito("setup", "inner", fails=f"is inside the workspace {space.root}")
    monkeypatch.chdir(space.work)
    tito("setup", fails="is inside the workspace")
    assert not (space.root / "inner").exists() and not (space.work / "tt.toml").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder that a process is in")
@pytest.mark.parametrize("command", ["status", "setup", "doctor", "module test 03"])
def test_a_working_directory_that_is_gone(tmp_path, command):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; os.rmdir(os.getcwd()); from tt_tito.cli import main; main()"
    said = subprocess.run([sys.executable, "-c", code, *command.split()], cwd=gone, capture_output=True, text=True)
    assert said.stderr == "tito: the current folder has been deleted: change to another one\n" and said.returncode


def test_what_is_in_use_is_tested(space):
    (space.root / "theirs.py").write_bytes(course.reference(curriculum.chapter("losses")).read_bytes() + b"\n1 / 0\n")
    data = json.loads(tito("test", "unit", "05", "--json"))  # nothing is chosen or started
    assert (data["in_use"], data["status"], data["points"]) == ("reference", "passed", data["out_of"])
    tito("use", "05", "theirs.py")
    data = json.loads(tito("test", "unit", "05", "--json", fails=""))
    assert data["in_use"] == "theirs.py" and "ZeroDivisionError" in data["message"]
    tito("module", "start", "05")
    tito("use", "05", "reference")
    said = tito("test", "unit", "05")
    assert said.startswith("05 Losses, reference\n") and "tito module test 05" in said
    assert "to write" in tito("module", "test", "05", fails="")


def test_progress_survives_damage_and_a_broken_chapter(space, monkeypatch):
    """Both the progress and its copy are damaged while a chapter is half written: the others are judged again."""
    from tt_tito import commands
    from tt_tito.judge import Assessment, Mark
    from tt_tito.progress import Progress

    chapters = [curriculum.chapter(name) for name in ("activations", "losses")]
    for chapter in chapters:
        space.file(chapter).write_bytes(course.reference(chapter).read_bytes())
    space.file(curriculum.chapter("tensor")).write_text("def f(\n", encoding="utf-8")
    space.file(curriculum.chapter("layers")).write_bytes("x = 'ü'".encode("utf-16"))
    for name in ("progress.json", "progress.copy.json"):
        (space.state / name).write_text("{", encoding="utf-8")
    seen = []

    def assess(space, chapter, groups):
        seen.append((chapter.slug, (space.state / "progress.json").read_text(encoding="utf-8")))
        return Assessment(chapter.slug, "passed", (Mark("elu", "passed", 1),))

    monkeypatch.setattr(commands, "assess", assess)
    console.console.cache_clear()
    result = CliRunner().invoke(cli.tito, ["status"])
    assert result.exit_code == 0
    assert "02 tensor: left out, because tensor.py, line 1 is not Python" in result.stderr
    assert "04 layers: left out, because layers.py is encoded in UTF-16" in result.stderr
    assert seen == [("activations", "{"), ("losses", "{")]  # nothing is taken away before there is something instead
    assert Progress.read(space).chapters.keys() == {"activations", "losses"}
    assert "was damaged" not in CliRunner().invoke(cli.tito, ["status"]).stderr


def test_a_chapter_that_changes_while_it_is_judged_has_changed_since(space, monkeypatch):
    from tt_tito import judging
    from tt_tito.judge import Assessment, Mark

    chapter = curriculum.chapter("activations")
    space.file(chapter).write_bytes(course.reference(chapter).read_bytes())

    def assess(space, chapter, groups, tell):
        with space.file(chapter).open("a", encoding="utf-8") as stream:
            stream.write("# more\n")
        return Assessment(chapter.slug, "passed", (Mark("elu", "passed", 1),))

    monkeypatch.setattr(judging, "assess", assess)
    tito("module", "complete", "03")
    assert "changed since it passed" in tito("status")


# ## The doctor


def test_the_doctor_sees_a_package_that_hides_the_courses(space, tmp_path):
    (tmp_path / "site/tt_tensor").mkdir(parents=True)
    (tmp_path / "site/tt_tensor/__init__.py").write_text("", encoding="utf-8")

    def typed(*arguments):
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
        command = [sys.executable, "-m", "tt_tito", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")

    said = typed("doctor").stdout
    assert "site/tt_tensor has the name of the course's package tt-tensor" in said.replace(os.sep, "/")
    assert "out of PYTHONPATH" in said and "reinstall" not in said
    assert "03 activations is not installed" in typed("module", "start", "03").stderr


def test_the_doctor_names_commands(space, monkeypatch):
    from tt_tito import doctor

    (space.root / "tt_tensor").mkdir()
    space.config.write_text('[use]\nlosses = "work/none.py"\n', encoding="utf-8")
    found = {problem.what: problem for problem in doctor.problems()}
    shadow = next(p for what, p in found.items() if "hides the package tt-tensor" in what)
    assert shadow.serious and "my_tt_tensor" in shadow.fix
    broken = next(p for what, p in found.items() if "there is no such file or module" in what)
    assert broken.serious and "tito use NAME reference" in broken.fix
    assert all(problem.fix for problem in found.values())


def test_the_doctor_tries_what_stands_in(space):
    from tt_tito import doctor

    text = course.reference(curriculum.chapter("losses")).read_text(encoding="utf-8")
    (space.work / "losses.py").write_text(text + "\n1 / 0\n", encoding="utf-8")
    space.use("losses", "work/losses.py")
    (problem,) = [p for p in doctor.problems() if p.serious]
    assert "cannot be imported: ZeroDivisionError" in problem.what and problem.fix == "tito use losses reference"
