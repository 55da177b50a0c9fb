"""The loop of writing and looking: `tito watch`, `tito module show`, and what is not judged again."""

import ast
import json
import os
import subprocess
import sys

import pytest

from tt_tito import course, curriculum, exercises, experiments, judging, swap, watching
from tt_tito.judge import assessment, recording, visible
from tt_tito.judge.sandbox import SPARES, Limits
from tt_tito.workspace import Workspace

CHAPTER = curriculum.chapter("activations")
REFERENCE = course.reference(CHAPTER).read_text(encoding="utf-8")
NAMES = [exercise.name for exercise in exercises.exercises(REFERENCE)]
SKELETON = exercises.skeleton(REFERENCE, str(CHAPTER))
STARRED = [c for c in course.written() if "# exercise (starred)" in course.reference(c).read_text(encoding="utf-8")]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("TT_", "PYTEST_"))}


@pytest.fixture
def space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TT_SWAP", raising=False)
    made, _ = Workspace.create(tmp_path)
    made.start(CHAPTER)
    return made


@pytest.fixture
def judged(monkeypatch):
    """The exercises of each time that the judge was asked."""
    asked, judge = [], assessment.assess

    def spy(*arguments, **options):
        asked.append(options.get("only"))
        return judge(*arguments, **options)

    monkeypatch.setattr(assessment, "assess", spy)
    return asked


def write(space, *names, **wrong):
    """Fill in exercises of the learner's file, right or with a body that returns something else."""
    file = space.file(CHAPTER)
    text = exercises.graft(file.read_text(encoding="utf-8"), REFERENCE, names)
    for name, body in wrong.items():
        head = ast.unparse(exercises.functions(ast.parse(REFERENCE))[name].args)
        text = exercises.graft(text, f"def {name}({head}):\n    {body}\n", [name])
    file.write_text(text, encoding="utf-8")


def statuses(found):
    return {mark.name: mark.status for mark in found.exercises if mark.status != "unwritten"}


def tito(space, *arguments, typed=""):
    process = subprocess.run(
        [sys.executable, "-m", "tt_tito", *arguments],
        cwd=space.root, env=ENVIRONMENT, input=typed, capture_output=True, encoding="utf-8", timeout=100,
    )
    return process.stdout + process.stderr


# ## What is judged


def test_what_has_passed_is_not_judged_again(space, judged):
    write(space, "elu", "softmax")
    assert statuses(judging.look(space, CHAPTER)) == {"elu": "passed", "softmax": "passed"}
    assert judging.look(space, CHAPTER).summary().startswith(f"2 of {len(NAMES)} exercises")
    assert judged == [["elu", "softmax"]]
    write(space, "gelu", elu="return x")
    found = judging.look(space, CHAPTER)
    assert statuses(found) == {"elu": "failed", "softmax": "passed", "gelu": "passed"}
    assert judged[1:] == [["elu", "gelu"]] and found.status == "failed"
    write(space, "elu")
    assert judging.look(space, CHAPTER).passed and judged[2:] == [["elu"]]


@pytest.mark.parametrize("change", ["the code around", "what is in use", "the notes"])
def test_a_verdict_holds_only_as_long_as_all_else_is_the_same(change, space, judged, monkeypatch):
    write(space, "elu")
    judging.look(space, CHAPTER)
    if change == "the code around":
        file = space.file(CHAPTER)
        file.write_text(file.read_text(encoding="utf-8") + "\nMORE = 1\n", encoding="utf-8")
    elif change == "what is in use":
        other = space.root / "tensor.py"
        text = course.reference(curriculum.chapter("tensor")).read_text(encoding="utf-8")
        other.write_text(text, encoding="utf-8")
        monkeypatch.setattr(judging, "_others", lambda chapter: {"tt_tensor.tensor": other})
    else:
        (space.state / "passed" / "activations.json").write_text('{"context": 5', encoding="utf-8")
    assert judging.look(space, CHAPTER).passed and judged == [["elu"], ["elu"]]


def test_only_what_is_asked_for_is_judged(space, judged):
    write(space, "softmax", elu="return x")
    assert statuses(judging.look(space, CHAPTER, ["SoftMax"])) == {"softmax": "passed"} and judged == [["softmax"]]
    assert statuses(judging.look(space, CHAPTER, ["elu"])) == {"elu": "failed"}
    with pytest.raises(ValueError, match="did you mean softmax"):
        judging.look(space, CHAPTER, ["sofmax"])
    assert judging.look(space, CHAPTER, ["gelu"]).message == "Not written yet: gelu."


