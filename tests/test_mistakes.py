"""The tests are tested: each mistake is planted in a copy, where the chapter's own tests must name its cause.

This is done twice: in a copy of the packages, with pytest, and in a learner's file, which is graded."""

import ast
import compileall
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tt_tito import course, curriculum
from tt_tito.judge import assess, recording

ROOT = Path(__file__).parents[1]
BANK = {"T": 8, "A": 7, "L": 8, "C": 6, "O": 8, "G": 11, "N": 4, "S": 4, "D": 3, "K": 3, "M": 4, "P": 2}
TESTS = {
    "T": "tt-tensor/tests/test_tensor.py",
    "A": "tt-tensor/tests/test_activations.py",
    "L": "tt-tensor/tests/test_layers.py",
    "C": "tt-tensor/tests/test_losses.py",
    "O": "tt-optim/tests/test_optimizers.py",
    "G": "tt-autograd/tests/test_autograd.py",
    "N": "tt-autograd/tests/test_training.py",
    "S": "tt-spatial/tests/test_spatial.py",
    "D": "tt-data/tests/test_dataloader.py",
    "K": "tt-nlp/tests/test_tokenization.py",
    "K3": "tt-nlp/tests/test_embeddings.py",
    "M": "tt-nlp/tests/test_attention.py",
    "P": "tt-nlp/tests/test_transformers.py",
}
ENVIRONMENT = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # now: while tests run, pytest writes into it
LONGEST = 12  # lines of a message
PLANTED, HANDED_IN = "test_a_planted_mistake", "test_a_mistake_that_is_handed_in"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Mutant:
    """A mistake, as edits of the reference, and the words in which the tests have to name its cause."""

    id: str
    mistake: str
    edits: list
    says: list

    @property
    def chapter(self):
        """The key of TESTS that the id begins with; of two, the longer one."""
        return max(filter(self.id.startswith, TESTS), key=len)


MUTANTS = [
    Mutant(**entry)
    for entry in tomllib.loads((ROOT / "tests/mistakes/mutants.toml").read_text(encoding="utf-8"))["mutant"]
]


