"""A learner's folder and their progress: nothing is overwritten, nothing is lost, nothing is silently reset."""

import json
import os

import pytest

from tt_tito import course, curriculum, exercises, files
from tt_tito.progress import DamagedProgress, Progress, implementations, milestones
from tt_tito.workspace import NoWorkspace, Workspace, known_name

ACTIVATIONS, LOSSES = curriculum.chapter("activations"), curriculum.chapter("losses")


@pytest.fixture
def space(tmp_path):
    return Workspace.create(tmp_path / "a folder ü")[0]


def solve(space, chapter):
    reference = course.reference(chapter).read_text(encoding="utf-8")
    space.file(chapter).write_text(reference, encoding="utf-8")


# ## The folder


def test_setup_touches_nothing_that_exists(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work/tensor.py").write_text("mine", encoding="utf-8")
    (tmp_path / "tt.toml").write_text('[use]\nlosses = "x.py"  # note\n', encoding="utf-8")
    (tmp_path / ".gitignore").write_text("*.log\n", encoding="utf-8")
    _, made = Workspace.create(tmp_path)
    assert made == [".tito"]
    assert (tmp_path / "work/tensor.py").read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "tt.toml").read_text(encoding="utf-8") == '[use]\nlosses = "x.py"  # note\n'
    assert (tmp_path / ".gitignore").read_text(encoding="utf-8") == "*.log\n"
    assert (tmp_path / ".tito/.gitignore").read_text(encoding="utf-8") == "*\n"
    assert Workspace.create(tmp_path)[1] == []


def test_the_workspace_is_found_from_below(space, monkeypatch, tmp_path):
    monkeypatch.chdir(space.work)
    assert Workspace.here().root == space.root
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoWorkspace, match="tito setup"):
        Workspace.here()


def test_start_writes_the_skeleton_once(space):
    file = space.start(ACTIVATIONS)
    names = [e.name for e in exercises.exercises(course.reference(ACTIVATIONS).read_text(encoding="utf-8"))]
    assert space.left(ACTIVATIONS) == names
    file.write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"work/activations.py already exists and was not changed"):
        space.start(ACTIVATIONS)
    assert file.read_text(encoding="utf-8") == "x = 1\n"


def test_reset_keeps_what_was_written(space):
    file = space.start(ACTIVATIONS)
    for text in ("first\n", "second\n"):
        file.write_text(text, encoding="utf-8")
        assert space.reset(ACTIVATIONS).read_text(encoding="utf-8") == text
    assert sorted(f.read_text(encoding="utf-8") for f in (space.state / "backups").iterdir()) == ["first\n", "second\n"]
    assert len(space.left(ACTIVATIONS)) == 11
    with pytest.raises(ValueError, match="05 losses is not started"):
        space.reset(LOSSES)


def test_a_chapter_that_is_not_started(space):
    with pytest.raises(ValueError, match="`tito module start losses` makes work/losses.py"):
        space.source(LOSSES)


# ## What is in use


def test_tt_toml_is_edited_and_not_rewritten(space):
    space.config.write_text('# mine\n[use]\nlosses = "work/losses.py" # note\n\n[other]\nx = 1\n', encoding="utf-8")
    space.use("autograd", "reference")
    text = space.config.read_text(encoding="utf-8")
    assert "# mine" in text and "# note" in text and "[other]\nx = 1" in text
    assert space.uses() == {"losses": "work/losses.py", "autograd": "reference"}
    space.use("losses", None)
    assert space.uses() == {"autograd": "reference"}


def test_the_implementation_in_use(space):
    assert space.implementation(LOSSES) == "reference" and not space.taken(LOSSES)
    space.use("losses", "reference")
    assert space.implementation(LOSSES) == "reference" and space.taken(LOSSES)
    space.use("losses", "work/losses.py")
    assert space.implementation(LOSSES) == "mine" and not space.taken(LOSSES)
    space.use("losses", "other/losses.py")
    assert space.implementation(LOSSES) == "other/losses.py" and space.taken(LOSSES)
    space.use("losses", None)
    space.use("tt-tensor", "tt_torch.tensor")
    assert space.implementation(LOSSES) == "tt_torch.tensor" and space.taken(LOSSES)


