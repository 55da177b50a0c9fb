"""The MkDocs hook: woven chapters, reference pages and the navigation, all read from the curriculum."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import counted
import diagrams
import experiments
import papers
import shell
import weave
from benchmark_page import benchmark_tables, package_tables, peer_table
from command_page import command_page
from course_map import course_map, course_table
from experiments import read_curriculum
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from navigation import connect, navigation, repository
from program import woven_program
from reading import WeaveError
from reference_page import documented_modules, in_navigation, reference, reference_table
from source import woven_source
from teaching_page import mistakes, syllabus
from training_page import training

from tt_tito import curriculum, notebooks, workspace

ROOT = experiments.ROOT  # where mkdocs.yml is, once it has been read
LOG = logging.getLogger("mkdocs.hooks.book")
EXERCISE = re.compile(r'<span class="c1">#\s*exercise(\s*\(starred\))?</span>')
EXERCISE_MARK = '<span class="tt-exercise" title="Yours to write: the skeleton leaves this body out">exercise</span>'
STARRED_MARK = '<span class="tt-exercise" title="Yours to write, or to leave out">exercise ★</span>'
MARKER = re.compile(r"(?<!`)<!-- tt:([a-z_]+)(?: (\S+))? -->")
# What a search should find first: an answer, then a chapter, then what was written by hand, then the long tail.
BOOSTS = {"questions.md": 6.0, "chapters/": 2.0, "appendix": 0.7, "reference/": 0.4, "command.md": 0.6, "": 1.5}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    global ROOT
    ROOT = Path(config.config_file_path).parent
    config.nav = navigation(ROOT)
    config.extra["repository"] = config.extra.get("repository") or repository(ROOT)
    return config


@event_priority(100)  # before the plugins, which must see the chapters among the files
def on_files(files: Files, config: MkDocsConfig) -> Files:
    try:
        pages = weave.weave(weave.written(ROOT), ROOT, LOG.info, LOG.warning)
        made = {f"chapters/{slug}.md": markdown for slug, markdown in pages.items()}
        made["command.md"] = command_page()
        shown = set(in_navigation(ROOT))
        listed = {f"reference/{module}.md": module in shown for module, _ in documented_modules(ROOT)}
        made |= {f"reference/{module}.md": reference(module, file, ROOT) for module, file in documented_modules(ROOT)}
    except WeaveError as error:
        raise PluginError(str(error)) from None
    for entry in weave.written(ROOT):
        made[f"chapters/{entry.slug}.py"] = (ROOT / entry.source).read_text(encoding="utf-8")
    for chapter in [chapter for chapter in curriculum.chapters() if chapter.slug in pages]:
        made[f"chapters/{chapter.slug}.ipynb"] = notebooks.made_of(workspace.skeleton(chapter))
    for uri, content in made.items():
        level = InclusionLevel.UNDEFINED if listed.get(uri, True) else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, uri, content=content, inclusion=level))
    return files


def on_nav(nav: Navigation, **_) -> Navigation:
    connect(nav, ROOT)
    return nav


def on_page_markdown(markdown: str, page: Page, **_) -> str:
    """Fill the places marked `<!-- tt:name argument -->` in the hand-written pages, and run the commands on them."""
    sources = {f"chapters/{entry.slug}.md": entry for entry in weave.written(ROOT)}
    entry = sources.get(page.file.src_uri)
    kind = "appendix" if isinstance(entry, weave.Appendix) else page.file.src_uri
    boost = next(value for start, value in BOOSTS.items() if kind.startswith(start))
    page.meta = {"search": {"boost": boost}, **page.meta}
    generated = page.file.generated_by is not None
    page.meta["source"] = entry.source if entry else "" if generated else f"site/{page.file.src_uri}"
    if generated:
        return markdown
    try:
        name = page.file.src_uri.removesuffix(".md").replace("/", "-")
        return diagrams.drawn(shell.live(MARKER.sub(_fill, markdown), name, ROOT))
    except WeaveError as error:
        raise PluginError(str(error)) from None


def on_page_content(content: str, **_) -> str:
    """Show `# exercise` as a mark instead of a comment, and link the papers that are named."""
    content = content.replace('class="doc-signature highlight"', 'class="doc-signature highlight" data-search-exclude')
    content = EXERCISE.sub(lambda mark: STARRED_MARK if mark[1] else EXERCISE_MARK, content)
    return papers.linked(content)


def on_post_page(output: str, **_) -> str:
    """The theme's dialog for searching has no name; screen readers want one."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"', 1)


def _fill(marker: re.Match) -> str:
    name, argument = marker.groups()
    course, built = read_curriculum(ROOT), {entry.slug for entry in weave.written(ROOT)}
    match name:
        case "count":
            return counted.count(argument, ROOT)
        case "program":
            return woven_program(ROOT / "site" / "programs" / argument, ROOT)
        case "source":
            return woven_source(argument, ROOT)
        case "benchmarks":
            return benchmark_tables(ROOT / "site" / "benchmarks")
        case "peers":
            return peer_table(ROOT / "site" / "benchmarks")
        case "package_benchmarks":
            file = ROOT / "site" / "benchmarks" / "pytest" / "packages.json"
            return package_tables(file, [package.name for package in course.packages])
        case "training":
            return training(ROOT / "site" / "trainings" / argument)
        case "reference_table":
            return reference_table(ROOT)
        case "syllabus":
            return syllabus(argument, course, built)
        case "mistakes":
            return mistakes(ROOT)
        case "repository":
            return _repository()
    return {"course_map": course_map, "course_table": course_table}[name](course, built)


def _repository() -> str:
    """How to come by a clone: with its address, where this one was made from a place on the Web."""
    url = repository(ROOT)
    return f"[the repository]({url})" if url else "the repository"