def plant(mutant, sources, folder):
    """Copy the packages that the mutant changes from `sources` to `folder`, with its edits."""
    for old, new in mutant.edits:
        places = [file for file in sources.glob("*/*.py") for _ in range(file.read_text(encoding="utf-8").count(old))]
        if len(places) != 1:
            raise ValueError(f"{mutant.id}: this text occurs {len(places)} times in the sources, not once: {old}")
        package = places[0].parent.name
        if not (folder / package).exists():
            shutil.copytree(sources / package, folder / package)
        file = folder / package / places[0].name
        file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def run_tests(letter, *folders):
    """Run a chapter's tests on the packages that are found in `folders`; the exit code and what was printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--noconftest", "-p", "no:cacheprovider", "--tb=short"]
    process = subprocess.run(
        [*command, "-c", ROOT / "pytest.toml", ROOT / "packages" / TESTS[letter]],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    return process.returncode, process.stdout + process.stderr


def message(output):
    """The lines in which the first test that failed says what is wrong."""
    return [line[1:].strip() for line in output.splitlines() if line.startswith("E ")]


def names(mutant, said):
    """Whether a message names the cause, which stands between what came out and where to look."""
    return mutant.says[0] in " ".join(said[1:-1]) and all(words in " ".join(said) for words in mutant.says)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """All packages as they are now, for nobody to change while the mistakes are planted."""
    folder = tmp_path_factory.mktemp("sources")
    for package in ROOT.glob("packages/*/src/tt_*"):
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(folder, quiet=1)
    return folder


def selected(request, test):
    """The mutants for which a test will run."""
    return [item.callspec.params["mutant"] for item in request.session.items if item.name.startswith(test)]


def tell(request, text):
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{text}")


@pytest.fixture(scope="module")
def outcomes(sources, tmp_path_factory, request):
    """For each selected mutant what the tests said; two of them run at a time."""
    mutants = selected(request, PLANTED)
    planted = tmp_path_factory.mktemp("planted")

    def judge(mutant):
        plant(mutant, sources, planted / mutant.id)
        return run_tests(mutant.chapter, planted / mutant.id, sources)

    with ThreadPoolExecutor(2) as pool:
        futures = {mutant.id: pool.submit(judge, mutant) for mutant in mutants}
        yield futures
    finished = [(mutant, *futures[mutant.id].result()) for mutant in mutants if not futures[mutant.id].exception()]
    caught = [mutant for mutant, code, _ in finished if code]
    named = [mutant for mutant, _, output in finished if names(mutant, message(output))]
    tell(request, f"{len(mutants)} mistakes planted, {len(caught)} caught, {len(named)} with the cause named")


@pytest.fixture(scope="module")
def marks(sources, tmp_path_factory, request):
    """For each selected mutant what a learner is told who hands it in; what it changes elsewhere is in use there."""
    mutants = selected(request, HANDED_IN)
    planted = tmp_path_factory.mktemp("handed in")
    chapters = {letter: curriculum.chapter(Path(test).stem.removeprefix("test_")) for letter, test in TESTS.items()}
    for letter in {mutant.chapter for mutant in mutants}:
        recording.record(chapters[letter], "unit")

    def judge(mutant):
        plant(mutant, sources, planted / mutant.id)
        chapter = chapters[mutant.chapter]
        files = {f"{file.parent.name}.{file.stem}": file for file in (planted / mutant.id).glob("*/*.py")}
        changed = {name: file for name, file in files.items() if differ(file, sources / file.parent.name / file.name)}
        return assess(chapter, changed.pop(chapter.module, course.reference(chapter)), swaps=changed, alone=False)

    with ThreadPoolExecutor(2) as pool:
        futures = {mutant.id: pool.submit(judge, mutant) for mutant in mutants}
        yield futures
    finished = [(mutant, futures[mutant.id].result()) for mutant in mutants if not futures[mutant.id].exception()]
    caught = [mutant for mutant, found in finished if found.status == "failed"]
    named = [mutant for mutant, found in finished if names(mutant, found.message.splitlines())]
    tell(request, f"{len(mutants)} mistakes handed in, {len(caught)} caught, {len(named)} with the cause named")


def differ(file, other):
    return file.read_text(encoding="utf-8") != other.read_text(encoding="utf-8")


@pytest.mark.parametrize("letter", TESTS)
def test_the_reference_passes(letter, sources):
    code, output = run_tests(letter, sources)
    assert code == 0, output


@pytest.mark.parametrize("letter", TESTS)
def test_an_empty_chapter_fails(letter, sources, tmp_path):
    stem = Path(TESTS[letter]).stem.removeprefix("test_")
    (chapter,) = sources.glob(f"*/{stem}.py")
    shutil.copytree(chapter.parent, tmp_path / chapter.parent.name)
    (tmp_path / chapter.parent.name / chapter.name).write_text("__all__ = []\n", encoding="utf-8")
    code, _ = run_tests(letter, tmp_path, sources)
    assert code in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_a_planted_mistake_is_caught_and_its_cause_named(mutant, outcomes):
    code, output = outcomes[mutant.id].result()
    said = message(output)
    assert code == pytest.ExitCode.TESTS_FAILED, f"{mutant.mistake}: {pytest.ExitCode(code).name}\n{output}"
    assert names(mutant, said), f"{mutant.mistake}: {mutant.says} are not in\n{said}"
    assert len(said) <= LONGEST and "See " in said[-1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_a_mistake_that_is_handed_in_fails_and_its_cause_is_named(mutant, marks):
    found = marks[mutant.id].result()
    said = found.message.splitlines()
    assert found.status == "failed", f"{mutant.mistake}: {found.to_json()}"
    assert names(mutant, said), f"{mutant.mistake}: {mutant.says} are not in\n{said}"
    assert len(said) <= LONGEST and said[-1].startswith("See ")


def test_the_bank_is_complete():
    numbers = Counter(re.match(r"[A-Z]\d+", mutant.id)[0] for mutant in MUTANTS)
    assert set(numbers) == {f"{letter}{i + 1}" for letter, count in BANK.items() for i in range(count)}
    assert len({mutant.id for mutant in MUTANTS}) == len(MUTANTS)


def test_an_edit_that_no_longer_applies_is_an_error(sources, tmp_path):
    with pytest.raises(ValueError, match="occurs 0 times"):
        plant(Mutant("T0", "none", [["this text is nowhere", ""]], []), sources, tmp_path)


def sections_named_in(tests):
    """The values of all `see=` in a file of tests, constants resolved; of a loop's variable, the constants it takes."""
    tree, constants = ast.parse(tests), {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=value):
                constants |= dict(zip([name.id for name in names], ast.literal_eval(value)))
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                constants[name] = value
    seen = [word.value for word in ast.walk(tree) if isinstance(word, ast.keyword) and word.arg == "see"]
    loops = [loop for loop in ast.walk(tree) if isinstance(loop, ast.For) and "see" in ast.unparse(loop.target)]
    names = {node.id for loop in loops for node in ast.walk(loop.iter) if isinstance(node, ast.Name)}
    names |= {value.id for value in seen if isinstance(value, ast.Name)} - {"see"}
    return {constants[name] for name in names} | {
        ast.literal_eval(value) for value in seen if not isinstance(value, ast.Name)
    }


@pytest.mark.parametrize("file", [*TESTS.values(), "tt-tensor/tests/test_setup.py"])
def test_messages_point_to_sections_that_exist(file):
    path = ROOT / "packages" / file
    sources = [source.read_text(encoding="utf-8") for source in path.parents[1].glob("src/tt_*/*.py")]
    titles = {title for source in sources for title in re.findall(r"^# ## (.+)$", source, re.MULTILINE)}
    named = sections_named_in(path.read_text(encoding="utf-8"))
    assert named and not named - titles
