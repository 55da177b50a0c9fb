"""Where the parts of the course are, in a clone and in an environment that has only wheels."""

from __future__ import annotations

import functools
import tomllib
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from tt_tito import exercises
from tt_tito.curriculum import Chapter, Package, chapters

__all__ = [
    "examples",
    "folder",
    "foreign",
    "hints",
    "installed",
    "integration_tests",
    "locate",
    "reference",
    "solution",
    "tests",
    "unit_tests",
    "written",
]


@functools.cache
def locate(name: str) -> ModuleSpec | None:
    """The spec of an installed module, found without importing anything and past any stand-in; None for none."""
    spec, path = None, None
    for part in range(1, name.count(".") + 2):
        spec = PathFinder.find_spec(".".join(name.split(".")[:part]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def folder(package: str) -> Path:
    """The folder of an installed package, by either of its names. ModuleNotFoundError if it is not installed."""
    spec = locate(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise ModuleNotFoundError(f"{name} is not installed: pip install {name}", name=package)
    return Path(next(iter(spec.submodule_search_locations)))


def reference(chapter: Chapter) -> Path:
    """The file of a chapter as the course has it. ModuleNotFoundError if it is not installed."""
    file = folder(chapter.package) / f"{chapter.slug}.py"
    if not file.is_file():
        raise ModuleNotFoundError(
            f"{chapter} is not installed: {file.parent} has no {file.name}. If another package of that name hides the "
            "course's, `tito doctor` says so",
            name=chapter.module,
        )
    return file


def foreign(package: Package) -> Path | None:
    """The folder of a strange package under a name of the course's, without its chapters; None if there is none."""
    found = locate(package.module)
    if found is None or any(locate(f"{package.module}.{slug}") for slug in package.chapters):
        return None
    return Path(found.origin or package.module).parent


def installed(chapter: Chapter) -> bool:
    """Whether the chapter is written and installed."""
    return chapter in written()


@functools.cache
def written() -> tuple[Chapter, ...]:
    """The chapters that are written and installed here, in the order of the course."""
    return tuple(c for c in chapters() if locate(c.module))


def tests(package: str) -> Path:
    """The folder of a package's tests: inside the package in a wheel, beside its sources in a clone."""
    inside = folder(package) / "tests"
    return inside if inside.is_dir() else folder(package).parents[1] / "tests"


def unit_tests(chapter: Chapter) -> Path:
    """The file of a chapter's unit tests."""
    return tests(chapter.package) / f"test_{chapter.slug}.py"


def integration_tests(chapter: Chapter) -> Path:
    """The file of a chapter's integration tests."""
    return tests(chapter.package) / "integration" / f"test_{chapter.slug}.py"


def solution(chapter: Chapter, name: str) -> Path:
    """The file of one of the answers to a chapter's exercises beside the reference's: the right ones are `one`, `two`
    and `three`."""
    return tests(chapter.package) / "solutions" / chapter.slug / f"{name}.py"


def words(chapter: Chapter) -> int:
    """The number of words in a chapter's prose."""
    lines = reference(chapter).read_text(encoding="utf-8").splitlines()
    prose = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    return sum(any(sign.isalnum() for sign in word) for word in prose.split())


def lines_to_write(chapter: Chapter) -> int:
    """The number of lines in the reference's answers to the exercises without a star."""
    text = reference(chapter).read_text(encoding="utf-8")
    wanted = {exercise.name for exercise in exercises.exercises(text) if not exercise.starred}
    nodes = exercises.functions(exercises.parse(text))
    return sum(len(exercises.body_lines(nodes[name])) for name in wanted)


def hints(chapter: Chapter) -> dict[str, list[str]]:
    """The hints for each exercise of a chapter, from a nudge to nearly the answer."""
    file = tests(chapter.package) / "hints.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")).get(chapter.slug, {}) if file.is_file() else {}


def examples() -> Path:
    """The folder of the example programs: inside this package in a wheel, at the root of a clone."""
    here = Path(__file__).parent
    return here / "examples" if (here / "examples").is_dir() else here.parents[3] / "examples"
