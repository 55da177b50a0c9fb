"""The MkDocs hook: woven chapters, reference pages and the navigation, all read from the curriculum."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import shell
import weave
from benchmark_page import benchmark_tables, package_tables
from command_page import command_page
from course_map import course_list, course_path, course_table
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from program import woven_program
from source import woven_source
from teaching_page import mistakes, syllabus
from training_page import training

from tt_tito import curriculum, notebooks, workspace

ROOT = weave.ROOT  # where mkdocs.yml stands, once it has been read
EXERCISE = re.compile(r'<span class="c1">#\s*exercise(\s*\(starred\))?</span>')
EXERCISE_MARK = '<span class="tt-exercise" title="Yours to write: the skeleton leaves this body out">exercise</span>'
STARRED_MARK = '<span class="tt-exercise" title="Yours to write, or to leave out">exercise ★</span>'
MARKER = re.compile(r"<!-- tt:([a-z_]+)(?: (\S+))? -->")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    global ROOT
    ROOT = Path(config.config_file_path).parent
    config.nav = _navigation()
    return config


@event_priority(100)  # before the plugins, which must see the chapters among the files
def on_files(files: Files, config: MkDocsConfig) -> Files:
    try:
        pages = weave.weave(weave.written(ROOT), ROOT)
    except weave.WeaveError as error:
        raise PluginError(str(error)) from None
    for slug, markdown in pages.items():
        files.append(File.generated(config, f"chapters/{slug}.md", content=markdown))
    for chapter in [chapter for chapter in curriculum.chapters() if chapter.slug in pages]:
        notebook = notebooks.made_of(workspace.skeleton(chapter))
        files.append(File.generated(config, f"chapters/{chapter.slug}.ipynb", content=notebook))
    files.append(File.generated(config, "command.md", content=command_page()))
    for module, file in documented_modules():
        files.append(File.generated(config, f"reference/{module}.md", content=_reference(module, file)))
    return files


def on_page_markdown(markdown: str, page: Page, **_) -> str:
    """Fill the places marked `<!-- tt:name argument -->` in the hand-written pages, and run the commands on them."""
    try:
        return shell.live(MARKER.sub(_fill, markdown), page.file.name, ROOT)
    except weave.WeaveError as error:
        raise PluginError(str(error)) from None


def on_page_content(content: str, **_) -> str:
    """Show `# exercise` as a mark instead of a comment."""
    return EXERCISE.sub(lambda mark: STARRED_MARK if mark[1] else EXERCISE_MARK, content)


def _fill(marker: re.Match) -> str:
    name, argument = marker.groups()
    course, built = weave.read_curriculum(ROOT), {entry.slug for entry in weave.written(ROOT)}
    match name:
        case "program":
            return woven_program(ROOT / "site" / "programs" / argument, ROOT)
        case "source":
            return woven_source(argument, ROOT)
        case "benchmarks":
            return benchmark_tables(ROOT / "site" / "benchmarks")
        case "package_benchmarks":
            file = ROOT / "site" / "benchmarks" / "pytest" / "packages.json"
            return package_tables(file, [package.name for package in course.packages])
        case "training":
            return training(ROOT / "site" / "trainings" / argument)
        case "reference_table":
            return _reference_table()
        case "syllabus":
            return syllabus(argument, course, built)
        case "mistakes":
            return mistakes(ROOT)
    return {"course_path": course_path, "course_list": course_list, "course_table": course_table}[name](course, built)


# -- navigation -------------------------------------------------------------------------------------------------------


def _navigation() -> list:
    course, entries = weave.read_curriculum(ROOT), weave.written(ROOT)
    nav: list = [{"The course": "index.md"}, {"How to read": "how-to-read.md"}, {"Why this order": "why-this-order.md"}]
    for phase in course.phases:
        pages = [f"chapters/{entry.slug}.md" for entry in entries if entry.package in phase.packages]
        if pages:
            nav.append({f"{phase.number} {phase.title}": pages})
    guides = ["learn.md", "teach.md", "swapping.md", "pytorch-programs.md", "differences.md", "command.md"]
    nav.append({"In practice": guides})
    nav.append({"Measured": ["trainings.md", "benchmarks.md"]})
    packages: dict[str, list] = {}
    for module, _ in documented_modules():
        packages.setdefault(module.split(".")[0], []).append({module.split(".")[1]: f"reference/{module}.md"})
    reference = [{name: pages} for name, pages in packages.items()]
    return [*nav, {"Reference": [{"Overview": "reference/index.md"}, *reference]}]


# -- reference pages --------------------------------------------------------------------------------------------------


def documented_modules() -> list[tuple[str, Path]]:
    """(module, file) of every module with public names: chapters first, in the order of the course."""
    course = weave.read_curriculum(ROOT)
    order = {entry.module: number for number, entry in enumerate([*course.chapters, *course.appendices])}
    packages = [*(package.name for package in course.packages), "tt-tito"]
    found = []
    for name in packages:
        folder = ROOT / "packages" / name / "src" / name.replace("-", "_")
        modules = [(f"{folder.name}.{file.stem}", file) for file in folder.glob("[!_]*.py") if public_names(file)]
        found += sorted(modules, key=lambda entry: (order.get(entry[0], len(order)), entry[0]))
    return found


def _reference_table() -> str:
    rows = ["| module | names | |", "| --- | --: | --- |"]
    entries = {entry.module: entry for entry in weave.written(ROOT)}
    for module, file in documented_modules():
        entry = entries.get(module)
        told = f"[{entry}](../chapters/{entry.slug}.md)" if isinstance(entry, weave.Chapter) else ""
        rows.append(f"| [{module}]({module}.md) | {len(public_names(file))} | {told} |")
    return "\n".join(rows)


def public_names(file: Path) -> list[str]:
    """The names in a module's `__all__`, read without importing it."""
    return weave.public_names(ast.parse(file.read_text(encoding="utf-8")))


def _reference(module: str, file: Path) -> str:
    chapter = {entry.module: entry for entry in weave.written(ROOT)}.get(module)
    told = f"Told in [{chapter}](../chapters/{chapter.slug}.md)." if isinstance(chapter, weave.Chapter) else ""
    if isinstance(chapter, weave.Appendix):
        told = f"Told in the appendix [{chapter.title}](../chapters/{chapter.slug}.md)."
    names = public_names(file)
    links = " ".join(f"[`{name}`][{module}.{name}]" for name in names)
    whole = _composed(file, {name for _, other in documented_modules() for name in public_names(other)})
    entries = "\n".join(
        f"::: {module}.{name}\n    options:\n      inherited_members: {str(name in whole).lower()}\n" for name in names
    )
    return f"---\ntitle: {module}\n---\n\n# {module}\n\n{told}\n\n{links}\n{{ .tt-names }}\n\n{entries}"


def _composed(file: Path, public: set[str]) -> set[str]:
    """The classes put together from parts that have no entry of their own, so that theirs must show everything."""
    classes = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    return {node.name for node in classes if any(ast.unparse(base) not in public for base in node.bases)}