def test_the_first_failure_is_told_before_the_others_are_known(space):
    write(space, softmax="return x", elu="return x")
    told = []
    found = judging.look(space, CHAPTER, tell=told.append)
    assert told == [found.message] and statuses(found) == {"softmax": "failed", "elu": "failed"}
    assert len({mark.message for mark in found.exercises if mark.message}) == 2


@pytest.fixture
def ends(monkeypatch):
    """How each run of tests has ended."""
    ends, run = [], assessment.run

    def spy(*arguments):
        ran = run(*arguments)
        ends.append(ran.end)
        return ran

    monkeypatch.setattr(assessment, "run", spy)
    return ends


def test_one_wrong_exercise_is_judged_by_the_first_test_that_fails(space, ends):
    judging.prepare(space, CHAPTER)
    write(space, "elu")
    assert judging.look(space, CHAPTER).passed and ends == ["done"]
    write(space, elu="return x")
    assert judging.look(space, CHAPTER).status == "failed" and ends[1] == "stopped"
    write(space, softmax="return x")
    assert statuses(judging.look(space, CHAPTER)) == {"elu": "failed", "softmax": "failed"} and ends[3] == "done"


def test_an_endless_loop_costs_its_limit_once(space, ends):
    write(space, "elu", "log_softmax", softmax="while True: pass")
    found = assessment.assess(CHAPTER, space.file(CHAPTER), limits=Limits(seconds=4), trusted=True)
    assert statuses(found) == {"elu": "passed", "log_softmax": "passed", "softmax": "failed"}
    assert ends.count("timeout") == 1 and found.status == "timeout"


@pytest.fixture
def unit_tests(tmp_path, monkeypatch):
    def make(text):
        file = tmp_path / "test_activations.py"
        file.write_text(f"from tt_tensor.teaching import expect, measured_between\n{text}", encoding="utf-8")
        monkeypatch.setitem(recording.GROUPS, "unit", lambda chapter: file)
        recording._texts.cache_clear()

    for known in (recording.RECORDINGS, recording.REACHED):
        monkeypatch.setattr(recording, "RECORDINGS" if known is recording.RECORDINGS else "REACHED", {})
    yield make
    recording._texts.cache_clear()


def test_no_chapter_passes_while_its_own_checks_fail(space, unit_tests):
    unit_tests("def test_f():\n    expect('1 + 1', 2, 2, see='The hurt')\n")
    write(space, elu="return x * 1e9")
    found = assessment.assess(CHAPTER, space.file(CHAPTER), trusted=True)
    assert statuses(found) == {"elu": "failed"}
    assert found.message.startswith("check_") and "gave not: " in found.message and 'See "' in found.message
    (name,) = {line.partition("()")[0] for line in found.message.splitlines()[:1]}
    assert name in visible.checks(CHAPTER)


@pytest.mark.parametrize("instead", ["", "def {}():\n    pass"], ids=["deleted", "emptied"])
def test_a_learner_cannot_take_a_check_away(instead, space, unit_tests):
    unit_tests("def test_f():\n    expect('1 + 1', 2, 2, see='The hurt')\n")
    write(space, elu="return x * 1e9")
    file = space.file(CHAPTER)
    lines = file.read_text(encoding="utf-8").splitlines()
    nodes = [node for node in ast.parse("\n".join(lines)).body if getattr(node, "name", "").startswith("check_")]
    for node in reversed(nodes):
        lines[node.lineno - 1 : node.end_lineno] = instead.format(node.name).splitlines()
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert nodes and statuses(assessment.assess(CHAPTER, file, trusted=True)) == {"elu": "failed"}


def test_a_busy_machine_is_no_mistake(space, unit_tests):
    unit_tests("def test_f():\n    expect('time of f', 5.0, measured_between(0, 1), see='The hurt')\n")
    write(space, "elu")
    found = assessment.assess(CHAPTER, space.file(CHAPTER), trusted=True)
    assert found.passed and "this machine is busy" in found.remark and statuses(found) == {"elu": "passed"}


# ## What may be left out


@pytest.mark.parametrize("chapter", STARRED[:2], ids=str)
def test_what_has_a_star_may_be_left_out(chapter, tmp_path, monkeypatch):
    reference = course.reference(chapter).read_text(encoding="utf-8")
    known = exercises.exercises(reference)
    required, starred = ([e.name for e in known if e.starred == star] for star in (False, True))
    file = tmp_path / f"{chapter.slug}.py"
    skeleton = exercises.skeleton(reference, str(chapter))
    file.write_text(exercises.graft(skeleton, reference, required), encoding="utf-8")
    found = assessment.assess(chapter, file, trusted=True)
    assert found.full and found.points == found.out_of == len(required)
    assert f"0 of {len(starred)} with a star" in found.summary()
    tree = swap.StandIn(chapter.module, str(file)).parse()  # an import gets the reference's
    assert not exercises.unwritten(ast.unparse(tree), starred)
    file.write_text(exercises.graft(skeleton, reference, required[1:]), encoding="utf-8")
    assert exercises.unwritten(ast.unparse(swap.StandIn(chapter.module, str(file)).parse()), required) == required[:1]


