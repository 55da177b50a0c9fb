"""What earns a milestone, and what does not: the programs here stand in for those of examples/."""

import json

import pytest
from click.testing import CliRunner

from tt_tito import cli, course

PROGRAM = """
import json, sys
from pathlib import Path
row = {{"claim": "it learns", "measured": "2", "threshold": "1", "reached": {reached}, "lacking": {lacking!r}}}
file = Path(sys.argv[sys.argv.index("--json") + 1])
file.write_text(json.dumps({{"schema": 1, "results": [row]}}), encoding="utf-8")
sys.exit({reached} is False)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs an example in a workspace where every chapter is the course's; the exit status, and what tito says."""
    monkeypatch.delenv("TT_SWAP", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(course, "examples", lambda: tmp_path / "examples")
    tito = CliRunner().invoke
    assert tito(cli.tito, ["setup"]).exit_code == 0
    for chapter in course.written():
        assert tito(cli.tito, ["use", chapter.slug, "reference"]).exit_code == 0

    def run(script, *arguments, reached=True, lacking=None):
        file = tmp_path / "examples" / script
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PROGRAM.format(reached=reached, lacking=lacking), encoding="utf-8")
        done = tito(cli.tito, ["examples", "run", file.parent.name, *arguments])
        status = json.loads(tito(cli.tito, ["status", "--json"]).output)
        earned = [milestone["number"] for milestone in status["milestones"] if "earned" in milestone]
        return done.exit_code, " ".join(done.output.split()), earned

    return run


@pytest.mark.parametrize("arguments", [[], ["--train"]], ids=" ".join)
def test_xor_earns_its_milestone_by_hand_and_with_autograd(run, arguments):
    status, said, earned = run("xor_1969/minsky_xor_problem.py", *arguments)
    assert (status, earned) == (0, [2]) and "Milestone 2 is earned" in said


def test_thresholds_for_other_data_are_reached_and_earn_nothing(run):
    status, said, earned = run("lenet_1998/train_mnist.py", lacking="MNIST")
    assert (status, earned) == (0, [])
    assert "lenet_1998 reached every threshold, but its milestone needs MNIST." in said
    assert run("lenet_1998/train_mnist.py")[2] == [3]


def test_a_miss_earns_nothing(run):
    status, said, earned = run("xor_1969/minsky_xor_problem.py", reached=False)
    assert (status, earned) == (1, []) and "missed: it learns" in said
