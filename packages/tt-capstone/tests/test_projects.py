"""Projects with a budget: what the checker measures, counts and refuses, and how it ends what does not end."""

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tt_autograd import load_checkpoint
from tt_capstone import cards, projects
from tt_capstone.cards import Measured
from tt_capstone.projects import Budget, ProjectError

command = vars(projects)["main"]  # `new` and `check`
gather = vars(projects)["gather"]

BUDGET = "seconds = 20\nmegabytes = 2000\nmilliseconds = 1000\naccuracy = 0.9\nseeds = [5]\n"

# The sign of a number, learned by a layer whose weight is set by hand.
PROJECT = """
import os, sys, time
import numpy as np
import tt_tensor as tt


def data():
    x = np.random.default_rng(0).normal(size=(300, 1)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    return (x[:100], y[:100]), (tt.from_numpy(x[100:]), tt.from_numpy(y[100:]))


def train(x, y, seed):
    assert isinstance(x, tt.Tensor) and x.shape == (100, 1) and y.tolist() == [int(v > 0) for v in x[:, 0].tolist()]
    assert "answers.npy" not in os.listdir(sys.argv[3]), "the answers are where training is"
    drawn = tt.rand(1).item()
    tt.manual_seed(seed)
    assert tt.rand(1).item() == drawn, "the checker seeds"
    model = tt.Linear(1, 2)
    model.weight.copy_(tt.Tensor([[-1.0], [1.0]]))
    model.bias.copy_(tt.Tensor([0.0, 0.0]))
    return model


def predict(model, x):
    return model(x)
"""


def write(folder, code=PROJECT, budget=BUDGET):
    folder.mkdir(exist_ok=True)
    (folder / "project.py").write_text(code, encoding="utf-8")
    (folder / "budget.toml").write_text(budget, encoding="utf-8")
    return folder


# A project that keeps its budget


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("projects") / "signs")
    return folder, projects.check_project(folder)


def test_a_budget_that_is_kept(checked):
    verdict = checked[1]
    assert verdict.kept and [row.what for row in verdict.rows] == [
        "training", "peak memory", "accuracy", "time of an answer", "held out, but trained on",
    ]  # fmt: skip
    assert verdict.rows[2].measured == "100.00 % (98.17 % to 100.00 %)" and verdict.rows[2].asked == "at least 90.00 %"
    assert str(verdict).endswith("The budget is kept.") and " NO" not in str(verdict)