# ## Experiments


def test_an_experiment_knows_which_exercises_it_runs_on():
    known = {each.name: each for each in experiments.experiments(CHAPTER)}
    assert not known["hurt"].needs and "sigmoid" not in known["hurt"].needs
    assert "softmax" in set().union(*(each.needs for each in known.values()))
    new = experiments.new_ones(CHAPTER, [], NAMES)
    assert {each.name for each in new} == {each.name for each in known.values() if each.needs}
    assert not experiments.new_ones(CHAPTER, NAMES, NAMES)


def test_show_runs_on_the_learners_code_and_keeps_figures(space):
    write(space, softmax="print('mine'); return x")
    shows = [each.name for each in experiments.experiments(CHAPTER) if "softmax" in each.needs]
    said = tito(space, "module", "show", "03", shows[0])
    assert "mine" in said and f"show_{shows[0]}" in said
    assert "Figure: .tito/figures/03-functions.png" in tito(space, "module", "show", "03", "functions", "--no-open")
    assert (space.state / "figures" / "03-functions.png").stat().st_size > 10_000
    assert "did you mean hurt?" in tito(space, "module", "show", "03", "hrut")
    listed = tito(space, "module", "show", "03")
    assert all(each.name in listed for each in experiments.experiments(CHAPTER))


# ## Watching


def test_watch_looks_once_and_then_does_what_keys_say(space):
    write(space, "elu", softmax="return x")
    said = tito(space, "watch", typed="hq")
    assert "elu passed." in said and "softmax(" in said and "To fix: softmax" in said
    assert "softmax, hint 1 of" in said
    write(space, *NAMES)
    said = tito(space, "watch", "03")
    assert "Next: tito module complete 03" in said and "softmax passed." in said


def test_watch_judges_whenever_the_file_is_saved(space):
    words = [sys.executable, "-u", "-m", "tt_tito", "watch", "03"]
    with subprocess.Popen(
        words, cwd=space.root, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        def until(text):
            return any(text in line for line in iter(process.stdout.readline, ""))

        assert until("Nothing is written yet")
        write(space, softmax="return x")
        assert until("To fix: softmax")
        write(space, "softmax")
        assert until("softmax passed.")
        process.stdin.write("q")
        process.stdin.close()
        assert process.wait(10) == 0


def test_watch_prepares_itself_once_when_the_learner_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "IDLE", 0.2)
    file = tmp_path / "x.py"
    file.write_text("one", encoding="utf-8")
    pressed = iter([*[""] * 30, "h", *[""] * 30, "q"])
    assert list(watching.changes(file, lambda: next(pressed))) == ["saved", "idle", "hint"]


def test_a_file_that_is_being_written_is_not_judged_yet(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("one", encoding="utf-8")
    seen = watching.Seen(file)
    assert seen.changed() and not seen.changed()
    file.write_text("", encoding="utf-8")
    assert not seen.changed()
    file.unlink()
    assert not seen.changed()
    file.write_text("other", encoding="utf-8")
    assert seen.changed() and not seen.changed()


def test_the_chapter_in_work_is_the_one_that_was_changed_last(space):
    space.start(curriculum.chapter("setup"))
    os.utime(space.file(CHAPTER), (1, 1))
    assert "01 Setup" in tito(space, "module", "test")
    os.utime(space.file(CHAPTER))
    assert "03 Activations" in tito(space, "module", "test")
    assert "is not started" in tito(space, "watch", "05")


def test_spare_processes_end_with_the_watching(space):
    write(space, "elu")
    with SPARES.kept(1):
        judging.look(space, CHAPTER)
        (child,) = SPARES.waiting
        assert child.process.poll() is None
        write(space, "softmax")
        assert judging.look(space, CHAPTER).passed and child not in SPARES.waiting
    assert not SPARES.waiting and child.process.poll() is not None


def test_a_skeleton_says_how_it_is_watched_and_shown(space):
    second = space.file(CHAPTER).read_text(encoding="utf-8").splitlines()[1]
    assert "`tito watch 03`" in second and "`tito module show 03 hurt`" in second


def test_json_has_stars_and_remarks(space):
    write(space, "elu")
    data = json.loads(tito(space, "module", "test", "03", "elu", "--json"))
    assert data["exercises"] == [{"name": "elu", "status": "passed", "points": 1, "message": "", "starred": False}]
    assert data["remark"] == ""
