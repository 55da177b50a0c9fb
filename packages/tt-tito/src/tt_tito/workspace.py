"""A learner's folder: `work/` with their chapters, `tt.toml` with what is in use, `.tito/` with the course's notes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from tt_tito import course, exercises, files, reading, finder, swap
from tt_tito.curriculum import Chapter, chapters, packages

__all__ = ["NoWorkspace", "Workspace", "available", "fingerprint", "known_name", "skeleton"]

TT_TOML = """\
# Which implementation of a chapter is in use, for all code that runs in this folder or below it.
# `tito use` and `tito module complete` write here, and so may you:
#
#   autograd = "work/autograd.py"     your own
#   losses = "reference"              taken from the course
#   tt-optim = "my_optim"             a whole package: a folder, or a module

[use]
"""
IGNORED = ".tito/\n__pycache__/\n"


class NoWorkspace(ValueError):
    """The working directory is not in a workspace."""


class Workspace:
    """The folder that holds `tt.toml`, and what is beside it."""

    def __init__(self, root: Path):
        self.root = root
        self.config, self.work, self.state = root / "tt.toml", root / "work", root / ".tito"

    @classmethod
    def here(cls) -> Workspace:
        """The workspace of the working directory: the nearest folder, from here upwards, with a tt.toml."""
        found = finder.search(str(Path.cwd()))
        if found is None:
            raise NoWorkspace("there is no workspace in this folder or above it: make one with `tito setup`")
        space = cls(Path(found).parent)
        space._demand_folders()
        return space

    @classmethod
    def create(cls, root: Path) -> tuple[Workspace, list[str]]:
        """Make a workspace in a folder; returns it, and the names of what was made. Existing files are not changed.
        ValueError inside another workspace."""
        space = cls(root.resolve())
        around = finder.search(str(space.root))
        if around and Path(around).parent != space.root:
            raise ValueError(
                f"{space.root} is inside the workspace {Path(around).parent}, so nothing was made. Work there, or make "
                "another workspace in a folder outside it"
            )
        space._demand_folders()
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

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """A lock around changes that several commands may make at once."""
        return files.locked(self.state / "lock")

    def _demand_folders(self) -> None:
        for folder in (self.work, self.state):
            if os.path.lexists(folder) and not folder.is_dir():
                raise ValueError(f"{folder} is a file, but a folder is needed there: move it away")

    # ## A chapter's file

    def file(self, chapter: Chapter) -> Path:
        """The file in which a learner writes a chapter: a Python file, or a notebook. ValueError if both exist."""
        found = self.files(chapter)
        if len(found) > 1:
            names = " and ".join(map(self.short, found))
            raise ValueError(f"{names} both exist, and either could be your chapter: move one to another folder")
        return found[0] if found else self._possible(chapter)[0]

    def files(self, chapter: Chapter) -> list[Path]:
        """The learner's files for a chapter: one, once it is started."""
        return [file for file in self._possible(chapter) if os.path.lexists(file)]

    def _possible(self, chapter: Chapter) -> tuple[Path, Path]:
        return self.work / f"{chapter.slug}.py", self.work / f"{chapter.slug}.ipynb"

    def started(self, chapter: Chapter) -> bool:
        """Whether the learner has a file for the chapter."""
        return bool(self.files(chapter))

    def source(self, chapter: Chapter) -> Path:
        """The Python file of the learner's chapter. For a notebook, it is made from the notebook now."""
        file = self.file(chapter)
        if not os.path.lexists(file):
            raise ValueError(f"{chapter} is not started: `tito module start {chapter.slug}` makes {self.short(file)}")
        if file.suffix == ".py":
            return file
        from tt_tito import notebooks

        made, text = self.state / "notebooks" / f"{chapter.slug}.py", notebooks.program(file)
        if not made.is_file() or made.read_bytes() != text.encode("utf-8"):
            files.write(made, text)
        return made

    def text(self, chapter: Chapter) -> str:
        """The text of the learner's chapter. Unreadable, with the line or the notebook's cell, if it is not Python."""
        source = self.source(chapter)
        try:
            return reading.python(source)
        except reading.Unreadable as why:
            raise reading.Unreadable(self.placed(chapter, str(why))) from None

    def placed(self, chapter: Chapter, message: str) -> str:
        """A message about the learner's chapter, whose lines are those of the file that the learner has."""
        file = self.file(chapter)
        if file.suffix == ".py":
            return message
        from tt_tito import notebooks

        return notebooks.placed(message, file)

    def left(self, chapter: Chapter) -> list[str]:
        """The exercises of a started chapter that are not written yet, without those that have a star. Unreadable for
        text that is not Python."""
        known = exercises.exercises(course.reference(chapter).read_text(encoding="utf-8"))
        return exercises.unwritten(self.text(chapter), [e.name for e in known if not e.starred])

    def start(self, chapter: Chapter, notebook: bool = False) -> Path:
        """Write the skeleton of a chapter. ValueError if the learner has a file for it: nothing is ever overwritten."""
        file = self._possible(chapter)[notebook]
        with self.locked():
            if self.started(chapter):
                raise ValueError(f"{self.short(self.file(chapter))} already exists and was not changed. Continue there")
            self._write_skeleton(chapter, file)
        return file

    def reset(self, chapter: Chapter) -> Path:
        """Replace the learner's file by the skeleton, and return where the file has been kept."""
        file = self.file(chapter)
        if not os.path.lexists(file):
            raise ValueError(f"{chapter} is not started, so there is nothing to reset")
        with self.locked():
            kept = self.backup(file)
            self._write_skeleton(chapter, file)
        return kept

    def backup(self, file: Path) -> Path:
        """Copy a file to an unused name in `.tito/backups`."""
        content, kept = reading.data(file, reading.HUGE), self._free_name(file)
        files.write(kept, content)
        return kept

    def put_aside(self, file: Path) -> Path | None:
        """Move a file, or whatever has its name, to the backups; None if there is nothing."""
        kept = self._free_name(file)
        try:
            os.replace(file, kept)
        except FileNotFoundError:
            return None
        return kept

    def _free_name(self, file: Path) -> Path:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = self.state / "backups"
        folder.mkdir(parents=True, exist_ok=True)
        names = (f"{file.stem}-{stamp}{extra}{file.suffix}" for extra in ["", *(f"-{n}" for n in range(2, 1000))])
        return next(folder / name for name in names if not os.path.lexists(folder / name))

    def _write_skeleton(self, chapter: Chapter, file: Path) -> None:
        text = skeleton(chapter)
        if file.suffix == ".py":
            files.write(file, text)
        else:
            from tt_tito import notebooks

            notebooks.write(text, file)

    # ## What is in use

    def uses(self) -> dict[str, str]:
        """The entries of tt.toml, by chapter or package. Unreadable for a tt.toml that cannot be read."""
        return {_canonical(name): value for name, value in swap.entries(self.config).items()}

    def use(self, name: str, value: str | None) -> None:
        """Write into tt.toml what stands in for a chapter or package; None removes the entry. Other entries stay."""
        self.use_all({name: value})

    def use_all(self, values: Mapping[str, str | None]) -> None:
        """The same for several names at once."""
        import tomlkit

        with self.locked():
            self.uses()  # raises what is wrong with it
            document = tomlkit.parse(reading.text(self.config))
            table = document.setdefault("use", {})
            for name, value in values.items():
                for known in [known for known in table if _canonical(known) == name]:
                    if value is None or known != name:
                        del table[known]
                if value is not None:
                    table[name] = value
            files.write(self.config, document.as_string())

    def implementation(self, chapter: Chapter) -> str:
        """The implementation in use for a chapter: `mine`, `reference` or the path or module that tt.toml names."""
        uses = self.uses()
        value = uses.get(chapter.slug) or uses.get(chapter.package) or "reference"
        if not self.is_mine(chapter, value):
            return value
        return "mine" if self.started(chapter) or chapter.slug in uses else "reference"  # of a folder, what is there

    def mine(self, chapter: Chapter) -> str:
        """The name of the learner's own file of a chapter in tt.toml."""
        file = self.file(chapter)
        return f"work/{chapter.slug}.py" if file.suffix == ".py" else f".tito/notebooks/{chapter.slug}.py"

    def is_mine(self, chapter: Chapter, value: str) -> bool:
        """Whether a value in tt.toml means the learner's own file of a chapter, however the path is written."""
        folders = (self.work, self.state / "notebooks")
        own = [*self._possible(chapter), *folders, *(folder / f"{chapter.slug}.py" for folder in folders)]
        return os.path.realpath(self.root / os.path.expanduser(value)) in map(os.path.realpath, own)

    def taken(self, chapter: Chapter) -> bool:
        """Whether tt.toml names the reference or another implementation for this chapter."""
        uses = self.uses()
        return any(name in uses and not self.is_mine(chapter, uses[name]) for name in (chapter.slug, chapter.package))

    # ## Names

    def short(self, path: Path) -> str:
        """A path, relative to the workspace if it is inside."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def skeleton(chapter: Chapter) -> str:
    """The skeleton of a chapter, with a second line about watching it and seeing its outputs."""
    text = exercises.skeleton(course.reference(chapter).read_text(encoding="utf-8"), str(chapter))
    title, rest = text.split("\n", 1)
    name = f"{chapter.number:02d}"
    shown = re.search(r"^def show_(\w+)\(\)", text, re.MULTILINE)
    show = f" See an output that the text speaks of: `tito module show {name} {shown[1]}`." if shown else ""
    return f"{title}\n# *Judged whenever you save: `tito watch {name}`.{show}*\n{rest}"


def fingerprint(file: Path) -> str:
    """The SHA-256 of a file's bytes."""
    return hashlib.sha256(reading.data(file)).hexdigest()


def known_name(name: str) -> Chapter | str:
    """The chapter of a name, or the name of a package. ValueError, with the nearest one, for other names."""
    from tt_tito.curriculum import chapter

    known = {p.name for p in packages()}
    return name.replace("_", "-") if name.replace("_", "-") in known else chapter(name)


def _canonical(name: str) -> str:
    """The tool's own name for a name in tt.toml: 03 and 03_activations are activations."""
    try:
        found = known_name(name)
    except ValueError:
        return name  # of an appendix, or an error that the finder reports
    return found if isinstance(found, str) else found.slug


def available() -> list[Chapter]:
    """The chapters that are written and installed, in the order of the course."""
    return [c for c in chapters() if c in course.written()]
