"""What a learner takes along: a wheel that installs like the course's own, with their chapters in it."""

import base64
import csv
import hashlib
import shutil
import zipfile

import pytest
from click.testing import CliRunner

from tt_tito import cli, console, course, curriculum, exercises, export
from tt_tito.swap import SwapError
from tt_tito.workspace import Workspace

ACTIVATIONS, OPTIMIZERS = curriculum.chapter("activations"), curriculum.chapter("optimizers")
MARK = 'MINE = "ja, größer"\n'
WHEEL = "tt_tensor-0.1.0+mine-py3-none-any.whl"


@pytest.fixture
def mine(tmp_path):
    """A learner's chapter 03: the reference, and a name that the reference lacks."""
    file = tmp_path / "Übung eins" / "activations.py"
    file.parent.mkdir()
    file.write_text(course.reference(ACTIVATIONS).read_text(encoding="utf-8") + MARK, encoding="utf-8")
    return file


def skeleton(chapter):
    return exercises.skeleton(course.reference(chapter).read_text(encoding="utf-8"), str(chapter))


# ## What is in it


def test_it_has_the_learners_chapter_and_the_rest_of_the_course(mine, tmp_path):
    made = export.wheel("tt-tensor", {"activations": mine}, tmp_path / "out put")
    assert made == tmp_path / "out put" / WHEEL
    archive = zipfile.ZipFile(made)
    assert archive.testzip() is None
    names = archive.namelist()
    assert archive.read("tt_tensor/activations.py") == mine.read_bytes()
    for path in course.folder("tt-tensor").glob("*.*"):
        if path.stem != "activations":
            assert archive.read(f"tt_tensor/{path.name}") == path.read_bytes()
    tests = course.tests("tt-tensor")
    for path in ("hints.toml", "test_tensor.py", "integration/test_losses.py"):
        assert archive.read(f"tt_tensor/tests/{path}") == (tests / path).read_bytes()
    assert len(set(names)) == len(names)


def test_what_programs_leave_in_a_folder_is_not_in_it(mine, tmp_path, monkeypatch):
    copy = tmp_path / "tt_tensor"
    shutil.copytree(course.folder("tt-tensor"), copy)
    for left in ("__pycache__/tensor.cpython-311.pyc", ".DS_Store", "data/.cache/x"):
        (copy / left).parent.mkdir(parents=True, exist_ok=True)
        (copy / left).write_bytes(b"")
    monkeypatch.setattr(course, "folder", lambda name: copy)
    names = zipfile.ZipFile(export.wheel("tt-tensor", {"activations": mine}, tmp_path)).namelist()
    assert "tt_tensor/tensor.py" in names
    assert not [name for name in names if "cache" in name or "DS_Store" in name]


def test_its_metadata_is_the_packages_but_for_the_version(tmp_path):
    made = export.wheel("tt-optim", {"optimizers": course.reference(OPTIMIZERS)}, tmp_path)
    archive = zipfile.ZipFile(made)
    metadata = archive.read("tt_optim-0.1.0+mine.dist-info/METADATA").decode()
    lines = metadata.split("\n\n")[0].splitlines()
    wanted = {"Name: tt-optim", "Version: 0.1.0+mine", "Requires-Dist: tt-tensor==0.1.0", "Requires-Python: >=3.11"}
    assert wanted <= set(lines) and "Version: 0.1.0" not in lines
    assert "Tag: py3-none-any" in archive.read("tt_optim-0.1.0+mine.dist-info/WHEEL").decode().splitlines()


def test_the_record_names_every_file_with_its_hash(mine, tmp_path):
    archive = zipfile.ZipFile(export.wheel("tt-tensor", {"activations": mine}, tmp_path))
    itself = "tt_tensor-0.1.0+mine.dist-info/RECORD"
    rows = list(csv.reader(archive.read(itself).decode().splitlines()))
    assert [path for path, *_ in rows] == archive.namelist() and rows[-1] == [itself, "", ""]
    for path, digest, size in rows[:-1]:
        data = archive.read(path)
        wanted = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={wanted}", len(data))