def test_a_table_that_is_damaged(space):
    space.config.write_text("[use", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tt.toml cannot be read"):
        space.uses()


def test_names_of_chapters_and_packages():
    assert known_name("05_losses") == LOSSES and known_name("5") == LOSSES
    assert known_name("tt_tensor") == "tt-tensor"
    with pytest.raises(ValueError, match="Did you mean 05 losses"):
        known_name("loses")


# ## Progress


def test_progress_is_read_as_written(space):
    solve(space, LOSSES)
    progress = Progress.read(space)
    progress.complete(space, LOSSES, 11)
    progress.hints["losses.slope"] = 2
    progress.earn(milestones()[0], [{"claim": "c", "reached": True}], {"losses": "mine"})
    progress.write(space)
    assert Progress.read(space) == progress
    assert progress.done(space, LOSSES) and not progress.done(space, ACTIVATIONS)


def test_a_change_after_passing_is_seen(space):
    solve(space, LOSSES)
    progress = Progress()
    progress.complete(space, LOSSES, 11)
    assert not progress.changed(space, LOSSES)
    with space.file(LOSSES).open("a", encoding="utf-8") as stream:
        stream.write("# more\n")
    assert progress.changed(space, LOSSES)


def test_a_chapter_taken_from_the_course_counts(space):
    space.use("activations", "reference")
    assert Progress().done(space, ACTIVATIONS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"losses"', '"tensor"'),
        lambda text: text.replace('"exercises": 11', '"exercises": 12'),
        lambda text: text.replace('"data"', '"dat"'),
        lambda text: text.replace('"version": 1', '"version": "x"'),
        lambda text: "[]",
        lambda text: text.replace("completed", "complet\x00d"),
    ],
)
def test_damage_is_noticed_and_nothing_changed_until_there_is_something_instead(space, damage):
    solve(space, LOSSES)
    progress = Progress()
    progress.complete(space, LOSSES, 11)
    progress.write(space)
    file, copy = space.state / "progress.json", space.state / "progress.copy.json"
    damaged = damage(file.read_text(encoding="utf-8"))
    file.write_text(damaged, encoding="utf-8")
    for whole in (progress, None):
        with pytest.raises(DamagedProgress, match=r"\.tito/progress\.json was damaged \(") as caught:
            Progress.read(space)
        assert caught.value.copy == whole
        assert file.read_text(encoding="utf-8") == damaged
        copy.write_text(damaged, encoding="utf-8")
    with pytest.raises(DamagedProgress):
        Progress.update(space, lambda progress: progress.show_hint("losses.slope", 3))
    assert file.read_text(encoding="utf-8") == damaged
    Progress.update(space, lambda progress: progress.show_hint("losses.slope", 3), progress)
    assert Progress.read(space).hints == {"losses.slope": 1} and "losses" in Progress.read(space).chapters
    assert [f.read_text(encoding="utf-8") for f in (space.state / "backups").iterdir()] == [damaged]


def test_a_newer_format_is_left_alone(space):
    file = space.state / "progress.json"
    file.write_text(json.dumps({"version": 2, "sha256": "", "data": {"new": 1}}), encoding="utf-8")
    before = file.read_bytes()
    with pytest.raises(ValueError, match="newer tito"):
        Progress.read(space)
    assert file.read_bytes() == before


def test_implementations_carry_fingerprints(space):
    solve(space, LOSSES)
    space.use("losses", "work/losses.py")
    noted = implementations(space, [ACTIVATIONS, LOSSES])
    assert noted["activations"] == "reference"
    assert noted["losses"].startswith("mine ") and len(noted["losses"]) == 17


def test_milestones_are_numbered_in_the_order_of_the_course():
    assert [(m.number, m.chapter.slug) for m in milestones()][:4] == [
        (1, "layers"),
        (2, "optimizers"),
        (3, "spatial"),
        (4, "dataloader"),
    ]
    assert len(milestones()) == 7


# ## Files


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "deep/file.txt"
    files.write(file, "old\n")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.write(file, "new\n")
    assert file.read_text(encoding="utf-8") == "old\n"
    assert [f.name for f in file.parent.iterdir()] == ["file.txt"]