def test_results_hold_what_was_measured(checked):
    results = cards.read_sealed(checked[0] / "results.json")
    numbers = {number["what"]: number for number in results["measured"]}
    assert numbers["accuracy, seed 5"]["value"] == 1.0 and 0 < numbers["training, seed 5"]["value"] < 5
    assert 20_000_000 < numbers["peak memory, seed 5"]["value"] < 2_000_000_000
    assert numbers["parameters"]["value"] == 4 and 0 < numbers["time of an answer"]["low"] < 1
    assert results["kept"] is True and results["budget"]["seeds"] == [5] and results["data"]["held_out"] == 200
    x = np.random.default_rng(0).normal(size=(300, 1)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    assert results["data"]["sha256"] == cards.checksum(x[:100], y[:100], x[100:], y[100:])


def test_weights_stay_and_nothing_else_does(checked):
    folder = checked[0]
    assert load_checkpoint(folder / "model.safetensors")["weight"].tolist() == [[-1.0], [1.0]]
    left = {file.name for file in folder.iterdir()} - {"__pycache__"}
    assert left == {"budget.toml", "model.safetensors", "project.py", "results.json"}


def test_a_checked_project_has_a_card(checked):
    folder = checked[0]
    texts = (f'{name} = "text"' for name in ("name", "purpose", "not_for", "licence", "data", "split"))
    (folder / "card.toml").write_text("\n".join(texts), encoding="utf-8")
    try:
        card = cards.project_card(folder)
    finally:
        (folder / "card.toml").unlink()
    assert card.measured[0].what == "accuracy, seed 5" and card.seeds == (5,) and card.data.training == 100


# The template


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A new project, and the finished process that has checked it."""
    folder = tmp_path_factory.mktemp("projects") / "mine"
    assert command(["new", str(folder), "--name", "My digits"]) == 0
    budget = (folder / "budget.toml").read_text(encoding="utf-8").replace("[0, 1, 2]", "[0]")
    (folder / "budget.toml").write_text(budget, encoding="utf-8")
    code = "import sys; from tt_capstone.projects import main; sys.exit(main(sys.argv[1:]))"
    line = [sys.executable, "-c", code, "check", str(folder)]
    return folder, subprocess.run(line, capture_output=True, encoding="utf-8", check=False)


def test_the_template_runs_and_misses(template):
    done = template[1]
    assert (done.returncode, done.stderr) == (1, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[-1] for row in rows if row and row[-1] in ("yes", "NO")] == ["yes", "yes", "NO", "yes", "yes"]
    assert rows[-1] == "The budget is missed.".split()


def test_the_template_has_its_name(template):
    folder = template[0]
    assert {"README.md", "budget.toml", "card.toml", "project.py"} <= {file.name for file in folder.iterdir()}
    texts = [(folder / name).read_text(encoding="utf-8") for name in ("README.md", "budget.toml", "card.toml")]
    assert all("My digits" in text and "PROJECT_NAME" not in text for text in texts)
    with pytest.raises(ValueError, match="purpose in .* is empty: write what the model does"):
        cards.project_card(folder)


def test_the_templates_main_answers(template, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(template[0]))
    project = importlib.import_module(Path(template[0], "project.py").stem)

    np.save(tmp_path / "x.npy", np.zeros((3, 64), np.float32))
    assert project.main([str(template[0] / "model.safetensors"), str(tmp_path / "x.npy")]) == 0
    answers = capsys.readouterr().out.split()
    assert len(answers) == 3 and len(set(answers)) == 1 and project.main([]) == 2
    sys.modules.pop("project")


def test_no_file_is_overwritten(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert command(["new", str(tmp_path)]) == 1
    assert "is not an empty folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["", " ", 'a"b', "a\nb", "a\\b"])
def test_names_that_would_break_a_file_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be the name of a project"):
        projects.new_project(tmp_path / "new", name)
    assert not (tmp_path / "new").exists()


# Budgets


@pytest.mark.parametrize(
    "change, says",
    [
        ({"seconds": 0}, "seconds in the budget must be a positive number, not 0"),
        ({"megabytes": "many"}, "megabytes in the budget must be a positive number, not 'many'"),
        ({"milliseconds": float("inf")}, "milliseconds in the budget must be a positive number, not inf"),
        ({"accuracy": None}, "either an accuracy or a loss, and not both"),
        ({"loss": 1.0}, "either an accuracy or a loss, and not both"),
        ({"accuracy": 1}, "accuracy must be a share below 1, such as 0.95, not 1"),
        ({"seeds": ()}, r"seeds must be at least one integer, each 0 or more, not \[\]"),
        ({"seeds": (0, -1)}, r"seeds must be .* not \[0, -1\]"),
        ({"seeds": (True,)}, r"seeds must be .* not \[True\]"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        Budget(**{"seconds": 1, "megabytes": 1, "accuracy": 0.9, **change})


@pytest.mark.parametrize(
    "text, says",
    [("seconds = ", "budget.toml: "), ("accuracy = 0.9\nmegabytes = 1", "missing 1 required .* 'seconds'"),
     (BUDGET + "hours = 3", "unexpected keyword argument 'hours'"), (BUDGET.replace("[5]", "5"), "budget.toml: ")],
)  # fmt: skip
def test_a_file_that_is_not_a_budget_is_named(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        projects.read_budget(write(tmp_path / "p", budget=text))


def test_a_folder_without_a_project_is_named(tmp_path, capsys):
    assert command(["check", str(tmp_path / "nowhere")]) == 1
    assert "budget.toml: " in capsys.readouterr().err


# Verdicts


def verdict(numbers, in_both=0, **budget):
    limits = {"seconds": 10, "megabytes": 100, **budget}
    if not {"accuracy", "loss"} & set(limits):
        limits["accuracy"] = 0.9
    measured = [Measured("training, seed 0", 1, "seconds", ""), Measured("peak memory, seed 0", 5e7, "bytes", "")]
    measured += [Measured("accuracy, seed 0", 0.95, "share", "", 0.91, 0.97)] if "loss" not in limits else []
    found = projects.judged(Budget(**limits), [*measured, *numbers], {"in_both": in_both, "held_out": 1000})
    return {row.what: row.kept for row in found.rows}


def test_the_worst_seed_counts():
    assert all(verdict([]).values())
    for what, value in (("training", 10.1), ("peak memory", 100_000_001)):
        kept = verdict([Measured(f"{what}, seed 1", value, "seconds", "")])
        assert [name for name, row in kept.items() if not row] == [what]
    worse = Measured("accuracy, seed 1", 0.93, "share", "", 0.8999, 0.95)
    assert not verdict([worse])["accuracy"]


def test_the_worse_end_of_an_interval_counts():
    def answers(high, **budget):
        number = Measured("time of an answer", 0.004, "seconds", "", 0.003, high)
        return verdict([number], milliseconds=5, **budget)["time of an answer"]

    assert answers(0.005) and not answers(0.0051)

    def loss(high):
        return verdict([Measured("loss, seed 0", 1.4, "nats", "", 1.3, high)], loss=1.5)["loss"]

    assert loss(1.5) and not loss(1.51)


def test_a_limit_itself_is_kept():
    assert verdict([Measured("training, seed 1", 10.0, "seconds", "")])["training"]


def test_more_than_a_hundredth_of_the_examples_in_both_parts_is_a_leak():
    assert verdict([], in_both=10)["held out, but trained on"]
    assert not verdict([], in_both=11)["held out, but trained on"]


# Counting

ACCURACY, LOSS = Budget(1, 1, accuracy=0.5), Budget(1, 1, loss=1.0)


def test_right_answers_are_counted_by_the_largest_logit_or_the_class_number():
    outputs, answers = np.array([[0.1, 0.9], [0.9, 0.1], [0.2, 0.8]]), np.array([1, 1, 1])
    assert projects.quality(outputs, answers, ACCURACY, "x").value == pytest.approx(2 / 3)
    assert projects.quality(outputs.argmax(1), answers, ACCURACY, "x").value == pytest.approx(2 / 3)


def test_a_loss_is_that_of_each_window():
    rng = np.random.default_rng(0)
    outputs, answers = rng.normal(size=(12, 5, 7)) * 30, rng.integers(0, 7, (12, 5))
    shares = np.exp(outputs - outputs.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    wanted = [np.mean([-np.log(shares[n, t, answers[n, t]]) for t in range(5)]) for n in range(12)]
    found = projects.quality(outputs.astype(np.float32), answers, LOSS, "seed 0")
    assert found.value == pytest.approx(np.mean(wanted), rel=1e-5) and found.what == "loss, seed 0"
    assert found.low > min(wanted) and found.high < max(wanted)


def test_logits_that_are_not_normalized_gain_nothing():
    outputs, answers = np.zeros((20, 4)), np.zeros(20, int)
    assert projects.quality(outputs + 1e6, answers, LOSS, "").value == pytest.approx(np.log(4))


@pytest.mark.parametrize(
    "outputs, answers, budget, says",
    [
        (np.full((3, 2), np.nan), np.zeros(3, int), ACCURACY, "6 numbers that are nan or inf"),
        (np.zeros((2, 2)), np.zeros(3, int), ACCURACY, r"predict returned \(2, 2\) for \(3,\) answers"),
        (np.zeros((3, 2, 2)), np.zeros((3, 2), int), ACCURACY, r"give \(N, classes\) or \(N,\)"),
        (np.zeros(3), np.zeros(3, int), LOSS, "give logits for each"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(outputs, answers, budget, says):
    with pytest.raises(ValueError, match=says):
        projects.quality(outputs, answers, budget, "")


def test_examples_in_both_parts_are_counted(tmp_path):
    x = np.arange(8.0).reshape(4, 2)

    class Project:
        def data():
            return (x, np.zeros(4)), (np.concatenate([x[1:3] + 0.0, x + 100]), np.zeros(6))

    facts = gather(Project, tmp_path, 0)
    assert (facts["in_both"], facts["training"], facts["held_out"]) == (2, 4, 6)
    assert np.load(tmp_path / "questions.npy").shape == (6, 2)


def test_parts_that_do_not_fit_are_refused(tmp_path):
    class Project:
        def data():
            return (np.zeros((3, 2)), np.zeros(4)), (np.zeros((3, 2)), np.zeros(3))

    with pytest.raises(ValueError, match=r"data\(\) returned 3 inputs with 4 targets"):
        gather(Project, tmp_path, 0)


# Projects that fail: the results of an earlier check go, and what is said names their own lines


def failing(folder, old, new):
    assert old in PROJECT
    write(folder, PROJECT.replace(old, new))
    (folder / "results.json").write_text("old", encoding="utf-8")
    with pytest.raises(ProjectError) as caught:
        projects.check_project(folder)
    assert not (folder / "results.json").exists()
    return str(caught.value)


def test_an_error_is_shown_with_its_own_lines(tmp_path):
    said = failing(tmp_path / "p", "    drawn =", "    helper()\n    drawn =")
    assert said.startswith("train with seed 5 failed:\nTraceback") and "NameError: name 'helper' is not defined" in said
    assert said.count("File ") == 1 and os.path.join("p", "project.py") in said and "in train" in said


def test_a_syntax_error_is_shown_with_its_line(tmp_path):
    said = failing(tmp_path / "p", "def predict(model, x):", "def predict(model x):")
    assert said.startswith("data with seed 0 failed:") and "SyntaxError" in said and "def predict(model x):" in said
    assert said.count("File ") == 1


def test_a_function_that_is_missing_is_named(tmp_path):
    said = failing(tmp_path / "p", "def predict", "def answer")
    assert said.endswith("ValueError: project.py has no function predict: see the template, `python -m tt_capstone new "
                         "FOLDER`") and "Traceback" not in said  # fmt: skip


def test_training_does_not_get_the_answers_from_data(tmp_path):
    said = failing(tmp_path / "p", "    drawn =", "    data()\n    drawn =")
    assert "RuntimeError: train must learn from the x and y that it is given" in said


def test_a_process_that_dies_leaves_no_results(tmp_path):
    said = failing(tmp_path / "p", "    drawn =", "    os._exit(7)\n    drawn =")
    assert said == "train with seed 5 ended with status 7 and left no results"


def test_an_exit_is_a_failure(tmp_path):
    assert "SystemExit: 0" in failing(tmp_path / "p", "    drawn =", "    sys.exit(0)\n    drawn =")


HANG = """
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(os.path.join(os.path.dirname(__file__), "pid"), "w").write(str(child.pid))
    time.sleep(600)
    x ="""


def test_what_hangs_is_stopped_with_all_that_it_has_started(tmp_path, monkeypatch):
    monkeypatch.setattr(projects, "GRACE", 4.0)
    folder = write(tmp_path / "p", PROJECT.replace("\n    x =", HANG, 1), BUDGET.replace("= 20", "= 0.5"))
    start = time.perf_counter()
    with pytest.raises(ProjectError, match="data with seed 0 was stopped: it had not ended after 5 seconds"):
        projects.check_project(folder)
    assert time.perf_counter() - start < 60
    if os.name == "posix" and (folder / "pid").exists():  # a busy machine may not have come so far
        assert gone(int((folder / "pid").read_text(encoding="utf-8")))


def gone(pid):
    """Whether a process has ended, or does so within a few seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = f"/proc/{pid}/status"
        if os.path.exists(status):
            with open(status, encoding="utf-8") as file:
                if "State:\tZ" in file.read():  # it has ended, and nobody has asked how
                    return True
        time.sleep(0.05)
    return False


def test_the_command_says_what_failed(tmp_path, capsys):
    folder = write(tmp_path / "p", "def data():\n    raise KeyError('images')\n")
    assert command(["check", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "data with seed 0 failed:" in said and "KeyError: 'images'" in said
