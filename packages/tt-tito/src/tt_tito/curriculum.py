"""The course as data: phases, packages, chapters and appendices, read from `curriculum.toml`."""

from __future__ import annotations

import difflib
import functools
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

__all__ = [
    "Appendix",
    "Chapter",
    "Curriculum",
    "Package",
    "Phase",
    "appendices",
    "chapter",
    "chapters",
    "curriculum",
    "package",
    "packages",
    "packages_of_phase",
    "phases",
    "read",
]


@dataclass(frozen=True)
class Phase:
    """One of the course's five parts."""

    number: int
    title: str
    packages: tuple[str, ...]
    milestone: str


@dataclass(frozen=True)
class Package:
    """A distribution such as `tt-tensor`, and the slugs of its chapters in the order of the course."""

    name: str
    phase: int
    chapters: tuple[str, ...]

    @property
    def module(self) -> str:
        """The name that `import` takes: `tt_tensor`."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class Chapter:
    """A chapter: a module, a page, and the step from a hurt (`says`) to a capability (`unlocks`)."""

    number: int
    slug: str
    phase: int
    package: str
    title: str
    says: str
    solved_by: str
    unlocks: str
    example: str | None = None
    milestone: str | None = None

    @property
    def capability(self) -> int:
        """The number of the capability that the chapter unlocks; the first chapter unlocks number 0."""
        return self.number - 1

    @property
    def module(self) -> str:
        """The name that `import` takes: `tt_tensor.tensor`."""
        return f"{self.package.replace('-', '_')}.{self.slug}"

    @property
    def source(self) -> str:
        """The file, from the root of the repository: `packages/tt-tensor/src/tt_tensor/tensor.py`."""
        return f"packages/{self.package}/src/{self.module.replace('.', '/')}.py"

    def __str__(self) -> str:
        return f"{self.number:02d} {self.slug}"


@dataclass(frozen=True)
class Appendix:
    """The long tail of a chapter, kept out of its story. An appendix imports its chapter, and a support module is
    imported by it."""

    slug: str
    chapter: str
    package: str
    title: str
    support: bool | None = None

    @property
    def module(self) -> str:
        """The name that `import` takes: `tt_tensor.more_ops`."""
        return f"{self.package.replace('-', '_')}.{self.slug}"

    @property
    def source(self) -> str:
        """The file, from the root of the repository: `packages/tt-tensor/src/tt_tensor/more_ops.py`."""
        return f"packages/{self.package}/src/{self.module.replace('.', '/')}.py"


@dataclass(frozen=True)
class Curriculum:
    """The whole course; every tuple is in the order of the course."""

    phases: tuple[Phase, ...]
    packages: tuple[Package, ...]
    chapters: tuple[Chapter, ...]
    appendices: tuple[Appendix, ...]

    def chapter(self, name: str | int) -> Chapter:
        """The chapter called `7`, `07`, `autograd`, `07_autograd` or `07 autograd`; ValueError where there is none."""
        number, slug = _number_and_slug(str(name))
        for found in self.chapters:
            if (number, slug) in ((found.number, ""), (found.number, found.slug), (None, found.slug)):
                return found
        close = difflib.get_close_matches(slug, [c.slug for c in self.chapters], n=1)
        near = [str(c) for c in self.chapters if c.slug in close]
        advice = f"Did you mean {near[0]}?" if near else f"The chapters are {', '.join(str(c) for c in self.chapters)}"
        raise ValueError(f"There is no chapter {str(name)!r}. {advice}")

    def package(self, name: str) -> Package:
        """The package called `tt-tensor` or `tt_tensor`; ValueError where there is none."""
        wanted = name.replace("_", "-")
        for found in self.packages:
            if found.name == wanted:
                return found
        names = ", ".join(p.name for p in self.packages)
        raise ValueError(f"the course has no package {name!r}: its packages are {names}")

    def packages_of_phase(self, number: int) -> tuple[Package, ...]:
        """The packages of one phase, counted from 1; ValueError where there is none."""
        if number not in range(1, len(self.phases) + 1):
            raise ValueError(f"there is no phase {number}: the phases are 1 to {len(self.phases)}")
        return tuple(p for p in self.packages if p.phase == number)


def read(text: str, origin: str = "the curriculum") -> Curriculum:
    """Read a curriculum from TOML text; ValueError, naming `origin` and the entry, for anything that does not fit."""
    try:
        return _build(tomllib.loads(text))
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error


@functools.cache
def curriculum() -> Curriculum:
    """The curriculum of this course, read once."""
    path = Path(__file__).with_name("curriculum.toml")
    return read(path.read_text(encoding="utf-8"), path.name)


def phases() -> tuple[Phase, ...]:
    """All phases, in the order of the course."""
    return curriculum().phases


def packages() -> tuple[Package, ...]:
    """All packages that hold chapters, in the order of the course."""
    return curriculum().packages


def package(name: str) -> Package:
    """The package called `tt-tensor` or `tt_tensor`; ValueError where there is none."""
    return curriculum().package(name)


def packages_of_phase(number: int) -> tuple[Package, ...]:
    """The packages of one phase, counted from 1; ValueError where there is none."""
    return curriculum().packages_of_phase(number)


def chapters() -> tuple[Chapter, ...]:
    """All chapters, in the order of the course."""
    return curriculum().chapters


def chapter(name: str | int) -> Chapter:
    """The chapter called `7`, `07`, `autograd`, `07_autograd` or `07 autograd`; ValueError where there is none."""
    return curriculum().chapter(name)


def appendices() -> tuple[Appendix, ...]:
    """All appendices, in the order of their chapters."""
    return curriculum().appendices


def _build(data: dict[str, Any]) -> Curriculum:
    _expect("the file", data, {"order", "phases", "chapters"}, {"appendices"})
    order, entries, tails = data["order"], data["chapters"], data.get("appendices", {})
    if sorted(order) != sorted(entries):
        odd = sorted(set(order) ^ set(entries)) or sorted({slug for slug in order if order.count(slug) > 1})
        raise ValueError(f"order must name every table [chapters.*] once, and nothing else; see {', '.join(odd)}")

    entries = {slug: entries[slug] for slug in order}
    phases = tuple(_entry(Phase, f"phase {n}", entry, number=n) for n, entry in enumerate(data["phases"], start=1))
    phase_of = {package: phase.number for phase in phases for package in phase.packages}
    for slug, entry in entries.items():
        if entry.get("package") not in phase_of:
            raise ValueError(f"[chapters.{slug}] is in package {entry.get('package')!r}, which no phase has")
    chapters = tuple(
        _entry(Chapter, f"[chapters.{slug}]", entry, number=n, slug=slug, phase=phase_of[entry["package"]])
        for n, (slug, entry) in enumerate(entries.items(), start=1)
    )
    packages = tuple(
        Package(name, phase, tuple(c.slug for c in chapters if c.package == name)) for name, phase in phase_of.items()
    )
    for slug, expected in zip(order, (slug for package in packages for slug in package.chapters), strict=True):
        if slug != expected:
            raise ValueError(f"order has {slug!r} where {expected!r} of an earlier package is still to come")

    for slug, tail in tails.items():
        if tail.get("chapter") not in order:
            raise ValueError(f"[appendices.{slug}] belongs to chapter {tail.get('chapter')!r}, which is not in order")
    appendices = tuple(
        _entry(Appendix, f"[appendices.{slug}]", tail, slug=slug, package=entries[tail["chapter"]]["package"])
        for slug, tail in sorted(tails.items(), key=lambda item: order.index(item[1]["chapter"]))
    )
    return Curriculum(phases, packages, chapters, appendices)


def _entry(kind: type, where: str, table: dict[str, Any], **derived: Any) -> Any:
    """Make a `kind` of a table, whose keys are the fields of `kind` that are not derived."""
    written = {field.name: field.default is None for field in fields(kind) if field.name not in derived}
    _expect(where, table, {name for name, optional in written.items() if not optional}, set(written))
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}, **derived)


def _expect(where: str, table: dict[str, Any], required: set[str], allowed: set[str]) -> None:
    missing, unknown = required - set(table), set(table) - required - allowed
    if missing:
        raise ValueError(f"{where} lacks {', '.join(sorted(missing))}")
    if unknown:
        raise ValueError(f"{where} has unknown keys: {', '.join(sorted(unknown))}")


def _number_and_slug(name: str) -> tuple[int | None, str]:
    """Take `07_autograd` apart into 7 and `autograd`; either may be missing."""
    head, _, tail = name.strip().replace(" ", "_").partition("_")
    return (int(head), tail) if head.isdecimal() else (None, name.strip())
