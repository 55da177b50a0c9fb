"""A learner's folder: `work/` with their chapters, `tt.toml` with what is in use, `.tito/` with the course's notes."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from tt_tito import course, exercises, files, startup
from tt_tito.curriculum import Chapter, chapters, packages

__all__ = ["NoWorkspace", "Workspace", "available", "fingerprint", "known_name"]

TT_TOML = """\
# What stands in for which chapter, for everybody who imports it from this folder or one below it.
# `tito use` and `tito module complete` write here; you may, too:
#
#   autograd = "work/autograd.py"     your own
#   losses = "reference"              taken from the course
#   tt-tensor = "tt_torch.tensor"     a whole package

[use]
"""
IGNORED = ".tito/\n__pycache__/\n"


class NoWorkspace(ValueError):
    """There is no workspace here."""


class Workspace:
    """The folder that holds `tt.toml`, and what lies beside it."""

    def __init__(self, root: Path):
        self.root = root
        self.config, self.work, self.state = root / "tt.toml", root / "work", root / ".tito"

    @classmethod
    def here(cls) -> Workspace:
        """The workspace of the working directory: the nearest folder, from here upwards, with a tt.toml."""
        found = startup.search(str(Path.cwd()))
        if found is None:
            raise NoWorkspace("there is no workspace in this folder or above it: make one with `tito setup`")
        return cls(Path(found).parent)

    @classmethod
    def create(cls, root: Path) -> tuple[Workspace, list[str]]:
        """Make a workspace in a folder; also what was made. What exists stays as it is."""
        space = cls(root.resolve())
        made = [name for name in ("work", ".tito") if not (root / name).exists()]
        for name in ("work", ".tito"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for name, text in (("tt.toml", TT_TOML), (".gitignore", IGNORED)):
            if not (root / name).exists():
                files.write(root / name, text)
                made.append(name)
        if not (space.state / ".gitignore").exists():
            files.write(space.state / ".gitignore", "*\n")  # whatever the folder's own .gitignore says
        return space, made

    # ## A chapter's file

    def file(self, chapter: Chapter) -> Path:
        """Where a learner writes a chapter: a Python file, or a notebook if there is one."""
        notebook = self.work / f"{chapter.slug}.ipynb"
        return notebook if notebook.is_file() else self.work / f"{chapter.slug}.py"

    def started(self, chapter: Chapter) -> bool:
        """Has the learner a file for the chapter?"""
        return self.file(chapter).is_file()

    def source(self, chapter: Chapter) -> Path:
        """The Python file of the learner's chapter; for a notebook the one that is made of it, now."""
        file = self.file(chapter)
        if not file.is_file():
            raise ValueError(f"{chapter} is not started: `tito module start {chapter.slug}` makes {self.short(file)}")
        if file.suffix == ".py":
            return file
        from tt_tito import notebooks

        made = self.state / "notebooks" / f"{chapter.slug}.py"
        files.write(made, notebooks.read(file))
        return made

    def left(self, chapter: Chapter) -> list[str]:
        """The exercises of a started chapter that are still to be written. SyntaxError for what is not Python."""
        names = [e.name for e in exercises.exercises(course.reference(chapter).read_text(encoding="utf-8"))]
        return exercises.unwritten(self.source(chapter).read_text(encoding="utf-8"), names)

    def start(self, chapter: Chapter, notebook: bool = False) -> Path:
        """Write the skeleton of a chapter. ValueError if the learner has a file for it: nothing is ever overwritten."""
        if self.started(chapter):
            raise ValueError(f"{self.short(self.file(chapter))} exists and stays as it is: go on with it")
        file = self.work / f"{chapter.slug}{'.ipynb' if notebook else '.py'}"
        self._write_skeleton(chapter, file)
        return file

    def reset(self, chapter: Chapter) -> Path:
        """Put the skeleton back in the place of the learner's file, and return where that has been kept."""
        file = self.file(chapter)
        if not file.is_file():
            raise ValueError(f"{chapter} is not started, so there is nothing to reset")
        kept = self.backup(file)
        self._write_skeleton(chapter, file)
        return kept

    def backup(self, file: Path) -> Path:
        """Copy a file to a name in `.tito/backups` that is not taken."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = self.state / "backups"
        folder.mkdir(parents=True, exist_ok=True)
        names = (f"{file.stem}-{stamp}{extra}{file.suffix}" for extra in ["", *(f"-{n}" for n in range(2, 1000))])
        kept = next(folder / name for name in names if not (folder / name).exists())
        kept.write_bytes(file.read_bytes())
        return kept

    def _write_skeleton(self, chapter: Chapter, file: Path) -> None:
        text = exercises.skeleton(course.reference(chapter).read_text(encoding="utf-8"), str(chapter))
        if file.suffix == ".py":
            files.write(file, text)
        else:
            from tt_tito import notebooks

            notebooks.write(text, file)

    # ## What is in use

    def uses(self) -> dict[str, str]:
        """What tt.toml says is in use, by chapter or package. ValueError for a tt.toml that cannot be read."""
        return dict(self._document().get("use", {}))

    def use(self, name: str, value: str | None) -> None:
        """Write into tt.toml what stands in for a chapter or package; None takes the entry out. The rest stays."""
        document = self._document()
        table = document.setdefault("use", {})
        if value is None:
            table.pop(name, None)
        else:
            table[name] = value
        files.write(self.config, document.as_string())

    def implementation(self, chapter: Chapter) -> str:
        """What is in use for a chapter: `mine`, `reference` or the path or module that tt.toml names."""
        uses = self.uses()
        value = uses.get(chapter.slug) or uses.get(chapter.package) or "reference"
        return "mine" if value == self.mine(chapter) else value

    def mine(self, chapter: Chapter) -> str:
        """How tt.toml names the learner's own file of a chapter."""
        file = self.file(chapter)
        return f"work/{chapter.slug}.py" if file.suffix == ".py" else f".tito/notebooks/{chapter.slug}.py"

    def taken(self, chapter: Chapter) -> bool:
        """Has the learner said that this chapter is to be the reference's, or somebody else's?"""
        mine, uses = self.mine(chapter), self.uses()
        return any(uses.get(name, mine) != mine for name in (chapter.slug, chapter.package))

    def _document(self):
        import tomlkit

        try:
            return tomlkit.parse(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.short(self.config)} cannot be read: {error}") from error

    # ## Names

    def short(self, path: Path) -> str:
        """A path as it is said to somebody who stands in the workspace."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def fingerprint(file: Path) -> str:
    """The SHA-256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def known_name(name: str) -> Chapter | str:
    """The chapter of a name, or the name of a package. ValueError with the nearest for neither."""
    from tt_tito.curriculum import chapter

    known = {p.name for p in packages()}
    return name.replace("_", "-") if name.replace("_", "-") in known else chapter(name)


def available() -> list[Chapter]:
    """The chapters that are written and installed, in the order of the course."""
    return [c for c in chapters() if c in course.written()]