def test_the_same_files_give_the_same_bytes(mine, tmp_path):
    made = [export.wheel("tt-tensor", {"activations": mine}, tmp_path / out) for out in ("a", "b")]
    assert made[0].read_bytes() == made[1].read_bytes()


def test_what_was_left_out_is_the_courses_in_the_wheel(tmp_path):
    chapter = curriculum.chapter("losses")
    reference = course.reference(chapter).read_text(encoding="utf-8")
    known = exercises.exercises(reference)
    starred = [each.name for each in known if each.starred]
    file = tmp_path / "losses.py"
    required = [each.name for each in known if not each.starred]
    file.write_text(exercises.graft(skeleton(chapter), reference, required), encoding="utf-8")
    made = export.wheel("tt-tensor", {"losses": file}, tmp_path / "out")
    exported = zipfile.ZipFile(made).read("tt_tensor/losses.py").decode("utf-8")
    assert starred and exercises.unwritten(exported, starred) == [] != exercises.unwritten(
        file.read_text(encoding="utf-8"), starred
    )


# ## What is refused


def test_what_exists_is_not_overwritten(mine, tmp_path):
    (tmp_path / WHEEL).write_bytes(b"old")
    with pytest.raises(ValueError, match=r"mine-py3-none-any.whl already exists and was not changed"):
        export.wheel("tt-tensor", {"activations": mine}, tmp_path)
    assert (tmp_path / WHEEL).read_bytes() == b"old"


def test_unwritten_exercises_are_refused_unless_forced(mine, tmp_path):
    mine.write_text(skeleton(ACTIVATIONS), encoding="utf-8")
    with pytest.raises(ValueError, match=r"activations.py still has exercises to write: numeric_slope, .*--force"):
        export.wheel("tt-tensor", {"activations": mine}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export.wheel("tt-tensor", {"activations": mine}, tmp_path / "out", force=True).is_file()


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("def relu(x:\n", ValueError, "activations.py, line 1 is not Python"),
        ("x = 1\n", SwapError, "does not define: elu, .*more"),
        ("x = '\0'\n", ValueError, "null bytes"),
    ],
)
def test_what_cannot_be_the_chapter_is_refused_even_if_forced(text, error, says, mine, tmp_path):
    mine.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=says):
        export.wheel("tt-tensor", {"activations": mine}, tmp_path / "out", force=True)
    assert not (tmp_path / "out").exists()


def test_a_wheel_without_anything_of_ones_own_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no chapter of tt-optim is yours"):
        export.wheel("tt-optim", {}, tmp_path)


# ## The command


@pytest.fixture
def space(tmp_path, monkeypatch):
    space, _ = Workspace.create(tmp_path / "ein Ordner")
    monkeypatch.chdir(space.root)
    monkeypatch.delenv("TT_SWAP", raising=False)
    return space


def tito(*arguments):
    console.console.cache_clear()
    return CliRunner().invoke(cli.tito, arguments)


def test_the_command_exports_what_is_in_use(space, mine):
    space.file(ACTIVATIONS).write_bytes(mine.read_bytes())
    assert "no chapter of tt-tensor is yours" in str(tito("export", "tt-tensor").exception)
    space.use("activations", space.mine(ACTIVATIONS))
    assert tito("export", "tt-tensor").exit_code == 0
    assert MARK.encode() in zipfile.ZipFile(space.root / "export" / WHEEL).read("tt_tensor/activations.py")
    assert "already exists" in str(tito("export", "tt-tensor").exception)


def test_the_command_exports_a_notebook(space, mine):
    notebooks = pytest.importorskip("tt_tito.notebooks")
    pytest.importorskip("jupytext")
    space.file(ACTIVATIONS).write_bytes(mine.read_bytes())
    assert tito("export", "03", "--out", "mit nach Hause").exit_code == 0
    made = space.root / "mit nach Hause/activations.ipynb"
    assert notebooks.read(made) == mine.read_text(encoding="utf-8")
    made.write_text("old", encoding="utf-8")
    assert "already exists" in str(tito("export", "03", "--out", "mit nach Hause").exception)
    assert made.read_text(encoding="utf-8") == "old"
